//! What is wrong with a scenario, where, and the way on.

use std::path::PathBuf;

/// A scenario can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// No built-in scenario has this name.
    #[error("no scenario is called `{name}`{}", did_you_mean(near))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names that are spelled nearly so.
        near: Vec<String>,
    },
    /// No built-in host root has this name.
    #[error("no host root is called `{name}`{}", did_you_mean(near))]
    UnknownRoot {
        /// The name asked for.
        name: String,
        /// Names that are spelled nearly so.
        near: Vec<String>,
    },
    /// The file can't be read.
    #[error("cannot read the scenario `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not a scenario.
    #[error("{source_name}:{line}:{column}: {problem}")]
    Invalid {
        /// File or built-in name.
        source_name: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong, with the way on.
        problem: Problem,
    },
}

/// What is wrong at one place of a scenario.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// Not YAML, or not of the shape that a scenario has.
    #[error("{0} (`docs/scenarios.md` describes the format)")]
    Syntax(String),
    /// The catalogue has no such card.
    #[error(
        "the catalogue has no card `{card}`{} (`pitcrew gpus catalog` lists all)",
        did_you_mean(near)
    )]
    UnknownCard {
        /// The name given.
        card: String,
        /// Names that are spelled nearly so.
        near: Vec<String>,
    },
    /// No reading has this name.
    #[error("no reading is called `{field}`{}", did_you_mean(near))]
    UnknownReading {
        /// The name given.
        field: String,
        /// Names that are spelled nearly so.
        near: Vec<String>,
    },
    /// No call has this name.
    #[error("no call matches `{call}`{}", did_you_mean(near))]
    UnknownCall {
        /// The name given.
        call: String,
        /// Names that are spelled nearly so.
        near: Vec<String>,
    },
    /// A reading can't have this value.
    #[error("`{field}` must be {expected}, not {found}")]
    BadValue {
        /// Name of the field.
        field: String,
        /// What it must be.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A reading that follows from something else.
    #[error("`{field}` can't be set as a reading: {how}")]
    NotSettable {
        /// Name of the field.
        field: String,
        /// What to write instead.
        how: &'static str,
    },
    /// A process can't run there.
    #[error("processes: {0}")]
    Process(String),
    /// Two GPUs would be the same one.
    #[error("two GPUs have the {what} `{value}`; give each its own group, or leave it out")]
    Duplicate {
        /// Which reading.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The driver's order has no place for so many GPUs, or none were asked for.
    #[error("`count` must be 1 to 64, not {0}")]
    BadCount(i64),
    /// A node has at most 64 GPUs.
    #[error("a node has at most 64 GPUs, this one {0}")]
    TooManyGpus(usize),
    /// No GPUs at all.
    #[error("a scenario needs at least one GPU under `gpus`")]
    NoGpus,
    /// Two GPUs sit at one address.
    #[error("two GPUs have the PCI address {0}; give each its own under `pci`")]
    DuplicateAddress(String),
    /// The list of addresses has another length than the group.
    #[error("`pci` lists {given} addresses for {count} GPUs")]
    AddressCount {
        /// Addresses given.
        given: usize,
        /// GPUs in the group.
        count: usize,
    },
    /// No such MIG layout.
    #[error("MIG: {0}")]
    Mig(String),
    /// An entry of a host root can't be.
    #[error("{0}")]
    Root(String),
    /// The rows of the link matrix don't fit.
    #[error("links: {0}")]
    Links(String),
}

/// `; did you mean ...?`, or nothing.
fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let names: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
    format!("; did you mean {}?", names.join(" or "))
}

/// At most three of `known` that are spelled nearly as `name`, nearest first.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted = name.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(2);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = distance(&wanted, &lower);
            let contained = wanted.len() >= 3 && lower.contains(&wanted);
            (contained || distance <= limit).then_some((if contained { 0 } else { distance }, candidate))
        })
        .collect();
    near.sort_by_key(|&(distance, candidate)| (distance, candidate));
    let best = near.first().map_or(0, |&(distance, _)| distance);
    near.retain(|&(distance, _)| distance <= best + 1);
    near.dedup();
    near.into_iter()
        .take(3)
        .map(|(_, candidate)| candidate.to_owned())
        .collect()
}

/// Levenshtein's distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
