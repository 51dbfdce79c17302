//! MIG: the ways to cut a GPU into instances that share nothing.
//!
//! The tables here are for imaginary GPUs, for pictures and for planning before a driver is there. A real card is
//! asked for its profiles and placements through [`crate::ports::Mig`]. Sources: NVIDIA's MIG user guide (fact sheet
//! `devices`, section 3.6) and a recording of an H100; what neither says is absent.

mod engines;
mod geometry;
mod layout;
mod profile;

pub use engines::{Engines, engines};
pub use geometry::{Geometry, GeometryProfile, geometry};
pub use layout::{DoesNotFit, Layout, PlacementError, balanced, pack};
pub use profile::{Attribute, ParseProfileError, Profile};

use serde::Serialize;

/// The memory slices that an instance takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Placement {
    /// First slice, from 0.
    pub start: u8,
    /// Number of slices.
    pub size: u8,
}

impl Placement {
    /// True when both take some slice.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.start.saturating_add(other.size)
            && other.start < self.start.saturating_add(self.size)
    }
}
