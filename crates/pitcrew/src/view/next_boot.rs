//! What the next start brings, for people and as the document `pitcrew.dev/next-boot/v1alpha1`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use owo_colors::OwoColorize as _;
use pitcrew_host::containerd::Generation;
use pitcrew_host::containerd::next_boot::{NextBoot, Problem, Severity, Source, Verdict, Verified};
use pitcrew_host::facts::ContainerdConfig;
use serde::Serialize;

use super::check::Source as Where;
use super::table::{self, Column};
use super::wrap::{self, Kind};

/// Name and version of the document's shape.
const SCHEMA: &str = "pitcrew.dev/next-boot/v1alpha1";
/// Changed lines that are shown to people.
const MAX_LINES: usize = 20;
/// Columns of labels.
const LABEL: usize = 15;
/// Columns where nothing says how many there are: output stays readable in a log.
const WIDTH: usize = 80;

/// The document.
#[derive(Serialize)]
pub(crate) struct Document<'a> {
    schema: &'static str,
    source: &'a Where,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    supervisor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<VerifiedBy<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<InForce<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<InForce<'a>>,
    differences: Vec<Change<'a>>,
    lines: &'a [String],
    problems: Vec<ProblemEntry<'a>>,
    assumptions: &'a [String],
}

#[derive(Serialize)]
struct Config<'a> {
    path: &'a Path,
    made_from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<&'a Path>,
    drop_ins: Vec<DropInEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rendered: Option<&'a str>,
}

#[derive(Serialize)]
struct DropInEntry<'a> {
    path: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
}

#[derive(Serialize)]
struct VerifiedBy<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a Path>,
    takes: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    said: Option<&'a str>,
}

#[derive(Serialize)]
struct InForce<'a> {
    version: u32,
    handlers: Vec<Handler<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_handler: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enable_cdi: Option<bool>,
}

#[derive(Serialize)]
struct Handler<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    binary: &'a str,
}

#[derive(Serialize)]
struct Change<'a> {
    what: &'a str,
    from: Option<&'a str>,
    to: Option<&'a str>,
}

#[derive(Serialize)]
struct ProblemEntry<'a> {
    id: &'static str,
    severity: &'static str,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(source: &'a Where, plan: &'a NextBoot) -> Self {
        let template = match &plan.source {
            Source::Template(path) => Some(path.as_path()),
            Source::Base | Source::File => None,
        };
        let drop_ins = plan.drop_ins.iter().map(|drop_in| DropInEntry {
            path: &drop_in.path,
            version: drop_in.version,
        });
        let differences = plan.differences.iter().map(|difference| Change {
            what: &difference.what,
            from: difference.from.as_deref(),
            to: difference.to.as_deref(),
        });
        let verified = match &plan.verified {
            Verified::Takes(by) => VerifiedBy {
                by: Some(by),
                takes: Some(true),
                said: None,
            },
            Verified::Refuses { binary, said } => VerifiedBy {
                by: Some(binary),
                takes: Some(false),
                said: Some(said),
            },
            Verified::No(why) => VerifiedBy {
                by: None,
                takes: None,
                said: Some(why),
            },
        };
        Self {
            schema: SCHEMA,
            source,
            verdict: id(plan.verdict()),
            supervisor: plan.supervisor.as_deref(),
            unit: plan.unit.as_deref(),
            config: Some(Config {
                path: &plan.config_path,
                made_from: match plan.source {
                    Source::Base => "base",
                    Source::Template(_) => "template",
                    Source::File => "file",
                },
                template,
                drop_ins: drop_ins.collect(),
                rendered: plan.rendered.as_deref(),
            }),
            verified: Some(verified),
            now: plan.now.value().map(in_force),
            next: plan.next.as_ref().map(in_force),
            differences: differences.collect(),
            lines: &plan.lines,
            problems: plan.problems.iter().map(entry).collect(),
            assumptions: &plan.assumptions,
        }
    }

    /// Of a node that has no containerd.
    pub(crate) fn nothing(source: &'a Where, why: &'a str) -> Self {
        Self {
            schema: SCHEMA,
            source,
            verdict: id(Verdict::CantTell),
            supervisor: None,
            unit: None,
            config: None,
            verified: None,
            now: None,
            next: None,
            differences: Vec::new(),
            lines: &[],
            problems: vec![ProblemEntry {
                id: "unknown",
                severity: severity(Severity::CantTell),
                what: why,
                hint: None,
            }],
            assumptions: &[],
        }
    }
}

