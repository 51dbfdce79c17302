//! Kinds that a `CustomResourceDefinition` defines.

use serde_json::{Value, json};

use crate::object;
use crate::resource::{Column, Resource, Traits, Version};
use crate::schema::Schema;
use crate::status::Problem;
use crate::store::Store;

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn names(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// What the API itself fills in.
pub(crate) fn default(crd: &mut Value) {
    let kind = text(crd, "/spec/names/kind").to_owned();
    if let Some(names) = crd.pointer_mut("/spec/names").and_then(Value::as_object_mut) {
        names
            .entry("singular")
            .or_insert_with(|| json!(kind.to_lowercase()));
        names
            .entry("listKind")
            .or_insert_with(|| json!(format!("{kind}List")));
    }
    if let Some(spec) = crd.get_mut("spec").and_then(Value::as_object_mut) {
        spec.entry("conversion")
            .or_insert_with(|| json!({"strategy": "None"}));
    }
}

/// What is wrong with a definition, of what the rest of this relies on.
pub(crate) fn problems(crd: &Value) -> Vec<Problem> {
    let mut out = Vec::new();
    for field in ["group", "scope", "names/plural", "names/kind"] {
        if text(crd, &format!("/spec/{field}")).is_empty() {
            out.push(Problem::required(format!("spec.{}", field.replace('/', "."))));
        }
    }
    let (plural, group) = (text(crd, "/spec/names/plural"), text(crd, "/spec/group"));
    let wanted = format!("{plural}.{group}");
    if out.is_empty() && object::name(crd) != wanted {
        let name = json!(object::name(crd));
        out.push(Problem::invalid(
            "metadata.name",
            &name,
            &format!("must be spec.names.plural+\".\"+spec.group: {wanted:?}"),
        ));
    }
    let scope = text(crd, "/spec/scope");
    if !matches!(scope, "" | "Namespaced" | "Cluster") {
        out.push(Problem::new(
            "spec.scope",
            "FieldValueNotSupported",
            format!("Unsupported value: {scope:?}: supported values: \"Cluster\", \"Namespaced\""),
        ));
    }
    let storage = list(crd, "/spec/versions").filter(|version| version.get("storage") == Some(&json!(true)));
    if storage.count() != 1 {
        let versions = crd.pointer("/spec/versions").cloned().unwrap_or_default();
        out.push(Problem::invalid(
            "spec.versions",
            &versions,
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in list(crd, "/spec/versions").enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            out.push(Problem::new(
                format!("spec.versions[{index}].schema.openAPIV3Schema"),
                "FieldValueRequired",
                "Required value: schemas are required",
            ));
        }
    }
    out
}

/// The status that a definition has once it is served.
pub(crate) fn status(crd: &mut Value, now: &str) {
    let established = crd.pointer("/status/conditions").is_some();
    if !established {
        let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message});
        crd["status"]["conditions"] = json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "InitialNamesAccepted",
                "the initial names have been accepted"
            ),
        ]);
    }
    crd["status"]["acceptedNames"] = crd.pointer("/spec/names").cloned().unwrap_or_default();
    let mut stored = names(crd, "/status/storedVersions");
    let storage = list(crd, "/spec/versions")
        .find(|version| version.get("storage") == Some(&json!(true)))
        .map(|version| text(version, "/name").to_owned());
    if let Some(storage) = storage.filter(|storage| !stored.contains(storage)) {
        stored.push(storage);
    }
    crd["status"]["storedVersions"] = json!(stored);
}

/// Serves what a definition defines.
pub(crate) fn register(store: &mut Store, crd: &Value) {
    let served = |version: &&Value| version.get("served") != Some(&json!(false));
    let mut versions: Vec<Version> = list(crd, "/spec/versions").filter(served).map(version).collect();
    versions.sort_by_key(|version| std::cmp::Reverse(priority(&version.name)));
    let storage = list(crd, "/spec/versions").find(|version| version.get("storage") == Some(&json!(true)));
    let resource = Resource {
        group: text(crd, "/spec/group").to_owned(),
        storage: storage
            .map(|version| text(version, "/name"))
            .unwrap_or_default()
            .to_owned(),
        versions,
        plural: text(crd, "/spec/names/plural").to_owned(),
        singular: text(crd, "/spec/names/singular").to_owned(),
        kind: text(crd, "/spec/names/kind").to_owned(),
        list_kind: text(crd, "/spec/names/listKind").to_owned(),
        short: names(crd, "/spec/names/shortNames"),
        categories: names(crd, "/spec/names/categories"),
        traits: Traits {
            namespaced: text(crd, "/spec/scope") == "Namespaced",
            generation: true,
            needs_version: true,
            custom: true,
            ..Traits::default()
        },
    };
    let taken = store.kind(&resource.qualified());
    if taken.is_none_or(|kind| kind.resource.traits.custom) {
        store.register(resource);
    }
}

/// Serves it no longer.
pub(crate) fn forget(store: &mut Store, crd: &Value) {
    let id = object::name(crd).to_owned();
    if store.kind(&id).is_some_and(|kind| kind.resource.traits.custom) {
        store.unregister(&id);
    }
}

fn version(version: &Value) -> Version {
    let openapi = version
        .pointer("/schema/openAPIV3Schema")
        .cloned()
        .unwrap_or_default();
    let columns = list(version, "/additionalPrinterColumns").map(|column| Column {
        name: text(column, "/name").to_owned(),
        kind: text(column, "/type").to_owned(),
        format: text(column, "/format").to_owned(),
        description: text(column, "/description").to_owned(),
        priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
        path: text(column, "/jsonPath").to_owned(),
    });
    let selectable = list(version, "/selectableFields").map(|field| {
        let path = text(field, "/jsonPath");
        path.strip_prefix('.').unwrap_or(path).to_owned()
    });
    let mut topology = Schema::from_openapi(&openapi);
    topology.fields.insert("metadata".to_owned(), Schema::metadata());
    Version {
        name: text(version, "/name").to_owned(),
        topology,
        columns: columns.collect(),
        status: version.pointer("/subresources/status").is_some(),
        selectable: selectable.collect(),
        openapi: Some(openapi),
    }
}

/// Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1, then anything else.
fn priority(name: &str) -> (u8, u32, u32) {
    let parse = || {
        let rest = name.strip_prefix('v')?;
        for (stage, word) in [(2, "beta"), (1, "alpha")] {
            if let Some((major, minor)) = rest.split_once(word) {
                return Some((stage, major.parse().ok()?, minor.parse().ok()?));
            }
        }
        Some((3, rest.parse().ok()?, 0))
    };
    parse().unwrap_or((0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_kubernetes_order() {
        let mut names = ["v1alpha1", "foo", "v1", "v1beta1", "v10", "v1beta2"];
        names.sort_by_key(|name| std::cmp::Reverse(priority(name)));
        assert_eq!(names, ["v10", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
