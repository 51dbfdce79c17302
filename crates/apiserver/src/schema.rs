//! How the parts of an object merge: which lists are maps by key, which are sets, what is atomic.
//!
//! What is not described merges as the API merges what it has no word about: objects field by field, lists as a whole.

use std::collections::BTreeMap;

use serde_json::Value;

/// A key of a list map, and what an item without it has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) default: Option<Value>,
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Items {
    /// Not at all: the list is one value.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By these fields of theirs.
    Map(Vec<Key>),
}

/// The topology of one value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Schema {
    /// An object that is one value.
    pub(crate) atomic: bool,
    pub(crate) fields: BTreeMap<String, Schema>,
    /// Of every field that `fields` does not name: the object is a map.
    pub(crate) values: Option<Box<Schema>>,
    pub(crate) items: Items,
    pub(crate) item: Option<Box<Schema>>,
    /// How a strategic merge patch merges this list: by the field, or as a set of values where it is empty.
    pub(crate) patch_key: Option<String>,
}

/// No word about a value. It holds nothing and never changes: no state is shared by it.
static UNKNOWN: Schema = Schema::new();

impl Schema {
    pub(crate) const fn new() -> Self {
        Self {
            atomic: false,
            fields: BTreeMap::new(),
            values: None,
            items: Items::Atomic,
            item: None,
            patch_key: None,
        }
    }

    /// The topology of a field.
    pub(crate) fn field(&self, name: &str) -> &Schema {
        self.fields
            .get(name)
            .or(self.values.as_deref())
            .unwrap_or(&UNKNOWN)
    }

    /// Whether the field's name is a key that a person chose, not a field of the type.
    pub(crate) fn is_entry(&self, name: &str) -> bool {
        self.values.is_some() && !self.fields.contains_key(name)
    }

    /// The topology of a list's items.
    pub(crate) fn item(&self) -> &Schema {
        self.item.as_deref().unwrap_or(&UNKNOWN)
    }

    // How built-in types are described.

    pub(crate) fn with(mut self, name: &str, field: Schema) -> Self {
        self.fields.insert(name.to_owned(), field);
        self
    }

    /// A list whose items are told apart by `keys`, a strategic merge patch by the first of them.
    pub(crate) fn list(keys: &[&str], item: Schema) -> Self {
        let keys: Vec<Key> = keys
            .iter()
            .map(|name| Key {
                name: (*name).to_owned(),
                // The only default among the keys of the built-in types.
                default: (*name == "protocol").then(|| Value::from("TCP")),
            })
            .collect();
        Self {
            patch_key: keys.first().map(|key| key.name.clone()),
            items: Items::Map(keys),
            item: Some(Box::new(item)),
            ..Self::new()
        }
    }

    /// A set of values.
    pub(crate) fn set() -> Self {
        Self {
            items: Items::Set,
            patch_key: Some(String::new()),
            ..Self::new()
        }
    }

    pub(crate) fn map() -> Self {
        Self {
            values: Some(Box::new(Self::new())),
            ..Self::new()
        }
    }

    pub(crate) fn atomic() -> Self {
        Self {
            atomic: true,
            ..Self::new()
        }
    }

    /// `metadata` of every object.
    pub(crate) fn metadata() -> Self {
        Self::new()
            .with("labels", Self::map())
            .with("annotations", Self::map())
            .with("finalizers", Self::set())
            .with("ownerReferences", Self::list(&["uid"], Self::atomic()))
    }

    /// A whole object with these parts beside its metadata.
    pub(crate) fn object(parts: &[(&str, Schema)]) -> Self {
        let object = Self::new().with("metadata", Self::metadata());
        parts
            .iter()
            .fold(object, |object, (name, part)| object.with(name, part.clone()))
    }

    /// From a `CustomResourceDefinition`'s structural schema.
    pub(crate) fn from_openapi(schema: &Value) -> Self {
        let text = |name: &str| schema.get(name).and_then(Value::as_str);
        let mut out = Self {
            atomic: text("x-kubernetes-map-type") == Some("atomic"),
            ..Self::new()
        };
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                out.fields.insert(name.clone(), Self::from_openapi(property));
            }
        }
        let preserves = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        out.values = match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => Some(Box::new(Self::from_openapi(values))),
            Some(Value::Bool(true)) => Some(Box::new(Self::new())),
            _ if preserves => Some(Box::new(Self::new())),
            _ => None,
        };
        let items = schema.get("items");
        out.item = items.map(|items| Box::new(Self::from_openapi(items)));
        out.items = match text("x-kubernetes-list-type") {
            Some("set") => Items::Set,
            Some("map") => {
                let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                let default = |name: &str| {
                    let pointer = format!("/properties/{name}/default");
                    items.and_then(|items| items.pointer(&pointer)).cloned()
                };
                let keys = names.into_iter().flatten().filter_map(Value::as_str);
                Items::Map(
                    keys.map(|name| Key {
                        name: name.to_owned(),
                        default: default(name),
                    })
                    .collect(),
                )
            }
            _ => Items::Atomic,
        };
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_structural_schema_says_how_its_lists_merge() {
        let schema = Schema::from_openapi(&json!({
            "type": "object",
            "properties": {
                "conditions": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type", "zone"],
                    "items": {"type": "object", "properties": {"zone": {"type": "string", "default": "a"}}},
                },
                "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "plain": {"type": "array", "items": {"type": "string"}},
                "selector": {"type": "object", "x-kubernetes-map-type": "atomic"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        }));
        let Items::Map(keys) = &schema.field("conditions").items else {
            panic!("it is a list map");
        };
        assert_eq!(keys[0].default, None);
        assert_eq!(keys[1].default, Some(json!("a")));
        assert_eq!(schema.field("names").items, Items::Set);
        assert_eq!(schema.field("plain").items, Items::Atomic);
        assert!(schema.field("selector").atomic);
        assert!(schema.field("labels").is_entry("x"));
        assert!(!schema.is_entry("names"));
        assert_eq!(*schema.field("missing"), Schema::new());
    }
}
