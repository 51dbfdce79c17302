//! No imaginary GPUs: a build without the feature `sim`, as in the image.

use std::convert::Infallible;

use pitcrew_core::Reading;
use pitcrew_core::nvlink::NvLink;
use pitcrew_core::ports::{GpuError, Sampling};

use super::Seen;
use crate::error::Error;

/// There is none.
#[derive(Clone, Debug)]
pub(crate) struct Imaginary(Infallible);

impl Imaginary {
    pub(super) fn open(name: &str) -> Result<Self, Error> {
        Err(Error::NoSimulator(name.to_owned()))
    }

    pub(super) fn look(&mut self) -> Result<Seen, Error> {
        match self.0 {}
    }
}

impl Sampling for Imaginary {
    fn fields(&mut self, _uuid: &str, _names: &[&str]) -> Result<Vec<Reading<u64>>, GpuError> {
        match self.0 {}
    }

    fn nvlinks(&mut self, _uuid: &str) -> Result<Vec<NvLink>, GpuError> {
        match self.0 {}
    }

    fn profiling(&mut self, _uuid: &str, _metrics: &[u32]) -> Result<Vec<Reading<f64>>, GpuError> {
        match self.0 {}
    }
}
