//! Server-side apply.

use std::pin::pin;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use serde_json::{Value, json};

use super::{Cluster, config_map, json_of, refused};

fn by(manager: &str) -> PatchParams {
    PatchParams::apply(manager)
}

fn wanted(data: &Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}))
}

/// The first apply makes the object, the second changes nothing.
pub async fn an_apply_makes_and_keeps(cluster: Cluster) {
    let maps = cluster.config_maps();
    let dry = by("one").dry_run();
    maps.patch("a", &dry, &wanted(&json!({"k": "v"})))
        .await
        .expect("it would be made");
    assert_eq!(refused(maps.get("a").await).code, 404);
    let made = maps
        .patch("a", &by("one"), &wanted(&json!({"k": "v"})))
        .await
        .expect("made");
    let entries = made.metadata.managed_fields.clone().expect("managed fields");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].manager.as_deref(), Some("one"));
    assert_eq!(entries[0].operation.as_deref(), Some("Apply"));
    assert_eq!(json_of(&entries[0].fields_v1), json!({"f:data": {"f:k": {}}}));
    let again = maps
        .patch("a", &by("one"), &wanted(&json!({"k": "v"})))
        .await
        .expect("applied");
    assert_eq!(again, made);
    cluster.end().await;
}

/// 409, with the manager and the path; force takes the field.
pub async fn a_conflict_tells_who_owns_what(cluster: Cluster) {
    let maps = cluster.config_maps();
    maps.patch("a", &by("one"), &wanted(&json!({"k": "v", "l": "v"})))
        .await
        .expect("made");
    let status = refused(maps.patch("a", &by("two"), &wanted(&json!({"k": "w"}))).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.message,
        r#"Apply failed with 1 conflict: conflict with "one": .data.k"#
    );
    let details = status.details.expect("details");
    assert_eq!(details.causes[0].field, ".data.k");
    assert_eq!(details.causes[0].reason, "FieldManagerConflict");
    assert_eq!(details.causes[0].message, r#"conflict with "one""#);
    let both = refused(
        maps.patch("a", &by("two"), &wanted(&json!({"k": "w", "l": "w"})))
            .await,
    );
    assert_eq!(
        both.message,
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.k\n- .data.l"
    );
    // The same value is no conflict: both own it.
    maps.patch("a", &by("three"), &wanted(&json!({"l": "v"})))
        .await
        .expect("shared");
    let forced = maps
        .patch("a", &by("two").force(), &wanted(&json!({"k": "w"})))
        .await
        .expect("forced");
    assert_eq!(json_of(&forced)["data"], json!({"k": "w", "l": "v"}));
    let status = refused(maps.patch("a", &by("one"), &wanted(&json!({"k": "v"}))).await);
    assert_eq!(
        status.message,
        r#"Apply failed with 1 conflict: conflict with "two": .data.k"#
    );
    cluster.end().await;
}

/// Unless somebody else owns it.
pub async fn what_is_no_longer_applied_goes(cluster: Cluster) {
    let maps = cluster.config_maps();
    maps.patch("a", &by("one"), &wanted(&json!({"k": "v", "l": "v", "m": "v"})))
        .await
        .expect("made");
    maps.patch("a", &by("two"), &wanted(&json!({"l": "v"})))
        .await
        .expect("shared");
    let patch = json!({"data": {"n": "v"}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("patched");
    let applied = maps
        .patch("a", &by("one"), &wanted(&json!({"m": "v"})))
        .await
        .expect("applied");
    assert_eq!(json_of(&applied)["data"], json!({"l": "v", "m": "v", "n": "v"}));
    let gone = maps
        .patch("a", &by("two"), &wanted(&json!({})))
        .await
        .expect("applied");
    assert_eq!(json_of(&gone)["data"], json!({"m": "v", "n": "v"}));
    let managers: Vec<Option<String>> = gone
        .metadata
        .managed_fields
        .unwrap_or_default()
        .into_iter()
        .map(|entry| entry.manager)
        .collect();
    assert!(managers.contains(&Some("one".to_owned())), "{managers:?}");
    cluster.end().await;
}

fn deployment(containers: &Value) -> Patch<Value> {
    let labels = json!({"app": "a"});
    Patch::Apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {
            "replicas": 0, "paused": true, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }))
}

fn containers(deployment: &Deployment) -> Value {
    json_of(deployment)["spec"]["template"]["spec"]["containers"].clone()
}

/// Containers by name, environment by name, ports by number and protocol.
pub async fn two_appliers_share_lists_by_key(cluster: Cluster) {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let one = json!([{
        "name": "main", "image": "x",
        "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}],
    }]);
    deployments
        .patch("a", &by("one"), &deployment(&one))
        .await
        .expect("made");
    let two = json!([
        {"name": "main", "env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 80, "protocol": "UDP"}]},
        {"name": "side", "image": "y"},
    ]);
    let both = deployments
        .patch("a", &by("two"), &deployment(&two))
        .await
        .expect("applied");
    let list = containers(&both);
    assert_eq!(list[0]["image"], "x");
    assert_eq!(
        list[0]["env"],
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])
    );
    assert_eq!(list[0]["ports"].as_array().map(Vec::len), Some(2));
    assert_eq!(list[1]["name"], "side");
    // The other one's item is a conflict.
    let taken = json!([{"name": "main", "image": "x", "env": [{"name": "A", "value": "9"}]}]);
    let status = refused(deployments.patch("a", &by("two"), &deployment(&taken)).await);
    assert_eq!(
        status.message,
        r#"Apply failed with 1 conflict: conflict with "one": .spec.template.spec.containers[name="main"].env[name="A"].value"#
    );
    // What `two` gives up goes, item by item; `main` stays, as `one` applied it.
    let less = json!([{"name": "main"}]);
    let left = containers(
        &deployments
            .patch("a", &by("two"), &deployment(&less))
            .await
            .expect("applied"),
    );
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    assert_eq!(left[0]["env"], json!([{"name": "A", "value": "1"}]));
    assert_eq!(left[0]["ports"].as_array().map(Vec::len), Some(1));
    // Two items of one key can't be told apart.
    let twice = json!([{"name": "main", "image": "x"}, {"name": "main", "image": "y"}]);
    assert!(
        deployments
            .patch("a", &by("two"), &deployment(&twice))
            .await
            .is_err()
    );
    cluster.end().await;
}

