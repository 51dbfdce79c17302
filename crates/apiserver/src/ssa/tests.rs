use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn schema(kind: &str) -> Schema {
    let resources = crate::builtin::resources();
    let found = resources.into_iter().find(|resource| resource.kind == kind);
    found.unwrap().versions.remove(0).topology
}

fn manager(name: &str) -> Manager {
    Manager {
        operation: Operation::Apply,
        name: name.to_owned(),
        subresource: String::new(),
        api_version: "v1".to_owned(),
    }
}

/// A live object and who owns what of it.
#[derive(Default)]
struct Live {
    object: Value,
    owners: Owners,
}

impl Live {
    fn apply(&mut self, name: &str, wanted: &Value, force: bool, schema: &Schema) -> Result<(), ApplyError> {
        let live = if self.object.is_null() {
            json!({})
        } else {
            self.object.clone()
        };
        let (object, owners) = apply(&live, wanted, &self.owners, &manager(name), force, schema)?;
        self.object = object;
        self.owners = owners;
        Ok(())
    }
}

#[test]
fn items_of_a_list_map_belong_to_who_applied_them() {
    let pod = schema("Pod");
    let mut live = Live::default();
    let env = |name: &str, value: &str| json!({"spec": {"containers": [{"name": "main", "env": [{"name": name, "value": value}]}]}});
    live.apply("a", &env("A", "1"), false, &pod).unwrap();
    live.apply("b", &env("B", "2"), false, &pod).unwrap();
    let names = |live: &Live| -> Vec<String> {
        let list = live
            .object
            .pointer("/spec/containers/0/env")
            .and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&live), ["A", "B"]);
    // What `a` no longer applies goes; what `b` applied stays, and so does the container, which it also names.
    live.apply("a", &json!({"metadata": {}}), false, &pod).unwrap();
    assert_eq!(names(&live), ["B"]);
}

#[test]
fn a_conflict_names_the_manager_and_the_path() {
    let pod = schema("Pod");
    let mut live = Live::default();
    let image = |image: &str| json!({"spec": {"containers": [{"name": "main", "image": image}]}});
    live.apply("a", &image("x"), false, &pod).unwrap();
    live.apply("b", &image("x"), false, &pod).unwrap();
    let error = live.apply("b", &image("y"), false, &pod).unwrap_err();
    let ApplyError::Conflicts(conflicts) = error else {
        panic!("it is a conflict");
    };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].manager.name, "a");
    assert_eq!(conflicts[0].path, r#".spec.containers[name="main"].image"#);
    live.apply("b", &image("y"), true, &pod).unwrap();
    // Forced: `a` owns the item still, the image no more.
    let left = live.owners.get(&manager("a")).unwrap().paths();
    assert!(!left.iter().any(|path| path.contains("image")), "{left:?}");
}

#[test]
fn taints_are_one_value() {
    let node = schema("Node");
    let mut live = Live::default();
    let taints = |key: &str| json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
    live.apply("a", &taints("x"), false, &node).unwrap();
    assert!(live.apply("b", &taints("y"), false, &node).is_err());
    live.apply("b", &taints("y"), true, &node).unwrap();
    assert_eq!(live.object["spec"]["taints"][0]["key"], "y");
}

#[test]
fn an_update_owns_what_it_changed_and_parents_that_it_made() {
    let config = schema("ConfigMap");
    let updater = Manager {
        operation: Operation::Update,
        ..manager("kubectl")
    };
    let new = json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "data": {"k": "v"}});
    let owners = update(
        &json!({"metadata": {}}),
        &new,
        &Owners::default(),
        &updater,
        &config,
    );
    assert_eq!(
        owners.get(&updater).unwrap().to_json(),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:data": {".": {}, "f:k": {}},
        })
    );
    let gone = json!({"metadata": {"name": "n"}, "data": {"k": "v"}});
    let owners = update(&new, &gone, &owners, &updater, &config);
    assert_eq!(
        owners.get(&updater).unwrap().to_json(),
        json!({"f:data": {".": {}, "f:k": {}}})
    );
}

#[test]
fn a_list_that_is_applied_again_takes_the_applied_order() {
    let pod = schema("Pod");
    let list = |names: &[&str]| {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"containers": containers}})
    };
    for (live, wanted, merged) in [
        (&["a", "b", "c"][..], &["c", "x"][..], &["a", "b", "c", "x"][..]),
        (&["a", "b"], &["b", "a"], &["b", "a"]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&[], &["a"], &["a"]),
        (&["a"], &[], &["a"]),
    ] {
        let out = merge(&list(live), &list(wanted), &pod).unwrap();
        let names: Vec<&str> = out["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|container| container["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, merged, "{live:?} with {wanted:?}");
    }
}

