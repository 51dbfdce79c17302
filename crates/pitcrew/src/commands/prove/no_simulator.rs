//! A build without the feature `sim`: no imaginary GPUs.

use std::time::Duration;

use pitcrew_core::Inventory;
use pitcrew_core::proof::{PeerPath, SetupError};
use pitcrew_prove::run::{Options, Outcomes};

use super::rack::{Ends, Rack, Target};
use crate::error::Error;

/// Never made.
pub(super) enum Imaginary {}

pub(super) fn open(name: &str) -> Result<(Imaginary, String), Error> {
    Err(Error::NoSimulator(name.to_owned()))
}

impl Imaginary {
    pub(super) fn inventory(&self) -> &Inventory {
        match *self {}
    }
}

impl Rack for Imaginary {
    fn work(&self, _target: &Target, _options: &Options, _ends: Ends<'_>) -> Result<Outcomes, SetupError> {
        match *self {}
    }

    fn peers(
        &self,
        _targets: &[Target],
        _time: Duration,
        _is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<PeerPath>, SetupError> {
        match *self {}
    }
}
