//! `xtask test`: all tests, ring by ring, and an honest account of what ran.
//!
//! A ring that can't run here is skipped with its reason, never counted as passed. Under `CI=true` a skipped ring that
//! has tests and needs no GPU is a failure.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write as _};
use std::io::{BufRead as _, BufReader};
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
    /// Run the test programs of these names only
    #[arg(long = "program", value_name = "NAME")]
    programs: Vec<String>,
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
    let mut programs = build()?;
    if !args.programs.is_empty() {
        programs.retain(|program| {
            args.programs
                .iter()
                .any(|name| program.name.ends_with(&format!("/{name}")))
        });
    }
    let artefacts = artefacts()?;
    eprintln!("test: built in {:.0} s", start.elapsed().as_secs_f64());

    let mut accounts = Vec::new();
    let mut bed_is_up = false;
    for ring in (1..=5).filter(|&ring| wanted(ring)) {
        let mine: Vec<&Program> = programs.iter().filter(|program| program.ring == ring).collect();
        let start = Instant::now();
        let mut account = Account {
            ring,
            ..Account::default()
        };
        let mut given = artefacts.clone();
        let ground = ground(ring, &mine, &mut given)?;
        bed_is_up |= matches!((ring, &ground), (3 | 4, Ground::Ready)) && !mine.is_empty();
        match ground {
            Ground::Ready => {
                for program in &mine {
                    run_program(program, &given, &mut account)?;
                }
                if ring == 4 {
                    run_with_old_containerd(&mine, &given, &mut account)?;
                }
            }
            Ground::Missing(what) => {
                account.skipped = count_tests(&mine)?;
                account.reason = Some(format!("skipped: {what}"));
            }
            Ground::Broken(what) => {
                account.failed = count_tests(&mine)?.max(1);
                account.reason = Some(format!("could not run: {what}"));
            }
        }
        account.took = start.elapsed();
        accounts.push(account);
    }
    if bed_is_up {
        bed_down()?;
    }
    finish(&accounts, args.summary.as_deref(), in_ci)
}

/// What a ring stands on.
enum Ground {
    Ready,
    /// The machine lacks this: the ring is skipped.
    Missing(String),
    /// It should have been there and failed: so did the ring.
    Broken(String),
}

