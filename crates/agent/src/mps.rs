//! The daemon of NVIDIA's Multi-Process Service, one for each shared resource.
