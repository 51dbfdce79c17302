//! Taking away exactly what was written, only when a person asks for it: never because the agent was told to end.
//!
//! The order is the opposite of installing: the device plugin deregisters, marker files go, then specifications, then
//! programs. What containers or containerd's configuration still need stays, as a wrapper that does nothing but become
//! runc. What was written at the API server goes last: see [`cluster`].

pub mod cluster;

use std::path::{Path, PathBuf};

use pitcrew_cdi::generate::Extra;
use pitcrew_cdi::spec::{DEVICE_PLUGIN_GPU, GPU, MANAGEMENT_GPU};
use pitcrew_cdi::{Kind, Spec};
use pitcrew_core::ports::HostFs;
use pitcrew_host::Host;

use super::handler::{self, Loaded, Record};
use super::install::{
    Entry, Kind as Written, MANIFEST, Occupant, Step, There, Uses, WRAPPER, WRAPPER_CDI, WRAPPER_SETTINGS,
    Wanted, WrapperSettings,
};
use super::tier::HANDLER;
use crate::plugin::Extras;
use crate::status::markers;

/// What shall be taken away.
#[derive(Debug, Clone)]
pub struct Removal {
    /// Sockets of our device plugin in the kubelet's directory; it forgets the resources when they go.
    pub sockets: Vec<PathBuf>,
    /// Files by which others know of the node: markers, and labels for Node Feature Discovery, only those that we wrote; and
    /// reports of proofs.
    pub files: Vec<PathBuf>,
    /// Specifications that the agent wrote, see [`specs`].
    pub specs: Vec<PathBuf>,
    /// Directories of these files that go with them.
    pub dirs: Vec<PathBuf>,
    /// containerd's run of now, to be written down where its configuration is changed.
    pub record: Record,
    /// Whether containerd has not read its configuration since it was last changed.
    pub unread: bool,
    /// Whether the wrapper goes although containerd's configuration names it. Pods with `runtimeClassName: nvidia` then
    /// don't start on this node, GPU or not, until its supervisor is restarted and they are changed.
    pub wrapper_too: bool,
}

/// What is done, and what stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is to do, in this order.
    pub steps: Vec<Step>,
    /// What stays, why, and how it goes: one sentence each, in lower case.
    pub remarks: Vec<String>,
}

/// Why nothing is taken away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Every container of the node is started through the handler.
    #[error(
        "`{HANDLER}` is the default runtime of this node, so that without the wrapper no container starts, the node's own \
         among them: take `default-runtime: {HANDLER}` out of its configuration, {}, and try again",
        restart(.unit.as_deref())
    )]
    DefaultRuntime {
        /// The unit to restart.
        unit: Option<String>,
    },
    /// Containers that run have what would be taken away.
    #[error(
        "these pods use GPUs that this agent gave them, and could not restart a container: {}; drain the node, or delete \
         them, and try again",
        .0.join(", ")
    )]
    InUse(Vec<String>),
    /// It can't be told which files of a directory are ours.
    #[error("`{}` can't be read: {why}; run it as root on the node, and try again", .dir.display())]
    Markers {
        /// Where they are.
        dir: PathBuf,
        /// Why not.
        why: String,
    },
    /// It can't be told whether anything is in use.
    #[error("it can't be told what is in use: {}; run it as root on the node, and try again", .0.join("; "))]
    Unread(Vec<String>),
}

fn restart(unit: Option<&str>) -> String {
    match unit {
        Some(unit) => format!("`systemctl restart {unit}`"),
        None => "restart containerd".to_owned(),
    }
}

/// Where the agent may have written specifications, in the directory that it writes them to.
pub fn spec_paths(cdi_dir: &Path) -> Vec<PathBuf> {
    let kinds = [DEVICE_PLUGIN_GPU, GPU, MANAGEMENT_GPU].map(str::to_owned);
    // By that of the GPUs these are known as ours, so they go before it.
    let kinds = Extra::ALL.map(Extras::kind).into_iter().chain(kinds);
    let stems = kinds.filter_map(|kind| kind.parse().ok());
    stems
        .flat_map(|kind: Kind| {
            ["json", "yaml"].map(|ending| cdi_dir.join(format!("{}.{ending}", kind.file_stem())))
        })
        .collect()
}

