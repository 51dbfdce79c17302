//! Tests of `host` on files: what others wrote, what their programs printed, and whole hosts, imaginary and real.
#![expect(clippy::unwrap_used, reason = "tests")]

mod base;
mod gather;
mod nodes;
mod templates;
mod total;
mod unusual;
