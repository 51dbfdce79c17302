//! The task that takes up reports, and has GPUs proved that are due.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_api::GpuNodeSpec;
use pitcrew_core::ports::HostFs;
use pitcrew_core::proof::Timestamp;
use pitcrew_core::{Gpu, Inventory};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use super::attempt::Books;
use super::attempt::{Attempt, Hands, Outcome};
use super::shelf::{DIR, Requests, Shelf, Stamp};
use super::withhold::{gated, held};
use super::{Expected, Proof, Refused, Taken, View, devices_of, due, standing, take};
use crate::deps::{Deps, Proving};
use crate::notice::{Level, Topic};
use crate::plugin::{Ledger, Status};
use crate::run::put;
use crate::snapshot::{Part, Snapshot};

/// How long what is wanted of the node may be unknown before the agent's own settings count.
const PATIENCE: Duration = Duration::from_secs(3);
/// When it is tried again where no proof could be begun.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a GPU rests after an attempt that gave no verdict: at first, and at most. In seconds.
const REST: (u32, u32) = (60, 3_600);
/// How long the end of proofs may take when the agent ends.
const END: Duration = Duration::from_secs(12);
/// How much of `/proc/stat` is read.
const STAT: usize = 1 << 20;

/// What the task is told, and tells.
#[derive(Clone)]
pub(crate) struct Channels {
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    pub(crate) wanted: watch::Receiver<Option<GpuNodeSpec>>,
    pub(crate) plugin: watch::Receiver<Status>,
    /// `None` until it is known which proofs there are, and what of an agent before this one is left.
    pub(crate) view: watch::Sender<Option<View>>,
}

/// Takes up reports and has GPUs proved until `end` is ready.
pub(crate) async fn keep(
    deps: Arc<Deps>,
    channels: Channels,
    ledger: Arc<Ledger>,
    books: Books,
    end: impl Future<Output = ()> + Send,
) {
    let mut keeper = Keeper::new(deps, channels, ledger, books);
    keeper.end_what_is_left().await;
    let mut attempt: Option<BoxFuture<'static, Outcome>> = None;
    let mut hands = keeper.hands.subscribe();
    let mut next_look = Instant::now();
    let mut end = std::pin::pin!(end);
    loop {
        keeper.see();
        // Whoever takes the driver needs it whole, and one that doesn't answer proves nothing.
        let is_away = keeper.snapshot.problems.contains_key(&Part::Driver);
        put(&keeper.stop, is_away);
        if keeper.is_ready() {
            if Instant::now() >= next_look {
                keeper.look().await;
                next_look = Instant::now() + keeper.deps.settings.pace.glance;
            }
            if attempt.is_none() && !is_away {
                attempt = keeper.plan().map(|attempt| attempt.run().boxed());
            }
            keeper.tell();
        }
        let (is_running, patient) = (attempt.is_some(), keeper.since + PATIENCE);
        tokio::select! {
            Ok(()) = keeper.channels.snapshots.changed() => {}
            Ok(()) = keeper.channels.wanted.changed() => {}
            Ok(()) = hands.changed() => {}
            outcome = under_way(&mut attempt), if is_running => {
                attempt = None;
                keeper.ended(outcome).await;
            }
            () = tokio::time::sleep_until(next_look), if keeper.is_ready() => {}
            () = tokio::time::sleep_until(patient), if !keeper.is_ready() && Instant::now() < patient => {}
            () = &mut end => break,
        }
    }
    keeper.stop.send_replace(true);
    let _ = tokio::time::timeout(END, under_way(&mut attempt)).await;
}

async fn under_way(attempt: &mut Option<BoxFuture<'static, Outcome>>) -> Outcome {
    match attempt {
        Some(attempt) => attempt.await,
        None => Outcome::default(),
    }
}

