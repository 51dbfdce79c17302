//! One pass over everything that an API server is told of a node: what differs is written, and nothing else.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource as _, ResourceExt as _};
use pitcrew_api::condition::kind;
use pitcrew_api::{ConditionStatus, GpuNode, GpuNodeStatus};
use serde_json::json;

use super::events::{self, Recorder};
use super::judge::{self, Judgement};
use super::keep::send;
use super::request::{Trouble, answered};
use super::{MANAGER, NODE_CONDITION, conditions, inventory, taint};
use crate::deps::Deps;
use crate::notice::{Level, Notice, Topic};
use crate::snapshot::Snapshot;

/// The `GpuNode` as it was last seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// It has to be read.
    Unknown,
    /// There is none.
    Absent,
    /// It is this one.
    There(Box<GpuNode>),
}

pub(super) struct Writer<'a> {
    deps: &'a Deps,
    name: &'a str,
    gpu_nodes: Api<GpuNode>,
    nodes: Api<Node>,
    recorder: Recorder,
    seen: Seen,
    /// The Node as it was last read; none where it has to be read again.
    node: Option<Node>,
    /// What was said last: times and Events are the difference to it.
    said: Option<GpuNodeStatus>,
    /// True when `said` is known: after the first look at the server.
    knows_before: bool,
    /// What was last written as status, and what the server made of it.
    written: Option<(GpuNodeStatus, Option<GpuNodeStatus>)>,
    /// The Node's condition as the server has it, as far as is known.
    node_condition: Option<NodeCondition>,
    /// Uids of the Nodes whose taint was lifted.
    lifted: BTreeSet<String>,
    /// True where it was told that the taint is back.
    told_of_taint: bool,
    was_ready: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(deps: &'a Deps, client: Client) -> Self {
        let name = deps.settings.node.as_str();
        Self {
            deps,
            name,
            gpu_nodes: Api::all(client.clone()),
            nodes: Api::all(client.clone()),
            recorder: Recorder::new(client, name),
            seen: Seen::Unknown,
            node: None,
            said: None,
            knows_before: false,
            written: None,
            node_condition: None,
            lifted: BTreeSet::new(),
            told_of_taint: false,
            was_ready: false,
        }
    }

    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Takes what a watch says. What isn't as it was left is read again first: a watch may be behind.
    pub(super) fn saw(&mut self, object: Option<GpuNode>) {
        let as_left = |object: &GpuNode| match &self.written {
            Some((_, answer)) => object.status == *answer,
            None => true,
        };
        self.seen = match object {
            Some(object) if as_left(&object) => Seen::There(Box::new(object)),
            Some(_) | None => Seen::Unknown,
        };
    }

    /// Everything is read again.
    pub(super) fn resync(&mut self) {
        self.seen = Seen::Unknown;
        self.node = None;
    }

    /// Makes everything as the snapshot has it. What fails doesn't keep the rest from being tried; the first that
    /// failed is what is returned.
    pub(super) async fn pass(&mut self, snapshot: &Snapshot, now: Time) -> Result<(), Trouble> {
        let judgements = judge::judge(snapshot);
        let is_ready = holds(&judgements, kind::READY);
        if is_ready && !self.was_ready {
            // A taint that came since the Node was read would stay until the next look.
            self.node = None;
        }
        self.was_ready = is_ready;

        let node = self.read_node().await;
        let object = match &node {
            Ok(()) => self.ensure_object().await,
            Err(_) => Ok(()),
        };
        let status = match &object {
            Ok(()) if self.knows_before => self.write_status(snapshot, judgements.clone(), &now).await,
            _ => Ok(()),
        };
        let (condition, taint) = match &node {
            Ok(()) => (
                self.write_node_condition(&judgements, &now).await,
                if is_ready { self.lift_taint().await } else { Ok(()) },
            ),
            Err(_) => (Ok(()), Ok(())),
        };
        let events = match &self.node {
            Some(node) => self.recorder.flush(node).await,
            None => Ok(()),
        };
        node.and(object).and(status).and(condition).and(taint).and(events)
    }

    async fn read_node(&mut self) -> Result<(), Trouble> {
        if self.node.is_some() {
            return Ok(());
        }
        let node = answered("to read the Node", self.nodes.get_opt(self.name)).await?;
        let node = node.ok_or_else(|| Trouble::NoNode(self.name.to_owned()))?;
        let conditions = node.status.iter().flat_map(|status| &status.conditions).flatten();
        self.node_condition = conditions
            .into_iter()
            .find(|it| it.type_ == NODE_CONDITION)
            .cloned();
        self.node = Some(node);
        Ok(())
    }

    /// Reads the object where it has to be, and makes it where there is none.
    async fn ensure_object(&mut self) -> Result<(), Trouble> {
        if matches!(self.seen, Seen::Unknown) {
            let found = answered("to read the GpuNode", self.gpu_nodes.get_opt(self.name)).await?;
            self.seen = found.map_or(Seen::Absent, |object| Seen::There(Box::new(object)));
        }
        if let Seen::Absent = self.seen {
            // It goes with its Node: it may be another one by now.
            self.node = None;
            self.read_node().await?;
            let Some(uid) = self.node.as_ref().and_then(kube::ResourceExt::uid) else {
                return Err(Trouble::NoNode(self.name.to_owned()));
            };
            let owner = OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: self.name.to_owned(),
                uid,
                ..OwnerReference::default()
            };
            let object = Patch::Apply(json!({
                "apiVersion": GpuNode::api_version(&()),
                "kind": GpuNode::kind(&()),
                "metadata": {"name": self.name, "ownerReferences": [owner]},
                "spec": {},
            }));
            let params = PatchParams::apply(MANAGER).force();
            let applied = self.gpu_nodes.patch(self.name, &params, &object);
            let object = answered("to make the GpuNode", applied).await;
            let object = object.map_err(without_definition)?;
            self.written = None;
            self.seen = Seen::There(Box::new(object));
        }
        if !self.knows_before
            && let Seen::There(object) = &self.seen
        {
            self.said.clone_from(&object.status);
            self.knows_before = true;
        }
        Ok(())
    }

    async fn write_status(
        &mut self,
        snapshot: &Snapshot,
        judgements: Vec<Judgement>,
        now: &Time,
    ) -> Result<(), Trouble> {
        let Seen::There(object) = &self.seen else {
            return Ok(());
        };
        let generation = object.metadata.generation;
        let before = self.said.as_ref();
        let conditions_before = before.map_or(&[][..], |said| &said.conditions);
        let status = GpuNodeStatus {
            observed_generation: generation,
            conditions: conditions(judgements, conditions_before, now, generation),
            ..inventory::status(snapshot)
        };
        self.recorder.add(events::between(before, &status), now.0);
        self.said = Some(status.clone());

        let is_as_left = self
            .written
            .as_ref()
            .is_some_and(|(written, answer)| *written == status && object.status == *answer);
        if object.status.as_ref() == Some(&status) || is_as_left {
            return Ok(());
        }
        let patch = Patch::Apply(json!({
            "apiVersion": GpuNode::api_version(&()),
            "kind": GpuNode::kind(&()),
            "metadata": {"name": self.name},
            "status": status,
        }));
        let params = PatchParams::apply(MANAGER).force();
        let applied = self.gpu_nodes.patch_status(self.name, &params, &patch);
        match answered("to write the GpuNode's status", applied).await {
            Ok(object) => {
                self.written = Some((status, object.status.clone()));
                self.seen = Seen::There(Box::new(object));
                Ok(())
            }
            Err(trouble) => {
                // Whether it was written can't be known, and it may be gone.
                self.seen = Seen::Unknown;
                Err(trouble)
            }
        }
    }

    /// The Node's own condition: what is said of health, where `kubectl describe node` and controllers look.
    async fn write_node_condition(&mut self, judgements: &[Judgement], now: &Time) -> Result<(), Trouble> {
        let Some(healthy) = judgements.iter().find(|it| it.kind == kind::HEALTHY) else {
            return Ok(());
        };
        let message = match &healthy.hint {
            Some(hint) => format!("{}; next: {hint}", healthy.message),
            None => healthy.message.clone(),
        };
        let status = healthy.status.to_string();
        let before = self.node_condition.as_ref();
        if before.is_some_and(|it| {
            it.status == status
                && it.reason.as_ref() == Some(&healthy.reason)
                && it.message.as_ref() == Some(&message)
        }) {
            return Ok(());
        }
        let since = before
            .filter(|it| it.status == status)
            .and_then(|it| it.last_transition_time.clone());
        let condition = NodeCondition {
            type_: NODE_CONDITION.to_owned(),
            status,
            reason: Some(healthy.reason.clone()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            last_heartbeat_time: Some(now.clone()),
        };
        let patch = Patch::Apply(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name},
            "status": {"conditions": [condition]},
        }));
        let params = PatchParams::apply(MANAGER).force();
        let applied = self.nodes.patch_status(self.name, &params, &patch);
        match answered("to write the Node's condition", applied).await {
            Ok(_) => {
                self.node_condition = Some(condition);
                Ok(())
            }
            Err(trouble) => {
                self.node = None;
                Err(trouble)
            }
        }
    }

    /// Takes the start-up taint off, once for each Node: who puts it there again wants it there.
    async fn lift_taint(&mut self) -> Result<(), Trouble> {
        let (Some(key), Some(node)) = (&self.deps.settings.startup_taint, &self.node) else {
            return Ok(());
        };
        let Some(patch) = taint::lift(node, key) else {
            return Ok(());
        };
        let uid = node.uid().unwrap_or_default();
        if self.lifted.contains(&uid) {
            if !self.told_of_taint {
                self.told_of_taint = true;
                self.tell(
                    Level::Warning,
                    format!(
                        "the taint `{key}` is on the node again after it was lifted: it is left to whoever put it \
                         there; kubectl taint node {} {key}-",
                        self.name
                    ),
                );
            }
            return Ok(());
        }
        let Ok(patch) = serde_json::from_value::<json_patch::Patch>(patch) else {
            return Ok(());
        };
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::<Node>::Json(patch);
        let patched = self.nodes.patch(self.name, &params, &patch);
        match answered("to lift the start-up taint", patched).await {
            Ok(node) => {
                self.lifted.insert(uid);
                self.node = Some(node);
                let text = format!("the taint `{key}` was lifted: the node is ready");
                self.tell(Level::Info, text);
                Ok(())
            }
            Err(trouble) => {
                // The list of taints has changed under the patch, most likely.
                self.node = None;
                Err(trouble)
            }
        }
    }

    fn tell(&self, level: Level, text: String) {
        send(
            self.deps,
            Notice {
                topic: Topic::Status,
                level,
                text,
            },
        );
    }
}

/// A 404 to an apply means that there is no such kind.
fn without_definition(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Refused {
            what,
            code: code @ 404,
            message,
            ..
        } => Trouble::Refused {
            what,
            code,
            message,
            hint: Some("the definition is missing: kubectl apply -f deploy/crds"),
        },
        other => other,
    }
}

fn holds(judgements: &[Judgement], kind: &str) -> bool {
    judgements
        .iter()
        .any(|it| it.kind == kind && it.status == ConditionStatus::True)
}
