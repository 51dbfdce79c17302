//! Labels that are there, and who wrote them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::MANAGER;

/// Where an object has the labels that we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `metadata.labels`, of a Node.
    Metadata,
    /// `spec.labels`, of a `NodeFeature`.
    Spec,
}

impl Place {
    pub(super) fn parent(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Spec => "spec",
        }
    }
}

/// An object's labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) uid: String,
    /// Kubernetes' counter of changes. 0 where it is no number, which then compares as never older.
    pub(super) revision: u64,
    pub(super) labels: BTreeMap<String, String>,
    /// Who wrote a label, we apart.
    pub(super) others: BTreeMap<String, BTreeSet<String>>,
    /// The labels that we own.
    pub(super) ours: BTreeSet<String>,
}

impl Seen {
    pub(super) fn new(metadata: &ObjectMeta, labels: BTreeMap<String, String>, place: Place) -> Self {
        let mut seen = Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            revision: metadata
                .resource_version
                .as_deref()
                .and_then(|version| version.parse().ok())
                .unwrap_or(0),
            labels,
            ..Self::default()
        };
        for entry in metadata.managed_fields.iter().flatten() {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            let labels = fields
                .and_then(|fields| fields.get(format!("f:{}", place.parent()))?.get("f:labels"))
                .and_then(Value::as_object);
            let keys = labels.into_iter().flat_map(|labels| labels.keys());
            let manager = entry.manager.as_deref().unwrap_or("unknown");
            let apply = entry.operation.as_deref() == Some("Apply");
            for key in keys.filter_map(|key| key.strip_prefix("f:")) {
                if manager == MANAGER && apply {
                    seen.ours.insert(key.to_owned());
                } else if manager != MANAGER {
                    let others = seen.others.entry(key.to_owned()).or_default();
                    others.insert(manager.to_owned());
                }
            }
        }
        seen
    }

    /// Those who wrote a label, we apart.
    pub(super) fn writers(&self, key: &str) -> impl Iterator<Item = &str> {
        self.others.get(key).into_iter().flatten().map(String::as_str)
    }
}