struct Keeper {
    deps: Arc<Deps>,
    channels: Channels,
    ledger: Arc<Ledger>,
    books: Books,
    /// True while no proof may run.
    stop: watch::Sender<bool>,
    since: Instant,
    shelf: Shelf,
    snapshot: Snapshot,
    view: View,
    hands: watch::Sender<Hands>,
    /// UUIDs of all GPUs and MIG devices that were ever seen: one that is lost is still this node's.
    devices: BTreeSet<String>,
    /// Reports that were read.
    seen: BTreeMap<String, Stamp>,
    /// Those of them that count, or did.
    taken: BTreeSet<String>,
    /// Which report each proof is from, by UUID of the device.
    sources: BTreeMap<String, String>,
    requests: Requests,
    /// Attempts without a verdict in a row, and until when each GPU rests.
    rests: BTreeMap<String, (u32, Timestamp)>,
    /// The last that was heard of a report in which nothing was tested.
    nothing_tested: Option<String>,
    stuck: Vec<Box<dyn Proving>>,
    not_before: Instant,
    trouble: Option<String>,
    has_looked: bool,
}

/// What was found in one file.
type Found = (String, Stamp, Result<Taken, Why>);

/// Why a file counts for nothing.
enum Why {
    Unread(String),
    Refused(Refused),
}

impl Keeper {
    fn new(deps: Arc<Deps>, mut channels: Channels, ledger: Arc<Ledger>, books: Books) -> Self {
        let shelf = Shelf::new(&deps.root);
        let snapshot = channels.snapshots.borrow_and_update().clone();
        Self {
            requests: shelf.requests(),
            deps,
            channels,
            ledger,
            books,
            stop: watch::Sender::new(false),
            since: Instant::now(),
            shelf,
            snapshot,
            view: View::default(),
            hands: watch::Sender::new(Hands::default()),
            devices: BTreeSet::new(),
            seen: BTreeMap::new(),
            taken: BTreeSet::new(),
            sources: BTreeMap::new(),
            rests: BTreeMap::new(),
            nothing_tested: None,
            stuck: Vec::new(),
            not_before: Instant::now(),
            trouble: None,
            has_looked: false,
        }
    }

    /// A proof that an agent before this one began and that nobody waits for: its GPUs are to be had again.
    async fn end_what_is_left(&mut self) {
        let left = match self.deps.prover.left().await {
            Ok(left) => left,
            Err(error) => {
                let text =
                    format!("whether a proof of an agent before this one still runs can't be told: {error}");
                self.deps.tell(Topic::Proof, Level::Warning, text);
                return;
            }
        };
        for mut proving in left {
            let text = format!(
                "a proof of {} that an agent before this one began is ended",
                proving.devices().join(", ")
            );
            self.deps.tell(Topic::Proof, Level::Warning, text);
            if !proving.end().await {
                self.stuck.push(proving);
            }
        }
    }

    /// Takes in what is known of the node.
    fn see(&mut self) {
        self.snapshot = self.channels.snapshots.borrow_and_update().clone();
        let wanted = self.channels.wanted.borrow_and_update().clone();
        let wanted = wanted.and_then(|wanted| wanted.proof);
        self.view.policy = self.deps.settings.proof.with(wanted.as_ref());
        for gpu in self.inventory().iter().flat_map(|inventory| &inventory.gpus) {
            self.devices.extend(gpu.readings.uuid.value().cloned());
            self.devices.extend(devices_of(gpu));
        }
    }

    /// True when it is known what there is and what is wanted.
    fn is_ready(&self) -> bool {
        let knows_wish = self.deps.client.is_none()
            || self.channels.wanted.borrow().is_some()
            || self.since.elapsed() >= PATIENCE;
        knows_wish && !self.devices.is_empty()
    }

    fn inventory(&self) -> Option<Arc<Inventory>> {
        self.snapshot.gpus.as_ref()?.as_ref().ok().cloned()
    }

    fn driver(&self) -> Option<String> {
        self.inventory()?.driver.version.value().cloned()
    }

    fn now(&self) -> Timestamp {
        Timestamp::of(self.deps.clock.now())
    }

