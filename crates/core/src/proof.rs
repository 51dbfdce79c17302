//! The report of a proof: what was measured of each GPU at its limit, what it should have been, and what follows.
//!
//! [`Evidence`] is what a run has seen, without opinion. [`judge`] makes a [`Report`] of it, which is what is
//! written, merged and shown. Everything is optional that a driver may not tell: what is absent was not read, and
//! `unread` says why; nothing is ever written as 0 because it is unknown.
//!
//! A phase that did not run is there with its reason ([`Outcome`]), so that "not tested" can't be read as "passed".

mod device;
mod evidence;
pub mod expected;
pub mod fleet;
mod judge;
mod link;
mod phase;
mod read;
mod samples;
mod thresholds;
mod timestamp;
mod verdict;

use serde::{Deserialize, Serialize};

pub use device::{Counters, Device, DeviceEvidence, MigSlice, Process, Sample, Unread, XidEvent};
pub use evidence::{
    Driver, Evidence, Node, PeerPath, PeerRoute, Profile, Run, SetupError, SetupErrorCode, Tool,
};
pub use judge::judge;
pub use link::LinkState;
pub use phase::{
    Bits, Code, Corruption, CorruptionClass, Coverage, Format, Outcome, ParseFormatError, Phase, PhaseKind,
    Rate, Refused, Skip, SmResult, Unit,
};
pub use read::{MAX_BYTES, ReadError, parse};
pub use thresholds::{
    Borders, CardFigures, MAX_THRESHOLDS_BYTES, Thresholds, ThresholdsError, parse_thresholds,
};
pub use timestamp::{ParseTimestampError, Timestamp};
pub use verdict::{Figure, Grade, Judgement, Reason, ReasonCode, Verdict};

/// Value of the field `schema`. Fields may be added under the same version; what is there keeps its meaning.
pub const SCHEMA: &str = "pitcrew.dev/proof/v1";

/// One run of `pitcrew prove` on one node: evidence, and the judgement of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The verdict on the whole run: the gravest of all its devices and links.
    pub verdict: Verdict,
    /// Why, gravest first, and what to do.
    pub judgement: Judgement,
    /// What was measured.
    pub evidence: Evidence,
}

#[cfg(test)]
mod tests;
