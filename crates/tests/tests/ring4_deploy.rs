//! The manifests of `deploy/` on a real Kubernetes: they apply, they suffice, and a node's token has no hold on others.
#![allow(clippy::unwrap_used, reason = "tests, and what they share")]

#[path = "ring4_deploy/cluster.rs"]
mod cluster;
#[path = "../../agent/tests/status/nothing.rs"]
mod nothing;
#[path = "ring4_deploy/pods.rs"]
mod pods;
#[path = "ring4_deploy/policies.rs"]
mod policies;
#[path = "ring4_deploy/status.rs"]
mod status;
#[path = "ring4_deploy/uninstalling.rs"]
mod uninstalling;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cluster::{Deployed, deploy};
use pitcrew_tests::{Namespace, kubectl, wait_for};
use serde_json::{Value, json};

/// Functions with their names.
macro_rules! cases {
    ($($case:path),* $(,)?) => {
        [$((stringify!($case), $case as fn(&Deployed))),*]
    };
}

/// What changes nothing of the manifests shares them: to apply them and to take them away costs more than all of it.
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_manifests_hold_what_they_promise_as_they_are() {
    let deployed = Deployed::new();
    let cases = cases![
        the_manifests_apply_without_a_warning_and_a_second_time_change_nothing,
        the_columns_tell_the_story_of_a_node_at_one_glance,
        the_roles_allow_what_is_needed_and_no_more,
        the_scout_passes_the_restricted_profile,
        policies::a_nodes_token_labels_no_other_node_and_with_no_other_labels,
        policies::a_scouts_token_sets_its_two_labels_on_its_own_node_and_nobody_deletes_nodes,
        policies::a_nodes_token_lifts_its_own_start_up_taint_and_writes_its_own_condition_and_nothing_else,
        policies::a_nodes_token_writes_no_other_gpu_node_and_not_what_is_wanted_of_its_own,
    ];
    let mut failed = Vec::new();
    for (name, case) in cases {
        // What failed has said so; the others are worth knowing too.
        if catch_unwind(AssertUnwindSafe(|| case(&deployed))).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

fn the_manifests_apply_without_a_warning_and_a_second_time_change_nothing(_: &Deployed) {
    let again = kubectl(&["apply", "-k", &deploy()], "");
    assert_eq!(again.stderr, "", "{again:#?}");
    let changed: Vec<&str> = again
        .stdout
        .lines()
        .filter(|line| !line.ends_with(" unchanged"))
        .collect();
    assert!(changed.is_empty(), "{changed:#?}");
    // The same without kustomize.
    let plain = ["crds", "node"].map(|dir| format!("{}/{dir}", deploy()));
    let plain = kubectl(
        &["apply", "--dry-run=server", "-f", &plain[0], "-f", &plain[1]],
        "",
    );
    assert_eq!((plain.code, plain.stderr.as_str()), (Some(0), ""));
    // An expression that names a field that there isn't is a warning in the policy's status.
    for policy in [
        "pitcrew-nodes",
        "pitcrew-gpunodes",
        "pitcrew-events",
        "pitcrew-nodefeatures",
        "pitcrew-runtimeclasses",
    ] {
        let checked = wait_for("the policy to be checked", || {
            let found = kubectl(
                &[
                    "get",
                    "validatingadmissionpolicy",
                    policy,
                    "-o",
                    "jsonpath={.status}",
                ],
                "",
            );
            Some(found.ok()).filter(|status| status.contains("observedGeneration"))
        });
        let checked: Value = serde_json::from_str(&checked).unwrap();
        assert_eq!(
            checked["typeChecking"].get("expressionWarnings"),
            None,
            "{policy}: {checked:#}"
        );
    }
}

/// What `kubectl get gpunodes` shows: the story at one glance.
fn the_columns_tell_the_story_of_a_node_at_one_glance(_: &Deployed) {
    let object = json!({
        "apiVersion": "pitcrew.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": "shown"}, "spec": {},
    });
    kubectl(&["apply", "-f", "-"], &object.to_string()).ok();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": "m", "hint": "h",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let status = json!({"status": {
        "product": "NVIDIA H100 80GB HBM3", "gpuCount": 8, "sickCount": 1, "driver": {"version": "580.159.04"},
        "tier": "native", "distribution": "rke2 1.36.2+rke2r1", "containerd": "2.3.2",
        "conditions": [condition("Ready", "False", "ModuleNotLoaded"), condition("Proven", "Unknown", "NotProven")],
    }});
    let patch = status.to_string();
    kubectl(
        &[
            "patch",
            "gpunode",
            "shown",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ],
        "",
    )
    .ok();
    let table = kubectl(&["get", "gpunodes"], "").ok();
    let lines: Vec<&str> = table.lines().collect();
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        squeezed(lines[0]),
        "NAME PRODUCT GPUS SICK DRIVER READY REASON AGE"
    );
    assert!(
        squeezed(lines[1]).starts_with("shown NVIDIA H100 80GB HBM3 8 1 580.159.04 False ModuleNotLoaded "),
        "{table}"
    );
    let wide = kubectl(&["get", "gn", "-o", "wide"], "").ok();
    for word in [
        "PROVEN",
        "TIER",
        "DISTRIBUTION",
        "CONTAINERD",
        "HINT",
        "native",
        "rke2 1.36.2+rke2r1",
    ] {
        assert!(wide.contains(word), "{word} in {wide}");
    }
    // What scripts wait for.
    kubectl(
        &[
            "wait",
            "--for=condition=Ready=False",
            "gpunode/shown",
            "--timeout=5s",
        ],
        "",
    )
    .ok();
    let refused = json!({"status": {"conditions": [condition("Ready", "Perhaps", "X")]}}).to_string();
    let refused = kubectl(
        &[
            "patch",
            "gpunode",
            "shown",
            "--subresource=status",
            "--type=merge",
            "-p",
            &refused,
        ],
        "",
    );
    assert!(
        refused.refused().contains("Unsupported value"),
        "the schema is enforced"
    );
    kubectl(&["delete", "gpunode", "shown"], "").ok();
}

