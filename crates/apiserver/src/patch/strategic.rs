//! Strategic merge patch: a merge patch that knows lists' keys, with directives (`$patch`, `$retainKeys`,
//! `$deleteFromPrimitiveList/…`, `$setElementOrder/…`). Built-in kinds only.

use serde_json::{Map, Value};

use crate::schema::Schema;

/// `target` as the patch makes it. The error says what is wrong with the patch.
pub(crate) fn strategic(target: &Value, patch: &Value, schema: &Schema) -> Result<Value, String> {
    let patch = patch
        .as_object()
        .ok_or_else(|| "a strategic merge patch is an object".to_owned())?;
    let empty = Map::new();
    object(target.as_object().unwrap_or(&empty), patch, schema)
        .map(|merged| Value::Object(merged.unwrap_or_default()))
}

/// None where the patch deletes the object.
fn object(
    target: &Map<String, Value>,
    patch: &Map<String, Value>,
    schema: &Schema,
) -> Result<Option<Map<String, Value>>, String> {
    match patch.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let rest = patch.iter().filter(|(name, _)| *name != "$patch");
            return Ok(Some(
                rest.map(|(name, value)| (name.clone(), value.clone())).collect(),
            ));
        }
        Some("delete") => return Ok(None),
        Some(other) => return Err(format!("unknown patch directive {other:?}")),
    }
    let mut out = target.clone();
    if let Some(keep) = patch.get("$retainKeys").and_then(Value::as_array) {
        out.retain(|name, _| keep.iter().any(|kept| kept.as_str() == Some(name)));
    }
    for (name, list) in patch {
        if let Some(field) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = list.as_array().ok_or_else(|| format!("{name} is no list"))?;
            if let Some(values) = out.get_mut(field).and_then(Value::as_array_mut) {
                values.retain(|value| !gone.contains(value));
            }
        }
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let schema = schema.field(name);
        let merged = match (out.get(name), value) {
            (_, Value::Null) => None,
            (there, Value::Object(patch)) => {
                let empty = Map::new();
                let there = there.and_then(Value::as_object).unwrap_or(&empty);
                object(there, patch, schema)?.map(Value::Object)
            }
            (there, Value::Array(patch)) => {
                let there = there.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                Some(Value::Array(items(there, patch, schema)?))
            }
            (_, scalar) => Some(scalar.clone()),
        };
        match merged {
            Some(merged) => out.insert(name.clone(), merged),
            None => out.remove(name),
        };
    }
    for (name, order) in patch {
        if let Some(field) = name.strip_prefix("$setElementOrder/") {
            let order = order.as_array().ok_or_else(|| format!("{name} is no list"))?;
            let live = target.get(field).and_then(Value::as_array);
            let live = live.map_or(&[][..], Vec::as_slice);
            if let Some(values) = out.get_mut(field).and_then(Value::as_array_mut) {
                *values = ordered(values, order, live, schema.field(field));
            }
        }
    }
    Ok(Some(out))
}

fn items(target: &[Value], patch: &[Value], schema: &Schema) -> Result<Vec<Value>, String> {
    let Some(key) = &schema.patch_key else {
        return Ok(patch.to_vec());
    };
    if key.is_empty() {
        let mut out = target.to_vec();
        for value in patch {
            if !out.contains(value) {
                out.push(value.clone());
            }
        }
        return Ok(ordered(&out, patch, target, schema));
    }
    let directive = |item: &Value| item.get("$patch").and_then(Value::as_str).map(str::to_owned);
    if patch
        .iter()
        .any(|item| directive(item).as_deref() == Some("replace"))
    {
        let rest = patch.iter().filter(|item| directive(item).is_none());
        return Ok(rest.cloned().collect());
    }
    let mut out = target.to_vec();
    for item in patch {
        let fields = item
            .as_object()
            .ok_or_else(|| "an item of the list is no object".to_owned())?;
        let value = fields
            .get(key)
            .ok_or_else(|| format!("map: {item} does not contain declared merge key: {key}"))?;
        let found = out.iter().position(|there| there.get(key) == Some(value));
        let there = found.and_then(|index| out.get(index)).and_then(Value::as_object);
        let empty = Map::new();
        let merged = object(there.unwrap_or(&empty), fields, schema.item())?;
        match (found, merged) {
            (Some(index), Some(merged)) => {
                if let Some(there) = out.get_mut(index) {
                    *there = Value::Object(merged);
                }
            }
            (Some(index), None) => {
                out.remove(index);
            }
            (None, Some(merged)) => out.push(Value::Object(merged)),
            (None, None) => {}
        }
    }
    Ok(ordered(&out, patch, target, schema))
}

