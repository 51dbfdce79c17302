//! What runs on a machine with a real GPU (`real_gpu.sh`, `descriptors.py`), with programs that pretend.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pitcrew_tests::smi::{RECORDED, SCENARIO};
use pitcrew_tests::{Outcome, pitcrew, run};
use serde_json::{Value, json};

/// A directory with what is carried to the machine, and an nvidia-smi that writes down how it was called.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(machine.path("carried/ring5/tests")).unwrap();
        std::fs::create_dir(machine.path("bin")).unwrap();
        std::fs::copy(RECORDED, machine.path("smi.xml")).unwrap();
        let mut command = Command::new(pitcrew());
        command.args(["gpus", "-o", "json", "--scenario", SCENARIO]);
        let mut report: Value = serde_json::from_str(&run(command, "").ok()).unwrap();
        report["source"] = json!({"nvml": true});
        std::fs::write(machine.path("report.json"), report.to_string()).unwrap();

        machine.program(
            "bin/nvidia-smi",
            r#"echo "$*" >> calls; case "$*" in "-q -x") cat smi.xml ;; *query-gpu*) echo "GPU-1, 700 W" ;; esac"#,
        );
        machine.program(
            "carried/pitcrew",
            r#"case "$*" in *json*) cat report.json ;; gpus) echo one GPU ;; "top --once") echo frame ;;
               check) echo "2 checks failed"; exit 1 ;; *) exit 64 ;; esac"#,
        );
        machine.program(
            "carried/ring5/tests/ring5_some",
            r#"[ "$*" = "--include-ignored --test-threads=1" ] || exit 1
               [ -x "$PITCREW_BIN" ] && [ -f "$CARGO_MANIFEST_DIR/Cargo.toml" ] || exit 1
               echo "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured""#,
        );
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let text = format!("#!/bin/sh\ncd {}\n{script}\n", self.0.path().display());
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self) -> Outcome {
        let mut command = Command::new("./real_gpu.sh");
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var_os("PATH").unwrap().display()
        );
        command.env("PATH", path).env("OUT", self.path("out"));
        command.arg("run").arg(self.path("carried"));
        run(command, "")
    }
}

/// The account's lines by name: verdict, and what is said.
fn account(outcome: &Outcome) -> Vec<(String, String, String)> {
    let lines = outcome
        .stdout
        .lines()
        .skip_while(|line| !line.starts_with("gpus "));
    lines
        .map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let (name, verdict) = (words.next().unwrap(), words.next().unwrap());
            (name, verdict, words.collect::<Vec<_>>().join(" "))
        })
        .collect()
}

fn line<'a>(account: &'a [(String, String, String)], name: &str) -> (&'a str, &'a str) {
    let found = account.iter().find(|(found, ..)| found == name);
    found
        .map(|(_, verdict, said)| (verdict.as_str(), said.as_str()))
        .unwrap()
}

#[test]
fn everything_is_run_and_nothing_but_reading_is_asked_of_nvidia_smi() {
    let machine = Machine::new();
    let outcome = machine.run();
    let account = account(&outcome);
    assert_eq!(line(&account, "gpus"), ("ok", "(0) one GPU"));
    let (verdict, said) = line(&account, "smi-compare");
    assert_eq!(verdict, "ok");
    assert!(
        said.starts_with("(0) agrees: 78 fields compared on 1 GPU"),
        "{said}"
    );
    assert_eq!(
        line(&account, "ring5_some"),
        ("ok", "(0) test result: ok. 3 passed; 0 failed; 0 ignored")
    );
    // What pitcrew finds wrong with the machine is no fault of pitcrew's.
    assert_eq!(line(&account, "check"), ("ok", "(1) 2 checks failed"));
    assert_eq!(line(&account, "top-once"), ("ok", "(0) frame"));
    assert_eq!(line(&account, "settings").0, "ok");
    let table = std::fs::read_to_string(machine.path("out/smi-compare.txt")).unwrap();
    assert!(table.contains("gpus[].power_mw"), "the table is kept");
    // This `pitcrew top` can't be watched: it ends at once.
    assert_eq!(line(&account, "descriptors").0, "FAILED");
    assert_eq!(outcome.code, Some(1));
    for name in [
        "pitcrew gpus -o json",
        "pitcrew check",
        "pitcrew top --once",
        "nvidia-smi -q -x",
    ] {
        let timing = outcome
            .stdout
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap();
        assert!(timing.ends_with(" ms, median of 10"), "{timing}");
    }

    let calls = std::fs::read_to_string(machine.path("calls")).unwrap();
    for call in calls.lines() {
        let reads = call == "-q -x" || call == "-L" || call.starts_with("--format=csv,noheader --query-gpu=");
        assert!(reads, "{call}");
    }
}

