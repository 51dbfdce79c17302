//! All resources of a node together: which are served, what they offer, and whether they may be.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_core::plugin::Resource;
use pitcrew_core::plugin::config::SharingPolicy;
use pitcrew_core::plugin::holders::{Blocked, Holding, blocked};
use pitcrew_core::plugin::preference::{Preference, Topology};
use pitcrew_core::plugin::resources::Plan;
use pitcrew_kubelet::{MAX_PATH, device_plugin, pod_resources};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Mutex, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::Answers;
use super::directory::Directory;
use super::foreign::{self, Rival, Signs};
use super::holders::{self, Books, CHECKPOINT};
use super::ledger::Ledger;
use super::offer::{self, Offer};
use super::registration::{Permit, Registrar, Standing};
use super::service::{Service, State};
use super::tell::Tell;
use crate::notice::{Level, Notice};
use crate::snapshot::Problem;

/// How often the directory is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How soon the kubelet's books are looked at again while something waits for them: at first, and at last.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(2);
/// How often where nothing waits for it: who holds a GPU is in the node's status.
const NOW_AND_THEN: Duration = Duration::from_secs(10);
const RARELY: Duration = Duration::from_secs(30);
/// How long after an answer the kubelet has written it down.
const AFTER_ANSWER: Duration = Duration::from_secs(1);
/// While another plugin serves.
const RIVAL: Duration = Duration::from_millis(500);
const AFTER_CRASH: Duration = Duration::from_secs(1);
/// How long the end may take.
const END: Duration = Duration::from_secs(2);

/// Where the plugin works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The kubelet's directory, as this process reaches it.
    pub kubelet_dir: PathBuf,
    /// The same as the kubelet reaches it, for the length of paths.
    pub kubelet_dir_on_host: PathBuf,
    /// Name of the node.
    pub node: String,
}

/// What the node's resources should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// The resources.
    pub plan: Arc<Plan>,
    /// GPUs and MIG devices that must not be used, by UUID, with the reason.
    pub sick: BTreeMap<String, String>,
    /// What containers get.
    pub answers: Arc<Answers>,
    /// How the GPUs are connected.
    pub topology: Arc<Topology>,
    /// Which replicas are preferred.
    pub policy: SharingPolicy,
}

/// What there is of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Names of the resources that the kubelet has taken, and whose devices it was told.
    pub registered: BTreeSet<String>,
    /// Why something isn't as it should be; `None` is well.
    pub problem: Option<Problem>,
    /// Ids that are held back because their GPU is held in another form, or may be, by resource, with the reason.
    pub held_back: Blocked,
    /// Everything that is held, some seconds late; `None` where nobody could be asked.
    pub held: Option<Vec<Holding>>,
}

/// The device plugin: serves the resources that it is given until it is stopped or dropped.
#[derive(Debug)]
pub struct Plugins {
    wanted: watch::Sender<Option<Wanted>>,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Plugins {
    /// Starts, with no resource.
    pub fn start(place: Place, notices: UnboundedSender<Notice>) -> Self {
        let (wanted, to_do) = watch::channel(Some(Wanted::default()));
        let (sender, status) = watch::channel(Status::default());
        let tell = Tell(notices);
        let task = tokio::spawn(async move {
            loop {
                let keeper = Keeper::new(place.clone(), tell.clone(), sender.clone());
                let ended = AssertUnwindSafe(keeper.run(to_do.clone())).catch_unwind().await;
                if ended.is_ok() {
                    return;
                }
                let text = "the device plugin has crashed and is started again".to_owned();
                tell.say(Level::Error, text);
                tokio::time::sleep(AFTER_CRASH).await;
            }
        });
        Self { wanted, status, task }
    }

    /// Says what there should be from now on. Does nothing where that is so already; what only changes its devices or
    /// their health stays registered.
    pub fn update(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|current| {
            let is_new = current.as_ref() != Some(&wanted);
            if is_new {
                *current = Some(wanted);
            }
            is_new
        });
    }