/// What is applied keeps its order, and what others own keeps its place.
pub async fn an_applied_list_takes_its_order(cluster: Cluster) {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let list = |names: &[&str]| {
        let list = names.iter().map(|name| json!({"name": name, "image": "x"}));
        Value::Array(list.collect())
    };
    let mut index = 0;
    for (live, applied, merged) in [
        (&["a", "b", "c"][..], &["c", "x"][..], "a b c x"),
        (&["a", "b"], &["b", "a"], "b a"),
        (&["a", "b", "c"], &["c", "a"], "b c a"),
        (&["a", "b", "c"], &["x", "b", "y"], "a x b c y"),
        (&["a", "b", "c", "d"], &["d", "b"], "a c d b"),
        (&["a", "b", "c", "d"], &["b", "x", "a"], "b c d x a"),
        (&["a", "b", "c", "d", "e"], &["y", "d", "x", "b"], "a c y d e x b"),
    ] {
        index += 1;
        let name = format!("d{index}");
        let named = |patch: Patch<Value>| match patch {
            Patch::Apply(mut value) => {
                value["metadata"]["name"] = json!(name);
                Patch::Apply(value)
            }
            other => other,
        };
        let first = named(deployment(&list(live)));
        deployments.patch(&name, &by("one"), &first).await.expect("made");
        let second = named(deployment(&list(applied)));
        let out = deployments
            .patch(&name, &by("two"), &second)
            .await
            .expect("applied");
        let order: Vec<String> = containers(&out)
            .as_array()
            .expect("a list")
            .iter()
            .map(|container| container["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(order.join(" "), merged, "{live:?} with {applied:?}");
    }
    cluster.end().await;
}

/// `kubectl edit` on what somebody applied.
pub async fn an_update_takes_what_it_changes_from_an_applier(cluster: Cluster) {
    let maps = cluster.config_maps();
    maps.patch("a", &by("one"), &wanted(&json!({"k": "v", "l": "v"})))
        .await
        .expect("made");
    let params = PatchParams {
        field_manager: Some("editor".to_owned()),
        ..PatchParams::default()
    };
    let patch = json!({"data": {"k": "edited"}});
    let edited = maps
        .patch("a", &params, &Patch::Merge(&patch))
        .await
        .expect("patched");
    let entries = edited.metadata.managed_fields.expect("managed fields");
    let editor = entries
        .iter()
        .find(|entry| entry.manager.as_deref() == Some("editor"));
    let editor = editor.expect("the editor owns something");
    assert_eq!(editor.operation.as_deref(), Some("Update"));
    assert_eq!(json_of(&editor.fields_v1), json!({"f:data": {"f:k": {}}}));
    let status = refused(
        maps.patch("a", &by("one"), &wanted(&json!({"k": "v", "l": "v"})))
            .await,
    );
    assert_eq!(status.code, 409);
    assert!(
        status
            .message
            .starts_with(r#"Apply failed with 1 conflict: conflict with "editor" using v1"#)
            && status.message.ends_with(": .data.k"),
        "{}",
        status.message
    );
    // Not applying it is giving it up: the editor's value stays.
    let left = maps
        .patch("a", &by("one"), &wanted(&json!({"l": "v"})))
        .await
        .expect("applied");
    assert_eq!(json_of(&left)["data"], json!({"k": "edited", "l": "v"}));
    cluster.end().await;
}

/// The same manager owns the spec by one entry, the status by another.
pub async fn an_apply_of_status_owns_status_only(cluster: Cluster) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let name = cluster.namespace.clone();
    let of = |rest: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        for (field, value) in rest.as_object().into_iter().flatten() {
            object[field] = value.clone();
        }
        Patch::Apply(object)
    };
    let spec = of(json!({"spec": {"providerID": "p"}, "status": {"phase": "Running"}}));
    nodes.patch(&name, &by("agent"), &spec).await.expect("made");
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Test"});
    let status = |kind: &str, value: &str| {
        of(json!({"spec": {"providerID": "q"}, "status": {"conditions": [condition(kind, value)]}}))
    };
    nodes
        .patch_status(&name, &by("agent"), &status("GpuReady", "True"))
        .await
        .expect("applied");
    nodes
        .patch_status(&name, &by("other"), &status("Other", "False"))
        .await
        .expect("applied");
    let node = nodes
        .patch_status(&name, &by("agent"), &status("GpuReady", "False"))
        .await
        .expect("applied");
    let read = json_of(&node);
    assert_eq!(read["spec"]["providerID"], "p");
    let conditions = read["status"]["conditions"].as_array().expect("conditions");
    let find = |kind: &str| {
        conditions
            .iter()
            .find(|condition| condition["type"] == kind)
            .expect("it is there")
    };
    assert_eq!(find("GpuReady")["status"], "False");
    assert_eq!(find("Other")["status"], "False");
    let entries = node.metadata.managed_fields.expect("managed fields");
    let mine: Vec<_> = entries
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some("agent"))
        .collect();
    assert_eq!(mine.len(), 2);
    let of_status = mine
        .iter()
        .find(|entry| entry.subresource.as_deref() == Some("status"));
    let fields = json_of(&of_status.expect("one of the status").fields_v1);
    assert_eq!(
        fields,
        json!({"f:status": {"f:conditions": {"k:{\"type\":\"GpuReady\"}": {
            ".": {}, "f:type": {}, "f:status": {}, "f:reason": {},
        }}}})
    );
    let taken = refused(
        nodes
            .patch_status(&name, &by("other"), &status("GpuReady", "True"))
            .await,
    );
    assert_eq!(
        taken.message,
        r#"Apply failed with 1 conflict: conflict with "agent" with subresource "status": .status.conditions[type="GpuReady"].status"#
    );
    nodes
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    cluster.end().await;
}

