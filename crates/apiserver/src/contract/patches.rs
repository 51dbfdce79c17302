//! Patches, but server-side apply.

use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Cluster, config_map, eventually, json_of, refused, typed};

fn json_patch(operations: Value) -> Patch<()> {
    Patch::Json(typed(operations))
}

/// As taints are changed: somebody else's change makes the patch fail.
pub async fn a_json_patch_tests_before_it_changes(cluster: Cluster) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let name = cluster.namespace.clone();
    let taint = json!({"key": "pitcrew.dev/a", "effect": "NoSchedule"});
    let node: Node = typed(json!({"metadata": {"name": name}, "spec": {"taints": [taint]}}));
    nodes
        .create(&PostParams::default(), &node)
        .await
        .expect("created");
    let params = PatchParams::default();
    // A real cluster adds taints of its own to a new node meanwhile: that is what the test is for.
    let all = &nodes;
    let patch = eventually("a patch that nobody came before", || async {
        let before = json_of(&all.get(&name).await.expect("read"))["spec"]["taints"].clone();
        let mut wanted = before.clone();
        let added = json!({"key": "pitcrew.dev/b", "value": "x", "effect": "NoExecute"});
        wanted.as_array_mut().expect("a list").push(added);
        let patch = json_patch(json!([
            {"op": "test", "path": "/spec/taints", "value": before},
            {"op": "replace", "path": "/spec/taints", "value": wanted},
        ]));
        let patched = all.patch(&name, &params, &patch).await.ok()?;
        assert_eq!(json_of(&patched)["spec"]["taints"], wanted);
        Some(patch)
    })
    .await;
    let status = refused(nodes.patch(&name, &params, &patch).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert_eq!(
        status.message,
        "the server rejected our request due to an error in our request"
    );
    let missing = json_patch(json!([{"op": "remove", "path": "/spec/none"}]));
    assert_eq!(refused(nodes.patch(&name, &params, &missing).await).code, 422);
    nodes
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    cluster.end().await;
}

/// A null takes away; a version in the patch is a precondition.
pub async fn a_merge_patch_takes_away_what_is_null(cluster: Cluster) {
    let maps = cluster.config_maps();
    let made = maps
        .create(
            &PostParams::default(),
            &config_map("a", &json!({"k": "v", "l": "w"})),
        )
        .await
        .expect("created");
    let params = PatchParams::default();
    let patch = json!({"data": {"k": null, "m": "x"}});
    let patched = maps
        .patch("a", &params, &Patch::Merge(&patch))
        .await
        .expect("patched");
    assert_eq!(json_of(&patched)["data"], json!({"l": "w", "m": "x"}));
    let stale = json!({"metadata": {"resourceVersion": made.metadata.resource_version}, "data": {"n": "y"}});
    let status = refused(maps.patch("a", &params, &Patch::Merge(&stale)).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        refused(maps.patch("none", &params, &Patch::Merge(&patch)).await).code,
        404
    );
    cluster.end().await;
}

/// The service account that a pod needs, where no controller made it yet.
async fn service_account(cluster: &Cluster) {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let account: ServiceAccount = typed(json!({"metadata": {"name": "default"}}));
    let made = accounts.create(&PostParams::default(), &account).await;
    assert!(made.is_ok() || refused(made).code == 409);
}

