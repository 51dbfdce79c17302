//! Would this node come back after the next start of RKE2, K3s or containerd?
//!
//! [`plan`] is pure: from a node's facts and files to what will be written, what it changes and what is wrong with
//! it. [`verify`] then has the node's own containerd read it.

mod difference;
mod problem;
#[cfg(test)]
mod tests;
mod verify;

use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;

pub use difference::Difference;
pub use problem::{Problem, ProblemKind, Severity};
pub use verify::{ContainerdDump, DumpFile, Dumped, Verified, copies, verify};

use super::base::{self, Shape};
use super::merge::{Effective, effective_text};
use super::supervisor::{self, Supervisor};
use super::tree::Table;
use super::{Generation, config, parse_table, render_template, template_data};
use crate::facts::{Containerd, ContainerdConfig, DistributionKind, Host, Template};
use crate::read;

/// What the next start will bring.
#[derive(Debug, Clone, PartialEq)]
pub struct NextBoot {
    /// Who writes the configuration: `rke2`, `k3s`; `None` where nobody does and containerd reads the file as it is.
    pub supervisor: Option<String>,
    /// The unit to restart, where it is known.
    pub unit: Option<String>,
    /// The generation of containerd.
    pub generation: Option<Generation>,
    /// Where the configuration is written.
    pub config_path: PathBuf,
    /// What it is made of.
    pub source: Source,
    /// The text that will be written; `None` where that can't be told. Logins of registries are masked in it.
    pub rendered: Option<String>,
    /// Drop-ins that will be read, in order.
    pub drop_ins: Vec<DropIn>,
    /// What is in force now; `NotSupported` where there is no file yet.
    pub now: Reading<ContainerdConfig>,
    /// What will be in force; `None` where containerd refuses it, or where it can't be told.
    pub next: Option<ContainerdConfig>,
    /// What changes.
    pub differences: Vec<Difference>,
    /// Lines that change in the file itself, as `- key = value` and `+ key = value`.
    pub lines: Vec<String>,
    /// What is wrong, worst first.
    pub problems: Vec<Problem>,
    /// What isn't known and was taken as usual.
    pub assumptions: Vec<String>,
    /// Whether the node's own containerd was asked, and what it said.
    pub verified: Verified,
}

/// What the configuration is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The supervisor's own text.
    Base,
    /// A template of the user.
    Template(PathBuf),
    /// A file that nobody rewrites.
    File,
}

/// A drop-in that will be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIn {
    /// Its path.
    pub path: PathBuf,
    /// Its `version`; `None` where it says none.
    pub version: Option<u32>,
}

/// Whether the node comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does, as far as is known.
    ComesBack,
    /// It comes back without something that it has now, or that somebody meant it to have.
    ComesBackWithout,
    /// It doesn't.
    DoesNot,
    /// It can't be told.
    CantTell,
}

impl NextBoot {
    /// The worst of the problems.
    pub fn verdict(&self) -> Verdict {
        match self.problems.iter().map(|problem| problem.severity).max() {
            None | Some(Severity::Notice) => Verdict::ComesBack,
            Some(Severity::Loses) => Verdict::ComesBackWithout,
            Some(Severity::CantTell) => Verdict::CantTell,
            Some(Severity::Breaks) => Verdict::DoesNot,
        }
    }

    /// Adds a problem, in its place.
    pub(super) fn add(&mut self, problem: Problem) {
        // Where the supervisor itself ends on a default runtime, containerd doesn't get to refuse it too.
        let said = problem.kind == ProblemKind::DefaultHandlerMissing
            && self
                .problems
                .iter()
                .any(|known| known.kind == ProblemKind::DefaultRuntimeNotFound);
        if !said && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        self.problems
            .sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    }
}

