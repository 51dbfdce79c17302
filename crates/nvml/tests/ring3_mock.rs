//! The real code on imaginary GPUs: NVML's C ABI over scenarios (crate `nvml-mock`), through the real loader.
//!
//! The mock takes its scenario from the environment of the process, so each case runs in a child: this program
//! again, with one test that does what a variable says. What the driver's library says must be what the scenario
//! itself says.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

#[path = "ring3_mock/cases.rs"]
mod cases;
#[path = "ring3_mock/compute_instances.rs"]
mod compute_instances;

use std::path::{Path, PathBuf};
use std::process::Command;

use pitcrew_scenario::Scenario;

/// Which case the child is to run.
const CASE: &str = "PITCREW_TEST_CASE";

/// The mock's library.
fn mock() -> PathBuf {
    std::env::var_os("PITCREW_NVML_MOCK")
        .map(PathBuf::from)
        .expect("PITCREW_NVML_MOCK is not set: run these tests with `cargo xtask test --ring 3`")
}

/// Runs a case on a scenario, in a process of its own; `changes` is a file that will hold what happens.
fn run(case: &str, scenario: &str, changes: &Path) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--include-ignored", "--nocapture"])
        .env(CASE, case)
        .env("PITCREW_SCENARIO", scenario)
        .env("PITCREW_SCENARIO_CHANGES", changes)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{case} on {scenario}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn run_on(case: &str, scenarios: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    for scenario in scenarios {
        run(case, scenario, &dir.path().join(format!("{scenario}.changes")));
    }
}

fn run_on_all(case: &str) {
    let names: Vec<&str> = Scenario::builtin_names().map(|(name, _)| name).collect();
    assert!(names.len() >= 11, "{names:?}");
    run_on(case, &names);
}

#[test]
#[ignore = "what the other tests start"]
fn child() {
    let Some(case) = std::env::var_os(CASE) else {
        return;
    };
    let variable = |name: &str| std::env::var_os(name).unwrap();
    let setting = cases::Setting {
        mock: mock(),
        scenario: variable("PITCREW_SCENARIO").into_string().unwrap(),
        changes: variable("PITCREW_SCENARIO_CHANGES").into(),
    };
    cases::run(case.to_str().unwrap(), &setting);
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn the_inventory_is_that_of_the_scenario() {
    run_on_all("inventory");
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn field_values_are_those_of_the_scenario() {
    run_on_all("fields");
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn nvlinks_are_those_of_the_scenario() {
    run_on_all("nvlinks");
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn profiling_figures_are_those_of_the_scenario() {
    run_on_all("profiling");
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn gpus_are_cut_as_in_the_scenario() {
    run_on("mig", &["h100x8", "a30", "h200", "a100x8", "rtxpro6000x2"]);
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn a_gpu_instance_is_cut_into_compute_instances_as_in_the_scenario() {
    run_on(
        "compute-instances",
        &["h100x8", "h200", "a30", "a100x8", "rtxpro6000x2"],
    );
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn cards_without_mig_say_so() {
    run_on("no-mig", &["rtx3060", "t4", "v100x4", "l40s"]);
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn events_arrive_with_their_gpu_and_instance() {
    run_on("events", &["h100x8", "rtx3060"]);
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn a_gpu_that_is_lost_and_comes_back_is_seen_so() {
    run_on("lost", &["h100x8"]);
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn a_call_that_hangs_is_given_up_and_works_again() {
    run_on("hang", &["t4"]);
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn a_gpu_at_which_a_call_hangs_costs_the_others_nothing() {
    run_on("silent", &["h100x8"]);
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn a_driver_that_breaks_or_goes_is_told_as_such() {
    run_on("driver", &["t4"]);
}

#[test]
#[ignore = "needs the mock library: cargo xtask test --ring 3"]
fn nothing_of_the_library_is_left() {
    run_on("release", &["h100x8"]);
}
