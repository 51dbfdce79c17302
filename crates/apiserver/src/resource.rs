//! What kinds of objects there are, and how each behaves.

use serde_json::{Value, json};

use crate::schema::Schema;

/// A column of the table that `kubectl get` prints.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    /// Shown with `-o wide` only where it is not 0.
    pub(crate) priority: i64,
    /// Where in the object: `.status.phase`, `.status.conditions[?(@.type=="Ready")].status`.
    pub(crate) path: String,
}

/// A served version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Version {
    pub(crate) name: String,
    /// How its objects merge.
    pub(crate) topology: Schema,
    /// A custom resource's structural schema.
    pub(crate) openapi: Option<Value>,
    pub(crate) columns: Vec<Column>,
    pub(crate) status: bool,
    pub(crate) selectable: Vec<String>,
}

/// A kind of object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resource {
    /// Empty for the core group.
    pub(crate) group: String,
    /// Served versions, the preferred one first.
    pub(crate) versions: Vec<Version>,
    /// The version that is stored.
    pub(crate) storage: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) traits: Traits,
}

/// How a kind differs from others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a table of independent yes and no")]
pub(crate) struct Traits {
    pub(crate) namespaced: bool,
    /// `metadata.generation` counts changes of the spec.
    pub(crate) generation: bool,
    /// An update without a resourceVersion is refused.
    pub(crate) needs_version: bool,
    /// A PUT makes what is not there.
    pub(crate) put_creates: bool,
    /// What a POST says about the status is kept.
    pub(crate) status_on_create: bool,
    /// Defined by a `CustomResourceDefinition`.
    pub(crate) custom: bool,
    /// Names may hold what a DNS name may not.
    pub(crate) free_names: bool,
}

impl Resource {
    /// `nodes`, `leases.coordination.k8s.io`: as messages name it.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    pub(crate) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The fields that a selector may name, beside the name and the namespace.
    pub(crate) fn selectable(&self, version: &Version) -> Vec<String> {
        let fields: &[&str] = match (self.group.as_str(), self.plural.as_str()) {
            ("", "pods") => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            ("", "nodes") => &["spec.unschedulable"],
            ("", "secrets") => &["type"],
            ("", "namespaces") => &["status.phase"],
            ("", "events") => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            ("events.k8s.io", "events") => &[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingController",
                "type",
            ],
            _ => &[],
        };
        let own = fields.iter().map(|field| (*field).to_owned());
        own.chain(version.selectable.iter().cloned()).collect()
    }

    /// The entries of a discovery list: the resource and its subresources.
    pub(crate) fn discovery(&self, version: &Version) -> Vec<Value> {
        let mut entry = json!({
            "name": self.plural,
            "singularName": self.singular,
            "namespaced": self.traits.namespaced,
            "kind": self.kind,
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        });
        if !self.short.is_empty() {
            entry["shortNames"] = json!(self.short);
        }
        if !self.categories.is_empty() {
            entry["categories"] = json!(self.categories);
        }
        let mut entries = vec![entry];
        if version.status {
            entries.push(json!({
                "name": format!("{}/status", self.plural),
                "singularName": "",
                "namespaced": self.traits.namespaced,
                "kind": self.kind,
                "verbs": ["get", "patch", "update"],
            }));
        }
        if self.group.is_empty() && self.plural == "pods" {
            for (name, group, version, kind) in [
                ("pods/binding", "", "v1", "Binding"),
                ("pods/eviction", "policy", "v1", "Eviction"),
            ] {
                entries.push(json!({
                    "name": name,
                    "singularName": "",
                    "namespaced": true,
                    "group": group,
                    "version": version,
                    "kind": kind,
                    "verbs": ["create"],
                }));
            }
        }
        entries
    }
}
