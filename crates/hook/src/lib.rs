//! What runs as root in the path of a container's start: CDI hooks and the OCI runtime wrapper.
//!
//! The container's root directory is written by whoever made its image, and volumes in it may be written to at this very
//! moment: it is taken for hostile. Nothing in it is reached by a path that the kernel resolves freely, only through
//! [`root::ContainerRoot`]. What is read from it is bounded. Of the environment nothing is read by the hooks, and the
//! host's `ldconfig`, the one program that they start, gets an empty one. `LD_PRELOAD` and the like mean nothing to a
//! static binary.

pub mod args;
pub mod chmod;
pub mod cuda_compat;
pub mod device_params;
mod elf;
pub mod hooks;
pub mod ld_cache;
mod ldconfig;
pub mod root;
pub mod state;
pub mod symlinks;
mod walk;
pub mod wrapper;
