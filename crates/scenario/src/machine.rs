//! A running imaginary node.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::inventory::{Inventory, Silent};
use pitcrew_core::ports::{Clock, FileKind, GpuError, HostFs, InventorySource};

use crate::calls;
use crate::change::{Change, ChangeError};
use crate::events::EventQueue;
use crate::scenario::Scenario;
use crate::state::{GpuState, State};
use crate::view::View;

/// A running imaginary node.
///
/// A handle: clones are the same node, and can be given to other threads.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(crate) shared: Arc<Shared>,
    /// True when calls take as long as recorded.
    pub(crate) latency: bool,
}

/// What all handles of a machine share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Told of every change: hanging calls and waiting subscribers look again.
    changed: Condvar,
}

impl Shared {
    /// The state, also after a thread died holding it: each change is small and leaves it whole.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_for<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// To be called without the lock.
    pub(crate) fn tell_all(&self) {
        let mut state = self.lock();
        let subscribers = state.subscribers.values_mut();
        let wakers: Vec<_> = subscribers.filter_map(|one| one.waker.take()).collect();
        drop(state);
        self.changed.notify_all();
        // A waker may do anything, such as asking the machine.
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// The state as soon as none of these calls hangs.
    pub(crate) fn when_answered(&self, calls: &[&str], gpus: &[u32]) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while calls
            .iter()
            .any(|call| gpus.iter().any(|&gpu| state.hangs(call, Some(gpu))))
        {
            state = self.wait(state);
        }
        state
    }
}

impl Machine {
    /// Brings a scenario to life.
    pub fn new(scenario: Scenario) -> Self {
        let state = Mutex::new(State::new(scenario));
        Self {
            shared: Arc::new(Shared {
                state,
                changed: Condvar::new(),
            }),
            latency: false,
        }
    }

    /// This handle, with calls that take as long as recorded, or no time at all (the default).
    #[must_use]
    pub fn with_latency(mut self, replay: bool) -> Self {
        self.latency = replay;
        self
    }

    /// Makes something happen. All handles see it, and whoever waits is woken.
    pub fn change(&self, change: &Change) -> Result<(), ChangeError> {
        let mut state = self.shared.lock();
        let result = change.apply(&mut state);
        state.touch();
        drop(state);
        self.shared.tell_all();
        result
    }

    /// Resets a GPU as `nvidia-smi --gpu-reset` does: a pending MIG mode or row remap takes place, XIDs, volatile
    /// ECC counts and MIG instances are gone. Refused while a process holds it.
    pub fn reset(&self, uuid: &str) -> Result<(), GpuError> {
        let mut state = self.shared.lock();
        let at = state.position(uuid)?;
        let result = state.gpus[at].reset();
        state.touch();
        drop(state);
        self.shared.tell_all();
        result
    }

    /// A queue of the events from now on. Each has its own.
    pub fn events(&self) -> EventQueue {
        EventQueue::new(Arc::clone(&self.shared))
    }

    /// UUIDs of all GPUs in the driver's order, lost ones too.
    pub fn uuids(&self) -> Vec<String> {
        self.shared
            .lock()
            .gpus
            .iter()
            .map(|gpu| gpu.uuid.clone())
            .collect()
    }

    /// Name of the node: the scenario's, and what [`Scenario::for_node`] added.
    pub fn node(&self) -> String {
        self.shared.lock().node.clone()
    }

    /// Moves the imaginary clock forward; energy counters follow the power drawn.
    pub fn advance(&self, time: Duration) {
        let mut state = self.shared.lock();
        state.now += time;
        for gpu in &mut state.gpus {
            let drawn = gpu.base.power_mw.value().copied().map(u128::from);
            if let (Some(power_mw), pitcrew_core::Reading::Value(energy)) = (drawn, &mut gpu.base.energy_mj) {
                let millijoules = power_mw * time.as_millis() / 1000;
                *energy = energy.saturating_add(u64::try_from(millijoules).unwrap_or(u64::MAX));
            }
        }
    }

