//! Imaginary nodes, and the agent on them.

mod node;
