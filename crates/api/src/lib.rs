//! Custom resources of pitcrew.
#![forbid(unsafe_code)]