#[test]
fn two_items_of_one_key_are_refused() {
    let pod = schema("Pod");
    let twice = json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}});
    assert!(matches!(
        Live::default().apply("a", &twice, false, &pod),
        Err(ApplyError::Items(_))
    ));
    let nameless = json!({"spec": {"containers": [{"image": "a"}]}});
    assert!(matches!(
        Live::default().apply("a", &nameless, false, &pod),
        Err(ApplyError::Items(_))
    ));
}

/// What one manager might apply to a pod.
fn configuration() -> impl Strategy<Value = Value> {
    let map = || prop::collection::btree_map("[a-c]", "[xy]", 0..3);
    let env = prop::collection::btree_map("[A-C]", "[12]", 0..3);
    let containers = prop::collection::btree_map("[mn]", (prop::option::of("[pq]"), env), 0..3);
    let finalizers = prop::collection::btree_set("[fg]", 0..3);
    (map(), containers, finalizers, map()).prop_map(|(labels, containers, finalizers, selector)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (image, env))| {
                let env: Vec<Value> = env
                    .into_iter()
                    .map(|(name, value)| json!({"name": name, "value": value}))
                    .collect();
                let mut container = json!({"name": name, "env": env});
                if let Some(image) = image {
                    container["image"] = json!(image);
                }
                container
            })
            .collect();
        json!({
            "metadata": {"labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers, "nodeSelector": selector},
        })
    })
}

/// The values at every leaf that a configuration speaks of.
fn leaves(value: &Value, schema: &Schema) -> Vec<(String, Value)> {
    fn walk(value: &Value, schema: &Schema, path: &str, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(object) if !schema.atomic => {
                for (name, value) in object {
                    walk(value, schema.field(name), &format!("{path}/{name}"), out);
                }
            }
            Value::Array(list) if schema.patch_key.as_deref() == Some("") => {
                out.extend(list.iter().map(|item| (format!("{path}/{item}"), item.clone())));
            }
            Value::Array(list) if schema.patch_key.is_some() => {
                for item in list {
                    walk(item, schema.item(), &format!("{path}/{}", item["name"]), out);
                }
            }
            leaf => out.push((path.to_owned(), leaf.clone())),
        }
    }
    let mut out = Vec::new();
    walk(value, schema, "", &mut out);
    out
}

proptest! {
    #[test]
    fn applying_twice_is_as_once(first in configuration(), second in configuration()) {
        let pod = schema("Pod");
        let mut live = Live::default();
        live.apply("a", &first, true, &pod).unwrap();
        live.apply("b", &second, true, &pod).unwrap();
        let (object, owners) = (live.object.clone(), live.owners.clone());
        live.apply("b", &second, false, &pod).unwrap();
        prop_assert_eq!(&live.object, &object);
        prop_assert!(!live.owners.differ(&owners));
    }

    #[test]
    fn what_is_applied_is_there(first in configuration(), second in configuration()) {
        let pod = schema("Pod");
        let mut live = Live::default();
        live.apply("a", &first, true, &pod).unwrap();
        live.apply("b", &second, true, &pod).unwrap();
        let there = leaves(&live.object, &pod);
        for leaf in leaves(&second, &pod) {
            prop_assert!(there.contains(&leaf), "{:?} is not in {}", leaf, live.object);
        }
    }

    #[test]
    fn no_manager_loses_its_fields_to_another_that_does_not_force(first in configuration(), second in configuration(), third in configuration()) {
        let pod = schema("Pod");
        let mut live = Live::default();
        live.apply("a", &first, true, &pod).unwrap();
        // These may conflict, and change nothing then; else they and their withdrawal leave `a`'s fields alone.
        for wanted in [&second, &third, &json!({"metadata": {}})] {
            let _ = live.apply("b", wanted, false, &pod);
            let there = leaves(&live.object, &pod);
            for leaf in leaves(&first, &pod) {
                prop_assert!(there.contains(&leaf), "{:?} is not in {}", leaf, live.object);
            }
        }
        prop_assert_eq!(live.owners.get(&manager("b")), None);
    }

    #[test]
    fn fields_are_written_and_read_alike(wanted in configuration()) {
        let set = fields_of(&wanted, &schema("Pod")).unwrap();
        prop_assert_eq!(FieldSet::from_json(&set.to_json()), set);
    }

    #[test]
    fn what_nobody_applies_any_more_is_gone(first in configuration()) {
        let pod = schema("Pod");
        let mut live = Live { object: json!({"metadata": {"name": "p"}}), owners: Owners::default() };
        live.apply("a", &first, true, &pod).unwrap();
        live.apply("a", &json!({"metadata": {"name": "p"}}), true, &pod).unwrap();
        let left = Map::from_iter([("metadata".to_owned(), json!({"name": "p"}))]);
        let rest = leaves(&live.object, &pod);
        prop_assert!(rest.iter().all(|(path, _)| path.starts_with("/metadata")), "{} is not {:?}", live.object, left);
    }
}
