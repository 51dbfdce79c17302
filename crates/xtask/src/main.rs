//! What the repository does to itself: tests, generated files, the test bed, releases, fuzzing.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's tool that talks to a terminal"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "reads the developer's environment by itself"
)]

mod chaos;
mod check;
mod deny;
mod dist;
mod fuzz;
mod generate;
mod hook;
mod image;
mod nvml;
mod packages;
mod process;
mod rings;
mod testbed;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need, and run every ring that can run here
    Test(rings::TestArgs),
    /// Check format, lints, generated files and dependencies
    Check(check::CheckArgs),
    /// Write the generated files, or with --check see that they are up to date
    Gen(generate::GenArgs),
    /// The test bed: a real single-node Kubernetes on this machine
    Testbed(testbed::TestbedArgs),
    /// Fuzz the parsers of outside text
    Fuzz(fuzz::FuzzArgs),
    /// Run the agent on imaginary nodes on which everything goes wrong
    Chaos(chaos::ChaosArgs),
    /// Build what people run on their hosts: the binary, completions, man pages
    Dist(dist::DistArgs),
    /// Build the image of all parts that run in a cluster, and the list of what it is made of
    Image(image::ImageArgs),
    /// Build the static binary of the CDI hooks and the runtime wrapper
    Hook(hook::HookArgs),
    /// Build the static binary that finds out which nodes have a GPU
    Scout(hook::HookArgs),
    /// Check licences, sources and duplicates of the dependencies
    Deny,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => rings::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Gen(args) => generate::run(&args),
        Command::Testbed(args) => testbed::run(args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Hook(args) => hook::run(&hook::HOOK, &args),
        Command::Scout(args) => hook::run(&hook::SCOUT, &args),
        Command::Deny => deny::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  caused by: {cause}");
            }
            if let Some(missing) = error.downcast_ref::<testbed::Missing>() {
                eprintln!("\nhint: {}", missing.hint());
                return ExitCode::from(2);
            }
            ExitCode::FAILURE
        }
    }
}

/// The repository's root: where this program was built from.
fn repository() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root.pop();
    root
}

/// Where tools, test-bed binaries and other things that outlive a checkout are kept.
fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || {
            let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
            home.join(".cache")
        },
        PathBuf::from,
    );
    base.join("pitcrew")
}
