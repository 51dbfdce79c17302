//! Threads that ask the same driver one after the other: where one hangs at a GPU, the next asks about the others.
//!
//! A hang has one of two forms, and nobody can know beforehand which. A call about one GPU waits for that GPU alone:
//! then a second thread gets the others. Or it holds a lock of the library or of the kernel module that all calls
//! need: then the second thread hangs as well, at whatever it asks first. So the second thread is tried. It hangs at
//! the driver as a whole: all GPUs are silent. It hangs at another GPU: that one is silent too, and a third is tried,
//! until [`MOST`] threads hang; then all GPUs are silent as well.
//!
//! A thread that hangs is never ended, which can't be done, nor is the library unloaded under it. When its call
//! returns, what it holds is given back, and the GPU is asked again.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pitcrew_core::inventory::Silent;

use crate::progress::{Asked, Progress};
use crate::worker::{Stuck, Worker};

/// How many threads hang before the driver as a whole is held to be silent; one more may hang then.
pub const MOST: usize = 3;

/// How long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For everything that is asked at once.
    pub whole: Duration,
    /// For one call of the driver: what takes longer doesn't return. A thread that takes over from one that hangs has
    /// half of it, as the driver is awake by then.
    pub call: Duration,
}

/// Sources of the same kind, each on its own thread, of which one is asked at a time.
pub struct Relay<S> {
    name: String,
    make: Arc<dyn Fn(&Progress) -> S + Send + Sync>,
    runners: Mutex<Runners<S>>,
}

/// A thread, and what it asks.
struct Runner<S> {
    worker: Worker<S>,
    progress: Progress,
}

struct Runners<S> {
    current: Arc<Runner<S>>,
    /// Threads that hang, and the GPU of each.
    stuck: Vec<(Arc<Runner<S>>, Silent)>,
}

impl<S> fmt::Debug for Relay<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<S: 'static> Runner<S> {
    fn start(name: &str, make: &Arc<dyn Fn(&Progress) -> S + Send + Sync>) -> io::Result<Self> {
        let progress = Progress::default();
        let worker = Worker::start(name, {
            let (progress, make) = (progress.clone(), Arc::clone(make));
            move || {
                progress.follow_this_thread();
                make(&progress)
            }
        })?;
        Ok(Self { worker, progress })
    }
}

