//! Pods of this node that wait for the runtime's handler.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::runtime::tier::HANDLER;
use crate::runtime::{Handler, Way};

/// How often they are looked for where a handler is to come, and where there is none and none will.
const SOON: Duration = Duration::from_secs(15);
const RARELY: Duration = Duration::from_mins(2);
/// How long the API server may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who looks for them, and when.
#[derive(Debug, Default)]
pub(super) struct Looker {
    last: Option<Instant>,
}

impl Looker {
    /// When to look next; `None` where pods that name the handler start.
    pub(super) fn due(&self, way: &Way) -> Option<Instant> {
        let every = match way.handler {
            Handler::Pending { .. } | Handler::Broken { .. } => SOON,
            Handler::Absent => RARELY,
            Handler::Live { .. } | Handler::Unknown(_) => return None,
        };
        Some(self.last.map_or_else(Instant::now, |last| last + every))
    }

    /// Looks: their names, `namespace/name`, in order.
    pub(super) async fn look(&mut self, client: Client, node: &str) -> Result<Vec<String>, Error> {
        self.last = Some(Instant::now());
        let looked = tokio::time::timeout(DEADLINE, look(client, node)).await;
        looked.map_err(|_| Error::Silent)?
    }
}

/// Why they are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server doesn't answer.
    #[error("the API server doesn't answer")]
    Silent,
    /// It refused.
    #[error("the API server refused or didn't answer")]
    Api(#[source] Box<kube::Error>),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

async fn look(client: Client, node: &str) -> Result<Vec<String>, Error> {
    let pods: Api<Pod> = Api::all(client.clone());
    // What the API server has in memory does: nobody is the worse for a name that comes a second late.
    let on_node = ListParams::default()
        .fields(&format!("spec.nodeName={node}"))
        .match_any();
    let pods = pods.list(&on_node).await?.items;
    let classes: Api<RuntimeClass> = Api::all(client);
    let mut handlers: BTreeMap<&str, bool> = BTreeMap::new();
    for class in pods.iter().filter_map(class_of) {
        if !handlers.contains_key(class) {
            let found = classes.get_opt(class).await?;
            handlers.insert(class, found.is_some_and(|found| found.handler == HANDLER));
        }
    }
    Ok(waiting(&pods, |class| {
        handlers.get(class).is_some_and(|ours| *ours)
    }))
}

/// The class of a pod that has not started yet: one whose containers run was started by a handler that there was.
fn class_of(pod: &Pod) -> Option<&str> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let class = pod.spec.as_ref()?.runtime_class_name.as_deref();
    class.filter(|_| phase.is_none_or(|phase| phase == "Pending"))
}

/// Those that have a class of our handler.
fn waiting(pods: &[Pod], is_ours: impl Fn(&str) -> bool) -> Vec<String> {
    let concerned = pods.iter().filter(|pod| class_of(pod).is_some_and(&is_ours));
    let name = |pod: &Pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default())
    };
    let mut names: Vec<String> = concerned.map(name).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, NODE};
    use kube::api::PostParams;
    use serde_json::json;

    async fn pod(bench: &Bench, name: &str, node: &str, class: Option<&str>, phase: &str) {
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": phase},
        });
        if let Some(class) = class {
            pod["spec"]["runtimeClassName"] = json!(class);
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let pods: Api<Pod> = Api::default_namespaced(bench.client());
        pods.create(&PostParams::default(), &pod).await.unwrap();
        pods.patch_status(
            name,
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(json!({"status": {"phase": phase}})),
        )
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn pods_of_this_node_that_have_not_started_and_name_the_handler_are_found_whatever_its_class_is_called()
     {
        let bench = Bench::new("t4").await;
        let classes: Api<RuntimeClass> = Api::all(bench.client());
        for (name, handler) in [("nvidia", "nvidia"), ("gpu", "nvidia"), ("gvisor", "runsc")] {
            let class = json!({"metadata": {"name": name}, "handler": handler});
            let class = serde_json::from_value(class).unwrap();
            classes.create(&PostParams::default(), &class).await.unwrap();
        }
        pod(&bench, "train", NODE, Some("nvidia"), "Pending").await;
        pod(&bench, "serve", NODE, Some("gpu"), "Pending").await;
        pod(&bench, "safe", NODE, Some("gvisor"), "Pending").await;
        pod(&bench, "no-such-class", NODE, Some("nobody"), "Pending").await;
        pod(&bench, "plain", NODE, None, "Pending").await;
        pod(&bench, "runs", NODE, Some("nvidia"), "Running").await;
        pod(&bench, "elsewhere", "worker-2", Some("nvidia"), "Pending").await;
        let found = Looker::default().look(bench.client(), NODE).await.unwrap();
        assert_eq!(found, ["default/serve", "default/train"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_where_the_handler_is_live() {
        let mut way = Way {
            tier: crate::runtime::Tier::Native,
            reason: String::new(),
            handler: Handler::Live {
                binary: "/usr/bin/x".into(),
            },
            is_default: false,
            unit: None,
        };
        let mut looker = Looker::default();
        assert_eq!(looker.due(&way), None);
        way.handler = Handler::Pending {
            binary: "/usr/bin/x".into(),
        };
        assert_eq!(looker.due(&way), Some(Instant::now()));
        looker.last = Some(Instant::now());
        assert_eq!(looker.due(&way), Some(Instant::now() + SOON));
    }
}