#[test]
fn a_difference_is_told_by_its_field() {
    let machine = Machine::new();
    let report = std::fs::read_to_string(machine.path("report.json")).unwrap();
    std::fs::write(
        machine.path("report.json"),
        report.replace("\"minor\":0", "\"minor\":1"),
    )
    .unwrap();
    let account = account(&machine.run());
    let (verdict, said) = line(&account, "smi-compare");
    assert_eq!(verdict, "FAILED");
    assert!(
        said.starts_with("(1) DISAGREES: 1 differ: gpus[].minor;"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_told_in_its_line() {
    let machine = Machine::new();
    // Every call finds another power limit.
    machine.program(
        "bin/nvidia-smi",
        r#"echo x >> calls; case "$*" in "-q -x") cat smi.xml ;; *query-gpu*) wc -l < calls ;; esac"#,
    );
    machine.program(
        "carried/pitcrew",
        r#"case "$*" in *json*) echo "{}" ;; gpus) echo "thread 'main' panicked at x.rs" >&2; exit 0 ;;
           check) echo "error: no such check" >&2; exit 2 ;; esac"#,
    );
    machine.program(
        "carried/ring5/tests/ring5_some",
        "echo 'test a_value ... FAILED'; echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored'; exit 101",
    );
    let account = account(&machine.run());
    assert_eq!(line(&account, "gpus").0, "PANICKED");
    let (verdict, said) = line(&account, "smi-compare");
    assert_eq!(verdict, "FAILED");
    assert!(said.contains("is not from `pitcrew gpus -o json`"), "{said}");
    assert_eq!(
        line(&account, "ring5_some"),
        (
            "FAILED",
            "(101) test result: FAILED. 0 passed; 1 failed; 0 ignored; a_value"
        )
    );
    assert_eq!(line(&account, "check"), ("FAILED", "(2) error: no such check"));
    assert_eq!(line(&account, "settings").0, "FAILED");
}

/// Looks at a shell script that runs in a terminal, where `$device` is a file that stands for the driver's.
fn descriptors(script: &str) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let device: &Path = &directory.path().join("nvidia0");
    std::fs::write(device, "").unwrap();
    let mut command = Command::new("python3");
    command
        .args(["-B", "python/descriptors.py", "--device"])
        .arg(device);
    command.args([
        "sh",
        "-c",
        &format!("stty raw -echo; device={}; {script}", device.display()),
    ]);
    run(command, "")
}

/// Waits for a key, as `top` does.
const KEY: &str = "k=$(dd bs=1 count=1 2>/dev/null); [ \"$k\" = q ] || exit 3; exit 0";

#[test]
fn a_program_that_releases_the_driver_is_told_from_one_that_does_not() {
    let fine = descriptors(&format!("exec 3<$device 4<$device; {KEY}"));
    let said = fine.stdout.clone();
    assert_eq!(fine.code, Some(0), "{fine:#?}");
    assert_eq!(
        said,
        "held 2 descriptors of the driver, ended by q with 0, 0 processes hold some that did not\n"
    );

    // What is left runs for as long as the look takes, and ends by itself.
    let left = descriptors(&format!("setsid -f sleep 10 3<$device; exec 3<$device; {KEY}"));
    assert_eq!(left.code, Some(1), "{left:#?}");
    assert!(left.stdout.contains("1 processes hold some"), "{left:#?}");

    let none = descriptors("exit 0");
    assert_eq!(none.code, Some(1), "{none:#?}");
    assert!(none.stdout.starts_with("held 0 descriptors"), "{none:#?}");

    let failing = descriptors("exec 3<$device; dd bs=1 count=1 >/dev/null 2>&1; exit 7");
    assert_eq!(failing.code, Some(1), "{failing:#?}");
    assert!(failing.stdout.contains("ended by q with 7"), "{failing:#?}");
}
