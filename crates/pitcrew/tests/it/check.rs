//! `pitcrew check`: on whole imaginary nodes, laid out in real directories and in memory.

use std::process::Command;

use pitcrew_scenario::HostRoot;
use serde_json::Value;

use crate::driver::library;
use crate::manifests;
use crate::program::{pitcrew, run, stdout, transcript};

/// The binary on the machine's own root, which a scenario then takes the place of.
fn check(args: &[&str]) -> Command {
    let mut command = pitcrew(&[&["check"], args].concat());
    command.env_remove("PITCREW_ROOT");
    command
}

fn shown(args: &[&str]) -> String {
    transcript(&run(check(args)))
}

/// Lays out a node; the directory and what could not be made there.
fn laid_out(root: &HostRoot) -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let left_out = root.build(directory.path()).unwrap();
    (directory, left_out)
}

/// What the real binary says of the node in this directory.
fn report(directory: &std::path::Path, scenario: &str) -> (Value, Option<i32>) {
    let directory = directory.to_str().unwrap();
    let output = run(check(&[
        "--root",
        directory,
        "--scenario",
        scenario,
        "-o",
        "json",
    ]));
    let document = serde_json::from_str(&stdout(&output)).unwrap();
    (document, output.status.code())
}

#[test]
#[expect(clippy::print_stderr, reason = "what could not be compared has to be said")]
fn a_node_on_disk_gets_the_report_of_the_node_in_memory() {
    let mut compared = 0;
    for name in manifests::names() {
        let root = manifests::root(&name);
        let (directory, left_out) = laid_out(&root);
        if !left_out.is_empty() {
            eprintln!("{name}: read in memory only, as {left_out:?} can't be made by this user");
            continue;
        }
        let (document, code) = report(directory.path(), &manifests::scenario(&name));
        let real = directory.path().display().to_string();
        let text = manifests::transcript(&document).replace(&real, "");
        insta::with_settings!({ snapshot_path => manifests::snapshots(), prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.as_str(), text);
        });
        let expected = match document["outcome"].as_str().unwrap() {
            "not-ready" => 1,
            "could-not-tell" => 2,
            _ => 0,
        };
        assert_eq!(code, Some(expected), "{name}");
        assert_eq!(
            manifests::verdicts(&document),
            manifests::expected(&name),
            "{name}"
        );
        compared += 1;
    }
    eprintln!("{compared} nodes were laid out and read by the binary");
}

#[test]
fn a_bus_that_cannot_be_read_is_a_finding_and_not_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let function = directory.path().join("sys/bus/pci/devices/0000:01:00.0");
    std::fs::create_dir_all(&function).unwrap();
    std::fs::write(function.join("vendor"), "nonsense").unwrap();
    let output = run(check(&[
        "--root",
        directory.path().to_str().unwrap(),
        "-o",
        "json",
    ]));
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let findings = document["findings"].as_array().unwrap();
    let bus = findings
        .iter()
        .find(|finding| finding["id"] == "pci.gpus")
        .unwrap();
    assert_eq!(bus["verdict"], "unknown", "{bus}");
    assert!(bus["found"].as_str().unwrap().contains("nonsense"), "{bus}");
}

#[test]
fn a_scenario_is_an_rke2_worker_and_fits_80_columns() {
    let table = shown(&["--scenario", "rtx3060", "--width", "80"]);
    insta::assert_snapshot!("check_rtx3060", table);
    for scenario in ["rtx3060", "h100x8", "mixed", "v100x4", "broken"] {
        let text = stdout(&run(check(&["--scenario", scenario, "--width", "80"])));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{scenario}: {line}");
        }
    }
}

#[test]
fn a_failure_says_why_and_what_to_do_next() {
    for name in ["nouveau", "stig-rhel9"] {
        let (directory, left_out) = laid_out(&manifests::root(name));
        if left_out.iter().any(|path| path.starts_with("/dev")) {
            continue;
        }
        let scenario = manifests::scenario(name);
        let root = directory.path().to_str().unwrap();
        let text = shown(&["--root", root, "--scenario", &scenario, "--width", "80"]);
        insta::assert_snapshot!(format!("check_{name}"), text.replace(root, "DIR"));
    }
}