fn in_force(config: &ContainerdConfig) -> InForce<'_> {
    let handlers = config.handlers.iter();
    InForce {
        version: config.version,
        handlers: handlers.map(|(name, binary)| Handler { name, binary }).collect(),
        default_handler: config.default_handler.as_deref(),
        enable_cdi: config.enable_cdi,
    }
}

fn entry(problem: &Problem) -> ProblemEntry<'_> {
    ProblemEntry {
        id: problem.kind.id(),
        severity: severity(problem.severity),
        what: &problem.what,
        hint: problem.hint.as_deref(),
    }
}

fn id(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::ComesBack => "comes-back",
        Verdict::ComesBackWithout => "comes-back-without",
        Verdict::DoesNot => "does-not-come-back",
        Verdict::CantTell => "cannot-tell",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "notice",
        Severity::Loses => "loses",
        Severity::CantTell => "cannot-tell",
        Severity::Breaks => "breaks",
    }
}

/// What is said of a node that has no containerd.
pub(crate) fn nothing(why: &str) -> String {
    let hint = "`pitcrew check` says what this node has and lacks";
    format!(
        "next start: {}: {why}\n{} {hint}\n",
        "can't tell".yellow().bold(),
        "hint:".cyan().bold()
    )
}

/// Everything that matters, for people.
pub(crate) fn text(source: &Where, plan: &NextBoot, width: Option<usize>) -> String {
    let mut text = heading(plan);
    text.push('\n');
    let columns = width.unwrap_or(WIDTH);
    let mut line = |label: &str, value: &str| {
        text += &wrap::paragraph(&format!("{label:LABEL$}"), value, columns, Kind::Prose);
    };
    if let Some(name) = source.scenario_file.as_ref().or(source.scenario.as_ref()) {
        line("node", &format!("imaginary, {name}"));
    }
    if let Some(root) = &source.root {
        line("node", &format!("the files under {root}"));
    }
    facts(plan, &mut line);
    if let Some(handlers) = handlers(plan, width) {
        text.push('\n');
        text.push_str(&handlers);
    }
    for problem in &plan.problems {
        let (word, coloured) = match problem.severity {
            Severity::Notice => ("note", "note".cyan().to_string()),
            Severity::Loses => ("loses", "loses".yellow().to_string()),
            Severity::CantTell => ("unknown", "unknown".yellow().to_string()),
            Severity::Breaks => ("breaks", "breaks".red().bold().to_string()),
        };
        text.push('\n');
        text += &said("", word, &coloured, &problem.what, columns);
        if let Some(hint) = &problem.hint {
            text += &said("  ", "hint", &"hint".cyan().bold().to_string(), hint, columns);
        }
    }
    changes(plan, &mut text);
    if !plan.assumptions.is_empty() {
        text.push('\n');
    }
    for assumption in &plan.assumptions {
        text += &said("", "assumed", &"assumed".cyan().to_string(), assumption, columns);
    }
    if plan.problems.iter().any(is_forbidden) {
        let again = "`sudo pitcrew check --next-boot` may read what this user may not";
        text.push('\n');
        text += &said("", "hint", &"hint".cyan().bold().to_string(), again, columns);
    }
    text
}

/// `breaks: what`, wrapped as if the word had no colour.
fn said(indent: &str, word: &str, coloured: &str, what: &str, width: usize) -> String {
    let label = format!("{indent}{word}: ");
    let text = wrap::paragraph(&label, what, width, Kind::Prose);
    text.replacen(word, coloured, 1)
}

