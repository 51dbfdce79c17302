//! `pitcrew cdi`: specifications of imaginary nodes, and those that lie in directories.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{pitcrew, run, stdout, transcript};

/// The binary on the machine's own root, which a scenario then takes the place of.
fn cdi(args: &[&str]) -> std::process::Output {
    let mut command = pitcrew(&[&["cdi"], args].concat());
    command.env_remove("PITCREW_ROOT");
    run(command)
}

fn shown(args: &[&str], dir: &Path) -> String {
    transcript(&cdi(args)).replace(&dir.display().to_string(), "DIR")
}

fn anywhere(args: &[&str]) -> String {
    shown(args, Path::new("/nowhere"))
}

fn valid(kind: &str, name: &str) -> String {
    format!(
        "cdiVersion: 0.5.0\nkind: {kind}\ndevices:\n- name: '{name}'\n  containerEdits:\n    env: [A=1]\n"
    )
}

#[test]
fn a_node_is_described_in_yaml_or_json() {
    insta::assert_snapshot!("cdi_generate", anywhere(&["generate", "--scenario", "rtx3060"]));
    insta::assert_snapshot!(
        "cdi_generate_management",
        anywhere(&["generate", "--scenario", "rtx3060", "--management", "--quiet"])
    );
    let json = stdout(&cdi(&[
        "generate",
        "--scenario",
        "mixed",
        "-o",
        "json",
        "--quiet",
        "--name",
        "uuid",
        "--no-all",
        "--kind",
        "k8s.device-plugin.nvidia.com/gpu",
        "--hook",
        "/usr/bin/env",
    ]));
    let spec: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(spec["cdiVersion"], "0.3.0");
    assert_eq!(spec["kind"], "k8s.device-plugin.nvidia.com/gpu");
    assert_eq!(spec["devices"].as_array().unwrap().len(), 6);
    assert_eq!(spec["containerEdits"]["hooks"][0]["args"][0], "env");
}

#[test]
fn what_is_written_is_found_and_valid() {
    let dir = tempfile::tempdir().unwrap();
    let run_cdi = dir.path().join("run/cdi");
    let run_cdi = run_cdi.to_str().unwrap();
    let write = [
        "generate",
        "--scenario",
        "t4",
        "--output-dir",
        run_cdi,
        "--hook",
        "/bin/sh",
    ];
    insta::assert_snapshot!(
        "cdi_written",
        shown(&[&write[..], &["-o", "json"]].concat(), dir.path())
    );
    let file = format!("{run_cdi}/nvidia.com-gpu.json");
    insta::assert_snapshot!("cdi_validate", shown(&["validate", run_cdi, &file], dir.path()));
    insta::assert_snapshot!("cdi_list", shown(&["list", run_cdi], dir.path()));
    // Once more in the other encoding is a second file with the same devices.
    insta::assert_snapshot!("cdi_conflict", shown(&write, dir.path()));
    assert_eq!(fs::read_dir(run_cdi).unwrap().count(), 1);
}

#[test]
fn what_containers_can_not_get_is_listed_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        (
            "a.yaml",
            valid("a.com/gpu", "0") + "- name: '1'\n  containerEdits:\n    env: [A=1]\n",
        ),
        ("b.yaml", valid("a.com/gpu", "1")),
        ("c.json", "{".to_owned()),
        ("notes.txt", String::new()),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().to_str().unwrap();
    insta::assert_snapshot!("cdi_list_findings", shown(&["list", path], dir.path()));
    let json = stdout(&cdi(&["list", path, "-o", "json"]));
    let list: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(list["conflicts"][0]["device"], "a.com/gpu=1");
    assert_eq!(list["devices"][0]["name"], "0");
    insta::assert_snapshot!("cdi_list_nothing", anywhere(&["list", "/nowhere/cdi"]));
}

#[test]
fn a_mistake_is_shown_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let good = valid("nvidia.com/gpu", "0");
    for (name, text) in [
        ("broken.yaml", good.replace("env: [A=1]", "envs: [A=1]")),
        ("fine.yaml", good.replace("0.5.0", "1.1.0")),
        (
            "rules.yaml",
            good.replace("[A=1]", "[A]").replace("0.5.0", "0.4.0") + "    mounts:\n    - hostPath: /x\n",
        ),
        ("unread.txt", good.clone()),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().to_str().unwrap();
    let text = dir.path().join("unread.txt");
    insta::assert_snapshot!(
        "cdi_validate_findings",
        shown(&["validate", path, text.to_str().unwrap()], dir.path())
    );
    insta::assert_snapshot!(
        "cdi_validate_missing",
        anywhere(&["validate", "/nowhere/spec.yaml"])
    );
    let yaml = stdout(&cdi(&["validate", path, "-o", "yaml"]));
    insta::assert_snapshot!("cdi_validate_yaml", yaml.replace(path, "DIR"));
}

#[test]
fn a_node_that_can_not_be_described_is_an_error_with_a_way_on() {
    let node = ["generate", "--scenario", "t4", "--quiet"];
    insta::assert_snapshot!(
        "cdi_no_libraries",
        anywhere(&[&node[..], &["--driver-root", "/run/nvidia/driver"]].concat())
    );
    insta::assert_snapshot!(
        "cdi_no_devices",
        anywhere(&[&node[..], &["--dev-root", "/run/nvidia/driver"]].concat())
    );
    insta::assert_snapshot!("cdi_no_kind", anywhere(&[&node[..], &["--kind", "gpu"]].concat()));
}
