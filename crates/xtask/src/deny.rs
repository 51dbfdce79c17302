//! `xtask deny`: licences, sources and duplicates of the dependencies, by cargo-deny.

use std::process::Command;

use anyhow::Result;

use crate::{packages, process};

/// Checks bans, licences and sources. Advisories only where their database can be fetched; said aloud where not.
pub(crate) fn run() -> Result<()> {
    let program = packages::install_tools("deny")?.join("bin/cargo-deny");
    let mut check = Command::new(&program);
    check.current_dir(crate::repository()).args([
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    process::run(&mut check)?;

    let mut fetch = Command::new(&program);
    fetch.current_dir(crate::repository()).args(["fetch", "db"]);
    if process::output(&mut fetch).is_err() {
        eprintln!("skipped: advisories (their database can't be reached from here)");
        return Ok(());
    }
    let mut advisories = Command::new(&program);
    advisories
        .current_dir(crate::repository())
        .args(["check", "--disable-fetch", "advisories"]);
    if process::run(&mut advisories).is_err() {
        eprintln!("warning: there are advisories against our dependencies; a new one must not stop a change");
    }
    Ok(())
}
