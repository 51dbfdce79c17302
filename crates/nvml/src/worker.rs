//! A thread that owns what may hang, and callers that have deadlines.
//!
//! The driver's library is synchronous, and a call into a broken driver may never return. So one thread owns the
//! source, callers hand it closures and wait no longer than they want to. A thread that hangs is abandoned: it is
//! never joined, later calls fail at once while it hangs, and work again when it comes back.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pitcrew_core::Reading;
use pitcrew_core::inventory::Inventory;
use pitcrew_core::nvlink::NvLink;
use pitcrew_core::ports::{Events, GpuError, GpuEvent, InventorySource, Sampling};

/// How long a dropped worker may take to let go of what it owns.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a call gave no answer in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stuck {
    /// A call has not returned, the caller's own or one before it.
    NotReturned {
        /// What that call does, e.g. `read the GPUs`.
        what: String,
        /// How long it has been running.
        running: Duration,
    },
    /// The thread has ended in a panic while it did this.
    Ended {
        /// What the caller wanted.
        what: String,
    },
}

impl Stuck {
    /// The reason alone, for a message that says already that the driver does not answer.
    pub fn reason(&self) -> String {
        match self {
            Self::NotReturned { what, running } => {
                format!(
                    "`{what}` has not returned for {} s",
                    running.as_secs_f64().round()
                )
            }
            Self::Ended { what } => format!("the thread that was to `{what}` has ended"),
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the driver does not answer: {}", self.reason())
    }
}

impl std::error::Error for Stuck {}

impl From<Stuck> for GpuError {
    fn from(stuck: Stuck) -> Self {
        Self::DriverSilent(stuck.reason())
    }
}

/// What the thread is doing.
#[derive(Debug)]
struct Running {
    what: String,
    since: Instant,
    /// Somebody waits for it, with a deadline of their own.
    awaited: bool,
    /// Nobody waits for it any more: whoever comes now need not wait either.
    abandoned: bool,
}

type State = Arc<Mutex<Option<Running>>>;

fn lock(state: &State) -> MutexGuard<'_, Option<Running>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing is done any more once this is dropped: a call that ended in a panic doesn't hang.
struct Idle(State);

impl Drop for Idle {
    fn drop(&mut self) {
        *lock(&self.0) = None;
    }
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// One thread that owns an `S`.
///
/// Dropping it drops the `S` on its thread and waits a moment for that, so that every descriptor is given back;
/// unless the thread hangs, which nothing can be done about.
pub struct Worker<S> {
    jobs: Option<Sender<Job<S>>>,
    state: State,
    thread: Option<JoinHandle<()>>,
    /// Ends when the thread has dropped everything. Only who drops the worker looks; the lock makes it shareable.
    done: Mutex<Receiver<()>>,
}

impl<S> fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("running", &*lock(&self.state))
            .finish_non_exhaustive()
    }
}

impl<S: 'static> Worker<S> {
    /// Starts the thread. `make` runs on it, before the first call; what it makes never leaves it.
    ///
    /// Fails only where the system gives no thread.
    pub fn start(name: &str, make: impl FnOnce() -> S + Send + 'static) -> std::io::Result<Self> {
        let state = State::default();
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let (bye, done) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn({
            let state = Arc::clone(&state);
            move || {
                // Sent when this is dropped too: whoever waits need not care how the thread ends.
                let bye: SyncSender<()> = bye;
                let _idle = Idle(Arc::clone(&state));
                {
                    *lock(&state) = Some(Running {
                        awaited: false,
                        ..running("start")
                    });
                    let mut source = make();
                    *lock(&state) = None;
                    for job in queue {
                        job(&mut source);
                        *lock(&state) = None;
                    }
                }
                drop(bye);
            }
        })?;
        Ok(Self {
            jobs: Some(jobs),
            state,
            thread: Some(thread),
            done: Mutex::new(done),
        })
    }

    /// Has the thread do this, and waits at most `deadline` for the result.
    ///
    /// A call that has not begun when its deadline passes is not made at all. One that has begun goes on, and its
    /// result is dropped.
    pub fn call<T: Send + 'static>(
        &self,
        what: &str,
        deadline: Duration,
        act: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, Stuck> {
        self.call_while(what, |waited| deadline.checked_sub(waited), act)
    }

    /// [`Self::call`], for who decides while waiting how long to wait: `more` is told for how long it was waited, and
    /// says for how long to wait before it is asked again; `None` is the deadline.
    pub fn call_while<T: Send + 'static>(
        &self,
        what: &str,
        mut more: impl FnMut(Duration) -> Option<Duration>,
        act: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, Stuck> {
        let start = Instant::now();
        let ended = || Stuck::Ended {
            what: what.to_owned(),
        };
        if let Some(stuck) = self.hanging() {
            return Err(stuck);
        }
        let (given_up, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (answer, reply) = mpsc::sync_channel(1);
        let job: Job<S> = {
            let (state, what) = (Arc::clone(&self.state), what.to_owned());
            let (given_up, begun) = (Arc::clone(&given_up), Arc::clone(&begun));
            Box::new(move |source| {
                {
                    // Under the lock, so that the caller either sees it begun or has given it up.
                    let mut state = lock(&state);
                    if given_up.load(Ordering::Relaxed) {
                        return;
                    }
                    begun.store(true, Ordering::Relaxed);
                    *state = Some(running(&what));
                }
                // The caller may have gone; then nobody wants to know.
                let _ = answer.send(act(source));
            })
        };
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .ok_or_else(ended)?;
        let waited = loop {
            let Some(pause) = more(start.elapsed()) else {
                break Err(RecvTimeoutError::Timeout);
            };
            match reply.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                answered => break answered,
            }
        };
        match waited {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
            Err(RecvTimeoutError::Timeout) => {
                let mut state = lock(&self.state);
                given_up.store(true, Ordering::Relaxed);
                // It may have come in the very last moment.
                if let Ok(answer) = reply.try_recv() {
                    return Ok(answer);
                }
                Err(match state.as_mut() {
                    Some(running) => {
                        // Another caller's call is theirs to abandon.
                        running.abandoned |= begun.load(Ordering::Relaxed) || !running.awaited;
                        stuck(running)
                    }
                    None => Stuck::NotReturned {
                        what: what.to_owned(),
                        running: start.elapsed(),
                    },
                })
            }
        }
    }

    /// The call that hangs, if one was abandoned and has not come back.
    pub fn hanging(&self) -> Option<Stuck> {
        lock(&self.state)
            .as_ref()
            .filter(|running| running.abandoned)
            .map(stuck)
    }
}

