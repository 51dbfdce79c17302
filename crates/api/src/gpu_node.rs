//! [`GpuNode`]: what is wanted of a node's GPUs, and how they are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

/// What is wanted of the GPUs of a node.
///
/// Everything has a meaning without being set: a node needs nothing to be wanted of it. Of `config` and `inlineConfig`
/// only one can be set.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.config) && has(self.inlineConfig))",
    "message": "config and inlineConfig can't both be set"
}]))]
#[kube(
    // `pitcrew_core::API_GROUP`: the macro wants it written out, and a test compares the two.
    group = "pitcrew.dev",
    version = "v1alpha1",
    kind = "GpuNode",
    status = "GpuNodeStatus",
    shortname = "gn",
    category = "pitcrew",
    derive = "PartialEq",
    doc = "The GPUs of a node: named as the node, owned by it, and kept by the agent on it.",
    printcolumn = r#"{"name": "Product", "type": "string", "jsonPath": ".status.product"}"#,
    printcolumn = r#"{"name": "GPUs", "type": "integer", "jsonPath": ".status.gpuCount"}"#,
    printcolumn = r#"{"name": "Sick", "type": "integer", "jsonPath": ".status.sickCount"}"#,
    printcolumn = r#"{"name": "Driver", "type": "string", "jsonPath": ".status.driver.version"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Proven", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Proven\")].status", "priority": 1}"#,
    printcolumn = r#"{"name": "Tier", "type": "string", "jsonPath": ".status.tier", "priority": 1}"#,
    printcolumn = r#"{"name": "Distribution", "type": "string", "jsonPath": ".status.distribution", "priority": 1}"#,
    printcolumn = r#"{"name": "Containerd", "type": "string", "jsonPath": ".status.containerd", "priority": 1}"#,
    printcolumn = r#"{"name": "Hint", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].hint", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
pub struct GpuNodeSpec {
    /// Name of the device plugin's configuration that this node takes, one of those that the agent has been given.
    ///
    /// The same as the node's label `nvidia.com/device-plugin.config`, which outranks it. Without either the agent
    /// takes its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config: Option<String>,
    /// The device plugin's configuration for this node itself, version v1 in YAML or JSON, in the place of a named one.
    ///
    /// The node's label outranks it where the agent has been given several configurations to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline_config: Option<String>,
    /// When the GPUs are proved, how much, and what hangs on it. Without it, or with a field left out, the agent's own
    /// settings count, which by default prove nothing by themselves.
    ///
    /// A proof takes a GPU to its limit and compares every result. It never runs on a GPU that a pod holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofSpec>,
}

/// When the GPUs of a node are proved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProofSpec {
    /// How much is tested; `prove` where nothing else is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProofProfile>,
    /// Prove each GPU that no proof holds for: one that is new, and all of them after a boot of the node or a change of the
    /// driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_unproven: Option<bool>,
    /// Prove each GPU again when its last proof is so old, in hours or days: `12h`, `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[1-9][0-9]{0,3}[hd]$"))]
    pub every: Option<String>,
    /// Prove all GPUs once, now: whenever this becomes another text, such as a date. Those that pods hold follow when they
    /// are free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub request: Option<String>,
    /// Hand a GPU to pods only while a proof of it holds. Pods that have one keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates_readiness: Option<bool>,
}

/// How much a proof tests: `smoke` takes five seconds, `prove` a minute, `burn` a quarter of an hour, `soak` four hours. A pod
/// that asks for the GPU meanwhile waits so long at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProofProfile {
    /// Five seconds.
    Smoke,
    /// A minute.
    Prove,
    /// A quarter of an hour.
    Burn,
    /// Four hours.
    Soak,
}

impl GpuNodeSpec {
    /// True where nothing is wanted of the node.
    pub fn is_empty(&self) -> bool {
        let Self {
            config,
            inline_config,
            proof,
        } = self;
        config.is_none() && inline_config.is_none() && proof.is_none()
    }
}

/// How the GPUs of a node are. Written by the agent on the node alone.
///
/// What could not be read is absent, never zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeStatus {
    /// The `metadata.generation` of the specification that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The model of the GPUs, or the first one and how many others there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// How many GPUs there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_count: Option<i32>,
    /// How many of them must not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sick_count: Option<i32>,
    /// The driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// How a GPU reaches a container here: `native`, `mounts` or `handler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// The Kubernetes distribution and its version, e.g. `rke2 1.36.2+rke2r1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// Version of containerd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerd: Option<String>,
    /// The `request` of `spec.proof` that was answered last, for every GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_request: Option<String>,
    /// The GPUs, in the driver's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["pci"]
    ))]
    pub gpus: Vec<Gpu>,
    /// The extended resources that the kubelet is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"]
    ))]
    pub resources: Vec<Resource>,
    /// `Ready` and what it comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

