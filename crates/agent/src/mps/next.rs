//! Which daemon of a resource should run now.

use std::collections::BTreeSet;

use super::Daemon;

/// What should run, given what runs (or ran before the agent started), what is wanted, and which GPUs pods hold through
/// MPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    /// The daemon that should run.
    pub(super) daemon: Option<Daemon>,
    /// True where another one is wanted, and waits for pods.
    pub(super) waits: bool,
}

/// A daemon whose GPUs somebody holds stays as it is.
pub(super) fn next(current: Option<&Daemon>, wanted: Option<&Daemon>, held: &BTreeSet<String>) -> Next {
    let is_held = |daemon: &Daemon| daemon.gpus.iter().any(|part| held.contains(&part.uuid));
    match current {
        Some(current) if wanted != Some(current) && is_held(current) => Next {
            daemon: Some(current.clone()),
            waits: true,
        },
        _ => Next {
            daemon: wanted.cloned(),
            waits: false,
        },
    }
}
