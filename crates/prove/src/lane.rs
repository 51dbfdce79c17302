//! The way between GPUs and the host, which one of them takes at a time.
//!
//! GPUs share bridges and the host's memory: two H100s that copied at once had 41 GB/s each, of 55. What a slot can do is
//! measured by one alone.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whose turn it is: first come, first served. One for all GPUs of a run.
#[derive(Debug, Default)]
pub struct Lane {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The first has the lane.
    places: VecDeque<u64>,
    next: u64,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place at the end of the queue.
    pub(crate) fn queue(&self) -> Turn<'_> {
        let mut queue = self.lock();
        let place = queue.next;
        queue.next += 1;
        queue.places.push_back(place);
        Turn { lane: self, place }
    }
}

/// A place in the queue, given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    lane: &'a Lane,
    place: u64,
}

impl Turn<'_> {
    /// Waits for the lane, no longer than this; true once it has it.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let has_it = |queue: &Queue| queue.places.front() == Some(&self.place);
        let queue = self.lane.lock();
        let waited = self
            .lane
            .changed
            .wait_timeout_while(queue, patience, |queue| !has_it(queue));
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        has_it(&queue)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lane.lock().places.retain(|&place| place != self.place);
        self.lane.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn one_at_a_time_has_the_lane_in_the_order_of_coming() {
        let lane = Lane::default();
        let (first, second, third) = (lane.queue(), lane.queue(), lane.queue());
        assert!(first.wait(LONG));
        assert!(!second.wait(Duration::ZERO) && !third.wait(Duration::ZERO));
        // Who gives up holds up nobody.
        drop(second);
        drop(first);
        assert!(third.wait(Duration::ZERO));
    }

    #[test]
    fn many_threads_are_never_in_it_together() {
        let (lane, inside) = (Lane::default(), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let turn = lane.queue();
                        assert!(turn.wait(LONG));
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
