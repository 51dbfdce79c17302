//! Checks of whole imaginary nodes: the manifests in `tests/roots`.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

mod configs;
mod manifests;
mod next_boot;
mod roots;
mod upgrades;
