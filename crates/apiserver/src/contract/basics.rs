//! Create, read, replace, delete; what is refused.

use http::Request;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Cluster, code, config_map, json_of, refused, typed};

/// Every object has a uid, a time and a version, and reads as it was written.
pub async fn what_is_created_can_be_read_replaced_and_deleted(cluster: Cluster) {
    let maps = cluster.config_maps();
    let params = PostParams::default();
    let made = maps
        .create(&params, &config_map("a", &json!({"k": "v"})))
        .await
        .expect("created");
    assert!(made.metadata.uid.as_ref().is_some_and(|uid| uid.len() == 36));
    assert!(made.metadata.creation_timestamp.is_some());
    assert_eq!(made.metadata.generation, None);
    assert_eq!(made.metadata.namespace.as_ref(), Some(&cluster.namespace));
    assert_eq!(maps.get("a").await.expect("read"), made);

    let mut wanted = made.clone();
    wanted.data = typed(json!({"k": "w"}));
    let replaced = maps.replace("a", &params, &wanted).await.expect("replaced");
    assert_eq!(replaced.metadata.uid, made.metadata.uid);
    assert_ne!(replaced.metadata.resource_version, made.metadata.resource_version);
    assert_eq!(json_of(&replaced)["data"], json!({"k": "w"}));

    // Without a version, it is replaced whatever it was meanwhile.
    let any = config_map("a", &json!({}));
    assert!(maps.replace("a", &params, &any).await.is_ok());

    let deleted = maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    let status = deleted.right().expect("a status");
    let details = status.details.expect("details");
    assert_eq!(details.name, "a");
    assert_eq!(Some(details.uid), made.metadata.uid);
    assert_eq!(code(&maps.get("a").await.expect_err("gone")), 404);
    cluster.end().await;
}

