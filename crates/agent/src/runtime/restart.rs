//! Restarting a supervisor so that a handler becomes live: only where one really is missing and the owner allows it, one
//! node of the cluster at a time, servers last.
//!
//! [`next`] decides (pure); [`Restarter::tick`] sees, decides and acts, and writes down what it is about to do before it
//! does it: the agent may not outlive the restart, and the next one goes on from there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::tier::Handler;

mod cluster;
mod restarter;

pub use cluster::{Peer, WANTED, peers};
pub use restarter::{Restarter, Seen, Told, trap};

/// Name of the Lease.
pub const LEASE: &str = "pitcrew-restart";
/// How long the Lease lasts without being renewed: longer than a restart may take.
pub const LEASE_DURATION: Duration = Duration::from_mins(15);
/// How long a node may take from its restart to being ready with its handler.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// How often a restart is asked for, where the agent ended before it knew what came of it.
const MOST_ATTEMPTS: u32 = 2;

/// What the owner allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Consent {
    /// Restarting the supervisor of a node at all.
    pub restart: bool,
    /// Restarting the only server of the cluster, which has no API server meanwhile.
    pub only_server: bool,
}

/// How far a restart is, as it is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum State {
    /// None is under way.
    #[default]
    Idle,
    /// It is about to be asked for, or has been: what came of it isn't known.
    Restarting {
        /// The unit.
        unit: String,
        /// How often it was asked for.
        attempt: u32,
        /// Since when.
        since: Timestamp,
    },
    /// The supervisor runs again; the node isn't ready yet, or has no handler yet.
    Settling {
        /// The unit.
        unit: String,
        /// Since when.
        since: Timestamp,
    },
    /// It went wrong. It is not tried again by itself.
    Failed {
        /// The unit.
        unit: String,
        /// What went wrong.
        reason: String,
        /// Since when.
        since: Timestamp,
    },
}

/// What is known when the next step is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The handler, by the configuration in force.
    pub handler: Handler,
    /// The unit to restart.
    pub unit: Option<String>,
    /// What the owner allows.
    pub consent: Consent,
    /// Why the node would not come back as it is, from the rehearsal of its next start; `None` where it would.
    pub trap: Option<String>,
    /// The nodes of the cluster, this one among them; `None` where the API server doesn't answer.
    pub peers: Option<Vec<Peer>>,
    /// Name of this node.
    pub node: String,
    /// True where the Lease is ours.
    pub our_turn: bool,
    /// What came of the restart that was just asked for.
    pub outcome: Option<Result<(), String>>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// A restart is wanted and can't be now, for this reason.
    Wait(String),
    /// Asks for the Lease, or renews it.
    Acquire,
    /// Restarts the unit. The Lease is ours.
    Restart(String),
    /// Gives the Lease back.
    Release,
}

/// The next state, and what is to be done once it is written down.
pub fn next(state: &State, facts: &Facts, now: Timestamp) -> (State, Act) {
    let is_live = matches!(facts.handler, Handler::Live { .. });
    match state {
        State::Idle => idle(facts, now),
        State::Restarting { unit, attempt, .. } => {
            let unit = unit.clone();
            match &facts.outcome {
                Some(Ok(())) => (State::Settling { unit, since: now }, Act::Acquire),
                Some(Err(why)) => {
                    let reason = format!("`{unit}` could not be restarted: {why}");
                    (failed(unit, reason, now), Act::Release)
                }
                // The agent ended meanwhile; the restart may have happened, or not.
                None if is_live => (State::Settling { unit, since: now }, Act::Acquire),
                None if !facts.our_turn => (state.clone(), Act::Acquire),
                None if *attempt < MOST_ATTEMPTS => {
                    let attempt = attempt + 1;
                    let again = State::Restarting {
                        unit: unit.clone(),
                        attempt,
                        since: now,
                    };
                    (again, Act::Restart(unit))
                }
                None => {
                    let reason = format!("`{unit}` was restarted, and the handler is not there");
                    (failed(unit, reason, now), Act::Release)
                }
            }
        }
        State::Settling { unit, since } => {
            let is_ready = ready(facts);
            if is_live && is_ready == Some(true) {
                return (State::Idle, Act::Release);
            }
            if now.duration_since(*since) < PATIENCE {
                return (state.clone(), Act::Acquire);
            }
            let reason = if !is_live {
                format!("`{unit}` was restarted, and the handler is not there")
            } else if is_ready.is_none() {
                format!("`{unit}` was restarted, and the API server does not say that the node is ready")
            } else {
                format!("`{unit}` was restarted, and the node is not ready")
            };
            (failed(unit.clone(), reason, now), Act::Release)
        }
        // Somebody has mended it by hand.
        State::Failed { .. } if is_live && ready(facts) == Some(true) => (State::Idle, Act::Release),
        State::Failed { .. } => (state.clone(), Act::Nothing),
    }
}

