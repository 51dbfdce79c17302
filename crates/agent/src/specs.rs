//! CDI specifications of the node, kept true.