/// What tests find in their environment.
type Given = Vec<(&'static str, PathBuf)>;

/// Whether a ring can run here; brings the test bed up where it is needed, and adds what else the ring's tests use.
fn ground(ring: u8, programs: &[&Program], given: &mut Given) -> Result<Ground> {
    if ring == 3 && !programs.is_empty() {
        // NVIDIA's own client of the mock.
        match packages::install_tools("nvml") {
            Ok(dir) => given.push(("PITCREW_PYTHONPATH", dir)),
            Err(error) => {
                return Ok(Ground::Missing(format!(
                    "nvidia-ml-py could not be installed: {error:#}"
                )));
            }
        }
    }
    if matches!(ring, 3 | 4) && !programs.is_empty() {
        given.push(("PITCREW_HOOK", crate::hook::build(&crate::hook::HOOK)?));
    }
    match ring {
        5 if !Path::new("/proc/driver/nvidia/version").exists() => Ok(Ground::Missing(
            "there is no NVIDIA driver on this machine".to_owned(),
        )),
        3 | 4 if !programs.is_empty() => bed(NEW_CONTAINERD),
        _ => Ok(Ground::Ready),
    }
}

/// The containerd that takes CDI names, and the one that takes device nodes and mounts.
const NEW_CONTAINERD: &str = "2.2";
const OLD_CONTAINERD: &str = "1.7";

/// Tests whose subject is how a GPU gets into a container, so that each containerd needs its own proof.
const ON_BOTH_CONTAINERDS: &[&str] = &["tests/ring4_agent"];

/// Runs such tests once more, on a node with the old containerd.
fn run_with_old_containerd(programs: &[&Program], given: &Given, account: &mut Account) -> Result<()> {
    let again: Vec<&&Program> = programs
        .iter()
        .filter(|program| ON_BOTH_CONTAINERDS.contains(&program.name.as_str()))
        .collect();
    if again.is_empty() {
        return Ok(());
    }
    bed_down()?;
    if let Ground::Missing(what) | Ground::Broken(what) = bed(OLD_CONTAINERD)? {
        account.failed += 1;
        account.reason = Some(format!("no node with containerd {OLD_CONTAINERD}: {what}"));
        return Ok(());
    }
    eprintln!("test: ring 4 with containerd {OLD_CONTAINERD}");
    again
        .into_iter()
        .try_for_each(|program| run_program(program, given, account))
}

/// Brings the test bed up, as one would by hand.
fn bed(containerd: &str) -> Result<Ground> {
    let ourselves = std::env::current_exe().context("could not find this program")?;
    if !is_root() {
        if process::run(Command::new("sudo").arg("true")).is_err() {
            return Ok(Ground::Missing(
                "the test bed needs root, which sudo did not give".to_owned(),
            ));
        }
        // What is built belongs to who builds it; only what runs is root's.
        let built = attempt(Command::new(&ourselves).args(["testbed", "build"]))?;
        if !matches!(built, Ground::Ready) {
            return Ok(built);
        }
    }
    let up = attempt(as_root(&ourselves, &[]).args(["testbed", "up", "--containerd", containerd]))?;
    if !matches!(up, Ground::Ready) {
        bed_down()?;
    }
    Ok(up)
}

/// The bed is ours: nothing of it may outlive the tests, nor an `up` that went wrong halfway.
fn bed_down() -> Result<()> {
    let ourselves = std::env::current_exe().context("could not find this program")?;
    process::run(as_root(&ourselves, &[]).args(["testbed", "down"]))
}

/// Runs a subcommand of our own, showing what it says; its error says what is wrong, its status whether something is
/// missing (2).
fn attempt(command: &mut Command) -> Result<Ground> {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not start the test bed")?;
    let mut reason = "it did not say why".to_owned();
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|pipe| BufReader::new(pipe).lines())
    {
        let line = line.context("could not read what the test bed says")?;
        eprintln!("{line}");
        if let Some(error) = line.strip_prefix("error: ") {
            error.clone_into(&mut reason);
        }
    }
    Ok(match child.wait()?.code() {
        Some(0) => Ground::Ready,
        Some(2) => Ground::Missing(reason),
        _ => Ground::Broken(reason),
    })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program that the test bed needs root for: through sudo for who isn't, with what our programs read of the
/// environment, which sudo would take away, and `more`.
fn as_root(program: &Path, more: &[(&str, &OsStr)]) -> Command {
    let more = more.iter().copied();
    if is_root() {
        let mut command = Command::new(program);
        command.envs(more);
        return command;
    }
    let kept = [
        "PATH",
        "HOME",
        "XDG_CACHE_HOME",
        "PITCREW_TESTBED",
        "KUBEBUILDER_ASSETS",
        "PITCREW_CHAOS_SECONDS",
        "PITCREW_CHAOS_SEED",
    ]
    .map(|name| (name, std::env::var_os(name)));
    let kept = kept
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let mut command = Command::new("sudo");
    command.arg("env");
    for (name, value) in kept.chain(more) {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(value);
        command.arg(pair);
    }
    command.arg(program);
    command
}

/// Builds every test of the workspace once, and the product for the tests that drive it.
fn build() -> Result<Vec<Program>> {
    let messages = cargo(&["test", "--workspace", "--no-run"], "the tests do not compile")?;
    Ok(messages.iter().filter_map(program).collect())
}

/// Runs cargo, and gives what it says of each thing that it has built.
fn cargo(args: &[&str], failure: &str) -> Result<Vec<Value>> {
    let mut command = process::cargo();
    let output = command
        .args(args)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("could not start cargo")?;
    if !output.status.success() {
        bail!("{failure}");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// Builds what tests drive, and says where it is: the product, and the mock of NVIDIA's library.
fn artefacts() -> Result<Given> {
    let messages = cargo(
        &[
            "build",
            "--package=pitcrew",
            "--package=pitcrew-scout",
            "--package=pitcrew-nvml-mock",
        ],
        "the product or the mock does not compile",
    )?;
    let find = |what: &str, is_it: &dyn Fn(&Value) -> Option<PathBuf>| {
        let found = messages.iter().find_map(is_it);
        found.with_context(|| format!("cargo does not say where it put {what}"))
    };
    let library = |message: &Value| {
        let mut files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
        files
            .find(|file| file.ends_with("/libnvidia_ml.so"))
            .map(PathBuf::from)
    };
    let binary = |name: &'static str| {
        move |message: &Value| {
            let is_it = message["target"]["name"] == name;
            message["executable"]
                .as_str()
                .filter(|_| is_it)
                .map(PathBuf::from)
        }
    };
    Ok(vec![
        ("PITCREW_NVML_MOCK", find("the mock", &library)?),
        ("PITCREW_BIN", find("the product", &binary("pitcrew"))?),
        ("PITCREW_SCOUT", find("the scout", &binary("pitcrew-scout"))?),
    ])
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
        (None, "scenario" | "pitcrew" | "apiserver" | "kubelet" | "agent" | "sim") => 2,
        (None, _) => 1,
    };
    Some(Program {
        ring,
        name: format!("{package}/{target}"),
        path: executable.into(),
        package_dir,
    })
}

/// Runs one test program, shows what failed, and adds to the account.
fn run_program(program: &Program, given: &Given, account: &mut Account) -> Result<()> {
    let ourselves = std::env::current_exe().context("could not find this program")?;
    let mut environment = vec![
        ("CARGO_MANIFEST_DIR", program.package_dir.as_os_str()),
        ("PITCREW_XTASK", ourselves.as_os_str()),
    ];
    environment.extend(given.iter().map(|(name, path)| (*name, path.as_os_str())));
    // Rings 3 and 4 speak to the test bed, which is root's.
    let mut command = if matches!(program.ring, 3 | 4) {
        as_root(&program.path, &environment)
    } else {
        let mut command = Command::new(&program.path);
        command.envs(environment.iter().copied());
        command
    };
    command.current_dir(&program.package_dir);
    if program.ring >= 3 {
        // They share one test bed, and are marked `ignore` for who runs plain `cargo test`.
        command.args(["--include-ignored", "--test-threads=1"]);
    }
    let start = Instant::now();
    let output = command
        .output()
        .with_context(|| format!("could not start {}", program.path.display()))?;
    let took = start.elapsed().as_secs_f64();
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
        eprintln!(
            "test: ring {} {}: {passed} ok in {took:.0} s",
            program.ring, program.name
        );
    } else {
        account.failed = account.failed.max(1);
        eprintln!(
            "test: ring {} {}: FAILED in {took:.0} s",
            program.ring, program.name
        );
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
        let list = process::output(Command::new(&program.path).args([
            "--list",
            "--format=terse",
            "--include-ignored",
        ]))?;
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
    fn what_is_missing_skips_a_ring_and_what_is_broken_fails_it() {
        let after = |script: &str| attempt(Command::new("sh").args(["-c", script])).unwrap();
        assert!(matches!(after("true"), Ground::Ready));
        let missing = after("echo started >&2; echo 'error: no Go' >&2; echo 'hint: get it' >&2; exit 2");
        assert!(matches!(missing, Ground::Missing(what) if what == "no Go"));
        let broken = after("echo 'error: etcd ended' >&2; exit 1");
        assert!(matches!(broken, Ground::Broken(what) if what == "etcd ended"));
        assert!(matches!(after("kill -9 $$"), Ground::Broken(_)));
    }

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
