//! The test bed itself, as its user meets it when something is wrong.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use pitcrew_tests::{run, testbed, xtask};

/// Each component with its process, as `status` says.
fn pids() -> Vec<(String, String)> {
    let status = testbed(&["status"]).ok();
    let lines = status.lines().skip(1).map(str::split_whitespace);
    lines
        .filter_map(|mut line| Some((line.next()?.to_owned(), line.next()?.to_owned())))
        .collect()
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn up_after_a_killed_up_ends_with_a_ready_node() {
    // From nothing: what an earlier run left in the bed's data must not be met here.
    testbed(&["down", "--wipe"]).ok();
    assert_ne!(
        testbed(&["status"]).code,
        Some(0),
        "nothing runs, and status says that it does"
    );
    // At each of these moments another part of the bed is half there.
    for milliseconds in [300, 1500, 3500] {
        let mut up = Command::new(xtask())
            .args(["testbed", "up"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        up.kill().unwrap();
        up.wait().unwrap();
    }
    testbed(&["up"]).ok();
    testbed(&["status"]).ok();
    let ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    assert_eq!(
        pitcrew_tests::kubectl(&["get", "nodes", "-o", ready], "").ok(),
        "True"
    );
    // Again, where everything runs: nothing is restarted.
    let before = pids();
    testbed(&["up"]).ok();
    assert_eq!(pids(), before);
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn who_is_not_root_is_told_so() {
    let nobody = 65534;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("xtask");
    std::fs::copy(xtask(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command
        .args(["testbed", "--dir", "/tmp/pitcrew-nobody", "up"])
        .uid(nobody)
        .gid(nobody);
    let outcome = run(command, "");
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(
        outcome.stderr.starts_with("error: the test bed needs root"),
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("\nhint: "), "{outcome:?}");
    assert!(!std::path::Path::new("/tmp/pitcrew-nobody").exists());
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_place_that_can_not_be_written_to_is_named() {
    for (place, why) in [
        ("/proc/pitcrew", "could not make the directory /proc/pitcrew"),
        ("/opt/pitcrew", "the test bed can't lie in /opt/pitcrew"),
    ] {
        let outcome = testbed(&["--dir", place, "up"]);
        assert_ne!(outcome.code, Some(0));
        assert!(outcome.stderr.contains(why), "{outcome:?}");
        assert!(outcome.stderr.contains("--dir"), "no way on: {outcome:?}");
    }
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn an_unpacked_archive_that_is_not_whole_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = testbed(&["--bin", dir.path().to_str().unwrap(), "up"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("has no kube"), "{outcome:?}");
    assert!(outcome.stderr.contains("unpack every part"), "{outcome:?}");
}