    /// Reads what was handed over.
    async fn look(&mut self) {
        let expected = Expected {
            node: self.deps.settings.node.clone(),
            imaginary: self.deps.settings.imaginary,
            devices: self.devices.clone(),
            now: self.now(),
        };
        let (deps, place, seen) = (Arc::clone(&self.deps), self.shelf.clone(), self.seen.clone());
        let is_first = !self.has_looked;
        // A long one has megabytes: not on the thread that answers the kubelet.
        let looked = tokio::task::spawn_blocking(move || {
            // It doesn't change while anybody lives who could see it.
            let booted = is_first.then(|| boot_time(&*deps.host)).flatten();
            let mut found: Vec<Found> = Vec::new();
            let names = place.read(&seen, |new| {
                let taken = match new.report {
                    // A mistake of ours at one report, told by the panic's own message: the others count all the same.
                    Ok(report) => catch_unwind(AssertUnwindSafe(|| take(report, &expected)))
                        .unwrap_or(Err(Refused::Mistake))
                        .map_err(Why::Refused),
                    Err(why) => Err(Why::Unread(why)),
                };
                found.push((new.name, new.stamp, taken));
            });
            (booted, names, found)
        });
        let Ok((booted, names, found)) = looked.await else {
            self.complain(Some(
                "reports could not be looked at, which is a mistake of pitcrew: those that were taken up before count"
                    .to_owned(),
            ));
            self.has_looked = true;
            return;
        };
        self.view.booted = self.view.booted.or(booted);
        self.has_looked = true;
        match names {
            Ok(names) => {
                self.complain(None);
                self.take_in(found, &names);
            }
            Err(error) => self.complain(Some(format!(
                "`{DIR}` can't be used, so that no report is taken up: {error}"
            ))),
        }
        let mut still = Vec::new();
        for mut proving in std::mem::take(&mut self.stuck) {
            if tokio::time::timeout(Duration::from_millis(50), proving.wait())
                .await
                .is_err()
            {
                still.push(proving);
            }
        }
        self.stuck = still;
    }

    fn complain(&mut self, trouble: Option<String>) {
        if self.trouble != trouble {
            if let Some(text) = &trouble {
                self.deps.tell(Topic::Proof, Level::Warning, text.clone());
            }
            self.trouble = trouble;
        }
    }

    fn take_in(&mut self, found: Vec<Found>, names: &BTreeSet<String>) {
        let mut taken_up = Vec::new();
        for (name, stamp, taken) in found {
            self.seen.insert(name.clone(), stamp);
            match taken {
                Ok(taken) => {
                    self.take_up(&name, taken);
                    taken_up.push(name);
                }
                Err(why) => {
                    let (why, never_counts) = match why {
                        Why::Unread(why) => (why, false),
                        Why::Refused(refused) => {
                            if let Refused::NothingTested(why) = &refused {
                                self.nothing_tested = Some(why.clone());
                            }
                            (refused.to_string(), refused.is_for_good())
                        }
                    };
                    let mut text = format!("the report `{DIR}/{name}` counts for nothing: {why}");
                    // Each attempt that fails at the same would leave one more.
                    if never_counts && self.shelf.remove(&name).is_ok() {
                        text.push_str("; it is removed");
                    }
                    self.deps.tell(Topic::Proof, Level::Warning, text);
                }
            }
        }
        // What somebody took away is not said any more.
        self.seen.retain(|name, _| names.contains(name));
        self.sources.retain(|_, name| names.contains(name));
        self.view.proofs.retain(|uuid, _| self.sources.contains_key(uuid));
        self.taken.retain(|name| names.contains(name));
        // What newer ones have outlived.
        let outlived: Vec<String> = self
            .taken
            .iter()
            .filter(|name| !self.sources.values().any(|source| source == *name))
            .cloned()
            .collect();
        for name in outlived {
            // What can't be removed is not read again either: that it was seen is forgotten when it is gone.
            let _ = self.shelf.remove(&name);
            self.taken.remove(&name);
        }
    }

    /// Keeps what is newer than what is known. What says nothing of a GPU takes no verdict's place.
    fn take_up(&mut self, name: &str, taken: Taken) {
        self.taken.insert(name.to_owned());
        let mut said = Vec::new();
        for (uuid, proof) in taken.proofs {
            said.push(format!("{uuid} {}", proof.verdict));
            let old = self.view.proofs.get(&uuid);
            let counts = old.is_none_or(|old| match (old.is_verdict(), proof.is_verdict()) {
                (true, false) => false,
                (false, true) => true,
                _ => proof.started >= old.started,
            });
            if counts {
                self.sources.insert(uuid.clone(), name.to_owned());
                self.view.proofs.insert(uuid, proof);
            } else if !proof.is_verdict()
                && let Some(why) = &proof.reason
            {
                said.push(format!("({why})"));
            }
        }
        let mut text = format!("took up the report `{DIR}/{name}`: {}", said.join(" "));
        if let Some((written, judged)) = taken.differs {
            text = format!("{text}; it says {written}, and its evidence says {judged}, which counts");
        }
        let level = if taken.differs.is_some() {
            Level::Warning
        } else {
            Level::Info
        };
        self.deps.tell(Topic::Proof, level, text);
    }