/// Containers by name, environment by name; a directive deletes.
pub async fn a_strategic_patch_merges_by_key(cluster: Cluster) {
    service_account(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let pod: Pod = typed(
        json!({"metadata": {"name": "p", "finalizers": ["pitcrew.dev/a"]}, "spec": {
            "schedulerName": "none",
            "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}],
        }}),
    );
    let made = pods.create(&PostParams::default(), &pod).await.expect("created");
    assert_eq!(json_of(&made)["status"]["phase"], "Pending");
    let patch = json!({
        "metadata": {"finalizers": ["pitcrew.dev/b"], "labels": {"x": "y"}},
        "spec": {"containers": [{"name": "b", "image": "z"}]},
    });
    let params = PatchParams::default();
    let patched = json_of(
        &pods
            .patch("p", &params, &Patch::Strategic(&patch))
            .await
            .expect("patched"),
    );
    assert_eq!(
        patched["metadata"]["finalizers"],
        json!(["pitcrew.dev/b", "pitcrew.dev/a"])
    );
    let images: Vec<&Value> = (0..2)
        .map(|index| &patched["spec"]["containers"][index]["image"])
        .collect();
    assert_eq!(images, ["x", "z"]);
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["pitcrew.dev/a", "pitcrew.dev/b"], "labels": {"x": null},
    }});
    let patched = json_of(
        &pods
            .patch("p", &params, &Patch::Strategic(&patch))
            .await
            .expect("patched"),
    );
    assert_eq!(patched["metadata"].get("finalizers"), None);
    // Conditions of a status by their type, as a kubelet writes them.
    for (kind, status) in [("Ready", "False"), ("Initialized", "True"), ("Ready", "True")] {
        let patch = json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        pods.patch_status("p", &params, &Patch::Strategic(&patch))
            .await
            .expect("patched");
    }
    let read = json_of(&pods.get("p").await.expect("read"));
    let conditions = read["status"]["conditions"].as_array().expect("conditions");
    let ready: Vec<&Value> = conditions
        .iter()
        .filter(|condition| condition["type"] == "Ready")
        .collect();
    assert_eq!(
        (conditions.len(), ready.len(), &ready[0]["status"]),
        (2, 1, &json!("True"))
    );
    cluster.end().await;
}

/// No new version, no event.
pub async fn a_patch_that_changes_nothing_writes_nothing(cluster: Cluster) {
    let maps = cluster.config_maps();
    let made = maps
        .create(&PostParams::default(), &config_map("a", &json!({"k": "v"})))
        .await
        .expect("created");
    let patch = json!({"data": {"k": "v"}});
    let patched = maps
        .patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("patched");
    assert_eq!(patched.metadata.resource_version, made.metadata.resource_version);
    let replaced = maps
        .replace("a", &PostParams::default(), &made)
        .await
        .expect("replaced");
    assert_eq!(replaced.metadata.resource_version, made.metadata.resource_version);
    cluster.end().await;
}

/// What a device plugin's capacity and an agent's labels go through.
pub async fn a_node_status_is_apart_from_its_spec(cluster: Cluster) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let name = cluster.namespace.clone();
    let node: Node = typed(json!({"metadata": {"name": name}}));
    nodes
        .create(&PostParams::default(), &node)
        .await
        .expect("created");
    let params = PatchParams::default();
    let patch = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"unschedulable": true},
        "status": {"capacity": {"nvidia.com/gpu": "8"}},
    });
    let patched = json_of(
        &nodes
            .patch_status(&name, &params, &Patch::Merge(&patch))
            .await
            .expect("patched"),
    );
    assert_eq!(patched["status"]["capacity"]["nvidia.com/gpu"], "8");
    assert_eq!(patched["spec"].get("unschedulable"), None);
    let patch = json!({"spec": {"unschedulable": true}, "status": {"capacity": {"nvidia.com/gpu": "4"}}});
    let patched = json_of(
        &nodes
            .patch(&name, &params, &Patch::Merge(&patch))
            .await
            .expect("patched"),
    );
    assert_eq!(patched["status"]["capacity"]["nvidia.com/gpu"], "8");
    assert_eq!(patched["spec"]["unschedulable"], true);
    let selected = kube::api::ListParams::default().fields("spec.unschedulable=true");
    let list = nodes.list(&selected).await.expect("listed");
    assert!(list.iter().any(|node| node.metadata.name.as_ref() == Some(&name)));
    nodes
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    cluster.end().await;
}
