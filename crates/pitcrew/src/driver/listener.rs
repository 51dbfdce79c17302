//! A thread that waits for the driver's events, and tells of each when it happens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pitcrew_core::ports::{Events as _, GpuError, GpuEvent};
use pitcrew_nvml::{NvmlEvents, Progress};

/// Who is told of events.
pub(crate) type Tell = Arc<dyn Told>;

/// Told of events, on another thread.
pub(crate) trait Told: fmt::Debug + Send + Sync {
    /// Something happened on a GPU.
    fn tell(&self, event: GpuEvent);
}

/// How long one wait takes: as long as the thread may take to end.
const WAIT: Duration = Duration::from_millis(500);
/// How long it may take to end besides. A driver that hangs keeps it for ever, which nothing can be done about.
const FAREWELL: Duration = Duration::from_secs(1);

/// The thread. Dropping it ends it and gives back what it holds of the library, or abandons it where it hangs.
#[derive(Debug)]
pub(crate) struct Listener {
    stop: Arc<AtomicBool>,
    /// Some GPU is not listened to any more.
    stale: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts to wait, until another thread has taken over from the one whose progress this is; `None` where the system
    /// gives no thread.
    pub(crate) fn start(mut events: NvmlEvents, tell: Tell, progress: Progress) -> Option<Self> {
        let (stop, stale) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::Builder::new().name("nvml-events".to_owned()).spawn({
            let (stop, stale) = (Arc::clone(&stop), Arc::clone(&stale));
            move || {
                while !stop.load(Ordering::Relaxed) && !progress.is_left() {
                    match events.wait(WAIT) {
                        // Whoever took over hears of it too.
                        Ok(Some(_)) if progress.is_left() => {}
                        Ok(Some(event)) => tell.tell(event),
                        Ok(None) => {}
                        // It goes on without that GPU; a look subscribes anew, to those that answer then.
                        Err(GpuError::GpuLost(_)) => stale.store(true, Ordering::Relaxed),
                        Err(_) => return,
                    }
                }
            }
        });
        Some(Self {
            stop,
            stale,
            thread: Some(thread.ok()?),
        })
    }

    /// True where another one should take its place.
    pub(crate) fn is_done(&self) -> bool {
        self.stale.load(Ordering::Relaxed) || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        leave(thread, WAIT + FAREWELL);
    }
}

/// Joins a thread that was told to end, or leaves it alone where it doesn't: a call into a driver may never return.
pub(crate) fn leave(thread: JoinHandle<()>, patience: Duration) {
    let deadline = Instant::now() + patience;
    while !thread.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if thread.is_finished() {
        // A panic of the thread was told by the thread.
        let _ = thread.join();
    }
}
