//! Reading and writing the metadata of an object.

use serde_json::{Map, Value, json};

pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    let metadata = object.get("metadata").and_then(|metadata| metadata.get(field));
    metadata.and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "uid")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

pub(crate) fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("labels")?.as_object()
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

fn list<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    let metadata = object.get("metadata").and_then(|metadata| metadata.get(field));
    metadata.and_then(Value::as_array).into_iter().flatten()
}

pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "finalizers").filter_map(Value::as_str)
}

pub(crate) fn owner_references(object: &Value) -> impl Iterator<Item = &Value> {
    list(object, "ownerReferences")
}

/// The uids of its owners.
pub(crate) fn owners(object: &Value) -> impl Iterator<Item = &str> {
    owner_references(object).filter_map(|owner| owner.get("uid")?.as_str())
}

/// The metadata, made an object where it is none. Nothing where the whole is no object.
pub(crate) fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let object = object.as_object_mut()?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut()
}

/// Sets a field of the metadata; null takes it away.
pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = metadata(object) {
        if value.is_null() {
            metadata.remove(field);
        } else {
            metadata.insert(field.to_owned(), value);
        }
    }
}

/// Adds or takes away a finalizer.
pub(crate) fn set_finalizer(object: &mut Value, finalizer: &str, there: bool) {
    let mut left: Vec<Value> = finalizers(object)
        .filter(|other| *other != finalizer)
        .map(Value::from)
        .collect();
    if there {
        left.push(json!(finalizer));
    }
    let value = if left.is_empty() {
        Value::Null
    } else {
        Value::Array(left)
    };
    set(object, "finalizers", value);
}

/// Takes from `object` a top-level field, or gives it what `from` has.
pub(crate) fn copy_field(object: &mut Value, from: Option<&Value>, field: &str) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    match from.and_then(|from| from.get(field)) {
        Some(value) => {
            object.insert(field.to_owned(), value.clone());
        }
        None => {
            object.remove(field);
        }
    }
}

/// Copies a field of the metadata, or takes it away where `from` has none.
pub(crate) fn copy_metadata(object: &mut Value, from: Option<&Value>, field: &str) {
    let value = from.and_then(|from| from.get("metadata")?.get(field)).cloned();
    set(object, field, value.unwrap_or(Value::Null));
}

/// Takes away every null, as decoding into the API's types does.
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// Takes away what encoding the API's types leaves out: empty lists, and empty maps of the metadata.
pub(crate) fn strip_empty(object: &mut Value, of_metadata_only: bool) {
    if let Some(metadata) = metadata(object) {
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            let value = metadata.get(field);
            let is_empty = value.is_some_and(|value| {
                value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
            });
            if is_empty {
                metadata.remove(field);
            }
        }
    }
    if !of_metadata_only {
        strip_lists(object);
    }
}

fn strip_lists(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
            object.values_mut().for_each(strip_lists);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_lists),
        _ => {}
    }
}

/// Whether anything but the metadata and the status differs.
pub(crate) fn spec_differs(old: &Value, new: &Value) -> bool {
    let parts = |value: &Value| -> Map<String, Value> {
        let object = value.as_object().cloned().unwrap_or_default();
        object
            .into_iter()
            .filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
            .collect()
    };
    parts(old) != parts(new)
}
