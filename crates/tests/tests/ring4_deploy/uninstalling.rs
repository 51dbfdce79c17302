//! Taking it all away again: what the account of `deploy/uninstall` may do, and the commands of docs/install.md.

use pitcrew_tests::{kubectl, on_node, pitcrew, wait_for};
use serde_json::{Value, json};

use crate::cluster::{Deployed, NODE, OTHER, deploy, node_field};
use crate::policies::{OTHERS, ask, label, words};

/// The roles of `deploy/uninstall`, as long as this lives.
struct Roles(String);

impl Roles {
    fn new() -> Self {
        let roles = Self(format!("{}/uninstall/rbac.yaml", deploy()));
        kubectl(&["apply", "-f", &roles.0], "").ok();
        roles
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        kubectl(&["delete", "--ignore-not-found", "-f", &self.0], "");
    }
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_account_of_an_uninstall_deletes_its_own_gpu_node_and_the_runtime_class_and_nothing_of_others() {
    let deployed = Deployed::new();
    let _roles = Roles::new();
    let ours = deployed.token("pitcrew-uninstall", NODE);
    for node in [NODE, OTHER] {
        let object = json!({
            "apiVersion": "pitcrew.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": node}, "spec": {},
        });
        kubectl(&["apply", "-f", "-"], &object.to_string()).ok();
    }
    let (gpu, on, gone) = ("nvidia.com/gpu.count", json!("1"), Value::Null);
    kubectl(&["label", "node", NODE, "nvidia.com/gpu.count=1"], "").ok();
    ask(&[
        ("a label of its own node", &ours, label(NODE, gpu, &gone), None),
        ("a label of another node", &ours, label(OTHER, gpu, &on), OTHERS),
        (
            "a role",
            &ours,
            label(NODE, "node-role.kubernetes.io/x", &on),
            Some("does not change these labels"),
        ),
        (
            "another's GpuNode",
            &ours,
            words(&["delete", "gpunode", OTHER]),
            Some("writes no GpuNode but that"),
        ),
        (
            "its own GpuNode",
            &ours,
            words(&["delete", "gpunode", NODE]),
            None,
        ),
        (
            "the class",
            &ours,
            words(&["auth", "can-i", "delete", "runtimeclasses/nvidia"]),
            None,
        ),
    ]);
    for verb in [
        "delete runtimeclasses/runc",
        "create runtimeclasses",
        "create gpunodes",
        "delete nodes",
    ] {
        let words: Vec<&str> = ["auth", "can-i"].into_iter().chain(verb.split(' ')).collect();
        assert_eq!(ours.kubectl(&words, "").stdout.trim(), "no", "{verb}");
    }
}

/// Another cluster than ours has neither Node Feature Discovery nor our kind any more.
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn where_the_cluster_knows_none_of_the_kinds_nothing_is_left() {
    drop(Deployed::new());
    wait_for("the kind to be gone", || {
        (kubectl(&["get", "gpunodes"], "").code != Some(0)).then_some(())
    });
    let pitcrew = pitcrew().display().to_string();
    let done = on_node(&[&pitcrew, "agent", "uninstall", "--node", NODE], "");
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(!done.stderr.contains("left: "), "{done:#?}");
    // What can't be done is told, and is no success.
    let alone = [
        "env",
        "-u",
        "KUBECONFIG",
        &pitcrew,
        "agent",
        "uninstall",
        "--node",
        NODE,
    ];
    let told = on_node(&alone, "");
    assert_eq!(told.code, Some(1), "{told:#?}");
    assert!(
        told.stderr
            .contains("left: what the agent wrote at the API server"),
        "{told:#?}"
    );
}

/// The last command, which a person copies.
fn last_command() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/install.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = page
        .split("```")
        .find(|block| block.contains("kubectl delete -k deploy --ignore-not-found"));
    let lines = block.unwrap().trim_end().lines();
    let after = lines.skip_while(|line| !line.starts_with("kubectl delete -k deploy --"));
    after.skip(1).collect::<Vec<_>>().join("\n")
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_scouts_labels_go_and_node_feature_discoverys_own_stays() {
    let _deployed = Deployed::new();
    let (present, pci) = (
        "nvidia.com/gpu.present",
        "feature.node.kubernetes.io/pci-10de.present",
    );
    let apply = |manager: &str, node: &str, labels: Value| {
        let object =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}});
        let manager = format!("--field-manager={manager}");
        kubectl(
            &["apply", "--server-side", &manager, "-f", "-"],
            &object.to_string(),
        )
        .ok();
    };
    apply("pitcrew-scout", NODE, json!({present: "true", pci: "true"}));
    apply("pitcrew-scout", OTHER, json!({present: "true"}));
    apply("nfd-master", OTHER, json!({pci: "true"}));
    let before = node_field(".metadata.annotations");
    on_node(&["sh", "-c", &last_command()], "").ok();
    let labels = |node: &str| {
        let found = kubectl(&["get", "node", node, "-o", "jsonpath={.metadata.labels}"], "").ok();
        let labels: Value = serde_json::from_str(&found).unwrap();
        [present, pci].map(|name| labels[name].as_str().map(str::to_owned))
    };
    assert_eq!(labels(NODE), [None, None]);
    assert_eq!(labels(OTHER), [None, Some("true".to_owned())]);
    assert_eq!(node_field(".metadata.annotations"), before);
}
