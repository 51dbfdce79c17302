//! The real binary, as a person runs it: exit code, standard output and standard error are pinned together.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

mod catalog;
#[cfg(feature = "sim")]
mod cdi;
#[cfg(feature = "sim")]
mod check;
mod driver;
mod errors;
mod failing;
mod gpus;
mod machine;
#[cfg(feature = "sim")]
#[path = "../../../check/tests/it/manifests.rs"]
mod manifests;
mod program;
mod prove;
#[cfg(feature = "sim")]
mod proving;
#[cfg(feature = "sim")]
mod sim;
mod streams;
#[cfg(feature = "sim")]
mod top;
#[cfg(feature = "sim")]
mod unread;
