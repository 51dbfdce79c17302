//! The objects of the API server that labels are written to.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::node::refusal;

use super::MANAGER;
use super::ledger::Plan;
use super::seen::{Place, Seen};

/// Kind of the objects that Node Feature Discovery makes labels of.
const FEATURE_KIND: &str = "NodeFeature";
const FEATURE_API: &str = "nfd.k8s-sigs.io/v1alpha1";
/// Label of such an object that names its node.
const FEATURE_NODE: &str = "nfd.node.kubernetes.io/node-name";

/// Where labels are written.
pub(super) enum Object {
    /// The Node.
    Node(Api<Node>, String),
    /// A `NodeFeature` of the node.
    Feature(Api<DynamicObject>, String),
}

/// Why they could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// There is no such Node, or not yet.
    #[error("there is no Node of this name")]
    NoNode,
    /// The API server doesn't answer.
    #[error("the API server doesn't answer")]
    Silent,
    /// The API server refused, or didn't answer.
    #[error("the API server refused or didn't answer")]
    Api(#[from] Box<kube::Error>),
}

impl Object {
    pub(super) fn node(client: Client, node: &str) -> Self {
        Self::Node(Api::all(client), node.to_owned())
    }

    pub(super) fn feature(client: Client, node: &str, namespace: &str) -> Self {
        let resource = ApiResource {
            group: "nfd.k8s-sigs.io".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: FEATURE_API.to_owned(),
            kind: FEATURE_KIND.to_owned(),
            plural: "nodefeatures".to_owned(),
        };
        Self::Feature(
            Api::namespaced_with(client, namespace, &resource),
            node.to_owned(),
        )
    }

    pub(super) fn is_feature(&self) -> bool {
        matches!(self, Self::Feature(..))
    }

    fn place(&self) -> Place {
        match self {
            Self::Node(..) => Place::Metadata,
            Self::Feature(..) => Place::Spec,
        }
    }

    /// What there is of a `NodeFeature`, whenever it changes; `None` for no such object. Never ends, and tries again after
    /// an error. The Node is followed elsewhere.
    pub(super) fn follow(&self) -> BoxStream<'static, Result<Option<Seen>, watcher::Error>> {
        let place = self.place();
        match self {
            Self::Node(..) => futures_util::stream::pending().boxed(),
            Self::Feature(api, node) => {
                let seen = move |object: DynamicObject| {
                    Seen::new(&object.metadata, labels_in(&object.data, place), place)
                };
                watcher::watch_object(api.clone(), &feature_name(node))
                    .default_backoff()
                    .map(move |object| object.map(|object| object.map(seen)))
                    .boxed()
            }
        }
    }

    /// Does what is planned; what there is afterwards.
    pub(super) async fn write(
        &self,
        plan: &Plan,
        seen: Option<&Seen>,
        node_uid: Option<&str>,
    ) -> Result<Seen, WriteError> {
        // Forced: that others don't mind, or have been told, is what the plan is about.
        let params = PatchParams::apply(MANAGER).force();
        match self {
            Self::Node(api, name) => {
                // Without the uid an apply would make a Node that isn't there.
                let uid = seen.map(|seen| seen.uid.as_str()).ok_or(WriteError::NoNode)?;
                self.take_away(plan, api, name).await?;
                let patch = json!({
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": name, "uid": uid, "labels": plan.apply},
                });
                let node = api.patch_metadata(name, &params, &Patch::Apply(&patch)).await;
                Ok(seen_of_node(&node.map_err(Box::new)?))
            }
            Self::Feature(api, node) => {
                let name = feature_name(node);
                if seen.is_some() {
                    self.take_away(plan, api, &name).await?;
                }
                let mut metadata = json!({"name": name, "labels": {FEATURE_NODE: node}});
                // It goes with its node. The reference's goes with its pod, and labels with it at each upgrade.
                if let Some(uid) = node_uid {
                    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid});
                    metadata["ownerReferences"] = json!([owner]);
                }
                let features = json!({"attributes": {}, "flags": {}, "instances": {}});
                let patch = json!({
                    "apiVersion": FEATURE_API,
                    "kind": FEATURE_KIND,
                    "metadata": metadata,
                    "spec": {"features": features, "labels": plan.apply},
                });
                let object = api.patch(&name, &params, &Patch::Apply(&patch)).await;
                let object = object.map_err(Box::new)?;
                let place = self.place();
                Ok(Seen::new(&object.metadata, labels_in(&object.data, place), place))
            }
        }
    }

    /// Labels that others own: giving up our own part would leave them.
    async fn take_away<K>(&self, plan: &Plan, api: &Api<K>, name: &str) -> Result<(), WriteError>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        if plan.remove.is_empty() {
            return Ok(());
        }
        let gone: BTreeMap<&String, Value> = plan.remove.iter().map(|key| (key, Value::Null)).collect();
        let patch = json!({self.place().parent(): {"labels": gone}});
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let done = api.patch_metadata(name, &params, &Patch::Merge(&patch)).await;
        done.map_err(Box::new)?;
        Ok(())
    }
}