fn running(what: &str) -> Running {
    Running {
        what: what.to_owned(),
        since: Instant::now(),
        awaited: true,
        abandoned: false,
    }
}

fn stuck(running: &Running) -> Stuck {
    Stuck::NotReturned {
        what: running.what.clone(),
        running: running.since.elapsed(),
    }
}

impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        self.jobs = None;
        let hangs = lock(&self.state)
            .as_ref()
            .is_some_and(|running| running.abandoned);
        if hangs {
            return;
        }
        // The thread says goodbye when everything is dropped, and has only to end then.
        let gone = matches!(
            self.done
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .recv_timeout(FAREWELL),
            Ok(()) | Err(RecvTimeoutError::Disconnected)
        );
        if let Some(thread) = self.thread.take().filter(|_| gone) {
            // A panic of the thread was told by the thread.
            let _ = thread.join();
        }
    }
}

/// A worker as a source of snapshots, samples or events: each call has the same deadline.
#[derive(Debug)]
pub struct WorkerSource<S> {
    /// The thread.
    pub worker: Worker<S>,
    /// How long a call may take. Waiting for events may take its own time besides.
    pub deadline: Duration,
}

impl<S: InventorySource + 'static> InventorySource for WorkerSource<S> {
    fn inventory(&mut self) -> Result<Inventory, GpuError> {
        self.worker
            .call("read the GPUs", self.deadline, InventorySource::inventory)?
    }
}

impl<S: Sampling + 'static> Sampling for WorkerSource<S> {
    fn fields(&mut self, uuid: &str, names: &[&str]) -> Result<Vec<Reading<u64>>, GpuError> {
        let (uuid, names) = (
            uuid.to_owned(),
            names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(),
        );
        self.worker
            .call("read field values", self.deadline, move |source| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                source.fields(&uuid, &names)
            })?
    }

    fn nvlinks(&mut self, uuid: &str) -> Result<Vec<NvLink>, GpuError> {
        let uuid = uuid.to_owned();
        self.worker
            .call("read the NVLinks", self.deadline, move |source| {
                source.nvlinks(&uuid)
            })?
    }

    fn profiling(&mut self, uuid: &str, metrics: &[u32]) -> Result<Vec<Reading<f64>>, GpuError> {
        let (uuid, metrics) = (uuid.to_owned(), metrics.to_vec());
        self.worker
            .call("read profiling figures", self.deadline, move |source| {
                source.profiling(&uuid, &metrics)
            })?
    }
}