    /// Puts the driver's libraries into this directory of the host.
    pub(crate) fn put_libraries(&self, dir: &str) {
        let mut state = self.shared.lock();
        state.driver.libraries = dir.into();
        state.touch();
    }

    /// Sets the imaginary clock.
    pub fn set_now(&self, now: SystemTime) {
        self.shared.lock().now = now;
    }

    /// One call on one GPU: takes its time, hangs if it must, then `act`. The pair is the node's name and the
    /// number of MIG devices ever created.
    pub(crate) fn on_gpu<T>(
        &self,
        uuid: &str,
        calls: &[&str],
        act: impl FnOnce(&mut GpuState, (&str, &mut u64)) -> Result<T, GpuError>,
    ) -> Result<T, GpuError> {
        let index = {
            let state = self.shared.lock();
            let at = state.position(uuid)?;
            let time = state.gpus[at].latencies.of(calls.iter().copied());
            drop(state);
            self.take(time);
            u32::try_from(at).unwrap_or(u32::MAX)
        };
        let mut state = self.shared.when_answered(calls, &[index]);
        // Asked again: it may have been lost while the call hung.
        let at = state.position(uuid)?;
        let State {
            gpus, node, created, ..
        } = &mut *state;
        act(&mut gpus[at], (node, created))
    }

    /// [`Self::on_gpu`] for a call that changes something that others can see.
    pub(crate) fn change_gpu<T>(
        &self,
        uuid: &str,
        calls: &[&str],
        act: impl FnOnce(&mut GpuState, (&str, &mut u64)) -> Result<T, GpuError>,
    ) -> Result<T, GpuError> {
        let result = self.on_gpu(uuid, calls, act);
        self.shared.lock().touch();
        self.shared.tell_all();
        result
    }

    /// Sleeps if latencies are replayed.
    fn take(&self, time: Duration) {
        if self.latency && !time.is_zero() {
            std::thread::sleep(time);
        }
    }
}

impl Machine {
    /// The GPUs as they are read beside those at which a call hangs: those are silent. `None` where no call hangs, or
    /// calls hang at all of them.
    pub fn inventory_beside_hangs(&self) -> Option<Inventory> {
        let state = self.shared.lock();
        let mut inventory = state.inventory().ok()?;
        for gpu in &mut inventory.gpus {
            let hangs = calls::of_inventory().find(|call| state.hangs(call, Some(gpu.index)));
            if let Some(call) = hangs {
                let reason = format!("`{call}` did not return");
                gpu.readings = GpuReadings::all_failed(&reason);
                let index = gpu.index;
                inventory.silent.push(Silent { index, reason });
            }
        }
        let silent = |index| inventory.silent.iter().any(|silent| silent.index == index);
        inventory
            .links
            .retain(|link| !silent(link.from) && !silent(link.to));
        let count = inventory.silent.len();
        (count > 0 && count < inventory.gpus.len()).then_some(inventory)
    }
}

impl InventorySource for Machine {
    fn inventory(&mut self) -> Result<Inventory, GpuError> {
        let calls: Vec<_> = calls::of_inventory().collect();
        let (time, gpus) = {
            let state = self.shared.lock();
            state.driver_answers()?;
            let time = state
                .gpus
                .iter()
                .map(|gpu| gpu.latencies.of(calls.iter().copied()))
                .sum();
            let gpus: Vec<u32> = (0..).take(state.gpus.len()).collect();
            (time, gpus)
        };
        self.take(time);
        self.shared.when_answered(&calls, &gpus).inventory()
    }
}

impl HostFs for Machine {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let tree = self.shared.lock().tree();
        View::of(&tree).kind(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let tree = self.shared.lock().tree();
        View::of(&tree).read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let tree = self.shared.lock().tree();
        View::of(&tree).list(path)
    }
}

impl Clock for Machine {
    fn now(&self) -> SystemTime {
        self.shared.lock().now
    }
}
