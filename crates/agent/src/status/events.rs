//! Events of the Node: what changed, once each, counted when it comes again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use pitcrew_api::condition::kind;
use pitcrew_api::gpu_node::{Gpu, GpuHealth};
use pitcrew_api::{ConditionStatus, GpuNodeStatus};
use serde_json::json;

use super::inventory::SILENT;
use super::judge::{REGISTERING, STARTING};
use super::request::{self, Trouble};

/// Who reports.
const CONTROLLER: &str = "pitcrew.dev/agent";
/// Where Events of Nodes are.
const NAMESPACE: &str = "default";
/// What comes again within this time is counted instead of written anew.
const SERIES: Duration = Duration::from_mins(10);
/// Most Events that wait for an API server; the oldest go first.
const MOST_WAITING: usize = 32;
/// Longest note, in bytes (`events.k8s.io/v1`).
const LONGEST_NOTE: usize = 1024;

/// Something that happened to a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Happening {
    /// True where somebody should look.
    pub is_warning: bool,
    /// One word of camel case.
    pub reason: String,
    /// For people: what, and what to do.
    pub note: String,
}

/// What happened between two statuses. Nothing that only passes: a start, a registration that is under way.
pub fn between(before: Option<&GpuNodeStatus>, now: &GpuNodeStatus) -> Vec<Happening> {
    let mut happened = Vec::new();
    for condition in &now.conditions {
        let old = before.and_then(|before| before.condition(&condition.kind));
        let same_status = old.is_some_and(|old| old.status == condition.status);
        let same = same_status && old.is_some_and(|old| old.reason == condition.reason);
        let passes = [STARTING, REGISTERING].contains(&condition.reason.as_str());
        let told_by_gpus = [kind::HEALTHY, kind::PROVEN].contains(&condition.kind.as_str());
        match condition.status {
            ConditionStatus::True if condition.kind == kind::READY && !same_status => {
                happened.push(Happening {
                    is_warning: false,
                    reason: "GpusReady".to_owned(),
                    note: condition.message.clone(),
                });
            }
            ConditionStatus::False | ConditionStatus::Unknown
                if condition.kind != kind::READY && !told_by_gpus && !same && !passes =>
            {
                happened.push(Happening {
                    is_warning: true,
                    reason: condition.reason.clone(),
                    note: advised(
                        &format!("{}: {}", condition.kind, condition.message),
                        condition.hint.as_deref(),
                    ),
                });
            }
            _ => {}
        }
    }
    happened.extend(of_gpus(before, now));
    happened
}

/// A GPU that fell ill, for which reason, and one that came back.
fn of_gpus(before: Option<&GpuNodeStatus>, now: &GpuNodeStatus) -> Vec<Happening> {
    let mut happened = Vec::new();
    for gpu in &now.gpus {
        let old = before.and_then(|before| before.gpus.iter().find(|old| old.pci == gpu.pci));
        let is_silent = |gpu: &Gpu| {
            let reason = gpu.reason.as_deref().unwrap_or_default();
            gpu.health == GpuHealth::Unknown && reason.starts_with(SILENT)
        };
        let was_ill = old.is_some_and(|old| old.health == GpuHealth::Unhealthy || is_silent(old));
        let name = name(gpu);
        let is_new = !was_ill || old.is_some_and(|old| old.reason != gpu.reason);
        let mut ill = |reason: &str| {
            let why = gpu.reason.as_deref().unwrap_or("no reason is known");
            happened.push(Happening {
                is_warning: true,
                reason: reason.to_owned(),
                note: advised(&format!("{name}: {why}"), gpu.hint.as_deref()),
            });
        };
        match gpu.health {
            GpuHealth::Unhealthy if is_new => ill("GpuUnhealthy"),
            GpuHealth::Unknown if is_silent(gpu) && is_new => ill("GpuSilent"),
            GpuHealth::Healthy | GpuHealth::Degraded if was_ill => happened.push(Happening {
                is_warning: false,
                reason: "GpuRecovered".to_owned(),
                note: format!("{name} can be used again"),
            }),
            _ => {}
        }
    }
    happened.extend(of_proofs(before, now));
    happened
}

