//! What is told while a run goes on.

use pitcrew_core::proof::{Format, Outcome, Sample, Unit};

use crate::profile::Step;

/// One thing that is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// A phase begins, or goes on.
    Began {
        /// Which.
        step: Step,
    },
    /// Work was done, and how fast.
    Rate {
        /// How fast.
        rate: f64,
        /// What is counted.
        unit: Unit,
    },
    /// Kernels that run from now on, by name.
    Runs(&'static str),
    /// Nothing to see, but it goes on: kernels of a format are loaded and tested.
    Loads(Format),
    /// Nothing to see, but it goes on.
    Goes,
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
    /// The phase has ended, for now: what became of it.
    Ended(Outcome),
}
