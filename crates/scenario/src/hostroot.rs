//! Imaginary host roots: the files of one node, out of one text, over the files of an imaginary machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pitcrew_core::ports::{FileKind, HostFs, Ownership};

use crate::change::Change;
use crate::error::{ScenarioError, nearest};
use crate::hostfs::Tree;
use crate::machine::Machine;
use crate::view::View;

mod build;
mod format;
mod parse;

/// The roots that come with the program.
const BUILTIN: &[(&str, &str)] = &[
    ("rke2", include_str!("../roots/rke2.yaml")),
    ("k3s", include_str!("../roots/k3s.yaml")),
];

/// An imaginary host root: files, links, devices and sockets in memory. What its machine shows lies under them, and
/// changes with it.
#[derive(Debug, Clone)]
pub struct HostRoot {
    name: String,
    description: String,
    files: Tree,
    modes: BTreeMap<PathBuf, u32>,
    /// What of the machine's files is not there.
    removed: BTreeSet<PathBuf>,
    unreadable: BTreeSet<PathBuf>,
    driver: format::Driver,
    machine: Option<Machine>,
}

impl HostRoot {
    /// Reads a manifest; `name` is what messages call it, `find` gives the text of the manifest that `like` names.
    pub fn parse(
        text: &str,
        name: &str,
        find: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ScenarioError> {
        parse::root(text, name, find, 0)
    }

    /// Names of the roots that come with the program.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// Text of a manifest that comes with the program: what `like` can name.
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        BUILTIN
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| *text)
    }

    /// A root that comes with the program; it has no machine.
    pub fn builtin(name: &str) -> Result<Self, ScenarioError> {
        let text = Self::builtin_text(name).ok_or_else(|| ScenarioError::UnknownRoot {
            name: name.to_owned(),
            near: nearest(name, Self::builtin_names()),
        })?;
        Self::parse(text, name, &|name| Self::builtin_text(name).map(str::to_owned))
    }

    /// An RKE2 worker with this machine's GPUs.
    pub fn over(machine: Machine) -> Result<Self, ScenarioError> {
        Ok(Self::builtin("rke2")?.with_machine(machine))
    }

    /// This root with another machine under it. What the manifest says of the driver is done to the machine.
    #[must_use]
    pub fn with_machine(mut self, machine: Machine) -> Self {
        if let Some(dir) = &self.driver.libraries {
            machine.put_libraries(dir);
        }
        if let Some(version) = &self.driver.version {
            let replace = Change::ReplaceDriver {
                version: version.clone(),
            };
            // Neither change names a GPU, so that neither can fail.
            let _ = machine.change(&replace);
        }
        if self.driver.loaded == Some(false) {
            let _ = machine.change(&Change::UnloadDriver);
        }
        self.machine = Some(machine);
        self
    }

    /// Its name: that of the built-in, or what it was called when it was parsed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is, in one line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The machine under it.
    pub fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// Lays the files out in a directory, as they are now, and gives the paths that this process may not make:
    /// device nodes mostly, and files that stay readable to it because it is root.
    pub fn build(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let below = self.below();
        build::build(&self.view(below.as_deref()), &self.modes, dir)
    }

    fn below(&self) -> Option<Arc<Tree>> {
        self.machine.as_ref().map(|machine| machine.shared.lock().tree())
    }

    fn view<'a>(&'a self, below: Option<&'a Tree>) -> View<'a> {
        View {
            upper: &self.files,
            lower: below,
            removed: &self.removed,
            unreadable: &self.unreadable,
        }
    }
}

impl HostFs for HostRoot {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.view(self.below().as_deref()).kind(path)
    }

    /// Everything is root's; what the manifest gives no mode has the one that it is built with.
    fn ownership(&self, path: &Path) -> io::Result<Ownership> {
        let given = self.modes.get(path).copied();
        let usual = match self.kind(path)? {
            FileKind::CharDevice { .. } => 0o666,
            FileKind::Directory => 0o755,
            FileKind::Link(_) => 0o777,
            FileKind::File(_) | FileKind::Other => 0o644,
        };
        Ok(Ownership {
            mode: given.unwrap_or(usual),
            uid: 0,
            gid: 0,
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.view(self.below().as_deref()).read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.view(self.below().as_deref()).list(path)
    }
}
