//! All resources of a node together, while they are served: what they offer, and whether they may be registered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_core::plugin::Resource;
use pitcrew_core::plugin::holders::{Blocked, Holding, blocked};
use pitcrew_core::plugin::preference::Preference;
use pitcrew_core::plugin::resources::Plan;
use pitcrew_kubelet::{MAX_PATH, device_plugin};
use tokio::sync::{Mutex, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::directory::Directory;
use super::foreign::{self, Rival, Signs};
use super::holders::{self, Books};
use super::ledger::Ledger;
use super::offer::{self, Offer};
use super::registration::{Permit, Registrar, Standing};
use super::service::{Service, State};
use super::sockets::socket_name;
use super::tell::Tell;
use super::{Place, Status, Wanted};
use crate::notice::Level;
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
/// How long the end may take.
pub(super) const END: Duration = Duration::from_secs(2);

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

pub(super) struct Keeper {
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
    pub(super) fn new(place: Place, tell: Tell, status: watch::Sender<Status>, ledger: Arc<Ledger>) -> Self {
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
            ledger,
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

    pub(super) async fn run(mut self, mut to_do: watch::Receiver<Option<Wanted>>) {
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
            let unhealthy = offer::unhealthy(
                resource,
                &wanted.sick,
                &wanted.withheld,
                &self.held_back,
                &wanted.answers,
            );
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
                    let changes = offer::changes(resource, &served.unhealthy, &unhealthy);
                    served.unhealthy = unhealthy;
                    tell(&self.tell, resource, changes);
                }
                // How a container gets a GPU isn't known: no pod must come for one.
                None if wanted.answers.strategies.is_empty() => {}
                None => {
                    tell(
                        &self.tell,
                        resource,
                        offer::changes(resource, &BTreeMap::new(), &unhealthy),
                    );
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
            let pods = holders::socket(&place.kubelet_dir);
            let checkpoint = holders::checkpoint(&place.kubelet_dir);
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
            unhealthy: self.unhealthy(),
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

    /// What the kubelet is told to be unhealthy, of all resources.
    fn unhealthy(&self) -> Blocked {
        let served = self.served.iter();
        let some = served.filter(|(_, served)| !served.unhealthy.is_empty());
        some.map(|(name, served)| (name.clone(), BTreeMap::clone(&served.unhealthy)))
            .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ids_are_told_shortly() {
        let ids = |count: usize| -> Vec<String> { (0..count).map(|id| id.to_string()).collect() };
        assert_eq!(several(&ids(1)), "0 is");
        assert_eq!(several(&ids(10)), "0 and 9 more are");
    }
}
