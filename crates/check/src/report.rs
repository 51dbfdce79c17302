//! What a check says: findings, and what they come to.

use std::fmt;

use serde::Serialize;

use crate::path::GpuPath;

/// What a node looks like to a GPU pod that is about to land on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it all comes to.
    pub outcome: Outcome,
    /// How a GPU would reach a container.
    pub path: GpuPath,
    /// How many findings there are of each verdict.
    pub counts: Counts,
    /// Every check, in the order in which to read them.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(path: GpuPath, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.topic);
        Self {
            outcome: Outcome::of(&findings),
            path,
            counts: Counts::of(&findings),
            findings,
        }
    }

    /// The finding of this id, if the check said anything.
    pub fn finding(&self, id: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.id == id)
    }
}

/// What a report comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing stands in the way.
    Ready,
    /// GPU pods will run; something deserves attention.
    ReadyWithRemarks,
    /// Something that GPU pods need is missing or wrong.
    NotReady,
    /// Something that decides could not be read.
    CouldNotTell,
}

impl Outcome {
    /// A failure is certain and outranks what is unknown; what is unknown counts where readiness hangs on it.
    fn of(findings: &[Finding]) -> Self {
        let has = |wanted: &dyn Fn(&Finding) -> bool| findings.iter().any(wanted);
        if has(&|it| it.verdict == Verdict::Failure) {
            Self::NotReady
        } else if has(&|it| it.verdict == Verdict::Unknown && it.decisive) {
            Self::CouldNotTell
        } else if has(&|it| matches!(it.verdict, Verdict::Warning | Verdict::Unknown)) {
            Self::ReadyWithRemarks
        } else {
            Self::Ready
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::ReadyWithRemarks => "ready with remarks",
            Self::NotReady => "not ready",
            Self::CouldNotTell => "could not tell",
        })
    }
}

/// How many findings there are of each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// As it should be.
    pub ok: usize,
    /// Worth knowing.
    pub note: usize,
    /// Deserves attention.
    pub warning: usize,
    /// Stands in the way.
    pub failure: usize,
    /// Could not be read.
    pub unknown: usize,
    /// Means nothing on this node.
    pub not_applicable: usize,
}

impl Counts {
    fn of(findings: &[Finding]) -> Self {
        let count = |verdict| findings.iter().filter(|it| it.verdict == verdict).count();
        Self {
            ok: count(Verdict::Ok),
            note: count(Verdict::Note),
            warning: count(Verdict::Warning),
            failure: count(Verdict::Failure),
            unknown: count(Verdict::Unknown),
            not_applicable: count(Verdict::NotApplicable),
        }
    }
}

/// What a check is about. The order is that of reading: from the card up to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// The cards on the PCI bus.
    Hardware,
    /// NVIDIA's driver.
    Driver,
    /// Device nodes.
    Devices,
    /// Operating system and kernel.
    System,
    /// What may forbid what mode bits allow.
    Security,
    /// The Kubernetes distribution.
    Kubernetes,
    /// The container runtime.
    Runtime,
    /// Container Device Interface.
    Cdi,
    /// Other software that configures GPUs.
    Others,
    /// Ways to share the cards.
    Sharing,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hardware => "Hardware",
            Self::Driver => "Driver",
            Self::Devices => "Device nodes",
            Self::System => "System",
            Self::Security => "Security",
            Self::Kubernetes => "Kubernetes",
            Self::Runtime => "Container runtime",
            Self::Cdi => "CDI",
            Self::Others => "Other GPU software",
            Self::Sharing => "Sharing",
        })
    }
}

/// What one check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing to do.
    Note,
    /// GPU pods run, and something deserves attention.
    Warning,
    /// GPU pods will not run, or the node will not come back.
    Failure,
    /// Could not be read.
    Unknown,
    /// Means nothing on this node.
    NotApplicable,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name, e.g. `driver.nouveau`.
    pub id: &'static str,
    /// What it is about.
    pub topic: Topic,
    /// The check in two or three words.
    pub title: &'static str,
    /// Files and questions that the answer comes from.
    pub looked_at: String,
    /// What was found there.
    pub found: String,
    /// What that means.
    pub verdict: Verdict,
    /// Why, in one sentence; absent where there is nothing to explain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The next command for this operating system and distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What to mind before running it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub care: Option<String>,
    /// True where the node's readiness hangs on it: an unknown value then makes the outcome "could not tell".
    pub decisive: bool,
}

