//! What was dropped holds nothing: an open descriptor keeps a driver from being replaced.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pitcrew_core::ports::InventorySource;
use pitcrew_nvml::{Nvml, Worker};

use crate::library::build;

/// True when this process has the file open or mapped.
fn holds(file: &Path) -> (bool, bool) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let open = descriptors
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file));
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    (open, maps.contains(file.to_str().unwrap()))
}

#[test]
fn everything_is_given_back_by_a_drop() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join("nvidiactl");
    fs::write(&device, "").unwrap();
    let built = build(&[&format!("DEVICE=\"{}\"", device.display())]);

    let mut nvml = Nvml::load(Some(&built.file), &[]).unwrap();
    nvml.inventory().unwrap();
    let events = nvml.events().unwrap();
    assert_eq!((holds(&device).0, holds(&built.file).1), (true, true));
    drop(nvml);
    assert!(holds(&device).0, "who listens holds it too");
    drop(events);
    assert_eq!((holds(&device).0, holds(&built.file).1), (false, false));

    // On a worker's thread, too.
    let worker = Worker::start("nvml", {
        let file = built.file.clone();
        move || Nvml::load(Some(&file), &[])
    })
    .unwrap();
    let count = worker.call("count", Duration::from_secs(20), |nvml| {
        nvml.as_mut()
            .map(|nvml| nvml.inventory().map(|inventory| inventory.gpus.len()))
            .unwrap()
    });
    assert_eq!(count, Ok(Ok(2)));
    assert!(holds(&device).0);
    drop(worker);
    assert_eq!((holds(&device).0, holds(&built.file).1), (false, false));
}

#[test]
fn a_library_that_was_refused_is_not_kept() {
    for macros in [&["NOT_NVML"][..], &["FAILS=18"]] {
        let built = build(macros);
        assert!(Nvml::load(Some(&built.file), &[]).is_err());
        assert!(!holds(&built.file).1, "{macros:?}");
    }
}
