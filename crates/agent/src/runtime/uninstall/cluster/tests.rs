use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use pitcrew_apiserver::{ApiError, Fault, Match, Verb};
use pitcrew_core::labels::Offer;
use tokio::sync::watch;

use super::*;
use crate::labels::Sink;
use crate::testing::{Bench, NODE, by, until};

const CONDITION: &str = "GpuHealthy";

/// A node whose agent has written everything that it writes, beside what others wrote.
async fn written() -> Bench {
    let bench = Bench::new("t4").await;
    let definitions: Api<CustomResourceDefinition> = Api::all(bench.client());
    for (_, definition) in pitcrew_api::definitions().unwrap() {
        let definition = serde_json::from_value(definition).unwrap();
        definitions
            .create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    bench
        .label(
            "somebody",
            json!({"theirs": "x", "nvidia.com/mig.config": "all-balanced"}),
        )
        .await;
    let (_snapshots, snapshot) = watch::channel(bench.look());
    let (wanted, _) = watch::channel(None);
    let (_offers, offer) = watch::channel(Some(Offer::default()));
    let (known, node) = watch::channel(None);
    let (problem, _) = watch::channel(None);
    let channels = crate::labels::Channels {
        snapshot: snapshot.clone(),
        offer,
        node,
        problem,
    };
    let deps = Arc::clone(&bench.deps);
    let work = async {
        tokio::join!(
            crate::node::follow(&deps, known),
            crate::status::keep(&deps, snapshot, wanted),
            crate::labels::keep(&deps, Sink::Node, true, channels, std::future::pending()),
        )
    };
    let done = until("everything is written", || async {
        let gpu_nodes: Api<GpuNode> = Api::all(bench.client());
        let status = gpu_nodes
            .get_opt(NODE)
            .await
            .unwrap()
            .and_then(|object| object.status);
        status.is_some() && has_condition(&bench).await && has_label(&bench, "nvidia.com/gpu.count").await
    });
    tokio::select! {
        _ = work => {}
        () = done => {}
    }
    let patch = Patch::Merge(json!({"metadata": {"annotations": {WANTED: "true", "theirs": "x"}}}));
    bench
        .nodes()
        .patch(NODE, &PatchParams::default(), &patch)
        .await
        .unwrap();
    let class = json!({"metadata": {"name": "nvidia"}, "handler": "nvidia"});
    let class = serde_json::from_value(class).unwrap();
    classes(&bench).create(&by(MANAGER), &class).await.unwrap();
    bench
}

fn classes(bench: &Bench) -> Api<RuntimeClass> {
    Api::all(bench.client())
}

async fn has_condition(bench: &Bench) -> bool {
    let status = bench.node().await.status;
    let conditions = status.and_then(|status| status.conditions);
    conditions.into_iter().flatten().any(|it| it.type_ == CONDITION)
}

async fn has_label(bench: &Bench, key: &str) -> bool {
    bench.node().await.labels().contains_key(key)
}

async fn taken(bench: &Bench, is_only_said: bool) -> Report {
    take_away(&bench.client(), NODE, "pitcrew", is_only_said).await
}

fn all() -> Vec<String> {
    [
        "the labels of Node worker-1",
        "the annotation pitcrew.dev/restart-wanted of Node worker-1",
        "the condition GpuHealthy of Node worker-1",
        "GpuNode worker-1",
        "RuntimeClass nvidia",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[tokio::test(start_paused = true)]
async fn exactly_what_the_agent_wrote_is_taken_away_and_what_others_wrote_stays() {
    let bench = Box::pin(written()).await;
    let said = taken(&bench, true).await;
    assert_eq!((said.taken, said.left), (all(), Vec::new()));
    assert!(
        has_label(&bench, "nvidia.com/gpu.count").await,
        "it was only said"
    );
    let done = taken(&bench, false).await;
    assert_eq!((done.taken, done.left), (all(), Vec::new()));
    let node = bench.node().await;
    let keys: Vec<&str> = node.labels().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["kubernetes.io/hostname", "nvidia.com/mig.config", "theirs"]
    );
    let annotations: Vec<&str> = node.annotations().keys().map(String::as_str).collect();
    assert_eq!(annotations, ["theirs"]);
    assert!(!has_condition(&bench).await);
    let gpu_nodes: Api<GpuNode> = Api::all(bench.client());
    assert!(gpu_nodes.get_opt(NODE).await.unwrap().is_none());
    assert!(classes(&bench).get_opt("nvidia").await.unwrap().is_none());
    assert_eq!(
        taken(&bench, false).await,
        Report::default(),
        "once more does no harm"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gpu_node_by_which_somebody_wants_something_loses_its_status_alone() {
    let bench = Box::pin(written()).await;
    let gpu_nodes: Api<GpuNode> = Api::all(bench.client());
    let patch = Patch::Merge(json!({"spec": {"config": "shared"}}));
    gpu_nodes
        .patch(NODE, &PatchParams::default(), &patch)
        .await
        .unwrap();
    let done = taken(&bench, false).await;
    assert!(!done.taken.contains(&"GpuNode worker-1".to_owned()));
    assert!(
        done.stays[0].contains("`kubectl delete gpunode worker-1`"),
        "{done:?}"
    );
    let object = gpu_nodes.get(NODE).await.unwrap();
    assert_eq!(object.spec.config.as_deref(), Some("shared"));
    let left = object.status.unwrap_or_default();
    assert_eq!((left.conditions, left.gpus), (Vec::new(), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_runtime_class_stays_while_a_pod_or_another_node_needs_it_and_where_it_is_not_ours() {
    let bench = Box::pin(written()).await;
    let pod = json!({
        "metadata": {"name": "train"},
        "spec": {"runtimeClassName": "nvidia", "containers": [{"name": "c", "image": "i"}]},
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let pods: Api<Pod> = Api::default_namespaced(bench.client());
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let done = taken(&bench, false).await;
    assert!(
        done.stays[0].starts_with("RuntimeClass nvidia: the pod default/train names it"),
        "{done:?}"
    );
    pods.delete("train", &DeleteParams::default()).await.unwrap();
    let gpu_nodes: Api<GpuNode> = Api::all(bench.client());
    let other = json!({
        "apiVersion": "pitcrew.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": "worker-2"}, "spec": {},
    });
    let other = serde_json::from_value(other).unwrap();
    gpu_nodes.create(&PostParams::default(), &other).await.unwrap();
    let done = taken(&bench, false).await;
    assert!(done.stays[0].contains("that of worker-2 among them"), "{done:?}");
    gpu_nodes
        .delete("worker-2", &DeleteParams::default())
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}));
    let helm = PatchParams {
        field_manager: Some("helm".to_owned()),
        ..PatchParams::default()
    };
    classes(&bench).patch("nvidia", &helm, &patch).await.unwrap();
    assert_eq!(taken(&bench, false).await, Report::default());
    assert!(classes(&bench).get_opt("nvidia").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_taken_away_is_told_with_the_command_and_keeps_nothing_else() {
    let bench = Box::pin(written()).await;
    let forbidden = Fault::Error(ApiError::new(403, "gpunodes is forbidden"));
    let deletes = Match::default().resource("gpunodes").verb(Verb::Delete);
    bench.server.faults().fail(deletes, forbidden, 1);
    let done = taken(&bench, false).await;
    assert_eq!(done.taken.len(), all().len() - 1, "{done:?}");
    assert_eq!(
        done.left,
        ["GpuNode worker-1: gpunodes is forbidden (403); by hand: `kubectl delete gpunode worker-1`"]
    );
}