fn failed(unit: String, reason: String, since: Timestamp) -> State {
    State::Failed { unit, reason, since }
}

fn idle(facts: &Facts, now: Timestamp) -> (State, Act) {
    if !matches!(facts.handler, Handler::Pending { .. }) || !facts.consent.restart {
        let act = if facts.our_turn {
            Act::Release
        } else {
            Act::Nothing
        };
        return (State::Idle, act);
    }
    match may(facts) {
        Err(why) => {
            // What holds us up may take long; others may go first.
            let act = if facts.our_turn {
                Act::Release
            } else {
                Act::Wait(why)
            };
            (State::Idle, act)
        }
        Ok(_) if !facts.our_turn => (State::Idle, Act::Acquire),
        Ok(unit) => {
            let restarting = State::Restarting {
                unit: unit.clone(),
                attempt: 1,
                since: now,
            };
            (restarting, Act::Restart(unit))
        }
    }
}

/// The unit, or why it may not be restarted now.
fn may(facts: &Facts) -> Result<String, String> {
    let unit = facts
        .unit
        .clone()
        .ok_or("it is not known which unit of systemd is to be restarted")?;
    if let Some(trap) = &facts.trap {
        return Err(format!(
            "this node would not come back as it is: {trap}; see `pitcrew check --next-boot`"
        ));
    }
    let peers = facts.peers.as_ref().ok_or("the API server doesn't answer")?;
    let own = peers.iter().find(|peer| peer.name == facts.node);
    let own = own.ok_or_else(|| format!("the cluster has no node {}", facts.node))?;
    let others = || peers.iter().filter(|peer| peer.name != facts.node);
    let servers: Vec<&Peer> = others().filter(|peer| peer.is_server).collect();
    let down: Vec<&str> = servers
        .iter()
        .filter(|peer| !peer.is_ready)
        .map(|peer| peer.name.as_str())
        .collect();
    if !own.is_server {
        return Ok(unit);
    }
    if servers.is_empty() && !facts.consent.only_server {
        return Err("this is the only server of the cluster, which needs a consent of its own".to_owned());
    }
    if !down.is_empty() {
        return Err(format!(
            "servers of the cluster are not ready: {}",
            down.join(", ")
        ));
    }
    // One that isn't ready may never come to its turn.
    let waiting = others().filter(|peer| !peer.is_server && peer.is_ready && peer.wants);
    let waiting: Vec<&str> = waiting.map(|peer| peer.name.as_str()).collect();
    if !waiting.is_empty() {
        return Err(format!(
            "servers come last, and these nodes wait too: {}",
            waiting.join(", ")
        ));
    }
    Ok(unit)
}

/// Whether this node is ready; `None` where nobody says.
fn ready(facts: &Facts) -> Option<bool> {
    let peers = facts.peers.as_ref()?;
    peers
        .iter()
        .find(|peer| peer.name == facts.node)
        .map(|peer| peer.is_ready)
}

/// Where the state is written down, below our directory.
pub fn state_path(home: &Path) -> PathBuf {
    home.join("restart.json")
}

/// Reads what was written down; nothing, where that can't be read.
pub fn parse_state(text: &[u8]) -> State {
    serde_json::from_slice(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
