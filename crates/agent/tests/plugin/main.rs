//! The device plugin at a fake kubelet, on real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

mod health;
mod node;
mod registration;
mod rival;
mod sharing;