    /// What is due and can begin now.
    fn plan(&mut self) -> Option<Attempt> {
        self.view.waiting.clear();
        let policy = self.view.policy.clone();
        // Where none is known what was answered stays so: the API server may be away.
        if let Some(request) = policy
            .request
            .as_ref()
            .filter(|request| **request != self.requests.request)
        {
            self.requests = Requests {
                request: request.clone(),
                answered: BTreeSet::new(),
            };
        }
        let inventory = self.inventory()?;
        let (driver, now) = (self.driver(), self.now());
        let stuck = self.stuck_gpus(&inventory);
        let mut begin = BTreeMap::new();
        for gpu in &inventory.gpus {
            let Some(uuid) = gpu.readings.uuid.value() else {
                continue;
            };
            let standing = standing(&self.view, gpu, driver.as_deref());
            let answered = self.requests.answered.contains(uuid);
            let rests_until = self.rests.get(uuid).map(|(_, until)| *until);
            if due(&policy, &standing, answered, rests_until, now).is_none() {
                continue;
            }
            match self.obstacle(gpu, uuid, &stuck) {
                Some(why) => {
                    self.view.waiting.insert(uuid.clone(), why);
                }
                None => {
                    begin.insert(uuid.clone(), devices_of(gpu));
                }
            }
        }
        if begin.is_empty() || Instant::now() < self.not_before || !self.has_looked {
            return None;
        }
        let gpus: Vec<&str> = begin.keys().map(String::as_str).collect();
        let text = format!("proving {} (profile {})", gpus.join(", "), policy.profile);
        self.deps.tell(Topic::Proof, Level::Info, text);
        self.nothing_tested = None;
        Some(Attempt {
            deps: Arc::clone(&self.deps),
            ledger: Arc::clone(&self.ledger),
            books: Arc::clone(&self.books),
            plugin: self.channels.plugin.clone(),
            resources: self.snapshot.resources.clone(),
            inventory,
            gpus: begin,
            profile: policy.profile,
            hands: self.hands.clone(),
            stop: self.stop.subscribe(),
        })
    }

    /// Why a GPU can't be proved now.
    fn obstacle(&self, gpu: &Gpu, uuid: &str, stuck: &BTreeSet<String>) -> Option<String> {
        let devices = devices_of(gpu);
        if devices.is_empty() {
            return Some("MIG is on, and no MIG device has been made".to_owned());
        }
        if stuck.contains(uuid) {
            return Some("an earlier proof of it does not end".to_owned());
        }
        let sick = &self.snapshot.sick;
        if sick.contains_key(uuid) || devices.iter().any(|device| sick.contains_key(device)) {
            return Some("it is sick".to_owned());
        }
        if let Some(problem) = self.snapshot.problems.get(&Part::Plugin) {
            return Some(problem.message.clone());
        }
        let offers = self.snapshot.resources.iter();
        let mut offers = offers.filter(|resource| resource.devices.iter().any(|device| device.gpu == uuid));
        if let Some(resource) = offers.find(|resource| !self.snapshot.registered.contains(&resource.name)) {
            return Some(format!("the kubelet has not taken {} yet", resource.name));
        }
        let Some(held) = &self.snapshot.held else {
            return Some("the kubelet does not say who holds it".to_owned());
        };
        let holders: Vec<&str> = held.get(uuid)?.iter().map(String::as_str).take(5).collect();
        (!holders.is_empty()).then(|| format!("{} holds it", holders.join(", ")))
    }

    /// GPUs of which a proof does not end.
    fn stuck_gpus(&self, inventory: &Inventory) -> BTreeSet<String> {
        if self.stuck.is_empty() {
            return BTreeSet::new();
        }
        let uuids = inventory.gpus.iter().filter_map(|gpu| gpu.readings.uuid.value());
        let devices: Vec<String> = self.stuck.iter().flat_map(|proving| proving.devices()).collect();
        held(
            &uuids.cloned().collect(),
            inventory,
            devices.iter().map(String::as_str),
        )
    }

