//! Sets of fields, in memory and as `fieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of paths, as a tree. An element of a path is kept as `fieldsV1` writes it: `f:spec`, `k:{"type":"Ready"}`,
/// `v:"finalizer"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(crate) fn is_member(&self) -> bool {
        self.member
    }

    pub(crate) fn set_member(&mut self) {
        self.member = true;
    }

    pub(crate) fn child(&self, element: &str) -> Option<&FieldSet> {
        self.children.get(element)
    }

    /// Adds what lies below an element, unless there is nothing.
    pub(crate) fn put(&mut self, element: String, child: FieldSet) {
        if !child.is_empty() {
            let merged = match self.children.get(&element) {
                Some(there) => there.union(&child),
                None => child,
            };
            self.children.insert(element, merged);
        }
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(FieldSet::is_empty)
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.member |= other.member;
        for (element, child) in &other.children {
            out.put(element.clone(), child.clone());
        }
        out
    }

    /// What is in this and not in the other.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        let mut out = Self {
            member: self.member && !other.member,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            let left = match other.children.get(element) {
                Some(other) => child.difference(other),
                None => child.clone(),
            };
            out.put(element.clone(), left);
        }
        out
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut out = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            if let Some(other) = other.children.get(element) {
                out.put(element.clone(), child.intersection(other));
            }
        }
        out
    }

    /// With every named field on the way to a member made a member.
    pub(crate) fn with_parents(&self) -> Self {
        let mut out = Self {
            member: self.member,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            let mut child = child.with_parents();
            child.member |= element.starts_with("f:");
            out.children.insert(element.clone(), child);
        }
        out
    }

    /// Without what nobody can own: what names the object, and what the server writes.
    pub(crate) fn without_identity(&self) -> Self {
        const IDENTITY: [&str; 10] = [
            "f:name",
            "f:namespace",
            "f:creationTimestamp",
            "f:selfLink",
            "f:uid",
            "f:generation",
            "f:managedFields",
            "f:resourceVersion",
            "f:deletionTimestamp",
            "f:deletionGracePeriodSeconds",
        ];
        let mut out = Self {
            member: false,
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            match element.as_str() {
                "f:apiVersion" | "f:kind" => {}
                "f:metadata" => {
                    let mut metadata = Self::default();
                    let own = child
                        .children
                        .iter()
                        .filter(|(element, _)| !IDENTITY.contains(&element.as_str()));
                    for (element, child) in own {
                        metadata.put(element.clone(), child.clone());
                    }
                    out.put(element.clone(), metadata);
                }
                _ => out.put(element.clone(), child.clone()),
            }
        }
        out
    }

    /// Every member as people read it: `.spec.containers[name="main"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, path: &mut String, out: &mut Vec<String>) {
        if self.member {
            out.push(path.clone());
        }
        for (element, child) in &self.children {
            let length = path.len();
            path.push_str(&printed(element));
            child.collect(path, out);
            path.truncate(length);
        }
    }

    /// As `fieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        let mut out = Map::new();
        if self.member && !self.children.is_empty() {
            out.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            out.insert(element.clone(), child.to_json());
        }
        Value::Object(out)
    }

    /// From `fieldsV1`; what is not one is an empty set.
    pub(crate) fn from_json(value: &Value) -> Self {
        let mut set = Self::parse(value, 0);
        set.member = false;
        set
    }

    fn parse(value: &Value, depth: usize) -> Self {
        // Deeper than any object: JSON itself stops at 128.
        let Some(object) = value.as_object().filter(|_| depth < 128) else {
            return Self::default();
        };
        let mut out = Self {
            member: object.is_empty() || object.contains_key("."),
            children: BTreeMap::new(),
        };
        for (element, child) in object.iter().filter(|(element, _)| *element != ".") {
            out.put(element.clone(), Self::parse(child, depth + 1));
        }
        out
    }
}

/// `.name`, `[type="Ready"]`, `[="value"]`.
fn printed(element: &str) -> String {
    match element.split_once(':') {
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let mut pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            pairs.sort();
            format!("[{}]", pairs.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some((_, name)) => format!(".{name}"),
        None => format!(".{element}"),
    }
}