fn the_roles_allow_what_is_needed_and_no_more(_: &Deployed) {
    let _kind = policies::NodeFeatures::new();
    let can = |account: &str, words: &str| {
        let user = format!("--as=system:serviceaccount:pitcrew:{account}");
        let words: Vec<&str> = words.split(' ').collect();
        let found = kubectl(&[&["auth", "can-i", &user], &words[..]].concat(), "");
        found.stdout.trim() == "yes"
    };
    let table = [
        ("pitcrew-agent", true, "get nodes"),
        ("pitcrew-agent", true, "list nodes"),
        ("pitcrew-agent", true, "watch nodes"),
        ("pitcrew-agent", true, "patch nodes"),
        ("pitcrew-agent", true, "patch nodes --subresource=status"),
        ("pitcrew-agent", true, "create gpunodes.pitcrew.dev"),
        (
            "pitcrew-agent",
            true,
            "patch gpunodes.pitcrew.dev --subresource=status",
        ),
        ("pitcrew-agent", true, "create events.events.k8s.io -n default"),
        ("pitcrew-agent", true, "watch configmaps -n pitcrew"),
        (
            "pitcrew-agent",
            true,
            "update leases.coordination.k8s.io -n pitcrew",
        ),
        ("pitcrew-agent", true, "create runtimeclasses.node.k8s.io"),
        ("pitcrew-agent", false, "update runtimeclasses.node.k8s.io"),
        (
            "pitcrew-agent",
            false,
            "delete leases.coordination.k8s.io -n pitcrew",
        ),
        ("pitcrew-scout", true, "get nodes"),
        ("pitcrew-scout", true, "patch nodes"),
        ("pitcrew-agent", false, "delete nodes"),
        ("pitcrew-agent", false, "update nodes"),
        ("pitcrew-agent", false, "delete gpunodes.pitcrew.dev"),
        ("pitcrew-agent", false, "get secrets -n pitcrew"),
        ("pitcrew-agent", false, "get configmaps -n kube-system"),
        ("pitcrew-agent", false, "update configmaps -n pitcrew"),
        (
            "pitcrew-agent",
            true,
            "patch nodefeatures.nfd.k8s-sigs.io -n pitcrew",
        ),
        (
            "pitcrew-agent",
            true,
            "delete nodefeatures.nfd.k8s-sigs.io -n pitcrew",
        ),
        (
            "pitcrew-agent",
            false,
            "patch nodefeatures.nfd.k8s-sigs.io -n kube-system",
        ),
        (
            "pitcrew-scout",
            false,
            "patch nodefeatures.nfd.k8s-sigs.io -n pitcrew",
        ),
        // Who waits for the runtime's handler on its node, by a field selector.
        ("pitcrew-agent", true, "list pods -A"),
        ("pitcrew-agent", false, "watch pods -A"),
        ("pitcrew-agent", false, "get pods -A"),
        ("pitcrew-scout", false, "list pods -A"),
        ("pitcrew-agent", false, "create pods -n pitcrew"),
        (
            "pitcrew-agent",
            false,
            "create pods --subresource=exec -n pitcrew",
        ),
        (
            "pitcrew-agent",
            false,
            "get leases.coordination.k8s.io -n kube-system",
        ),
        (
            "pitcrew-agent",
            false,
            "create serviceaccounts --subresource=token -n pitcrew",
        ),
        ("pitcrew-scout", false, "list nodes"),
        ("pitcrew-scout", false, "patch nodes --subresource=status"),
        ("pitcrew-scout", false, "get gpunodes.pitcrew.dev"),
        ("pitcrew-scout", false, "get configmaps -n pitcrew"),
        ("pitcrew-scout", false, "create events.events.k8s.io -n default"),
    ];
    let wrong: Vec<_> = table
        .iter()
        .filter(|(account, expected, words)| can(account, words) != *expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The scout, as its manifest has it, may run where nothing privileged may.
fn the_scout_passes_the_restricted_profile(_: &Deployed) {
    let namespace = Namespace::new(
        "ring4-deploy-restricted",
        &["pod-security.kubernetes.io/enforce=restricted"],
    );
    let template = kubectl(
        &[
            "get",
            "daemonset",
            "pitcrew-scout",
            "-n",
            "pitcrew",
            "-o",
            "jsonpath={.spec.template}",
        ],
        "",
    );
    let mut pod: Value = serde_json::from_str(&template.ok()).unwrap();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "scout".into();
    pod["spec"]["serviceAccountName"] = "default".into();
    let applied = namespace.kubectl(&["create", "--dry-run=server", "-f", "-"], &pod.to_string());
    assert_eq!((applied.code, applied.stderr.as_str()), (Some(0), ""));
}

/// The manifests and the program speak of the same things.
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_manifests_are_all_in_the_kustomization() {
    let listed = fs::read_to_string(format!("{}/kustomization.yaml", deploy())).unwrap();
    for dir in ["crds", "node"] {
        for entry in fs::read_dir(format!("{}/{dir}", deploy())).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(listed.contains(&format!("- {dir}/{name}\n")), "{dir}/{name}");
        }
    }
}