/// `spec.taints` of a node is an atomic list: who applies one taint owns all of them. Labels are not.
pub async fn taints_are_owned_as_one(cluster: Cluster) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let name = cluster.namespace.clone();
    let node = |key: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {key: "x"}},
            "spec": {"taints": [{"key": key, "effect": "NoSchedule"}]},
        }))
    };
    nodes
        .patch(&name, &by("one").force(), &node("pitcrew.dev/a"))
        .await
        .expect("made");
    // A real controller manager taints a node that is not ready, now and again, and owns the list until it is applied anew.
    let mut status = None;
    for _ in 0..50 {
        nodes
            .patch(&name, &by("one").force(), &node("pitcrew.dev/a"))
            .await
            .expect("applied");
        let refusal = refused(nodes.patch(&name, &by("two"), &node("pitcrew.dev/b")).await);
        let is_between = refusal.message.contains("kube-controller-manager");
        status = Some(refusal);
        if !is_between {
            break;
        }
    }
    let status = status.expect("refused at least once");
    assert_eq!(
        status.message,
        r#"Apply failed with 1 conflict: conflict with "one": .spec.taints"#
    );
    let forced = nodes
        .patch(&name, &by("two").force(), &node("pitcrew.dev/b"))
        .await
        .expect("forced");
    let read = json_of(&forced);
    assert_eq!(read["spec"]["taints"].as_array().map(Vec::len), Some(1));
    assert_eq!(read["spec"]["taints"][0]["key"], "pitcrew.dev/b");
    assert_eq!(read["metadata"]["labels"]["pitcrew.dev/a"], "x");
    assert_eq!(read["metadata"]["labels"]["pitcrew.dev/b"], "x");
    nodes
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    cluster.end().await;
}

