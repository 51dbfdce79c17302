//! Health of GPUs over time: what makes one sick, and what makes it well again.
