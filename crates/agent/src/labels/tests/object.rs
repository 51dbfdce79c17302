//! Labels on the API server, with others who write there too.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use pitcrew_apiserver::{ApiError, Fault, Match, Verb};
use pitcrew_core::labels::{Offer, SharedResource};
use pitcrew_core::plugin::Sharing;
use pitcrew_core::plugin::config::{Flags, GfdFlags, Interval, MigStrategy};
use pitcrew_core::ports::GpuError;
use pitcrew_scenario::Change;
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::super::{
    Channels, MANAGER, Outlet, Sink, SinkKind, give_up_feature, give_up_node, keep, leave, wish,
};
use crate::node;
use crate::snapshot::{Problem, Snapshot};
use crate::testing::{Bench, NODE, by, nothing_known, until};

const COUNT: &str = "nvidia.com/gpu.count";
const PRODUCT: &str = "nvidia.com/gpu.product";

/// Where a configuration has labels go.
fn asked(use_node_feature_api: Option<bool>, output_file: Option<&str>) -> Sink {
    let mut flags = Flags {
        use_node_feature_api,
        ..Flags::default()
    };
    flags.gfd.output_file = output_file.map(Into::into);
    Outlet::of(None, &flags, "default").sink
}

/// An agent's labels, kept by it.
struct Kept {
    snapshot: watch::Sender<Snapshot>,
    offer: watch::Sender<Option<Offer>>,
    problem: watch::Receiver<Option<Problem>>,
    end: Option<oneshot::Sender<()>>,
    tasks: [JoinHandle<()>; 2],
}

impl Kept {
    fn start(bench: &Bench, sink: Sink) -> Self {
        let (snapshot, snapshots) = watch::channel(nothing_known());
        let (offer, offers) = watch::channel(Some(Offer::default()));
        let (problem, problems) = watch::channel(None);
        let (known, node) = watch::channel(None);
        let (end, ended) = oneshot::channel::<()>();
        let channels = Channels {
            snapshot: snapshots,
            offer: offers,
            node,
            problem,
        };
        let deps = Arc::clone(&bench.deps);
        let follows = tokio::spawn(async move { node::follow(&deps, known).await });
        let deps = Arc::clone(&bench.deps);
        let end_of = async {
            let _ = ended.await;
        };
        let keeps = tokio::spawn(async move { keep(&deps, sink, true, channels, end_of).await });
        Self {
            snapshot,
            offer,
            problem: problems,
            end: Some(end),
            tasks: [follows, keeps],
        }
    }

    async fn end(mut self) {
        let _ = self.end.take().unwrap().send(());
        (&mut self.tasks[1]).await.unwrap();
    }

