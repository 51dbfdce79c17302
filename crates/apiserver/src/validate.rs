//! Structural schemas of custom resources: prune, default, validate.
//!
//! Looked at: `type`, `nullable`, `required`, `enum`, `minimum`, `maximum` and their exclusive forms, `multipleOf` of
//! integers, lengths, numbers of items and properties, `x-kubernetes-int-or-string`. Not looked at: `pattern`, `format`,
//! `allOf` and its kin, CEL rules.

use serde_json::{Map, Value};

use crate::status::Problem;

fn is_set(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// The fields that every object has beside those of its schema.
const ROOT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Takes away what the schema has no word for.
pub(crate) fn prune(value: &mut Value, schema: &Value) {
    prune_at(value, schema, true);
}

fn prune_at(value: &mut Value, schema: &Value, is_root: bool) {
    let preserves = is_set(schema, "x-kubernetes-preserve-unknown-fields");
    let properties = schema.get("properties").and_then(Value::as_object);
    match value {
        Value::Object(object) => {
            let embedded = is_root || is_set(schema, "x-kubernetes-embedded-resource");
            let additional = schema.get("additionalProperties");
            object.retain(|name, value| {
                if embedded && ROOT.contains(&name.as_str()) {
                    return true;
                }
                let known = properties.and_then(|properties| properties.get(name));
                if let Some(known) = known {
                    if value.is_null() && !is_set(known, "nullable") {
                        return false;
                    }
                    prune_at(value, known, false);
                    return true;
                }
                match additional {
                    Some(Value::Bool(true)) => true,
                    Some(additional @ Value::Object(_)) => {
                        prune_at(value, additional, false);
                        true
                    }
                    _ => preserves,
                }
            });
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for item in list.iter_mut() {
                    prune_at(item, items, false);
                }
            }
        }
        _ => {}
    }
}

/// Fills in defaults.
pub(crate) fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(object) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, property) in properties.into_iter().flatten() {
                if let Some(filler) = property.get("default")
                    && object.get(name).is_none_or(Value::is_null)
                {
                    object.insert(name.clone(), filler.clone());
                }
                if let Some(value) = object.get_mut(name) {
                    default(value, property);
                }
            }
            if let Some(additional @ Value::Object(_)) = schema.get("additionalProperties") {
                let known =
                    |name: &String| properties.is_some_and(|properties| properties.contains_key(name));
                for (_, value) in object.iter_mut().filter(|(name, _)| !known(name)) {
                    default(value, additional);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for item in list.iter_mut() {
                    default(item, items);
                }
            }
        }
        _ => {}
    }
}

/// What is wrong with a value.
pub(crate) fn problems(value: &Value, schema: &Value) -> Vec<Problem> {
    let mut out = Vec::new();
    // The metadata has rules of its own.
    if let Value::Object(object) = value {
        let mut rest = object.clone();
        rest.remove("metadata");
        check(&Value::Object(rest), schema, "", &mut out);
    }
    out
}

fn check(value: &Value, schema: &Value, path: &str, out: &mut Vec<Problem>) {
    if value.is_null() && is_set(schema, "nullable") {
        return;
    }
    let field = if path.is_empty() { "<nil>" } else { path };
    let kind = schema.get("type").and_then(Value::as_str);
    let fits = match kind {
        _ if is_set(schema, "x-kubernetes-int-or-string") => value.is_string() || is_integer(value),
        Some("string") => value.is_string(),
        Some("integer") => is_integer(value),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        None | Some(_) => true,
    };
    if !fits {
        let wanted = kind.unwrap_or("integer,string");
        out.push(Problem::new(
            field,
            "FieldValueTypeInvalid",
            format!(
                "Invalid value: {:?}: {field} in body must be of type {wanted}: {:?}",
                name_of(value),
                name_of(value)
            ),
        ));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        out.push(Problem::new(
            field,
            "FieldValueNotSupported",
            format!(
                "Unsupported value: {value}: supported values: {}",
                allowed.join(", ")
            ),
        ));
    }
    match value {
        Value::Number(number) => check_number(number, value, schema, field, out),
        Value::String(text) => {
            check_size(text.chars().count(), "Length", value, schema, field, out);
        }
        Value::Array(list) => {
            check_size(list.len(), "Items", value, schema, field, out);
            if let Some(items) = schema.get("items") {
                for (index, item) in list.iter().enumerate() {
                    check(item, items, &format!("{path}[{index}]"), out);
                }
            }
        }
        Value::Object(object) => {
            check_size(object.len(), "Properties", value, schema, field, out);
            check_fields(object, schema, path, out);
        }
        Value::Bool(_) | Value::Null => {}
    }
}

