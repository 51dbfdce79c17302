//! A cluster of one node in memory, and the agent's part that speaks to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use pitcrew_agent::deps::Deps;
use pitcrew_agent::notice::Notice;
use pitcrew_agent::settings::Settings;
use pitcrew_agent::snapshot::Snapshot;
use pitcrew_agent::status;
use pitcrew_api::condition::kind;
use pitcrew_api::{ConditionStatus, GpuNode, GpuNodeSpec};
use pitcrew_apiserver::ApiServer;
use pitcrew_core::ports::Clock;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::node;
pub(crate) use crate::nothing::Nothing;

pub(crate) const NODE: &str = "worker-1";

/// Seconds since 1970, as told.
pub(crate) struct Told(pub(crate) AtomicU64);

impl Clock for Told {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// A cluster of one node.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) root: tempfile::TempDir,
    pub(crate) clock: Arc<Told>,
}

/// An agent's part that says what holds.
pub(crate) struct Agent {
    pub(crate) snapshots: watch::Sender<Snapshot>,
    pub(crate) wanted: watch::Receiver<Option<GpuNodeSpec>>,
    pub(crate) notices: mpsc::UnboundedReceiver<Notice>,
    pub(crate) task: JoinHandle<()>,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let cluster = Self::without_definition().await;
        cluster.define().await;
        cluster
    }

    pub(crate) async fn without_definition() -> Self {
        let cluster = Self {
            server: ApiServer::new(),
            root: tempfile::tempdir().unwrap(),
            clock: Arc::new(Told(AtomicU64::new(1_000_000))),
        };
        cluster.register(json!([])).await;
        cluster
    }

    pub(crate) async fn define(&self) {
        for (_, definition) in pitcrew_api::definitions().unwrap() {
            let definition = serde_json::from_value(definition).unwrap();
            let crds: Api<CustomResourceDefinition> = Api::all(self.client());
            crds.create(&PostParams::default(), &definition).await.unwrap();
        }
    }

    pub(crate) async fn register(&self, taints: Value) {
        let node = json!({
            "metadata": {"name": NODE},
            "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let node: Node = serde_json::from_value(node).unwrap();
        self.nodes().create(&PostParams::default(), &node).await.unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.server.clone(), "default")
    }

    pub(crate) fn nodes(&self) -> Api<Node> {
        Api::all(self.client())
    }

    pub(crate) fn gpu_nodes(&self) -> Api<GpuNode> {
        Api::all(self.client())
    }

    pub(crate) async fn node(&self) -> Node {
        self.nodes().get(NODE).await.unwrap()
    }

    pub(crate) async fn taints(&self) -> Vec<String> {
        let taints = self.node().await.spec.and_then(|spec| spec.taints);
        taints.into_iter().flatten().map(|taint| taint.key).collect()
    }

    pub(crate) async fn events(&self) -> Vec<(String, i32)> {
        let events: Api<Event> = Api::namespaced(self.client(), "default");
        let mut events = events.list(&ListParams::default()).await.unwrap().items;
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        events
            .into_iter()
            .map(|event| {
                let count = event.series.map_or(1, |series| series.count);
                (event.reason.unwrap_or_default(), count)
            })
            .collect()
    }

    pub(crate) fn start(&self, snapshot: Snapshot) -> Agent {
        let (notices, told) = mpsc::unbounded_channel();
        let deps = Deps {
            settings: Settings::new(NODE),
            driver: Arc::new(Nothing),
            host: Arc::new(pitcrew_host::HostRoots::new(pitcrew_host::Roots::under("/"))),
            root: self.root.path().to_owned(),
            system: Arc::new(Nothing),
            prover: Arc::new(pitcrew_agent::deps::NoProver),
            client: Some(self.client()),
            clock: self.clock.clone(),
            notices,
        };
        start(deps, snapshot, told)
    }

    pub(crate) fn marker(&self, name: &str) -> PathBuf {
        self.root.path().join("run/nvidia/validations").join(name)
    }

    /// The `GpuNode`, as soon as it is as wanted; a minute at most, of paused time.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&GpuNode) -> bool) -> GpuNode {
        let mut last = None;
        for _ in 0..6000 {
            last = self.gpu_nodes().get_opt(NODE).await.ok().flatten();
            if let Some(found) = last.as_ref().filter(|object| wanted(object)) {
                return found.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited a minute for {what}: {last:#?}");
    }

    pub(crate) async fn until_ready(&self, status: ConditionStatus) -> GpuNode {
        let is = |object: &GpuNode| is_ready(object) == Some(status);
        self.until(&format!("Ready to be {status}"), is).await
    }
}

pub(crate) fn start(deps: Deps, snapshot: Snapshot, notices: mpsc::UnboundedReceiver<Notice>) -> Agent {
    let (snapshots, receiver) = watch::channel(snapshot);
    let (sender, wanted) = watch::channel(None::<GpuNodeSpec>);
    let task = tokio::spawn(async move { status::keep(&deps, receiver, sender).await });
    Agent {
        snapshots,
        wanted,
        notices,
        task,
    }
}

impl Agent {
    pub(crate) fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notices.try_recv().ok())
            .map(|notice| notice.text)
            .collect()
    }

    pub(crate) async fn stop(self) {
        drop(self.snapshots);
        self.task.await.unwrap();
    }
}

pub(crate) fn is_ready(object: &GpuNode) -> Option<ConditionStatus> {
    Some(object.status.as_ref()?.condition(kind::READY)?.status)
}

pub(crate) fn ready() -> Snapshot {
    node::registered(&node::worker("rtx3060"))
}

pub(crate) fn without_driver() -> Snapshot {
    node::looked(&node::root("no-driver"))
}

pub(crate) fn sick(why: &str) -> Snapshot {
    let mut snapshot = ready();
    let uuid = node::uuid(&snapshot, 0);
    snapshot.sick.insert(uuid, why.to_owned());
    snapshot
}

/// A while of paused time, in which everything settles.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}
