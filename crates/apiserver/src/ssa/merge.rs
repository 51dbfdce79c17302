//! Merging, comparing and cutting values by their topology.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::FieldSet;
use crate::schema::{Items, Schema};

/// A list's items by the element of a path that names each, in their order.
type Named<'a> = Vec<(String, &'a Value)>;

/// Names the items of a list map or a set. The error says what can't be told apart.
fn named<'a>(list: &'a [Value], schema: &Schema) -> Result<Option<Named<'a>>, String> {
    let mut out: Named<'a> = Vec::new();
    for item in list {
        let name = match &schema.items {
            Items::Atomic => return Ok(None),
            Items::Set => format!("v:{item}"),
            Items::Map(keys) => {
                let mut pairs = BTreeMap::new();
                for key in keys {
                    match item.get(&key.name).or(key.default.as_ref()) {
                        Some(value) if !value.is_null() => pairs.insert(&key.name, value),
                        // A key that is absent, and has no default, is part of the name by its absence.
                        _ if keys.len() > 1 => None,
                        _ => {
                            return Err(format!(
                                "associative list with keys has an element that omits key field {:?} (and doesn't have default value)",
                                key.name
                            ));
                        }
                    };
                }
                let Ok(text) = serde_json::to_string(&pairs) else {
                    return Err("a key can't be written".to_owned());
                };
                format!("k:{text}")
            }
        };
        if out.iter().any(|(other, _)| *other == name) {
            return Err(format!("duplicate entries for key [{}]", &name[2..]));
        }
        out.push((name, item));
    }
    Ok(Some(out))
}

/// As [`named`], where a list that can't be told apart is one value: what is stored may be one.
fn named_or_atomic<'a>(list: &'a [Value], schema: &Schema) -> Option<Named<'a>> {
    named(list, schema).unwrap_or(None)
}

/// The fields that a configuration speaks about.
pub(crate) fn fields_of(value: &Value, schema: &Schema) -> Result<FieldSet, String> {
    let mut out = FieldSet::default();
    match value {
        Value::Object(object) if !schema.atomic => {
            for (name, value) in object {
                let at = |error: String| format!(".{name}: {error}");
                let mut child = fields_of(value, schema.field(name)).map_err(at)?;
                let is_empty = value.as_object().is_some_and(Map::is_empty);
                if value.is_null() || is_empty || schema.is_entry(name) {
                    child.set_member();
                }
                out.put(format!("f:{name}"), child);
            }
        }
        Value::Array(list) => match named(list, schema)? {
            None => out.set_member(),
            Some(items) => {
                for (name, item) in items {
                    let mut child = fields_of(item, schema.item())?;
                    child.set_member();
                    out.put(name, child);
                }
            }
        },
        _ => out.set_member(),
    }
    Ok(out)
}

/// `live` with what `wanted` says.
pub(crate) fn merge(live: &Value, wanted: &Value, schema: &Schema) -> Result<Value, String> {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) if !schema.atomic => {
            let mut out = live.clone();
            for (name, wanted) in wanted {
                let schema = schema.field(name);
                let merged = match live.get(name) {
                    Some(live) => merge(live, wanted, schema).map_err(|error| format!(".{name}: {error}"))?,
                    None => wanted.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Ok(Value::Object(out))
        }
        (Value::Array(live), Value::Array(wanted_list)) => {
            let (Some(live), Some(wanted)) = (named_or_atomic(live, schema), named(wanted_list, schema)?)
            else {
                return Ok(wanted.clone());
            };
            merge_lists(&live, &wanted, schema.item()).map(Value::Array)
        }
        _ => Ok(wanted.clone()),
    }
}

/// The wanted items in the wanted order, with the live ones that are not wanted where they stood between them.
///
/// Both lists are walked side by side, as structured-merge-diff does: a live item that is wanted too waits for its turn
/// in the wanted order, and is passed over where another one is next.
fn merge_lists(live: &Named<'_>, wanted: &Named<'_>, schema: &Schema) -> Result<Vec<Value>, String> {
    let find = |list: &Named<'_>, name: &str| list.iter().position(|(other, _)| other == name);
    let mut shared = wanted
        .iter()
        .map(|(name, _)| name)
        .filter(|name| find(live, name).is_some())
        .peekable();
    let mut out = Vec::new();
    let (mut lives, mut wants) = (live.iter().peekable(), wanted.iter().enumerate().peekable());
    loop {
        if let Some((name, item)) = lives.peek() {
            match (find(wanted, name), wants.peek()) {
                (None, _) => {
                    out.push((*item).clone());
                    lives.next();
                    continue;
                }
                // It is next in both: it is taken below, from both.
                (Some(index), Some((next, _))) if index == *next => {
                    lives.next();
                }
                // It is not the next of those that are in both, or has been taken.
                (Some(index), Some((next, _))) if index < *next || shared.peek() != Some(&name) => {
                    lives.next();
                    continue;
                }
                (Some(_), Some(_)) => {}
                (Some(_), None) => {
                    lives.next();
                    continue;
                }
            }
        }
        let Some((_, (name, item))) = wants.next() else {
            return Ok(out);
        };
        if shared.peek() == Some(&name) {
            shared.next();
        }
        let there = find(live, name).and_then(|index| live.get(index));
        out.push(match there {
            Some((_, there)) => merge(there, item, schema)?,
            None => (*item).clone(),
        });
    }
}

