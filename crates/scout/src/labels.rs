//! The labels that say that a node has a GPU, and when they are ours to set. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// Field manager of the labels.
pub const MANAGER: &str = "pitcrew-scout";
/// What the agent, and NVIDIA's GPU Operator, know a node with a GPU by.
pub const PRESENT: &str = "nvidia.com/gpu.present";
/// Node Feature Discovery's label for a PCI device of NVIDIA's, which many a workload selects.
pub const PCI_PRESENT: &str = "feature.node.kubernetes.io/pci-10de.present";
/// What the annotations of Node Feature Discovery begin with; it leaves some on every node that it knows.
const NFD: &str = "nfd.node.kubernetes.io/";

/// What of a Node's metadata matters here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    managed_fields: Vec<ManagedFields>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ManagedFields {
    manager: String,
    operation: String,
    fields_v1: Value,
}

impl Metadata {
    /// Labels that are ours.
    fn owned(&self) -> BTreeSet<&str> {
        let ours = |fields: &&ManagedFields| fields.manager == MANAGER && fields.operation == "Apply";
        let labels = self
            .managed_fields
            .iter()
            .filter(ours)
            .filter_map(|fields| fields.fields_v1.pointer("/f:metadata/f:labels")?.as_object());
        let names = labels.flat_map(|labels| labels.keys());
        names.filter_map(|name| name.strip_prefix("f:")).collect()
    }
}

/// The labels to apply, all of ours together; `None` where nothing differs.
///
/// A label that somebody gave another value (`nvidia.com/gpu.present=false` keeps the agent away) stays as it is. Where
/// Node Feature Discovery runs its label is its own, unless it was ours before: to take it away until it is set again
/// would make the operators that follow it end what runs on the node.
pub fn decide(has_gpu: bool, node: &Metadata) -> Option<BTreeMap<&'static str, &'static str>> {
    let owned = node.owned();
    let has_nfd = node.annotations.keys().any(|name| name.starts_with(NFD));
    let mut wanted = BTreeMap::new();
    if has_gpu {
        wanted.insert(PRESENT, "true");
        if !has_nfd || owned.contains(PCI_PRESENT) {
            wanted.insert(PCI_PRESENT, "true");
        }
    }
    wanted.retain(|name, value| node.labels.get(*name).is_none_or(|found| found == value));
    let is_done = owned.iter().copied().eq(wanted.keys().copied())
        && wanted.keys().all(|name| node.labels.contains_key(*name));
    (!is_done).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: &Value, owned: &[&str], annotations: &Value) -> Metadata {
        let fields: serde_json::Map<String, Value> = owned
            .iter()
            .map(|name| (format!("f:{name}"), json!({})))
            .collect();
        serde_json::from_value(json!({
            "name": "n",
            "labels": labels,
            "annotations": annotations,
            "managedFields": [
                {"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}},
                {"manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:metadata": {"f:labels": fields}}},
            ],
        }))
        .unwrap()
    }

    fn decided(has_gpu: bool, node: &Metadata) -> Option<Vec<&'static str>> {
        decide(has_gpu, node).map(|labels| labels.into_keys().collect())
    }

    #[test]
    fn a_node_with_a_gpu_gets_both_labels_and_one_without_nothing() {
        assert_eq!(
            decided(true, &Metadata::default()),
            Some(vec![PCI_PRESENT, PRESENT])
        );
        assert_eq!(decided(false, &Metadata::default()), None);
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let done = node(
            &json!({PRESENT: "true", PCI_PRESENT: "true"}),
            &[PRESENT, PCI_PRESENT],
            &json!({}),
        );
        assert_eq!(decided(true, &done), None);
        let lost = node(&json!({PRESENT: "true"}), &[PRESENT], &json!({}));
        assert_eq!(decided(true, &lost), Some(vec![PCI_PRESENT, PRESENT]));
    }

    #[test]
    fn a_gpu_that_is_gone_takes_its_labels_along_and_no_others() {
        let had = node(
            &json!({PRESENT: "true", PCI_PRESENT: "true"}),
            &[PRESENT, PCI_PRESENT],
            &json!({}),
        );
        assert_eq!(decided(false, &had), Some(vec![]));
        let others = node(&json!({PRESENT: "true", PCI_PRESENT: "true"}), &[], &json!({}));
        assert_eq!(decided(false, &others), None);
    }

    #[test]
    fn a_value_that_somebody_set_stays() {
        let kept_away = node(&json!({PRESENT: "false"}), &[], &json!({}));
        assert_eq!(decided(true, &kept_away), Some(vec![PCI_PRESENT]));
        let after = node(
            &json!({PRESENT: "false", PCI_PRESENT: "true"}),
            &[PCI_PRESENT],
            &json!({}),
        );
        assert_eq!(decided(true, &after), None);
    }

    #[test]
    fn where_node_feature_discovery_runs_its_label_is_its_own_unless_it_was_ours() {
        let nfd = json!({"nfd.node.kubernetes.io/feature-labels": "cpu-model"});
        let fresh = node(&json!({}), &[], &nfd);
        assert_eq!(decided(true, &fresh), Some(vec![PRESENT]));
        let came_later = node(
            &json!({PRESENT: "true", PCI_PRESENT: "true"}),
            &[PRESENT, PCI_PRESENT],
            &nfd,
        );
        assert_eq!(decided(true, &came_later), None);
    }

    #[test]
    fn a_label_that_another_sets_too_becomes_ours_as_well() {
        // As with NVIDIA's GPU Operator: when it goes, the label stays.
        let theirs = node(&json!({PRESENT: "true", PCI_PRESENT: "true"}), &[], &json!({}));
        assert_eq!(decided(true, &theirs), Some(vec![PCI_PRESENT, PRESENT]));
    }
}