    /// As when the process dies.
    fn kill(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    fn reason(&self) -> Option<String> {
        self.problem
            .borrow()
            .as_ref()
            .map(|problem| problem.reason.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn says(bench: &Bench, key: &str) -> Option<String> {
    bench
        .node()
        .await
        .metadata
        .labels
        .and_then(|labels| labels.get(key).cloned())
}

async fn comes_to(bench: &Bench, key: &str, value: Option<&str>) {
    until(&format!("{key}={value:?}"), || async {
        says(bench, key).await.as_deref() == value
    })
    .await;
}

/// Writes to Nodes since the audit was last taken.
fn writes(bench: &Bench) -> usize {
    let entries = bench.server.audit().take();
    entries
        .iter()
        .filter(|entry| entry.verb == Verb::Patch && entry.resource == "nodes")
        .count()
}

/// Time for whatever would still be written.
async fn quiet() {
    tokio::time::sleep(Duration::from_mins(2)).await;
}

#[tokio::test(start_paused = true)]
async fn labels_are_written_to_the_node_by_their_own_manager_and_only_when_they_change() {
    let bench = Bench::new("rtx3060").await;
    let kept = Kept::start(&bench, Sink::Node);
    quiet().await;
    assert_eq!(says(&bench, COUNT).await, None, "nothing is known yet");
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, PRODUCT, Some("NVIDIA-GeForce-RTX-3060")).await;
    assert_eq!(
        says(&bench, "nvidia.com/gfd.timestamp").await.as_deref(),
        Some("1764000000")
    );
    assert_eq!(
        says(&bench, "kubernetes.io/hostname").await.as_deref(),
        Some(NODE)
    );
    let fields = bench.node().await.metadata.managed_fields.unwrap();
    let ours: Vec<_> = fields
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some(MANAGER))
        .collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0].operation.as_deref(), Some("Apply"));
    assert_eq!(writes(&bench), 1);
    for _ in 0..10 {
        kept.snapshot.send_replace(bench.look());
        bench.label("kubelet", json!({"unrelated": "label"})).await;
        bench.label("kubelet", json!({"unrelated": null})).await;
        quiet().await;
    }
    assert_eq!(writes(&bench), 20, "those of the kubelet");
    let shared = Offer {
        mig: MigStrategy::Single,
        sharing: Some(Sharing::TimeSlicing),
        shared: vec![SharedResource {
            name: "nvidia.com/gpu".to_owned(),
            replicas: 4,
            renamed: false,
        }],
        ..Offer::default()
    };
    kept.offer.send_replace(Some(shared));
    comes_to(&bench, "nvidia.com/gpu.replicas", Some("4")).await;
    assert_eq!(
        says(&bench, PRODUCT).await.as_deref(),
        Some("NVIDIA-GeForce-RTX-3060-SHARED")
    );
    quiet().await;
    assert_eq!(writes(&bench), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_it_is_known_how_gpus_are_offered() {
    let bench = Bench::new("t4").await;
    let kept = Kept::start(&bench, Sink::Node);
    kept.offer.send_replace(None);
    kept.snapshot.send_replace(bench.look());
    quiet().await;
    assert_eq!(says(&bench, COUNT).await, None);
    kept.offer.send_replace(Some(Offer::default()));
    comes_to(&bench, COUNT, Some("1")).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_true_goes() {
    let bench = Bench::new("mixed").await;
    let kept = Kept::start(&bench, Sink::Node);
    kept.offer.send_replace(Some(Offer {
        mig: MigStrategy::Mixed,
        ..Offer::default()
    }));
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, "nvidia.com/mig-1g.5gb.count", Some("2")).await;
    kept.offer.send_replace(Some(Offer::default()));
    comes_to(&bench, "nvidia.com/mig-1g.5gb.count", None).await;
    assert_eq!(says(&bench, "nvidia.com/mig.strategy").await, None);
    assert_eq!(
        says(&bench, "nvidia.com/mig.capable").await.as_deref(),
        Some("true")
    );
}

/// Pain 13 of the fact sheet `devices`, section 7 (gfd#75).
#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_before_the_driver_waits_and_then_says_what_is_true() {
    let bench = Bench::new("t4").await;
    let kept = Kept::start(&bench, Sink::Node);
    bench.machine.change(&Change::UnloadDriver).unwrap();
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, "nvidia.com/gpu.present", Some("true")).await;
    assert_eq!(says(&bench, COUNT).await, None);
    assert_eq!(says(&bench, "nvidia.com/cuda.driver.major").await, None);
    tokio::time::sleep(wish::PATIENCE * 2).await;
    assert_eq!(says(&bench, COUNT).await, None);
    let version = "580.159.04".to_owned();
    bench.machine.change(&Change::ReplaceDriver { version }).unwrap();
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, COUNT, Some("1")).await;
    comes_to(&bench, "nvidia.com/cuda.driver.major", Some("580")).await;
}

#[tokio::test(start_paused = true)]
async fn labels_stay_while_the_driver_is_away_for_a_moment_and_go_when_it_stays_away() {
    let bench = Bench::new("t4").await;
    let kept = Kept::start(&bench, Sink::Node);
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, COUNT, Some("1")).await;
    let _ = writes(&bench);
    let mut away = bench.look();
    away.gpus = Some(Err(GpuError::NoDriver("libnvidia-ml.so.1".to_owned())));
    kept.snapshot.send_replace(away.clone());
    tokio::time::sleep(wish::PATIENCE / 2).await;
    // Another agent in our place knows no better.
    drop(kept);
    let kept = Kept::start(&bench, Sink::Node);
    kept.snapshot.send_replace(away);
    tokio::time::sleep(wish::PATIENCE / 2).await;
    assert_eq!(says(&bench, COUNT).await.as_deref(), Some("1"));
    assert_eq!(writes(&bench), 0);
    tokio::time::sleep(wish::PATIENCE).await;
    assert_eq!(says(&bench, COUNT).await, None);
    assert_eq!(
        says(&bench, "nvidia.com/gpu.present").await.as_deref(),
        Some("true")
    );
}

