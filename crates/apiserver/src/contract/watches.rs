//! Watches.

use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use serde_json::json;

use super::custom::define;
use super::{Cluster, config_map, eventually};

/// The next event, as its type and its object's name. A bookmark may come at any time, and is passed over.
async fn next(
    stream: &mut (impl Stream<Item = Result<WatchEvent<ConfigMap>, kube::Error>> + Unpin),
) -> (&'static str, String, u64) {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
        let event = event.expect("in time").expect("there is one").expect("an event");
        let (kind, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => unreachable!("{status:?}"),
        };
        let revision = object.resource_version().and_then(|version| version.parse().ok());
        return (kind, object.name_any(), revision.expect("a revision"));
    }
}

/// From the revision of a list, nothing is missed.
pub async fn a_watch_tells_every_change_in_order(cluster: Cluster) {
    let maps = cluster.config_maps();
    let params = PostParams::default();
    maps.create(&params, &config_map("before", &json!({})))
        .await
        .expect("created");
    let list = maps.list(&ListParams::default()).await.expect("listed");
    let revision = list.metadata.resource_version.expect("a revision");
    // These happen before the watch begins, and are told all the same.
    maps.create(&params, &config_map("a", &json!({})))
        .await
        .expect("created");
    maps.replace("a", &params, &config_map("a", &json!({"k": "v"})))
        .await
        .expect("replaced");
    let fields = WatchParams::default().fields("metadata.name!=kube-root-ca.crt");
    let mut stream = pin!(maps.watch(&fields, &revision).await.expect("watched"));
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    maps.create(&params, &config_map("b", &json!({})))
        .await
        .expect("created");
    let mut before = revision.parse::<u64>().expect("a number");
    for wanted in [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
        ("ADDED", "b"),
    ] {
        let (kind, name, revision) = next(&mut stream).await;
        assert_eq!((kind, name.as_str()), wanted);
        assert!(revision > before, "{revision} comes after {before}");
        before = revision;
    }
    cluster.end().await;
}

/// What stops matching is told as deleted.
pub async fn a_watch_of_a_selection_tells_what_enters_and_leaves(cluster: Cluster) {
    let maps = cluster.config_maps();
    let selector = WatchParams::default().labels("in=yes");
    let list = maps.list(&ListParams::default()).await.expect("listed");
    let revision = list.metadata.resource_version.expect("a revision");
    let mut stream = pin!(maps.watch(&selector, &revision).await.expect("watched"));
    maps.create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .expect("created");
    for value in ["yes", "no", "yes"] {
        let patch = json!({"metadata": {"labels": {"in": value}}});
        maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("patched");
    }
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    for wanted in ["ADDED", "DELETED", "ADDED", "DELETED"] {
        let (kind, name, _) = next(&mut stream).await;
        assert_eq!((kind, name.as_str()), (wanted, "a"));
    }
    cluster.end().await;
}

/// The client has to list again. A server that began with an empty store remembers all that ever happened to its own
/// kinds, so this needs one that came later.
pub async fn a_watch_of_a_forgotten_revision_ends_with_410(cluster: Cluster) {
    let (crds, name, widgets) = define(&cluster).await;
    let params = WatchParams::default();
    let watch = eventually("the kind to be watched", || async {
        widgets.watch(&params, "1").await.ok()
    });
    let mut stream = pin!(watch.await);
    let event = stream.next().await.expect("an event").expect("no broken stream");
    let WatchEvent::Error(status) = event else {
        unreachable!("{event:?}");
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(
        status.message.starts_with("too old resource version: 1 ("),
        "{}",
        status.message
    );
    crds.delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    cluster.end().await;
}

/// `sendInitialEvents`.
pub async fn a_watch_can_begin_with_a_list(cluster: Cluster) {
    let maps = cluster.config_maps();
    maps.create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .expect("created");
    let params = WatchParams::default().initial_events().fields("metadata.name=a");
    let mut stream = pin!(maps.watch(&params, "0").await.expect("watched"));
    assert_eq!(next(&mut stream).await.1, "a");
    let event = stream.next().await.expect("an event").expect("no broken stream");
    let WatchEvent::Bookmark(bookmark) = event else {
        unreachable!("{event:?}");
    };
    let end = bookmark.metadata.annotations.get("k8s.io/initial-events-end");
    assert_eq!(end.map(String::as_str), Some("true"));
    cluster.end().await;
}

/// The client that the rest of this project uses, in both of its ways.
pub async fn the_watcher_of_kube_follows(cluster: Cluster) {
    let maps = cluster.config_maps();
    maps.create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .expect("created");
    let config = watcher::Config::default().fields("metadata.name!=kube-root-ca.crt");
    for config in [config.clone(), config.streaming_lists()] {
        let mut stream = pin!(watcher(maps.clone(), config));
        let mut seen = Vec::new();
        loop {
            match stream.next().await.expect("an event").expect("no error") {
                watcher::Event::Init => {}
                watcher::Event::InitApply(object) => seen.push(object.name_any()),
                watcher::Event::InitDone => break,
                other => unreachable!("{other:?}"),
            }
        }
        assert_eq!(seen, ["a"]);
        maps.create(&PostParams::default(), &config_map("b", &json!({})))
            .await
            .expect("created");
        let event = stream.next().await.expect("an event").expect("no error");
        assert!(matches!(event, watcher::Event::Apply(object) if object.name_any() == "b"));
        maps.delete("b", &DeleteParams::default()).await.expect("deleted");
        let event = stream.next().await.expect("an event").expect("no error");
        assert!(matches!(event, watcher::Event::Delete(object) if object.name_any() == "b"));
    }
    cluster.end().await;
}

/// `timeoutSeconds`.
pub async fn a_watch_ends_when_its_time_is_over(cluster: Cluster) {
    let maps = cluster.config_maps();
    let list = maps.list(&ListParams::default()).await.expect("listed");
    let revision = list.metadata.resource_version.expect("a revision");
    let params = WatchParams::default().timeout(1).fields("metadata.name=none");
    let stream = pin!(maps.watch(&params, &revision).await.expect("watched"));
    let events = stream.filter(|event| std::future::ready(!matches!(event, Ok(WatchEvent::Bookmark(_)))));
    let all = tokio::time::timeout(Duration::from_secs(20), events.collect::<Vec<_>>()).await;
    assert!(all.expect("it ends").is_empty());
    cluster.end().await;
}
