//! The comparison with `nvidia-smi -q -x` running both programs, with programs that pretend.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

use std::process::Command;

use pitcrew_tests::smi::{self, RECORDED, SCENARIO, differing, short, summary};
use pitcrew_tests::{Outcome, pitcrew, run};
use serde_json::{Value, json};

/// What pitcrew says of the recorded card, as it would of a real one.
fn report() -> Value {
    let mut command = Command::new(pitcrew());
    command.args(["gpus", "-o", "json", "--scenario", SCENARIO]);
    let mut report: Value = serde_json::from_str(&run(command, "").ok()).unwrap();
    report["source"] = json!({"nvml": true});
    report
}

/// A directory with programs to run instead of the real ones.
struct Programs(tempfile::TempDir);

impl Programs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn program(&self, name: &str, script: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.file(
            name,
            &format!("#!/bin/sh\ncd {}\n{script}\n", self.0.path().display()),
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The comparison with both as they are here.
    fn compare(&self, smi: &str, pitcrew: &str) -> Outcome {
        let mut command = smi::compare();
        command.args(["--nvidia-smi", smi, "--run", pitcrew, "--pause", "0", "--save"]);
        command.arg(self.0.path().join("saved"));
        run(command, "")
    }
}

#[test]
fn both_programs_are_run_and_looked_at_again_while_only_moving_values_differ() {
    let programs = Programs::new();
    let recorded = std::fs::read_to_string(RECORDED).unwrap();
    programs.file("report.json", &report().to_string());
    programs.file("idle.xml", &recorded);
    programs.file("hot.xml", &recorded.replace("<gpu_temp>52 C<", "<gpu_temp>60 C<"));
    // It writes nothing useful unless asked for what it is asked for.
    let pitcrew = programs.program("pitcrew", r#"[ "$*" = "gpus -o json" ] && cat report.json"#);
    let smi = programs.program(
        "nvidia-smi",
        r#"[ "$*" = "-q -x" ] || exit 3; echo x >> calls; [ "$(wc -l < calls)" -gt 2 ] && exec cat idle.xml; cat hot.xml"#,
    );
    let outcome = programs.compare(&smi, &pitcrew);
    assert_eq!(outcome.code, Some(0), "{}", short(&outcome));
    assert!(summary(&outcome).ends_with("(look 2)"), "{}", short(&outcome));
    for name in ["before.xml", "after.xml", "pitcrew.json"] {
        assert!(programs.0.path().join("saved").join(name).exists(), "{name}");
    }

    let hot = programs.program("always-hot", "cat hot.xml");
    let outcome = programs.compare(&hot, &pitcrew);
    assert_eq!(differing(&outcome), ["gpus[].temperature_c"]);
    assert!(summary(&outcome).ends_with("(look 5)"), "{}", short(&outcome));

    // What stands still is not looked at again.
    programs.file("other.xml", &recorded.replace("<serial>1", "<serial>2"));
    let other = programs.program("other", "cat other.xml");
    let outcome = programs.compare(&other, &pitcrew);
    assert_eq!(differing(&outcome), ["gpus[].serial"]);
    assert!(!summary(&outcome).contains("(look"), "{}", short(&outcome));
}

#[test]
fn what_gives_nothing_to_compare_is_told_apart_from_a_difference() {
    let programs = Programs::new();
    programs.file("idle.xml", &std::fs::read_to_string(RECORDED).unwrap());
    let smi = programs.program("nvidia-smi", "cat idle.xml");
    let ours = pitcrew();
    let imaginary = programs.program(
        "imaginary",
        &format!("exec {} \"$@\" --scenario h200", ours.display()),
    );
    let refused = |smi: &str, pitcrew: &str| {
        let outcome = programs.compare(smi, pitcrew);
        assert_eq!(outcome.code, Some(2), "{}", short(&outcome));
        outcome.stderr
    };
    assert!(refused(&smi, &imaginary).contains("shows imaginary ones"));
    assert!(refused("/nonexistent/nvidia-smi", &imaginary).contains("did not run"));
    let broken = programs.program("broken", "echo \"couldn't communicate with the driver\"; exit 9");
    let said = refused(&broken, &imaginary);
    assert!(said.contains("ended with 9: couldn't communicate"), "{said}");
    let silent = programs.program("silent", "exit 0");
    assert!(refused(&smi, &silent).contains("is not JSON"));
    assert!(refused(&silent, &imaginary).contains("is not XML"));
}
