//! The kinds that are there from the start, and how their parts merge.
//!
//! List types, map keys and patch keys are those of the types in Kubernetes 1.36 (`+listType`, `+listMapKey`,
//! `patchMergeKey` in its `k8s.io/api`). `Node.spec.taints` is an atomic list there, so it is one here.

use crate::resource::{Column, Resource, Traits, Version};
use crate::schema::Schema;

/// A kind of one version, `v1`.
struct Kind(Resource);

fn kind(group: &str, plural: &str, kind: &str) -> Kind {
    Kind(Resource {
        group: group.to_owned(),
        versions: vec![Version {
            name: "v1".to_owned(),
            topology: Schema::object(&[]),
            openapi: None,
            columns: Vec::new(),
            status: false,
            selectable: Vec::new(),
        }],
        storage: "v1".to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_ascii_lowercase(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        short: Vec::new(),
        categories: Vec::new(),
        traits: Traits::default(),
    })
}

impl Kind {
    fn traits(mut self, set: impl FnOnce(&mut Traits)) -> Self {
        set(&mut self.0.traits);
        self
    }

    fn namespaced(self) -> Self {
        self.traits(|traits| traits.namespaced = true)
    }

    fn counted(self) -> Self {
        self.traits(|traits| traits.generation = true)
    }

    fn versioned(self) -> Self {
        self.traits(|traits| traits.needs_version = true)
    }

    fn made_by_put(self) -> Self {
        self.traits(|traits| traits.put_creates = true)
    }

    fn freely_named(self) -> Self {
        self.traits(|traits| traits.free_names = true)
    }

    fn short(mut self, names: &[&str]) -> Self {
        self.0.short = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    fn version(mut self, set: impl Fn(&mut Version)) -> Self {
        self.0.versions.iter_mut().for_each(set);
        self
    }

    fn status(self) -> Self {
        self.version(|version| version.status = true)
    }

    fn topology(self, topology: &Schema) -> Self {
        self.version(|version| version.topology = topology.clone())
    }

    fn columns(self, columns: &[(&str, &str)]) -> Self {
        self.version(|version| {
            let columns = columns.iter().map(|(name, path)| Column {
                name: (*name).to_owned(),
                kind: "string".to_owned(),
                format: String::new(),
                description: String::new(),
                priority: 0,
                path: (*path).to_owned(),
            });
            version.columns = columns.collect();
        })
    }
}

/// Every kind that is there from the start.
pub(crate) fn resources() -> Vec<Resource> {
    let all = core()
        .into_iter()
        .chain(workloads())
        .chain(cluster())
        .chain(rbac());
    all.map(|kind| kind.0).collect()
}

const EVENT_COLUMNS: [(&str, &str); 4] = [
    ("Type", ".type"),
    ("Reason", ".reason"),
    ("Object", ".involvedObject.name"),
    ("Message", ".message"),
];

fn core() -> Vec<Kind> {
    let data = Schema::object(&[])
        .with("data", Schema::map())
        .with("binaryData", Schema::map())
        .with("stringData", Schema::map());
    let involved = Schema::object(&[]).with("involvedObject", Schema::atomic());
    let secrets = Schema::object(&[]).with("secrets", Schema::list(&["name"], Schema::atomic()));
    vec![
        kind("", "nodes", "Node")
            .traits(|traits| traits.status_on_create = true)
            .short(&["no"])
            .status()
            .topology(&node())
            .columns(&[
                ("Ready", r#".status.conditions[?(@.type=="Ready")].status"#),
                ("Version", ".status.nodeInfo.kubeletVersion"),
            ]),
        kind("", "pods", "Pod")
            .namespaced()
            .counted()
            .short(&["po"])
            .status()
            .topology(&pod())
            .columns(&[("Status", ".status.phase"), ("Node", ".spec.nodeName")]),
        kind("", "events", "Event")
            .namespaced()
            .made_by_put()
            .short(&["ev"])
            .topology(&involved)
            .columns(&EVENT_COLUMNS),
        kind("", "configmaps", "ConfigMap")
            .namespaced()
            .short(&["cm"])
            .topology(&data),
        kind("", "secrets", "Secret")
            .namespaced()
            .topology(&data)
            .columns(&[("Type", ".type")]),
        kind("", "namespaces", "Namespace")
            .short(&["ns"])
            .status()
            .topology(&Schema::object(&[("status", conditions())]))
            .columns(&[("Status", ".status.phase")]),
        kind("", "serviceaccounts", "ServiceAccount")
            .namespaced()
            .short(&["sa"])
            .topology(&secrets),
        kind("", "services", "Service")
            .namespaced()
            .short(&["svc"])
            .status()
            .topology(&service())
            .columns(&[("Cluster-IP", ".spec.clusterIP")]),
    ]
}

fn workloads() -> Vec<Kind> {
    let spec = Schema::new()
        .with("selector", Schema::atomic())
        .with("template", template());
    let workload = |group: &str, plural: &str, name: &str| {
        kind(group, plural, name)
            .namespaced()
            .counted()
            .status()
            .topology(&Schema::object(&[
                ("spec", spec.clone()),
                ("status", conditions()),
            ]))
    };
    vec![
        workload("apps", "daemonsets", "DaemonSet")
            .short(&["ds"])
            .columns(&[
                ("Desired", ".status.desiredNumberScheduled"),
                ("Ready", ".status.numberReady"),
            ]),
        workload("apps", "deployments", "Deployment")
            .short(&["deploy"])
            .columns(&[
                ("Desired", ".spec.replicas"),
                ("Available", ".status.availableReplicas"),
            ]),
        workload("apps", "replicasets", "ReplicaSet").short(&["rs"]),
        kind("apps", "controllerrevisions", "ControllerRevision").namespaced(),
        workload("batch", "jobs", "Job"),
        workload("policy", "poddisruptionbudgets", "PodDisruptionBudget").short(&["pdb"]),
    ]
}

fn cluster() -> Vec<Kind> {
    let runtime_class =
        Schema::object(&[("scheduling", Schema::new().with("nodeSelector", Schema::atomic()))]);
    let actions = Schema::new().with("validationActions", Schema::set());
    let admission = |plural: &str, name: &str| {
        kind("admissionregistration.k8s.io", plural, name)
            .counted()
            .versioned()
    };
    vec![
        kind("events.k8s.io", "events", "Event")
            .namespaced()
            .made_by_put()
            .short(&["ev"])
            .columns(&[
                ("Type", ".type"),
                ("Reason", ".reason"),
                ("Object", ".regarding.name"),
                ("Message", ".note"),
            ]),
        kind("coordination.k8s.io", "leases", "Lease")
            .namespaced()
            .versioned()
            .made_by_put()
            .columns(&[("Holder", ".spec.holderIdentity")]),
        kind("node.k8s.io", "runtimeclasses", "RuntimeClass")
            .topology(&runtime_class)
            .columns(&[("Handler", ".handler")]),
        kind("scheduling.k8s.io", "priorityclasses", "PriorityClass")
            .short(&["pc"])
            .columns(&[("Value", ".value")]),
        admission("validatingadmissionpolicies", "ValidatingAdmissionPolicy")
            .status()
            .topology(&policy()),
        admission(
            "validatingadmissionpolicybindings",
            "ValidatingAdmissionPolicyBinding",
        )
        .topology(&Schema::object(&[("spec", actions)]))
        .columns(&[("PolicyName", ".spec.policyName")]),
        kind(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            "CustomResourceDefinition",
        )
        .counted()
        .versioned()
        .short(&["crd", "crds"])
        .status()
        .topology(&Schema::object(&[("status", conditions())])),
    ]
}

fn rbac() -> Vec<Kind> {
    let role = |plural: &str, name: &str| kind("rbac.authorization.k8s.io", plural, name).freely_named();
    let binding = |plural: &str, name: &str| {
        role(plural, name)
            .topology(&Schema::object(&[("roleRef", Schema::atomic())]))
            .columns(&[("Role", ".roleRef.name")])
    };
    vec![
        role("roles", "Role").namespaced(),
        role("clusterroles", "ClusterRole"),
        binding("rolebindings", "RoleBinding").namespaced(),
        binding("clusterrolebindings", "ClusterRoleBinding"),
    ]
}

fn service() -> Schema {
    // One value to server-side apply, a map to a strategic merge patch, which has no atomic maps.
    let selector = Schema {
        values: Some(Box::new(Schema::new())),
        ..Schema::atomic()
    };
    let spec = Schema::new()
        .with("ports", Schema::list(&["port", "protocol"], Schema::new()))
        .with("selector", selector);
    Schema::object(&[("spec", spec), ("status", conditions())])
}

/// A status with conditions, told apart by their type.
fn conditions() -> Schema {
    Schema::new().with("conditions", Schema::list(&["type"], Schema::new()))
}

fn node() -> Schema {
    Schema::object(&[
        ("spec", Schema::new().with("podCIDRs", Schema::set())),
        (
            "status",
            conditions()
                .with("addresses", Schema::list(&["type"], Schema::new()))
                .with("capacity", Schema::map())
                .with("allocatable", Schema::map()),
        ),
    ])
}

fn pod() -> Schema {
    Schema::object(&[
        ("spec", pod_spec()),
        (
            "status",
            conditions()
                .with("podIPs", Schema::list(&["ip"], Schema::new()))
                .with("hostIPs", Schema::new())
                .with("containerStatuses", Schema::new())
                .with("initContainerStatuses", Schema::new())
                .with("resourceClaimStatuses", Schema::list(&["name"], Schema::new())),
        ),
    ])
}

fn template() -> Schema {
    Schema::object(&[("spec", pod_spec())])
}

fn pod_spec() -> Schema {
    let by_name = || Schema::list(&["name"], Schema::new());
    Schema::new()
        .with("containers", Schema::list(&["name"], container()))
        .with("initContainers", Schema::list(&["name"], container()))
        .with("ephemeralContainers", Schema::list(&["name"], container()))
        .with("volumes", by_name())
        .with("imagePullSecrets", Schema::list(&["name"], Schema::atomic()))
        .with("hostAliases", Schema::list(&["ip"], Schema::new()))
        .with(
            "topologySpreadConstraints",
            Schema::list(
                &["topologyKey", "whenUnsatisfiable"],
                Schema::new().with("labelSelector", Schema::atomic()),
            ),
        )
        .with("resourceClaims", by_name())
        .with("schedulingGates", by_name())
        .with("overhead", Schema::map())
        .with(
            "nodeSelector",
            // One value to server-side apply, a map to a strategic merge patch, which has no atomic maps.
            Schema {
                values: Some(Box::new(Schema::new())),
                ..Schema::atomic()
            },
        )
}

fn container() -> Schema {
    let mut ports = Schema::list(&["containerPort", "protocol"], Schema::new());
    ports.patch_key = Some("containerPort".to_owned());
    let resources = Schema::new()
        .with("limits", Schema::map())
        .with("requests", Schema::map())
        .with(
            "claims",
            Schema {
                patch_key: None,
                ..Schema::list(&["name", "request"], Schema::new())
            },
        );
    Schema::new()
        .with("env", Schema::list(&["name"], env()))
        .with("ports", ports)
        .with("volumeMounts", Schema::list(&["mountPath"], Schema::new()))
        .with("volumeDevices", Schema::list(&["devicePath"], Schema::new()))
        .with("resources", resources)
}

fn env() -> Schema {
    let reference = Schema::atomic();
    Schema::new().with(
        "valueFrom",
        Schema::new()
            .with("configMapKeyRef", reference.clone())
            .with("secretKeyRef", reference.clone())
            .with("fieldRef", reference.clone())
            .with("resourceFieldRef", reference),
    )
}

fn policy() -> Schema {
    Schema::object(&[
        (
            "spec",
            Schema::new()
                .with("matchConditions", Schema::list(&["name"], Schema::new()))
                .with("variables", Schema::list(&["name"], Schema::new())),
        ),
        ("status", conditions()),
    ])
}
