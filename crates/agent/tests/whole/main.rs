//! The whole agent on imaginary nodes: what the main loop makes of a node that changes.
#![cfg(test)]

mod bench;
mod driver;
mod health;
mod node;
