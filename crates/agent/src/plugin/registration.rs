//! One resource at the kubelet: its socket, its registration, and both again whenever one of them is lost.
//!
//! What the kubelet does that matters here: when it starts, it removes all sockets beside its own. It says nothing to a
//! plugin that it drops; only the end of the stream tells. And a registration while an older stream of the resource is
//! open lives only until that one ends, so old connections are cut first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_kubelet::device_plugin::{DevicePluginServer, RegisterRequest, RegistrationClient, VERSION};
use pitcrew_kubelet::{Socket, SocketError, SocketFile};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::directory::{Directory, Identity};
use super::service::{Service, State, options};
use super::tell::Tell;
use crate::notice::Level;
use crate::snapshot::Problem;

/// The kubelet alone calls.
const MODE: u32 = 0o600;
/// How long the kubelet may take to take a registration, and then to ask for the devices: it dials for 10 s itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after the end of a stream it is clear that it wasn't the end of the kubelet.
const SETTLE: Duration = Duration::from_millis(300);
/// How long streams may take to end.
const END: Duration = Duration::from_secs(1);
/// How often our socket's file is looked at in any case.
const CHECK: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a resource stands with the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It isn't known yet.
    Beginning,
    /// There is no kubelet.
    NoKubelet,
    /// Another plugin serves.
    Rival,
    /// The kubelet has it, and was told its devices.
    Registered,
    /// It failed, and will be tried again.
    Failed(Problem),
}

/// Whether resources may be registered, as of the look with this number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Permit {
    /// Number of the last look that was asked for and has been made.
    pub(crate) looked: u64,
    /// False while another plugin serves: what is registered ends.
    pub(crate) allowed: bool,
    /// False also while another plugin may serve: nothing more is registered.
    pub(crate) clear: bool,
}

/// How all resources stand.
pub(crate) type Standings = watch::Sender<BTreeMap<String, Standing>>;

/// Keeps one resource registered.
pub(crate) struct Registrar {
    /// Our socket.
    pub(crate) socket: PathBuf,
    /// The kubelet's.
    pub(crate) kubelet: PathBuf,
    /// What is served.
    pub(crate) service: Service,
    /// What is offered.
    pub(crate) state: watch::Receiver<State>,
    /// How many streams have told the devices.
    pub(crate) told: watch::Receiver<usize>,
    /// The sockets that are there.
    pub(crate) directory: watch::Receiver<Directory>,
    /// Whether to register.
    pub(crate) permit: watch::Receiver<Permit>,
    /// Asks for a look whether another plugin serves, by a number.
    pub(crate) looks: Arc<watch::Sender<u64>>,
    /// Where it is said how it stands.
    pub(crate) standings: Arc<Standings>,
    /// Held by the one that serves this resource: a resource that goes and comes again waits for its own end.
    pub(crate) turn: Arc<Mutex<()>>,
    /// Who is told what happens.
    pub(crate) tell: Tell,
}

/// Why a socket isn't served any longer.
enum End {
    /// The resource is gone, or the plugin ends.
    Over,
    /// Begin anew, with a new socket.
    Again,
    /// The server has ended by itself.
    Crashed(String),
}

/// Pauses between attempts: each is twice as long as the one before.
struct Pauses(Duration);

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    fn reset(&mut self) {
        self.0 = SHORTEST_PAUSE;
    }
}

impl Registrar {
    /// Runs until the resource is gone or the plugin ends. Whatever fails is told and tried again.
    pub(crate) async fn run(mut self) {
        let turn = self.turn.clone();
        let _turn = turn.lock().await;
        let mut pauses = Pauses(SHORTEST_PAUSE);
        while !self.is_over() {
            // A socket is made only where it can be of use: a kubelet that starts removes it, and others look at what
            // lies in the directory.
            if self.directory.borrow().kubelet.is_none() {
                self.stand(Standing::NoKubelet);
                self.change(None).await;
                continue;
            }
            if !self.may_register().await {
                self.clearance().await;
                continue;
            }
            match Socket::bind(&self.socket, MODE).await {
                Ok(socket) => self.serve(socket, &mut pauses).await,
                Err(error) => {
                    self.stand(Standing::Failed(not_served(&error)));
                    self.change(Some(pauses.next())).await;
                }
            }
        }
        let name = self.service.resource.to_string();
        self.standings.send_modify(|standings| {
            standings.remove(&name);
        });
    }

