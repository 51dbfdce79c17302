//! What a node's token can't do, whatever its roles allow: the admission policies, refusal by refusal.

use pitcrew_tests::{Outcome, kubectl};
use serde_json::{Value, json};

use crate::cluster::{Deployed, NODE, OTHER, Token};

/// What is asked with which token, and what the refusal must say, none for an answer of yes.
pub(crate) type Case<'a> = (&'a str, &'a Token, Vec<String>, Option<&'a str>);

/// What an admission policy says of the Node of another.
pub(crate) const OTHERS: Option<&str> = Some("writes no Node but that");
/// What the roles say.
const ROLES: Option<&str> = Some("cannot");

pub(crate) fn ask(cases: &[Case<'_>]) {
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

pub(crate) fn words(words: &[&str]) -> Vec<String> {
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

/// The annotation by which a node says that it waits for a restart.
fn waits(node: &str, value: &Value) -> Vec<String> {
    let annotations = json!({"pitcrew.dev/restart-wanted": value});
    patch("node", node, &json!({"metadata": {"annotations": annotations}}))
}

pub(crate) fn label(node: &str, name: &str, value: &Value) -> Vec<String> {
    patch("node", node, &json!({"metadata": {"labels": {name: value}}}))
}

pub(crate) fn a_nodes_token_labels_no_other_node_and_with_no_other_labels(deployed: &Deployed) {
    let ours = deployed.token("pitcrew-agent", NODE);
    let theirs = deployed.token("pitcrew-agent", OTHER);
    let nowhere = deployed.token_without_node("pitcrew-agent");
    let gpu = "nvidia.com/gpu.count";
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
            Some("does not change these annotations: a"),
        ),
        ("that it waits for a restart", &ours, waits(NODE, &on), None),
        (
            "that another waits for a restart",
            &ours,
            waits(OTHER, &on),
            OTHERS,
        ),
        ("that it waits no more", &ours, waits(NODE, &gone), None),
        (
            "a finalizer",
            &ours,
            patch("node", NODE, &json!({"metadata": {"finalizers": ["x.dev/y"]}})),
            Some("changes labels and annotations alone"),
        ),
        ("own labels gone at the end", &ours, label(NODE, gpu, &gone), None),
    ]);
}

