//! The real binary, as a person runs it: exit code, standard output and standard error are pinned together.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

mod catalog;
mod errors;
mod gpus;
mod machine;
mod program;
mod streams;
#[cfg(feature = "sim")]
mod unread;
