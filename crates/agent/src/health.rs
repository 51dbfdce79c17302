//! Health of GPUs over time: what makes one sick, and what makes it well again.
//!
//! [`Health`] is a state machine: it is told of every look at the GPUs and of every event, and says which GPUs and MIG
//! devices must not be handed out, and why. What a single look means is [`pitcrew_core::health`]'s.
//!
//! **What makes a GPU sick**
//!
//! - A critical XID, as in NVIDIA's device plugin: every one but those that are an application's own fault, and those
//!   that [`XidFilter`] leaves out.
//! - A look that finds it unhealthy: it doesn't answer, the driver wants it reset or rebooted, no spare memory row is
//!   left. Also one that the driver wants drained: it works, but nothing new should go there.
//! - A driver that doesn't answer, or isn't there: all of its GPUs, for as long as that lasts. Where the driver can
//!   tell which GPU a call hangs at, only that one.
//!
//! All devices of a sick GPU are sick: every replica, every MIG device. One exception: a fault that was contained, and
//! that the driver puts into a GPU instance, makes only the MIG devices of that instance sick, as MIG keeps their
//! memory and engines apart. What the driver calls uncontained, or needs the whole GPU reset, is the whole GPU's.
//!
//! **What makes it well again.** NVIDIA's plugin never takes a verdict back. Here a GPU returns when every look says so
//! for the whole of its probation:
//!
//! - it answers, and is not unhealthy by any reading;
//! - the driver wants nothing done to it;
//! - no memory row or page waits for a reset, and the uncorrected memory errors are no more than before the fault, which
//!   a reset sees to;
//! - no further critical XID has come.
//!
//! Probation is ten times as long where the driver (before R570) doesn't say which recovery a GPU needs, and twice as
//! long for each time that the GPU fell sick again soon after its return, up to an hour. A driver that answers again
//! brings its GPUs back without probation, as nothing was wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pitcrew_core::gpu::{GpuReadings, RecoveryAction};
use pitcrew_core::health::{self, Finding, Verdict};
use pitcrew_core::pci::PciAddress;
use pitcrew_core::ports::{GpuError, GpuEvent, GpuEventKind};
use pitcrew_core::xid::{self, Severity};
use pitcrew_core::{Gpu, Inventory};

mod filter;

#[cfg(test)]
mod tests;

pub use filter::XidFilter;

/// How long a GPU must be well before it is handed out again, if nothing else is asked for.
pub const PROBATION: Duration = Duration::from_mins(1);
/// The longest probation.
const LONGEST: Duration = Duration::from_hours(1);
/// How much longer it is with a driver that doesn't say what a GPU needs.
const WITHOUT_ADVICE: u32 = 10;
/// How findings about the recovery that the driver wants begin.
const WANTED: &str = "the driver wants";
/// How soon after its return a GPU falls sick again to be a relapse.
const SOON: Duration = Duration::from_hours(1);

/// Something of a GPU that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It must not be handed out any more, or for another reason than before.
    Sick {
        /// UUID of the GPU or MIG device.
        uuid: String,
        /// Why.
        reason: String,
    },
    /// It can be handed out again.
    Well {
        /// UUID of the GPU or MIG device.
        uuid: String,
    },
}

/// The health of a node's GPUs.
#[derive(Debug)]
pub struct Health {
    filter: XidFilter,
    probation: Duration,
    gpus: BTreeMap<String, Watched>,
    /// Why no GPU can be used at all.
    driver: Option<String>,
    sick: BTreeMap<String, String>,
}

/// What is known of one GPU.
#[derive(Debug)]
struct Watched {
    address: PciAddress,
    /// MIG devices by UUID, and the GPU instance that each is in.
    instances: BTreeMap<String, u32>,
    /// A call about it hangs: what that is.
    silent: Option<String>,
    /// What has happened to it and isn't over, by GPU instance; `None` is the whole GPU.
    faults: BTreeMap<Option<u32>, Fault>,
    /// Uncorrected memory errors at the last look without a fault.
    ecc_before: Option<u64>,
    /// When it last came back.
    returned: Option<Instant>,
    /// How often it fell sick soon after its return.
    relapses: u32,
}

/// Something that has happened.
#[derive(Debug)]
struct Fault {
    reason: String,
    /// Since when every look has been good.
    good_since: Option<Instant>,
    /// What the last look says against it.
    not_yet: Option<String>,
}

impl Watched {
    fn new(address: PciAddress) -> Self {
        Self {
            address,
            instances: BTreeMap::new(),
            silent: None,
            faults: BTreeMap::new(),
            ecc_before: None,
            returned: None,
            relapses: 0,
        }
    }

    fn add_fault(&mut self, instance: Option<u32>, reason: String, now: Instant) {
        if self.faults.is_empty()
            && let Some(returned) = self.returned.take()
        {
            self.relapses = if now.saturating_duration_since(returned) < SOON {
                self.relapses.saturating_add(1)
            } else {
                0
            };
        }
        let fault = Fault {
            reason,
            good_since: None,
            not_yet: None,
        };
        self.faults.insert(instance, fault);
    }