/// Where the agent may have written, and how much goes.
#[derive(Debug, Clone, Default)]
pub struct Sites {
    /// Where it writes specifications.
    pub cdi_dir: PathBuf,
    /// Sockets of our device plugin.
    pub sockets: Vec<PathBuf>,
    /// Where it may have written labels for Node Feature Discovery.
    pub label_files: Vec<PathBuf>,
    /// See [`Removal::wrapper_too`].
    pub wrapper_too: bool,
}

/// Looks at the node whose root is mounted at `root`, and plans: [`plan`] with what is found.
///
/// # Errors
/// As of [`plan`], and where marker files can't be read.
pub fn look_and_plan(root: &Path, fs: &dyn HostFs, host: &Host, sites: Sites) -> Result<Plan, Refused> {
    // No version is wanted any more.
    let wanted = Wanted {
        version: String::new(),
        binary: PathBuf::new(),
        wrapper: WrapperSettings::default(),
        handler: false,
    };
    let there = There::look(root, host, &wanted);
    let uses = Uses::look(fs, host, &there.home);
    let mut files = markers::ours(root).map_err(|error| Refused::Markers {
        dir: markers::DIR.into(),
        why: error.to_string(),
    })?;
    let (reports, dirs) = crate::proof::on_disk(root).map_err(|error| Refused::Markers {
        dir: crate::proof::DIR.into(),
        why: error.to_string(),
    })?;
    files.extend(reports);
    let is_ours = |path: &PathBuf| crate::labels::is_our_file(root, path);
    files.extend(sites.label_files.into_iter().filter(is_ours));
    files.dedup();
    let removal = Removal {
        sockets: sites.sockets,
        files,
        dirs,
        specs: specs(fs, &there.home, &spec_paths(&sites.cdi_dir)),
        record: Record::now(fs, host),
        unread: handler::loaded(fs, &there.home) == Loaded::NotYet,
        wrapper_too: sites.wrapper_too,
    };
    plan(host, &there, &uses, &removal)
}

/// Those of these files that the agent wrote: all of their hooks are programs of ours. What describes something besides
/// GPUs has no hook; it is ours where that of the GPUs is, as the device plugin has both. Others are left alone.
pub fn specs(fs: &dyn HostFs, home: &Path, candidates: &[PathBuf]) -> Vec<PathBuf> {
    let read = |path: &PathBuf| {
        let text = String::from_utf8(fs.read(path).ok()?).ok()?;
        let spec = pitcrew_cdi::text::parse(&text).ok()?;
        Some((path.clone(), spec))
    };
    let read: Vec<(PathBuf, Spec)> = candidates.iter().filter_map(read).collect();
    let hooks = |spec: &Spec| {
        let of_devices = spec
            .devices
            .iter()
            .flat_map(|device| &device.container_edits.hooks);
        let hooks = of_devices.chain(&spec.container_edits.hooks);
        hooks.map(|hook| PathBuf::from(&hook.path)).collect::<Vec<_>>()
    };
    let has_our_hooks = |spec: &Spec| {
        let hooks = hooks(spec);
        !hooks.is_empty() && hooks.iter().all(|hook| hook.starts_with(home))
    };
    let serves = read
        .iter()
        .any(|(_, spec)| spec.kind == DEVICE_PLUGIN_GPU && has_our_hooks(spec));
    let extras = Extra::ALL.map(Extras::kind);
    let is_ours = |spec: &Spec| {
        has_our_hooks(spec) || (serves && extras.contains(&spec.kind) && hooks(spec).is_empty())
    };
    let ours = read.into_iter().filter(|(_, spec)| is_ours(spec));
    ours.map(|(path, _)| path).collect()
}

