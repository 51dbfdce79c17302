//! What a thread asks the driver at this moment, for others to see: when it hangs, they know at what.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::library;

/// What one thread asks. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The GPU that is asked, by the driver's number.
    gpu: Option<u32>,
    /// The function that was entered and has not returned, and when.
    call: Option<(usize, Instant)>,
    /// Nobody wants to know any more what the thread finds.
    is_left: bool,
}

/// A call that has not returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The GPU that it is about, by the driver's number; `None` for the driver as a whole.
    pub gpu: Option<u32>,
    /// Name of the function; `a call of the driver` where that can't be told.
    pub call: String,
    /// For how long.
    pub running: Duration,
}

thread_local! {
    /// Where this thread notes its calls. Every shape of call would need it as an argument otherwise, and one that
    /// forgets it would hang without a name.
    static OF_THIS_THREAD: RefCell<Option<Progress>> = const { RefCell::new(None) };
}

impl Progress {
    /// From now on this thread notes its calls here.
    pub fn follow_this_thread(&self) {
        OF_THIS_THREAD.set(Some(self.clone()));
    }

    /// The call that has not returned, if one is being made.
    pub fn asked(&self) -> Option<Asked> {
        let state = self.lock();
        let (function, since) = state.call?;
        let gpu = state.gpu;
        // The dynamic linker is asked without the lock: a thread that comes back must not wait for it.
        drop(state);
        Some(Asked {
            gpu,
            call: library::name_of(function).unwrap_or_else(|| "a call of the driver".to_owned()),
            running: since.elapsed(),
        })
    }

    /// For how long the call that is being made has not returned.
    pub fn running(&self) -> Option<Duration> {
        self.lock().call.map(|(_, since)| since.elapsed())
    }

    /// Another thread has taken over: what this one finds from now on must not be told.
    pub fn leave(&self) {
        self.lock().is_left = true;
    }

    /// True once [`Self::leave`] was called.
    pub fn is_left(&self) -> bool {
        self.lock().is_left
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(change: impl FnOnce(&mut State)) {
    OF_THIS_THREAD.with_borrow(|progress| {
        if let Some(progress) = progress {
            change(&mut progress.lock());
        }
    });
}

/// This thread asks about this GPU from now on, or about the driver as a whole.
pub(crate) fn about(gpu: Option<u32>) {
    note(|state| state.gpu = gpu);
}

/// True where another thread has taken over from this one: it must not go on to what may hang next.
pub(crate) fn is_left() -> bool {
    OF_THIS_THREAD.with_borrow(|progress| progress.as_ref().is_some_and(Progress::is_left))
}

/// This thread enters a function of the driver.
pub(crate) fn enter(function: usize) {
    note(|state| state.call = Some((function, Instant::now())));
}

/// It has returned.
pub(crate) fn returned() {
    note(|state| state.call = None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_seen_from_elsewhere_until_it_returns() {
        let progress = Progress::default();
        let seen = progress.clone();
        std::thread::spawn(move || {
            enter(1);
            assert_eq!(progress.asked(), None, "nothing is noted before it is asked for");
            progress.follow_this_thread();
            about(Some(3));
            enter(1);
            let asked = seen.asked().unwrap();
            assert_eq!(
                (asked.gpu, asked.call.as_str()),
                (Some(3), "a call of the driver")
            );
            returned();
            assert_eq!((seen.asked(), seen.running()), (None, None));
        })
        .join()
        .unwrap();
    }
}