/// Says what the next start will bring. Nothing is changed, and nothing is run.
///
/// `None` for a node that has no containerd.
pub fn plan(host: &Host, fs: &dyn HostFs) -> Option<NextBoot> {
    let containerd = host.containerd.value()?;
    let written = fs
        .read(&containerd.config_path)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let written_table = written.as_deref().and_then(|text| parse_table(text).ok());
    let mut plan = NextBoot {
        supervisor: None,
        unit: None,
        generation: None,
        config_path: containerd.config_path.clone(),
        source: Source::File,
        rendered: None,
        drop_ins: Vec::new(),
        now: containerd.config.clone(),
        next: None,
        differences: Vec::new(),
        lines: Vec::new(),
        problems: Vec::new(),
        assumptions: Vec::new(),
        verified: Verified::No("containerd was not asked".to_owned()),
    };
    let mut base_table = None;
    if let Some(distribution) = host.distribution.value()
        && matches!(distribution.kind, DistributionKind::Rke2 | DistributionKind::K3s)
    {
        plan.unit = distribution.unit.value().cloned();
        base_table = plan_supervised(&mut plan, host, fs, containerd, written.as_deref());
    } else {
        plan.generation = generation(containerd, None, written_table.as_ref());
        if plan.generation.is_none() {
            plan.add(Problem::cant_tell("the version of containerd is not known"));
        }
        plan.rendered = written.as_deref().map(base::mask_text);
        if written.is_none() && !containerd.config.is_absent() {
            plan.add(Problem::cant_tell(format!(
                "`{}` can't be read",
                containerd.config_path.display()
            )));
        } else if written.is_none() {
            // containerd starts with its defaults.
            plan.rendered = Some(String::new());
        }
    }
    judge(&mut plan, host, fs, base_table.as_ref());
    if let (Some(old), Some(new)) = (written_table, plan.rendered.as_deref())
        && let Ok(new) = parse_table(new)
    {
        plan.lines = difference::lines(old, new);
    }
    Some(plan)
}

/// Renders as RKE2 and K3s do. Returns what they would write without the user's template.
fn plan_supervised(
    plan: &mut NextBoot,
    host: &Host,
    fs: &dyn HostFs,
    containerd: &Containerd,
    written: Option<&str>,
) -> Option<Table> {
    // Their own text says so in its first line; a tool that rewrote the file has dropped it.
    let own = written
        .filter(|text| {
            text.lines()
                .take(5)
                .any(|line| line.starts_with("# File generated by "))
        })
        .and_then(|text| parse_table(text).ok());
    let release = host.distribution.value().and_then(|found| found.version.value());
    let by_release = release.map(Shape::of_release);
    let by_file = own.as_ref().map(Shape::of_written);
    plan.generation = generation(containerd, by_release.as_ref(), own.as_ref());
    let Some(generation) = plan.generation else {
        plan.add(Problem::cant_tell(
            "neither the version of the distribution nor that of its containerd is known",
        ));
        return None;
    };
    let Some(shape) = shape(generation, by_release, by_file) else {
        plan.add(Problem::cant_tell("the version of the distribution is not known"));
        return None;
    };
    let dir = containerd
        .config_path
        .parent()
        .unwrap_or(Path::new("/"))
        .to_path_buf();
    // What may not be looked at may hold what keeps the node from coming back.
    let drop_ins = dir.join(Shape::names(shape.version).1);
    if let Some(reason) = read::names(fs, &drop_ins).failure().filter(|_| shape.imports) {
        plan.add(Problem::cant_tell(format!("drop-ins: {reason}")));
    }
    if let Some(reason) = containerd.config.failure().filter(|_| written.is_none()) {
        plan.add(Problem::cant_tell(format!("what is written now: {reason}")));
    }
    let template = choose_template(plan, &containerd.templates, &dir, shape.version);
    // Where the user's template is one for version 2, containerd 2 gets the base of version 2 as well.
    let shape = match template {
        Some((_, version)) => Shape { version, ..shape },
        None => shape,
    };
    let Supervisor {
        node,
        assumptions,
        doubts,
    } = supervisor::gather(host, fs, &shape, own.as_ref())?;
    plan.supervisor = Some(node.program.clone());
    plan.assumptions = assumptions;
    for doubt in doubts {
        plan.add(Problem::cant_tell(doubt));
    }
    let base = base::render(&shape, &node);
    if let Some(problem) = problem::default_runtime_not_found(&node) {
        plan.add(problem);
    }
    let data = template_data(&shape, &node);
    match template {
        None => {
            plan.source = Source::Base;
            plan.rendered = Some(base.clone());
        }
        Some((template, _)) => {
            plan.source = Source::Template(template.path.clone());
            match &template.text {
                Reading::Value(text) => match render_template(text, &base, &data) {
                    Ok(text) => plan.rendered = Some(base::mask_text(&text)),
                    Err(error) => plan.add(problem::template_error(&template.path, &error)),
                },
                Reading::Failed(reason) => plan.add(Problem::cant_tell(format!("the template: {reason}"))),
                Reading::NotSupported => {}
            }
        }
    }
    parse_table(&base).ok()
}

