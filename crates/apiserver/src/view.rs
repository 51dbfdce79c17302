//! How objects are shown: in which version, whole, as metadata only, or as the rows of a table.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::events;
use crate::object;
use crate::resource::{Column, Resource, Version};
use crate::status::ApiError;

/// What a client asks for with `Accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Metadata,
    Table { with: Rows },
}

/// What goes along with a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Metadata,
    Object,
    Nothing,
}

impl Form {
    /// The first of what is accepted that there is.
    pub(crate) fn from_accept(accept: &str, include_object: &str) -> Result<Self, ApiError> {
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let as_kind = parts.find_map(|part| part.strip_prefix("as="));
            match (media, as_kind) {
                ("application/json" | "application/*" | "*/*" | "", None) => return Ok(Self::Whole),
                ("application/json", Some("Table")) => {
                    let with = match include_object {
                        "Object" => Rows::Object,
                        "None" => Rows::Nothing,
                        _ => Rows::Metadata,
                    };
                    return Ok(Self::Table { with });
                }
                ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    return Ok(Self::Metadata);
                }
                _ => {}
            }
        }
        Err(ApiError::new(
            406,
            "only the following media types are accepted: application/json",
        ))
    }
}

/// A stored object in a version of its kind.
pub(crate) fn in_version(stored: &Value, resource: &Resource, version: &Version) -> Value {
    if resource.group == "events.k8s.io" {
        return events::shown(stored);
    }
    let mut out = stored.clone();
    let api_version = resource.api_version(&version.name);
    if let Some(object) = out.as_object_mut() {
        object.insert("apiVersion".to_owned(), json!(api_version));
        object.insert("kind".to_owned(), json!(resource.kind));
    }
    out
}

/// An object of some version as it is stored.
pub(crate) fn to_stored(shown: &Value, resource: &Resource) -> Value {
    if resource.group == "events.k8s.io" {
        return events::stored(shown);
    }
    let mut out = shown.clone();
    if let Some(object) = out.as_object_mut() {
        let api_version = resource.api_version(&resource.storage);
        object.insert("apiVersion".to_owned(), json!(api_version));
        object.insert("kind".to_owned(), json!(resource.kind));
    }
    out
}

/// How one request sees objects.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) resource: std::sync::Arc<Resource>,
    pub(crate) version: Version,
    pub(crate) form: Form,
}

impl View {
    /// One object; in a table, the table of it.
    pub(crate) fn object(&self, stored: &Value, now: SystemTime) -> Value {
        match self.form {
            Form::Whole => in_version(stored, &self.resource, &self.version),
            Form::Metadata => partial(stored),
            Form::Table { with } => self.table(&[stored], &json!({}), with, now, true),
        }
    }

    /// As the next event of a watch: only its first table tells the columns.
    pub(crate) fn event(&self, stored: &Value, now: SystemTime, is_first: bool) -> Value {
        match self.form {
            Form::Table { with } => self.table(&[stored], &json!({}), with, now, is_first),
            _ => self.object(stored, now),
        }
    }

    /// A list of objects.
    pub(crate) fn list(&self, stored: &[&Value], metadata: &Value, now: SystemTime) -> Value {
        let api_version = self.resource.api_version(&self.version.name);
        match self.form {
            Form::Table { with } => self.table(stored, metadata, with, now, true),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": stored.iter().map(|object| partial(object)).collect::<Vec<_>>(),
            }),
            Form::Whole => json!({
                "kind": self.resource.list_kind,
                "apiVersion": api_version,
                "metadata": metadata,
                "items": stored
                    .iter()
                    .map(|object| in_version(object, &self.resource, &self.version))
                    .collect::<Vec<_>>(),
            }),
        }
    }

    fn table(
        &self,
        stored: &[&Value],
        metadata: &Value,
        with: Rows,
        now: SystemTime,
        columns: bool,
    ) -> Value {
        let definition = |name: &str, kind: &str, format: &str, description: &str, priority: i64| json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority});
        let mut definitions = vec![definition(
            "Name",
            "string",
            "name",
            "Name must be unique within a namespace.",
            0,
        )];
        for column in &self.version.columns {
            let Column {
                name,
                kind,
                format,
                description,
                priority,
                ..
            } = column;
            definitions.push(definition(name, kind, format, description, *priority));
        }
        let own_age = self.version.columns.iter().any(|column| column.name == "Age");
        if !own_age {
            definitions.push(definition("Age", "string", "", "The time since it was made.", 0));
        }
        let rows: Vec<Value> = stored
            .iter()
            .map(|stored| {
                let shown = in_version(stored, &self.resource, &self.version);
                let mut cells = vec![json!(object::name(stored))];
                cells.extend(
                    self.version
                        .columns
                        .iter()
                        .map(|column| cell(&shown, column, now)),
                );
                if !own_age {
                    cells.push(json!(age(object::text(stored, "creationTimestamp"), now)));
                }
                let object = match with {
                    Rows::Metadata => partial(stored),
                    Rows::Object => shown,
                    Rows::Nothing => Value::Null,
                };
                json!({"cells": cells, "object": object})
            })
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": if columns { Value::Array(definitions) } else { Value::Null },
            "rows": rows,
        })
    }
}

