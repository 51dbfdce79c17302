//! Patches: JSON patch, JSON merge patch, strategic merge patch.

mod strategic;

pub(crate) use strategic::strategic;

use serde_json::Value;

/// `target` as a JSON merge patch (RFC 7396) makes it.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}

/// Why a JSON patch (RFC 6902) was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JsonPatchError {
    /// It is none.
    Malformed(String),
    /// A `test` of it failed, or a path of it leads nowhere.
    Failed(String),
}

/// Changes `target` as a JSON patch says, or leaves it as it is.
pub(crate) fn json(target: &mut Value, patch: &Value) -> Result<(), JsonPatchError> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| JsonPatchError::Malformed(format!("the body is no JSON patch: {error}")))?;
    json_patch::patch(target, &patch).map_err(|error| JsonPatchError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn a_failed_test_leaves_everything_as_it_was() {
        let mut target = json!({"spec": {"taints": [{"key": "a"}]}});
        let before = target.clone();
        let patch = json!([
            {"op": "add", "path": "/spec/x", "value": 1},
            {"op": "test", "path": "/spec/taints", "value": []},
        ]);
        assert!(matches!(
            json(&mut target, &patch),
            Err(JsonPatchError::Failed(_))
        ));
        assert_eq!(target, before);
        let malformed = json(&mut target, &json!({"op": "add"}));
        assert!(matches!(malformed, Err(JsonPatchError::Malformed(_))));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
            "[a-c]{0,1}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn merged(target: &Value, patch: &Value) -> Value {
        let mut out = target.clone();
        merge(&mut out, patch);
        out
    }

    proptest! {
        #[test]
        fn a_merge_patch_twice_is_as_once(target in value(), patch in value()) {
            let once = merged(&target, &patch);
            prop_assert_eq!(merged(&once, &patch), once);
        }

        #[test]
        fn an_empty_merge_patch_changes_no_object(target in value()) {
            prop_assume!(target.is_object());
            prop_assert_eq!(merged(&target, &json!({})), target);
        }

        #[test]
        fn a_merge_patch_takes_away_exactly_what_it_nulls(target in value(), patch in value()) {
            let out = merged(&target, &patch);
            let (Some(patch), Some(out)) = (patch.as_object(), out.as_object()) else { return Ok(()); };
            for (name, value) in patch {
                prop_assert_eq!(out.contains_key(name), !value.is_null());
            }
            for (name, value) in target.as_object().into_iter().flatten() {
                if !patch.contains_key(name) {
                    prop_assert_eq!(out.get(name), Some(value));
                }
            }
        }
    }
}
