//! NVML's C ABI over a scenario: a `libnvidia-ml.so.1` for imaginary GPUs.
//!
//! Programs that know nothing of pitcrew, and pitcrew's own NVML code, load it in place of NVIDIA's library.
//! `PITCREW_SCENARIO` names the scenario and `PITCREW_SCENARIO_CHANGES` a file of changes; `docs/scenarios.md` says
//! how. Every function of NVML 13's public header is exported: those that somebody calls are written here, by topic,
//! and answer from the scenario; [`generated`] has all others, which answer `NVML_ERROR_NOT_SUPPORTED`, and proof
//! that each is declared as in the header.
//!
//! C passes pointers, which [`abi`] turns into types that can't be misused, in one place. Handles are never followed:
//! [`handles`] knows which ones were given out. A panic ends at the C boundary as `NVML_ERROR_UNKNOWN`.
#![allow(unsafe_code, reason = "this crate is the far side of a C interface")]
#![allow(non_snake_case, reason = "functions and parameters are named as in nvml.h")]

#[macro_use]
mod abi;

mod changes;
mod clocks;
mod device;
mod ecc;
mod events;
mod fabric;
mod fields;
mod generated;
mod gpm;
mod handles;
mod memory;
mod mig;
mod nvlink;
mod pci;
mod power;
mod processes;
mod system;
mod thermal;
mod topology;
mod utilization;
mod world;
