//! Whether a node is ready, for people: a line for each check, and what to do where something stands in the way.

use std::fmt::Write as _;

use owo_colors::OwoColorize as _;
use pitcrew_check::upgrade::{Change, Effect, Plan};
use pitcrew_check::{Counts, Finding, GpuPath, Outcome, Report, Tier, Verdict};
use serde::Serialize;

use super::wrap::{self, Kind};

/// Columns where nothing says how many there are: output stays readable in a log.
const WIDTH: usize = 80;
/// Columns before the mark, the widest mark, and between two columns.
const INDENT: usize = 2;
const MARK: usize = 4;
const GAP: usize = 2;
/// The widest title.
const TITLE: usize = 20;

/// Where facts come from, so that nobody takes an imaginary node for real.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Source {
    /// Name of the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scenario: Option<String>,
    /// Its file, for one that isn't built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scenario_file: Option<String>,
    /// The directory that stands for the machine's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
}

/// The document `pitcrew.dev/check/v1alpha1`.
#[derive(Serialize)]
pub(crate) struct Document<'a> {
    schema: &'static str,
    source: &'a Source,
    #[serde(flatten)]
    report: &'a Report,
}

impl<'a> Document<'a> {
    pub(crate) fn new(source: &'a Source, report: &'a Report) -> Self {
        Self {
            schema: "pitcrew.dev/check/v1alpha1",
            source,
            report,
        }
    }
}

/// The document `pitcrew.dev/upgrade/v1alpha1`.
#[derive(Serialize)]
pub(crate) struct UpgradeDocument<'a> {
    schema: &'static str,
    source: &'a Source,
    #[serde(flatten)]
    plan: &'a Plan,
}

impl<'a> UpgradeDocument<'a> {
    pub(crate) fn new(source: &'a Source, plan: &'a Plan) -> Self {
        Self {
            schema: "pitcrew.dev/upgrade/v1alpha1",
            source,
            plan,
        }
    }
}

/// The whole report: a line for each check, then what stands in the way in full, and the outcome last, where the eye is.
pub(crate) fn text(source: &Source, report: &Report, width: Option<usize>) -> String {
    let width = width.unwrap_or(WIDTH);
    let mut text = heading(source);
    let mut topic = None;
    for finding in &report.findings {
        if finding.verdict == Verdict::NotApplicable {
            continue;
        }
        if topic != Some(finding.topic) {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{}", finding.topic.bold());
            topic = Some(finding.topic);
        }
        text += &line(finding, width);
    }
    text.push('\n');
    text += &way(&report.path, width);
    let attention = attention(report);
    for (index, finding) in attention.iter().enumerate() {
        text.push('\n');
        text += &in_full(finding, attention.get(..index).unwrap_or_default(), width);
    }
    text.push('\n');
    text += &wrap::paragraph("", &counts(report.counts), width, Kind::Prose);
    text += &wrap::paragraph("", &outcome(report.outcome, &attention), width, Kind::Prose);
    text
}

/// What deserves attention, worst first.
fn attention(report: &Report) -> Vec<&Finding> {
    // The same as in `needs_more`.
    [Verdict::Failure, Verdict::Unknown, Verdict::Warning]
        .into_iter()
        .flat_map(|verdict| report.findings.iter().filter(move |it| it.verdict == verdict))
        .collect()
}

/// How a GPU gets into a container here.
fn way(path: &GpuPath, width: usize) -> String {
    let devices = format!("GPU pods: {} ({})", path.tier, path.reason);
    let handler = format!(
        "Handler nvidia: {} (for `runtimeClassName: nvidia` only)",
        path.handler
    );
    let mut text = wrap::paragraph("", &devices, width, Kind::Prose);
    if path.tier != Tier::None {
        text += &wrap::paragraph("", &handler, width, Kind::Prose);
    }
    text
}