/// A verdict that is new. The first status that is known tells of none: they were told of when they were new.
fn of_proofs(before: Option<&GpuNodeStatus>, now: &GpuNodeStatus) -> Vec<Happening> {
    let Some(before) = before else { return Vec::new() };
    let told = |gpu: &Gpu| {
        let proof = gpu.proof.as_ref()?;
        let old = before.gpus.iter().find(|old| old.pci == gpu.pci);
        let old = old.and_then(|old| old.proof.as_ref());
        if old.is_some_and(|old| old.started == proof.started && old.verdict == proof.verdict) {
            return None;
        }
        let name = name(gpu);
        let is_good = ["PASS", "WARN"].contains(&proof.verdict.as_str());
        let why = proof
            .reason
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        let what = format!("{name}: {} after {} s{why}", proof.verdict, proof.seconds);
        Some(Happening {
            is_warning: !is_good,
            reason: if is_good { "GpuProven" } else { "GpuNotProven" }.to_owned(),
            note: advised(&what, proof.hint.as_deref()),
        })
    };
    now.gpus.iter().filter_map(told).collect()
}

fn name(gpu: &Gpu) -> String {
    format!("GPU {} ({})", gpu.index, gpu.uuid.as_deref().unwrap_or(&gpu.pci))
}

/// A note that is not too long, whose advice is never what is cut.
fn advised(what: &str, hint: Option<&str>) -> String {
    let hint = hint.map_or_else(String::new, |hint| format!("; next: {hint}"));
    let room = LONGEST_NOTE.saturating_sub(hint.len());
    let mut note = cut(what, room).to_owned();
    note.push_str(&hint);
    cut(&note, LONGEST_NOTE).to_owned()
}

/// The beginning of a text, at most so many bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// What was written, to be counted on.
struct Series {
    name: String,
    count: i32,
    last: Timestamp,
}

/// Writes Events, keeping those that an API server doesn't take until it does.
pub(super) struct Recorder {
    api: Api<Event>,
    node: String,
    waiting: VecDeque<(Happening, Timestamp, String)>,
    series: HashMap<Happening, Series>,
    written: u64,
}

impl Recorder {
    pub(super) fn new(client: Client, node: &str) -> Self {
        Self {
            api: Api::namespaced(client, NAMESPACE),
            node: node.to_owned(),
            waiting: VecDeque::new(),
            series: HashMap::new(),
            written: 0,
        }
    }

    /// Takes what happened, to be written when the server can be reached.
    pub(super) fn add(&mut self, happened: Vec<Happening>, now: Timestamp) {
        for it in happened {
            // The name is made here: an answer that got lost doesn't make two of it.
            let name = format!(
                "{}.{:x}.{}",
                cut(&self.node, 200),
                now.as_nanosecond(),
                self.written
            );
            self.written += 1;
            self.waiting.push_back((it, now, name));
        }
        while self.waiting.len() > MOST_WAITING {
            self.waiting.pop_front();
        }
    }

    /// Writes what waits.
    pub(super) async fn flush(&mut self, node: &Node) -> Result<(), Trouble> {
        while let Some((happening, at, name)) = self.waiting.front().cloned() {
            self.write(node, &happening, at, name).await?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    async fn write(
        &mut self,
        node: &Node,
        happening: &Happening,
        at: Timestamp,
        name: String,
    ) -> Result<(), Trouble> {
        let fresh = |series: &Series| at.duration_since(series.last).unsigned_abs() < SERIES;
        if let Some(series) = self.series.get_mut(happening).filter(|series| fresh(series)) {
            let patch = Patch::Merge(json!({"series": EventSeries {
                count: series.count + 1,
                last_observed_time: MicroTime(at),
            }}));
            let params = PatchParams::default();
            let patched = self.api.patch(&series.name, &params, &patch);
            match request::answered("to count an Event", patched).await {
                Ok(_) => {
                    series.count += 1;
                    series.last = at;
                    return Ok(());
                }
                // It has expired.
                Err(trouble) if trouble.is_absent() => {}
                Err(trouble) => return Err(trouble),
            }
        }
        let event = self.event(node, happening, at, name.clone());
        let params = PostParams::default();
        let created = self.api.create(&params, &event);
        match request::answered("to write an Event", created).await {
            Ok(_) => {}
            Err(trouble) if trouble.is_conflict() => {}
            Err(trouble) => return Err(trouble),
        }
        self.series
            .retain(|_, series| at.duration_since(series.last).unsigned_abs() < SERIES);
        self.series.insert(
            happening.clone(),
            Series {
                name,
                count: 1,
                last: at,
            },
        );
        Ok(())
    }

    fn event(&self, node: &Node, happening: &Happening, at: Timestamp, name: String) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(at)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(cut(&self.node, 128).to_owned()),
            action: Some("Watch".to_owned()),
            reason: Some(cut(&happening.reason, 128).to_owned()),
            note: Some(happening.note.clone()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(self.node.clone()),
                uid: node.uid(),
                ..ObjectReference::default()
            }),
            type_: Some(if happening.is_warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}