    /// Nobody has seen that it was well all the time.
    fn not_seen(&mut self) {
        for fault in self.faults.values_mut() {
            fault.good_since = None;
        }
    }

    /// Why it must not be used.
    fn reason(&self) -> Option<String> {
        if let Some(what) = &self.silent {
            return Some(format!("the GPU does not answer: {what}"));
        }
        self.faults.get(&None).map(told)
    }
}

fn told(fault: &Fault) -> String {
    match &fault.not_yet {
        Some(not_yet) if !fault.reason.contains(not_yet.as_str()) => format!("{}; {not_yet}", fault.reason),
        _ => fault.reason.clone(),
    }
}

impl Health {
    /// Nothing known yet.
    pub fn new(filter: XidFilter, probation: Duration) -> Self {
        Self {
            filter,
            probation,
            gpus: BTreeMap::new(),
            driver: None,
            sick: BTreeMap::new(),
        }
    }

    /// GPUs and MIG devices that must not be used, by UUID, with the reason. All devices of a GPU that is in here are
    /// meant with it, also those that aren't named.
    pub fn sick(&self) -> &BTreeMap<String, String> {
        &self.sick
    }

    /// True while a GPU can only come back by further looks: the next one should not be far.
    pub fn is_waiting(&self) -> bool {
        self.driver.is_some()
            || self
                .gpus
                .values()
                .any(|gpu| !gpu.faults.is_empty() || gpu.silent.is_some())
    }

    /// UUID of the GPU that was last seen at an address.
    pub fn uuid_at(&self, address: PciAddress) -> Option<&str> {
        let at = |(_, gpu): &(&String, &Watched)| gpu.address == address;
        self.gpus.iter().find(at).map(|(uuid, _)| uuid.as_str())
    }

    /// Takes in an event.
    pub fn event(&mut self, event: &GpuEvent, now: Instant) -> Vec<Change> {
        let GpuEventKind::Xid(number) = event.kind else {
            // Memory errors come with an XID where they matter.
            return Vec::new();
        };
        if self.filter.ignores(number) {
            return Vec::new();
        }
        let Some(gpu) = self.gpus.get_mut(&event.uuid) else {
            // Events of GPUs that no look has shown: the next look tells what they are.
            return Vec::new();
        };
        let known = xid::lookup(number);
        let is_contained =
            known.is_some_and(|xid| matches!(xid.severity, Severity::Contained | Severity::Application));
        let instance = event
            .gpu_instance
            .filter(|instance| is_contained && gpu.instances.values().any(|known| known == instance));
        gpu.add_fault(instance, reason_of(number), now);
        self.changes()
    }

    /// Takes in a look that has told something.
    pub fn look(&mut self, inventory: &Inventory, now: Instant) -> Vec<Change> {
        self.driver = None;
        let mut seen = BTreeSet::new();
        for gpu in &inventory.gpus {
            let uuid = match gpu.readings.uuid.value() {
                Some(uuid) => uuid.clone(),
                // A GPU that doesn't answer is known by its place.
                None => match self.uuid_at(gpu.pci.address) {
                    Some(uuid) => uuid.to_owned(),
                    None => continue,
                },
            };
            let watched = self
                .gpus
                .entry(uuid.clone())
                .or_insert_with(|| Watched::new(gpu.pci.address));
            watched.address = gpu.pci.address;
            watched.silent = inventory.silence(gpu.index).map(ToOwned::to_owned);
            if watched.silent.is_some() {
                watched.not_seen();
            } else {
                judge(watched, gpu, self.probation, now);
            }
            seen.insert(uuid);
        }
        for (uuid, gpu) in &mut self.gpus {
            if !seen.contains(uuid) {
                gpu.silent = None;
                lost(gpu, "the driver does not list the GPU any more", now);
            }
        }
        self.changes()
    }

    /// Takes in a look that has failed.
    pub fn failed(&mut self, error: &GpuError) -> Vec<Change> {
        match error {
            GpuError::Silent { gpu, reason } => {
                self.driver = None;
                // The others are as they were: nothing is known against them, and their events are still heard.
                for (uuid, watched) in &mut self.gpus {
                    watched.silent = (uuid == gpu).then(|| reason.clone());
                }
            }
            error => self.driver = Some(error.to_string()),
        }
        for gpu in self.gpus.values_mut() {
            gpu.not_seen();
        }
        self.changes()
    }

    /// The driver is let go of on purpose: nothing can be used until the next look.
    pub fn released(&mut self, why: &str) -> Vec<Change> {
        self.driver = Some(why.to_owned());
        self.changes()
    }