impl<S: 'static> Relay<S> {
    /// Starts the first thread. `make` runs on each thread before its first call. Once [`Progress::is_left`] of what it
    /// is given, another thread has taken over.
    ///
    /// Fails only where the system gives no thread.
    pub fn start(name: &str, make: impl Fn(&Progress) -> S + Send + Sync + 'static) -> io::Result<Self> {
        let make: Arc<dyn Fn(&Progress) -> S + Send + Sync> = Arc::new(make);
        let first = Runner::start(name, &make)?;
        Ok(Self {
            name: name.to_owned(),
            make,
            runners: Mutex::new(Runners {
                current: Arc::new(first),
                stuck: Vec::new(),
            }),
        })
    }

    /// Has the current thread do this. It is told which GPUs must not be asked about. Where it hangs at one, the next
    /// thread does it, from the beginning.
    pub fn ask<T: Send + 'static>(
        &self,
        what: &str,
        patience: Patience,
        act: impl Fn(&mut S, &[Silent]) -> T + Clone + Send + 'static,
    ) -> Result<T, Stuck> {
        loop {
            let (runner, silent) = self.now();
            let longest = if silent.is_empty() {
                patience.call
            } else {
                patience.call / 2
            };
            let progress = &runner.progress;
            let more = |waited: Duration| {
                let left = patience.whole.checked_sub(waited)?;
                // An answer wakes us by itself. Otherwise no call can hang sooner than that: this one, or one that only
                // begins.
                let running = progress.running().unwrap_or_default();
                let unhung = longest.checked_sub(running).filter(|unhung| !unhung.is_zero())?;
                Some(left.min(unhung))
            };
            let act = act.clone();
            let asked = runner
                .worker
                .call_while(what, more, move |source| act(source, &silent));
            match asked {
                Ok(answer) => return Ok(answer),
                Err(stuck) if !self.pass_on(&runner, longest) => return Err(self.told(stuck, &runner)),
                Err(_) => {}
            }
        }
    }

    /// Does something on the current thread, without another one for it.
    pub fn call<T: Send + 'static>(
        &self,
        what: &str,
        deadline: Duration,
        act: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, Stuck> {
        let (runner, _) = self.now();
        let asked = runner.worker.call(what, deadline, act);
        asked.map_err(|stuck| self.told(stuck, &runner))
    }

    /// GPUs about which a call has not returned. Their threads keep what they hold of the driver.
    pub fn silent(&self) -> Vec<Silent> {
        self.now().1
    }

    /// The current thread, and the GPUs that others hang at; those that have come back are done with.
    fn now(&self) -> (Arc<Runner<S>>, Vec<Silent>) {
        let (back, current, silent);
        {
            let mut runners = self.lock();
            let (still, returned): (Vec<_>, Vec<_>) = std::mem::take(&mut runners.stuck)
                .into_iter()
                .partition(|(runner, _)| runner.worker.hanging().is_some());
            runners.stuck = still;
            back = returned;
            current = Arc::clone(&runners.current);
            silent = runners.stuck.iter().map(|(_, silent)| silent.clone()).collect();
        }
        // What they own goes now, without the lock: giving it back takes its time.
        drop(back);
        (current, silent)
    }

    /// Has another thread take over from one that hangs at a GPU; false where it doesn't, or where that is of no use.
    fn pass_on(&self, runner: &Arc<Runner<S>>, longest: Duration) -> bool {
        let mut runners = self.lock();
        if !Arc::ptr_eq(&runners.current, runner) {
            // Somebody else has seen it too.
            return true;
        }
        let Some(Asked {
            gpu: Some(index),
            call,
            running,
        }) = runner.progress.asked()
        else {
            return false;
        };
        if running < longest || runners.stuck.len() >= MOST || runner.worker.hanging().is_none() {
            return false;
        }
        let Ok(next) = Runner::start(&self.name, &self.make) else {
            return false;
        };
        runner.progress.leave();
        let stuck = std::mem::replace(&mut runners.current, Arc::new(next));
        let seconds = longest.as_secs_f64();
        let reason = format!("`{call}` did not return within {seconds} s");
        runners.stuck.push((stuck, Silent { index, reason }));
        true
    }

    /// The call that hangs, by its name where that is known.
    fn told(&self, stuck: Stuck, runner: &Runner<S>) -> Stuck {
        let Stuck::NotReturned { running, .. } = &stuck else {
            return stuck;
        };
        let Some(asked) = runner.progress.asked() else {
            return stuck;
        };
        // A thread that is slow hangs at nothing.
        if asked.running * 2 < *running {
            return stuck;
        }
        let others = self.lock().stuck.len();
        let mut what = asked.call;
        if let Some(gpu) = asked.gpu {
            what = format!("{what} of GPU {gpu}");
        }
        if others > 0 {
            let calls = if others == 1 { "call" } else { "calls" };
            what = format!("{what}, after {others} other {calls} that hang");
        }
        Stuck::NotReturned {
            what,
            running: asked.running,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Runners<S>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress;
    use std::collections::BTreeSet;
    use std::time::Instant;

    const PATIENCE: Patience = Patience {
        whole: Duration::from_secs(20),
        call: Duration::from_millis(100),
    };

    /// Eight GPUs, and those of them that hang.
    type Gpus = Arc<Mutex<BTreeSet<u32>>>;

    fn look(hang: &mut Gpus, silent: &[Silent]) -> Vec<u32> {
        let is_silent = |index: &u32| silent.iter().any(|silent| silent.index == *index);
        let read = (0..8).filter(|index| !is_silent(index));
        let read = read.take_while(|_| !progress::is_left());
        let read = read.inspect(|&index| {
            progress::about(Some(index));
            progress::enter(1);
            while hang.lock().unwrap().contains(&index) {
                std::thread::sleep(Duration::from_millis(1));
            }
            progress::returned();
        });
        read.collect()
    }

    fn relay(hang: &Gpus) -> Relay<Gpus> {
        let hang = Arc::clone(hang);
        Relay::start("relay", move |_| Arc::clone(&hang)).unwrap()
    }

    #[test]
    fn several_gpus_may_hang_and_with_too_many_the_driver_does() {
        let hang = Gpus::default();
        let relay = relay(&hang);
        assert_eq!(relay.ask("look", PATIENCE, look).unwrap().len(), 8);
        hang.lock().unwrap().extend([0, 3, 4]);
        assert_eq!(relay.ask("look", PATIENCE, look).unwrap(), [1, 2, 5, 6, 7]);
        let silent: Vec<u32> = relay.silent().iter().map(|silent| silent.index).collect();
        assert_eq!(silent, [0, 3, 4]);
        assert_eq!(silent.len(), MOST);

        hang.lock().unwrap().insert(7);
        let stuck = relay.ask("look", PATIENCE, look).unwrap_err();
        let told = stuck.to_string();
        assert!(
            told.contains("of GPU 7, after 3 other calls that hang` has not returned"),
            "{told}"
        );
        // One comes back, and so there is a thread for the others again.
        hang.lock().unwrap().remove(&3);
        let start = Instant::now();
        while relay.silent().iter().any(|silent| silent.index == 3) {
            assert!(start.elapsed() < PATIENCE.whole);
        }
        assert_eq!(relay.ask("look", PATIENCE, look).unwrap(), [1, 2, 3, 5, 6]);
        hang.lock().unwrap().clear();
        while !relay.silent().is_empty() {
            assert!(start.elapsed() < PATIENCE.whole);
        }
        assert_eq!(relay.ask("look", PATIENCE, look).unwrap().len(), 8);
    }

    #[test]
    fn a_look_that_is_slow_and_hangs_at_nothing_makes_no_gpu_silent() {
        let relay = Relay::start("slow", |_| ()).unwrap();
        let patience = Patience {
            whole: Duration::from_millis(150),
            ..PATIENCE
        };
        let slow = |(): &mut (), _: &[Silent]| {
            for index in 0..20 {
                progress::about(Some(index));
                progress::enter(1);
                std::thread::sleep(Duration::from_millis(20));
                progress::returned();
            }
        };
        let stuck = relay.ask("look", patience, slow).unwrap_err();
        assert!(stuck.to_string().contains("`look` has not returned"), "{stuck}");
        assert_eq!(relay.silent(), []);
    }
}