pub(crate) fn a_scouts_token_sets_its_two_labels_on_its_own_node_and_nobody_deletes_nodes(
    deployed: &Deployed,
) {
    let ours = deployed.token("pitcrew-agent", NODE);
    let scout = deployed.token("pitcrew-scout", NODE);
    let (gpu, present) = ("nvidia.com/gpu.count", "nvidia.com/gpu.present");
    let pci = "feature.node.kubernetes.io/pci-10de.present";
    let (on, gone) = (json!("true"), Value::Null);
    ask(&[
        ("a label of the agent", &ours, label(NODE, gpu, &on), None),
        ("deleting a node", &ours, words(&["delete", "node", OTHER]), ROLES),
        (
            "the scout and annotations",
            &scout,
            waits(NODE, &on),
            Some("does not change these annotations"),
        ),
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

pub(crate) fn a_nodes_token_lifts_its_own_start_up_taint_and_writes_its_own_condition_and_nothing_else(
    deployed: &Deployed,
) {
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

pub(crate) fn a_nodes_token_writes_no_other_gpu_node_and_not_what_is_wanted_of_its_own(deployed: &Deployed) {
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
    refused(ours.kubectl(apply, &object(NODE, NODE, json!({"inlineConfig": "version: v1"}))));
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
    let inline = json!({"spec": {"config": null, "inlineConfig": "version: v1"}});
    // The schema: a node takes one configuration.
    let both = patch("gpunode", NODE, &json!({"spec": {"inlineConfig": "version: v1"}}));
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    let both = kubectl(&both, "").refused();
    assert!(
        both.contains("config and inlineConfig can't both be set"),
        "{both}"
    );
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
            "own wish, written out",
            &ours,
            patch("gpunode", NODE, &inline),
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

/// Node Feature Discovery's kind, as long as this lives: `kubectl auth can-i` knows no kind that isn't there.
pub(crate) struct NodeFeatures;

impl NodeFeatures {
    const KIND: &str = "crd/nodefeatures.nfd.k8s-sigs.io";

    pub(crate) fn new() -> Self {
        kubectl(&["apply", "-f", "-"], &node_features().to_string()).ok();
        let wait = ["wait", "--for=condition=Established", Self::KIND, "--timeout=30s"];
        kubectl(&wait, "").ok();
        Self
    }
}

impl Drop for NodeFeatures {
    fn drop(&mut self) {
        kubectl(&["delete", Self::KIND], "");
    }
}

/// The kind as far as the agent needs it.
fn node_features() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "nodefeatures.nfd.k8s-sigs.io"},
        "spec": {
            "group": "nfd.k8s-sigs.io", "scope": "Namespaced",
            "names": {"kind": "NodeFeature", "plural": "nodefeatures", "singular": "nodefeature"},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_nodes_token_writes_the_node_feature_of_its_own_node_alone() {
    let deployed = Deployed::new();
    let _kind = NodeFeatures::new();
    let ours = deployed.token("pitcrew-agent", NODE);
    let feature = |name: &str, labels: Value| {
        json!({
            "apiVersion": "nfd.k8s-sigs.io/v1alpha1", "kind": "NodeFeature",
            "metadata": {"name": format!("nvidia-features-for-{name}"), "namespace": "pitcrew", "labels": labels},
            "spec": {"labels": {"nvidia.com/gpu.count": "8"}},
        })
        .to_string()
    };
    let of = |node: &str| json!({"nfd.node.kubernetes.io/node-name": node});
    let apply = |object: &str| {
        let words = [
            "apply",
            "--server-side",
            "--field-manager=pitcrew-labels",
            "-f",
            "-",
        ];
        ours.kubectl(&words, object)
    };
    apply(&feature(NODE, of(NODE))).ok();
    let names_none = format!("names none: its label \"nfd.node.kubernetes.io/node-name\" must be \"{NODE}\"");
    for (object, words) in [
        (feature(OTHER, of(OTHER)), "writes no NodeFeature but its own"),
        (feature(NODE, of(OTHER)), &format!("not \"{OTHER}\"")),
        (feature(NODE, json!({"a": "b"})), &names_none),
        (feature(NODE, json!({})), &names_none),
        (feature(NODE, Value::Null), &names_none),
    ] {
        let refused = apply(&object).refused();
        assert!(
            refused.contains(words) && !refused.contains("resulted in error"),
            "{refused}"
        );
    }
    let name = format!("nvidia-features-for-{NODE}");
    ours.kubectl(&["delete", "nodefeature", &name, "-n", "pitcrew"], "")
        .ok();
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_nodes_token_has_node_feature_discovery_make_no_other_labels_than_a_nodes() {
    let deployed = Deployed::new();
    let _kind = NodeFeatures::new();
    let ours = deployed.token("pitcrew-agent", NODE);
    let name = format!("nvidia-features-for-{NODE}");
    let object = json!({
        "apiVersion": "nfd.k8s-sigs.io/v1alpha1", "kind": "NodeFeature",
        "metadata": {
            "name": name, "namespace": "pitcrew", "labels": {"nfd.node.kubernetes.io/node-name": NODE},
        },
        "spec": {
            "labels": {"nvidia.com/gpu.count": "8", "pitcrew.dev/gpu.class": "h100"},
            "features": {"attributes": {}, "flags": {}, "instances": {}},
        },
    });
    let with = |labels: Value, features: Value| {
        let mut object = object.clone();
        object["spec"] = json!({"labels": labels, "features": features});
        object.to_string()
    };
    let write = |verb: &str, object: &str| match verb {
        "create" => ours.kubectl(&["create", "-f", "-"], object),
        _ => ours.kubectl(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            object,
        ),
    };
    let change_by = |kubectl: &dyn Fn(&[&str]) -> Outcome, spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        let words = [
            "patch",
            "nodefeature",
            &name,
            "-n",
            "pitcrew",
            "--type=merge",
            "-p",
            &patch,
        ];
        kubectl(&words)
    };
    let change = |spec: Value| change_by(&|words| ours.kubectl(words, ""), spec);
    let refuse = |what: &str, outcome: Outcome, words: &str| {
        let refused = outcome.refused();
        let is_told = refused.contains(words) && !refused.contains("resulted in error");
        assert!(is_told, "{what}: {refused}");
    };
    let labels = [
        "node-role.kubernetes.io/control-plane",
        "no-domain",
        "feature.node.kubernetes.io/pci-10de.present",
        "nvidia.com/mig.config",
    ];
    let of_labels = "does not have Node Feature Discovery change these labels: ";
    let of_features = "has labels and no features";
    let features = json!({"attributes": {"a.b": {"elements": {"c": "d"}}}});
    for verb in ["create", "apply"] {
        for label in labels {
            let object = with(json!({label: "x"}), json!({}));
            refuse(label, write(verb, &object), &[of_labels, label].concat());
        }
        let object = with(json!({}), features.clone());
        refuse("features", write(verb, &object), of_features);
    }
    write("apply", &object.to_string()).ok();
    for label in labels {
        refuse(
            label,
            change(json!({"labels": {label: "x"}})),
            &[of_labels, label].concat(),
        );
    }
    refuse("features", change(json!({"features": features})), of_features);
    change(json!({"labels": {"nvidia.com/gpu.count": "4"}})).ok();
    // What somebody else has put there stays, and keeps the agent from nothing.
    let theirs = json!({"labels": {"x.dev/y": "z"}, "features": features});
    change_by(&|words| kubectl(words, ""), theirs).ok();
    change(json!({"labels": {"nvidia.com/gpu.count": "2"}})).ok();
    refuse("theirs", change(json!({"labels": {"x.dev/y": null}})), "x.dev/y");
    ours.kubectl(&["delete", "nodefeature", &name, "-n", "pitcrew"], "")
        .ok();
}
