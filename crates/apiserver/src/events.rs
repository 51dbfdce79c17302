//! `Event` has two faces, one object: the core group's and that of `events.k8s.io`. The core one is stored.

use serde_json::{Map, Value, json};

/// The fields whose names differ: in the core group, in `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The stored name of a field that a selector of `events.k8s.io` names.
pub(crate) fn stored_field(field: &str) -> Option<String> {
    let (head, tail) = field
        .split_once('.')
        .map_or((field, None), |(head, tail)| (head, Some(tail)));
    let (core, _) = NAMES.iter().find(|(_, new)| *new == head)?;
    Some(tail.map_or_else(|| (*core).to_owned(), |tail| format!("{core}.{tail}")))
}

/// A stored event as `events.k8s.io` shows it.
pub(crate) fn shown(stored: &Value) -> Value {
    renamed(stored, "events.k8s.io/v1", |name| {
        let found = NAMES.iter().find(|(core, _)| *core == name);
        found.map(|(_, new)| *new)
    })
}

/// An event of `events.k8s.io` as it is stored.
pub(crate) fn stored(shown: &Value) -> Value {
    renamed(shown, "v1", |name| {
        let found = NAMES.iter().find(|(_, new)| *new == name);
        found.map(|(core, _)| *core)
    })
}

fn renamed(event: &Value, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let fields = event.as_object().into_iter().flatten();
    let mut out: Map<String, Value> = fields
        .map(|(field, value)| (name(field).unwrap_or(field).to_owned(), value.clone()))
        .collect();
    out.insert("apiVersion".to_owned(), json!(api_version));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_everything_on_its_way_between_its_two_faces() {
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Node", "name": "n"}, "note": "it came back", "reason": "Back",
            "reportingController": "pitcrew", "deprecatedCount": 3,
        });
        let core = stored(&event);
        assert_eq!(core["involvedObject"]["kind"], "Node");
        assert_eq!(core["message"], "it came back");
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(shown(&core), event);
        assert_eq!(
            stored_field("regarding.name").as_deref(),
            Some("involvedObject.name")
        );
        assert_eq!(stored_field("metadata.name"), None);
    }
}
