//! What only the in-memory server does: faults, the audit log, its clock and seed, pods without a kubelet.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{
    DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::KubeConfigOptions;
use kube::{Api, Client, ResourceExt as _};
use pitcrew_apiserver::{ApiError, ApiServer, Fault, Match, Verb};
use serde_json::{Value, json};
use tokio::time::Instant;

fn client(server: &ApiServer) -> Client {
    Client::new(server.clone(), "default")
}

fn maps(server: &ApiServer) -> Api<ConfigMap> {
    Api::default_namespaced(client(server))
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("the test's own JSON is right")
}

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).expect("the test's own JSON is right")
}

#[tokio::test(start_paused = true)]
async fn latency_delays_what_matches_and_nothing_else() {
    let server = ApiServer::new();
    let faults = server.faults();
    faults.delay(
        Match::default().verb(Verb::Get).resource("configmaps"),
        Duration::from_secs(3),
    );
    faults.delay(Match::default().verb(Verb::Get).name("a"), Duration::from_secs(2));
    let start = Instant::now();
    let _ = maps(&server).list(&ListParams::default()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    let _ = maps(&server).get_opt("a").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    faults.clear();
    let _ = maps(&server).get_opt("a").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn an_injected_error_comes_as_often_as_told_and_does_nothing() {
    let server = ApiServer::new();
    let error = ApiError::new(503, "etcdserver: no leader");
    let writes = Match::default().verb(Verb::Create).resource("configmaps");
    server.faults().fail(writes, Fault::Error(error), 2);
    for _ in 0..2 {
        let result = maps(&server)
            .create(&PostParams::default(), &config_map("a"))
            .await;
        assert!(matches!(result, Err(kube::Error::Api(status)) if status.code == 503));
    }
    assert!(maps(&server).get_opt("a").await.unwrap().is_none());
    assert!(
        maps(&server)
            .create(&PostParams::default(), &config_map("a"))
            .await
            .is_ok()
    );
    let codes: Vec<u16> = server.audit().entries().iter().map(|entry| entry.code).collect();
    assert_eq!(codes, [503, 503, 404, 201]);
}

#[tokio::test]
async fn a_lost_answer_was_done_and_a_refused_request_was_not() {
    let server = ApiServer::new();
    server
        .faults()
        .fail(Match::default().name("a"), Fault::Refused, 1);
    server
        .faults()
        .fail(Match::default().verb(Verb::Create), Fault::LostAnswer, 1);
    let refused = maps(&server).get("a").await;
    assert!(matches!(refused, Err(kube::Error::Service(_))));
    let lost = maps(&server)
        .create(&PostParams::default(), &config_map("a"))
        .await;
    assert!(matches!(lost, Err(kube::Error::Service(_))));
    assert!(maps(&server).get_opt("a").await.unwrap().is_some());
}

#[tokio::test]
async fn watches_can_be_dropped_and_expired() {
    let server = ApiServer::new();
    let maps = maps(&server);
    let mut dropped = pin!(maps.watch(&WatchParams::default(), "0").await.unwrap());
    let nodes: Api<Node> = Api::all(client(&server));
    let mut other = pin!(nodes.watch(&WatchParams::default(), "0").await.unwrap());
    assert!(dropped.next().now_or_never().is_none());
    server
        .faults()
        .drop_watches(Match::default().resource("configmaps"));
    assert!(dropped.next().await.is_none());
    assert!(other.next().now_or_never().is_none());
    server.faults().expire_watches(Match::default());
    let event = other.next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Error(status) if status.code == 410));
    assert!(other.next().await.is_none());
    // One that begins now is not meant.
    let mut new = pin!(maps.watch(&WatchParams::default(), "0").await.unwrap());
    assert!(new.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_server_answers_nothing_until_it_thaws() {
    let server = ApiServer::new();
    let maps = maps(&server);
    let mut watch = pin!(maps.watch(&WatchParams::default(), "0").await.unwrap());
    maps.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    server.faults().freeze();
    let waited = tokio::time::timeout(Duration::from_mins(1), maps.get("a")).await;
    assert!(waited.is_err());
    assert!(
        tokio::time::timeout(Duration::from_mins(1), watch.next())
            .await
            .is_err()
    );
    server.faults().thaw();
    assert!(maps.get("a").await.is_ok());
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
}

#[tokio::test]
async fn a_watch_that_falls_behind_what_is_remembered_is_told_410() {
    let server = ApiServer::builder().history(2).build();
    let maps = maps(&server);
    let mut watch = pin!(maps.watch(&WatchParams::default(), "0").await.unwrap());
    assert!(watch.next().now_or_never().is_none());
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name))
            .await
            .unwrap();
    }
    let event = watch.next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Error(status) if status.code == 410 && status.reason == "Expired"));
}

#[tokio::test]
async fn a_page_of_a_compacted_list_is_gone() {
    let server = ApiServer::new();
    let maps = maps(&server);
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name))
            .await
            .unwrap();
    }
    let page = maps.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(page.metadata.remaining_item_count, Some(2));
    let token = page.metadata.continue_.unwrap();
    maps.delete("c", &DeleteParams::default()).await.unwrap();
    server.compact();
    let next = maps
        .list(&ListParams::default().limit(1).continue_token(&token))
        .await;
    assert!(matches!(next, Err(kube::Error::Api(status)) if status.code == 410));
}

