//! A machine's GPUs by its driver: by libraries compiled for the test, in front of a copy of `/sys`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::machine::function;
use crate::program::{pitcrew, run, stdout, transcript};

/// A library of the tests of `pitcrew-nvml`: it has GPUs at 01:00.0 and 02:00.0, and is wrong as the macros say.
pub(crate) fn library(dir: &Path, macros: &[&str]) -> PathBuf {
    let file = dir.join("libnvidia-ml.so.1");
    let mut cc = std::process::Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&file)
        .args(macros.iter().map(|name| format!("-D{name}")))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../nvml/tests/it/broken.c"));
    assert!(cc.status().unwrap().success(), "cc failed");
    file
}

/// A machine with the two GPUs of the library, and one more that is given to a virtual machine.
pub(crate) fn machine(dir: &Path) {
    for (address, driver) in [
        ("0000:01:00.0", "nvidia"),
        ("0000:02:00.0", "nvidia"),
        ("0000:03:00.0", "vfio-pci"),
    ] {
        function(dir, address, "0x10de", "0x030200", "0x2330");
        let device = dir.join("sys/bus/pci/devices").join(address);
        symlink(format!("../../drivers/{driver}"), device.join("driver")).unwrap();
    }
}

/// What comes of `pitcrew gpus` with this library.
fn on(dir: &Path, macros: &[&str], args: &[&str]) -> Output {
    let mut command = pitcrew(args);
    command
        .env("PITCREW_ROOT", dir)
        .env("PITCREW_NVML", library(dir, macros));
    run(command)
}

fn shown(dir: &Path, macros: &[&str]) -> String {
    transcript(&on(dir, macros, &["gpus", "--width", "120"])).replace(&dir.display().to_string(), "DIR")
}

#[test]
fn gpus_by_the_driver_come_first_and_those_of_the_bus_alone_last() {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path());
    insta::assert_snapshot!(shown(dir.path(), &[]));

    let document = stdout(&on(dir.path(), &[], &["gpus", "-o", "json"]));
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert!(
        document["source"]["nvml"]
            .as_str()
            .unwrap()
            .ends_with("libnvidia-ml.so.1")
    );
    assert_eq!(
        document["source"]["bus_only"],
        serde_json::json!(["0000:03:00.0"])
    );
    assert_eq!(document["driver"]["version"], "580.159.04");
    assert_eq!(document["gpus"][0]["memory_total_bytes"], 80);
    assert_eq!(document["gpus"][2]["index"], 2);
    assert_eq!(
        document["gpus"][2]["unread"][0]["reason"],
        "it is bound to `vfio-pci`, not to NVIDIA's driver"
    );
}

#[test]
fn a_lost_gpu_is_unhealthy_and_where_the_bus_says() {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path());
    insta::assert_snapshot!("lost_gpu", shown(dir.path(), &["NO_HANDLE"]));
}

#[test]
fn a_library_that_was_named_is_asked_on_a_machine_without_a_gpu_too() {
    let dir = tempfile::tempdir().unwrap();
    let output = on(dir.path(), &[], &["gpus", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["gpus"].as_array().unwrap().len(), 2);
    insta::assert_snapshot!("no_gpu_and_not_nvml", shown(dir.path(), &["NOT_NVML"]));
}

#[test]
fn a_driver_that_does_not_start_leaves_what_the_bus_says() {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path());
    insta::assert_snapshot!("driver_mismatch", shown(dir.path(), &["FAILS=18"]));
    insta::assert_snapshot!("driver_not_nvml", shown(dir.path(), &["NOT_NVML"]));
}

#[test]
fn a_driver_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path());
    insta::assert_snapshot!("driver_hangs", shown(dir.path(), &["HANGS"]));
}

#[test]
#[cfg(feature = "sim")]
fn a_scenario_that_hangs_is_given_up_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hangs.yaml");
    let text = "description: x\ndriver: { version: 580.159.04, cuda: \"13.0\" }\nhang: [nvmlDeviceGetPowerUsage]\n\
                gpus:\n  - card: RTX 3060 12GB\n";
    std::fs::write(&file, text).unwrap();
    let output = run(pitcrew(&["gpus", "--scenario", file.to_str().unwrap()]));
    insta::assert_snapshot!("scenario_hangs", transcript(&output));
}
