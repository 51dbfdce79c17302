//! What the agent has written at the API server, taken away: labels, condition and annotation of its Node, its `NodeFeature`,
//! its `GpuNode`, the `RuntimeClass` that nobody needs any more.
//!
//! Whose a thing is, the API server knows: it keeps who wrote which field. Each is taken away by itself, so that what can't
//! be (no such permission, say) keeps nothing else. The start-up taint is none of it: whoever set the node up put it
//! there, the agent only takes it off.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, Resource as _, ResourceExt as _};
use pitcrew_api::GpuNode;
use serde_json::json;

use crate::labels;
use crate::node::why;
use crate::runtime::restart::WANTED;
use crate::runtime::tier::HANDLER;
use crate::status::{MANAGER, NODE_CONDITION};

/// How long the API server may take for one thing.
const DEADLINE: Duration = Duration::from_secs(15);
/// How many pods are asked for at once.
const PAGE: u32 = 500;

/// What was taken away, and what stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was, or would be: as in `the labels of Node worker-1`.
    pub taken: Vec<String>,
    /// What could not be taken away, why, and how it goes: one sentence each, in lower case.
    pub left: Vec<String>,
    /// What stays as others need it, why, and how it goes: likewise.
    pub stays: Vec<String>,
}

/// What became of one thing.
enum Outcome {
    /// There is nothing of ours.
    Nothing,
    /// It was taken away, or would be.
    Taken,
    /// It stays, for this reason.
    Stays(String),
}

impl Outcome {
    fn of(was_there: bool) -> Self {
        if was_there { Self::Taken } else { Self::Nothing }
    }
}

/// What can't be done.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Takes away what the agent on `node` has written at the API server; `namespace` is the one that it ran in. With
/// `is_only_said`, nothing is changed.
pub async fn take_away(client: &Client, node: &str, namespace: &str, is_only_said: bool) -> Report {
    let our = Our {
        client,
        node,
        namespace,
        is_only_said,
    };
    let mut report = Report::default();
    let mut add = |what: String, how: &str, outcome: Result<Outcome, Failed>| match outcome {
        Ok(Outcome::Nothing) => {}
        Ok(Outcome::Taken) => report.taken.push(what),
        Ok(Outcome::Stays(why)) => report.stays.push(format!("{what}: {why}; {how}")),
        Err(error) => report.left.push(format!("{what}: {}; {how}", why(&*error))),
    };
    let by = |command: String| format!("by hand: `{command}`");
    add(
        format!("the labels of Node {node}"),
        &by(format!("kubectl label node {node} KEY-")),
        bounded(our.labels()).await,
    );
    add(
        format!("the annotation {WANTED} of Node {node}"),
        &by(format!("kubectl annotate node {node} {WANTED}-")),
        bounded(our.annotation()).await,
    );
    add(
        format!("the condition {NODE_CONDITION} of Node {node}"),
        "it says what was last seen, and nobody acts on it",
        bounded(our.condition()).await,
    );
    add(
        format!("the NodeFeature of {node} in namespace {namespace}"),
        &by(format!(
            "kubectl -n {namespace} delete nodefeature {}",
            labels::feature_name(node)
        )),
        bounded(our.feature()).await,
    );
    add(
        format!("GpuNode {node}"),
        &by(format!("kubectl delete gpunode {node}")),
        bounded(our.gpu_node()).await,
    );
    add(
        format!("RuntimeClass {HANDLER}"),
        &by(format!("kubectl delete runtimeclass {HANDLER}")),
        bounded(our.runtime_class()).await,
    );
    report
}

async fn bounded(act: impl Future<Output = Result<Outcome, Failed>>) -> Result<Outcome, Failed> {
    let done = tokio::time::timeout(DEADLINE, act).await;
    done.unwrap_or_else(|_| Err("the API server doesn't answer".into()))
}

struct Our<'a> {
    client: &'a Client,
    node: &'a str,
    namespace: &'a str,
    is_only_said: bool,
}

