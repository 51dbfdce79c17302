//! What can be wrong with a next start.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use pitcrew_core::ports::HostFs;

use super::{Difference, NextBoot, Source};
use crate::containerd::base::{IMAGES, NodeFacts};
use crate::containerd::config::{self, cri_section, cri_section_in_force, cri_v2, cri_v3};
use crate::containerd::merge::{ConfigFile, Effective};
use crate::containerd::template::TemplateError;
use crate::containerd::tree::{self, Table, Value};
use crate::containerd::{ConfigError, Generation};
use crate::facts::ContainerdConfig;

/// How bad it is; the later the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Notice,
    /// Something is lost; the node comes back.
    Loses,
    /// It can't be told what will happen.
    CantTell,
    /// The node does not come back.
    Breaks,
}

/// What kind of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// A table is there twice, mostly from a template that repeats what the base has.
    TableTwice,
    /// containerd refuses the configuration for another reason.
    ConfigRefused,
    /// The template itself is wrong: the supervisor doesn't start.
    TemplateRefused,
    /// The template uses something that isn't known here.
    TemplateUnknown,
    /// A template that is there and isn't used.
    TemplateUnused,
    /// A template that sets up another generation of containerd.
    TemplateGeneration,
    /// A template that leaves out what the node needs: mostly a whole configuration, written by another tool.
    TemplateReplacesBase,
    /// What a drop-in says is lost.
    DropInLost,
    /// A drop-in that nothing imports.
    DropInUnread,
    /// A drop-in, by its being there, takes away what the main file says.
    MainLost,
    /// `default-runtime` of a runtime that isn't found: the supervisor doesn't start.
    DefaultRuntimeNotFound,
    /// The default handler isn't configured: containerd's CRI doesn't start.
    DefaultHandlerMissing,
    /// The binary of a handler isn't there.
    BinaryMissing,
    /// A handler of now will be gone.
    HandlerLost,
    /// containerd itself doesn't find what we read in its files, or ends in another way than expected.
    DumpDiffers,
    /// Something isn't known.
    Unknown,
}

impl ProblemKind {
    /// Its name in output for programs.
    pub fn id(self) -> &'static str {
        match self {
            Self::TableTwice => "table-twice",
            Self::ConfigRefused => "config-refused",
            Self::TemplateRefused => "template-refused",
            Self::TemplateUnknown => "template-unknown",
            Self::TemplateUnused => "template-unused",
            Self::TemplateGeneration => "template-generation",
            Self::TemplateReplacesBase => "template-replaces-base",
            Self::DropInLost => "drop-in-lost",
            Self::DropInUnread => "drop-in-unread",
            Self::MainLost => "main-lost",
            Self::DefaultRuntimeNotFound => "default-runtime-not-found",
            Self::DefaultHandlerMissing => "default-handler-missing",
            Self::BinaryMissing => "binary-missing",
            Self::HandlerLost => "handler-lost",
            Self::DumpDiffers => "dump-differs",
            Self::Unknown => "unknown",
        }
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// How bad.
    pub severity: Severity,
    /// What is wrong and what comes of it.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    pub(in crate::containerd) fn new(kind: ProblemKind, severity: Severity, what: impl Into<String>) -> Self {
        Self {
            kind,
            severity,
            what: what.into(),
            hint: None,
        }
    }

    pub(in crate::containerd) fn cant_tell(what: impl Into<String>) -> Self {
        Self::new(ProblemKind::Unknown, Severity::CantTell, what)
    }

    pub(in crate::containerd) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The name of a file, without its directory: the directory is said once.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// K3s looks for the default runtime among those that it found, and ends where it isn't: `runc` is not among them.
pub(super) fn default_runtime_not_found(node: &NodeFacts) -> Option<Problem> {
    let wanted = node.default_runtime.as_deref()?;
    if node.runtimes.iter().any(|runtime| runtime.handler == wanted) {
        return None;
    }
    let program = &node.program;
    let problem = Problem::new(
        ProblemKind::DefaultRuntimeNotFound,
        Severity::Breaks,
        format!(
            "`default-runtime: {wanted}`, and {program} will find no binary for it: {program} ends with \
             \"default runtime {wanted} was not found\""
        ),
    );
    Some(problem.hint(match wanted {
        "nvidia" => format!(
            "put nvidia-container-runtime back into /usr/local/nvidia/toolkit, or take `default-runtime` out of \
             /etc/rancher/{program}/config.yaml"
        ),
        _ => format!("take `default-runtime` out of /etc/rancher/{program}/config.yaml"),
    }))
}