/// True where a file was kept from this user.
fn is_forbidden(problem: &Problem) -> bool {
    let what = problem.what.to_ascii_lowercase();
    problem.severity == Severity::CantTell
        && what.contains("can't be read")
        && what.contains("permission denied")
}

fn heading(plan: &NextBoot) -> String {
    let who = plan
        .unit
        .as_deref()
        .or(plan.supervisor.as_deref())
        .unwrap_or("containerd");
    let verdict = match plan.verdict() {
        Verdict::ComesBack => "this node comes back".green().bold().to_string(),
        Verdict::ComesBackWithout => "this node comes back without something"
            .yellow()
            .bold()
            .to_string(),
        Verdict::DoesNot => "this node does NOT come back".red().bold().to_string(),
        Verdict::CantTell => "it can't be told whether this node comes back"
            .yellow()
            .bold()
            .to_string(),
    };
    format!("next start of {who}: {verdict}\n")
}

fn facts(plan: &NextBoot, line: &mut impl FnMut(&str, &str)) {
    let version = plan
        .next
        .as_ref()
        .map(|next| format!(", version {}", next.version))
        .unwrap_or_default();
    line(
        "configuration",
        &format!("{}{version}", plan.config_path.display()),
    );
    let supervisor = match plan.supervisor.as_deref() {
        Some("rke2") => "RKE2",
        Some("k3s") => "K3s",
        Some(other) => other,
        None => "the supervisor",
    };
    line(
        "made from",
        &match &plan.source {
            Source::Base => format!("{supervisor}'s own text"),
            Source::Template(path) => path.display().to_string(),
            Source::File => "the file itself, which nobody rewrites".to_owned(),
        },
    );
    for drop_in in &plan.drop_ins {
        let version = drop_in
            .version
            .map_or("no version".to_owned(), |version| format!("version {version}"));
        line("drop-in", &format!("{}, {version}", drop_in.path.display()));
    }
    let generation = match plan.generation {
        Some(Generation::One) => "containerd 1",
        Some(Generation::Two) => "containerd 2",
        None => "containerd",
    };
    line(
        "verified",
        &match &plan.verified {
            Verified::Takes(by) => format!("{generation} takes it ({})", by.display()),
            Verified::Refuses { binary, said } => {
                format!("{generation} refuses it ({}): {said}", binary.display())
            }
            // A reason that is told as a problem is not told twice.
            Verified::No(why) if plan.problems.iter().any(|it| it.what.contains(why)) => "no".to_owned(),
            Verified::No(why) => format!("no: {why}"),
        },
    );
}

/// Handlers of now and then; `None` where there are none to speak of.
fn handlers(plan: &NextBoot, width: Option<usize>) -> Option<String> {
    let next = plan.next.as_ref()?;
    let now = plan.now.value();
    let find = |config: Option<&ContainerdConfig>, name: &str| {
        let config = config?;
        let (_, binary) = config.handlers.iter().find(|(handler, _)| handler == name)?;
        let default = if config.default_handler.as_deref() == Some(name) {
            ", default"
        } else {
            ""
        };
        let binary = if binary.is_empty() { "there" } else { binary };
        Some(format!("{binary}{default}"))
    };
    let names: BTreeSet<&str> = now
        .into_iter()
        .chain([next])
        .flat_map(|config| config.handlers.iter().map(|(name, _)| name.as_str()))
        // What RKE2 and K3s write for Windows.
        .filter(|name| *name != "runhcs-wcow-process")
        .collect();
    if names.is_empty() {
        return None;
    }
    let cells = |config: Option<&ContainerdConfig>| -> Vec<String> {
        names
            .iter()
            .map(|name| find(config, name).unwrap_or_else(|| "-".to_owned()))
            .collect()
    };
    let columns = vec![
        Column::new("HANDLER", names.iter().map(|name| (*name).to_owned())),
        Column::new("NOW", cells(now)),
        Column::new("NEXT", cells(Some(next))),
    ];
    Some(table::render(columns, width))
}

