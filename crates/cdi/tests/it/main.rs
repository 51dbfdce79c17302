//! Specifications of imaginary nodes.
#![expect(clippy::unwrap_used, reason = "tests")]

mod directories;
mod extra;
mod nodes;
mod reference;
mod roots;
