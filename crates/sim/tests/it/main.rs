//! Imaginary nodes, and the agent on them.

mod given;
mod independence;
mod node;
mod story;