    /// What there is, now and whenever it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Ends: the kubelet sees its streams end, and holds the devices for unhealthy until somebody registers them
    /// again. Nothing that was handed out changes by that.
    pub async fn stop(mut self) {
        self.wanted.send_replace(None);
        let _ = tokio::time::timeout(END, &mut self.task).await;
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One resource that is served.
struct Served {
    state: watch::Sender<State>,
    told: watch::Receiver<usize>,
    unhealthy: Arc<BTreeMap<String, String>>,
    registrar: AbortHandle,
}

/// A look at the kubelet's books.
struct Look {
    /// Number of the last look that had been asked for when it began.
    number: u64,
    /// Version of the wanted devices when it began.
    version: u64,
    began: Instant,
    books: Books,
    allocatable: Result<Vec<(String, Vec<String>)>, String>,
    socket: Option<String>,
}

struct Keeper {
    place: Place,
    tell: Tell,
    status: watch::Sender<Status>,
    wanted: Wanted,
    /// Each resource, and which of its devices to prefer.
    resources: Vec<(Arc<Resource>, Arc<Preference>)>,
    /// Counts changes of the devices.
    version: u64,
    served: BTreeMap<String, Served>,
    registrars: JoinSet<()>,
    turns: BTreeMap<String, Arc<Mutex<()>>>,
    directory: watch::Sender<Directory>,
    permit: watch::Sender<Permit>,
    looks: Arc<watch::Sender<u64>>,
    standings: Arc<watch::Sender<BTreeMap<String, Standing>>>,
    ledger: Arc<Ledger>,
    rival: Rival,
    /// What was judged by books that were read after it came.
    judged: BTreeSet<(String, String)>,
    held_back: Blocked,
    held: Vec<Holding>,
    /// False where the last look could not tell what is held.
    held_now: bool,
    failure: Option<String>,
    next_look: Option<Instant>,
    pause: Duration,
    kubelet_since: Option<Instant>,
}

impl Keeper {
    fn new(place: Place, tell: Tell, status: watch::Sender<Status>) -> Self {
        let directory = Directory::read(&plugins_dir(&place.kubelet_dir));
        Self {
            place,
            tell,
            status,
            wanted: Wanted::default(),
            resources: Vec::new(),
            version: 0,
            served: BTreeMap::new(),
            registrars: JoinSet::new(),
            turns: BTreeMap::new(),
            kubelet_since: directory.kubelet.map(|_| Instant::now()),
            directory: watch::Sender::new(directory),
            permit: watch::Sender::new(Permit {
                looked: 0,
                allowed: true,
                clear: true,
            }),
            looks: Arc::new(watch::Sender::new(0)),
            standings: Arc::new(watch::Sender::new(BTreeMap::new())),
            ledger: Arc::default(),
            rival: Rival::default(),
            judged: BTreeSet::new(),
            held_back: Blocked::new(),
            held: Vec::new(),
            held_now: false,
            failure: None,
            next_look: None,
            pause: SOON,
        }
    }

    async fn run(mut self, mut to_do: watch::Receiver<Option<Wanted>>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = self.looks.subscribe();
        let mut standings = self.standings.subscribe();
        let mut look: Option<BoxFuture<'static, Look>> = None;
        to_do.mark_changed();
        loop {
            let due = self.next_look.filter(|_| look.is_none());
            let is_looking = look.is_some();
            tokio::select! {
                changed = to_do.changed() => {
                    let wanted = to_do.borrow_and_update().clone();
                    match wanted.filter(|_| changed.is_ok()) {
                        Some(wanted) => self.want(wanted),
                        None => break,
                    }
                }
                _ = tick.tick() => self.look_at_directory(),
                found = under_way(&mut look), if is_looking => {
                    look = None;
                    self.found(found);
                }
                _ = asked.changed(), if !is_looking => {
                    look = Some(self.look());
                }
                () = self.ledger.noted() => {
                    let soon = Instant::now() + AFTER_ANSWER;
                    self.next_look = Some(self.next_look.map_or(soon, |next| next.min(soon)));
                }
                () = at(due), if due.is_some() => look = Some(self.look()),
                Some(ended) = self.registrars.join_next() => self.ended(ended.is_err()),
                _ = standings.changed() => {}
            }
            self.report();
        }
        for served in self.served.values() {
            served.state.send_replace(State::Closed);
        }
        let ended = async { while self.registrars.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(END, ended).await;
    }

    /// Takes in what there should be.
    fn want(&mut self, wanted: Wanted) {
        let all = ids(&wanted.plan);
        if all != ids(&self.wanted.plan) {
            self.version += 1;
            self.judged.retain(|known| all.contains(known));
            self.pause = SOON;
            self.next_look = Some(Instant::now());
        }
        self.wanted = wanted;
        let Wanted {
            plan,
            topology,
            policy,
            ..
        } = &self.wanted;
        let prepared = plan.resources.iter().map(|resource| {
            let preference = Preference::new(resource, topology, *policy);
            (Arc::new(resource.clone()), Arc::new(preference))
        });
        self.resources = prepared.collect();
        let names: BTreeSet<&str> = self
            .resources
            .iter()
            .map(|(resource, _)| resource.name.as_str())
            .collect();
        let gone: Vec<String> = self
            .served
            .keys()
            .filter(|name| !names.contains(name.as_str()))
            .cloned()
            .collect();
        for name in gone {
            if let Some(served) = self.served.remove(&name) {
                served.state.send_replace(State::Gone);
                self.tell
                    .say(Level::Info, format!("{name}: no longer on this node"));
            }
        }
        self.judge();
        self.offer();
    }

    /// Makes the offers anew, and serves resources that aren't yet.
    fn offer(&mut self) {
        let wanted = self.wanted.clone();
        for (resource, preference) in self.resources.clone() {
            let resource = &resource;
            let unhealthy = offer::unhealthy(resource, &wanted.sick, &self.held_back, &wanted.answers);
            let unhealthy = Arc::new(unhealthy);
            let state = match self.rival.sign() {
                Some(sign) if sign.is_of(&resource.name) => State::Passive,
                _ => State::Offered(Arc::new(Offer {
                    resource: resource.clone(),
                    unhealthy: unhealthy.clone(),
                    answers: wanted.answers.clone(),
                    preference,
                })),
            };
            match self.served.get_mut(&resource.name) {
                Some(served) => {
                    served.state.send_if_modified(|current| {
                        let is_new = *current != state;
                        if is_new {
                            *current = state;
                        }
                        is_new
                    });
                    let changes = offer::changes(&served.unhealthy, &unhealthy);
                    served.unhealthy = unhealthy;
                    tell(&self.tell, resource, changes);
                }
                // How a container gets a GPU isn't known: no pod must come for one.
                None if wanted.answers.strategies.is_empty() => {}
                None => {
                    tell(&self.tell, resource, offer::changes(&BTreeMap::new(), &unhealthy));
                    let served = self.serve(&resource.name, state, unhealthy);
                    self.served.insert(resource.name.clone(), served);
                }
            }
        }
    }

    fn serve(&mut self, name: &str, state: State, unhealthy: Arc<BTreeMap<String, String>>) -> Served {
        let (state, receiver) = watch::channel(state);
        let told = Arc::new(watch::Sender::new(0));
        let dir = plugins_dir(&self.place.kubelet_dir);
        let on_host = plugins_dir(&self.place.kubelet_dir_on_host);
        let longest = dir.as_os_str().len().max(on_host.as_os_str().len());
        let file = socket_name(name, MAX_PATH.saturating_sub(longest + 1));
        let told_receiver = told.subscribe();
        let registrar = Registrar {
            socket: dir.join(file),
            kubelet: dir.join(device_plugin::SOCKET),
            service: Service {
                resource: name.into(),
                state: receiver.clone(),
                told,
                ledger: self.ledger.clone(),
                tell: self.tell.clone(),
            },
            state: receiver,
            told: told_receiver.clone(),
            directory: self.directory.subscribe(),
            permit: self.permit.subscribe(),
            looks: self.looks.clone(),
            standings: self.standings.clone(),
            turn: self.turns.entry(name.to_owned()).or_default().clone(),
            tell: self.tell.clone(),
        };
        Served {
            state,
            told: told_receiver,
            unhealthy,
            registrar: self.registrars.spawn(registrar.run()),
        }
    }

    /// A registrar has ended: by its resource's end, or by a crash, after which it is begun anew.
    fn ended(&mut self, crashed: bool) {
        if !crashed {
            return;
        }
        let dead = self.served.iter().filter(|(_, served)| {
            let is_last = matches!(*served.state.borrow(), State::Gone | State::Closed);
            served.registrar.is_finished() && !is_last
        });
        let dead: Vec<String> = dead.map(|(name, _)| name.clone()).collect();
        for name in dead {
            self.served.remove(&name);
            self.tell.say(
                Level::Error,
                format!("{name}: it has crashed and is started again"),
            );
        }
        self.offer();
    }

    fn look_at_directory(&mut self) {
        let directory = Directory::read(&plugins_dir(&self.place.kubelet_dir));
        let before = self.directory.borrow().clone();
        if directory == before {
            return;
        }
        if directory.kubelet != before.kubelet {
            self.kubelet_since = directory.kubelet.map(|_| Instant::now());
            if before.kubelet.is_some() {
                self.rival.kubelet_restarted();
            }
            self.pause = SOON;
        }
        // A plugin that comes may serve our GPUs.
        self.next_look = Some(Instant::now());
        self.directory.send_replace(directory);
    }

    /// Begins a look.
    fn look(&mut self) -> BoxFuture<'static, Look> {
        self.next_look = None;
        let number = *self.looks.borrow();
        let version = self.version;
        let began = Instant::now();
        let place = self.place.clone();
        let directory = self.directory.borrow().clone();
        let seen = self.kubelet_since.map_or(Duration::ZERO, |since| since.elapsed());
        let up = directory
            .kubelet
            .map_or(Duration::ZERO, |kubelet| kubelet.age().max(seen));
        async move {
            let plugins = plugins_dir(&place.kubelet_dir);
            let pods = place
                .kubelet_dir
                .join(pod_resources::DIR)
                .join(pod_resources::SOCKET);
            let checkpoint = plugins.join(CHECKPOINT);
            let (books, allocatable, socket) = tokio::join!(
                holders::read(&pods, &checkpoint, &place.node, up),
                foreign::allocatable(&pods),
                foreign::living_socket(&plugins, &directory),
            );
            Look {
                number,
                version,
                began,
                books,
                allocatable,
                socket,
            }
        }
        .boxed()
    }

    /// Takes in what a look has found.
    fn found(&mut self, look: Look) {
        let served = self.served.iter();
        let served = served.filter(|(_, served)| *served.told.borrow() > 0);
        let served: BTreeSet<String> = served.map(|(name, _)| name.clone()).collect();
        let resource = look
            .allocatable
            .as_ref()
            .ok()
            .and_then(|all| foreign::of_others(all, &self.wanted.plan.resources, &served));
        let signs = Signs {
            socket: look.socket,
            resource,
            asked: look.allocatable.is_ok() || self.directory.borrow().kubelet.is_some(),
        };
        let before = self.rival.sign().cloned();
        self.rival.judge(&signs, Instant::now());
        match (&before, self.rival.sign()) {
            (None, Some(sign)) => {
                let text =
                    format!("another device plugin serves this node's GPUs ({sign}): nothing is registered");
                self.tell.say(Level::Warning, text);
            }
            (Some(_), None) => self.tell.say(
                Level::Info,
                "the other device plugin is gone: taking over".to_owned(),
            ),
            _ => {}
        }
        self.failure = look.books.failure;
        self.held_now = look.books.held.is_some();
        if let Some(held) = look.books.held {
            let written = held.iter();
            let written = written.map(|holding| (holding.resource.as_str(), holding.id.as_str()));
            self.ledger.compare(&written.collect(), look.began);
            self.held = held;
            // Devices that came after it began could be handed out in their old form meanwhile.
            if look.version == self.version {
                self.judged = ids(&self.wanted.plan);
            }
        }
        self.judge();
        self.offer();
        self.permit.send_replace(Permit {
            looked: look.number,
            allowed: self.rival.sign().is_none(),
            clear: !self.rival.is_possible(),
        });
        self.plan_next_look();
    }

    fn plan_next_look(&mut self) {
        let waits = !self.held_back.is_empty();
        let pause = if self.rival.is_possible() {
            if self.rival.sign().is_some() { RIVAL } else { SOON }
        } else if waits {
            self.pause = (self.pause * 2).min(LATER);
            self.pause
        } else if self.held.is_empty() {
            RARELY
        } else {
            NOW_AND_THEN
        };
        self.next_look = Some(Instant::now() + pause);
    }

    /// Which ids are held back: those whose device is held under another id, and those of which that isn't known.
    fn judge(&mut self) {
        let recent = self.ledger.recent().into_iter().map(|(resource, id)| Holding {
            resource,
            id,
            holder: "a pod that is being started".to_owned(),
        });
        let held: Vec<Holding> = self.held.iter().cloned().chain(recent).collect();
        let mut held_back = blocked(&self.wanted.plan, &held);
        for (resource, id) in ids(&self.wanted.plan) {
            if !self.judged.contains(&(resource.clone(), id.clone())) {
                held_back
                    .entry(resource)
                    .or_default()
                    .entry(id)
                    .or_insert_with(|| "it isn't known yet whether a pod holds its GPU".to_owned());
            }
        }
        self.held_back = held_back;
    }

    fn report(&mut self) {
        let standings = self.standings.borrow().clone();
        let registered = standings
            .iter()
            .filter(|(_, standing)| **standing == Standing::Registered);
        let status = Status {
            registered: registered.map(|(name, _)| name.clone()).collect(),
            problem: self.problem(&standings),
            held_back: self.held_back.clone(),
            held: self.held_now.then(|| self.held.clone()),
        };
        self.status.send_if_modified(|current| {
            let is_new = *current != status;
            if is_new {
                *current = status;
            }
            is_new
        });
    }

    fn problem(&self, standings: &BTreeMap<String, Standing>) -> Option<Problem> {
        let problem = |reason: &str, message: String, hint: &str| Problem {
            reason: reason.to_owned(),
            message,
            hint: hint.to_owned(),
        };
        if self.wanted.plan.resources.is_empty() {
            return None;
        }
        if let Some(sign) = self.rival.sign() {
            return Some(problem(
                "OtherPluginServes",
                format!("another device plugin serves this node's GPUs: {sign}"),
                "take it off this node, e.g. `kubectl label node NODE nvidia.com/gpu.deploy.device-plugin=false \
                 --overwrite` with NVIDIA's operator; pitcrew takes over within seconds",
            ));
        }
        if self.wanted.answers.strategies.is_empty() {
            return Some(problem(
                "RuntimeUnknown",
                "how a container gets a GPU on this node isn't known, so none is offered".to_owned(),
                "`pitcrew check` says what was found of the container runtime",
            ));
        }
        if self.directory.borrow().kubelet.is_none() {
            let dir = plugins_dir(&self.place.kubelet_dir_on_host);
            return Some(problem(
                "NoKubelet",
                format!("the kubelet has no socket in {}", dir.display()),
                "see that the kubelet runs, and that its directory is mounted into the agent's pod",
            ));
        }
        let failed = standings.values().find_map(|standing| match standing {
            Standing::Failed(problem) => Some(problem.clone()),
            _ => None,
        });
        if failed.is_some() {
            return failed;
        }
        let unknown = ids(&self.wanted.plan).iter().any(|id| !self.judged.contains(id));
        let why = self.failure.as_ref().filter(|_| unknown)?;
        Some(problem(
            "HoldersUnknown",
            format!("GPUs are held back, because it can't be told whether pods hold them: {why}"),
            "see that the kubelet's directory `pod-resources` is mounted into the agent's pod",
        ))
    }
}

/// Where plugins have their sockets.
fn plugins_dir(kubelet_dir: &Path) -> PathBuf {
    kubelet_dir.join(device_plugin::DIR)
}

/// Resource and id of all devices. An id tells how its device is shared.
fn ids(plan: &Plan) -> BTreeSet<(String, String)> {
    let of = |resource: &'_ Resource| {
        let ids = resource.devices.iter().map(|device| device.id.clone());
        ids.map(|id| (resource.name.clone(), id)).collect::<Vec<_>>()
    };
    plan.resources.iter().flat_map(of).collect()
}

async fn under_way(look: &mut Option<BoxFuture<'static, Look>>) -> Look {
    match look {
        Some(look) => look.await,
        None => std::future::pending().await,
    }
}

async fn at(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

fn tell(tell: &Tell, resource: &Resource, changes: offer::Changes) {
    let name = &resource.name;
    for (why, ids) in changes.unhealthy {
        let text = format!("{name}: {} unhealthy: {why}", several(&ids));
        tell.say(Level::Warning, text);
    }
    if !changes.healthy.is_empty() {
        let text = format!("{name}: {} healthy again", several(&changes.healthy));
        tell.say(Level::Info, text);
    }
}

/// Ids as a person reads them: the first, and how many more.
fn several(ids: &[String]) -> String {
    match ids {
        [] => "nothing is".to_owned(),
        [one] => format!("{one} is"),
        [first, rest @ ..] => format!("{first} and {} more are", rest.len()),
    }
}

/// Name of a resource's socket: `pitcrew-gpu.sock` for `nvidia.com/gpu`. One that doesn't fit in has a number made of
/// its name instead.
fn socket_name(resource: &str, most: usize) -> String {
    let name = resource.strip_prefix("nvidia.com/").unwrap_or(resource);
    let file = format!("pitcrew-{}.sock", name.replace('/', "-"));
    if file.len() <= most {
        return file;
    }
    // FNV-1a: the same in every version of this program, so that no socket is forgotten at an upgrade.
    let hash = resource.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("pitcrew-{hash:016x}.sock")
}

/// True for the name of a socket that a device plugin of ours may have left in the kubelet's directory.
pub fn is_our_socket(file: &str) -> bool {
    file.starts_with("pitcrew-") && file.strip_suffix(".sock").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_called_by_their_resource_as_long_as_the_kernel_takes_the_path() {
        assert_eq!(socket_name("nvidia.com/gpu", 40), "pitcrew-gpu.sock");
        assert_eq!(
            socket_name("nvidia.com/mig-1g.10gb.me.shared", 40),
            "pitcrew-mig-1g.10gb.me.shared.sock"
        );
        assert_eq!(socket_name("example.org/gpu", 40), "pitcrew-example.org-gpu.sock");
        let long = format!("nvidia.com/{}", "a".repeat(52));
        assert_eq!(socket_name(&long, 40).len(), 29);
        assert_ne!(socket_name(&long, 40), socket_name(&format!("{long}b"), 40));
    }

    #[test]
    fn many_ids_are_told_shortly() {
        let ids = |count: usize| -> Vec<String> { (0..count).map(|id| id.to_string()).collect() };
        assert_eq!(several(&ids(1)), "0 is");
        assert_eq!(several(&ids(10)), "0 and 9 more are");
    }
}
