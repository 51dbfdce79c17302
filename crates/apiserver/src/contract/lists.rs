//! Lists: selectors, pages, forms.

use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use super::{Cluster, config_map, refused, typed};

async fn labelled(cluster: &Cluster, name: &str, labels: Value) {
    let map: ConfigMap = typed(json!({"metadata": {"name": name, "labels": labels}}));
    let made = cluster.config_maps().create(&PostParams::default(), &map).await;
    made.expect("created");
}

/// By label and by field.
pub async fn selectors_select(cluster: Cluster) {
    labelled(&cluster, "a", json!({"app": "x", "tier": "1", "case": "s"})).await;
    labelled(&cluster, "b", json!({"app": "y", "case": "s"})).await;
    labelled(&cluster, "c", json!({"case": "s"})).await;
    let maps = cluster.config_maps();
    for (selector, wanted) in [
        ("case=s", "a b c"),
        ("app=x", "a"),
        ("case=s,app!=x", "b c"),
        ("app in (x,y)", "a b"),
        ("case,app notin (x)", "b c"),
        ("!app,case=s", "c"),
        ("tier>0", "a"),
        ("case=none", ""),
    ] {
        let list = maps
            .list(&ListParams::default().labels(selector))
            .await
            .expect("listed");
        let names: Vec<String> = list.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names.join(" "), wanted, "{selector}");
    }
    for (selector, wanted) in [("metadata.name=b", "b"), ("metadata.name!=b", "a c")] {
        let params = ListParams::default().fields(selector).labels("case=s");
        let list = maps.list(&params).await.expect("listed");
        let names: Vec<String> = list.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names.join(" "), wanted, "{selector}");
    }
    let params = ListParams::default().fields("data.key=x");
    assert_eq!(refused(maps.list(&params).await).code, 400);
    assert_eq!(
        refused(maps.list(&ListParams::default().labels("a b")).await).code,
        400
    );
    cluster.end().await;
}

/// Pages are of the moment of the first one.
pub async fn a_paged_list_is_one_moment(cluster: Cluster) {
    for name in ["w", "x", "y", "z"] {
        labelled(&cluster, name, json!({"case": "p"})).await;
    }
    let maps = cluster.config_maps();
    let params = ListParams::default().limit(2).labels("case=p");
    let first = maps.list(&params).await.expect("listed");
    let names = |list: &kube::api::ObjectList<ConfigMap>| -> Vec<String> {
        list.iter().map(kube::ResourceExt::name_any).collect()
    };
    assert_eq!(names(&first), ["w", "x"]);
    let token = first.metadata.continue_.clone().expect("there is more");
    labelled(&cluster, "xx", json!({"case": "p"})).await;
    maps.delete("z", &DeleteParams::default()).await.expect("deleted");
    let second = maps.list(&params.continue_token(&token)).await.expect("listed");
    assert_eq!(names(&second), ["y", "z"]);
    assert_eq!(second.metadata.continue_.as_deref().unwrap_or_default(), "");
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    cluster.end().await;
}

/// 400.
pub async fn a_list_goes_on_only_from_where_one_ended(cluster: Cluster) {
    let maps = cluster.config_maps();
    let unknown = ListParams::default().limit(1).continue_token("what");
    assert_eq!(refused(maps.list(&unknown).await).code, 400);
    assert_eq!(refused(maps.list(&ListParams::default().at("x")).await).code, 400);
    cluster.end().await;
}

/// `PartialObjectMetadata`.
pub async fn metadata_can_be_read_alone(cluster: Cluster) {
    labelled(&cluster, "a", json!({"case": "m"})).await;
    let maps = cluster.config_maps();
    let one = maps.get_metadata("a").await.expect("read");
    assert_eq!(one.labels().get("case").map(String::as_str), Some("m"));
    let list = maps
        .list_metadata(&ListParams::default().labels("case=m"))
        .await
        .expect("listed");
    assert_eq!(list.items.len(), 1);
    assert_eq!(list.items[0].metadata.uid, one.metadata.uid);
    cluster.end().await;
}

/// What kubectl prints.
pub async fn a_table_can_be_asked_for(cluster: Cluster) {
    let made = cluster
        .config_maps()
        .create(&PostParams::default(), &config_map("a", &json!({})))
        .await;
    made.expect("created");
    let uri = format!(
        "/api/v1/namespaces/{}/configmaps?fieldSelector=metadata.name%3Da",
        cluster.namespace
    );
    let request = Request::get(uri)
        .header(
            "accept",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        )
        .body(Vec::new())
        .expect("a request");
    let table: Value = cluster.client.request(request).await.expect("a table");
    assert_eq!(table["kind"], "Table");
    let columns = table["columnDefinitions"].as_array().expect("columns");
    assert_eq!(columns[0]["name"], "Name");
    assert!(columns.iter().any(|column| column["name"] == "Age"));
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(
        table["rows"][0]["cells"].as_array().map(Vec::len),
        Some(columns.len())
    );
    cluster.end().await;
}