/// `not ready: kernel module and nouveau`: the checks that make the outcome what it is.
fn outcome(outcome: Outcome, attention: &[&Finding]) -> String {
    let decides = |finding: &&&Finding| match outcome {
        Outcome::NotReady => finding.verdict == Verdict::Failure,
        Outcome::CouldNotTell => finding.verdict == Verdict::Unknown && finding.decisive,
        Outcome::ReadyWithRemarks | Outcome::Ready => true,
    };
    let titles: Vec<&str> = attention.iter().filter(decides).map(|it| it.title).collect();
    match titles.split_last() {
        None => outcome.to_string(),
        Some((last, [])) => format!("{outcome}: {last}"),
        Some((last, rest)) => format!("{outcome}: {} and {last}", rest.join(", ")),
    }
}

fn heading(source: &Source) -> String {
    match source {
        Source {
            scenario: Some(scenario),
            root: None,
            ..
        } => format!("Imaginary node: an RKE2 worker with the GPUs of scenario `{scenario}`\n"),
        Source {
            scenario: Some(scenario),
            root: Some(root),
            ..
        } => format!("Files under {root}, GPUs of scenario `{scenario}`\n"),
        Source { root: Some(root), .. } => format!("Files under {root}\n"),
        Source { root: None, .. } => String::new(),
    }
}

/// `2 failures, 1 warning; 20 ok, 6 notes`: what deserves attention first, and nothing that there is none of.
fn counts(counts: Counts) -> String {
    let listed = |parts: [(usize, &str, &str); 3]| {
        let told = parts.iter().filter(|(count, ..)| *count > 0);
        let told = told.map(|&(count, one, more)| format!("{count} {}", if count == 1 { one } else { more }));
        told.collect::<Vec<_>>().join(", ")
    };
    let attention = listed([
        (counts.failure, "failure", "failures"),
        (counts.unknown, "unknown", "unknown"),
        (counts.warning, "warning", "warnings"),
    ]);
    let rest = listed([
        (counts.ok, "ok", "ok"),
        (counts.note, "note", "notes"),
        (counts.not_applicable, "not applicable", "not applicable"),
    ]);
    let both = [attention, rest].into_iter().filter(|part| !part.is_empty());
    both.collect::<Vec<_>>().join("; ")
}

/// The mark in words, coloured, with the blanks that make up for its width.
fn mark(verdict: Verdict) -> String {
    let (word, coloured) = match verdict {
        Verdict::Ok => ("ok", "ok".green().to_string()),
        Verdict::Note => ("note", "note".cyan().to_string()),
        Verdict::Warning => ("warn", "warn".yellow().to_string()),
        Verdict::Failure => ("FAIL", "FAIL".red().bold().to_string()),
        Verdict::Unknown => ("?", "?".yellow().to_string()),
        Verdict::NotApplicable => ("-", "-".to_owned()),
    };
    format!("{coloured}{}", " ".repeat(MARK.saturating_sub(word.len())))
}

/// True for what is told in full below the sections.
fn needs_more(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Failure | Verdict::Unknown | Verdict::Warning)
}

/// One check in its section; one line of what is told in full below.
fn line(finding: &Finding, width: usize) -> String {
    let width = width.saturating_sub(INDENT + MARK + GAP);
    let label = format!("{:TITLE$}{}", finding.title, " ".repeat(GAP));
    let mut body = wrap::paragraph(&label, &finding.found, width, Kind::Prose);
    if needs_more(finding.verdict)
        && let Some((first, rest)) = body.split_once('\n')
        && !rest.is_empty()
    {
        let kept: String = first.chars().take(width.saturating_sub(2)).collect();
        body = format!("{kept} …\n");
    }
    marked(&mark(finding.verdict), INDENT, &body)
}

/// One check with where it was seen, why it matters and what to do. A command that one of those `before` it has told is
/// not told again.
fn in_full(finding: &Finding, before: &[&Finding], width: usize) -> String {
    let said = format!("{}: {}", finding.title, finding.found);
    let body = wrap::paragraph("", &said, width.saturating_sub(MARK + GAP), Kind::Prose);
    let mut text = marked(&mark(finding.verdict), 0, &body);
    text += &more(MARK + GAP, "from", Some(&finding.looked_at), width);
    text += &more(MARK + GAP, "why", finding.why.as_deref(), width);
    let told = before
        .iter()
        .find(|it| it.next.is_some() && (&it.next, &it.care) == (&finding.next, &finding.care));
    if let Some(told) = told {
        let same = format!("as for `{}`", told.title);
        return text + &wrap::paragraph(&label(MARK + GAP, "next"), &same, width, Kind::Prose);
    }
    text += &more(MARK + GAP, "next", finding.next.as_deref(), width);
    text += &more(MARK + GAP, "care", finding.care.as_deref(), width);
    text
}

