//! Time as phases see it: how long the run has taken, and waiting.

use std::time::{Duration, Instant};

/// Whose time counts.
pub trait Pace {
    /// Since it began.
    fn elapsed(&self) -> Duration;

    /// Does nothing for so long.
    fn rest(&self, time: Duration);
}

/// The clock on the wall.
#[derive(Debug, Clone, Copy)]
pub struct Wall(Instant);

impl Wall {
    /// Begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Began then: what was done before the run counts as its time, too.
    pub const fn since(begin: Instant) -> Self {
        Self(begin)
    }
}

impl Pace for Wall {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn rest(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