/// The generation that will read the file.
fn generation(
    containerd: &Containerd,
    by_release: Option<&Shape>,
    written: Option<&Table>,
) -> Option<Generation> {
    let by_shape = by_release.map(|shape| {
        if shape.version >= 3 {
            Generation::Two
        } else {
            Generation::One
        }
    });
    let by_file = || {
        let version = written.and_then(|table| config::version(table).ok())?;
        (version >= 3).then_some(Generation::Two)
    };
    containerd
        .version
        .value()
        .map(Generation::of)
        .or(by_shape)
        .or_else(by_file)
}

/// What the release writes: as seen in what it wrote, where that is of the version that it writes now.
fn shape(generation: Generation, by_release: Option<Shape>, by_file: Option<Shape>) -> Option<Shape> {
    let version = generation.config_version();
    match (by_release, by_file) {
        (Some(release), Some(file)) if file.version == version => Some(Shape {
            version,
            default_runtime: release.default_runtime,
            ..file
        }),
        (Some(release), Some(file)) => Some(Shape {
            version,
            imports: release.imports || file.imports,
            ..release
        }),
        (Some(release), None) => Some(Shape { version, ..release }),
        (None, Some(file)) if file.version == version => Some(file),
        (None, Some(_)) => Some(Shape {
            version,
            imports: false,
            ..Shape::NEWEST
        }),
        (None, None) => None,
    }
}

/// The template that is used, with the version that it belongs to; notes those that are not.
fn choose_template<'a>(
    plan: &mut NextBoot,
    templates: &'a [Template],
    dir: &Path,
    version: u32,
) -> Option<(&'a Template, u32)> {
    let find = |version: u32| {
        let path = dir.join(Shape::names(version).0);
        templates
            .iter()
            .find(|template| template.path == path && template.text != Reading::NotSupported)
    };
    let (three, two) = (find(3), find(2));
    if version < 3 {
        if let Some(unused) = three {
            plan.add(problem::template_unused(
                &unused.path,
                "this release reads config.toml.tmpl alone",
            ));
        }
        return two.map(|template| (template, 2));
    }
    match (three, two) {
        (Some(three), two) => {
            if let Some(unused) = two.filter(|two| two.text.value().is_some()) {
                plan.add(problem::template_unused(
                    &unused.path,
                    "config-v3.toml.tmpl is there and comes first",
                ));
            }
            Some((three, 3))
        }
        (None, Some(two)) => Some((two, 2)),
        (None, None) => None,
    }
}

/// Reads what was rendered as containerd will, and looks for what is wrong.
fn judge(plan: &mut NextBoot, host: &Host, fs: &dyn HostFs, base: Option<&Table>) {
    let (Some(text), Some(generation)) = (plan.rendered.clone(), plan.generation) else {
        return;
    };
    match effective_text(fs, &plan.config_path.clone(), &text, generation) {
        Ok(found) => {
            plan.drop_ins = found
                .files
                .iter()
                .skip(1)
                .map(|file| DropIn {
                    path: file.path.clone(),
                    version: file.version,
                })
                .collect();
            for problem in problem::of_effective(plan, fs, &found, base, generation) {
                plan.add(problem);
            }
            set_next(plan, found);
            unread(plan, host);
        }
        Err(error) => {
            let problem = problem::refused(plan, &error, generation);
            plan.add(problem);
        }
    }
}

/// Drop-ins beside the file of RKE2 and K3s, which it is thought to import.
fn unread(plan: &mut NextBoot, host: &Host) {
    if plan.supervisor.is_none() {
        return;
    }
    let known = host.containerd.value().map(|found| found.drop_ins.as_slice());
    for drop_in in known.unwrap_or_default() {
        let read = plan.drop_ins.iter().any(|known| known.path == drop_in.path);
        if !read {
            plan.add(problem::drop_in_unread(&drop_in.path));
        }
    }
}

fn set_next(plan: &mut NextBoot, found: Effective) {
    let now = plan.now.value().cloned();
    plan.differences = now
        .map(|now| difference::between(&now, &found.config))
        .unwrap_or_default();
    for problem in problem::of_differences(&plan.differences) {
        plan.add(problem);
    }
    plan.next = Some(found.config);
}
