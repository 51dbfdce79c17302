//! Sees, decides, acts.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use pitcrew_core::ports::HostFs;
use pitcrew_host::Host;
use pitcrew_host::containerd::next_boot::{self, Verdict};
use serde_json::json;

use super::{
    Act, Consent, Facts, LEASE, LEASE_DURATION, State, WANTED, next, parse_state, peers, state_path,
};
use crate::deps::System;
use crate::runtime::install::{Executor, Step, StepError};
use crate::runtime::lease::{ClusterLease, Turn};
use crate::runtime::tier::{Handler, Way};
use crate::snapshot::Problem;

/// Restarts this node's supervisor when it must be and may be.
#[derive(Debug)]
pub struct Restarter {
    node: String,
    nodes: Api<Node>,
    lease: ClusterLease,
    root: PathBuf,
    path: PathBuf,
    state: State,
    our_turn: bool,
    marked: Option<bool>,
    told: Option<String>,
}

/// What is seen of the node at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The way of a GPU.
    pub way: &'a Way,
    /// Why the node would not come back, see [`trap`].
    pub trap: Option<&'a str>,
    /// What the owner allows.
    pub consent: Consent,
    /// Now, for what is written down.
    pub now: Timestamp,
}

/// What is to be told, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// As expected.
    Info(String),
    /// Somebody should look.
    Warning(String),
}

/// Why the node would not come back as it is after a restart, from the rehearsal of it; `None` where it would.
pub fn trap(host: &Host, fs: &dyn HostFs) -> Option<String> {
    let rehearsed = next_boot::plan(host, fs)?;
    let first = || rehearsed.problems.first().map(|problem| problem.what.clone());
    match rehearsed.verdict() {
        Verdict::ComesBack => None,
        Verdict::ComesBackWithout | Verdict::DoesNot | Verdict::CantTell => {
            Some(first().unwrap_or_else(|| "it can't be told".to_owned()))
        }
    }
}

impl Restarter {
    /// Goes on from what is written down below our directory on the host (`home`), whose root is mounted at `root`. The
    /// Lease is in this namespace.
    pub fn new(client: Client, namespace: &str, node: &str, root: &Path, home: &Path) -> Self {
        let path = state_path(home);
        let written = crate::runtime::install::read(root, &path);
        Self {
            node: node.to_owned(),
            nodes: Api::all(client.clone()),
            lease: ClusterLease::new(client, namespace, LEASE, node, LEASE_DURATION),
            root: root.to_owned(),
            path,
            state: written.map(|text| parse_state(&text)).unwrap_or_default(),
            our_turn: false,
            marked: None,
            told: None,
        }
    }

    /// How far it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is to be told of a restart that went wrong.
    pub fn problem(&self) -> Option<Problem> {
        let State::Failed { unit, reason, .. } = &self.state else {
            return None;
        };
        Some(Problem {
            reason: "RestartFailed".to_owned(),
            message: reason.clone(),
            hint: format!("journalctl -u {unit}, then systemctl restart {unit}"),
        })
    }