impl Our<'_> {
    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    async fn labels(&self) -> Result<Outcome, Failed> {
        let was_there = labels::give_up_node(self.client.clone(), self.node, self.is_only_said).await?;
        Ok(Outcome::of(was_there))
    }

    async fn annotation(&self) -> Result<Outcome, Failed> {
        let node = self.nodes().get_metadata_opt(self.node).await?;
        if !node.is_some_and(|node| node.annotations().contains_key(WANTED)) {
            return Ok(Outcome::Nothing);
        }
        if !self.is_only_said {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {WANTED: null}}}));
            let params = by_us();
            self.nodes().patch_metadata(self.node, &params, &patch).await?;
        }
        Ok(Outcome::Taken)
    }

    async fn condition(&self) -> Result<Outcome, Failed> {
        let Some(node) = self.nodes().get_opt(self.node).await? else {
            return Ok(Outcome::Nothing);
        };
        let is_there = node
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == NODE_CONDITION);
        if !is_there || managed(&node.metadata).all(|entry| !is_ours(entry)) {
            return Ok(Outcome::Nothing);
        }
        if !self.is_only_said {
            let patch = Patch::Apply(json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": self.node, "uid": node.metadata.uid},
            }));
            let params = PatchParams::apply(MANAGER).force();
            self.nodes().patch_status(self.node, &params, &patch).await?;
        }
        Ok(Outcome::Taken)
    }

    async fn feature(&self) -> Result<Outcome, Failed> {
        let client = self.client.clone();
        let was_there = labels::give_up_feature(client, self.node, self.namespace, self.is_only_said).await?;
        Ok(Outcome::of(was_there))
    }

    /// What somebody wants of the node is not ours: an object with a specification, or that others have a hold on, stays.
    async fn gpu_node(&self) -> Result<Outcome, Failed> {
        let gpu_nodes: Api<GpuNode> = Api::all(self.client.clone());
        let object = match gpu_nodes.get_opt(self.node).await {
            // There is no such kind: the API server says so in plain words, which are no `NotFound` to the client.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            object => object?,
        };
        let Some(object) = object else {
            return Ok(Outcome::Nothing);
        };
        let is_wanted = !object.spec.is_empty();
        if is_wanted || managed(&object.metadata).any(|entry| !is_ours(entry)) {
            let is_said = object.status.is_some() && managed(&object.metadata).any(is_ours);
            if is_said && !self.is_only_said {
                let patch = Patch::Apply(json!({
                    "apiVersion": GpuNode::api_version(&()),
                    "kind": GpuNode::kind(&()),
                    "metadata": {"name": self.node},
                }));
                let params = PatchParams::apply(MANAGER).force();
                gpu_nodes.patch_status(self.node, &params, &patch).await?;
            }
            return Ok(Outcome::Stays(
                "somebody wants something of this node by it, so that its status alone was taken away"
                    .to_owned(),
            ));
        }
        if !self.is_only_said {
            gpu_nodes.delete(self.node, &this(&object.metadata)).await?;
        }
        Ok(Outcome::Taken)
    }

    /// The class is the cluster's: it goes with the last node that has an agent, and with the last pod that names it.
    async fn runtime_class(&self) -> Result<Outcome, Failed> {
        let classes: Api<RuntimeClass> = Api::all(self.client.clone());
        let Some(class) = classes.get_opt(HANDLER).await? else {
            return Ok(Outcome::Nothing);
        };
        let mut managers = managed(&class.metadata).peekable();
        if managers.peek().is_none() || managers.any(|entry| !is_ours(entry)) {
            return Ok(Outcome::Nothing);
        }
        let gpu_nodes: Api<GpuNode> = Api::all(self.client.clone());
        let others = match gpu_nodes.list_metadata(&ListParams::default()).await {
            Ok(found) => found.items,
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if let Some(other) = others.iter().find(|other| other.name_any() != self.node) {
            let text = format!(
                "agents of other nodes need it, that of {} among them",
                other.name_any()
            );
            return Ok(Outcome::Stays(text));
        }
        if let Some(pod) = self.pod_of_class().await? {
            return Ok(Outcome::Stays(format!("the pod {pod} names it")));
        }
        if !self.is_only_said {
            classes.delete(HANDLER, &this(&class.metadata)).await?;
        }
        Ok(Outcome::Taken)
    }

    /// A pod of the cluster that names the class.
    async fn pod_of_class(&self) -> Result<Option<String>, Failed> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = pods.list(&params).await?;
            let found = page.items.iter().find(|pod| {
                let class = pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.runtime_class_name.as_deref());
                class == Some(HANDLER)
            });
            if let Some(pod) = found {
                let namespace = pod.namespace().unwrap_or_default();
                return Ok(Some(format!("{namespace}/{}", pod.name_any())));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(None),
            }
        }
    }
}

fn by_us() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// This very object, as it was seen: what somebody has written since stays.
fn this(metadata: &ObjectMeta) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
    })
}

fn managed(metadata: &ObjectMeta) -> impl Iterator<Item = &ManagedFieldsEntry> {
    metadata.managed_fields.iter().flatten()
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(MANAGER)
}

#[cfg(test)]
mod tests;