/// A second object of the name is refused.
pub async fn a_name_can_be_had_once(cluster: Cluster) {
    let maps = cluster.config_maps();
    let params = PostParams::default();
    maps.create(&params, &config_map("a", &json!({})))
        .await
        .expect("created");
    let status = refused(maps.create(&params, &config_map("a", &json!({}))).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(status.message, r#"configmaps "a" already exists"#);
    cluster.end().await;
}

/// Optimistic concurrency.
pub async fn a_stale_replacement_is_refused(cluster: Cluster) {
    let maps = cluster.config_maps();
    let params = PostParams::default();
    let first = maps
        .create(&params, &config_map("a", &json!({"n": "1"})))
        .await
        .expect("created");
    let mut second = first.clone();
    second.data = typed(json!({"n": "2"}));
    maps.replace("a", &params, &second).await.expect("replaced");
    let mut third = first;
    third.data = typed(json!({"n": "3"}));
    let status = refused(maps.replace("a", &params, &third).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    cluster.end().await;
}

/// `generateName`.
pub async fn a_name_is_made_from_a_prefix(cluster: Cluster) {
    let maps = cluster.config_maps();
    let wanted: ConfigMap = typed(json!({"metadata": {"generateName": "pre-"}}));
    let first = maps
        .create(&PostParams::default(), &wanted)
        .await
        .expect("created");
    let second = maps
        .create(&PostParams::default(), &wanted)
        .await
        .expect("created");
    let name = first.metadata.name.expect("a name");
    assert!(name.starts_with("pre-") && name.len() == 9, "{name}");
    assert_ne!(Some(name), second.metadata.name);
    cluster.end().await;
}

/// 404, with the object's name in the message.
pub async fn what_is_not_there_is_not_found(cluster: Cluster) {
    let maps = cluster.config_maps();
    let status = refused(maps.get("none").await);
    assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
    assert_eq!(status.message, r#"configmaps "none" not found"#);
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let status = refused(leases.delete("none", &DeleteParams::default()).await);
    assert_eq!(status.message, r#"leases.coordination.k8s.io "none" not found"#);
    let replaced = maps
        .replace("none", &PostParams::default(), &config_map("none", &json!({})))
        .await;
    assert_eq!(refused(replaced).code, 404);
    let unknown = cluster.dynamic("pitcrew.dev/v1", "Unknown", "unknowns", true);
    assert_eq!(refused(unknown.get("x").await).code, 404);
    cluster.end().await;
}

/// A namespace has to be there first.
pub async fn nothing_is_made_in_a_namespace_that_is_not_there(cluster: Cluster) {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "no-such-namespace");
    let status = refused(
        maps.create(&PostParams::default(), &config_map("a", &json!({})))
            .await,
    );
    assert_eq!(status.code, 404);
    assert_eq!(status.message, r#"namespaces "no-such-namespace" not found"#);
    cluster.end().await;
}

/// 422, with the field.
pub async fn a_name_or_label_that_is_none_is_invalid(cluster: Cluster) {
    let maps = cluster.config_maps();
    let params = PostParams::default();
    let status = refused(maps.create(&params, &config_map("Not_a_name", &json!({}))).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert!(
        status.message.starts_with(
            r#"ConfigMap "Not_a_name" is invalid: metadata.name: Invalid value: "Not_a_name": "#
        ),
        "{}",
        status.message
    );
    let label: ConfigMap = typed(json!({"metadata": {"name": "a", "labels": {"product": "NVIDIA H100"}}}));
    let status = refused(maps.create(&params, &label).await);
    assert_eq!(status.code, 422);
    let details = status.details.expect("details");
    assert_eq!(details.causes[0].field, "metadata.labels");
    let nameless = refused(maps.create(&params, &typed(json!({"metadata": {}}))).await);
    assert_eq!(nameless.code, 422);
    cluster.end().await;
}

/// `dryRun=All`.
pub async fn a_dry_run_changes_nothing(cluster: Cluster) {
    let maps = cluster.config_maps();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let made = maps
        .create(&dry, &config_map("a", &json!({"k": "v"})))
        .await
        .expect("it would be created");
    assert_eq!(json_of(&made)["data"], json!({"k": "v"}));
    assert_eq!(refused(maps.get("a").await).code, 404);
    maps.create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .expect("created");
    maps.delete("a", &DeleteParams::default().dry_run())
        .await
        .expect("it would be deleted");
    assert!(maps.get("a").await.is_ok());
    cluster.end().await;
}

/// 400.
pub async fn the_body_must_be_of_the_kind_and_the_name_of_the_path(cluster: Cluster) {
    let maps = cluster.config_maps();
    let params = PostParams::default();
    maps.create(&params, &config_map("a", &json!({})))
        .await
        .expect("created");
    let replaced = maps.replace("a", &params, &config_map("b", &json!({}))).await;
    assert_eq!(refused(replaced).code, 400);
    let elsewhere: ConfigMap = typed(json!({"metadata": {"name": "c", "namespace": "elsewhere"}}));
    assert_eq!(refused(maps.create(&params, &elsewhere).await).code, 400);
    let uri = format!("/api/v1/namespaces/{}/configmaps", cluster.namespace);
    let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}});
    for body in [body.to_string(), "{".to_owned()] {
        let request = Request::post(&uri)
            .header("content-type", "application/json")
            .body(body.into_bytes());
        let sent = cluster.client.request::<Value>(request.expect("a request")).await;
        assert_eq!(refused(sent).code, 400);
    }
    cluster.end().await;
}

/// Two replicas want to lead: the second one's update comes too late.
pub async fn a_lease_is_taken_by_one_of_two(cluster: Cluster) {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let params = PostParams::default();
    let lease: Lease = typed(json!({"metadata": {"name": "leader"}, "spec": {"leaseDurationSeconds": 15}}));
    let seen = leases.create(&params, &lease).await.expect("created");
    let take = |holder: &str| {
        let mut lease = seen.clone();
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(holder.to_owned());
        }
        lease
    };
    let taken = leases
        .replace("leader", &params, &take("a"))
        .await
        .expect("taken");
    assert_eq!(
        taken.spec.and_then(|spec| spec.holder_identity).as_deref(),
        Some("a")
    );
    let status = refused(leases.replace("leader", &params, &take("b")).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    // A lease is never replaced blindly.
    let mut blind = take("c");
    blind.metadata.resource_version = None;
    assert_eq!(refused(leases.replace("leader", &params, &blind).await).code, 422);
    cluster.end().await;
}

/// `stringData` is written only.
pub async fn secrets_are_encoded(cluster: Cluster) {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let secret: Secret = typed(json!({"metadata": {"name": "s"}, "stringData": {"k": "value"}}));
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .expect("created");
    let read = json_of(&secrets.get("s").await.expect("read"));
    assert_eq!(read["data"], json!({"k": "dmFsdWU="}));
    assert_eq!(read["type"], "Opaque");
    assert_eq!(read.get("stringData"), None);
    cluster.end().await;
}

/// Name, uid and version are the server's.
pub async fn what_an_object_is_can_not_be_changed(cluster: Cluster) {
    let maps = cluster.config_maps();
    let made = maps
        .create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .expect("created");
    let mut again = made.clone();
    again.metadata.name = Some("b".to_owned());
    assert_eq!(
        refused(maps.create(&PostParams::default(), &again).await).code,
        500
    );
    let params = PatchParams::default();
    for (patch, code) in [
        (json!({"metadata": {"name": "b"}}), 400),
        (json!({"metadata": {"uid": "other"}}), 422),
        (json!({"metadata": {"labels": {"a": "not one!"}}}), 422),
    ] {
        let status = refused(maps.patch("a", &params, &Patch::Merge(&patch)).await);
        assert_eq!(status.code, code, "{patch}: {}", status.message);
    }
    let patch = json!({"metadata": {"creationTimestamp": null, "generation": 7}});
    let patched = maps
        .patch("a", &params, &Patch::Merge(&patch))
        .await
        .expect("patched");
    assert_eq!(
        patched.metadata.creation_timestamp,
        made.metadata.creation_timestamp
    );
    assert_eq!(patched.metadata.generation, None);
    let mut other = made.clone();
    other.metadata.uid = Some("other".to_owned());
    let replaced = maps.replace("a", &PostParams::default(), &other).await;
    assert_eq!(refused(replaced).code, 409);
    let apply = PatchParams::apply("one").force();
    for (name, code) in [("a", 422), ("none", 409)] {
        let metadata = json!({"name": name, "uid": "other"});
        let patch = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
        let status = refused(maps.patch(name, &apply, &patch).await);
        assert_eq!(status.code, code, "{name}: {}", status.message);
    }
    let metadata = json!({"name": "a", "resourceVersion": "1"});
    let patch = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
    assert_eq!(refused(maps.patch("a", &apply, &patch).await).code, 409);
    // A lease that is not there is made by replacing it.
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let lease: Lease = typed(json!({"metadata": {"name": "l"}, "spec": {}}));
    assert!(leases.replace("l", &PostParams::default(), &lease).await.is_ok());
    let of_none =
        Patch::Apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "none"}, "status": {}}));
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client.clone());
    assert_eq!(
        refused(
            nodes
                .patch_status("none", &PatchParams::apply("a"), &of_none)
                .await
        )
        .code,
        404
    );
    cluster.end().await;
}

