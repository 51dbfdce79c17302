//! What the agent says of its node: conditions from the facts, and what reaches an API server that has its bad days.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and what they share")]

mod cluster;
mod judge;
mod keep;
mod node;
mod nothing;
mod proof;
