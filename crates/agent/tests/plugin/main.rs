//! The device plugin at a fake kubelet, on real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "figures and seeds, with --nocapture")]

mod chaos;
mod health;
mod node;
mod registration;
mod rival;
mod sharing;