    async fn serve(&mut self, socket: Socket, pauses: &mut Pauses) {
        let file = socket.watch();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = DevicePluginServer::new(self.service.clone());
        let mut server = Server(tokio::spawn(socket.serve(service, async move {
            // Also when the sender is dropped.
            let _ = stopped.await;
        })));
        let end = tokio::select! {
            end = self.stay(&file, pauses) => end,
            ended = &mut server.0 => End::Crashed(match ended {
                Ok(()) => "it ended".to_owned(),
                Err(error) => error.to_string(),
            }),
        };
        if self.standing() == Some(Standing::Registered) {
            self.stand(Standing::Beginning);
        }
        match end {
            End::Over => {
                drop(stop);
                let _ = timeout(END, &mut server.0).await;
            }
            End::Again => {}
            End::Crashed(why) => {
                self.say(
                    Level::Error,
                    &format!("its server has crashed and is started again: {why}"),
                );
                tokio::time::sleep(pauses.next()).await;
                return;
            }
        }
        // Nobody may find the old listener when the next one is made.
        if !server.0.is_finished() {
            server.0.abort();
            let _ = (&mut server.0).await;
        }
    }

    /// Registers, and again whenever the kubelet has forgotten. Ends when the socket is of no more use.
    async fn stay(&mut self, file: &SocketFile, pauses: &mut Pauses) -> End {
        let mut registered: Option<(Identity, Instant)> = None;
        let mut was_told = false;
        let mut was_passive = false;
        loop {
            if self.is_over() {
                return End::Over;
            }
            if !file.is_there() {
                return End::Again;
            }
            let is_passive = *self.state.borrow() == State::Passive;
            was_passive |= is_passive;
            let is_told = *self.told.borrow() > 0;
            if !self.permit.borrow().allowed {
                self.stand(Standing::Rival);
                if is_passive && is_told {
                    self.change(None).await;
                    continue;
                }
                return End::Again;
            }
            if was_passive {
                return End::Again;
            }
            let Some(kubelet) = self.directory.borrow().kubelet else {
                registered = None;
                self.stand(Standing::NoKubelet);
                self.change(None).await;
                continue;
            };
            match registered {
                Some((with, _)) if with == kubelet && is_told => {
                    was_told = true;
                    pauses.reset();
                    self.stand(Standing::Registered);
                    // A file that is removed twice between two looks at the directory is no change to it.
                    self.change(Some(CHECK)).await;
                }
                Some((with, _)) if with == kubelet && was_told => {
                    self.change(Some(SETTLE)).await;
                    if *self.told.borrow() == 0 && self.directory.borrow().kubelet == Some(kubelet) {
                        self.say(Level::Warning, "the kubelet has dropped it; registering again");
                        self.stand(Standing::Beginning);
                        registered = None;
                    }
                }
                Some((with, at)) if with == kubelet && at.elapsed() < PATIENCE => {
                    self.change(Some(PATIENCE.saturating_sub(at.elapsed()))).await;
                }
                Some((with, _)) if with == kubelet => {
                    self.stand(Standing::Failed(not_asked()));
                    registered = None;
                    self.change(Some(pauses.next())).await;
                }
                _ => {
                    if is_told && !self.are_streams_over().await {
                        return End::Again;
                    }
                    if !self.may_register().await {
                        self.change(Some(SHORTEST_PAUSE)).await;
                        continue;
                    }
                    was_told = false;
                    match self.register().await {
                        Ok(()) => registered = Some((kubelet, Instant::now())),
                        Err(why) => {
                            self.stand(Standing::Failed(why));
                            self.change(Some(pauses.next())).await;
                        }
                    }
                }
            }
        }
    }

    /// Waits a moment for streams of an earlier kubelet to end. False where one doesn't.
    async fn are_streams_over(&mut self) -> bool {
        let over = self.told.wait_for(|&told| told == 0);
        matches!(timeout(END, over).await, Ok(Ok(_)))
    }

