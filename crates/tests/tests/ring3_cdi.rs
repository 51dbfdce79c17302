//! A CDI device made up by the test reaches a container through CRI: containerd 2.2 and 1.7, and no kubelet.

use pitcrew_tests::{HaltedKubelet, run_with_devices, testbed, wait_for, write_cdi};

fn spec() -> serde_json::Value {
    serde_json::json!({
        "cdiVersion": "0.5.0",
        "kind": "test.pitcrew.dev/gpu",
        "devices": [
            {"name": "0", "containerEdits": {
                "env": ["PITCREW_GPU=0"],
                // Any character device does: what counts is that the container gets this one under that name.
                "deviceNodes": [{"path": "/dev/pitcrew0", "hostPath": "/dev/null"}],
                "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/pitcrew/mounted", "options": ["ro", "bind"]}],
            }},
            {"name": "1", "containerEdits": {"env": ["PITCREW_OTHER=1"]}},
        ],
        "containerEdits": {"env": ["PITCREW_ALL=yes"]},
    })
}

fn a_device_reaches_a_container() {
    let _halted = HaltedKubelet::new();
    write_cdi("ring3.json", &spec());
    let script = "echo gpu=$PITCREW_GPU other=$PITCREW_OTHER all=$PITCREW_ALL; \
                  stat -c '%F %t:%T' /dev/pitcrew0; test -s /pitcrew/mounted && echo mounted; \
                  touch /pitcrew/mounted 2>/dev/null || echo read-only";
    // containerd sees a new file a moment after it was written.
    let seen = wait_for("the CDI device", || {
        let outcome = run_with_devices(&["test.pitcrew.dev/gpu=0"], script);
        let unseen = outcome.stderr.contains("unresolvable CDI devices");
        (!unseen).then(|| outcome.ok())
    });
    assert_eq!(
        seen,
        "gpu=0 other= all=yes\ncharacter special file 1:3\nmounted\nread-only\n"
    );

    let both = run_with_devices(
        &["test.pitcrew.dev/gpu=0", "test.pitcrew.dev/gpu=1"],
        "echo $PITCREW_GPU $PITCREW_OTHER",
    );
    assert_eq!(both.ok(), "0 1\n");

    let without = run_with_devices(&[], "test -e /dev/pitcrew0 || echo none$PITCREW_GPU");
    assert_eq!(
        without.ok(),
        "none\n",
        "a container that asked for nothing got something"
    );

    let unknown = run_with_devices(&["test.pitcrew.dev/gpu=9"], "true").refused();
    assert!(
        unknown.contains("unresolvable CDI devices test.pitcrew.dev/gpu=9"),
        "{unknown}"
    );

    let failing = run_with_devices(&["test.pitcrew.dev/gpu=0"], "exit 7");
    assert_eq!(failing.code, Some(7), "{failing:?}");
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_cdi_device_reaches_a_container_on_containerd_2() {
    testbed(&["up"]).ok();
    a_device_reaches_a_container();
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_cdi_device_reaches_a_container_on_containerd_1_7() {
    testbed(&["down"]).ok();
    testbed(&["up", "--containerd", "1.7"]).ok();
    let runtime = pitcrew_tests::kubectl(
        &[
            "get",
            "nodes",
            "-o",
            "jsonpath={.items[0].status.nodeInfo.containerRuntimeVersion}",
        ],
        "",
    );
    let result = std::panic::catch_unwind(a_device_reaches_a_container);
    // The next test expects the bed as it was.
    testbed(&["down"]).ok();
    testbed(&["up"]).ok();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    let runtime = runtime.ok();
    assert!(runtime.starts_with("containerd://1.7."), "{runtime}");
}
