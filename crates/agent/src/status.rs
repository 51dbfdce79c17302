//! What the agent says of its node: the `GpuNode`, a condition and Events of the Node, the start-up taint, marker files.
//!
//! What is said is pure: [`judge()`] gives what holds for a [`Snapshot`], [`status()`] the rest of the `GpuNode`'s
//! status, [`events::between`] what happened. [`keep()`] writes it.
//!
//! A node is ready when its driver answers, its container runtime can give a GPU to a container, and the kubelet knows
//! the devices. Health is said beside: a sick GPU is taken from pods, and the others stay ready.

pub mod events;
mod inventory;
mod judge;
mod keep;
pub mod markers;
mod proven;
mod request;
mod taint;
mod writer;

#[cfg(doc)]
use crate::snapshot::Snapshot;
pub use inventory::status;
pub use judge::{HANDLER_MISSING, HANDLER_PENDING, Judgement, REGISTERING, STARTING, judge};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use keep::keep;
use pitcrew_api::Condition;

/// Key of the taint that is taken off a node when it is ready, unless another one is asked for.
pub const STARTUP_TAINT: &str = "pitcrew.dev/not-ready";
/// Field manager of everything that is written here.
pub(crate) const MANAGER: &str = "pitcrew-agent";
/// Type of the Node's own condition: what the `GpuNode` says of health.
pub const NODE_CONDITION: &str = "GpuHealthy";

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
