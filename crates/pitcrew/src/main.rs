//! pitcrew gets GPUs on RKE2 race-ready and proves it: `pitcrew --help` says how.

mod app;
mod commands;
mod driver;
mod error;
mod exit;
mod output;
mod pci;
mod top;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(std::env::args_os()).into()
}
