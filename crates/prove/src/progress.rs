//! What is told while a run goes on.

use std::time::Duration;

use pitcrew_core::proof::{Outcome, Sample, Unit};

use crate::profile::Step;

/// One thing that is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// A phase begins, or goes on.
    Began {
        /// Which.
        step: Step,
        /// How long it shall take.
        time: Duration,
        /// Its place in the plan, from 0.
        index: usize,
        /// How many there are.
        of: usize,
    },
    /// Work was done, and how fast.
    Rate {
        /// Which phase.
        step: Step,
        /// How fast.
        rate: f64,
        /// What is counted.
        unit: Unit,
    },
    /// Kernels that run from now on, by name.
    Runs(&'static str),
    /// What was compared so far in the whole run.
    Checked {
        /// Results of arithmetic.
        verified_outputs: u64,
        /// Results and words that were wrong.
        corruption_count: u64,
    },
    /// The driver was asked.
    Sampled(Sample),
    /// Something is wrong; in one line.
    Found(String),
    /// A phase has ended, for now.
    Ended {
        /// Which.
        step: Step,
        /// What became of it.
        outcome: Outcome,
    },
}
