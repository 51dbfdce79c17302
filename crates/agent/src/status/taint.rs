//! The start-up taint: whoever sets a node up keeps pods away with it until the node is ready. Pure.

use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};

/// The JSON patch that takes a taint off a node, whatever its effect; `None` where it isn't there.
///
/// `spec.taints` is one value to server-side apply, so that two who apply it would take each other's taints away. Each
/// removal is preceded by a test of what is removed: had somebody changed the list meanwhile, nothing happens.
pub(super) fn lift(node: &Node, key: &str) -> Option<Value> {
    let taints = node.spec.as_ref()?.taints.as_deref()?;
    let mut operations = Vec::new();
    // From the end, so that positions stay what they are.
    for (at, taint) in taints.iter().enumerate().rev().filter(|(_, it)| it.key == key) {
        let path = format!("/spec/taints/{at}");
        operations.push(json!({"op": "test", "path": path, "value": value(taint)}));
        operations.push(json!({"op": "remove", "path": path}));
    }
    (!operations.is_empty()).then_some(Value::Array(operations))
}

fn value(taint: &Taint) -> Value {
    // A taint is a plain structure: it can always be written.
    serde_json::to_value(taint).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(taints: &Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints}})).unwrap()
    }

    #[test]
    fn only_the_taint_of_this_key_is_lifted_with_every_effect() {
        let node = node(&json!([
            {"key": "a", "effect": "NoSchedule"},
            {"key": "k", "effect": "NoSchedule"},
            {"key": "b", "effect": "NoExecute", "value": "x"},
            {"key": "k", "effect": "NoExecute", "value": "y"},
        ]));
        assert_eq!(
            lift(&node, "k").unwrap(),
            json!([
                {"op": "test", "path": "/spec/taints/3", "value": {"key": "k", "effect": "NoExecute", "value": "y"}},
                {"op": "remove", "path": "/spec/taints/3"},
                {"op": "test", "path": "/spec/taints/1", "value": {"key": "k", "effect": "NoSchedule"}},
                {"op": "remove", "path": "/spec/taints/1"},
            ])
        );
    }

    #[test]
    fn a_node_without_it_is_left_alone() {
        assert_eq!(lift(&Node::default(), "k"), None);
        assert_eq!(lift(&node(&json!([])), "k"), None);
        assert_eq!(
            lift(&node(&json!([{"key": "kk", "effect": "NoSchedule"}])), "k"),
            None
        );
    }
}