fn partial(stored: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": stored.get("metadata").cloned().unwrap_or_default(),
    })
}

fn cell(object: &Value, column: &Column, now: SystemTime) -> Value {
    let Some(found) = select(object, &column.path) else {
        return Value::Null;
    };
    match found {
        Value::String(text) if column.kind == "date" => json!(age(text, now)),
        Value::Array(_) | Value::Object(_) => json!(found.to_string()),
        other => other.clone(),
    }
}

/// What a simple `JSONPath` finds: fields, `[N]`, `[*]` (the first), `[?(@.field=="value")]`, quoted fields.
fn select<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            let (inside, after) = bracket.split_once(']')?;
            rest = after;
            value = if let Some(test) = inside.strip_prefix("?(@.") {
                let (field, wanted) = test.strip_suffix(')')?.split_once("==")?;
                let wanted = wanted.trim().trim_matches(['"', '\'']);
                let mut items = value.as_array()?.iter();
                items.find(|item| item.get(field.trim()).and_then(Value::as_str) == Some(wanted))?
            } else if let Ok(index) = inside.parse::<usize>() {
                value.get(index)?
            } else if inside == "*" {
                value.get(0)?
            } else {
                value.get(inside.trim_matches(['"', '\'']))?
            };
            continue;
        }
        let bare = rest.strip_prefix('.')?;
        // A dot that is escaped belongs to the field's name.
        let mut end = bare.len();
        let mut escaped = false;
        for (index, c) in bare.char_indices() {
            if !escaped && (c == '.' || c == '[') {
                end = index;
                break;
            }
            escaped = c == '\\' && !escaped;
        }
        let (field, after) = bare.split_at_checked(end)?;
        rest = after;
        if !field.is_empty() {
            value = value.get(field.replace('\\', ""))?;
        }
    }
    Some(value)
}

/// Time since then, as kubectl prints it.
fn age(since: &str, now: SystemTime) -> String {
    let (Ok(since), Ok(now)) = (since.parse::<Timestamp>(), Timestamp::try_from(now)) else {
        return "<unknown>".to_owned();
    };
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_path_of_a_column_finds_its_value() {
        let object = json!({
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "list": [1, 2]},
            "metadata": {"labels": {"a.b/c": "x"}},
        });
        let found = |path: &str| select(&object, path).cloned();
        assert_eq!(
            found(r#".status.conditions[?(@.type=="Ready")].status"#),
            Some(json!("True"))
        );
        assert_eq!(found(".status.list[1]"), Some(json!(2)));
        assert_eq!(found(r".metadata.labels.a\.b/c"), Some(json!("x")));
        assert_eq!(found(".metadata.labels['a.b/c']"), Some(json!("x")));
        for path in [".missing", "x", ".status[", ".status.conditions[?(@.type", "\\"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn ages_are_as_kubectl_prints_them() {
        let start = "2026-01-01T00:00:00Z";
        let at = |seconds| {
            let start: Timestamp = start.parse().unwrap();
            age(
                start.to_string().as_str(),
                SystemTime::from(start) + Duration::from_secs(seconds),
            )
        };
        assert_eq!(at(119), "119s");
        assert_eq!(at(125), "2m5s");
        assert_eq!(at(3_600), "60m");
        assert_eq!(at(12_600), "3h30m");
        assert_eq!(at(200_000), "2d7h");
        assert_eq!(at(864_000), "10d");
        assert_eq!(age("x", SystemTime::UNIX_EPOCH), "<unknown>");
    }

    #[test]
    fn the_first_form_that_is_understood_is_taken() {
        let form = |accept: &str| Form::from_accept(accept, "");
        assert_eq!(form(""), Ok(Form::Whole));
        assert_eq!(
            form("application/vnd.kubernetes.protobuf,application/json"),
            Ok(Form::Whole)
        );
        assert_eq!(
            form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            Ok(Form::Table { with: Rows::Metadata })
        );
        assert_eq!(
            form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Ok(Form::Metadata)
        );
        assert_eq!(form("application/cbor").unwrap_err().code, 406);
    }
}
