//! The manifests applied to the test bed, a second Node that nobody runs, and tokens as pods have them.
#![allow(clippy::unused_self, reason = "tokens are only there while the manifests are")]

use std::path::Path;

use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use pitcrew_tests::{Outcome, kubectl, testbed, wait_for};
use serde_json::{Value, json};

/// The bed's node.
pub(crate) const NODE: &str = "127.0.0.1";
/// A Node that no kubelet runs.
pub(crate) const OTHER: &str = "ring4-deploy-other";
const NAMESPACE: &str = "pitcrew";

/// The directory of the manifests.
pub(crate) fn deploy() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let path = path.canonicalize().expect("the manifests are in the repository");
    path.to_string_lossy().into_owned()
}

/// Everything of `deploy/`, until it is dropped.
pub(crate) struct Deployed;

impl Deployed {
    pub(crate) fn new() -> Self {
        let deployed = Self;
        clean();
        // A definition is served a moment after it was made, and so is a policy in force.
        let applied = kubectl(&["apply", "-k", &deploy()], "");
        assert_eq!(
            (applied.code, applied.stderr.as_str()),
            (Some(0), ""),
            "{applied:#?}"
        );
        kubectl(
            &[
                "wait",
                "--for=condition=Established",
                "crd/gpunodes.pitcrew.dev",
                "--timeout=30s",
            ],
            "",
        )
        .ok();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": OTHER}, "spec": {"unschedulable": true}});
        kubectl(&["apply", "-f", "-"], &node.to_string()).ok();
        deployed
    }

    /// The uid of a Node.
    #[expect(clippy::unused_self, reason = "there is none before")]
    pub(crate) fn uid(&self, node: &str) -> String {
        kubectl(&["get", "node", node, "-o", "jsonpath={.metadata.uid}"], "").ok()
    }

    /// A token as the kubelet asks for it, of a pod with this service account on this node. Waits until the policies see it.
    pub(crate) fn token(&self, account: &str, node: &str) -> Token {
        let name = format!("{account}-on-{}", node.replace('.', "-"));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "serviceAccountName": account, "nodeName": node, "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": "localhost/busybox:1", "command": ["sleep", "3600"]}],
            },
        });
        kubectl(&["apply", "-f", "-"], &pod.to_string()).ok();
        let bound = ["--bound-object-kind=Pod", "--bound-object-name", &name];
        made(&[&["create", "token", account, "-n", NAMESPACE], &bound[..]].concat())
    }

    /// A token as a person makes it, which says nothing of a node.
    pub(crate) fn token_without_node(&self, account: &str) -> Token {
        made(&["create", "token", account, "-n", NAMESPACE])
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        clean();
    }
}

/// A service account's token.
pub(crate) struct Token(pub(crate) String);

impl Token {
    /// A client with this token and nothing of the administrator's.
    pub(crate) async fn client(&self) -> kube::Client {
        let path = testbed(&["kubeconfig"]).ok();
        let mut kubeconfig = Kubeconfig::read_from(path.trim()).unwrap();
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = Some(serde_json::from_value(json!({"token": self.0})).unwrap());
        }
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.unwrap()).unwrap()
    }

    /// Patches the status of a Node or `GpuNode`, the lists of a Node as its types say.
    pub(crate) fn patch_status(&self, kind: &str, name: &str, status: &str) -> Outcome {
        let status: Value = serde_json::from_str(status).unwrap();
        let (group, version, kind, patch) = match kind {
            "node" => ("", "v1", "Node", Patch::Strategic(status)),
            _ => ("pitcrew.dev", "v1alpha1", "GpuNode", Patch::Merge(status)),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let patched = runtime.block_on(async {
            let api: Api<DynamicObject> = Api::all_with(self.client().await, &resource);
            api.patch_status(name, &PatchParams::default(), &patch).await
        });
        Outcome {
            stdout: String::new(),
            code: Some(i32::from(patched.is_err())),
            stderr: patched.err().map_or_else(String::new, |error| error.to_string()),
        }
    }

    /// Runs kubectl as its owner, with nothing of the administrator's.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Outcome {
        let token = format!("--token={}", self.0);
        let alone = [
            "--kubeconfig=/dev/null",
            "--server=https://127.0.0.1:443",
            "--insecure-skip-tls-verify=true",
            &token,
        ];
        kubectl(&[arguments, &alone[..]].concat(), input)
    }
}

fn made(arguments: &[&str]) -> Token {
    let token = Token(kubectl(arguments, "").ok().trim().to_owned());
    // Bindings of policies are read by the API server a moment after they were made.
    wait_for("the policies to be in force", || {
        let patch = r#"{"metadata": {"annotations": {"ring4": "x"}}}"#;
        let tried = [
            "patch",
            "node",
            NODE,
            "--type=merge",
            "--dry-run=server",
            "-p",
            patch,
        ];
        let tried = token.kubectl(&tried, "");
        (tried.code != Some(0) && tried.stderr.contains("denied request")).then_some(())
    });
    token
}

/// A field of the node, by its path.
pub(crate) fn node_field(path: &str) -> String {
    kubectl(&["get", "node", NODE, "-o", &format!("jsonpath={{{path}}}")], "").ok()
}

fn add(path: &str, value: &Value) -> Value {
    json!({"op": "add", "path": format!("/spec/template/spec/{path}"), "value": value})
}

/// Has the scout see imaginary GPUs, which lie over the host's /sys, where a container's own doesn't see them; and look
/// each second.
pub(crate) fn scout_patch() -> Value {
    json!([
        add("volumes", &json!([{"name": "sys", "hostPath": {"path": "/sys"}}])),
        add(
            "containers/0/volumeMounts",
            &json!([{"name": "sys", "mountPath": "/host/sys", "readOnly": true}])
        ),
        add("containers/0/args/-", &json!("--sys=/host/sys")),
        add("containers/0/args/-", &json!("--every=1")),
    ])
}

/// Has the agent see them: what stands for the driver's library asks its environment for the GPUs that it has.
pub(crate) fn agent_patch() -> Value {
    let env = |name: &str, value: &str| add("containers/0/env/-", &json!({"name": name, "value": value}));
    json!([
        env("PITCREW_SCENARIO", "rtx3060"),
        env("PITCREW_NVML", "/host/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"),
    ])
}

/// How often pods of a component were restarted.
pub(crate) fn restarts(component: &str) -> u32 {
    let selector = format!("app.kubernetes.io/component={component}");
    let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let found = kubectl(&["get", "pods", "-n", NAMESPACE, "-l", &selector, "-o", path], "").ok();
    found
        .split_whitespace()
        .map(|count| count.parse::<u32>().unwrap())
        .sum()
}

fn clean() {
    let gone = ["delete", "--ignore-not-found", "--wait=true", "--timeout=60s"];
    let delete = |what: &[&str]| kubectl(&[&gone[..], what].concat(), "");
    // A pod of a node that nobody runs is never ended by a kubelet.
    kubectl(
        &[
            "delete",
            "pods",
            "-n",
            NAMESPACE,
            "--all",
            "--force",
            "--grace-period=0",
            "--ignore-not-found",
        ],
        "",
    );
    delete(&["-k", &deploy()]);
    delete(&["node", OTHER]);
    for label in [
        "nvidia.com/gpu.present-",
        "feature.node.kubernetes.io/pci-10de.present-",
    ] {
        kubectl(&["label", "node", NODE, label], "");
    }
}
