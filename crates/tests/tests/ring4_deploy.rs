//! The manifests of `deploy/` on a real Kubernetes: they apply, they suffice, and a node's token has no hold on others.
#![allow(clippy::unwrap_used, reason = "tests, and what they share")]

#[path = "ring4_deploy/cluster.rs"]
mod cluster;
#[path = "ring4_deploy/status.rs"]
mod status;

use std::fs;

use cluster::{Deployed, NODE, OTHER, Token, deploy};
use pitcrew_tests::{Namespace, Outcome, kubectl, testbed, wait_for};
use serde_json::{Value, json};

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_manifests_apply_without_a_warning_and_a_second_time_change_nothing() {
    let _deployed = Deployed::new();
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
    for policy in ["pitcrew-nodes", "pitcrew-gpunodes", "pitcrew-events"] {
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
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_columns_tell_the_story_of_a_node_at_one_glance() {
    let _deployed = Deployed::new();
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

/// What is asked with which token, and what the refusal must say, none for an answer of yes.
type Case<'a> = (&'a str, &'a Token, Vec<String>, Option<&'a str>);

/// What an admission policy says of the Node of another.
const OTHERS: Option<&str> = Some("writes no Node but that");
/// What the roles say.
const ROLES: Option<&str> = Some("cannot");

fn ask(cases: &[Case<'_>]) {
    let mut wrong = Vec::new();
    for (what, token, arguments, expected) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let outcome = match arguments[..] {
            ["patch-status", kind, name, status] => token.patch_status(kind, name, status),
            _ => token.kubectl(&arguments, ""),
        };
        let Outcome { stdout, stderr, code } = outcome;
        let is_right = match expected {
            None => code == Some(0),
            // An expression that fails refuses too, and means nothing.
            Some(words) => code != Some(0) && stderr.contains(words) && !stderr.contains("resulted in error"),
        };
        if !is_right {
            wrong.push(format!("{what}: {code:?} {stdout}{stderr}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A merge patch of an object.
fn patch(kind: &str, name: &str, patch: &Value) -> Vec<String> {
    words(&["patch", kind, name, "--type=merge", "-p", &patch.to_string()])
}

/// A patch of an object's status. Not kubectl's own: that reads the status first, by itself, which the agent need not.
fn patch_status(kind: &str, name: &str, status: &Value) -> Vec<String> {
    words(&["patch-status", kind, name, &status.to_string()])
}

fn label(node: &str, name: &str, value: &Value) -> Vec<String> {
    patch("node", node, &json!({"metadata": {"labels": {name: value}}}))
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_nodes_token_labels_no_other_node_and_with_no_other_labels() {
    let deployed = Deployed::new();
    let ours = deployed.token("pitcrew-agent", NODE);
    let theirs = deployed.token("pitcrew-agent", OTHER);
    let scout = deployed.token("pitcrew-scout", NODE);
    let nowhere = deployed.token_without_node("pitcrew-agent");
    let (gpu, present) = ("nvidia.com/gpu.count", "nvidia.com/gpu.present");
    let pci = "feature.node.kubernetes.io/pci-10de.present";
    let role = "node-role.kubernetes.io/control-plane";
    let class = "pitcrew.dev/gpu.class";
    let on = json!("true");
    let gone = Value::Null;
    ask(&[
        ("own label", &ours, label(NODE, gpu, &on), None),
        ("own label of another kind", &ours, label(NODE, class, &on), None),
        ("own labels gone", &ours, label(NODE, class, &gone), None),
        ("label of another node", &ours, label(OTHER, gpu, &on), OTHERS),
        (
            "the other's label of the other",
            &theirs,
            label(OTHER, gpu, &on),
            None,
        ),
        (
            "the other's label of ours",
            &theirs,
            label(NODE, gpu, &gone),
            OTHERS,
        ),
        (
            "a token without a node",
            &nowhere,
            label(NODE, gpu, &gone),
            OTHERS,
        ),
        ("a role", &ours, label(NODE, role, &on), Some(role)),
        (
            "what people want of MIG",
            &ours,
            label(NODE, "nvidia.com/mig.config", &on),
            Some("does not change these labels: nvidia.com/mig.config"),
        ),
        (
            "which configuration",
            &ours,
            label(NODE, "nvidia.com/device-plugin.config", &on),
            Some("does not change these labels: nvidia.com/device-plugin.config"),
        ),
        (
            "another's label gone",
            &ours,
            label(NODE, "kubernetes.io/hostname", &gone),
            Some("does not change these labels: kubernetes.io/hostname"),
        ),
        (
            "a label through the status",
            &ours,
            patch_status("node", NODE, &json!({"metadata": {"labels": {role: "x"}}})),
            Some(role),
        ),
        (
            "an annotation",
            &ours,
            patch("node", NODE, &json!({"metadata": {"annotations": {"a": "b"}}})),
            Some("changes labels alone"),
        ),
        (
            "a finalizer",
            &ours,
            patch("node", NODE, &json!({"metadata": {"finalizers": ["x.dev/y"]}})),
            Some("changes labels alone"),
        ),
        ("deleting a node", &ours, words(&["delete", "node", OTHER]), ROLES),
        ("the scout's label", &scout, label(NODE, present, &on), None),
        ("the scout's other label", &scout, label(NODE, pci, &on), None),
        (
            "the scout and other labels",
            &scout,
            label(NODE, gpu, &gone),
            Some("does not change"),
        ),
        (
            "the scout and other nodes",
            &scout,
            label(OTHER, present, &on),
            OTHERS,
        ),
        (
            "the scout's labels gone",
            &scout,
            label(NODE, present, &gone),
            None,
        ),
        ("own labels gone at the end", &ours, label(NODE, gpu, &gone), None),
    ]);
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_nodes_token_lifts_its_own_start_up_taint_and_writes_its_own_condition_and_nothing_else() {
    let deployed = Deployed::new();
    let ours = deployed.token("pitcrew-agent", NODE);
    let theirs = deployed.token("pitcrew-agent", OTHER);
    let scout = deployed.token("pitcrew-scout", OTHER);
    for taint in [
        "pitcrew.dev/not-ready=:PreferNoSchedule",
        "other=:PreferNoSchedule",
    ] {
        kubectl(&["taint", "node", OTHER, taint, "--overwrite"], "").ok();
    }
    let taint = |change: &str| words(&["taint", "node", OTHER, change]);
    let condition = |kind: &str| {
        let condition = json!({"type": kind, "status": "False", "reason": "Test", "message": "m"});
        json!({"status": {"conditions": [condition]}})
    };
    let (healthy, ready) = (condition("GpuHealthy"), condition("Ready"));
    let capacity = json!({"status": {"capacity": {"nvidia.com/gpu": "64"}}});
    ask(&[
        (
            "a taint more",
            &theirs,
            taint("pitcrew.dev/mine=:PreferNoSchedule"),
            Some("touches no other"),
        ),
        (
            "another's taint less",
            &theirs,
            taint("other-"),
            Some("touches no other"),
        ),
        (
            "the scout and taints",
            &scout,
            taint("pitcrew.dev/not-ready-"),
            Some("touches no other"),
        ),
        (
            "another node's taints",
            &ours,
            taint("pitcrew.dev/not-ready-"),
            OTHERS,
        ),
        (
            "the start-up taint less",
            &theirs,
            taint("pitcrew.dev/not-ready-"),
            None,
        ),
        (
            "cordon",
            &ours,
            patch("node", NODE, &json!({"spec": {"unschedulable": true}})),
            Some("changes taints alone"),
        ),
        (
            "own condition",
            &theirs,
            patch_status("node", OTHER, &healthy),
            None,
        ),
        (
            "condition of another node",
            &ours,
            patch_status("node", OTHER, &healthy),
            OTHERS,
        ),
        (
            "the kubelet's condition",
            &ours,
            patch_status("node", NODE, &ready),
            Some("writes GpuHealthy alone"),
        ),
        (
            "capacity",
            &ours,
            patch_status("node", NODE, &capacity),
            Some("writes its condition alone"),
        ),
        (
            "the scout and the status",
            &scout,
            patch_status("node", OTHER, &healthy),
            ROLES,
        ),
    ]);
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_nodes_token_writes_no_other_gpu_node_and_not_what_is_wanted_of_its_own() {
    let deployed = Deployed::new();
    let ours = deployed.token("pitcrew-agent", NODE);
    let scout = deployed.token("pitcrew-scout", NODE);
    let object = |name: &str, owner: &str, spec: Value| {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": owner, "uid": deployed.uid(owner)});
        json!({
            "apiVersion": "pitcrew.dev/v1alpha1", "kind": "GpuNode",
            "metadata": {"name": name, "ownerReferences": [owner]}, "spec": spec,
        })
        .to_string()
    };
    let apply = &[
        "apply",
        "--server-side",
        "--field-manager=pitcrew-agent",
        "-f",
        "-",
    ];
    let refused = |outcome: Outcome| {
        let words = outcome.refused();
        assert!(words.contains("denied request"), "{words}");
    };
    refused(ours.kubectl(apply, &object(OTHER, OTHER, json!({}))));
    refused(ours.kubectl(apply, &object(NODE, OTHER, json!({}))));
    refused(ours.kubectl(apply, &object(NODE, NODE, json!({"config": "mine"}))));
    ours.kubectl(apply, &object(NODE, NODE, json!({}))).ok();
    kubectl(
        &["apply", "-f", "-"],
        &object(OTHER, OTHER, json!({"config": "theirs"})),
    )
    .ok();
    // The owner says what is wanted; the agent's next apply neither takes it away nor changes it.
    kubectl(
        &[
            "patch",
            "gpunode",
            NODE,
            "--type=merge",
            "-p",
            r#"{"spec": {"config": "x"}}"#,
        ],
        "",
    )
    .ok();
    ours.kubectl(apply, &object(NODE, NODE, json!({}))).ok();
    let status = json!({"status": {"product": "p"}});
    let config = json!({"spec": {"config": "y"}});
    ask(&[
        ("own status", &ours, patch_status("gpunode", NODE, &status), None),
        (
            "status of another",
            &ours,
            patch_status("gpunode", OTHER, &status),
            Some("writes no GpuNode but that"),
        ),
        (
            "own wish",
            &ours,
            patch("gpunode", NODE, &config),
            Some("what is wanted of its node"),
        ),
        (
            "another's wish",
            &ours,
            patch("gpunode", OTHER, &config),
            Some("writes no GpuNode but that"),
        ),
        ("deleting", &ours, words(&["delete", "gpunode", NODE]), ROLES),
        ("the scout", &scout, patch_status("gpunode", NODE, &status), ROLES),
    ]);
    let kept = kubectl(&["get", "gpunode", NODE, "-o", "jsonpath={.spec.config}"], "").ok();
    assert_eq!(kept, "x");
    kubectl(&["delete", "gpunode", NODE, OTHER], "").ok();
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_roles_allow_what_is_needed_and_no_more() {
    let _deployed = Deployed::new();
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
        ("pitcrew-scout", true, "get nodes"),
        ("pitcrew-scout", true, "patch nodes"),
        ("pitcrew-agent", false, "delete nodes"),
        ("pitcrew-agent", false, "update nodes"),
        ("pitcrew-agent", false, "delete gpunodes.pitcrew.dev"),
        ("pitcrew-agent", false, "get secrets -n pitcrew"),
        ("pitcrew-agent", false, "get configmaps -n kube-system"),
        ("pitcrew-agent", false, "update configmaps -n pitcrew"),
        ("pitcrew-agent", false, "list pods -A"),
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
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_scout_passes_the_restricted_profile() {
    let _deployed = Deployed::new();
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

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_scout_in_its_pod_labels_a_node_with_a_gpu_which_brings_the_agent_there() {
    let scout = std::env::var_os("PITCREW_SCOUT").expect("run these tests with `cargo xtask test`");
    let file = format!("{}=/usr/bin/pitcrew-scout", scout.to_string_lossy());
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
    // Imaginary GPUs lie over the host's /sys, where a container's own doesn't see them.
    let patch = json!([
        {"op": "add", "path": "/spec/template/spec/volumes", "value": [{"name": "sys", "hostPath": {"path": "/sys"}}]},
        {"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts",
            "value": [{"name": "sys", "mountPath": "/host/sys", "readOnly": true}]},
        {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--sys=/host/sys"},
        {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--every=1"},
    ]);
    let patch = patch.to_string();
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
    let label = |name: &str| {
        let field = format!("jsonpath={{.metadata.labels.{}}}", name.replace('.', "\\."));
        kubectl(&["get", "node", NODE, "-o", &field], "").ok()
    };
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