/// A merged list in its order: items that `order` names in that order, all others in the live one, and between the two
/// kinds the live order where it knows both; else what is named comes first.
fn ordered(merged: &[Value], order: &[Value], live: &[Value], schema: &Schema) -> Vec<Value> {
    let key = schema.patch_key.as_deref().unwrap_or_default();
    let place = |list: &[Value], item: &Value| {
        list.iter().position(|other| {
            if key.is_empty() {
                other == item
            } else {
                other.get(key).is_some() && other.get(key) == item.get(key)
            }
        })
    };
    let (mut named, mut others): (Vec<&Value>, Vec<&Value>) =
        merged.iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(live, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    let mut out = Vec::with_capacity(merged.len());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (Some(other), Some(name)) => match (place(live, other), place(live, name)) {
                (Some(other), Some(name)) => other < name,
                _ => false,
            },
            (other, _) => other.is_some(),
        };
        let next = if other_first { others.next() } else { named.next() };
        match next {
            Some(item) => out.push(item.clone()),
            None => return out,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Schema {
        let resources = crate::builtin::resources();
        let pods = resources.into_iter().find(|resource| resource.plural == "pods");
        pods.unwrap().versions.remove(0).topology
    }

    #[test]
    fn lists_merge_by_their_keys() {
        let pod_json = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}]}, {"name": "b"},
        ]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [
                {"name": "a", "env": [{"name": "F", "value": "2"}]},
                {"name": "b", "$patch": "delete"},
                {"name": "c"},
            ],
        }});
        let out = strategic(&pod_json, &patch, &pod()).unwrap();
        let env = json!([{"name": "F", "value": "2"}, {"name": "E", "value": "1"}]);
        assert_eq!(
            out["spec"]["containers"],
            json!([{"name": "c"}, {"name": "a", "image": "x", "env": env}])
        );
    }

    #[test]
    fn sets_grow_shrink_and_what_has_no_key_is_replaced() {
        let object = json!({
            "metadata": {"finalizers": ["a", "b"]},
            "spec": {"tolerations": [{"key": "x"}], "nodeSelector": {"p": "q"}},
        });
        let patch = json!({
            "metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]},
            "spec": {"tolerations": [{"key": "y"}], "nodeSelector": {"r": "s"}},
        });
        let out = strategic(&object, &patch, &pod()).unwrap();
        assert_eq!(out["metadata"]["finalizers"], json!(["c", "b"]));
        assert_eq!(out["spec"]["tolerations"], json!([{"key": "y"}]));
        assert_eq!(out["spec"]["nodeSelector"], json!({"p": "q", "r": "s"}));
        let replaced = json!({"spec": {"nodeSelector": {"$patch": "replace", "t": "u"}}});
        let out = strategic(&object, &replaced, &pod()).unwrap();
        assert_eq!(out["spec"]["nodeSelector"], json!({"t": "u"}));
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let patch = json!({"spec": {"containers": [{"image": "x"}]}});
        let error = strategic(&json!({}), &patch, &pod()).unwrap_err();
        assert!(error.contains("declared merge key: name"), "{error}");
    }
}
