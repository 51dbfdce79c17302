//! Imaginary nodes, and the agent on them.

mod independence;
mod node;
