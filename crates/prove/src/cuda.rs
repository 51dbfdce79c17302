//! GPUs through the driver's own library, `libcuda.so.1`: no CUDA toolkit, nothing linked.

mod gpu;
mod launch;
mod library;
mod self_test;
mod setup;

pub use gpu::Gpu;
pub use library::{Library, SEARCH, SONAME};
pub use setup::{SetupError, Surroundings};
