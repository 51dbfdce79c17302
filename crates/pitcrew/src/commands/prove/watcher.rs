//! Watches the GPUs of this machine while they are proved: one thread asks the driver several times a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pitcrew_core::Inventory;
use pitcrew_core::nvlink::NvLink;
use pitcrew_core::ports::{GpuEvent, GpuEventKind};
use pitcrew_core::proof::{Counters, Sample, XidEvent};
use pitcrew_prove::telemetry::Watch;

use crate::driver::Opened;
use crate::driver::listener::{Told, leave};

/// From one look to the next: six a second, as a look takes some milliseconds for each GPU.
const INTERVAL: Duration = Duration::from_millis(160);
/// A look that takes longer is one that didn't come.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long the last counters are waited for.
const LAST: Duration = Duration::from_secs(2);

/// What was seen and not yet taken, by UUID of the GPU.
#[derive(Debug)]
pub(super) struct Seen {
    /// When the time of the run began.
    begin: Instant,
    state: Mutex<State>,
    /// A look has ended, or somebody wants one now.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Looks that have begun, and the number of the last that has ended.
    begun: u64,
    ended: u64,
    /// Somebody waits for the next look.
    is_wanted: bool,
    of: BTreeMap<String, OfGpu>,
}

#[derive(Debug, Default)]
struct OfGpu {
    samples: Vec<Sample>,
    xids: Vec<XidEvent>,
    last_xid: Option<u32>,
    /// On the PCI bus.
    address: String,
    /// What the driver says instead of answering.
    lost: Option<String>,
    counters: Counters,
    /// As they were read last: not at every look.
    links: Vec<NvLink>,
}

impl State {
    fn at(&mut self, address: &str) -> Option<&mut OfGpu> {
        self.of.values_mut().find(|of| of.address == address)
    }
}