pub(super) fn template_error(path: &Path, error: &TemplateError) -> Problem {
    let place = format!("{}, {error}", name(path));
    if error.refused {
        Problem::new(
            ProblemKind::TemplateRefused,
            Severity::Breaks,
            format!("the template is wrong, and the supervisor ends on it: {place}"),
        )
        .hint(format!("correct {}", path.display()))
    } else {
        Problem::new(
            ProblemKind::TemplateUnknown,
            Severity::CantTell,
            format!("what the template gives can't be told: {place}"),
        )
    }
}

pub(super) fn template_unused(path: &Path, why: &str) -> Problem {
    Problem::new(
        ProblemKind::TemplateUnused,
        Severity::Notice,
        format!("{} is not used: {why}", name(path)),
    )
}

/// containerd refuses the file; or we can't read what it imports, which says nothing of what containerd can.
pub(super) fn refused(plan: &NextBoot, error: &ConfigError, generation: Generation) -> Problem {
    if error.unread {
        return Problem::cant_tell(error.to_string());
    }
    let in_main = error.file.as_deref().is_none_or(|file| file == plan.config_path);
    let (kind, what) = if error.what.contains("duplicate") {
        let rendered = plan.rendered.as_deref().filter(|_| in_main).unwrap_or_default();
        let header = error.at.and_then(|(line, _)| rendered.lines().nth(line - 1));
        let key = header
            .map(str::trim)
            .filter(|line| line.starts_with('['))
            .or(error.key.as_deref())
            .unwrap_or("a table");
        let line = error
            .at
            .map(|(line, _)| format!(" (line {line})"))
            .unwrap_or_default();
        let what = match &plan.source {
            Source::Template(path) if in_main => format!(
                "{} repeats what is there already: `{key}` is in the rendered file twice{line}, and containerd does \
                 not start",
                name(path)
            ),
            _ => format!("`{key}` is there twice{line}, and containerd does not start: {error}"),
        };
        (ProblemKind::TableTwice, what)
    } else {
        (
            ProblemKind::ConfigRefused,
            format!("containerd does not start on it: {error}"),
        )
    };
    let problem = Problem::new(kind, Severity::Breaks, what);
    match &plan.source {
        Source::Template(path) if in_main && kind == ProblemKind::TableTwice => {
            let drop_in = if generation == Generation::Two {
                "; what it should change belongs into a drop-in"
            } else {
                ""
            };
            problem.hint(format!(
                "take the table out of {}: it is written for every runtime that is found{drop_in}",
                path.display()
            ))
        }
        _ => problem,
    }
}

/// Problems of what containerd takes.
pub(super) fn of_effective(
    plan: &NextBoot,
    fs: &dyn HostFs,
    found: &Effective,
    base: Option<&Table>,
    generation: Generation,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let broken = main_lost(found, generation);
    if let Source::Template(path) = &plan.source {
        problems.extend(of_template(path, found, base, generation, broken.is_some()));
    }
    problems.extend(broken);
    problems.extend(drop_ins_lost(found));
    problems.extend(of_handlers(&found.config, fs));
    problems
}

/// Problems that only show in what is in force: also used for what containerd itself prints.
pub(in crate::containerd) fn of_handlers(config: &ContainerdConfig, fs: &dyn HostFs) -> Vec<Problem> {
    let mut problems = Vec::new();
    let default = config.default_handler.as_deref().unwrap_or("runc");
    let known = |name: &str| config.handlers.iter().any(|(handler, _)| handler == name);
    // runc is there without being written.
    if default != "runc" && !known(default) {
        problems.push(
            Problem::new(
                ProblemKind::DefaultHandlerMissing,
                Severity::Breaks,
                format!(
                    "the default handler is {default}, and no handler of that name is configured: CRI does not \
                     start, and no pod does"
                ),
            )
            .hint(format!(
                "configure the handler {default}, or take away what makes it the default"
            )),
        );
    }
    for (handler, binary) in &config.handlers {
        let path = Path::new(binary);
        if !path.is_absolute() || !is_gone(fs, path) {
            continue;
        }
        let (severity, whose) = if handler == default {
            (Severity::Breaks, "every pod, the control plane's too")
        } else {
            (Severity::Loses, "pods that name it")
        };
        problems.push(Problem::new(
            ProblemKind::BinaryMissing,
            severity,
            format!("the binary of handler {handler} is not there ({binary}): {whose} will not start"),
        ));
    }
    problems
}

