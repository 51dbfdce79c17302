//! Simulated nodes: the real agent on imaginary hardware.
#![forbid(unsafe_code)]