/// What is said of the driver's answers on a node whose library is this one.
fn answers(macros: &[&str]) -> String {
    let (node, _) = laid_out(&manifests::root("rke2-1.36"));
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), macros);
    let (node, library) = (node.path().to_str().unwrap(), library.to_str().unwrap());
    let text = stdout(&run(check(&[
        "--root", node, "--nvml", library, "--width", "200",
    ])));
    let mut blocks = text.split("\n\n");
    let said = blocks.find(|block| block.contains("driver answers: "));
    said.unwrap_or(&text).replace(library, "LIBRARY")
}

#[test]
fn a_driver_in_trouble_is_one_thing_with_its_reason_and_a_command() {
    for (name, macros) in [
        ("not_nvml", ["NOT_NVML"]),
        ("fails", ["FAILS=999"]),
        ("hangs", ["HANGS"]),
        ("mismatch", ["FAILS=18"]),
    ] {
        insta::assert_snapshot!(format!("check_driver_{name}"), answers(&macros));
    }
}

#[test]
fn documents_name_their_schema_and_source_and_hold_the_same() {
    let json = stdout(&run(check(&["--scenario", "t4", "-o", "json"])));
    let yaml = stdout(&run(check(&["--scenario", "t4", "-o", "yaml"])));
    let json: Value = serde_json::from_str(&json).unwrap();
    let yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(json, yaml);
    assert_eq!(json["schema"], "pitcrew.dev/check/v1alpha1");
    assert_eq!(json["source"], serde_json::json!({ "scenario": "t4" }));
    let first = &json["findings"][0];
    let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "decisive",
            "found",
            "id",
            "looked_at",
            "title",
            "topic",
            "verdict"
        ]
    );
}

#[test]
fn the_readme_shows_what_is_printed() {
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, shown) = readme
        .split_once("pitcrew check --scenario broken | tail -7\n")
        .unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let printed = stdout(&run(check(&["--scenario", "broken"])));
    assert!(
        shown.lines().count() == 7 && printed.ends_with(shown),
        "{printed}"
    );
}

#[test]
fn an_upgrade_is_told_line_by_line() {
    let text = shown(&[
        "--scenario",
        "v100x4",
        "--to",
        "rke2=1.42.0,driver=595.58",
        "--width",
        "80",
    ]);
    insta::assert_snapshot!("check_to", text);
    let json = stdout(&run(check(&[
        "--scenario",
        "t4",
        "--to",
        "driver=595.58",
        "-o",
        "json",
    ])));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["schema"], &json["effect"]),
        (&"pitcrew.dev/upgrade/v1alpha1".into(), &"changes".into())
    );
}

#[test]
fn a_target_that_cannot_be_meant_is_wrong_usage() {
    for (target, name) in [
        ("rke2", "no_version"),
        ("kernel=6.8", "unknown_name"),
        ("driver=new", "not_a_version"),
    ] {
        insta::assert_snapshot!(
            format!("check_to_{name}"),
            shown(&["--scenario", "t4", "--to", target])
        );
    }
}

#[test]
fn the_exit_code_follows_the_outcome() {
    let code = |args: &[&str]| run(check(args)).status.code();
    assert_eq!(code(&["--scenario", "rtx3060"]), Some(0));
    assert_eq!(code(&["--scenario", "broken"]), Some(1));
    assert_eq!(code(&["--scenario", "t4", "--to", "rke2=1.42.0"]), Some(2));
    assert_eq!(code(&["--scenario", "v100x4", "--to", "driver=595.58"]), Some(1));
    assert_eq!(code(&["--scenario", "nowhere"]), Some(64));
}

#[test]
fn the_rehearsal_finds_what_the_static_hint_points_at() {
    let (directory, _) = laid_out(&manifests::root("template-trap"));
    let root = directory.path().to_str().unwrap();
    let output = run(check(&["--root", root, "--next-boot", "--width", "80"]));
    let text = transcript(&output).replace(root, "DIR");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("does NOT come back"), "{text}");
    let imaginary = run(check(&["--scenario", "rtx3060", "--next-boot"]));
    assert_eq!(
        imaginary.status.code(),
        Some(2),
        "an imaginary node has no containerd to ask"
    );
}