#[tokio::test(start_paused = true)]
async fn gpus_that_are_gone_from_the_bus_take_their_labels_along_at_once() {
    let bench = Bench::new("t4").await;
    let kept = Kept::start(&bench, Sink::Node);
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, COUNT, Some("1")).await;
    let mut gone = bench.look();
    let mut host = gone.host.as_deref().unwrap().clone();
    host.gpus = pitcrew_core::Reading::Value(Vec::new());
    gone.host = Some(Arc::new(host));
    gone.gpus = Some(Err(GpuError::NoDriver("libnvidia-ml.so.1".to_owned())));
    kept.snapshot.send_replace(gone);
    comes_to(&bench, COUNT, None).await;
    let labels = bench.node().await.metadata.labels.unwrap();
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["kubernetes.io/hostname"]);
}

#[tokio::test(start_paused = true)]
async fn what_gpu_feature_discovery_left_behind_is_taken_over() {
    let mut bench = Bench::new("h100x8").await;
    let left = json!({
        COUNT: "4", PRODUCT: "NVIDIA-H100-80GB-HBM3", "nvidia.com/mig-1g.10gb.count": "7",
        "nvidia.com/gpu.deploy.driver": "true"
    });
    bench.label("nfd-master", left).await;
    let kept = Kept::start(&bench, Sink::Node);
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, COUNT, Some("8")).await;
    assert_eq!(says(&bench, "nvidia.com/mig-1g.10gb.count").await, None);
    assert_eq!(
        says(&bench, "nvidia.com/gpu.deploy.driver").await.as_deref(),
        Some("true")
    );
    assert_eq!(kept.reason(), None);
    let told = bench.told();
    assert!(
        told.contains(&"took 2 labels over from `nfd-master`".to_owned()),
        "{told:?}"
    );
    let _ = writes(&bench);
    quiet().await;
    assert_eq!(writes(&bench), 0);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_alive_is_told_and_not_fought() {
    let mut bench = Bench::new("h100x8").await;
    let kept = Kept::start(&bench, Sink::Node);
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, COUNT, Some("8")).await;
    let _ = writes(&bench);
    // For as long as we do.
    let mut theirs = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        if says(&bench, COUNT).await.as_deref() != Some("4") {
            bench.label("nfd-master", json!({COUNT: "4"})).await;
            theirs += 1;
        }
    }
    assert_eq!(says(&bench, COUNT).await.as_deref(), Some("4"));
    assert!(theirs <= 3, "{theirs}");
    assert_eq!(kept.reason().as_deref(), Some("LabelConflict"));
    let told = bench.told();
    let conflicts = told
        .iter()
        .filter(|text| text.contains("`nfd-master` keeps making label nvidia.com/gpu.count `4`"));
    assert_eq!(conflicts.count(), 1, "{told:?}");
    // The other labels are still ours to change.
    kept.offer.send_replace(Some(Offer {
        mig: MigStrategy::Single,
        ..Offer::default()
    }));
    comes_to(&bench, "nvidia.com/mig.strategy", Some("single")).await;
    assert_eq!(says(&bench, COUNT).await.as_deref(), Some("4"));
    // It was taken off the node, and left its label behind.
    tokio::time::sleep(Duration::from_hours(1)).await;
    comes_to(&bench, COUNT, Some("8")).await;
    assert_eq!(kept.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_somebody_deleted_comes_back() {
    let bench = Bench::new("t4").await;
    let kept = Kept::start(&bench, Sink::Node);
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, COUNT, Some("1")).await;
    bench.label("kubectl-label", json!({COUNT: null})).await;
    comes_to(&bench, COUNT, Some("1")).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_told_once_and_asked_until_it_is_back() {
    let mut bench = Bench::new("t4").await;
    let kept = Kept::start(&bench, Sink::Node);
    let down = || Fault::Error(ApiError::new(503, "etcdserver: no leader"));
    let patches = Match::default().verb(Verb::Patch).resource("nodes");
    bench.server.faults().fail(patches, down(), 5);
    kept.snapshot.send_replace(bench.look());
    until("it is told", || async {
        kept.reason().as_deref() == Some("LabelsNotWritten")
    })
    .await;
    comes_to(&bench, COUNT, Some("1")).await;
    until("it is well again", || async { kept.reason().is_none() }).await;
    let told = bench.told();
    let failures = told
        .iter()
        .filter(|text| text.contains("can't be written to the Node"));
    assert_eq!(failures.count(), 1, "{told:?}");
    assert!(
        told.contains(&"labels can be written again".to_owned()),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn lost_answers_a_hanging_server_and_lost_watches_are_survived() {
    let bench = Bench::new("t4").await;
    let faults = bench.server.faults();
    let kept = Kept::start(&bench, Sink::Node);
    let patches = Match::default().verb(Verb::Patch).resource("nodes");
    faults.fail(patches.clone(), Fault::Refused, 2);
    // The watch tells what came of it.
    faults.fail(patches, Fault::LostAnswer, 1);
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, COUNT, Some("1")).await;
    quiet().await;
    faults.freeze();
    kept.offer.send_replace(Some(Offer {
        mig: MigStrategy::Single,
        ..Offer::default()
    }));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(kept.reason().as_deref(), Some("LabelsNotWritten"));
    faults.thaw();
    comes_to(&bench, "nvidia.com/mig.strategy", Some("single")).await;
    for _ in 0..5 {
        faults.drop_watches(Match::default());
        bench.label("kubectl-label", json!({PRODUCT: null})).await;
        tokio::time::sleep(Duration::from_hours(1)).await;
        faults.expire_watches(Match::default());
        comes_to(&bench, PRODUCT, Some("Tesla-T4")).await;
    }
    assert_eq!(kept.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_there_is_not_made_and_one_that_comes_is_labelled() {
    let bench = Bench::without_node("t4");
    let kept = Kept::start(&bench, Sink::Node);
    kept.snapshot.send_replace(bench.look());
    quiet().await;
    assert!(bench.nodes().get_opt(NODE).await.unwrap().is_none());
    let node = serde_json::from_value(json!({"metadata": {"name": NODE}})).unwrap();
    bench.nodes().create(&by("kubelet"), &node).await.unwrap();
    comes_to(&bench, COUNT, Some("1")).await;
    // Another one of its name.
    bench
        .nodes()
        .delete(NODE, &kube::api::DeleteParams::default())
        .await
        .unwrap();
    bench.nodes().create(&by("kubelet"), &node).await.unwrap();
    comes_to(&bench, COUNT, Some("1")).await;
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_the_agent_labels_stay_and_removal_takes_away_ours_alone() {
    let bench = Bench::new("t4").await;
    bench
        .label("nfd-master", json!({"nvidia.com/gpu.present": "true"}))
        .await;
    let kept = Kept::start(&bench, Sink::Node);
    kept.snapshot.send_replace(bench.look());
    comes_to(&bench, COUNT, Some("1")).await;
    kept.end().await;
    quiet().await;
    assert_eq!(says(&bench, COUNT).await.as_deref(), Some("1"));
    give_up_node(bench.client(), NODE, false).await.unwrap();
    let labels = bench.node().await.metadata.labels.unwrap();
    assert_eq!(
        labels.keys().collect::<Vec<_>>(),
        ["kubernetes.io/hostname", "nvidia.com/gpu.present"]
    );
    give_up_node(bench.client(), "no-such-node", false).await.unwrap();
}

fn features(bench: &Bench) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("nfd.k8s-sigs.io", "v1alpha1", "NodeFeature");
    Api::namespaced_with(bench.client(), "default", &ApiResource::from_gvk(&kind))
}

async fn define_features(bench: &Bench) {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object",
        "required": ["features"],
        "properties": {
            "features": {"type": "object", "required": ["attributes", "flags", "instances"], "properties": {
                "attributes": {"type": "object", "additionalProperties": {"type": "object"}},
                "flags": {"type": "object", "additionalProperties": {"type": "object"}},
                "instances": {"type": "object", "additionalProperties": {"type": "object"}},
            }},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }}});
    let crd: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "nodefeatures.nfd.k8s-sigs.io"},
        "spec": {
            "group": "nfd.k8s-sigs.io", "scope": "Namespaced",
            "names": {"plural": "nodefeatures", "kind": "NodeFeature"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    }))
    .unwrap();
    let api: Api<CustomResourceDefinition> = Api::all(bench.client());
    api.create(&PostParams::default(), &crd).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_feature_is_written_where_it_was_asked_for() {
    let mut bench = Bench::new("t4").await;
    let sink = asked(Some(true), None);
    let kept = Kept::start(&bench, sink);
    kept.snapshot.send_replace(bench.look());
    until("the kind is missed", || async {
        kept.reason().as_deref() == Some("NoSuchKind")
    })
    .await;
    let told = bench.told();
    assert!(
        told.iter()
            .any(|text| text.contains("NodeFeature of this node can't be read")),
        "{told:?}"
    );
    define_features(&bench).await;
    let name = "nvidia-features-for-worker-1";
    until("it is there", || async {
        features(&bench).get_opt(name).await.unwrap().is_some()
    })
    .await;
    let object = features(&bench).get(name).await.unwrap();
    assert_eq!(object.data["spec"]["labels"][COUNT], "1");
    assert_eq!(object.data["spec"]["features"]["flags"], json!({}));
    let labels = object.metadata.labels.unwrap();
    assert_eq!(
        labels.get("nfd.node.kubernetes.io/node-name").map(String::as_str),
        Some(NODE)
    );
    let owners = object.metadata.owner_references.unwrap();
    assert_eq!((owners[0].kind.as_str(), owners[0].name.as_str()), ("Node", NODE));
    assert_eq!(
        says(&bench, COUNT).await,
        None,
        "Node Feature Discovery writes to the Node"
    );
    until("it is well", || async { kept.reason().is_none() }).await;
    let _ = writes(&bench);
    kept.offer.send_replace(Some(Offer {
        mig: MigStrategy::Single,
        ..Offer::default()
    }));
    let strategy = || async {
        features(&bench).get(name).await.unwrap().data["spec"]["labels"]["nvidia.com/mig.strategy"]
            == "single"
    };
    until("the strategy is said", strategy).await;
    assert_eq!(writes(&bench), 0);
    kept.end().await;
    give_up_node(bench.client(), NODE, false).await.unwrap();
    give_up_feature(bench.client(), NODE, "default", false)
        .await
        .unwrap();
    assert!(features(&bench).get_opt(name).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_file_is_written_where_it_was_asked_for_and_goes_with_the_agent() {
    let bench = Bench::new("t4").await;
    let path = "/etc/kubernetes/node-feature-discovery/features.d/gfd";
    let kept = Kept::start(&bench, asked(None, Some(path)));
    kept.snapshot.send_replace(bench.look());
    let file = bench.path(path);
    until("the file is there", || async { file.exists() }).await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("nvidia.com/gpu.count=1\n"), "{text}");
    assert!(text.lines().all(|line| line.split_once('=').is_some()), "{text}");
    let names = || std::fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(names(), 1, "nothing half written is left");
    quiet().await;
    assert_eq!(says(&bench, COUNT).await, None);
    kept.end().await;
    assert!(!file.exists());
    // As when the reference was told to look only once.
    let sink = Sink::File {
        path: path.into(),
        removed_at_end: false,
    };
    let kept = Kept::start(&bench, sink);
    kept.snapshot.send_replace(bench.look());
    until("the file is there again", || async { file.exists() }).await;
    kept.end().await;
    assert!(file.exists());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_can_not_be_written_is_told_and_tried_again() {
    let bench = Bench::new("t4").await;
    std::fs::write(bench.path("/etc"), "in the way").unwrap();
    let kept = Kept::start(&bench, asked(None, Some("/etc/features")));
    kept.snapshot.send_replace(bench.look());
    until("it is told", || async { kept.reason().is_some() }).await;
    std::fs::remove_file(bench.path("/etc")).unwrap();
    until("it is written", || async { bench.path("/etc/features").exists() }).await;
    until("it is well", || async { kept.reason().is_none() }).await;
}

#[test]
fn the_configuration_says_where_labels_go_as_with_gpu_feature_discovery_and_a_flag_stands_above_it() {
    let feature = Sink::NodeFeature {
        namespace: "default".to_owned(),
    };
    let file = |path: &str, removed_at_end| Sink::File {
        path: path.into(),
        removed_at_end,
    };
    assert_eq!(asked(None, None), Sink::Node);
    assert_eq!(asked(Some(false), None), Sink::Node);
    assert_eq!(asked(Some(true), Some("/a")), feature);
    assert_eq!(asked(Some(false), Some("/a")), file("/a", true));
    assert_eq!(asked(None, Some("/a")), file("/a", true));
    let mut flags = Flags {
        use_node_feature_api: Some(true),
        ..Flags::default()
    };
    let of = |kind, flags: &Flags| Outlet::of(kind, flags, "default");
    assert_eq!(of(Some(SinkKind::Node), &flags).sink, Sink::Node);
    assert_eq!(
        of(Some(SinkKind::File), &flags).sink,
        file(GfdFlags::OUTPUT_FILE, true)
    );
    assert!(of(None, &flags).timestamp);
    flags.gfd.no_timestamp = true;
    flags.gfd.output_file = Some("/b".into());
    assert_eq!(of(Some(SinkKind::NodeFeature), &flags).sink, feature);
    assert!(!of(None, &flags).timestamp);
    flags.gfd.sleep_interval = Interval::Infinite;
    assert_eq!(of(Some(SinkKind::File), &flags).sink, file("/b", false));
    flags.gfd.sleep_interval = Interval::from_nanos(1);
    flags.gfd.oneshot = true;
    assert_eq!(of(Some(SinkKind::File), &flags).sink, file("/b", false));
}

/// GPU Feature Discovery calls its object as we do.
#[tokio::test(start_paused = true)]
async fn a_node_feature_that_another_one_wrote_is_not_taken_away() {
    let mut bench = Bench::new("t4").await;
    define_features(&bench).await;
    let name = "nvidia-features-for-worker-1";
    let theirs = json!({
        "apiVersion": "nfd.k8s-sigs.io/v1alpha1", "kind": "NodeFeature",
        "metadata": {"name": name},
        "spec": {
            "features": {"attributes": {}, "flags": {}, "instances": {}},
            "labels": {"nvidia.com/gpu.machine": "theirs"},
        },
    });
    let theirs = serde_json::from_value(theirs).unwrap();
    features(&bench)
        .create(&by("gpu-feature-discovery"), &theirs)
        .await
        .unwrap();
    give_up_node(bench.client(), NODE, false).await.unwrap();
    give_up_feature(bench.client(), NODE, "default", false)
        .await
        .unwrap();
    assert!(features(&bench).get_opt(name).await.unwrap().is_some());
    // Both write there: only ours go.
    let kept = Kept::start(&bench, asked(Some(true), None));
    kept.snapshot.send_replace(bench.look());
    let says_ours = || async {
        features(&bench).get(name).await.unwrap().data["spec"]["labels"]
            .get(COUNT)
            .is_some()
    };
    until("ours is there", says_ours).await;
    kept.end().await;
    leave(&bench.deps, &asked(Some(true), None)).await;
    assert!(!says_ours().await);
    assert!(features(&bench).get_opt(name).await.unwrap().is_some());
    assert!(
        bench
            .told()
            .iter()
            .any(|text| text.contains("took ours from the NodeFeature"))
    );
}
