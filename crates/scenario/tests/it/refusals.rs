//! What is wrong with a scenario is said with its place and the way on.

use pitcrew_scenario::{Scenario, ScenarioError};

/// The message for a scenario with these GPUs.
fn says(gpus: &str) -> String {
    let text = format!("description: d\ndriver: {{version: 580.1, cuda: \"13.0\"}}\ngpus:\n{gpus}");
    Scenario::parse(&text, "s.yaml").unwrap_err().to_string()
}

#[test]
fn each_mistake_is_named_with_line_and_column() {
    insta::assert_snapshot!(says("  - card: [Tesla T4\n    count: 2\n"), @"s.yaml:4:11: expected string scalar (`docs/scenarios.md` describes the format)");
    insta::assert_snapshot!(says("  - card: Tesla T5\n"), @"s.yaml:4:11: the catalogue has no card `Tesla T5`; did you mean `Tesla T4` or `Tesla P4`? (`pitcrew gpus catalog` lists all)");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    cuont: 2\n"), @"s.yaml:5:5: unknown field `cuont`, expected one of card, count, name, pci, subsystem, numa_node, mig, readings, fail, unsupported, fault, processes, xids, fields, gpm, latency_us (`docs/scenarios.md` describes the format)");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    count: 0\n"), @"s.yaml:5:12: `count` must be 1 to 64, not 0");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    count: 65\n"), @"s.yaml:5:12: `count` must be 1 to 64, not 65");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    count: 40\n  - card: Tesla T4\n    count: 40\n"), @"s.yaml:6:11: a node has at most 64 GPUs, this one 80");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    readings: {power_mw: -3}\n"), @"s.yaml:5:26: `power_mw` must be a whole number from 0 to 4294967295, not `-3`");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    readings:\n      powr_mw: 3\n"), @"s.yaml:6:16: no reading is called `powr_mw`; did you mean `power_mw`?");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    readings: {xids: 3}\n"), @"s.yaml:5:22: `xids` can't be set as a reading: it follows from `xids`");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    fail: {powr_mw: x}\n"), @"s.yaml:5:21: no reading is called `powr_mw`; did you mean `power_mw`?");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    latency_us: {nvmlDeviceGetNam: 3}\n"), @"s.yaml:5:36: no call matches `nvmlDeviceGetNam`; did you mean `nvmlDeviceGetName`?");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    pci: [\"01:00.0\"]\n  - card: Tesla T4\n    pci: [\"01:00.0\"]\n"), @"s.yaml:7:11: two GPUs have the PCI address 0000:01:00.0; give each its own under `pci`");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    count: 2\n    pci: [\"01:00.0\"]\n"), @"s.yaml:6:11: `pci` lists 1 addresses for 2 GPUs");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    pci: [\"01:00\"]\n"), @"s.yaml:5:11: `pci` must be an address such as `0000:3b:00.0`, not `01:00`");
    insta::assert_snapshot!(says("  - card: Tesla T4\n    mig: {enabled: true}\n"), @"s.yaml:5:10: MIG: the card `Tesla T4` has none");
    insta::assert_snapshot!(says("  - card: A30\n    mig: {enabled: true, devices: [3g.40gb]}\n"), @"s.yaml:5:36: MIG: it has no profile `3g.40gb`; it has 1g.6gb, 1g.6gb+me, 2g.12gb, 2g.12gb+me, 4g.24gb");
    insta::assert_snapshot!(says("  - card: A30\n    mig: {enabled: true, devices: [banana]}\n"), @"s.yaml:5:36: MIG: `banana` is not a MIG profile such as `1g.10gb`");
    insta::assert_snapshot!(says("  - card: A30\n    mig: {enabled: true, devices: [2g.12gb@1]}\n"), @"s.yaml:5:36: MIG: `2g.12gb` can't start at `1`; it can at 0, 2");
    insta::assert_snapshot!(says("  - card: A30\n    mig: {enabled: true, devices: [4g.24gb, 1g.6gb]}\n"), @"s.yaml:5:45: MIG: no place is free for `1g.6gb`: it would overlap `4g.24gb` at slice 0");
    insta::assert_snapshot!(says("  - card: A30\n    mig: {enabled: false, devices: [4g.24gb]}\n"), @"s.yaml:5:37: MIG: devices need `enabled: true`");
    insta::assert_snapshot!(says("  - card: A30\n    processes: [{pid: 3, gpu_instance: 1}]\n"), @"s.yaml:4:11: processes: there is no GPU instance 1 for process 3");
    insta::assert_snapshot!(says("  - card: A30\nlinks: {matrix: [\"NV1\"]}\n"), @"s.yaml:5:18: links: column 1 must be X, not `NV1`");
    insta::assert_snapshot!(says("  - card: A30\nlinks: infiniband\n"), @"s.yaml:5:8: unknown variant `infiniband`, expected one of nvswitch, pcie, matrix (`docs/scenarios.md` describes the format)");
    insta::assert_snapshot!(says("  []\n"), @"s.yaml:4:3: a scenario needs at least one GPU under `gpus`");
    insta::assert_snapshot!(says("  - card: A30\n    count: 2\n    readings: {uuid: GPU-1}\n"), @"s.yaml:4:3: two GPUs have the uuid `GPU-1`; give each its own group, or leave it out");
    insta::assert_snapshot!(says("  - card: A30\n    readings: {power_mw: \"3\"}\n"), @"s.yaml:5:26: `power_mw` must be a whole number from 0 to 4294967295, not the text `3`");
    insta::assert_snapshot!(Scenario::parse("", "empty.yaml").unwrap_err(), @"empty.yaml:1:1: unexpected end of input (`docs/scenarios.md` describes the format)");
}

#[test]
fn a_driver_version_that_is_none_is_refused() {
    let says = |driver: &str| {
        let text = format!("description: d\ndriver: {driver}\ngpus: [{{card: Tesla T4}}]\n");
        Scenario::parse(&text, "s.yaml").unwrap_err().to_string()
    };
    insta::assert_snapshot!(says("{version: new, cuda: \"13.0\"}"), @"s.yaml:2:19: `version` must be a driver version such as 580.159.04, not `new`");
    insta::assert_snapshot!(says("{version: 580.1, cuda: \"13\"}"), @r#"s.yaml:2:32: `cuda` must be a CUDA version in quotes such as "13.0", not `13`"#);
}

#[test]
fn a_file_is_named_after_its_stem_and_a_missing_one_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.yaml");
    assert!(matches!(
        Scenario::load(&path),
        Err(ScenarioError::Unreadable { .. })
    ));
    let text = "description: d\ndriver: {version: 580.1, cuda: \"13.0\"}\ngpus: [{card: Tesla T4}]\n";
    std::fs::write(&path, text).unwrap();
    assert_eq!(Scenario::load(&path).unwrap().name(), "mine");
}