/// `metadata.generation` of what has a spec and a status.
pub async fn a_workload_counts_changes_of_its_spec(cluster: Cluster) {
    let sets: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let labels = json!({"app": "a"});
    let set: DaemonSet = typed(json!({"metadata": {"name": "a"}, "spec": {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "x"}], "nodeSelector": {"none": "here"}},
        },
    }}));
    let made = sets.create(&PostParams::default(), &set).await.expect("created");
    assert_eq!(made.metadata.generation, Some(1));
    let params = PatchParams::default();
    for (patch, generation) in [
        (json!({"metadata": {"labels": {"a": "b"}}}), 1),
        (json!({"spec": {"template": {"spec": {"priority": 0}}}}), 2),
        (json!({"status": {"numberReady": 9}}), 2),
    ] {
        let patched = sets
            .patch("a", &params, &Patch::Merge(&patch))
            .await
            .expect("patched");
        assert_eq!(patched.metadata.generation, Some(generation), "{patch}");
    }
    cluster.end().await;
}

/// What clients look up before they begin.
pub async fn discovery_tells_what_there_is(cluster: Cluster) {
    let client = &cluster.client;
    assert!(
        client
            .apiserver_version()
            .await
            .is_ok_and(|version| version.major == "1")
    );
    let groups = client.list_api_groups().await.expect("groups");
    let leases = groups
        .groups
        .iter()
        .find(|group| group.name == "coordination.k8s.io");
    assert!(leases.is_some_and(|group| group.versions.iter().any(|version| version.version == "v1")));
    let core = client.list_core_api_resources("v1").await.expect("resources");
    let find = |name: &str| core.resources.iter().find(|resource| resource.name == name);
    let node = find("nodes").expect("nodes");
    assert!(!node.namespaced && node.kind == "Node" && node.singular_name == "node");
    assert_eq!(node.short_names, Some(vec!["no".to_owned()]));
    assert!(find("nodes/status").is_some_and(|status| status.verbs.contains(&"patch".to_owned())));
    cluster.end().await;
}
