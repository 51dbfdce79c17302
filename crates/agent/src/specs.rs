//! CDI specifications of the node, kept true.
//!
//! Files, each of one kind:
//!
//! - `k8s.device-plugin.nvidia.com/gpu`, devices by UUID: what the device plugin hands out. NVIDIA's plugin has the same
//!   kind, file and names, so that either takes over from the other.
//! - `nvidia.com/gpu`, by index, UUID and `all`, as NVIDIA's toolkit writes it for whoever names GPUs by hand. Only where no
//!   other file defines that kind: of two files in one directory that have a device in common, neither counts.
//! - `management.nvidia.com/gpu=all`, every node of the driver, for what manages GPUs. By the same rule.
//! - `k8s.device-plugin.nvidia.com/gds` and its like, what containers get besides GPUs where the configuration asks for
//!   it ([`Extra`]). One that isn't asked for any more stays, as pods were given its names; it goes when its device nodes
//!   do.
//!
//! [`Draft::new`] makes them anew and says what differs from the files that are there; [`Draft::settle`] makes steps of
//! that, [`carry_out`] does them. A name that goes while a pod holds the device stays in the first file with what it had:
//! the kubelet starts containers of that pod anew by the same name. Each file is written whole, and of the lowest version
//! that carries it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use pitcrew_cdi::directories::{self, Directories};
use pitcrew_cdi::generate::{self, Extra, GenerateError, Naming, Options};
use pitcrew_cdi::spec::NameError;
use pitcrew_cdi::text::{EncodeError, Encoding, encode};
use pitcrew_cdi::write::{self, WriteError};
use pitcrew_cdi::{Device, Kind, Spec};
use pitcrew_core::Inventory;
use pitcrew_core::ports::HostFs;
use pitcrew_host::Host;

use crate::dir::Dir;
use crate::plugin::Extras;
use crate::snapshot::Problem;

mod earlier;
pub(crate) mod keep;

#[cfg(test)]
mod tests;

/// Kind of what the device plugin hands out.
pub const PLUGIN: &str = "k8s.device-plugin.nvidia.com/gpu";

/// What specifications are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    /// The GPUs, those included that are sick.
    pub gpus: std::sync::Arc<Inventory>,
    /// Where the driver is.
    pub driver: DriverRoots,
    /// The program that the hooks start, as on the host.
    pub hook: PathBuf,
    /// The directory to write to, as on the host.
    pub dir: PathBuf,
    /// All directories that the runtime reads, as on the host.
    pub dirs: Vec<PathBuf>,
    /// What is asked for besides GPUs.
    pub extras: Extras,
}

/// Where on the host the driver's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverRoots {
    /// Root of its libraries and programs.
    pub libraries: PathBuf,
    /// Root of its device nodes.
    pub devices: PathBuf,
}

impl DriverRoots {
    /// As found: on the host itself, or in the root that NVIDIA's driver container has mounted.
    pub fn find(host: &Host) -> Self {
        let container = host.driver.container_root.as_ref();
        let on_host = |libraries: &pitcrew_host::facts::DriverLibraries| {
            container.is_none_or(|root| !libraries.directory.starts_with(root))
        };
        let libraries = match container {
            Some(root) if !host.driver.libraries.iter().any(on_host) => root.clone(),
            _ => "/".into(),
        };
        // A driver container makes its nodes in a /dev of its own only where it was told so; then the host has none.
        let devices = if host.devices.nodes.is_empty() {
            libraries.clone()
        } else {
            "/".into()
        };
        Self { libraries, devices }
    }
}

impl Basis {
    fn options(&self, kind: &str) -> Result<Options, NameError> {
        Ok(Options {
            driver_root: self.driver.libraries.clone(),
            dev_root: self.driver.devices.clone(),
            ..Options::new(kind, &self.hook)?
        })
    }
}

/// Directories that the runtime reads: its own setting, or what they are by default.
pub fn directories_of(host: &Host, ours: &Path) -> Vec<PathBuf> {
    let set = host
        .containerd
        .value()
        .and_then(|containerd| containerd.config.value())
        .and_then(|config| config.cdi_dirs.clone());
    let mut dirs: Vec<PathBuf> = match set {
        Some(dirs) => dirs.into_iter().map(PathBuf::from).collect(),
        None => directories::DEFAULT.iter().map(PathBuf::from).collect(),
    };
    // `/run` and `/var/run` are one.
    let same = |dir: &PathBuf| of_run(dir) == of_run(ours);
    if !dirs.iter().any(same) {
        dirs.push(ours.to_owned());
    }
    dirs
}