/// What is to do to take away all that was written.
///
/// # Errors
/// Where the node, or a pod that runs, would miss it. Then nothing at all is to be done.
pub fn plan(host: &Host, there: &There, uses: &Uses, removal: &Removal) -> Result<Plan, Refused> {
    refuse(host, there, uses)?;
    let mut plan = Plan::default();
    let keep = kept_wrapper(there, uses, removal, &mut plan.remarks);
    plan.steps.extend(
        removal
            .sockets
            .iter()
            .chain(&removal.files)
            .cloned()
            .map(Step::remove),
    );
    let dirs = removal.dirs.iter().cloned();
    plan.steps.extend(dirs.map(|path| Step::RemoveDir { path }));
    if let Some(target) = &keep {
        // Before specifications go: a container that asks for them must start without.
        let settings = WrapperSettings {
            pass_through: true,
            ..WrapperSettings::default()
        };
        plan.steps.push(Step::write(
            &target.with_file_name(WRAPPER_SETTINGS),
            settings.text(),
        ));
    }
    plan.steps.extend(removal.specs.iter().cloned().map(Step::remove));
    let others: Vec<&PathBuf> = uses
        .specs
        .iter()
        .map(|(path, _)| path)
        .filter(|path| !removal.specs.contains(path))
        .collect();
    if !others.is_empty() {
        let names: Vec<String> = others
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        plan.remarks.push(format!(
            "{} is not of the agent and names its hooks, so these stay: take it away, and uninstall again",
            names.join(", ")
        ));
    }
    let stays = |entry: &Entry| {
        let by_wrapper = keep
            .as_deref()
            .is_some_and(|target| is_of_wrapper(entry, target, there));
        let by_spec = uses
            .specs
            .iter()
            .filter(|(path, _)| others.contains(&path))
            .any(|(_, versions)| {
                versions.iter().any(|version| {
                    let dir = there.home.join(version);
                    entry.path.starts_with(&dir) || dir.starts_with(&entry.path)
                })
            });
        by_wrapper || by_spec
    };
    // What containerd is told goes before what it is told of.
    plan.steps.extend(pieces(there));
    let told = |entry: &&Entry| handler::is_ours(entry);
    plan.steps.extend(
        there
            .manifest
            .entries()
            .iter()
            .filter(told)
            .filter_map(Step::take_away),
    );
    plan.steps
        .extend(there.leftovers.iter().cloned().map(Step::remove));
    let mut going: Vec<&Entry> = there
        .manifest
        .entries()
        .iter()
        .filter(|entry| !handler::is_ours(entry) && !stays(entry))
        // A link that isn't ours any more is somebody else's.
        .filter(|entry| {
            entry.kind != Written::Link
                || matches!(there.occupant(&entry.path), Occupant::Ours(_) | Occupant::Nobody)
        })
        .collect();
    // Links, then files, then directories from the inside out: never a link to what is gone.
    going.sort_by_key(|entry| {
        let kind = match entry.kind {
            Written::Link => 0,
            Written::File => 1,
            Written::Directory => 2,
            Written::Piece => 3,
        };
        (kind, std::cmp::Reverse(entry.path.components().count()))
    });
    plan.steps.extend(going.into_iter().filter_map(Step::take_away));
    plan.steps.extend(list_of_what_stays(there, removal, stays));
    Ok(plan)
}

/// The list of what was written, last: without what went, or gone with its directory where nothing is left.
fn list_of_what_stays(there: &There, removal: &Removal, stays: impl Fn(&Entry) -> bool) -> Vec<Step> {
    let mut left = there.manifest.clone();
    left.retain(|entry| entry.kind != Written::Piece && stays(entry));
    let list = there.home.join(MANIFEST);
    if left.entries().is_empty() {
        let home = there.home.clone();
        return vec![
            Step::remove(home.join(handler::RECORD)),
            Step::remove(list),
            Step::RemoveDir { path: home },
        ];
    }
    let record = handler::is_written(&there.manifest).then(|| removal.record.step(&there.home));
    record
        .into_iter()
        .chain([Step::write(&list, left.text())])
        .collect()
}