fn changes(plan: &NextBoot, text: &mut String) {
    if plan.lines.is_empty() {
        return;
    }
    text.push_str("\nwhat changes in the file:\n");
    for line in plan.lines.iter().take(MAX_LINES) {
        let line = if line.starts_with('-') {
            line.red().to_string()
        } else {
            line.green().to_string()
        };
        let _ = writeln!(text, "  {line}");
    }
    let more = plan.lines.len().saturating_sub(MAX_LINES);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more, which `-o yaml` shows");
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_core::Reading;
    use pitcrew_host::containerd::next_boot::{Difference, DropIn, ProblemKind};

    use super::*;

    fn config(handlers: &[(&str, &str)], default: Option<&str>) -> ContainerdConfig {
        ContainerdConfig {
            version: 3,
            handlers: handlers
                .iter()
                .map(|(name, binary)| ((*name).to_owned(), (*binary).to_owned()))
                .collect(),
            default_handler: default.map(str::to_owned),
            enable_cdi: None,
            cdi_dirs: None,
            nri_disabled: None,
            enable_selinux: Some(false),
            imports: Vec::new(),
        }
    }

    fn plan() -> NextBoot {
        let nvidia = "/usr/local/nvidia/toolkit/nvidia-container-runtime";
        let dir = "/var/lib/rancher/rke2/agent/etc/containerd";
        NextBoot {
            supervisor: Some("rke2".to_owned()),
            unit: Some("rke2-agent".to_owned()),
            generation: Some(Generation::Two),
            config_path: format!("{dir}/config.toml").into(),
            source: Source::Base,
            rendered: Some("version = 3\n".to_owned()),
            drop_ins: vec![DropIn {
                path: format!("{dir}/config-v3.toml.d/99-a.toml").into(),
                version: Some(2),
            }],
            now: Reading::Value(config(&[("nvidia", nvidia), ("runc", "")], Some("nvidia"))),
            next: Some(config(&[("runc", ""), ("crun", "/usr/bin/crun")], None)),
            differences: vec![Difference {
                what: "handler nvidia".to_owned(),
                from: Some(nvidia.to_owned()),
                to: None,
            }],
            lines: (0..25).map(|number| format!("- key{number} = 1")).collect(),
            problems: vec![
                Problem {
                    kind: ProblemKind::HandlerLost,
                    severity: Severity::Loses,
                    what: "the handler nvidia is there now and will be gone".to_owned(),
                    hint: Some("put it back".to_owned()),
                },
                Problem {
                    kind: ProblemKind::TemplateUnused,
                    severity: Severity::Notice,
                    what: "a.tmpl is not used".to_owned(),
                    hint: None,
                },
            ],
            assumptions: vec!["`pause-image` is taken as usual".to_owned()],
            verified: Verified::Takes("/var/lib/rancher/rke2/bin/containerd".into()),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_next_start_is_told_in_one_look() {
        insta::assert_snapshot!(plain(&text(&Where::default(), &plan(), Some(100))));
    }

    #[test]
    fn the_document_holds_all_of_it() {
        let (source, plan) = (Where::default(), plan());
        let document = serde_json::to_string_pretty(&Document::new(&source, &plan)).unwrap();
        insta::assert_snapshot!(document);
    }

    #[test]
    fn every_verdict_has_its_words() {
        let mut plan = plan();
        for (severity, words) in [
            (Severity::Notice, "comes back\n"),
            (Severity::Loses, "comes back without"),
            (Severity::CantTell, "can't be told"),
            (Severity::Breaks, "does NOT come back"),
        ] {
            plan.problems[0].severity = severity;
            let told = plain(&text(&Where::default(), &plan, None));
            assert!(
                told.lines()
                    .next()
                    .is_some_and(|line| format!("{line}\n").contains(words)),
                "{told}"
            );
        }
        plan.verified = Verified::No("the binary was not found".to_owned());
        assert!(plain(&text(&Where::default(), &plan, None)).contains("no: the binary was not found"));
    }
}