/// A check before its answer.
pub(crate) struct Question {
    id: &'static str,
    topic: Topic,
    title: &'static str,
    looked_at: String,
}

/// Asks: `title` at most 22 characters, so that it fits the view's column.
pub(crate) fn question(
    topic: Topic,
    id: &'static str,
    title: &'static str,
    looked_at: impl Into<String>,
) -> Question {
    Question {
        id,
        topic,
        title,
        looked_at: looked_at.into(),
    }
}

impl Question {
    fn answer(self, verdict: Verdict, found: impl Into<String>, why: Option<String>) -> Finding {
        Finding {
            id: self.id,
            topic: self.topic,
            title: self.title,
            looked_at: self.looked_at,
            found: found.into(),
            verdict,
            why,
            next: None,
            care: None,
            decisive: true,
        }
    }

    pub(crate) fn ok(self, found: impl Into<String>) -> Finding {
        self.answer(Verdict::Ok, found, None)
    }

    pub(crate) fn note(self, found: impl Into<String>, why: impl Into<String>) -> Finding {
        self.answer(Verdict::Note, found, Some(why.into()))
    }

    pub(crate) fn warning(self, found: impl Into<String>, why: impl Into<String>) -> Finding {
        self.answer(Verdict::Warning, found, Some(why.into()))
    }

    pub(crate) fn failure(self, found: impl Into<String>, why: impl Into<String>) -> Finding {
        self.answer(Verdict::Failure, found, Some(why.into()))
    }

    /// The reason is what reading failed with.
    pub(crate) fn unknown(self, reason: impl Into<String>) -> Finding {
        let reason = reason.into();
        let is_forbidden = reason.to_ascii_lowercase().contains("permission denied");
        let finding = self.answer(Verdict::Unknown, reason, None);
        finding.next(is_forbidden.then(|| "sudo pitcrew check".to_owned()))
    }

    pub(crate) fn not_applicable(self, found: impl Into<String>) -> Finding {
        self.answer(Verdict::NotApplicable, found, None)
    }
}

impl Finding {
    /// Adds the reason to what could not be read.
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds the next command, where there is one.
    pub(crate) fn next(mut self, command: impl Into<Option<String>>) -> Self {
        self.next = command.into();
        self
    }

    /// Adds what to mind before running it.
    pub(crate) fn care(mut self, care: impl Into<Option<String>>) -> Self {
        self.care = care.into();
        self
    }

    /// Readiness doesn't hang on it.
    pub(crate) fn minor(mut self) -> Self {
        self.decisive = false;
        self
    }
}

/// Shows a list as `a`, `a and b`, `a, b and c`.
pub(crate) fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => items.join(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Question {
        question(Topic::Driver, "a.b", "title", "here")
    }

    #[test]
    fn a_failure_outranks_the_unknown_and_only_what_decides_makes_the_outcome_unknown() {
        let of = |findings: &[Finding]| Outcome::of(findings);
        assert_eq!(of(&[]), Outcome::Ready);
        assert_eq!(of(&[ask().ok("x"), ask().note("x", "y")]), Outcome::Ready);
        assert_eq!(of(&[ask().warning("x", "y")]), Outcome::ReadyWithRemarks);
        assert_eq!(of(&[ask().unknown("x").minor()]), Outcome::ReadyWithRemarks);
        assert_eq!(
            of(&[ask().warning("x", "y"), ask().unknown("x")]),
            Outcome::CouldNotTell
        );
        assert_eq!(
            of(&[ask().unknown("x"), ask().failure("x", "y")]),
            Outcome::NotReady
        );
        assert_eq!(of(&[ask().not_applicable("x")]), Outcome::Ready);
    }

    #[test]
    fn lists_read_as_people_write_them() {
        assert_eq!(listed(["a"]), "a");
        assert_eq!(listed(["a", "b", "c"]), "a, b and c");
        assert_eq!(listed::<&str>([]), "");
    }
}
