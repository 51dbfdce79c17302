//! A node with the agent on it, and what tests wait for.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as Object;
use kube::Api;
use kube::api::{Patch, PatchParams};
use pitcrew_agent::config::Source;
use pitcrew_agent::settings::Pace;
use pitcrew_scenario::{Change, Scenario};
use pitcrew_sim::Node;
use serde_json::json;

pub(crate) const GPU: &str = "nvidia.com/gpu";
/// Longer than anything here takes, also on a machine that has much else to do.
pub(crate) const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(20);

/// A quick pace, so that a test needs no minutes.
pub(crate) const PACE: Pace = Pace {
    glance: Duration::from_millis(50),
    look: Duration::from_millis(500),
    look_closely: Duration::from_millis(100),
    gather: Duration::from_secs(5),
    driver_away: Duration::from_secs(3),
};

/// An imaginary node.
pub(crate) struct Bench {
    pub(crate) node: Node,
}

impl Bench {
    /// A node whose agent doesn't run yet.
    pub(crate) async fn new(scenario: &str) -> Self {
        let builder = Node::builder(Scenario::builtin(scenario).unwrap());
        let mut node = builder
            .deadline(Duration::from_millis(400))
            .start()
            .await
            .unwrap();
        let settings = node.settings_mut();
        settings.pace = PACE;
        settings.probation = Duration::from_millis(300);
        settings.sources.source = Source::Defaults;
        Self { node }
    }

    /// A node whose agent has handed its GPUs to the kubelet.
    pub(crate) async fn running(scenario: &str, gpus: usize) -> Self {
        let mut bench = Self::new(scenario).await;
        bench.node.start_agent().await;
        bench.has(GPU, gpus).await;
        bench
    }

    pub(crate) fn change(&self, change: &Change) {
        self.node.machine().change(change).unwrap();
    }

    /// Waits until the kubelet has so many of a resource to hand out.
    pub(crate) async fn has(&self, resource: &str, count: usize) {
        let waited = self.node.kubelet().wait_for(resource, count, LONG).await;
        assert!(
            waited.is_ok(),
            "{resource} should be {count}; the kubelet knows {:?}; the agent told:\n{}",
            self.node.kubelet().capacity(),
            self.told()
        );
    }

    /// All that the agent has told.
    pub(crate) fn told(&self) -> String {
        let notices = self.node.notices().all();
        let lines = notices
            .iter()
            .map(|notice| format!("{}: {}\n", notice.topic, notice.text));
        lines.collect()
    }

    /// Waits until the agent has told of something.
    pub(crate) async fn tells(&self, text: &str) {
        self.until(text, || self.told().contains(text)).await;
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waited = async {
            while !is_so() {
                tokio::time::sleep(SHORT).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waited).await;
        assert!(waited.is_ok(), "never: {what}; the agent told:\n{}", self.told());
    }

    /// The device plugin's specification.
    pub(crate) fn spec_path(&self) -> PathBuf {
        let dir = self.node.root().join("var/run/cdi");
        dir.join("k8s.device-plugin.nvidia.com-gpu.json")
    }

    /// Names of the devices in it; none where it isn't there.
    pub(crate) fn in_spec(&self) -> Vec<String> {
        let Ok(text) = std::fs::read_to_string(self.spec_path()) else {
            return Vec::new();
        };
        let spec: serde_json::Value = serde_json::from_str(&text).unwrap();
        let devices = spec["devices"].as_array().unwrap();
        devices
            .iter()
            .map(|device| device["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Sets a label of the Node, or takes it away.
    pub(crate) async fn label(&self, key: &str, value: Option<&str>) {
        let api: Api<Object> = Api::all(self.node.client().clone());
        let patch = json!({"metadata": {"labels": {key: value}}});
        api.patch(self.node.name(), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// Waits until the Node has this label.
    pub(crate) async fn has_label(&self, key: &str, value: &str) {
        let api: Api<Object> = Api::all(self.node.client().clone());
        let waited = async {
            loop {
                let node = api.get(self.node.name()).await.unwrap();
                let labels = node.metadata.labels.unwrap_or_default();
                if labels.get(key).is_some_and(|found| found == value) {
                    return;
                }
                tokio::time::sleep(SHORT).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waited).await;
        assert!(
            waited.is_ok(),
            "never: {key}={value}; the agent told:\n{}",
            self.told()
        );
    }

    /// Waits until the Node doesn't have this label.
    pub(crate) async fn lacks_label(&self, key: &str) {
        let api: Api<Object> = Api::all(self.node.client().clone());
        let waited = async {
            loop {
                let node = api.get(self.node.name()).await.unwrap();
                if !node.metadata.labels.unwrap_or_default().contains_key(key) {
                    return;
                }
                tokio::time::sleep(SHORT).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waited).await;
        assert!(waited.is_ok(), "{key} stayed; the agent told:\n{}", self.told());
    }

    /// UUIDs of the GPUs that the kubelet holds for unhealthy.
    pub(crate) fn unhealthy(&self, resource: &str) -> Vec<String> {
        let devices = self.node.kubelet().devices(resource);
        let sick = devices.into_iter().filter(|device| !device.healthy);
        sick.map(|device| device.id).collect()
    }
}
