//! What the agent writes on a node so that containers get their GPUs: the program of the hooks, and the runtime wrapper
//! where RKE2 and K3s look for one, or where containerd is told of it.
//!
//! [`There::look`] sees what is there, [`plan`] decides (pure), [`Executor`] does one step after the other. Each step is
//! whole or not done at all, and may be done twice; killed between any two, the node still starts containers, and the next
//! run goes on. Everything lies in a directory of our own, by version, but for links in NVIDIA's toolkit directory; all of
//! it is in a list, which is written before what it names.
//!
//! Install before a CDI specification is written, and a specification before the device plugin registers; [`collect`]
//! afterwards takes away old versions that nobody names any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pitcrew_host::facts::Containerd;
use pitcrew_host::{Host, releases};
use serde::Serialize;

use super::tier::{HANDLER, is_supervised};

mod manifest;
mod step;
mod there;
mod uses;

pub use manifest::{Entry, Kind, Manifest, parse as parse_manifest};
pub(crate) use step::followed;
pub(super) use step::read;
pub use step::{Executor, Step, StepError};
pub use there::{Occupant, Place, There};
pub(super) use uses::is_default;
pub use uses::{Task, Uses, versions_in};

/// The hooks' program in the directory of a version; by this name it is a CDI hook.
pub const HOOK: &str = "nvidia-cdi-hook";
/// The same program as an OCI runtime, in the directory of a version and in the toolkit directory.
pub const WRAPPER: &str = "nvidia-container-runtime";
/// The wrapper for the handler `nvidia-cdi`.
pub const WRAPPER_CDI: &str = "nvidia-container-runtime.cdi";
/// The wrapper's settings, beside it.
pub const WRAPPER_SETTINGS: &str = "pitcrew-hook.json";
/// The list of all that was written, in our directory.
pub const MANIFEST: &str = "installed.json";

/// Below our directory: links to the wrapper where none can be in the toolkit directory.
pub const BIN: &str = "bin";
/// `PATH` of a service of systemd that sets none.
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// What shall be there.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Version of the agent: the name of a directory.
    pub version: String,
    /// The static program of hooks and wrapper, on the agent's own file system: beside the agent in its image.
    pub binary: PathBuf,
    /// How the wrapper treats requests that go past the scheduler.
    pub wrapper: WrapperSettings,
    /// Whether containerd's configuration shall name the wrapper where no supervisor looks for one.
    pub handler: bool,
}

/// The wrapper's settings that differ from its own defaults, as in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WrapperSettings {
    /// Whether `NVIDIA_VISIBLE_DEVICES` counts in containers that are not privileged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub accept_env_when_unprivileged: bool,
    /// Whether mounts of `/dev/null` below `/var/run/nvidia-container-devices` count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub accept_volume_mounts: bool,
    /// Whether it does nothing but become runc: what is left of it after uninstalling.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pass_through: bool,
}

