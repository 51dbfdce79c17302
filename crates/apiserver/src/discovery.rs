//! What clients ask before they ask for objects: groups, versions, resources.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::status::ApiError;
use crate::store::Store;

/// `/version`: the Kubernetes whose behaviour is followed.
pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": "v1.36.3+pitcrew",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    })
}

/// `/api`
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// Groups and their versions, each group's preferred one first.
fn versions(store: &Store) -> BTreeMap<&str, Vec<&str>> {
    let mut out: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (_, kind) in store.kinds() {
        let versions = out.entry(&kind.resource.group).or_default();
        for version in &kind.resource.versions {
            if !versions.contains(&version.name.as_str()) {
                versions.push(&version.name);
            }
        }
    }
    out
}

fn group(name: &str, versions: &[&str]) -> Value {
    let entries: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": entries, "preferredVersion": entries.first()})
}

/// `/apis`
pub(crate) fn groups(store: &Store) -> Value {
    let groups: Vec<Value> = versions(store)
        .into_iter()
        .filter(|(name, versions)| !name.is_empty() && !versions.is_empty())
        .map(|(name, versions)| group(name, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`
pub(crate) fn one_group(store: &Store, name: &str) -> Result<Value, ApiError> {
    let versions = versions(store);
    let found = versions.get(name).filter(|_| !name.is_empty());
    let mut out = group(name, found.ok_or_else(ApiError::no_such_path)?);
    out["kind"] = json!("APIGroup");
    out["apiVersion"] = json!("v1");
    Ok(out)
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub(crate) fn resources(store: &Store, group: &str, version: &str) -> Result<Value, ApiError> {
    let mut resources = Vec::new();
    for (_, kind) in store.kinds().filter(|(_, kind)| kind.resource.group == group) {
        if let Some(version) = kind.resource.version(version) {
            resources.extend(kind.resource.discovery(version));
        }
    }
    if resources.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}
