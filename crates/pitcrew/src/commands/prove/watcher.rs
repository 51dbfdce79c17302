//! Watches the GPUs of this machine while they are proved: one thread asks the driver several times a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
const LAST: Duration = Duration::from_secs(1);

/// What was seen and not yet taken, by UUID of the GPU.
#[derive(Debug)]
pub(super) struct Seen {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looks: u64,
    /// How many wait for counters. Links are read for them alone: they take a hundred calls.
    waiting: usize,
    of: BTreeMap<String, OfGpu>,
}

#[derive(Debug, Default)]
struct OfGpu {
    samples: Vec<Sample>,
    xids: Vec<XidEvent>,
    counters: Counters,
}

impl Seen {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a look, and the links that were read with it.
    pub(super) fn look(&self, inventory: &Inventory, links: &BTreeMap<String, Vec<NvLink>>) {
        let at_s = self.start.elapsed().as_secs_f64();
        let mut state = self.lock();
        state.looks += 1;
        for gpu in &inventory.gpus {
            let Some(uuid) = gpu.readings.uuid.value() else {
                continue;
            };
            let of = state.of.entry(uuid.clone()).or_default();
            let links = links.get(uuid).map_or(&[][..], Vec::as_slice);
            of.counters = Counters::of(&gpu.readings).with_links(links);
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
            let at_s = self.start.elapsed().as_secs_f64();
            let mut state = self.lock();
            let of = state.of.entry(event.uuid).or_default();
            of.xids.push(XidEvent { at_s, number });
        }
    }
}

/// The thread. Dropping it ends it, or abandons it where the driver hangs.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to look; none where the system gives no thread.
    pub(super) fn start(opened: Arc<Opened>, seen: Arc<Seen>) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("proof-watch".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let is_waited_for = seen.lock().waiting > 0;
                    if let Ok(Ok(look)) = opened.look_within(DEADLINE) {
                        let links = if is_waited_for {
                            links(&opened, &look.inventory)
                        } else {
                            BTreeMap::new()
                        };
                        seen.look(&look.inventory, &links);
                    }
                    std::thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
                }
            }
        });
        Some(Self {
            stop,
            thread: Some(thread.ok()?),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
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
    /// The time of the run began later than the watch.
    fn offset(&self, elapsed: Duration) -> f64 {
        (self.seen.start.elapsed().saturating_sub(elapsed)).as_secs_f64()
    }
}

impl Watch for OfOne {
    fn counters(&mut self) -> Counters {
        // One that began after this was asked.
        let before = {
            let mut state = self.seen.lock();
            state.waiting += 1;
            state.looks
        };
        let deadline = Instant::now() + LAST;
        while self.seen.lock().looks < before + 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut state = self.seen.lock();
        state.waiting -= 1;
        state
            .of
            .get(&self.uuid)
            .map(|of| of.counters.clone())
            .unwrap_or_default()
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
}
