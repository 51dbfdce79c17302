//! The whole agent on imaginary nodes: what the main loop makes of a node that changes.
#![cfg(test)]
#![expect(clippy::print_stdout, reason = "figures, with --nocapture")]

mod bench;
mod driver;
mod health;
mod node;
mod proof;
mod specs;
mod wanted;
