//! Libraries that are wrong in one way each, compiled from C and loaded by the real loader.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

mod events;
mod faults;
mod library;
mod release;
mod silent;
