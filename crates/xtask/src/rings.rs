//! `xtask test`: all tests, ring by ring, and an honest account of what ran.
//!
//! A ring that can't run here is skipped with its reason, never counted as passed. Under `CI=true` a skipped ring that
//! has tests and needs no GPU is a failure.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{packages, process};

/// Options of `xtask test`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Run these rings only (1 to 5); all by default
    #[arg(long = "ring", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    rings: Vec<u8>,
    /// Also write the account to this file
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

const NAMES: [&str; 5] = ["pure", "simulated", "real parts", "real Kubernetes", "real GPU"];

/// A built test program and the ring that it belongs to.
struct Program {
    ring: u8,
    name: String,
    path: PathBuf,
    package_dir: PathBuf,
}

/// What became of one ring.
#[derive(Default)]
struct Account {
    ring: u8,
    passed: u64,
    failed: u64,
    skipped: u64,
    reason: Option<String>,
    took: Duration,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.get(usize::from(self.ring) - 1).copied().unwrap_or_default();
        write!(f, "ring {} ({name}): ", self.ring)?;
        write!(
            f,
            "{} ok, {} not ok, {} left out",
            self.passed, self.failed, self.skipped
        )?;
        write!(f, " in {:.0} s", self.took.as_secs_f64())?;
        self.reason
            .as_ref()
            .map_or(Ok(()), |reason| write!(f, "; {reason}"))
    }
}

/// Installs, builds and runs; fails when any test did, or when CI had to skip a ring that it may not.
pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let wanted = |ring: u8| args.rings.is_empty() || args.rings.contains(&ring);
    let needs_bed = wanted(3) || wanted(4);
    if needs_bed && let Err(error) = packages::install_debian() {
        eprintln!("warning: {error:#}");
    }
    let start = Instant::now();
    let programs = build()?;
    eprintln!("test: built in {:.0} s", start.elapsed().as_secs_f64());

    let mut accounts = Vec::new();
    for ring in (1..=5).filter(|&ring| wanted(ring)) {
        let mine: Vec<&Program> = programs.iter().filter(|program| program.ring == ring).collect();
        let start = Instant::now();
        let mut account = Account {
            ring,
            ..Account::default()
        };
        match obstacle(ring, &mine) {
            Some(reason) => {
                account.skipped = count_tests(&mine)?;
                account.reason = Some(reason);
            }
            None => {
                for program in mine {
                    run_program(program, &mut account)?;
                }
            }
        }
        account.took = start.elapsed();
        accounts.push(account);
    }
    if needs_bed && testbed_is_used(&programs) {
        // The bed is ours: nothing of it may outlive the tests.
        testbed("down")?;
    }
    finish(&accounts, args.summary.as_deref(), in_ci)
}

/// Why a ring can't run here; brings the test bed up where it is needed.
fn obstacle(ring: u8, programs: &[&Program]) -> Option<String> {
    match ring {
        5 if !Path::new("/proc/driver/nvidia/version").exists() => {
            Some("skipped: there is no NVIDIA driver on this machine".to_owned())
        }
        3 | 4 if !programs.is_empty() => testbed("up").err().map(|error| format!("skipped: {error:#}")),
        _ => None,
    }
}

fn testbed_is_used(programs: &[Program]) -> bool {
    programs.iter().any(|program| matches!(program.ring, 3 | 4))
}