fn is_gone(fs: &dyn HostFs, path: &Path) -> bool {
    matches!(fs.kind(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Handlers that are lost are what GPU pods miss.
pub(super) fn of_differences(differences: &[Difference]) -> Vec<Problem> {
    differences
        .iter()
        .filter_map(Difference::lost_handler)
        .map(|name| {
            Problem::new(
                ProblemKind::HandlerLost,
                Severity::Loses,
                format!("the handler {name} is there now and will be gone: pods that name it will not start"),
            )
        })
        .collect()
}

/// CRI's section of one file, in whichever version it is.
fn sections(file: &ConfigFile) -> impl Iterator<Item = (&'static str, &Table)> {
    ["cri", cri_v2(), cri_v3()]
        .into_iter()
        .filter_map(|name| Some((name, tree::get(&file.table, &["plugins", name])?.as_table()?)))
}

fn handlers_of(section: &Table) -> BTreeSet<&str> {
    tree::get(section, &["containerd", "runtimes"])
        .and_then(Value::as_table)
        .map(|runtimes| runtimes.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// Handlers that a drop-in configures and that are not in force.
fn drop_ins_lost(found: &Effective) -> Vec<Problem> {
    let in_force: BTreeSet<&str> = found
        .config
        .handlers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let main = found.files.first().and_then(|file| file.version).unwrap_or(1);
    let mut problems = Vec::new();
    for file in found.files.iter().skip(1) {
        let lost: Vec<&str> = sections(file)
            .flat_map(|(_, section)| handlers_of(section))
            .filter(|name| !in_force.contains(name))
            .collect();
        if lost.is_empty() {
            continue;
        }
        let version = file
            .version
            .map_or("no version".to_owned(), |version| format!("version {version}"));
        problems.push(
            Problem::new(
                ProblemKind::DropInLost,
                Severity::Loses,
                format!(
                    "what {} says of handler {} is lost without a word: it is of {version}, the main file of version \
                     {main}",
                    name(&file.path),
                    lost.join(", ")
                ),
            )
            .hint(format!(
                "write {} for version {main}: `version = {main}` and the section `{}`",
                file.path.display(),
                cri_section(main)
            )),
        );
    }
    problems
}

/// A drop-in beside the file that the file doesn't import: the release is older than its directory.
pub(super) fn drop_in_unread(path: &Path) -> Problem {
    Problem::new(
        ProblemKind::DropInUnread,
        Severity::Loses,
        format!("{} is not read: nothing imports it", path.display()),
    )
    .hint("put what it says into a template, or go to a release that imports the directory")
}

/// What the main file says of CRI and is not in force, because a drop-in is there.
fn main_lost(found: &Effective, generation: Generation) -> Option<Problem> {
    let main = found.files.first()?;
    if found.files.len() < 2 {
        return None;
    }
    let version = main.version.unwrap_or(1);
    let last = found
        .files
        .iter()
        .rev()
        .find_map(|file| file.version)
        .unwrap_or(version);
    // Under generation 2 much of version 2's section goes elsewhere; the runtimes stay together.
    let part: &[&str] = if generation == Generation::Two && version == 2 {
        &["containerd", "runtimes"]
    } else {
        &[]
    };
    let at = |table: &'_ Table, section: &str| -> Option<Table> {
        let path = [&["plugins", section], part].concat();
        tree::get(table, &path).and_then(Value::as_table).cloned()
    };
    let own = at(&main.table, cri_section(version))?;
    let in_force = at(&found.table, cri_section_in_force(generation, last)).unwrap_or_default();
    let mut gone = Vec::new();
    missing(&own, &in_force, &mut part.to_vec(), &mut gone);
    report_lost(found, generation, version, &gone)
}

fn report_lost(found: &Effective, generation: Generation, version: u32, lost: &[String]) -> Option<Problem> {
    if lost.is_empty() {
        return None;
    }
    let drop_ins: Vec<String> = found.files.iter().skip(1).map(|file| name(&file.path)).collect();
    let shown: Vec<&str> = lost.iter().map(String::as_str).take(4).collect();
    let more = lost.len().saturating_sub(shown.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let why = match generation {
        Generation::One => "containerd 1 replaces a plugin's whole section by that of the drop-in".to_owned(),
        Generation::Two => format!("the main file is of version {version}, and the last file decides"),
    };
    Some(
        Problem::new(
            ProblemKind::MainLost,
            Severity::Breaks,
            format!(
                "{} takes away what the main file says of CRI ({}{more}): {why}",
                drop_ins.join(", "),
                shown.join(", ")
            ),
        )
        .hint("take the drop-in away, or copy the main file's whole section into it"),
    )
}

/// Keys that are in one table and not in the other.
fn missing<'a>(from: &'a Table, present: &Table, path: &mut Vec<&'a str>, into: &mut Vec<String>) {
    for (key, value) in from {
        path.push(key);
        match (value, present.get(key)) {
            (Value::Table(inner), Some(Value::Table(present))) => missing(inner, present, path, into),
            (Value::Table(inner), None) if !inner.is_empty() => missing(inner, &Table::new(), path, into),
            (_, None) => into.push(tree::dotted(path)),
            _ => {}
        }
        path.pop();
    }
}

/// What is wrong with a template that containerd takes.
fn of_template(
    path: &Path,
    found: &Effective,
    base: Option<&Table>,
    generation: Generation,
    main_lost: bool,
) -> Vec<Problem> {
    let Some(main) = found.files.first() else {
        return Vec::new();
    };
    let version = main.version.unwrap_or(1);
    let mut problems = Vec::new();
    let read = cri_section(version);
    let ignored: Vec<&str> = match (generation, version) {
        // Version 1 says nothing of CRI to generation 2.
        (Generation::Two, 1) => sections(main)
            .map(|(name, _)| name)
            .filter(|name| *name != cri_v3())
            .collect(),
        _ => sections(main)
            .filter(|(name, section)| *name != read && !handlers_of(section).is_empty())
            .map(|(name, _)| name)
            .collect(),
    };
    if !ignored.is_empty() {
        problems.push(
            Problem::new(
                ProblemKind::TemplateGeneration,
                if version == 1 { Severity::Breaks } else { Severity::Loses },
                format!(
                    "{} is written for another generation of containerd: `plugins.{}` is not read in a file of version \
                     {version}",
                    name(path),
                    ignored.join("`, `plugins.")
                ),
            )
            .hint(format!(
                "write it for version {}: the section is `{}`",
                generation.config_version(),
                cri_section(generation.config_version())
            )),
        );
    }
    if !main_lost && let Some(base) = base {
        problems.extend(replaces_base(path, found, base));
    }
    problems
}

/// What a node of the supervisor can't do without, as the base has it and the template has not.
fn replaces_base(path: &Path, found: &Effective, base: &Table) -> Option<Problem> {
    let version = config::version(base).unwrap_or(2);
    let cri = cri_section(version);
    let needed: [&[&str]; 4] = [
        &["plugins", cri, "cni", "conf_dir"],
        &[
            "plugins",
            cri,
            "containerd",
            "runtimes",
            "runc",
            "options",
            "SystemdCgroup",
        ],
        &["plugins", cri, "sandbox_image"],
        &["plugins", IMAGES, "pinned_images", "sandbox"],
    ];
    let table = &found.files.first()?.table;
    let lost: Vec<&str> = needed
        .iter()
        .filter(|key| {
            let wanted = tree::get(base, key);
            let is_false = wanted == Some(&Value::Boolean(false));
            wanted.is_some() && !is_false && tree::get(table, key) != wanted
        })
        .filter_map(|key| key.last().copied())
        .collect();
    if lost.is_empty() {
        return None;
    }
    // A pause image of its own may be meant; the other two stop every pod.
    let severity = if lost.iter().all(|key| matches!(*key, "sandbox_image" | "sandbox")) {
        Severity::Notice
    } else {
        Severity::Breaks
    };
    let whole = tree::get(table, &["plugins", "io.containerd.gc.v1.scheduler"]).is_some()
        || tree::get(table, &["plugins", "scheduler"]).is_some();
    let who = if whole {
        "holds containerd's whole configuration, as a tool writes it that was pointed at the template"
    } else {
        "stands in the place of the whole configuration"
    };
    Some(
        Problem::new(
            ProblemKind::TemplateReplacesBase,
            severity,
            format!(
                "{} {who}, and what the node needs is not in it as it should be: {}",
                name(path),
                lost.join(", ")
            ),
        )
        .hint(format!(
            "remove {}, or begin it with {{{{ template \"base\" . }}}} and keep only what it adds",
            path.display()
        )),
    )
}