impl WrapperSettings {
    /// Text of the file.
    pub fn text(&self) -> String {
        // Three booleans can't fail to be encoded.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Steps in their order, and what one should know of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is to do; empty where all is as it should be.
    pub steps: Vec<Step>,
    /// What is not done, with the reason, and the next step of a person: one sentence each, in lower case.
    pub remarks: Vec<String>,
}

/// The program that CDI specifications name for their hooks, on the host, once [`plan`] is carried out.
pub fn hook_path(there: &There, wanted: &Wanted) -> PathBuf {
    there.home.join(&wanted.version).join(HOOK)
}

/// What is to do to have the program of the hooks and, on RKE2 and K3s, the wrapper there.
pub fn plan(host: &Host, there: &There, wanted: &Wanted) -> Plan {
    let mut plan = Plan::default();
    plan.remarks.extend(there.home_remark.clone());
    let dir = there.home.join(&wanted.version);
    let mut manifest = there.manifest.clone();

    let links = wrapper_links(host, there, wanted, &mut plan.remarks);
    let mut dirs: Vec<PathBuf> = Vec::new();
    if !links.is_empty() {
        let above = [there.links_dir.parent(), Some(there.links_dir.as_path())];
        let missing = above
            .into_iter()
            .flatten()
            .filter(|dir| !there.has(dir) && **dir != *there.home);
        dirs.extend(missing.map(Path::to_owned));
    }
    let files = [HOOK, WRAPPER, WRAPPER_SETTINGS].map(|name| dir.join(name));
    manifest.add(Kind::Directory, &dir);
    for file in &files {
        manifest.add(Kind::File, file);
    }
    for dir in &dirs {
        manifest.add(Kind::Directory, dir);
    }
    // What somebody else has put there since is no more ours to take away.
    manifest.retain(|entry| entry.kind != Kind::Link || there.occupant(&entry.path) != &Occupant::Theirs);
    for name in &links {
        manifest.add(Kind::Link, &there.links_dir.join(name));
    }

    plan.steps
        .extend(there.leftovers.iter().cloned().map(Step::remove));
    if !there.has(&there.home) {
        plan.steps.push(Step::make_dir(&there.home));
    }
    if manifest != there.manifest {
        plan.steps
            .push(Step::write(&there.home.join(MANIFEST), manifest.text()));
    }
    if !there.has(&dir) {
        plan.steps.push(Step::make_dir(&dir));
    }
    for name in [HOOK, WRAPPER] {
        if !there.same_binary.contains(name) {
            plan.steps.push(Step::copy(&wanted.binary, &dir.join(name)));
        }
    }
    let settings = wanted.wrapper.text();
    if there.settings.as_deref() != Some(settings.as_str()) {
        plan.steps
            .push(Step::write(&dir.join(WRAPPER_SETTINGS), settings));
    }
    plan.steps.extend(dirs.iter().map(|dir| Step::make_dir(dir)));
    let target = dir.join(WRAPPER);
    for name in links {
        let at = there.links_dir.join(name);
        if there.occupant(&at) != &Occupant::Ours(target.clone()) {
            plan.steps.push(Step::link(&at, &target));
        }
    }
    plan
}

/// Which links to the wrapper shall be in the toolkit directory. None where nobody would look for them, or where they
/// would take the place of something that we didn't write.
fn wrapper_links(
    host: &Host,
    there: &There,
    wanted: &Wanted,
    remarks: &mut Vec<String>,
) -> Vec<&'static str> {
    let wrapper = there.links_dir.join(WRAPPER);
    if !is_supervised(host) {
        // One that is there may be named by the configuration, asked for or not.
        let is_there = matches!(there.occupant(&wrapper), Occupant::Ours(_));
        return if wanted.handler || is_there {
            vec![WRAPPER]
        } else {
            Vec::new()
        };
    }
    if let Some(toolkit) = &host.foreign.toolkit {
        remarks.push(format!(
            "`{}` holds NVIDIA's container toolkit, which stays as it is: the handler `{HANDLER}` is NVIDIA's",
            toolkit.display()
        ));
        return Vec::new();
    }
    if there.occupant(&wrapper) == &Occupant::Theirs {
        remarks.push(format!(
            "`{}` is not ours and stays as it is: the handler `{HANDLER}` is whoever's wrote it",
            wrapper.display()
        ));
        return Vec::new();
    }
    let other = host
        .containerd
        .value()
        .and_then(|containerd| found_elsewhere(containerd, &wrapper));
    if let Some(other) = other {
        remarks.push(format!(
            "the handler `{HANDLER}` is `{}`, which stays",
            other.display()
        ));
        return Vec::new();
    }
    if let Some(why) = &there.toolkit_closed {
        let unit = host
            .distribution
            .value()
            .and_then(|distribution| distribution.unit.value());
        remarks.push(format!(
            "the wrapper of the handler `{HANDLER}` is in `{dir}`, where no supervisor looks by itself, since {why}. Pods \
             without `runtimeClassName: nvidia` need none; for others put `PATH=\"{dir}:{SERVICE_PATH}\"` into \
             `/etc/default/{}` and restart that unit",
            unit.map_or("UNIT", String::as_str),
            dir = there.links_dir.display(),
        ));
    }
    let release = host
        .distribution
        .value()
        .and_then(|distribution| distribution.version.value());
    if release.is_none_or(releases::detects_cdi_runtime)
        && there.occupant(&there.links_dir.join(WRAPPER_CDI)) != &Occupant::Theirs
    {
        vec![WRAPPER, WRAPPER_CDI]
    } else {
        vec![WRAPPER]
    }
}

/// A runtime of that name that the supervisor finds, and that isn't where ours would be.
fn found_elsewhere<'a>(containerd: &'a Containerd, ours: &Path) -> Option<&'a PathBuf> {
    let mut detected = containerd.detected_runtimes.iter();
    let found = detected.find(|(name, _)| name == HANDLER);
    found.map(|(_, binary)| binary).filter(|binary| *binary != ours)
}

/// Takes away old versions that no specification, no container and no configuration names, and nothing of the current.
pub fn collect(there: &There, uses: &Uses, current: &str) -> Plan {
    let named = uses.versions();
    let old: BTreeSet<&String> = there
        .versions
        .iter()
        .filter(|version| *version != current && !named.contains(version))
        .collect();
    // A link that still leads to an old version is put right by `plan` first.
    let linked = |version: &str| {
        let dir = there.home.join(version);
        there.links().any(|target| target.starts_with(&dir))
    };
    let mut plan = Plan::default();
    let mut manifest = there.manifest.clone();
    for version in old.into_iter().filter(|version| !linked(version)) {
        let dir = there.home.join(version);
        plan.steps.extend(remove_tree(&there.manifest, &dir));
        manifest.retain(|entry| !entry.path.starts_with(&dir));
    }
    // Of a run that was killed after it had taken away the directory.
    manifest.retain(|entry| {
        let below = entry.path.strip_prefix(&there.home).ok();
        let version = below.and_then(|below| below.iter().next()?.to_str());
        version.is_none_or(|version| version == current || version == BIN || there.versions.contains(version))
    });
    if manifest != there.manifest {
        plan.steps
            .push(Step::write(&there.home.join(MANIFEST), manifest.text()));
    }
    plan
}

/// Steps that take away what the list has under a directory, and the directory where nothing else is in it.
pub(super) fn remove_tree(manifest: &Manifest, dir: &Path) -> Vec<Step> {
    let mut paths: Vec<&Entry> = manifest
        .entries()
        .iter()
        .filter(|entry| entry.path.starts_with(dir))
        .collect();
    // What is deepest goes first.
    paths.sort_by_key(|entry| {
        let depth = entry.path.components().count();
        (entry.kind == Kind::Directory, std::cmp::Reverse(depth))
    });
    paths.into_iter().filter_map(Step::take_away).collect()
}

#[cfg(test)]
pub(crate) mod tests;
