//! What an upgrade of the distribution or of the driver would change on this node.
//!
//! Everything follows from the table of releases, the hardware chart and the node's facts. What isn't known is said to
//! be unknown; nothing is guessed.

mod distribution;
mod driver;
mod target;

use pitcrew_core::Inventory;
use pitcrew_core::ports::GpuError;
use pitcrew_host::Host;
use serde::Serialize;
pub use target::{Target, TargetError};

use crate::node::Node;

/// What an upgrade changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The worst that it does.
    pub effect: Effect,
    /// What it changes, and what it leaves, in the order in which to read them.
    pub changes: Vec<Change>,
}

impl Plan {
    /// The change of this id, if the plan has it.
    pub fn change(&self, id: &str) -> Option<&Change> {
        self.changes.iter().find(|change| change.id == id)
    }
}

/// What becomes of one thing, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It stays as it is.
    Same,
    /// It becomes another.
    Changes,
    /// It can't be told.
    Unknown,
    /// It works now and will not then.
    Breaks,
}

/// One thing before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Stable name, e.g. `cards`.
    pub id: &'static str,
    /// What it is about, in two or three words.
    pub title: &'static str,
    /// As it is.
    pub now: String,
    /// As it will be.
    pub then: String,
    /// What that means.
    pub effect: Effect,
    /// Why, or what to know, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Change {
    /// The same before and after, or another: told by comparing the words.
    fn compare(
        id: &'static str,
        title: &'static str,
        now: impl Into<String>,
        then: impl Into<String>,
    ) -> Self {
        let (now, then) = (now.into(), then.into());
        Self {
            id,
            title,
            effect: if now == then {
                Effect::Same
            } else {
                Effect::Changes
            },
            now,
            then,
            why: None,
            next: None,
        }
    }

    fn unknown(
        id: &'static str,
        title: &'static str,
        now: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self {
            id,
            title,
            now: now.into(),
            then: "can't tell".to_owned(),
            effect: Effect::Unknown,
            why: Some(why.into()),
            next: None,
        }
    }

    fn breaks(mut self) -> Self {
        self.effect = Effect::Breaks;
        self
    }

    fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// What an upgrade to `target` would change on this node.
pub fn plan(host: &Host, gpus: Result<&Inventory, &GpuError>, target: &Target) -> Plan {
    let node = Node::new(host, gpus);
    let mut changes = Vec::new();
    if let Some((kind, version)) = &target.distribution {
        changes.extend(distribution::changes(&node, *kind, version));
    }
    if let Some(driver) = &target.driver {
        changes.extend(driver::changes(&node, driver));
    }
    let worst = changes.iter().map(|change| change.effect).max();
    Plan {
        effect: worst.unwrap_or(Effect::Same),
        changes,
    }
}