    /// Has somebody look, and says whether to register.
    async fn may_register(&mut self) -> bool {
        let mut number = 0;
        self.looks.send_modify(|looks| {
            *looks += 1;
            number = *looks;
        });
        let looked = self.permit.wait_for(|permit| permit.looked >= number);
        let permit = tokio::select! {
            permit = looked => permit.map_or(Permit::default(), |permit| *permit),
            _ = self.state.wait_for(is_last) => return false,
        };
        if !permit.allowed {
            self.stand(Standing::Rival);
        }
        permit.clear
    }

    /// Waits until nobody else may serve.
    async fn clearance(&mut self) {
        tokio::select! {
            _ = self.permit.wait_for(|permit| permit.clear) => {}
            _ = self.state.wait_for(is_last) => {}
        }
    }

    async fn register(&self) -> Result<(), Problem> {
        let endpoint = self.socket.file_name().unwrap_or_default().to_string_lossy();
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: endpoint.into_owned(),
            resource_name: self.service.resource.to_string(),
            options: Some(options()),
        };
        let registered = async {
            let channel = pitcrew_kubelet::connect(&self.kubelet, PATIENCE)
                .await
                .map_err(|error| error.to_string())?;
            let answer = RegistrationClient::new(channel).register(request).await;
            answer.map_err(|status| status.message().to_owned())
        };
        match timeout(PATIENCE, registered).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(why)) => Err(refused(&self.service.resource, &why)),
            Err(_) => Err(refused(
                &self.service.resource,
                &format!("no answer in {PATIENCE:?}"),
            )),
        }
    }

    /// Waits until something is different, or for so long.
    async fn change(&mut self, most: Option<Duration>) {
        let pause = async {
            match most {
                Some(most) => tokio::time::sleep(most).await,
                None => std::future::pending().await,
            }
        };
        // A sender that is gone is the end of the plugin, and this task is about to be dropped.
        tokio::select! {
            _ = self.directory.changed() => {}
            _ = self.told.changed() => {}
            _ = self.permit.changed() => {}
            _ = self.state.wait_for(is_last) => {}
            () = pause => {}
        }
    }

    fn is_over(&self) -> bool {
        is_last(&self.state.borrow())
    }

    fn standing(&self) -> Option<Standing> {
        self.standings.borrow().get(&*self.service.resource).cloned()
    }

    /// Says how it stands, if that is another way than before.
    fn stand(&self, standing: Standing) {
        if self.standing().as_ref() == Some(&standing) {
            return;
        }
        match &standing {
            Standing::Registered => {
                let count = match &*self.state.borrow() {
                    State::Offered(offer) => offer.resource.devices.len(),
                    _ => 0,
                };
                self.say(
                    Level::Info,
                    &format!("registered with the kubelet, {count} devices"),
                );
            }
            Standing::NoKubelet => {
                self.say(Level::Warning, "waiting for the kubelet, which isn't there");
            }
            Standing::Failed(problem) => self.say(Level::Warning, &problem.message),
            // The manager says it once for all.
            Standing::Beginning | Standing::Rival => {}
        }
        let name = self.service.resource.to_string();
        self.standings.send_modify(|standings| {
            standings.insert(name, standing);
        });
    }

    fn say(&self, level: Level, text: &str) {
        self.tell.say(level, format!("{}: {text}", self.service.resource));
    }
}

/// A server that ends when it is dropped.
struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn is_last(state: &State) -> bool {
    matches!(state, State::Gone | State::Closed)
}

fn not_served(error: &SocketError) -> Problem {
    Problem {
        reason: "SocketFailed".to_owned(),
        message: error.to_string(),
        hint: match error {
            SocketError::InUse { .. } => {
                "another pitcrew agent runs on this node: `kubectl get pods -A -o wide` shows where from".to_owned()
            }
            _ => "see that the kubelet's directory of device plugins is there and is mounted into the agent's pod".to_owned(),
        },
    }
}

fn refused(resource: &str, why: &str) -> Problem {
    Problem {
        reason: "RegistrationFailed".to_owned(),
        message: format!("the kubelet did not take {resource}: {why}"),
        hint: "it is tried again by itself; the kubelet's log says more".to_owned(),
    }
}

fn not_asked() -> Problem {
    Problem {
        reason: "KubeletDoesNotAsk".to_owned(),
        message: format!("the kubelet took the registration and did not ask for devices in {PATIENCE:?}"),
        hint: "it is tried again by itself; the kubelet's log says more".to_owned(),
    }
}
