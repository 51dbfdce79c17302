//! Taking away what MPS has on a node, when a person asks for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pitcrew_core::ports::HostFs;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::daemon::Ground;
use super::{Daemon, Place, SHARED_MEMORY};
use crate::deps::System;
use crate::notice::Notice;

/// Programs still run through MPS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "these processes use {resource} through MPS, and would fail without its daemon: {}; drain the node, or delete their \
     pods, and try again",
    .clients.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
)]
pub struct InUse {
    /// Name of the resource.
    pub resource: String,
    /// Process ids, as the node counts them.
    pub clients: Vec<u32>,
}

/// What MPS has on a node.
pub struct Removal {
    ground: Ground,
    daemons: Vec<Daemon>,
    /// Directories of the host.
    directories: Vec<PathBuf>,
    told: UnboundedReceiver<Notice>,
}

impl std::fmt::Debug for Removal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Removal")
            .field("daemons", &self.daemons)
            .field("directories", &self.directories)
            .finish_non_exhaustive()
    }
}

impl Removal {
    /// Looks what is there. `root` is the host's root as the agent sees it.
    ///
    /// # Errors
    /// Where programs use it. Then nothing is to be taken away.
    pub async fn look(
        system: Arc<dyn System>,
        host: Arc<dyn HostFs + Send + Sync>,
        root: &Path,
        place: &Place,
    ) -> Result<Self, InUse> {
        let (notices, told) = unbounded_channel();
        let ground = Ground::to_remove(system, host, root, notices, place.clone());
        let daemons: Vec<Daemon> = ground.disk.daemons().into_values().collect();
        for daemon in &daemons {
            let clients = ground.clients(daemon).await;
            if !clients.is_empty() {
                return Err(InUse {
                    resource: daemon.resource.clone(),
                    clients,
                });
            }
        }
        let on_host = |dir: PathBuf| match dir.strip_prefix(root) {
            Ok(path) => Path::new("/").join(path),
            Err(_) => dir,
        };
        Ok(Self {
            directories: directories(&ground, place).into_iter().map(on_host).collect(),
            ground,
            daemons,
            told,
        })
    }

    /// What is there, one phrase each: daemons, then directories.
    pub fn things(&self) -> Vec<String> {
        let daemons = self.daemons.iter();
        let daemons = daemons.map(|daemon| format!("the daemon of MPS of `{}`", daemon.resource));
        let directories = self.directories.iter().map(|dir| format!("`{}`", dir.display()));
        daemons.chain(directories).collect()
    }

    /// Takes it away: ends the daemons, gives GPUs the mode that they had, removes the directories. What could not be
    /// done, one sentence each.
    pub async fn run(mut self) -> Vec<String> {
        for daemon in &self.daemons {
            self.ground.stop(daemon, None).await;
        }
        self.ground.give_back_modes(|_| true).await;
        let mut left = Vec::new();
        for dir in &self.directories {
            let seen = self.ground.disk.see(dir);
            let is_whole = is_whole(&seen);
            // Of those that hold others, whatever is somebody else's stays.
            let removed = if is_whole {
                std::fs::remove_dir_all(&seen)
            } else {
                std::fs::remove_dir(&seen)
            };
            if let Err(error) = removed
                && is_whole
                && seen.exists()
            {
                left.push(format!("`{}` could not be removed: {error}", dir.display()));
            }
        }
        while let Ok(notice) = self.told.try_recv() {
            left.push(notice.text);
        }
        left
    }
}

/// True for a directory of MPS itself, all of which goes.
fn is_whole(dir: &Path) -> bool {
    let is_notes = dir.file_name().is_some_and(|name| name == ".daemons");
    is_notes || dir.join("pipe").is_dir() || dir.ends_with(SHARED_MEMORY.trim_start_matches('/'))
}

/// Directories that are there, inner ones first. Modes that can't be given back stay written down.
fn directories(ground: &Ground, place: &Place) -> Vec<PathBuf> {
    let root = ground.disk.see(&place.root);
    let mut found = BTreeSet::new();
    // Another daemon, of NVIDIA's plugin, has its pipes in the same place.
    let ours: BTreeSet<PathBuf> = ground
        .disk
        .daemons()
        .keys()
        .filter_map(|resource| {
            ground
                .disk
                .see(&place.pipe(resource))
                .parent()
                .map(Path::to_owned)
        })
        .collect();
    for domain in inside(&root) {
        for resource in inside(&domain).into_iter().filter(|dir| ours.contains(dir)) {
            found.insert(domain.clone());
            found.insert(resource);
        }
    }
    let others = [
        root.join(".daemons"),
        root.join(".compute-modes"),
        root.clone(),
        ground.disk.see(Path::new(SHARED_MEMORY)),
    ];
    found.extend(others.into_iter().filter(|dir| dir.is_dir()));
    found.into_iter().rev().collect()
}

fn inside(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}
