//! A machine's own GPUs, as `/sys` lists them.

use std::fs;
use std::path::Path;

use crate::program::{pitcrew, run, stdout, transcript};

/// A PCI function in a copy of `/sys`.
pub(crate) fn function(root: &Path, address: &str, vendor: &str, class: &str, device: &str) {
    let dir = root.join("sys/bus/pci/devices").join(address);
    fs::create_dir_all(&dir).unwrap();
    let files = [
        ("vendor", vendor),
        ("class", class),
        ("device", device),
        ("subsystem_vendor", "0x10de"),
        ("subsystem_device", "0x16c1"),
    ];
    for (file, text) in files {
        fs::write(dir.join(file), format!("{text}\n")).unwrap();
    }
}

/// Two NVIDIA GPUs, the audio function of one, and another maker's display.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    function(root.path(), "0000:86:00.0", "0x10de", "0x030200", "0x2330");
    function(root.path(), "0000:3b:00.0", "0x10de", "0x030000", "0x2503");
    function(root.path(), "0000:3b:00.1", "0x10de", "0x040300", "0x228e");
    function(root.path(), "0000:00:02.0", "0x8086", "0x030000", "0x3e92");
    root
}

fn on(root: &Path, args: &[&str]) -> std::process::Output {
    let mut command = pitcrew(args);
    command.env("PITCREW_ROOT", root);
    // Also where these tests run beside a real GPU.
    command.env("PITCREW_NVML", "/nonexistent/libnvidia-ml.so.1");
    run(command)
}

#[test]
fn gpus_without_a_driver_to_ask_are_listed_by_what_the_bus_says() {
    let root = machine();
    insta::assert_snapshot!(transcript(&on(root.path(), &["gpus", "--width", "120"])));
}

#[test]
fn a_document_says_that_the_gpus_are_real_and_invents_nothing() {
    let root = machine();
    let output = on(root.path(), &["gpus", "-o", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["source"], serde_json::json!({ "pci": true }));
    let addresses: Vec<_> = document["gpus"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gpu| &gpu["pci"]["address"])
        .collect();
    assert_eq!(addresses, ["0000:3b:00.0", "0000:86:00.0"]);
    for gpu in document["gpus"].as_array().unwrap() {
        let keys: Vec<&String> = gpu.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["card", "class", "health", "index", "pci", "unread"]);
        assert_eq!(gpu["health"]["verdict"], "unknown");
    }
}

#[test]
fn what_sys_says_wrongly_is_told_with_its_path() {
    let root = tempfile::tempdir().unwrap();
    function(root.path(), "0000:3b:00.0", "10de", "0x030000", "0x2503");
    let shown = transcript(&on(root.path(), &["gpus"])).replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_device_that_is_just_being_taken_out_is_passed_over() {
    let root = machine();
    fs::remove_file(root.path().join("sys/bus/pci/devices/0000:86:00.0/device")).unwrap();
    let shown = stdout(&on(root.path(), &["gpus"]));
    assert!(
        shown.contains("0000:3b:00.0") && !shown.contains("0000:86:00.0"),
        "{shown}"
    );
}

#[test]
#[cfg(feature = "sim")]
fn a_machine_without_a_gpu_is_shown_an_imaginary_one_and_told_so() {
    insta::assert_snapshot!(crate::program::transcript_of(&["gpus", "--width", "120"]));
    let output = run(pitcrew(&["gpus", "-o", "json", "--quiet"]));
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["source"], serde_json::json!({ "scenario": "rtx3060" }));
    assert!(output.stderr.is_empty());
}

#[test]
#[cfg(not(feature = "sim"))]
fn without_the_simulator_a_machine_without_a_gpu_has_none_and_a_scenario_is_refused() {
    insta::assert_snapshot!("no_simulator", crate::program::transcript_of(&["gpus"]));
    let refused = crate::program::transcript_of(&["gpus", "--scenario", "rtx3060"]);
    insta::assert_snapshot!("no_simulator_scenario", refused);
}
