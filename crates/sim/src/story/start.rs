//! From the agent's start to a node that is ready.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::Api;
use pitcrew_agent::Topic;
use pitcrew_api::condition::kind;
use pitcrew_api::gpu_node::Tier;
use pitcrew_api::{ConditionStatus, GpuNode};
use pitcrew_cdi::directories::{DEFAULT, Directories};

use super::{Failure, Story};
use crate::node::Node;

/// Labels that are shown of all that there are.
const SHOWN_LABELS: [&str; 6] = [
    "nvidia.com/gpu.product",
    "nvidia.com/gpu.count",
    "nvidia.com/gpu.memory",
    "nvidia.com/gpu.replicas",
    "nvidia.com/cuda.driver-version.full",
    "nvidia.com/mig.capable",
];

impl Story<'_> {
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        self.chapter("the agent starts");
        self.node.start_agent().await;
        for (topic, name, what) in [
            (Topic::Node, "node", "finding the distribution"),
            (Topic::Gpus, "gpus", "finding the GPUs"),
        ] {
            let found = async |node: &mut Node| {
                let notices = node.notices().all();
                let first = notices.into_iter().find(|notice| notice.topic == topic);
                first
                    .map(|notice| notice.text)
                    .ok_or_else(|| "the agent has told nothing of it".to_owned())
            };
            let text = self.until(what, found).await?;
            self.seen(name, text, Vec::new());
        }
        self.specification().await?;
        self.resources().await?;
        self.labels().await?;
        self.ready().await
    }

    async fn specification(&mut self) -> Result<(), Failure> {
        let what = "writing a CDI specification that container runtimes take";
        let (path, devices) = self
            .until(what, async |node| {
                let read = Directories::read(node.files(), &DEFAULT);
                let devices = read.devices();
                let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for (name, file) in &devices.found {
                    let path = file.path.display().to_string();
                    files.entry(path).or_default().push(name.to_string());
                }
                let refused = read.files.iter().find_map(|file| {
                    let refusal = file.spec.as_ref().err()?;
                    Some(format!("{} is refused: {refusal}", file.path.display()))
                });
                files
                    .pop_first()
                    .ok_or_else(|| refused.unwrap_or_else(|| "no device is in /var/run/cdi".to_owned()))
            })
            .await?;
        self.seen("cdi", format!("{path} gives containers"), devices);
        Ok(())
    }

    async fn resources(&mut self) -> Result<(), Failure> {
        let what = "registering resources at the kubelet";
        let resources = self
            .until(what, async |node| {
                let resources = node.resources();
                if resources.values().any(|devices| !devices.is_empty()) {
                    Ok(resources)
                } else {
                    Err("the kubelet knows no device".to_owned())
                }
            })
            .await?;
        let counts: Vec<String> = resources
            .iter()
            .map(|(name, devices)| format!("{name}: {}", devices.len()))
            .collect();
        self.seen("kubelet", format!("knows {}", counts.join(", ")), Vec::new());
        Ok(())
    }

    async fn labels(&mut self) -> Result<(), Failure> {
        let what = "labelling the Node";
        let labels = self
            .until(what, async |node| {
                let nodes: Api<ApiNode> = Api::all(node.client().clone());
                let found = nodes.get(node.name()).await.map_err(|error| error.to_string())?;
                let labels = found.metadata.labels.unwrap_or_default();
                if labels.contains_key("nvidia.com/gpu.product") {
                    Ok(labels)
                } else {
                    Err("the Node has no `nvidia.com/gpu.product`".to_owned())
                }
            })
            .await?;
        let ours = labels.keys().filter(|key| key.starts_with("nvidia.com/")).count();
        let shown = SHOWN_LABELS
            .iter()
            .filter_map(|key| Some(format!("{key}={}", labels.get(*key)?)))
            .collect();
        let name = self.node.name().to_owned();
        self.seen("labels", format!("{ours} of nvidia.com on Node {name}"), shown);
        Ok(())
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let what = "the GpuNode being ready";
        let conditions = self
            .until(what, async |node| {
                let nodes: Api<GpuNode> = Api::all(node.client().clone());
                let found = nodes.get(node.name()).await.map_err(|error| error.to_string())?;
                let status = found.status.unwrap_or_default();
                let Some(ready) = status.condition(kind::READY) else {
                    return Err("the GpuNode has no condition `Ready`".to_owned());
                };
                if ready.status != ConditionStatus::True {
                    return Err(format!("{}: {}", ready.reason, ready.message));
                }
                // What is still to come of the runtime, such as a handler that waits for its next start, is no news here.
                let runtime = status.tier.map(|tier| match tier {
                    Tier::Native => "containers get their GPUs by native CDI",
                    Tier::Mounts => "containers get their GPUs by device nodes and mounts",
                    Tier::Handler => "containers get their GPUs through a handler",
                });
                let conditions = [kind::DRIVER_READY, kind::RUNTIME_READY, kind::DEVICES_ADVERTISED];
                let told = conditions.iter().filter_map(|kind| status.condition(kind));
                Ok(told
                    .map(|found| {
                        let text = runtime.filter(|_| found.kind == kind::RUNTIME_READY);
                        let text = text.unwrap_or(&found.message);
                        format!("{}={}: {text}", found.kind, found.status)
                    })
                    .collect())
            })
            .await?;
        let name = self.node.name().to_owned();
        self.seen("ready", format!("GpuNode {name} is Ready"), conditions);
        Ok(())
    }
}
