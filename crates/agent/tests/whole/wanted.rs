//! What is wanted of the node by its `GpuNode`, and what the `GpuNode` says of what is offered.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use pitcrew_agent::config::Source;
use pitcrew_api::condition::kind;
use pitcrew_api::{Condition, ConditionStatus, GpuNode};
use serde_json::{Value, json};

use crate::bench::{Bench, GPU, LONG};

fn slices(replicas: &str) -> String {
    format!(
        "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      replicas: {replicas}\n"
    )
}

fn gpu_nodes(bench: &Bench) -> Api<GpuNode> {
    Api::all(bench.node.client().clone())
}

/// Somebody wants something of the node.
async fn want(bench: &Bench, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    let name = bench.node.name();
    gpu_nodes(bench)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// The `GpuNode`, as soon as one of its conditions is so.
async fn says(bench: &Bench, kind: &str, is_so: impl Fn(&Condition) -> bool) -> GpuNode {
    let waited = async {
        loop {
            let object = gpu_nodes(bench).get_opt(bench.node.name()).await.unwrap();
            let status = object.as_ref().and_then(|object| object.status.as_ref());
            if status
                .and_then(|status| status.condition(kind))
                .is_some_and(&is_so)
            {
                return object.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, waited).await;
    waited.unwrap_or_else(|_| panic!("{kind} never said it; the agent told:\n{}", bench.told()))
}

#[tokio::test]
async fn a_configuration_in_the_gpu_node_is_applied_live_and_a_bad_one_is_told_and_changes_nothing() {
    let bench = Bench::running("rtx3060", 1).await;
    let advertised = kind::DEVICES_ADVERTISED;
    says(&bench, advertised, |it| it.reason == "Advertised").await;
    want(&bench, json!({"inlineConfig": slices("4")})).await;
    bench.has(GPU, 4).await;
    want(&bench, json!({"inlineConfig": slices("six")})).await;
    let object = says(&bench, advertised, |it| it.reason == "ConfigInvalid").await;
    let condition = object.status.as_ref().unwrap().condition(advertised).unwrap();
    assert_eq!(
        condition.status,
        ConditionStatus::True,
        "the last good one is in force"
    );
    assert!(condition.message.contains("six"), "{condition:?}");
    assert!(
        condition.hint.as_ref().unwrap().contains("kubectl edit gpunode"),
        "{condition:?}"
    );
    bench.has(GPU, 4).await;
    want(&bench, json!({"inlineConfig": null, "config": "shared"})).await;
    says(&bench, advertised, |it| it.reason == "ConfigUnknown").await;
    bench.has(GPU, 4).await;
    want(&bench, json!({"config": null})).await;
    says(&bench, advertised, |it| it.reason == "Advertised").await;
    bench.has(GPU, 1).await;
}

/// A new start of the agent must not offer something else for a moment.
#[tokio::test]
async fn what_is_wanted_is_known_before_anything_is_offered() {
    let mut bench = Bench::new("rtx3060").await;
    let object = json!({
        "apiVersion": "pitcrew.dev/v1alpha1", "kind": "GpuNode",
        "metadata": {"name": bench.node.name()}, "spec": {"inlineConfig": slices("4")},
    });
    let object: GpuNode = serde_json::from_value(object).unwrap();
    let api = gpu_nodes(&bench);
    api.create(&PostParams::default(), &object).await.unwrap();
    bench.node.start_agent().await;
    bench
        .until("something is offered", || {
            bench.node.kubelet().capacity().contains_key(GPU)
        })
        .await;
    assert_eq!(bench.node.kubelet().capacity()[GPU].0, 4);
    bench.has(GPU, 4).await;
}

/// A GPU in MIG mode is offered whole under `migStrategy: none`, and no container could start with it.
#[tokio::test]
async fn a_device_that_no_container_could_start_with_is_not_counted_as_allocatable() {
    let bench = Bench::running("mixed", 3).await;
    let sick = bench.unhealthy(GPU);
    assert_eq!(sick.len(), 1, "{sick:?}");
    let advertised = kind::DEVICES_ADVERTISED;
    let object = says(&bench, advertised, |it| it.message.contains("3 of 4")).await;
    let status = object.status.unwrap();
    let resource = &status.resources[0];
    assert_eq!((resource.capacity, resource.allocatable), (4, 3));
    let condition = status.condition(advertised).unwrap();
    assert_eq!(condition.status, ConditionStatus::True);
    assert!(
        condition.message.contains(&format!("{} is held back: ", sick[0])),
        "{condition:?}"
    );
}

#[tokio::test]
async fn pods_that_wait_for_the_handler_are_named_with_the_command_that_ends_their_wait() {
    let mut bench = Bench::new("rtx3060").await;
    let classes: Api<RuntimeClass> = Api::all(bench.node.client().clone());
    let class = serde_json::from_value(json!({"metadata": {"name": "nvidia"}, "handler": "nvidia"})).unwrap();
    classes.create(&PostParams::default(), &class).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(bench.node.client().clone());
    for index in 0..7 {
        let pod = json!({
            "metadata": {"name": format!("train-{index}")},
            "spec": {
                "nodeName": bench.node.name(), "runtimeClassName": "nvidia",
                "containers": [{"name": "c", "image": "i"}],
            },
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap();
    }
    bench.node.start_agent().await;
    let object = says(&bench, kind::RUNTIME_READY, |it| {
        it.reason == "HandlerPending" && it.message.contains("train")
    })
    .await;
    let condition = object
        .status
        .as_ref()
        .unwrap()
        .condition(kind::RUNTIME_READY)
        .unwrap();
    assert_eq!(
        condition.status,
        ConditionStatus::True,
        "all other pods get their GPUs"
    );
    let named = "the pods default/train-0, default/train-1, default/train-2, default/train-3, default/train-4 and 2 more";
    assert!(condition.message.starts_with(named), "{condition:?}");
    assert_eq!(condition.hint.as_deref(), Some("systemctl restart rke2-agent"));
}

/// As with GPU Feature Discovery, `gfd.outputFile` of the configuration says where labels go; here also while it runs.
#[tokio::test]
async fn labels_go_where_the_configuration_says_and_leave_where_they_were() {
    let mut bench = Bench::new("rtx3060").await;
    let config = bench.node.root().join("config.yaml");
    std::fs::write(&config, "version: v1\n").unwrap();
    bench.node.settings_mut().sources.source = Source::Path(config.clone());
    bench.node.start_agent().await;
    bench.has_label("nvidia.com/gpu.count", "1").await;
    let put = |text: &str| {
        std::fs::write(bench.node.root().join("new"), text).unwrap();
        std::fs::rename(bench.node.root().join("new"), &config).unwrap();
    };
    put("version: v1\nflags: {gfd: {outputFile: /etc/features.d/gfd, noTimestamp: true}}\n");
    let file = bench.node.root().join("etc/features.d/gfd");
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    bench
        .until("the file has them", || {
            text().contains("nvidia.com/gpu.count=1\n")
        })
        .await;
    assert!(!text().contains("timestamp"));
    bench.lacks_label("nvidia.com/gpu.count").await;
    put("version: v1\n");
    bench.has_label("nvidia.com/gpu.count", "1").await;
    bench.until("the file is gone", || !file.exists()).await;
}