/// Wrapped text with a mark before its first line. The mark is put in afterwards: wrapping counts columns, and colours
/// have none.
fn marked(mark: &str, indent: usize, body: &str) -> String {
    let mut text = String::new();
    for (index, row) in body.lines().enumerate() {
        let (indent, gap) = (" ".repeat(indent), " ".repeat(GAP));
        let left = if index == 0 {
            mark.to_owned()
        } else {
            " ".repeat(MARK)
        };
        let _ = writeln!(text, "{indent}{left}{gap}{row}");
    }
    text
}

/// `next: sudo reboot` below what it belongs to.
fn more(indent: usize, label: &str, what: Option<&str>, width: usize) -> String {
    let Some(what) = what else {
        return String::new();
    };
    let kind = if label == "next" && wrap::is_command(what) {
        Kind::Command
    } else {
        Kind::Prose
    };
    wrap::paragraph(&self::label(indent, label), what, width, kind)
}

/// `next: `, set in.
fn label(indent: usize, word: &str) -> String {
    format!("{}{:6}", " ".repeat(indent), format!("{word}:"))
}

/// What an upgrade changes, a line for each thing.
pub(crate) fn upgrade(source: &Source, plan: &Plan, width: Option<usize>) -> String {
    let width = width.unwrap_or(WIDTH);
    let mut text = heading(source);
    if !text.is_empty() {
        text.push('\n');
    }
    for change in &plan.changes {
        text += &change_line(change, width);
    }
    let breaking = plan
        .changes
        .iter()
        .filter(|it| it.effect == Effect::Breaks)
        .count();
    let unknown = plan
        .changes
        .iter()
        .filter(|it| it.effect == Effect::Unknown)
        .count();
    let changed = plan
        .changes
        .iter()
        .filter(|it| it.effect == Effect::Changes)
        .count();
    let summary = match (breaking, unknown) {
        (0, 0) => match changed {
            0 => "nothing changes".to_owned(),
            1 => "nothing breaks: 1 thing changes".to_owned(),
            changed => format!("nothing breaks: {changed} things change"),
        },
        (0, unknown) => format!("can't tell {unknown} of {} things", plan.changes.len()),
        (1, 0) => "1 thing breaks".to_owned(),
        (breaking, 0) => format!("{breaking} things break"),
        (breaking, unknown) => format!(
            "{breaking} of {} things break, {unknown} can't be told",
            plan.changes.len()
        ),
    };
    let _ = writeln!(text, "\n{summary}");
    text
}

fn change_line(change: &Change, width: usize) -> String {
    let before = INDENT + MARK + GAP;
    let (word, coloured) = match change.effect {
        Effect::Same => ("same", "same".dimmed().to_string()),
        Effect::Changes => ("new", "new".cyan().to_string()),
        Effect::Unknown => ("?", "?".yellow().to_string()),
        Effect::Breaks => ("FAIL", "FAIL".red().bold().to_string()),
    };
    let body = match change.effect {
        Effect::Same => change.now.clone(),
        _ => format!("{} -> {}", change.now, change.then),
    };
    let label = format!("{:TITLE$}{}", change.title, " ".repeat(GAP));
    let body = wrap::paragraph(&label, &body, width.saturating_sub(before), Kind::Prose);
    let fill = " ".repeat(MARK.saturating_sub(word.len()));
    let mut text = marked(&format!("{coloured}{fill}"), INDENT, &body);
    if change.effect != Effect::Same {
        text += &more(before, "why", change.why.as_deref(), width);
    }
    text += &more(before, "next", change.next.as_deref(), width);
    text
}
