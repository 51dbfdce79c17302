//! Events.

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use k8s_openapi::api::events::v1::Event as NewEvent;
use kube::api::{ListParams, PostParams};
use kube::runtime::events::{Event as Published, EventType, Recorder};
use kube::{Api, Resource as _};
use serde_json::json;

use super::{Cluster, config_map, refused, typed};

/// Made in one group, read in the other.
pub async fn an_event_has_two_faces(cluster: Cluster) {
    let core: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let new: Api<NewEvent> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let object = json!({"kind": "Node", "name": "gpu-node", "namespace": cluster.namespace, "uid": "u"});
    let event: Event = typed(json!({
        "metadata": {"name": "e"}, "involvedObject": object, "reason": "XidSeen", "message": "XID 79", "type": "Warning",
        "source": {"component": "pitcrew"}, "firstTimestamp": "2026-01-01T00:00:00Z", "count": 1,
    }));
    core.create(&PostParams::default(), &event)
        .await
        .expect("created");
    let read = new.get("e").await.expect("read");
    assert_eq!(read.note.as_deref(), Some("XID 79"));
    assert_eq!(
        read.regarding.and_then(|object| object.name).as_deref(),
        Some("gpu-node")
    );
    assert_eq!(read.deprecated_count, Some(1));
    for (selector, found) in [
        ("involvedObject.name=gpu-node,involvedObject.uid=u", 1),
        ("involvedObject.name=other", 0),
        ("reason=XidSeen,type=Warning", 1),
        ("source=pitcrew", 1),
    ] {
        let list = core
            .list(&ListParams::default().fields(selector))
            .await
            .expect("listed");
        assert_eq!(list.items.len(), found, "{selector}");
    }
    let regarding = ListParams::default().fields("regarding.name=gpu-node");
    assert_eq!(new.list(&regarding).await.expect("listed").items.len(), 1);
    let unknown = ListParams::default().fields("message=x");
    assert_eq!(refused(core.list(&unknown).await).code, 400);
    cluster.end().await;
}

/// It makes an event once, and counts it afterwards.
pub async fn the_recorder_of_kube_publishes(cluster: Cluster) {
    let maps: Api<ConfigMap> = cluster.config_maps();
    let map = maps
        .create(&PostParams::default(), &config_map("a", &json!({})))
        .await
        .expect("created");
    let recorder = Recorder::new(cluster.client.clone(), "pitcrew".into());
    let event = Published {
        type_: EventType::Warning,
        reason: "XidSeen".to_owned(),
        note: Some("XID 79".to_owned()),
        action: "Watch".to_owned(),
        secondary: None,
    };
    for _ in 0..2 {
        recorder
            .publish(&event, &map.object_ref(&()))
            .await
            .expect("published");
    }
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let of_map = ListParams::default().fields("involvedObject.name=a");
    let list = events.list(&of_map).await.expect("listed");
    assert_eq!(list.items.len(), 1);
    let count = list.items[0].series.as_ref().and_then(|series| series.count);
    assert_eq!(count, Some(2));
    assert_eq!(list.items[0].message.as_deref(), Some("XID 79"));
    cluster.end().await;
}