/// An empty list of managed fields forgets all owners.
pub async fn managed_fields_can_be_reset(cluster: Cluster) {
    let maps: Api<ConfigMap> = cluster.config_maps();
    let made = maps
        .create(&PostParams::default(), &config_map("a", &json!({"k": "v"})))
        .await
        .expect("created");
    let entries = made.metadata.managed_fields.expect("managed fields");
    assert_eq!(
        json_of(&entries[0].fields_v1),
        json!({"f:data": {".": {}, "f:k": {}}})
    );
    let patch = json!({"metadata": {"managedFields": [{}]}});
    let reset = maps
        .patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("patched");
    assert_eq!(reset.metadata.managed_fields, None);
    // Whoever wrote it is forgotten; that it was there before is not.
    let status = refused(maps.patch("a", &by("one"), &wanted(&json!({"k": "w"}))).await);
    assert_eq!(
        status.message,
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.k"#
    );
    let patch = json!({"data": {"l": "v"}});
    let patched = maps
        .patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("patched");
    assert_eq!(patched.metadata.managed_fields, None);
    maps.patch("a", &by("one").force(), &wanted(&json!({"k": "w"})))
        .await
        .expect("forced");
    cluster.end().await;
}

/// A node's labels are written, taken over and watched through its metadata alone; a uid keeps an apply from making it.
pub async fn labels_of_a_node_are_applied_through_its_metadata(cluster: Cluster) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let name = cluster.namespace.clone();
    let wanted = |uid: &str, labels: Value| {
        let metadata = json!({"name": name, "uid": uid, "labels": labels});
        Patch::Apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}))
    };
    let force = by("ours").force();
    let uid = "7a8b9c0d-1111-4222-8333-444455556666";
    let early = nodes
        .patch_metadata(&name, &force, &wanted(uid, json!({"n/a": "x"})))
        .await;
    assert_eq!(refused(early).code, 409);
    let node = json!({"metadata": {"name": name, "labels": {"n/a": "theirs", "n/b": "b", "n/c": "c"}}});
    let params = PostParams {
        field_manager: Some("theirs".to_owned()),
        ..PostParams::default()
    };
    let node = serde_json::from_value(node).expect("a node");
    let made = nodes.create(&params, &node).await.expect("made");
    let uid = made.metadata.uid.expect("a uid");
    let refusal = nodes
        .patch_metadata(&name, &by("ours"), &wanted(&uid, json!({"n/a": "ours"})))
        .await;
    assert_eq!(refused(refusal).code, 409);
    let both = json!({"n/a": "ours", "n/b": "b"});
    let answer = nodes.patch_metadata(&name, &force, &wanted(&uid, both)).await;
    let metadata = answer.expect("applied").metadata;
    assert_eq!(owned(&metadata, "ours", "Apply"), ["n/a", "n/b"]);
    assert_eq!(owned(&metadata, "theirs", "Update"), ["n/b", "n/c"]);
    let revision: u64 = metadata
        .resource_version
        .as_deref()
        .and_then(|revision| revision.parse().ok())
        .expect("a revision is a number");
    // To give up what somebody else owns too doesn't take it away; a null does.
    let gone = Patch::Merge(json!({"metadata": {"labels": {"n/c": null}}}));
    let params = PatchParams {
        field_manager: Some("ours".to_owned()),
        ..PatchParams::default()
    };
    nodes
        .patch_metadata(&name, &params, &gone)
        .await
        .expect("patched");
    let fewer = wanted(&uid, json!({"n/a": "ours"}));
    nodes
        .patch_metadata(&name, &force, &fewer)
        .await
        .expect("applied");
    let followed: Api<PartialObjectMeta<Node>> = Api::all(cluster.client.clone());
    let mut seen = pin!(watcher::watch_object(followed, &name));
    let metadata = loop {
        let node = seen.next().await.expect("a watch has no end");
        if let Some(node) = node.expect("watched") {
            break node.metadata;
        }
    };
    let labels = metadata.labels.clone().expect("labels");
    assert_eq!(labels.get("n/a").map(String::as_str), Some("ours"));
    assert_eq!(labels.get("n/b").map(String::as_str), Some("b"));
    assert_eq!(labels.get("n/c"), None);
    assert_eq!(owned(&metadata, "ours", "Apply"), ["n/a"]);
    let later = metadata
        .resource_version
        .as_deref()
        .and_then(|later| later.parse().ok());
    assert!(later > Some(revision), "{later:?} comes after {revision}");
    // Another manager's change takes a label from its applier.
    let theirs = Patch::Merge(json!({"metadata": {"labels": {"n/a": "theirs"}}}));
    let params = PatchParams {
        field_manager: Some("theirs".to_owned()),
        ..PatchParams::default()
    };
    let answer = nodes.patch_metadata(&name, &params, &theirs).await;
    let metadata = answer.expect("patched").metadata;
    assert_eq!(owned(&metadata, "ours", "Apply"), [""; 0]);
    nodes
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    cluster.end().await;
}

/// Labels of a test's prefix that a manager owns.
fn owned(metadata: &ObjectMeta, manager: &str, operation: &str) -> Vec<String> {
    let entries = metadata.managed_fields.iter().flatten();
    let of = entries.filter(|entry| {
        entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some(operation)
    });
    let fields = of.filter_map(|entry| {
        let fields = json_of(&entry.fields_v1);
        Some(
            fields
                .pointer("/f:metadata/f:labels")?
                .as_object()?
                .keys()
                .cloned()
                .collect::<Vec<_>>(),
        )
    });
    let keys = fields
        .flatten()
        .filter_map(|key| Some(key.strip_prefix("f:")?.to_owned()));
    keys.filter(|key| key.starts_with("n/")).collect()
}