pub(super) fn seen_of_node(node: &PartialObjectMeta<Node>) -> Seen {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    Seen::new(&node.metadata, labels, Place::Metadata)
}

/// As the reference calls it.
pub(crate) fn feature_name(node: &str) -> String {
    format!("nvidia-features-for-{node}")
}

fn labels_in(data: &Value, place: Place) -> BTreeMap<String, String> {
    let labels = data.get(place.parent()).and_then(|parent| parent.get("labels"));
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

impl Object {
    /// What it is, in words.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Node(..) => "the Node",
            Self::Feature(..) => "the NodeFeature",
        }
    }
}

/// True where the API server says that there is no such object, or another one of its name.
pub(super) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

/// A reason of one word, and the next step, for a write or a watch that failed.
pub(super) fn advice(error: &(dyn std::error::Error + 'static), node: &str) -> (&'static str, String) {
    match refusal(error).map(|status| status.code) {
        Some(403) => (
            "LabelsForbidden",
            "apply the agent's manifests again: its ClusterRole must allow to patch nodes (or nodefeatures)"
                .to_owned(),
        ),
        Some(404) => (
            "NoSuchKind",
            "install Node Feature Discovery, or leave `useNodeFeatureAPI` unset: labels then go to the Node"
                .to_owned(),
        ),
        _ => (
            "LabelsNotWritten",
            format!("see whether the API server answers: `kubectl get node {node}`"),
        ),
    }
}

/// Gives up all labels of a Node: for the end of the agent there, or another sink. What others have written stays. False
/// where there is none of ours; with `is_only_said` nothing is changed.
pub(crate) async fn give_up_node(
    client: Client,
    node: &str,
    is_only_said: bool,
) -> Result<bool, Box<kube::Error>> {
    let nodes: Api<Node> = Api::all(client);
    let Some(found) = nodes.get_metadata_opt(node).await.map_err(Box::new)? else {
        return Ok(false);
    };
    if seen_of_node(&found).ours.is_empty() {
        return Ok(false);
    }
    if is_only_said {
        return Ok(true);
    }
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node, "uid": found.metadata.uid},
    });
    let params = PatchParams::apply(MANAGER).force();
    let done = nodes.patch_metadata(node, &params, &Patch::Apply(&patch)).await;
    done.map_err(Box::new)?;
    Ok(true)
}

/// Deletes the `NodeFeature` that we made, or gives our labels in it up where others write there, too: GPU Feature
/// Discovery's is called the same. False where there is none of ours; with `is_only_said` nothing is changed.
pub(crate) async fn give_up_feature(
    client: Client,
    node: &str,
    namespace: &str,
    is_only_said: bool,
) -> Result<bool, Box<kube::Error>> {
    let object = Object::feature(client, node, namespace);
    let Object::Feature(api, _) = &object else {
        return Ok(false);
    };
    let name = feature_name(node);
    let found = match api.get_opt(&name).await {
        // There is no such kind: the API server says so in plain words, which are no `NotFound` to the client.
        Err(error) if is_gone(&error) => None,
        found => found.map_err(Box::new)?,
    };
    let Some(found) = found else {
        return Ok(false);
    };
    let seen = Seen::new(&found.metadata, labels_in(&found.data, Place::Spec), Place::Spec);
    if seen.ours.is_empty() {
        return Ok(false);
    }
    if is_only_said {
        return Ok(true);
    }
    let managers = found.metadata.managed_fields.iter().flatten();
    let is_shared = managers
        .into_iter()
        .any(|entry| entry.manager.as_deref() != Some(MANAGER));
    let done = if is_shared {
        let patch = json!({"apiVersion": FEATURE_API, "kind": FEATURE_KIND, "metadata": {"name": name}});
        let params = PatchParams::apply(MANAGER).force();
        let patched = api.patch_metadata(&name, &params, &Patch::Apply(&patch)).await;
        patched.map(|_| ())
    } else {
        let params = kube::api::DeleteParams::default().preconditions(kube::api::Preconditions {
            uid: found.metadata.uid.clone(),
            resource_version: None,
        });
        api.delete(&name, &params).await.map(|_| ())
    };
    match done {
        Err(error) if !is_gone(&error) => Err(Box::new(error)),
        _ => Ok(true),
    }
}
