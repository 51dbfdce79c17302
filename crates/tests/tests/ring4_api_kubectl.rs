//! Unmodified kubectl, of the test bed, on the in-memory API over TCP.

use std::io::Write as _;
use std::net::Ipv4Addr;

use pitcrew_apiserver::{ApiServer, tcp};
use pitcrew_tests::{Outcome, on_node};

/// The server, listening on loopback, and kubectl's configuration for it.
struct Served {
    kubeconfig: tempfile::NamedTempFile,
    // Its threads end with it.
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(tcp::serve(ApiServer::new(), listener));
        let mut kubeconfig = tempfile::NamedTempFile::new().expect("a file");
        let text = tcp::kubeconfig(address);
        kubeconfig.write_all(text.as_bytes()).expect("it can be written");
        Self {
            kubeconfig,
            _runtime: runtime,
        }
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Outcome {
        let path = self.kubeconfig.path().to_string_lossy();
        on_node(&[&["kubectl", "--kubeconfig", &path], arguments].concat(), input)
    }
}

const CONFIG: &str =
    r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}"#;

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn kubectl_applies_patches_reads_and_deletes() {
    let served = Served::new();
    let apply = &["apply", "--validate=false", "-f", "-"];
    assert_eq!(served.kubectl(apply, CONFIG).ok(), "configmap/a created\n");
    assert_eq!(served.kubectl(apply, CONFIG).ok(), "configmap/a unchanged\n");
    let changed = CONFIG.replace(r#""v""#, r#""w""#);
    assert_eq!(served.kubectl(apply, &changed).ok(), "configmap/a configured\n");
    let value = &["get", "configmap", "a", "-o", "jsonpath={.data.k}"];
    assert_eq!(served.kubectl(value, "").ok(), "w");
    let patch = &[
        "patch",
        "cm",
        "a",
        "--type=merge",
        "-p",
        r#"{"data": {"k": "x"}}"#,
    ];
    assert_eq!(served.kubectl(patch, "").ok(), "configmap/a patched\n");
    assert_eq!(served.kubectl(value, "").ok(), "x");
    served.kubectl(&["label", "cm", "a", "app=gpu"], "").ok();
    let table = served.kubectl(&["get", "cm", "-l", "app=gpu"], "").ok();
    let words: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(words[0], ["NAME", "AGE"]);
    assert_eq!(words[1][0], "a");
    assert_eq!(
        served.kubectl(&["delete", "cm", "a"], "").ok(),
        "configmap \"a\" deleted from default namespace\n"
    );
    assert!(
        served
            .kubectl(value, "")
            .refused()
            .contains("configmaps \"a\" not found")
    );
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn kubectl_applies_on_the_server_and_is_told_of_conflicts() {
    let served = Served::new();
    let apply = |manager: &str, text: &str| {
        let manager = format!("--field-manager={manager}");
        served.kubectl(
            &["apply", "--server-side", "--validate=false", &manager, "-f", "-"],
            text,
        )
    };
    assert_eq!(apply("one", CONFIG).ok(), "configmap/a serverside-applied\n");
    let conflict = apply("two", &CONFIG.replace(r#""v""#, r#""w""#)).refused();
    assert!(
        conflict.contains(r#"Apply failed with 1 conflict: conflict with "one": .data.k"#),
        "{conflict}"
    );
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn kubectl_describes_a_node_with_its_events() {
    let served = Served::new();
    let node = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]},
        "status": {"capacity": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]}}"#;
    served
        .kubectl(&["create", "--validate=false", "-f", "-"], node)
        .ok();
    let event = r#"{"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Warning", "reason": "XidSeen", "message": "XID 79",
        "involvedObject": {"kind": "Node", "name": "n", "uid": "n"}}"#;
    served
        .kubectl(&["create", "--validate=false", "-f", "-"], event)
        .ok();
    let text = served.kubectl(&["describe", "node", "n"], "").ok();
    for wanted in ["nvidia.com/gpu", "gpu:NoSchedule", "XID 79"] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
    served
        .kubectl(&["taint", "node", "n", "other=x:NoExecute"], "")
        .ok();
    served.kubectl(&["cordon", "n"], "").ok();
    let table = served.kubectl(&["get", "nodes"], "").ok();
    assert!(table.contains("READY"), "{table}");
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn kubectl_defines_a_resource_waits_for_it_and_watches() {
    let served = Served::new();
    let crd = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gpunodes.pitcrew.dev"},
        "spec": {"group": "pitcrew.dev", "scope": "Cluster", "names": {"plural": "gpunodes", "kind": "GpuNode", "shortNames": ["gn"]},
        "versions": [{"name": "v1alpha1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            "additionalPrinterColumns": [{"name": "Model", "type": "string", "jsonPath": ".spec.model"}]}]}}"#;
    served
        .kubectl(&["apply", "--validate=false", "-f", "-"], crd)
        .ok();
    served
        .kubectl(
            &["wait", "--for=condition=Established", "crd/gpunodes.pitcrew.dev"],
            "",
        )
        .ok();
    let node = r#"{"apiVersion": "pitcrew.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": "n"}, "spec": {"model": "H100"}}"#;
    served
        .kubectl(&["apply", "--validate=false", "-f", "-"], node)
        .ok();
    let table = served.kubectl(&["get", "gn"], "").ok();
    assert!(table.contains("MODEL") && table.contains("H100"), "{table}");
    let watch = &["get", "gn", "--watch", "--request-timeout=2s"];
    let seen = served.kubectl(watch, "");
    assert!(seen.stdout.contains("H100"), "{seen:?}");
    let list = served
        .kubectl(&["api-resources", "--api-group=pitcrew.dev"], "")
        .ok();
    assert!(list.contains("gpunodes"), "{list}");
    assert!(served.kubectl(&["version"], "").ok().contains("Server Version"));
}
