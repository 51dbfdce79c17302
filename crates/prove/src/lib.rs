//! `pitcrew prove`: work that takes a GPU to its limit, and an answer for each of its results that is known beforehand.
//!
//! Operands are small integers ([`operands`]), so every product is exact in every format and in every order, and the CPU
//! knows what must come out. A [`device::Device`] is a GPU through the driver's `libcuda.so.1`, or a stand-in on the CPU.

mod ahead;
mod bench;
pub mod cuda;
pub mod device;
pub mod inject;
pub mod kernels;
pub mod lane;
pub mod operands;
pub mod pace;
pub mod peers;
mod phase;
pub mod profile;
pub mod progress;
pub mod run;
pub mod stand_in;
pub mod telemetry;
pub mod verify;
