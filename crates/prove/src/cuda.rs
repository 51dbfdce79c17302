//! GPUs through the driver's own library, `libcuda.so.1`: no CUDA toolkit, nothing linked.

mod copies;
mod facts;
mod gpu;
mod launch;
mod library;
mod matrix;
mod modules;
mod self_test;
mod setup;

pub use gpu::Gpu;
pub use library::{Library, SEARCH, SONAME};
pub use setup::{SetupError, Surroundings};