fn check_fields(object: &Map<String, Value>, schema: &Value, path: &str, out: &mut Vec<Problem>) {
    let under = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) && name != "metadata" {
            out.push(Problem::required(under(name)));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties");
    for (name, value) in object {
        let known = properties.and_then(|properties| properties.get(name));
        if let Some(schema) = known.or(additional).filter(|schema| schema.is_object()) {
            check(value, schema, &under(name), out);
        }
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_number(
    number: &serde_json::Number,
    value: &Value,
    schema: &Value,
    field: &str,
    out: &mut Vec<Problem>,
) {
    let Some(number) = number.as_f64() else {
        return;
    };
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    if let Some(minimum) = limit("minimum") {
        let exclusive = is_set(schema, "exclusiveMinimum");
        if number < minimum || (exclusive && number <= minimum) {
            let word = if exclusive {
                "greater than"
            } else {
                "greater than or equal to"
            };
            let why = format!("{field} in body should be {word} {minimum}");
            out.push(Problem::invalid(field, value, &why));
        }
    }
    if let Some(maximum) = limit("maximum") {
        let exclusive = is_set(schema, "exclusiveMaximum");
        if number > maximum || (exclusive && number >= maximum) {
            let word = if exclusive {
                "less than"
            } else {
                "less than or equal to"
            };
            let why = format!("{field} in body should be {word} {maximum}");
            out.push(Problem::invalid(field, value, &why));
        }
    }
    if let Some(step) = schema.get("multipleOf").and_then(Value::as_i64)
        && value
            .as_i64()
            .is_some_and(|number| step > 0 && number % step != 0)
    {
        let why = format!("{field} in body should be a multiple of {step}");
        out.push(Problem::invalid(field, value, &why));
    }
}

fn check_size(size: usize, what: &str, value: &Value, schema: &Value, field: &str, out: &mut Vec<Problem>) {
    let limit = |name: &str| {
        let limit = schema.get(format!("{name}{what}")).and_then(Value::as_u64);
        limit.and_then(|limit| usize::try_from(limit).ok())
    };
    let unit = match what {
        "Length" => "chars long",
        "Items" => "items",
        _ => "properties",
    };
    if let Some(minimum) = limit("min").filter(|minimum| size < *minimum) {
        let why = format!("{field} in body should have at least {minimum} {unit}");
        out.push(Problem::invalid(field, value, &why));
    }
    if let Some(maximum) = limit("max").filter(|maximum| size > *maximum) {
        let why = format!("may not be more than {maximum} {unit}");
        out.push(Problem::invalid(field, value, &why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object", "required": ["spec"],
            "properties": {"spec": {
                "type": "object", "required": ["mode"],
                "properties": {
                    "mode": {"type": "string", "enum": ["on", "off"]},
                    "replicas": {"type": "integer", "minimum": 1, "maximum": 7, "default": 2},
                    "names": {"type": "array", "maxItems": 1, "items": {"type": "string", "minLength": 2}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "port": {"x-kubernetes-int-or-string": true},
                },
            }},
        })
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut object = json!({"kind": "K", "metadata": {"name": "n"}, "extra": 1, "spec": {"mode": "on", "x": 1, "free": {"y": 1}}});
        prune(&mut object, &schema());
        default(&mut object, &schema());
        assert_eq!(
            object,
            json!({"kind": "K", "metadata": {"name": "n"}, "spec": {"mode": "on", "replicas": 2, "free": {"y": 1}}})
        );
        assert_eq!(problems(&object, &schema()), []);
    }

    #[test]
    fn every_broken_rule_is_told_with_its_field() {
        let object = json!({"spec": {"mode": "maybe", "replicas": 9, "names": ["a", "bb"], "port": true}});
        let found = problems(&object, &schema());
        let fields: Vec<&str> = found.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.mode",
                "spec.names",
                "spec.names[0]",
                "spec.port",
                "spec.replicas"
            ]
        );
        assert_eq!(
            problems(&json!({"spec": {}}), &schema())[0].message,
            "Required value"
        );
        assert_eq!(problems(&json!({}), &schema())[0].field, "spec");
    }
}