    /// Takes in how an attempt went, and gives the GPUs back.
    async fn ended(&mut self, outcome: Outcome) {
        self.stuck.extend(outcome.stuck);
        let before = self.view.proofs.clone();
        self.look().await;
        let is_new = |devices: &[String], proofs: &BTreeMap<String, Proof>| {
            devices.iter().all(|uuid| {
                let proof = proofs.get(uuid).filter(|proof| proof.is_verdict());
                proof.is_some() && before.get(uuid) != proof
            })
        };
        let words = self.nothing_tested.take().unwrap_or(outcome.words);
        for gpu in self.inventory().iter().flat_map(|inventory| &inventory.gpus) {
            let Some(uuid) = gpu
                .readings
                .uuid
                .value()
                .filter(|uuid| outcome.begun.contains(*uuid))
            else {
                continue;
            };
            let devices = devices_of(gpu);
            if is_new(&devices, &self.view.proofs) {
                self.rests.remove(uuid);
                self.view.failed.remove(uuid);
            } else if !outcome.cut_short {
                let why = devices.iter().find_map(|uuid| {
                    let proof = self.view.proofs.get(uuid).filter(|proof| !proof.is_verdict())?;
                    proof.reason.clone()
                });
                let why = why.unwrap_or_else(|| words.clone());
                let failures = self.rests.get(uuid).map_or(0, |(failures, _)| *failures);
                let rest = REST.0.saturating_mul(2_u32.saturating_pow(failures)).min(REST.1);
                let until = Timestamp(self.now().0.saturating_add(rest));
                self.rests
                    .insert(uuid.clone(), (failures.saturating_add(1), until));
                let text = format!("the proof of {uuid} gave no verdict: {why}");
                self.deps.tell(Topic::Proof, Level::Warning, text);
                self.view.failed.insert(uuid.clone(), why);
            }
        }
        if outcome.begun.is_empty() {
            self.not_before = Instant::now() + AGAIN;
            let text = format!("no proof was begun: {words}");
            self.deps.tell(Topic::Proof, Level::Info, text);
        } else if !outcome.cut_short && self.view.policy.request.is_some() {
            self.requests.answered.extend(outcome.begun);
            if let Err(error) = self.shelf.keep_requests(&self.requests) {
                let text = format!(
                    "that a request was answered can't be written down, so that the next agent answers it again: {error}"
                );
                self.deps.tell(Topic::Proof, Level::Warning, text);
            }
        }
        self.hands.send_replace(Hands::default());
    }

    /// Tells everybody what there is of proofs.
    fn tell(&mut self) {
        let hands = self.hands.borrow().clone();
        let inventory = self.inventory();
        let gpus = inventory.as_deref().map_or(&[][..], |inventory| &inventory.gpus);
        let mut withheld = gated(&self.view, gpus, self.driver().as_deref());
        if let Some(inventory) = &inventory {
            let stuck = self.stuck_gpus(inventory).into_iter();
            let why = "a proof of it does not end: a call into the driver hangs";
            withheld.extend(stuck.map(|uuid| (uuid, why.to_owned())));
        }
        withheld.extend(hands.withheld);
        self.view.withheld = withheld;
        self.view.running = hands.running;
        let mut uuids = gpus.iter().filter_map(|gpu| gpu.readings.uuid.value());
        let is_answered = !gpus.is_empty() && uuids.all(|uuid| self.requests.answered.contains(uuid));
        if is_answered && !self.requests.request.is_empty() {
            self.view.answered = Some(self.requests.request.clone());
        }
        put(&self.channels.view, Some(self.view.clone()));
    }
}

/// When the node was booted, as the kernel says it.
fn boot_time(host: &(dyn HostFs + Send + Sync)) -> Option<Timestamp> {
    let text = host.read_part(Path::new("/proc/stat"), 0, STAT).ok()?;
    boot_time_of(&String::from_utf8_lossy(&text))
}

/// `btime` of `/proc/stat`: seconds since 1970 (`proc_stat(5)`).
pub(super) fn boot_time_of(text: &str) -> Option<Timestamp> {
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok().map(Timestamp)
}