// Not in the contract: the client that a real cluster needs tries again on 504, for minutes.
#[tokio::test]
async fn a_list_can_not_be_of_the_future() {
    let server = ApiServer::new();
    let listed = maps(&server)
        .list(&ListParams::default().at("999999999999"))
        .await;
    let Err(kube::Error::Api(status)) = listed else {
        panic!("it is refused");
    };
    assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"));
    let wanted = format!(
        "Too large resource version: 999999999999, current: {}",
        server.revision()
    );
    assert!(status.message.contains(&wanted), "{}", status.message);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_a_quiet_watch_the_revision() {
    let server = ApiServer::builder()
        .bookmark_period(Duration::from_secs(10))
        .build();
    let nodes: Api<Node> = Api::all(client(&server));
    let mut watch = pin!(nodes.watch(&WatchParams::default(), "0").await.unwrap());
    maps(&server)
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let start = Instant::now();
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    let WatchEvent::Bookmark(bookmark) = event else {
        panic!("{event:?}");
    };
    assert_eq!(bookmark.metadata.resource_version, server.revision().to_string());
}

#[tokio::test]
async fn the_audit_log_tells_who_asked_for_what() {
    let server = ApiServer::new();
    let patch = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    maps(&server)
        .patch("a", &PatchParams::apply("pitcrew"), &patch)
        .await
        .unwrap();
    let nodes: Api<Node> = Api::all(client(&server));
    let _ = nodes.get_status("n").await;
    let log = server.audit().take();
    assert_eq!(log.len(), 2);
    assert_eq!(
        (log[0].verb, log[0].namespace.as_str(), log[0].name.as_str()),
        (Verb::Patch, "default", "a")
    );
    assert_eq!(
        (log[0].code, log[0].content_type.as_str()),
        (201, "application/apply-patch+yaml")
    );
    assert!(log[0].query.contains("fieldManager=pitcrew"));
    assert_eq!(
        (log[1].verb, log[1].subresource.as_str(), log[1].code),
        (Verb::Get, "status", 404)
    );
    assert!(server.audit().entries().is_empty());
}

#[tokio::test]
async fn the_clock_and_the_seed_decide_what_is_written() {
    let make = |seed| async move {
        let clock = Arc::new(|| SystemTime::UNIX_EPOCH + Duration::from_hours(490_896));
        let server = ApiServer::builder().clock(clock).seed(seed).build();
        maps(&server)
            .create(&PostParams::default(), &config_map("a"))
            .await
            .unwrap()
    };
    let (one, same, other) = (make(1).await, make(1).await, make(2).await);
    assert_eq!(one, same);
    assert_ne!(one.uid(), other.uid());
    let time = one.creation_timestamp().unwrap();
    assert_eq!(serde_json::to_value(time).unwrap(), "2026-01-01T00:00:00Z");
}

#[tokio::test]
async fn a_pod_on_a_node_ends_when_its_kubelet_says_so() {
    let server = ApiServer::new();
    let pods: Api<Pod> = Api::default_namespaced(client(&server));
    let wanted = pod(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}));
    pods.create(&PostParams::default(), &wanted).await.unwrap();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let bind = || {
        let request = http::Request::post("/api/v1/namespaces/default/pods/p/binding");
        request.body(binding.to_string().into_bytes()).unwrap()
    };
    client(&server).request::<Value>(bind()).await.unwrap();
    let again = client(&server).request::<Value>(bind()).await;
    assert!(matches!(again, Err(kube::Error::Api(status)) if status.code == 409));
    let on_node = ListParams::default().fields("spec.nodeName=n");
    assert_eq!(pods.list(&on_node).await.unwrap().items.len(), 1);

    pods.evict("p", &EvictParams::default()).await.unwrap();
    let ending = pods.get("p").await.unwrap();
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let server = ApiServer::new();
    let mut large = config_map("a");
    large.data = Some([("k".to_owned(), "x".repeat(4 << 20))].into());
    let made = maps(&server).create(&PostParams::default(), &large).await;
    assert!(matches!(made, Err(kube::Error::Api(status)) if status.code == 413));
}

#[tokio::test]
async fn over_tcp_it_is_the_same_server() {
    let server = ApiServer::new();
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let text = pitcrew_apiserver::tcp::kubeconfig(listener.local_addr().unwrap());
    let serving = tokio::spawn(pitcrew_apiserver::tcp::serve(server.clone(), listener));
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let over_tcp: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config).unwrap());
    let mut watch = pin!(over_tcp.watch(&WatchParams::default(), "0").await.unwrap());
    over_tcp
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    assert!(maps(&server).get("a").await.is_ok());
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    assert!(over_tcp.get("a").await.is_err());
}

#[tokio::test]
async fn many_watches_see_the_same() {
    let server = ApiServer::new();
    let maps = maps(&server);
    let mut watches = Vec::new();
    for _ in 0..200 {
        watches.push(Box::pin(maps.watch(&WatchParams::default(), "0").await.unwrap()));
    }
    maps.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    for watch in &mut watches {
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Deleted(_)))));
    }
}