impl Seen {
    pub(super) fn new(begin: Instant) -> Arc<Self> {
        Arc::new(Self {
            begin,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// The last XID of a GPU, where there was one.
    pub(super) fn last_xid(&self, uuid: &str) -> Option<u32> {
        self.lock().of.get(uuid)?.last_xid
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look begins; true where somebody waits for it.
    fn begin_look(&self) -> bool {
        let mut state = self.lock();
        state.begun += 1;
        std::mem::take(&mut state.is_wanted)
    }

    /// The look that began last has ended, and has seen this, and these links.
    fn end_look(&self, inventory: Option<&Inventory>, links: &BTreeMap<String, Vec<NvLink>>) {
        if let Some(inventory) = inventory {
            self.look(inventory, links);
        }
        let mut state = self.lock();
        state.ended = state.begun;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for so long, or until a look is wanted or it shall stop.
    fn pause(&self, time: Duration, stop: &AtomicBool) {
        let idle = |state: &mut State| !state.is_wanted && !stop.load(Ordering::Relaxed);
        drop(self.changed.wait_timeout_while(self.lock(), time, idle));
    }

    /// Waits for a look that has not begun yet.
    pub(super) fn wait_for_next(&self) {
        let mut state = self.lock();
        let next = state.begun + 1;
        state.is_wanted = true;
        self.changed.notify_all();
        let is_to_come = |state: &mut State| state.ended < next;
        drop(self.changed.wait_timeout_while(state, LAST, is_to_come));
    }

    /// Takes in a look, and the links that were read with it.
    pub(super) fn look(&self, inventory: &Inventory, links: &BTreeMap<String, Vec<NvLink>>) {
        let at_s = self.begin.elapsed().as_secs_f64();
        let mut state = self.lock();
        for gpu in &inventory.gpus {
            let address = gpu.pci.address.to_string();
            let Some(uuid) = gpu.readings.uuid.value() else {
                // One that answered before and has no UUID any more has fallen off the bus.
                if let (Some(reason), Some(of)) = (gpu.readings.uuid.failure(), state.at(&address)) {
                    of.lost = Some(reason.to_string());
                }
                continue;
            };
            let of = state.of.entry(uuid.clone()).or_default();
            of.address = address;
            if let Some(links) = links.get(uuid) {
                of.links.clone_from(links);
            }
            of.counters = Counters::of(&gpu.readings).with_links(&of.links);
            of.samples.push(Sample::of(&gpu.readings, at_s));
        }
    }
}

/// The `NVLinks` of every GPU that has any.
fn links(opened: &Opened, inventory: &Inventory) -> BTreeMap<String, Vec<NvLink>> {
    let uuids = inventory.gpus.iter().filter_map(|gpu| gpu.readings.uuid.value());
    uuids
        .filter_map(|uuid| Some((uuid.clone(), opened.nvlinks(uuid, DEADLINE).ok()?)))
        .collect()
}

impl Told for Seen {
    fn tell(&self, event: GpuEvent) {
        if let GpuEventKind::Xid(number) = event.kind {
            let at_s = self.begin.elapsed().as_secs_f64();
            let mut state = self.lock();
            let of = state.of.entry(event.uuid).or_default();
            of.xids.push(XidEvent { at_s, number });
            of.last_xid = Some(number);
        }
    }
}

/// The thread. Dropping it ends it, or abandons it where the driver hangs.
#[derive(Debug)]
pub(super) struct Watcher {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to look; none where the system gives no thread.
    pub(super) fn start(opened: Arc<Opened>, seen: Arc<Seen>) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("proof-watch".to_owned()).spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let is_waited_for = seen.begin_look();
                    let look = opened.look_within(DEADLINE).ok().and_then(Result::ok);
                    let inventory = look.as_ref().map(|look| &look.inventory);
                    // For those who want counters alone: they take a hundred calls.
                    let links = match inventory {
                        Some(inventory) if is_waited_for => links(&opened, inventory),
                        _ => BTreeMap::new(),
                    };
                    seen.end_look(inventory, &links);
                    seen.pause(INTERVAL.saturating_sub(began.elapsed()), &stop);
                }
            }
        });
        Some(Self {
            seen,
            stop,
            thread: Some(thread.ok()?),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.seen.changed.notify_all();
        let Some(thread) = self.thread.take() else { return };
        leave(thread, Duration::from_millis(500));
    }
}

/// What is seen of one GPU.
#[derive(Debug)]
pub(super) struct OfOne {
    pub(super) seen: Arc<Seen>,
    pub(super) uuid: String,
}

impl OfOne {
    /// The counters of the last look.
    pub(super) fn seen_counters(&self) -> Counters {
        let state = self.seen.lock();
        let of = state.of.get(&self.uuid);
        of.map(|of| of.counters.clone()).unwrap_or_default()
    }

    /// How much later the time of the run began than that of the watch.
    fn offset(&self, elapsed: Duration) -> f64 {
        (self.seen.begin.elapsed().saturating_sub(elapsed)).as_secs_f64()
    }
}

impl Watch for OfOne {
    fn counters(&mut self) -> Counters {
        self.seen.wait_for_next();
        self.seen_counters()
    }

    fn samples(&mut self, elapsed: Duration) -> Vec<Sample> {
        let offset = self.offset(elapsed);
        let mut state = self.seen.lock();
        let taken = state
            .of
            .get_mut(&self.uuid)
            .map(|of| std::mem::take(&mut of.samples));
        let mut samples = taken.unwrap_or_default();
        samples.retain(|sample| sample.at_s >= offset);
        for sample in &mut samples {
            sample.at_s -= offset;
        }
        samples
    }

    fn xids(&mut self, elapsed: Duration) -> Vec<XidEvent> {
        let offset = self.offset(elapsed);
        let mut state = self.seen.lock();
        let taken = state
            .of
            .get_mut(&self.uuid)
            .map(|of| std::mem::take(&mut of.xids));
        let mut xids = taken.unwrap_or_default();
        for xid in &mut xids {
            xid.at_s = (xid.at_s - offset).max(0.0);
        }
        xids
    }

    fn lost(&mut self) -> Option<String> {
        self.seen.lock().of.get(&self.uuid)?.lost.clone()
    }
}
