//! Scout and agent in their pods.

use pitcrew_tests::agent::Gpus;
use pitcrew_tests::mock::given;
use pitcrew_tests::{kubectl, on_node, testbed, wait_for};
use serde_json::Value;

use crate::cluster::{self, Deployed, NODE, node_field};

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_scout_in_its_pod_labels_a_node_with_a_gpu_which_brings_the_agent_there() {
    let file = format!("{}=/usr/bin/pitcrew-scout", given("PITCREW_SCOUT").display());
    testbed(&["image", "docker.io/library/pitcrew:0.1.0", "--file", &file]).ok();
    testbed(&["fake-gpus", "rtx3060"]).ok();
    let _deployed = Deployed::new();
    let desired = || {
        let path = "jsonpath={.status.desiredNumberScheduled}";
        kubectl(
            &["get", "daemonset", "pitcrew-agent", "-n", "pitcrew", "-o", path],
            "",
        )
        .ok()
    };
    assert_eq!(desired(), "0", "no node has a GPU yet");
    let patch = cluster::scout_patch().to_string();
    kubectl(
        &[
            "patch",
            "daemonset",
            "pitcrew-scout",
            "-n",
            "pitcrew",
            "--type=json",
            "-p",
            &patch,
        ],
        "",
    )
    .ok();
    let label = |name: &str| node_field(&format!(".metadata.labels.{}", name.replace('.', "\\.")));
    wait_for("the labels", || {
        let both = [
            "nvidia.com/gpu.present",
            "feature.node.kubernetes.io/pci-10de.present",
        ]
        .map(label);
        (both == ["true", "true"]).then_some(())
    });
    wait_for("the agent to be wanted on one node", || {
        (desired() == "1").then_some(())
    });
    let log = kubectl(&["logs", "-n", "pitcrew", "daemonset/pitcrew-scout"], "").ok();
    assert!(log.contains("info: there is a GPU"), "{log}");
    assert_eq!(cluster::restarts("scout"), 0);
}

/// The agent's own manifest: its mounts, its token, its roles and the policies suffice for all that it does.
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_agent_in_its_pod_makes_a_node_ready() {
    let gpus = Gpus::new("rtx3060");
    let file = |from: &str, to: &str| format!("{}={to}", given(from).display());
    let files = [
        file("PITCREW_BIN", "/usr/bin/pitcrew"),
        file("PITCREW_HOOK", "/usr/bin/pitcrew-hook"),
        file("PITCREW_SCOUT", "/usr/bin/pitcrew-scout"),
    ];
    let mut arguments = vec!["image", "docker.io/library/pitcrew:0.1.0"];
    for file in &files {
        arguments.extend(["--file", file]);
    }
    testbed(&arguments).ok();
    let _deployed = Deployed::new();
    let patch = cluster::agent_patch().to_string();
    let daemon_set = ["daemonset", "pitcrew-agent", "-n", "pitcrew"];
    kubectl(
        &[&["patch"], &daemon_set[..], &["--type=json", "-p", &patch]].concat(),
        "",
    )
    .ok();
    kubectl(&["label", "node", NODE, "nvidia.com/gpu.present=true"], "").ok();
    kubectl(
        &[
            &["rollout", "status"],
            &["daemonset/pitcrew-agent", "-n", "pitcrew", "--timeout=90s"][..],
        ]
        .concat(),
        "",
    )
    .ok();
    let ready = kubectl(
        &[
            "wait",
            "--for=condition=Ready",
            &format!("gpunode/{NODE}"),
            "--timeout=60s",
        ],
        "",
    );
    let log = kubectl(&["logs", "-n", "pitcrew", "daemonset/pitcrew-agent"], "").stdout;
    assert_eq!(
        ready.code,
        Some(0),
        "{ready:#?}\n{}\n{log}",
        kubectl(&["get", "gpunodes", "-o", "yaml"], "").stdout
    );
    wait_for("the scheduler to know the GPU", || {
        (node_field(".status.allocatable.nvidia\\.com/gpu") == "1").then_some(())
    });
    wait_for("the labels", || {
        (node_field(".metadata.labels.nvidia\\.com/gpu\\.count") == "1").then_some(())
    });
    assert_eq!(cluster::restarts("agent"), 0);
    let log = kubectl(&["logs", "-n", "pitcrew", "daemonset/pitcrew-agent"], "").ok();
    for word in ["refused", "forbidden", "denied"] {
        assert!(!log.contains(word), "{log}");
    }
    // What it wrote on the node goes, for the tests that come after.
    kubectl(&[&["delete"], &daemon_set[..], &["--wait=true"]].concat(), "").ok();
    let pitcrew = pitcrew_tests::pitcrew().display().to_string();
    let uninstalled = on_node(&[&pitcrew, "agent", "uninstall", "--node", NODE], "");
    assert_eq!(uninstalled.code, Some(0), "{uninstalled:#?}");
    // And what it wrote at the API server: of the Node's labels the one stays that this test has set.
    let labels: Value = serde_json::from_str(&node_field(".metadata.labels")).unwrap();
    let keys = labels.as_object().unwrap().keys();
    let ours: Vec<&String> = keys
        .filter(|key| key.starts_with("nvidia.com/") || key.starts_with("pitcrew.dev/"))
        .collect();
    assert_eq!(ours, ["nvidia.com/gpu.present"], "{uninstalled:#?}");
    assert_eq!(
        kubectl(&["get", "gpunodes", "-o", "name"], "").ok(),
        "",
        "{uninstalled:#?}"
    );
    let conditions = node_field(".status.conditions[*].type");
    assert!(!conditions.contains("GpuHealthy"), "{conditions}");
    drop(gpus);
}
