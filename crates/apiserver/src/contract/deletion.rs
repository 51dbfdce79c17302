//! Deletion: finalizers, preconditions, dependents, collections, namespaces.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::{Cluster, config_map, eventually, refused, typed};

/// It stays, marked, until the finalizer goes.
pub async fn a_finalizer_holds_what_is_deleted(cluster: Cluster) {
    let maps = cluster.config_maps();
    let map: ConfigMap = typed(json!({"metadata": {"name": "a", "finalizers": ["pitcrew.dev/hold"]}}));
    maps.create(&PostParams::default(), &map).await.expect("created");
    let deleted = maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    let held = deleted.left().expect("the object");
    assert!(held.metadata.deletion_timestamp.is_some());
    assert_eq!(held.metadata.deletion_grace_period_seconds, Some(0));
    let params = PatchParams::default();
    let more = json!({"metadata": {"finalizers": ["pitcrew.dev/hold", "pitcrew.dev/more"]}});
    assert_eq!(
        refused(maps.patch("a", &params, &Patch::Merge(&more)).await).code,
        422
    );
    let free = json!({"metadata": {"finalizers": null}});
    maps.patch("a", &params, &Patch::Merge(&free))
        .await
        .expect("patched");
    assert_eq!(refused(maps.get("a").await).code, 404);
    cluster.end().await;
}

/// What was deleted and made again is not deleted by who meant the first one.
pub async fn a_deletion_can_ask_for_a_uid(cluster: Cluster) {
    let maps = cluster.config_maps();
    maps.create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .expect("created");
    let only = |uid: &str| {
        DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        })
    };
    let status = refused(maps.delete("a", &only("other")).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let uid = maps.get("a").await.expect("read").uid().expect("a uid");
    assert!(maps.delete("a", &only(&uid)).await.is_ok());
    cluster.end().await;
}

/// An owner and what it owns.
async fn family(cluster: &Cluster, block: bool) -> Api<ConfigMap> {
    let maps = cluster.config_maps();
    let params = PostParams::default();
    let owner = maps
        .create(&params, &config_map("owner", &json!({})))
        .await
        .expect("created");
    let reference = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid(), "blockOwnerDeletion": block,
    });
    let child: ConfigMap = typed(json!({"metadata": {"name": "owned", "ownerReferences": [reference]}}));
    maps.create(&params, &child).await.expect("created");
    maps
}

async fn goes(maps: &Api<ConfigMap>, name: &str) {
    eventually("an object to go", || async {
        let found = maps.get_opt(name).await.expect("looked");
        found.is_none().then_some(())
    })
    .await;
}

/// Garbage collection.
pub async fn dependents_go_with_their_owner(cluster: Cluster) {
    let maps = family(&cluster, false).await;
    maps.delete("owner", &DeleteParams::background())
        .await
        .expect("deleted");
    goes(&maps, "owner").await;
    goes(&maps, "owned").await;
    cluster.end().await;
}

/// In the foreground, the owner goes last.
pub async fn dependents_go_before_an_owner_that_waits(cluster: Cluster) {
    let maps = family(&cluster, true).await;
    let hold = json!({"metadata": {"finalizers": ["pitcrew.dev/hold"]}});
    let params = PatchParams::default();
    maps.patch("owned", &params, &Patch::Merge(&hold))
        .await
        .expect("patched");
    let deleted = maps
        .delete("owner", &DeleteParams::foreground())
        .await
        .expect("deleted");
    let owner = deleted.left().expect("the object");
    assert_eq!(owner.finalizers(), ["foregroundDeletion"]);
    let all = &maps;
    eventually("the dependent to be deleted", || async {
        let child = all.get("owned").await.expect("it is held");
        child.metadata.deletion_timestamp.map(|_| ())
    })
    .await;
    assert!(maps.get("owner").await.is_ok());
    let free = json!({"metadata": {"finalizers": null}});
    maps.patch("owned", &params, &Patch::Merge(&free))
        .await
        .expect("patched");
    goes(&maps, "owned").await;
    goes(&maps, "owner").await;
    cluster.end().await;
}

/// `propagationPolicy=Orphan`.
pub async fn orphans_stay(cluster: Cluster) {
    let maps = family(&cluster, false).await;
    maps.delete("owner", &DeleteParams::orphan())
        .await
        .expect("deleted");
    goes(&maps, "owner").await;
    let owned = maps.get("owned").await.expect("it stayed");
    assert!(owned.owner_references().is_empty());
    cluster.end().await;
}

/// `deletecollection`.
pub async fn a_collection_is_deleted_by_selector(cluster: Cluster) {
    let maps = cluster.config_maps();
    for (name, group) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let map: ConfigMap = typed(json!({"metadata": {"name": name, "labels": {"group": group}}}));
        maps.create(&PostParams::default(), &map).await.expect("created");
    }
    let selected = ListParams::default().labels("group=x");
    maps.delete_collection(&DeleteParams::default(), &selected)
        .await
        .expect("deleted");
    let list = maps
        .list(&ListParams::default().labels("group"))
        .await
        .expect("listed");
    let names: Vec<String> = list.iter().map(kube::ResourceExt::name_any).collect();
    assert_eq!(names, ["c"]);
    cluster.end().await;
}

/// Nothing is made in it meanwhile, and it goes last.
pub async fn a_namespace_takes_its_content_along(cluster: Cluster) {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let maps = cluster.config_maps();
    let name = cluster.namespace.clone();
    let made = namespaces.get(&name).await.expect("read");
    assert_eq!(made.labels().get("kubernetes.io/metadata.name"), Some(&name));
    assert_eq!(phase(&made), Some("Active".to_owned()));
    let held: ConfigMap = typed(json!({"metadata": {"name": "held", "finalizers": ["pitcrew.dev/hold"]}}));
    maps.create(&PostParams::default(), &held).await.expect("created");
    maps.create(&PostParams::default(), &config_map("free", &json!({})))
        .await
        .expect("created");
    namespaces
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    let (all, inside) = (&namespaces, &maps);
    eventually("the content to go", || async {
        inside
            .get_opt("free")
            .await
            .expect("looked")
            .is_none()
            .then_some(())
    })
    .await;
    let ending = namespaces.get(&name).await.expect("it waits");
    assert_eq!(phase(&ending), Some("Terminating".to_owned()));
    let status = refused(
        maps.create(&PostParams::default(), &config_map("new", &json!({})))
            .await,
    );
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    let free: Value = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(&free))
        .await
        .expect("patched");
    eventually("the namespace to go", || async {
        all.get_opt(&name).await.expect("looked").is_none().then_some(())
    })
    .await;
    cluster.end().await;
}

fn phase(namespace: &Namespace) -> Option<String> {
    namespace.status.as_ref()?.phase.clone()
}