fn of_run(path: &Path) -> &Path {
    path.strip_prefix("/var")
        .ok()
        .filter(|rest| rest.starts_with("run"))
        .unwrap_or_else(|| path.strip_prefix("/").unwrap_or(path))
}

/// Why a specification can't be made or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to describe, or the driver's files are missing.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A kind is none.
    #[error(transparent)]
    Kind(#[from] NameError),
    /// It can't be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It can't be written.
    #[error("the CDI specification was not written: {}", crate::node::why(.0))]
    Write(#[from] WriteError),
    /// A file can't be taken away, or the directory can't be found.
    #[error("`{}` can't be changed: {source}", .path.display())]
    File {
        /// As on the host.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Something to do in the directory.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// This specification takes the place of what is in its file, if anything.
    Write(Box<Spec>),
    /// The file goes.
    Remove(PathBuf),
}

/// What the files should be, compared to what they are.
#[derive(Debug)]
pub struct Draft {
    plugin: File,
    others: Vec<File>,
    remarks: Vec<String>,
    problem: Option<Problem>,
    /// There are GPUs, and nothing can be made of them: the driver is being replaced, or broken.
    is_driver_away: bool,
}

/// One file.
#[derive(Debug)]
struct File {
    /// As on the host.
    path: PathBuf,
    /// What is there; `None` where nothing is, or nothing that a runtime reads.
    old: Option<Spec>,
    /// True where what is there was written by us.
    is_ours: bool,
    /// What should be there.
    new: Option<Spec>,
}

impl File {
    /// Devices that are there now and would not be any more.
    fn dropped(&self) -> impl Iterator<Item = &Device> {
        let old = self.old.iter().flat_map(|spec| &spec.devices);
        old.filter(|device| {
            let new = self.new.iter().flat_map(|spec| &spec.devices);
            !new.into_iter().any(|other| other.name == device.name)
        })
    }

    /// Devices that there will be, and those that there are.
    fn all(&self) -> impl Iterator<Item = &Device> {
        let new = self.new.iter().flat_map(|spec| &spec.devices);
        let old = self.old.iter().flat_map(|spec| &spec.devices);
        let is_new = |device: &&Device| {
            let new = self.new.iter().flat_map(|spec| &spec.devices);
            !new.into_iter().any(|other| other.name == device.name)
        };
        new.chain(old.filter(is_new))
    }

    /// A device that stays only because it is held: as it was, but for an index, which is what its device is now. The
    /// hooks that NVIDIA's plugin gave it may go with NVIDIA's toolkit.
    fn kept(&self, device: &Device) -> Device {
        let new = self.new.iter().flat_map(|spec| &spec.devices);
        let same = earlier::is_index(device)
            .then(|| earlier::same(device, new))
            .flatten();
        same.map_or_else(|| device.clone(), |same| earlier::under_the_name(device, same))
    }

    fn step(self) -> Option<Step> {
        match self.new {
            Some(new) if self.old.as_ref() == Some(&new) => None,
            Some(new) => Some(Step::Write(Box::new(new))),
            None if self.is_ours => Some(Step::Remove(self.path)),
            None => None,
        }
    }
}

impl Draft {
    /// Makes the specifications anew and reads those that are there.
    ///
    /// # Errors
    /// Only where a kind is none, which is a mistake of ours; what can't be made is told by [`Self::problem`].
    pub fn new(fs: &dyn HostFs, basis: &Basis) -> Result<Self, Error> {
        let there = Directories::read(fs, &basis.dirs);
        let mut remarks = Vec::new();
        let mut problem = None;

        let options = Options {
            names: vec![Naming::Uuid],
            all: false,
            ..basis.options(PLUGIN)?
        };
        let made = if basis.gpus.gpus.is_empty() {
            None
        } else {
            match generate::gpus(&basis.gpus, fs, &options) {
                Ok(generated) => {
                    remarks = generated.remarks;
                    Some(generated.spec)
                }
                Err(error) => {
                    problem = Some(not_made(&error));
                    None
                }
            }
        };
        let mut is_driver_away = made.is_none() && !basis.gpus.gpus.is_empty();
        let plugin = file(fs, basis, PLUGIN, made)?;
        if let Some(other) = conflict(&there, &plugin) {
            problem.get_or_insert_with(|| conflicting(&other));
        }

        let mut others = Vec::new();
        for kind in [pitcrew_cdi::spec::GPU, pitcrew_cdi::spec::MANAGEMENT_GPU] {
            let options = basis.options(kind)?;
            let made = if is_defined(&there, kind, &basis.dir, |spec| is_ours(spec, &options.hook))?
                || plugin.new.is_none()
            {
                None
            } else {
                let made = if kind == pitcrew_cdi::spec::GPU {
                    generate::gpus(&basis.gpus, fs, &options)
                } else {
                    generate::management(Some(&basis.gpus), fs, &options)
                };
                // It was there a moment ago, for the first specification.
                is_driver_away |= made.is_err();
                made.ok()
            };
            let file = file(fs, basis, kind, made.map(|made| made.spec))?;
            others.push(file);
        }
        for what in Extra::ALL.into_iter().filter(|what| basis.extras.has(*what)) {
            let kind = Extras::kind(what);
            if is_defined(&there, &kind, &basis.dir, |_| true)? {
                continue;
            }
            let mut made = generate::extra(what, fs, &basis.options(&kind)?);
            if let Some(spec) = &mut made
                && what == Extra::ImexChannel
            {
                spec.devices
                    .retain(|device| basis.extras.has_channel(&device.name));
            }
            let made = made.filter(|spec| !spec.devices.is_empty());
            if made.is_none() {
                remarks.push(format!(
                    "`{}` is asked for, and this node has no device node of it",
                    what.class()
                ));
            }
            // It has no hook by which it could be told from that of NVIDIA's plugin, which has the same names and
            // nodes: without a node either is wrong.
            let mut file = file(fs, basis, &kind, made)?;
            file.is_ours = file.old.is_some();
            others.push(file);
        }
        Ok(Self {
            plugin,
            others,
            remarks,
            problem,
            is_driver_away,
        })
    }

    /// True where files would go only because the driver's are not there now.
    pub fn is_driver_away(&self) -> bool {
        self.is_driver_away
    }

    /// What should have been in a specification and isn't: one sentence each.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Why containers can't be given their GPUs by name, if so.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// Names that would go. Whether pods hold them must be known first.
    pub fn dropped(&self) -> BTreeSet<&str> {
        self.plugin.dropped().map(|device| device.name.as_str()).collect()
    }

    /// Names that would go, and that a pod needs: one that holds the name, or of an index the device that it means.
    pub(crate) fn needed(&self, is_held: impl Fn(&str) -> bool) -> BTreeSet<&str> {
        let needed = |device: &&Device| {
            is_held(&device.name)
                || earlier::is_index(device)
                    && earlier::same(device, self.plugin.all()).is_some_and(|same| is_held(&same.name))
        };
        let names = self.plugin.dropped().filter(needed);
        names.map(|device| device.name.as_str()).collect()
    }

    /// What is to do, and the device plugin's specification as it will be then. `is_held` is true for names that a pod
    /// holds, or may hold.
    pub fn settle(mut self, is_held: impl Fn(&str) -> bool) -> (Vec<Step>, Option<Spec>) {
        let needed = self.needed(is_held);
        let held: Vec<Device> = self
            .plugin
            .dropped()
            .filter(|device| needed.contains(device.name.as_str()))
            .map(|device| self.plugin.kept(device))
            .collect();
        if !held.is_empty() {
            match &mut self.plugin.new {
                Some(new) => {
                    new.devices.extend(held);
                    new.version.clear();
                    new.version = new.needs().to_string();
                }
                // There is no driver to say what else they need: what there was is the best that is known.
                None => self.plugin.new.clone_from(&self.plugin.old),
            }
        }
        let spec = self.plugin.new.clone();
        let steps = std::iter::once(self.plugin).chain(self.others);
        (steps.filter_map(File::step).collect(), spec)
    }
}

/// The file of a kind in our directory.
fn file(fs: &dyn HostFs, basis: &Basis, kind: &str, new: Option<Spec>) -> Result<File, Error> {
    let path = basis.dir.join(name_of(kind)?);
    let old = directories::read_file(fs, &path).ok();
    Ok(File {
        path,
        is_ours: old.as_ref().is_some_and(|old| is_ours(old, &basis.hook)),
        old,
        new,
    })
}

fn name_of(kind: &str) -> Result<String, Error> {
    let kind: Kind = kind.parse()?;
    Ok(format!("{}.{}", kind.file_stem(), Encoding::Json.ending()))
}

/// True where a file that isn't ours defines devices of this kind: it has another name, or `is_ours` isn't true of it.
fn is_defined(
    there: &Directories,
    kind: &str,
    dir: &Path,
    is_ours: impl Fn(&Spec) -> bool,
) -> Result<bool, Error> {
    let ours = dir.join(name_of(kind)?);
    Ok(there.files.iter().any(|file| {
        let Ok(spec) = &file.spec else { return false };
        spec.kind == kind && !(of_run(&file.path) == of_run(&ours) && is_ours(spec))
    }))
}

/// True for a specification whose hooks are a program of ours, of whatever version: `.../pitcrew/VERSION/HOOK`.
fn is_ours(spec: &Spec, hook: &Path) -> bool {
    let home = hook.parent().and_then(Path::parent);
    let mut hooks = spec
        .devices
        .iter()
        .map(|device| &device.container_edits)
        .chain([&spec.container_edits])
        .flat_map(|edits| &edits.hooks)
        .peekable();
    hooks.peek().is_some()
        && hooks.all(|named| {
            let named = Path::new(&named.path);
            named == hook || home.is_some_and(|home| named.starts_with(home))
        })
}

/// Another file that takes our devices away.
fn conflict(there: &Directories, plugin: &File) -> Option<PathBuf> {
    let new = plugin.new.as_ref()?;
    let ours = there
        .files
        .iter()
        .find(|file| of_run(&file.path) == of_run(&plugin.path));
    let clashes = |file: &&directories::File| {
        let same_dir = file.path.parent().map(of_run) == plugin.path.parent().map(of_run);
        let later = ours.is_some_and(|ours| file.priority > ours.priority);
        let Ok(spec) = &file.spec else { return false };
        of_run(&file.path) != of_run(&plugin.path)
            && (same_dir || later)
            && spec.kind == new.kind
            && spec
                .devices
                .iter()
                .any(|device| new.devices.iter().any(|own| own.name == device.name))
    };
    there.files.iter().find(clashes).map(|file| file.path.clone())
}

fn not_made(error: &GenerateError) -> Problem {
    let (reason, hint) = match error {
        GenerateError::NoLibraries { .. } => (
            "DriverLibrariesNotFound",
            "`pitcrew check` on the node says what of the driver is missing",
        ),
        GenerateError::NoDevices(_) => (
            "NoDeviceNodes",
            "`pitcrew check` on the node says which device nodes are missing",
        ),
    };
    Problem {
        reason: reason.to_owned(),
        message: error.to_string(),
        hint: hint.to_owned(),
    }
}

fn conflicting(other: &Path) -> Problem {
    Problem {
        reason: "CdiConflict".to_owned(),
        message: format!(
            "`{}` has devices of the same names as ours: with both files no container gets any of them",
            other.display()
        ),
        hint: format!("stop who writes `{0}`, and remove it: `rm {0}`", other.display()),
    }
}

/// Does one step.
///
/// # Errors
/// Where the file can't be written or removed; it is then as it was.
pub fn carry_out(root: &Path, dir: &Path, step: &Step) -> Result<(), Error> {
    let failed = |source| Error::File {
        path: dir.to_owned(),
        source,
    };
    match step {
        Step::Write(spec) => {
            // Encoded once before, so that a mistake leaves the directory alone.
            encode(spec, Encoding::Json)?;
            let here = Dir::make(root, dir).map_err(failed)?;
            let written = write::into_directory(spec, &here.path(), Encoding::Json);
            written.map_err(|error| match error {
                WriteError::File { path, source } => Error::File {
                    path: dir.join(path.file_name().unwrap_or_default()),
                    source,
                },
                error => error.into(),
            })?;
        }
        Step::Remove(path) => {
            let name = path.file_name().unwrap_or_default();
            let here = match Dir::open(root, dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other.map_err(failed)?,
            };
            match std::fs::remove_file(here.path().join(name)) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    let path = path.clone();
                    return Err(Error::File { path, source });
                }
                _ => {}
            }
        }
    }
    Ok(())
}