    /// Forgets a GPU that is not this node's to hand out any more, such as one given to a virtual machine.
    pub fn forget(&mut self, uuid: &str) -> Vec<Change> {
        self.gpus.remove(uuid);
        self.changes()
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut sick = BTreeMap::new();
        for (uuid, gpu) in &self.gpus {
            if let Some(reason) = self.driver.clone().or_else(|| gpu.reason()) {
                sick.insert(uuid.clone(), reason);
            } else {
                for (mig, instance) in &gpu.instances {
                    if let Some(fault) = gpu.faults.get(&Some(*instance)) {
                        sick.insert(mig.clone(), told(fault));
                    }
                }
            }
        }
        let mut changes = Vec::new();
        for (uuid, reason) in &sick {
            if self.sick.get(uuid) != Some(reason) {
                changes.push(Change::Sick {
                    uuid: uuid.clone(),
                    reason: reason.clone(),
                });
            }
        }
        for uuid in self.sick.keys().filter(|uuid| !sick.contains_key(*uuid)) {
            // What is gone for good is not well.
            if self.knows(uuid) {
                changes.push(Change::Well { uuid: uuid.clone() });
            }
        }
        self.sick = sick;
        changes
    }

    fn knows(&self, uuid: &str) -> bool {
        self.gpus.contains_key(uuid) || self.gpus.values().any(|gpu| gpu.instances.contains_key(uuid))
    }
}

/// An XID in words, with what to do.
fn reason_of(number: u32) -> String {
    match xid::lookup(number) {
        Some(known) => format!("XID {number}: {}. {}", known.name, known.action.advice()),
        None => format!("XID {number}. Look it up in NVIDIA's XID catalogue"),
    }
}

/// What one look says of a GPU.
fn judge(watched: &mut Watched, gpu: &Gpu, probation: Duration, now: Instant) {
    let readings = &gpu.readings;
    if let Some(why) = readings.uuid.failure() {
        lost(watched, &format!("the GPU does not answer: {why}"), now);
        return;
    }
    if let Some(devices) = readings.mig_devices.value() {
        let devices = devices.iter();
        watched.instances = devices
            .map(|device| (device.uuid.clone(), device.gpu_instance))
            .collect();
        // An instance that is gone has taken its fault along.
        let instances = &watched.instances;
        let is_there = |instance: &u32| instances.values().any(|known| known == instance);
        watched
            .faults
            .retain(|instance, _| instance.as_ref().is_none_or(is_there));
    }
    let state = health::assess_state(gpu);
    let wants_drain = readings.recovery_action.value() == Some(&RecoveryAction::DrainAndReset);
    let forbids = |finding: &&Finding| {
        finding.verdict == Verdict::Unhealthy || (wants_drain && finding.what.starts_with(WANTED))
    };
    if let Some(finding) = state.findings.iter().find(forbids)
        && !watched.faults.contains_key(&None)
    {
        watched.add_fault(None, format!("{}. {}", finding.what, finding.advice), now);
    }
    if watched.faults.is_empty() {
        watched.ecc_before = readings.ecc_uncorrected.value().copied();
        return;
    }
    let against = against(watched, readings, &state.findings);
    let tells = readings.recovery_action.value().is_some();
    let needed = probation
        .saturating_mul(if tells { 1 } else { WITHOUT_ADVICE })
        .saturating_mul(2_u32.saturating_pow(watched.relapses))
        .min(LONGEST.max(probation));
    for fault in watched.faults.values_mut() {
        fault.not_yet.clone_from(&against);
        fault.good_since = match against {
            Some(_) => None,
            None => fault.good_since.or(Some(now)),
        };
    }
    let is_over = |fault: &Fault| {
        fault
            .good_since
            .is_some_and(|since| now.saturating_duration_since(since) >= needed)
    };
    watched.faults.retain(|_, fault| !is_over(fault));
    if watched.faults.is_empty() {
        watched.returned = Some(now);
        watched.ecc_before = readings.ecc_uncorrected.value().copied();
    }
}

/// What speaks against taking a fault back.
fn against(watched: &Watched, readings: &GpuReadings, findings: &[Finding]) -> Option<String> {
    if let Some(finding) = findings
        .iter()
        .find(|finding| matches!(finding.verdict, Verdict::Unhealthy | Verdict::Unknown))
    {
        return Some(finding.what.clone());
    }
    if let Some(action) = readings.recovery_action.value()
        && *action != RecoveryAction::None
    {
        let wanted = findings.iter().find(|finding| finding.what.starts_with(WANTED));
        return Some(wanted.map_or_else(|| format!("{WANTED} `{action}`"), |finding| finding.what.clone()));
    }
    let waits = readings.remapped_rows.value().is_some_and(|rows| rows.pending)
        || readings.retired_pages.value().is_some_and(|pages| pages.pending);
    if waits {
        return Some("bad memory waits to be replaced at a reset of the GPU".to_owned());
    }
    if let (Some(now), Some(before)) = (readings.ecc_uncorrected.value(), watched.ecc_before)
        && *now > before
    {
        return Some(format!(
            "{now} uncorrected memory errors, {before} before: it wants a reset of the GPU"
        ));
    }
    None
}

/// A GPU that doesn't answer: a fault, which is over some time after it answers again.
fn lost(watched: &mut Watched, why: &str, now: Instant) {
    let advice = "Drain the node and reboot it; if the GPU is lost again, reseat or replace the board";
    match watched.faults.get_mut(&None) {
        Some(fault) => {
            fault.good_since = None;
            fault.not_yet = Some(why.to_owned());
        }
        None => watched.add_fault(None, format!("{why}. {advice}"), now),
    }
}
