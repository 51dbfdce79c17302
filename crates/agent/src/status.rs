//! What the node says of itself: `GpuNode`, conditions, Events, taint, validation files.
