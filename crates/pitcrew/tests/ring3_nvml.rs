//! `pitcrew gpus` through NVML's C ABI, by the mock library: what it shows is what it shows of the scenario itself.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn mock() -> PathBuf {
    std::env::var_os("PITCREW_NVML_MOCK")
        .map(PathBuf::from)
        .expect("PITCREW_NVML_MOCK is not set: run these tests with `cargo xtask test --ring 3`")
}

fn pitcrew(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
    command
        .args(args)
        .env_clear()
        .env("PITCREW_ROOT", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic_with(&String::from_utf8_lossy(&output.stderr)))
}

#[track_caller]
fn panic_with(text: &str) -> Value {
    unreachable!("no document came: {text}")
}

fn through_mock(scenario: &str, changes: Option<&Path>) -> Output {
    let mut command = pitcrew(&["gpus", "-o", "json"]);
    command
        .env("PITCREW_NVML", mock())
        .env("PITCREW_SCENARIO", scenario);
    if let Some(changes) = changes {
        command.env("PITCREW_SCENARIO_CHANGES", changes);
    }
    command.output().unwrap()
}

/// Takes away what NVML can't carry: reasons are numbers there, XIDs are told only to who listens, and health rests
/// on both.
fn comparable(mut gpu: Value) -> Value {
    let unread: Vec<Value> = gpu["unread"].as_array().unwrap().clone();
    gpu["unread"] = unread.iter().map(|unread| unread["field"].clone()).collect();
    let fields = gpu.as_object_mut().unwrap();
    fields.remove("xids");
    fields.remove("health");
    gpu
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn every_scenario_is_shown_through_nvml_as_it_is() {
    let list = document(
        &pitcrew(&["gpus", "--scenario", "list", "-o", "json"])
            .output()
            .unwrap(),
    );
    let names = list["scenarios"].as_array().unwrap();
    assert!(names.len() >= 11);
    for name in names.iter().map(|entry| entry["name"].as_str().unwrap()) {
        let real = document(&through_mock(name, None));
        let scenario = document(
            &pitcrew(&["gpus", "--scenario", name, "-o", "json"])
                .output()
                .unwrap(),
        );
        assert!(
            real["source"]["nvml"].as_str().is_some(),
            "{name}: {}",
            real["source"]
        );
        for field in ["version", "nvml_version", "cuda"] {
            assert_eq!(real["driver"][field], scenario["driver"][field], "{name}");
        }
        let expected = scenario["gpus"].as_array().unwrap();
        for real in real["gpus"].as_array().unwrap() {
            let index = usize::try_from(real["index"].as_u64().unwrap()).unwrap();
            let (real, expected) = (comparable(real.clone()), comparable(expected[index].clone()));
            for (field, value) in expected.as_object().unwrap() {
                assert_eq!(real.get(field), Some(value), "{name} GPU {index}: {field}");
            }
            assert_eq!(
                real.as_object().unwrap().len(),
                expected.as_object().unwrap().len()
            );
        }
    }
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn what_changes_is_seen_and_the_flag_goes_before_the_library() {
    let dir = tempfile::tempdir().unwrap();
    let changes = dir.path().join("changes");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&changes)
        .unwrap();
    let change = json!({"set-reading": {"gpu": 0, "field": "temperature_c", "value": 77}});
    writeln!(file, "{change}").unwrap();
    let seen = document(&through_mock("t4", Some(&changes)));
    assert_eq!(seen["gpus"][0]["temperature_c"], 77);

    let mut flag = pitcrew(&["gpus", "-o", "json", "--scenario", "l40s"]);
    flag.env("PITCREW_NVML", mock());
    assert_eq!(
        document(&flag.output().unwrap())["source"],
        json!({"scenario": "l40s"})
    );
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn a_driver_that_is_gone_is_one_line_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let changes = dir.path().join("changes");
    std::fs::write(&changes, "\"unload-driver\"\n").unwrap();
    let output = through_mock("t4", Some(&changes));
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("caused by: the NVIDIA driver does not answer: its kernel module is not loaded"),
        "{stderr}"
    );
}