    /// One step: as long as a restart takes at most, else as long as the API server takes to answer. Call it again after
    /// some seconds while something is under way, and whenever the way of a GPU has changed.
    ///
    /// # Errors
    /// Where the state can't be written down: then nothing is done.
    pub async fn tick(&mut self, seen: &Seen<'_>, system: &dyn System) -> Result<Vec<Told>, StepError> {
        let mut told = Vec::new();
        let is_wanted = matches!(seen.way.handler, Handler::Pending { .. }) && seen.consent.restart;
        if self.state == State::Idle && !is_wanted && !self.our_turn {
            self.mark(false).await;
            return Ok(told);
        }
        // One that failed waits for a person, and nobody for it.
        self.mark(is_wanted && !matches!(self.state, State::Failed { .. }))
            .await;
        let listed = self.nodes.list(&ListParams::default()).await.ok();
        let mut facts = Facts {
            handler: seen.way.handler.clone(),
            unit: seen.way.unit.clone(),
            consent: seen.consent,
            trap: seen.trap.map(str::to_owned),
            peers: listed.map(|list| peers(&list.items)),
            node: self.node.clone(),
            our_turn: self.our_turn,
            outcome: None,
        };
        // Each round either ends here or changes what is known.
        loop {
            let (state, act) = next(&self.state, &facts, seen.now);
            self.put(state)?;
            facts.outcome = None;
            match act {
                Act::Nothing => return Ok(told),
                Act::Wait(why) => {
                    self.tell_once(
                        Told::Warning(format!("a restart is needed and must wait: {why}")),
                        &mut told,
                    );
                    return Ok(told);
                }
                Act::Acquire => {
                    let had_it = self.our_turn;
                    match self.lease.acquire(seen.now).await {
                        Ok(Turn::Ours) => self.our_turn = true,
                        Ok(Turn::Others(who)) => {
                            self.our_turn = false;
                            self.tell_once(
                                Told::Info(format!(
                                    "a restart is needed and must wait: it is the turn of {who}"
                                )),
                                &mut told,
                            );
                        }
                        // A server that restarts has no API server meanwhile.
                        Err(error) => self.tell_once(
                            Told::Warning(format!("the Lease {LEASE} can't be had: {error}")),
                            &mut told,
                        ),
                    }
                    facts.our_turn = self.our_turn;
                    if had_it || !self.our_turn {
                        return Ok(told);
                    }
                    // Others may have begun to fail between the list and our turn.
                    facts.peers = self
                        .nodes
                        .list(&ListParams::default())
                        .await
                        .ok()
                        .map(|list| peers(&list.items));
                    if matches!(self.state, State::Settling { .. }) {
                        return Ok(told);
                    }
                }
                Act::Restart(unit) => {
                    told.push(Told::Info(format!(
                        "restarting {unit}, so that the handler `nvidia` becomes live"
                    )));
                    let outcome = system.restart_unit(&unit).await;
                    facts.outcome = Some(outcome.map_err(|error| error.to_string()));
                }
                Act::Release => {
                    self.our_turn = false;
                    facts.our_turn = false;
                    // It is free when its time is over, if not now.
                    let _released = self.lease.release().await;
                    match &self.state {
                        State::Failed { reason, .. } => told.push(Told::Warning(reason.clone())),
                        _ if is_wanted => {}
                        _ => told.push(Told::Info("the handler `nvidia` is live".to_owned())),
                    }
                    self.mark(false).await;
                    return Ok(told);
                }
            }
        }
    }

    /// Writes the state down where it is another; nothing is there while nothing is under way.
    fn put(&mut self, state: State) -> Result<(), StepError> {
        if state == self.state {
            return Ok(());
        }
        let step = match &state {
            State::Idle => Step::remove(self.path.clone()),
            state => Step::write(&self.path, serde_json::to_string(state).unwrap_or_default()),
        };
        Executor::new(&self.root).step(&step)?;
        self.state = state;
        Ok(())
    }

    fn tell_once(&mut self, what: Told, told: &mut Vec<Told>) {
        let (Told::Info(text) | Told::Warning(text)) = &what;
        if self.told.as_ref() != Some(text) {
            self.told = Some(text.clone());
            told.push(what);
        }
    }

    /// Tells servers, which come last, that this node waits; takes that back when it doesn't any more.
    async fn mark(&mut self, wants: bool) {
        if self.marked == Some(wants) {
            return;
        }
        let value = wants.then_some("true");
        let patch = json!({"metadata": {"annotations": {WANTED: value}}});
        let params = PatchParams::default();
        let done = self.nodes.patch(&self.node, &params, &Patch::Merge(&patch)).await;
        // Tried again at the next step.
        self.marked = done.is_ok().then_some(wants);
    }
}
