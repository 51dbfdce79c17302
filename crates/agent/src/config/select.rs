//! Which of several configurations counts.

use std::collections::BTreeSet;

use super::LABEL;
use crate::snapshot::Problem;

/// The name that the fallback [`Fallback::Named`] looks for.
const NAMED: &str = "default";

/// What to take for a node without a label, where there is no default either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The configuration that is called `default`, if there is one.
    Named,
    /// The only one, if there is one only.
    Single,
    /// None: the defaults.
    Empty,
}

/// Who names the configuration of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'a> {
    /// The label [`LABEL`] of the Node.
    Label(&'a str),
    /// The `GpuNode`.
    Spec(&'a str),
}

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The configuration of this name.
    Named(&'a str),
    /// None: the defaults.
    Empty,
}

/// Why none could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unselected {
    /// The label names one that isn't there.
    #[error("label {LABEL} names configuration `{name}`, which isn't there; there {}", names(.there))]
    Label {
        /// What it names.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// The `GpuNode` names one that isn't there.
    #[error("the GpuNode names configuration `{name}`, which isn't there; there {}", names(.there))]
    Spec {
        /// What it names.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// The default is one that isn't there.
    #[error("the default configuration `{name}` isn't there; there {}", names(.there))]
    Default {
        /// What it is called.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// Neither label nor default, and no fallback applies.
    #[error("neither label {LABEL} nor a default says which configuration counts; there {}", names(.there))]
    Nothing {
        /// Those that are there.
        there: Vec<String>,
    },
}

fn names(names: &[String]) -> String {
    match names {
        [] => "is none".to_owned(),
        [name] => format!("is `{name}`"),
        several => {
            let names: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
            format!("are {}", names.join(", "))
        }
    }
}

/// Chooses: what is named for the node, else the default, else the first fallback that applies. A name of which there is
/// no configuration falls back to nothing.
pub fn select<'a>(
    names: &BTreeSet<&'a str>,
    by: Option<By<'_>>,
    default: Option<&str>,
    fallbacks: &[Fallback],
) -> Result<Choice<'a>, Unselected> {
    let there = || names.iter().map(|&name| name.to_owned()).collect();
    if let Some(by) = by {
        let (By::Label(name) | By::Spec(name)) = by;
        let found = names.get(name).map(|name| Choice::Named(name));
        let name = name.to_owned();
        return found.ok_or_else(|| match by {
            By::Label(_) => Unselected::Label { name, there: there() },
            By::Spec(_) => Unselected::Spec { name, there: there() },
        });
    }
    if let Some(name) = default.filter(|name| !name.is_empty()) {
        let found = names.get(name).map(|name| Choice::Named(name));
        return found.ok_or_else(|| Unselected::Default {
            name: name.to_owned(),
            there: there(),
        });
    }
    let applies = |fallback: &Fallback| match fallback {
        Fallback::Named => names.get(NAMED).map(|name| Choice::Named(name)),
        Fallback::Single => (names.len() == 1)
            .then(|| names.first().map(|name| Choice::Named(name)))
            .flatten(),
        Fallback::Empty => Some(Choice::Empty),
    };
    fallbacks
        .iter()
        .find_map(applies)
        .ok_or_else(|| Unselected::Nothing { there: there() })
}

impl Unselected {
    pub(super) fn problem(&self, source: &str, node: &str) -> Problem {
        let (reason, hint) = match self {
            Self::Label { .. } => (
                "ConfigUnknown",
                format!(
                    "name one that is there: `kubectl label node {node} {LABEL}=NAME --overwrite`, or add it"
                ),
            ),
            Self::Spec { .. } => (
                "ConfigUnknown",
                format!(
                    "name one that is there: `kubectl patch gpunode {node} --type=merge -p \
                     '{{\"spec\":{{\"config\":\"NAME\"}}}}'`, or add it"
                ),
            ),
            Self::Default { .. } => (
                "ConfigUnknown",
                "name a default that is there, or add it".to_owned(),
            ),
            Self::Nothing { .. } => (
                "ConfigNotChosen",
                format!("choose one: `kubectl label node {node} {LABEL}=NAME`"),
            ),
        };
        Problem {
            reason: reason.to_owned(),
            message: format!("of {source}, no configuration counts: {self}"),
            hint,
        }
    }
}
