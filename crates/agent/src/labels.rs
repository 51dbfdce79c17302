//! Labels of the node, as GPU Feature Discovery writes them.
