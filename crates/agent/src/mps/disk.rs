//! What is written down, so that the next agent finds it: which daemon served a resource, and which mode a GPU had before.
//!
//! It lies beside the daemons' directories, which a reboot empties as it resets the modes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::dialogue::Mode;
use super::{Daemon, Place};
use crate::dir::Dir;

/// Below the root of MPS: what is known of daemons, by resource, and of modes, by UUID.
const DAEMONS: &str = ".daemons";
const MODES: &str = ".compute-modes";

/// The agent's view of [`Place::root`].
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: PathBuf,
    /// Where it all is, on the host.
    base: PathBuf,
    daemons: PathBuf,
    modes: PathBuf,
}

impl Disk {
    /// `root` is the host's root as the agent sees it.
    pub(super) fn new(root: &Path, place: &Place) -> Self {
        let base = under(root, &place.root);
        Self {
            root: root.to_owned(),
            base: place.root.clone(),
            daemons: base.join(DAEMONS),
            modes: base.join(MODES),
        }
    }

    /// The host's root.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A path of the host, as the agent sees it.
    pub(super) fn see(&self, path: &Path) -> PathBuf {
        under(&self.root, path)
    }

    /// Daemons that were written down, by resource. What can't be read was not written by us.
    pub(super) fn daemons(&self) -> BTreeMap<String, Daemon> {
        let texts = entries(&self.daemons).into_iter().map(|(_, text)| text);
        let daemons = texts.filter_map(|text| serde_json::from_str::<Daemon>(&text).ok());
        daemons.map(|daemon| (daemon.resource.clone(), daemon)).collect()
    }

    pub(super) fn keep_daemon(&self, daemon: &Daemon) -> io::Result<()> {
        let text = serde_json::to_string(daemon)?;
        self.write(DAEMONS, &file_name(&daemon.resource), &text)
    }

    pub(super) fn forget_daemon(&self, resource: &str) {
        let _ = std::fs::remove_file(self.daemons.join(file_name(resource)));
    }

    /// Modes that GPUs had before, by UUID.
    pub(super) fn modes(&self) -> BTreeMap<String, Mode> {
        let modes = entries(&self.modes).into_iter();
        modes
            .filter_map(|(uuid, text)| Some((uuid, Mode::read(&text)?)))
            .collect()
    }

    pub(super) fn keep_mode(&self, uuid: &str, mode: Mode) -> io::Result<()> {
        self.write(MODES, uuid, mode.word())
    }

    fn write(&self, dir: &str, name: &str, text: &str) -> io::Result<()> {
        let dir = Dir::make(&self.root, &self.base.join(dir))?;
        let mut file = tempfile::NamedTempFile::new_in(dir.path())?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.persist(dir.path().join(name))?;
        Ok(())
    }

    pub(super) fn forget_mode(&self, uuid: &str) {
        let _ = std::fs::remove_file(self.modes.join(uuid));
    }
}

/// Puts a root before a path of the host.
fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A resource's name without its slash.
fn file_name(resource: &str) -> String {
    resource.replace('/', "_")
}

fn entries(dir: &Path) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let read = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name, std::fs::read_to_string(entry.path()).ok()?))
    });
    read.collect()
}
