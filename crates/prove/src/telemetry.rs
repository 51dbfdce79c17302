//! What the driver says while a GPU works, as a port: who watches is passed in.

use std::time::Duration;

use pitcrew_core::proof::{Counters, Sample, XidEvent};

/// Watches one GPU while it works. Nothing here may take longer than a few milliseconds: who asks a driver does so on
/// a thread of its own and hands over here what it has got.
pub trait Watch {
    /// Counters as they are now.
    fn counters(&mut self) -> Counters;

    /// Samples since the last call, oldest first. `elapsed` is the time of the run.
    fn samples(&mut self, elapsed: Duration) -> Vec<Sample>;

    /// XIDs since the last call.
    fn xids(&mut self, elapsed: Duration) -> Vec<XidEvent>;

    /// Why the GPU can't be asked any more, where the driver says that it is gone.
    fn lost(&mut self) -> Option<String> {
        None
    }
}

/// Nobody watches: a driver without its management library.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn counters(&mut self) -> Counters {
        Counters::default()
    }

    fn samples(&mut self, _elapsed: Duration) -> Vec<Sample> {
        Vec::new()
    }

    fn xids(&mut self, _elapsed: Duration) -> Vec<XidEvent> {
        Vec::new()
    }
}
