//! Specifications of imaginary nodes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod directories;
mod nodes;
mod reference;
mod roots;