/// Brings the test bed up or down, as one would by hand; its reasons go to standard error.
fn testbed(word: &str) -> Result<()> {
    let ourselves = std::env::current_exe().context("could not find this program")?;
    if word == "up" && !is_root() {
        // What is built belongs to who builds it; only what runs is root's.
        process::run(Command::new(&ourselves).args(["testbed", "build"]))?;
    }
    process::run(as_root(&ourselves).args(["testbed", word]).stdout(Stdio::null()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program that the test bed needs root for: through sudo for who isn't, with what our programs read of the
/// environment, which sudo would take away.
fn as_root(program: &Path) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("env");
    for name in [
        "PATH",
        "HOME",
        "XDG_CACHE_HOME",
        "PITCREW_TESTBED",
        "KUBEBUILDER_ASSETS",
    ] {
        if let Some(value) = std::env::var_os(name) {
            let mut pair = std::ffi::OsString::from(name);
            pair.push("=");
            pair.push(value);
            command.arg(pair);
        }
    }
    command.arg(program);
    command
}

/// Builds every test of the workspace once, and the product for the tests that drive it.
fn build() -> Result<Vec<Program>> {
    let mut command = process::cargo();
    command.args([
        "test",
        "--workspace",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("could not start cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|line| program(&line))
        .collect())
}

/// A test program, from one line of cargo's JSON.
fn program(message: &Value) -> Option<Program> {
    let executable = message["executable"].as_str()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let target = message["target"]["name"].as_str()?;
    let package_dir = PathBuf::from(message["manifest_path"].as_str()?)
        .parent()?
        .to_owned();
    let package = package_dir.file_name()?.to_str()?.to_owned();
    let by_name = target
        .strip_prefix("ring")
        .and_then(|rest| rest.chars().next())
        .and_then(|digit| digit.to_digit(10));
    let ring = match (by_name, package.as_str()) {
        (Some(ring), _) => u8::try_from(ring).ok()?,
        // What drives imaginary hardware is simulated; the rest is pure.
        (None, "scenario" | "pitcrew") => 2,
        (None, _) => 1,
    };
    Some(Program {
        ring,
        name: format!("{package}/{target}"),
        path: executable.into(),
        package_dir,
    })
}

fn command(program: &Program) -> Result<Command> {
    // Rings 3 and 4 speak to the test bed, which is root's.
    let mut command = if matches!(program.ring, 3 | 4) && !is_root() {
        let mut ourselves = std::ffi::OsString::from("PITCREW_XTASK=");
        ourselves.push(std::env::current_exe()?);
        let mut command = as_root(Path::new("env"));
        command.arg(ourselves).arg(&program.path);
        command
    } else {
        Command::new(&program.path)
    };
    command
        .current_dir(&program.package_dir)
        .env("CARGO_MANIFEST_DIR", &program.package_dir)
        .env("PITCREW_XTASK", std::env::current_exe()?);
    Ok(command)
}

/// Runs one test program, shows what failed, and adds to the account.
fn run_program(program: &Program, account: &mut Account) -> Result<()> {
    let mut command = command(program)?;
    if program.ring >= 3 {
        // They share one test bed, and are marked `ignore` for who runs plain `cargo test`.
        command.args(["--include-ignored", "--test-threads=1"]);
    }
    let output = command
        .output()
        .with_context(|| format!("could not start {}", program.path.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let result = stdout
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("test result: "));
    let [passed, failed, ignored] = result.map_or([0, 1, 0], counts);
    account.passed += passed;
    account.failed += failed;
    account.skipped += ignored;
    if output.status.success() {
        eprintln!("test: ring {} {}: {passed} ok", program.ring, program.name);
    } else {
        account.failed = account.failed.max(1);
        eprintln!("test: ring {} {}: FAILED", program.ring, program.name);
        eprintln!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Passed, failed and ignored, from `ok. 5 passed; 0 failed; 1 ignored; ...`.
fn counts(result: &str) -> [u64; 3] {
    ["passed", "failed", "ignored"].map(|word| {
        let part = result
            .split(['.', ';'])
            .map(str::trim)
            .find_map(|part| part.strip_suffix(word));
        part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    })
}

/// How many tests are in programs that can't run here.
fn count_tests(programs: &[&Program]) -> Result<u64> {
    let mut count = 0;
    for program in programs {
        let list =
            process::output(command(program)?.args(["--list", "--format=terse", "--include-ignored"]))?;
        count += list.lines().filter(|line| line.ends_with(": test")).count() as u64;
    }
    Ok(count)
}

/// Prints the account, and fails where something did.
fn finish(accounts: &[Account], summary: Option<&Path>, in_ci: bool) -> Result<()> {
    let mut text = String::new();
    for account in accounts {
        let _ = writeln!(text, "{account}");
    }
    let sum = |field: fn(&Account) -> u64| accounts.iter().map(field).sum::<u64>();
    let failed = sum(|account| account.failed);
    let (passed, skipped) = (sum(|account| account.passed), sum(|account| account.skipped));
    let _ = writeln!(text, "{passed} passed, {failed} failed, {skipped} skipped");
    print!("{text}");
    if let Some(path) = summary {
        std::fs::write(path, &text).with_context(|| format!("could not write {}", path.display()))?;
    }
    if failed > 0 {
        bail!("{failed} tests failed");
    }
    if in_ci
        && let Some(account) = accounts
            .iter()
            .find(|account| account.ring < 5 && account.reason.is_some())
    {
        bail!("ring {} may not be skipped in CI", account.ring);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_test_program_are_read() {
        assert_eq!(
            counts("ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out"),
            [5, 0, 1]
        );
        assert_eq!(counts("FAILED. 4 passed; 12 failed; 0 ignored"), [4, 12, 0]);
    }

    #[test]
    fn a_test_program_belongs_to_the_ring_that_its_name_says() {
        let message = |target: &str, package: &str| {
            serde_json::json!({
                "executable": "/t/x", "profile": {"test": true}, "target": {"name": target},
                "manifest_path": format!("/r/crates/{package}/Cargo.toml"),
            })
        };
        let ring = |target, package| program(&message(target, package)).map(|program| program.ring);
        assert_eq!(ring("ring4_cluster", "tests"), Some(4));
        assert_eq!(ring("it", "scenario"), Some(2));
        assert_eq!(ring("pitcrew_core", "core"), Some(1));
    }
}