/// Steps that take our pieces out of the files of others. A file that we have made goes.
fn pieces(there: &There) -> Vec<Step> {
    let step = |(path, text): (&PathBuf, &String)| {
        let left = handler::taken_back(path, text, &there.home);
        if left == *text {
            None
        } else if left.is_empty() {
            Some(Step::remove(path.clone()))
        } else {
            Some(Step::edit(path, Some(text.clone()), left))
        }
    };
    there.pieces.iter().filter_map(step).collect()
}

/// Fails where the node, or a pod that runs, would miss anything.
fn refuse(host: &Host, there: &There, uses: &Uses) -> Result<(), Refused> {
    let wrapper_is_ours = there.links().next().is_some();
    if wrapper_is_ours && super::install::is_default(host, uses) {
        let unit = host
            .distribution
            .value()
            .and_then(|distribution| distribution.unit.value());
        return Err(Refused::DefaultRuntime { unit: unit.cloned() });
    }
    if !uses.unread.is_empty() {
        return Err(Refused::Unread(uses.unread.clone()));
    }
    let mut holders: Vec<String> = uses
        .tasks
        .iter()
        .filter(|task| !task.versions.is_empty())
        .map(|task| task.name().to_owned())
        .collect();
    holders.sort();
    holders.dedup();
    if !holders.is_empty() {
        return Err(Refused::InUse(holders));
    }
    Ok(())
}

/// The wrapper's file, where it must stay, and why.
fn kept_wrapper(there: &There, uses: &Uses, removal: &Removal, remarks: &mut Vec<String>) -> Option<PathBuf> {
    let target = there.links().next()?.to_owned();
    if uses.needs_wrapper() {
        let tasks = uses.tasks.iter().filter(|task| task.by_wrapper);
        let mut names: Vec<&str> = tasks.map(super::install::Task::name).collect();
        names.sort_unstable();
        names.dedup();
        remarks.push(format!(
            "the runtime wrapper stays and only starts runc, as these pods were started through it and could not be ended \
             without: {}; uninstall again when they are gone",
            names.join(", ")
        ));
        return Some(target);
    }
    let by_us = handler::is_written(&there.manifest);
    if (by_us && !uses.handlers.is_empty() || removal.unread) && !removal.wrapper_too {
        remarks.push(format!(
            "the runtime wrapper stays and only starts runc, as containerd has the handler `{HANDLER}` until its next start: \
             `systemctl restart {}`, then uninstall again",
            removal.record.unit
        ));
        return Some(target);
    }
    if !uses.handlers.is_empty() && !removal.wrapper_too {
        remarks.push(format!(
            "the runtime wrapper stays and only starts runc, as containerd's configuration names it and pods with \
             `runtimeClassName: {}` would not start; to take it away all the same, uninstall again with `--wrapper-too`, \
             then restart the supervisor",
            uses.handlers.join(", ")
        ));
        return Some(target);
    }
    None
}

/// The links to the wrapper, its file, its settings, and the directories that these are in.
fn is_of_wrapper(entry: &Entry, target: &Path, there: &There) -> bool {
    let settings = target.with_file_name(WRAPPER_SETTINGS);
    let links = [WRAPPER, WRAPPER_CDI].map(|name| there.links_dir.join(name));
    let kept = [target, &settings]
        .into_iter()
        .chain(links.iter().map(PathBuf::as_path));
    let mut kept = kept.peekable();
    match entry.kind {
        Written::Directory => kept.any(|path| path.starts_with(&entry.path)),
        Written::File | Written::Link => kept.any(|path| path == entry.path),
        Written::Piece => false,
    }
}

#[cfg(test)]
mod tests;
