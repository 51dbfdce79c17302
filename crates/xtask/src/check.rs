//! `xtask check`: everything besides tests that a change must pass, with the seconds of each step.

use std::time::Instant;

use anyhow::Result;

use crate::generate::{self, GenArgs};
use crate::{deny, process};

/// Options of `xtask check`.
#[derive(clap::Args)]
pub(crate) struct CheckArgs {}

/// A name, and what it does.
type Step = (&'static str, fn() -> Result<()>);

/// Runs every step, also after one failed, and fails at the end if any did.
pub(crate) fn run(_args: &CheckArgs) -> Result<()> {
    let steps: [Step; 5] = [
        ("format", || {
            process::run(process::cargo().args(["fmt", "--all", "--check"]))
        }),
        ("clippy", || process::run(process::cargo().args(CLIPPY))),
        ("features", || process::run(process::cargo().args(NO_SIM))),
        ("generated files", || generate::run(&GenArgs { check: true })),
        ("dependencies", deny::run),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        let start = Instant::now();
        let result = step();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        eprintln!(
            "check: {name}: {verdict} ({:.0} s)",
            start.elapsed().as_secs_f64()
        );
        if let Err(error) = result {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(anyhow::anyhow!(failed.join("\n  ")))
    }
}

const CLIPPY: [&str; 7] = [
    "clippy",
    "--workspace",
    "--all-targets",
    "--quiet",
    "--",
    "-D",
    "warnings",
];

/// The image's build: no simulator in the binary.
const NO_SIM: [&str; 6] = [
    "clippy",
    "--quiet",
    "--package=pitcrew",
    "--no-default-features",
    "--",
    "-Dwarnings",
];
