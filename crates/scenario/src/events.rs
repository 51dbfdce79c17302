//! Queues of events: each subscriber sees every event from its beginning on.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pitcrew_core::ports::{Events, GpuError, GpuEvent};

use crate::calls;
use crate::machine::Shared;
use crate::state::Subscriber;

/// One subscriber's queue; made by [`crate::Machine::events`].
#[derive(Debug)]
pub struct EventQueue {
    shared: Arc<Shared>,
    id: u64,
}

impl EventQueue {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let mut state = shared.lock();
        state.subscriptions += 1;
        let id = state.subscriptions;
        state.subscribers.insert(id, Subscriber::default());
        drop(state);
        Self { shared, id }
    }
}

impl EventQueue {
    /// The next event if there is one already; never waits, and asks nobody whether the call would hang.
    pub fn take(&mut self) -> Option<GpuEvent> {
        let mut state = self.shared.lock();
        state.pop(self.id)
    }

    /// The next event, for a task: without one, or while the call hangs or the driver doesn't answer, its waker is
    /// kept and called when something has changed.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<GpuEvent> {
        let mut state = self.shared.lock();
        if !state.hangs(calls::EVENTS, None)
            && state.driver_answers().is_ok()
            && let Some(event) = state.pop(self.id)
        {
            return Poll::Ready(event);
        }
        if let Some(subscriber) = state.subscribers.get_mut(&self.id) {
            subscriber.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        self.shared.lock().subscribers.remove(&self.id);
    }
}

impl Events for EventQueue {
    fn wait(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError> {
        // A timeout too long to add up is one that never ends.
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.shared.lock();
        loop {
            if state.hangs(calls::EVENTS, None) {
                // A hanging driver keeps no deadline.
                state = self.shared.wait(state);
                continue;
            }
            state.driver_answers()?;
            if let Some(event) = state.pop(self.id) {
                return Ok(Some(event));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return Ok(None),
                Some(left) => self.shared.wait_for(state, left),
                None => self.shared.wait(state),
            };
        }
    }
}