/// `value` without the members of `set`. A list or an object that this empties goes too.
pub(crate) fn remove(value: &Value, set: &FieldSet, schema: &Schema) -> Value {
    match value {
        Value::Object(object) if !schema.atomic => {
            let mut out = Map::new();
            for (name, value) in object {
                match set.child(&format!("f:{name}")) {
                    None => {
                        out.insert(name.clone(), value.clone());
                    }
                    Some(child) if child.is_member() => {}
                    Some(child) => {
                        let left = remove(value, child, schema.field(name));
                        if !emptied(value, &left) {
                            out.insert(name.clone(), left);
                        }
                    }
                }
            }
            Value::Object(out)
        }
        Value::Array(list) => {
            let Some(items) = named_or_atomic(list, schema) else {
                return value.clone();
            };
            let left = items
                .into_iter()
                .filter_map(|(name, item)| match set.child(&name) {
                    None => Some(item.clone()),
                    Some(child) if child.is_member() => None,
                    Some(child) => Some(remove(item, child, schema.item())),
                });
            Value::Array(left.collect())
        }
        _ => value.clone(),
    }
}

fn emptied(before: &Value, after: &Value) -> bool {
    let length = |value: &Value| match value {
        Value::Array(list) => list.len(),
        Value::Object(object) => object.len(),
        _ => 1,
    };
    length(before) > 0 && length(after) == 0
}

/// What differs between two values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) removed: FieldSet,
}

impl Comparison {
    fn put(&mut self, element: &str, child: Self) {
        self.added.put(element.to_owned(), child.added);
        self.modified.put(element.to_owned(), child.modified);
        self.removed.put(element.to_owned(), child.removed);
    }
}

/// What changed from `old` to `new`.
pub(crate) fn compare(old: &Value, new: &Value, schema: &Schema) -> Comparison {
    let mut out = Comparison::default();
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if !schema.atomic => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(added) {
                let child = side(old.get(name), new.get(name), schema.field(name));
                out.put(&format!("f:{name}"), child);
            }
        }
        (Value::Array(old_list), Value::Array(new_list)) => {
            let both = (
                named_or_atomic(old_list, schema),
                named_or_atomic(new_list, schema),
            );
            let (Some(old), Some(new)) = both else {
                if old_list != new_list {
                    out.modified.set_member();
                }
                return out;
            };
            let find = |list: &Named<'_>, name: &str| {
                let found = list.iter().find(|(other, _)| other == name);
                found.map(|(_, item)| (*item).clone())
            };
            let added = new.iter().filter(|(name, _)| find(&old, name).is_none());
            for (name, _) in old.iter().chain(added) {
                let (old, new) = (find(&old, name), find(&new, name));
                out.put(name, side(old.as_ref(), new.as_ref(), schema.item()));
            }
        }
        _ if old != new => out.modified.set_member(),
        _ => {}
    }
    out
}

/// One field or item, which may be on one side only.
fn side(old: Option<&Value>, new: Option<&Value>, schema: &Schema) -> Comparison {
    // A list or an object that is there is walked against an empty one of its kind.
    let blank = |value: &Value| match value {
        Value::Object(_) if !schema.atomic => Value::Object(Map::new()),
        Value::Array(list) if named_or_atomic(list, schema).is_some() => Value::Array(Vec::new()),
        other => other.clone(),
    };
    match (old, new) {
        (None, Some(new)) => {
            let mut out = compare(&blank(new), new, schema);
            out.added.set_member();
            out
        }
        (Some(old), None) => {
            let mut out = compare(old, &blank(old), schema);
            out.removed.set_member();
            out
        }
        (Some(old), Some(new)) => compare(old, new, schema),
        (None, None) => Comparison::default(),
    }
}
