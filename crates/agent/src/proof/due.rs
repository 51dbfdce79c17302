//! When a GPU is to be proved. Pure.

use pitcrew_core::proof::Timestamp;

use super::{Policy, Standing};

/// Why a proof is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Somebody asked for it.
    Requested,
    /// None holds.
    Unproven,
    /// The last one is as old as it may become.
    Old,
}

/// Whether a GPU is due by what is asked for, and why. `answered` is true where the request was answered for this GPU;
/// `rests_until` is when it may be tried again by itself after attempts that gave no verdict.
///
/// A verdict against a GPU is no reason to try again: whoever wants that asks for it.
pub fn due(
    policy: &Policy,
    standing: &Standing,
    answered: bool,
    rests_until: Option<Timestamp>,
    now: Timestamp,
) -> Option<Due> {
    if policy.request.is_some() && !answered {
        return Some(Due::Requested);
    }
    if rests_until.is_some_and(|until| now < until) {
        return None;
    }
    let holds = matches!(standing, Standing::Proven(_) | Standing::Failed(_));
    if policy.when_unproven && !holds {
        return Some(Due::Unproven);
    }
    let every = policy.every?;
    let last = standing.proof().map(|proof| proof.started);
    let is_old = last.is_none_or(|last| u64::from(now.0.saturating_sub(last.0)) >= every.as_secs());
    is_old.then_some(Due::Old)
}