impl<S: Events + 'static> Events for WorkerSource<S> {
    fn wait(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError> {
        let deadline = self.deadline.saturating_add(timeout);
        self.worker
            .call("wait for events", deadline, move |source| source.wait(timeout))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_thread_answers_in_order_and_keeps_what_it_owns() {
        let worker = Worker::start("count", || 0).unwrap();
        for expected in 1..=3 {
            let count = worker.call("count", LONG, |count| {
                *count += 1;
                *count
            });
            assert_eq!(count, Ok(expected));
        }
    }

    #[test]
    fn a_call_that_hangs_is_abandoned_and_the_thread_works_again_when_it_returns() {
        let worker = Worker::start("hang", || ()).unwrap();
        let (release, wait) = channel::<()>();
        let first = worker.call("hang", SHORT, move |()| wait.recv().is_ok());
        let Err(Stuck::NotReturned { what, running }) = &first else {
            panic!("{first:?}");
        };
        assert!(what == "hang" && *running >= SHORT, "{first:?}");

        let start = Instant::now();
        let (ran, seen) = channel();
        let second = worker.call("ask", LONG, move |()| ran.send(()));
        assert!(
            matches!(second, Err(Stuck::NotReturned { what, .. }) if what == "hang"),
            "the one that hangs is named"
        );
        assert!(
            start.elapsed() < LONG / 2,
            "nobody waits for a thread that is known to hang"
        );

        release.send(()).unwrap();
        while worker.hanging().is_some() {
            std::thread::yield_now();
        }
        assert_eq!(worker.call("ask", LONG, |()| 7), Ok(7));
        assert!(
            seen.try_recv().is_err(),
            "what was refused must not be done later"
        );
    }

    #[test]
    fn a_call_behind_one_that_hangs_is_given_up_and_never_made() {
        let worker = Arc::new(Worker::start("queue", || ()).unwrap());
        let (release, wait) = channel::<()>();
        let (begun, has_begun) = channel();
        let first = std::thread::spawn({
            let worker = Arc::clone(&worker);
            move || {
                worker.call("first", LONG, move |()| {
                    begun.send(()).unwrap();
                    wait.recv().is_ok()
                })
            }
        });
        has_begun.recv().unwrap();
        let (ran, seen) = channel();
        let second = worker.call("second", SHORT, move |()| ran.send(()));
        assert!(
            matches!(second, Err(Stuck::NotReturned { what, .. }) if what == "first"),
            "the one that is in the way is named"
        );
        release.send(()).unwrap();
        assert_eq!(first.join().unwrap(), Ok(true));
        assert_eq!(worker.call("third", LONG, |()| 3), Ok(3));
        assert!(seen.try_recv().is_err());
    }

    #[test]
    fn what_is_made_slowly_is_waited_for_no_longer_than_the_first_call_says() {
        let (release, wait) = channel::<()>();
        let worker = Worker::start("slow", move || wait.recv().is_ok()).unwrap();
        let early = worker.call("ask", SHORT, |made| *made);
        assert!(matches!(early, Err(Stuck::NotReturned { .. })), "{early:?}");
        release.send(()).unwrap();
        while worker.hanging().is_some() {
            std::thread::yield_now();
        }
        assert_eq!(worker.call("ask", LONG, |made| *made), Ok(true));
    }

    #[test]
    fn a_dropped_worker_has_let_go_of_what_it_owned() {
        let owned = Arc::new(());
        let worker = Worker::start("drop", {
            let owned = Arc::clone(&owned);
            move || owned
        })
        .unwrap();
        assert_eq!(worker.call("look", LONG, |owned| Arc::strong_count(owned)), Ok(2));
        drop(worker);
        assert_eq!(Arc::strong_count(&owned), 1);
    }

    #[test]
    fn a_worker_that_hangs_is_dropped_at_once() {
        let worker = Worker::start("stuck", || ()).unwrap();
        let (release, wait) = channel::<()>();
        worker
            .call("hang", SHORT, move |()| wait.recv().is_ok())
            .unwrap_err();
        let start = Instant::now();
        drop(worker);
        assert!(start.elapsed() < FAREWELL);
        drop(release);
    }

    #[test]
    fn a_thread_that_panicked_is_told_as_ended() {
        let worker = Worker::start("panic", || ()).unwrap();
        let ended = worker.call("break", LONG, |()| panic!("as the test wants it"));
        assert!(
            matches!(ended, Err(Stuck::Ended { ref what }) if what == "break"),
            "{ended:?}"
        );
        assert!(
            worker.call("ask", SHORT, |()| ()).is_err(),
            "and nobody answers after it"
        );
    }

    #[test]
    fn a_call_that_hung_and_then_panicked_does_not_hang_any_more() {
        let worker = Worker::start("both", || ()).unwrap();
        let (release, wait) = channel::<()>();
        let first = worker.call("break", SHORT, move |()| {
            wait.recv().unwrap();
            panic!("as the test wants it")
        });
        assert!(matches!(first, Err(Stuck::NotReturned { .. })), "{first:?}");
        release.send(()).unwrap();
        while worker.hanging().is_some() {
            std::thread::yield_now();
        }
        let next = worker.call("ask", LONG, |()| ());
        assert!(matches!(next, Err(Stuck::Ended { .. })), "{next:?}");
    }

    #[test]
    fn the_message_names_the_call_and_the_seconds() {
        let stuck = Stuck::NotReturned {
            what: "read the GPUs".to_owned(),
            running: Duration::from_secs(10),
        };
        assert_eq!(
            stuck.to_string(),
            "the driver does not answer: `read the GPUs` has not returned for 10 s"
        );
        assert_eq!(
            GpuError::from(stuck).to_string(),
            "the NVIDIA driver does not answer: `read the GPUs` has not returned for 10 s"
        );
    }
}