impl GpuNodeStatus {
    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// Versions of the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    /// Version of the kernel module, e.g. `580.159.04`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Highest CUDA version that it can run, e.g. `13.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<String>,
    /// True for NVIDIA's open kernel modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_kernel_modules: Option<bool>,
}

/// How a GPU reaches a container on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The kubelet hands names of CDI devices to containerd.
    Native,
    /// Device nodes and mounts, in the device plugin's answers.
    Mounts,
    /// A handler of the container runtime.
    Handler,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Its address on the PCI bus, e.g. `0000:3b:00.0`: all that a lost GPU still has.
    pub pci: String,
    /// Position in the driver's order, which a reboot may change.
    pub index: i32,
    /// `GPU-` and a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its model, as the driver names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// All of its memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    /// Whether it is well.
    pub health: GpuHealth,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// MIG; absent where the card can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<Mig>,
    /// How many pods hold it or a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<i32>,
    /// Its last proof; absent where none was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<GpuProof>,
}

/// The last proof of a GPU. Of one that is cut up it is the one that counts among those of its MIG devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuProof {
    /// The verdict, e.g. `PASS` or `FAIL_CORRUPTION`.
    pub verdict: String,
    /// How much was tested.
    pub profile: ProofProfile,
    /// When it began.
    pub started: Time,
    /// How long it took, in seconds.
    pub seconds: i64,
    /// How many results and bytes of memory were compared.
    pub verified: i64,
    /// True where the verdict holds no more: the node was booted since, or has another driver.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// What speaks against the GPU, the gravest alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The health of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GpuHealth {
    /// Nothing is wrong with it.
    Healthy,
    /// It works, and needs attention soon.
    Degraded,
    /// It must not be used.
    Unhealthy,
    /// It could not be judged.
    Unknown,
}

/// MIG on a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mig {
    /// True when MIG is on.
    pub enabled: bool,
    /// True when it will be on after the next reset; absent where no change is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<bool>,
    /// The devices that there are, by profile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["profile"]
    ))]
    pub devices: Vec<MigDevices>,
}

/// MIG devices of one profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigDevices {
    /// The profile, e.g. `3g.40gb`.
    pub profile: String,
    /// How many there are.
    pub count: i32,
}

/// One extended resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its name, e.g. `nvidia.com/gpu`.
    pub name: String,
    /// How many devices it has.
    pub capacity: i32,
    /// How many of them are well, and known to the kubelet.
    pub allocatable: i32,
}

#[cfg(test)]
mod tests {
    use kube::{CustomResourceExt as _, Resource as _};

    use super::*;

    #[test]
    fn the_group_is_the_one_of_the_project() {
        assert_eq!(GpuNode::group(&()), pitcrew_core::API_GROUP);
        assert_eq!(
            GpuNode::crd_name(),
            format!("gpunodes.{}", pitcrew_core::API_GROUP)
        );
    }

    /// Server-side apply merges a list by its keys only where the schema says so.
    #[test]
    fn every_list_has_its_keys() {
        fn lists<'a>(
            at: &str,
            schema: &'a serde_json::Value,
            found: &mut Vec<(String, &'a serde_json::Value)>,
        ) {
            if schema["type"] == "array" {
                found.push((at.to_owned(), schema));
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                lists(&format!("{at}.{name}"), property, found);
            }
            if let Some(items) = schema.get("items") {
                lists(at, items, found);
            }
        }
        let crd = serde_json::to_value(GpuNode::crd()).unwrap();
        let mut found = Vec::new();
        lists(
            "",
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
            &mut found,
        );
        let keys: Vec<(&str, &str)> = found
            .iter()
            .map(|(at, list)| {
                assert_eq!(list["x-kubernetes-list-type"], "map", "{at}");
                (
                    at.as_str(),
                    list["x-kubernetes-list-map-keys"][0].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            keys,
            [
                (".status.conditions", "type"),
                (".status.gpus", "pci"),
                (".status.gpus.mig.devices", "profile"),
                (".status.resources", "name"),
            ]
        );
    }

    /// An API server answers a format that it doesn't know with a warning at every `kubectl apply`.
    #[test]
    fn no_format_is_unknown_to_an_api_server() {
        let text = serde_json::to_string(&GpuNode::crd()).unwrap();
        for part in text.split("\"format\":\"").skip(1) {
            let format = part.split('"').next().unwrap();
            assert!(["int32", "int64", "date-time"].contains(&format), "{format}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_written() {
        let empty = serde_json::to_value(GpuNodeStatus::default()).unwrap();
        assert_eq!(empty, serde_json::json!({}));
    }
}
