//! `metadata.managedFields`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::FieldSet;

/// How a manager came to own its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// Who owns fields. An applier is the same whatever version it applied; an updater is another one for each version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    pub(crate) operation: Operation,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// The version that its fields are written in.
    pub(crate) api_version: String,
}

impl Manager {
    fn is(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.name == other.name
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As a conflict's message names it.
    pub(crate) fn described(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text = format!("{text} using {}", self.api_version);
        }
        text
    }
}

/// What each manager owns of one object, and since when.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Owners {
    sets: Vec<(Manager, FieldSet)>,
    times: BTreeMap<Manager, String>,
}

impl Owners {
    /// From the metadata's `managedFields`; entries that are none are left out.
    pub(crate) fn read(object: &Value) -> Self {
        let mut out = Self::default();
        let entries = object
            .pointer("/metadata/managedFields")
            .and_then(Value::as_array);
        for entry in entries.into_iter().flatten() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => continue,
            };
            let manager = Manager {
                operation,
                name: text("manager").to_owned(),
                subresource: text("subresource").to_owned(),
                api_version: text("apiVersion").to_owned(),
            };
            let fields = entry.get("fieldsV1").map(FieldSet::from_json).unwrap_or_default();
            out.times.insert(manager.clone(), text("time").to_owned());
            out.set(&manager, fields);
        }
        out
    }

    pub(crate) fn managers(&self) -> impl Iterator<Item = &Manager> {
        self.sets.iter().map(|(manager, _)| manager)
    }

    pub(crate) fn get(&self, manager: &Manager) -> Option<&FieldSet> {
        let found = self.sets.iter().find(|(other, _)| other.is(manager));
        found.map(|(_, fields)| fields)
    }

    /// Since when it owns what it does.
    fn time(&self, manager: &Manager) -> Option<&str> {
        self.times.get(manager).map(String::as_str)
    }

    /// Sets what a manager owns; one that owns nothing is forgotten.
    pub(crate) fn set(&mut self, manager: &Manager, fields: FieldSet) {
        let found = self.sets.iter().position(|(other, _)| other.is(manager));
        match (found, fields.is_empty()) {
            (Some(index), true) => {
                self.sets.remove(index);
            }
            (Some(index), false) => {
                if let Some(entry) = self.sets.get_mut(index) {
                    // An applier's version may be another one than last time.
                    if entry.0 != *manager
                        && let Some(time) = self.times.remove(&entry.0)
                    {
                        self.times.insert(manager.clone(), time);
                    }
                    *entry = (manager.clone(), fields);
                }
            }
            (None, true) => {}
            (None, false) => self.sets.push((manager.clone(), fields)),
        }
    }

    /// Whether nobody owns anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// What anybody owns.
    pub(crate) fn union(&self) -> FieldSet {
        self.sets
            .iter()
            .fold(FieldSet::default(), |all, (_, fields)| all.union(fields))
    }

    /// Whether somebody owns something else than before, whenever that was.
    pub(crate) fn differ(&self, before: &Self) -> bool {
        let of = |owners: &Self| {
            let mut sets: Vec<_> = owners.sets.clone();
            sets.sort_by(|a, b| a.0.cmp(&b.0));
            sets
        };
        of(self) != of(before)
    }

    /// Writes them into the metadata; who owns other fields than before is stamped with the time. Without any, there is
    /// no `managedFields`.
    pub(crate) fn write(&self, before: &Self, now: &str, object: &mut Value) {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return;
        };
        let mut entries: Vec<(Operation, String, &Manager, Value)> = Vec::new();
        for (manager, fields) in &self.sets {
            let fields = fields.without_identity();
            if fields.is_empty() {
                continue;
            }
            let same = before.get(manager).is_some_and(|old| *old == fields);
            let time = match before.time(manager) {
                Some(time) if same && !time.is_empty() => time,
                _ => now,
            };
            let mut entry = Map::new();
            entry.insert("manager".to_owned(), json!(manager.name));
            let operation = match manager.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            };
            entry.insert("operation".to_owned(), json!(operation));
            entry.insert("apiVersion".to_owned(), json!(manager.api_version));
            entry.insert("time".to_owned(), json!(time));
            entry.insert("fieldsType".to_owned(), json!("FieldsV1"));
            entry.insert("fieldsV1".to_owned(), fields.to_json());
            if !manager.subresource.is_empty() {
                entry.insert("subresource".to_owned(), json!(manager.subresource));
            }
            entries.push((manager.operation, time.to_owned(), manager, Value::Object(entry)));
        }
        entries.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            let entries = entries.into_iter().map(|(.., entry)| entry).collect();
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}
