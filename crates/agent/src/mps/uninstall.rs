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

/// Why nothing is taken away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Programs still run through MPS.
    #[error(
        "these processes use {resource} through MPS, and would fail without its daemon: {}; drain the node, or delete \
         their pods, and try again",
        .clients.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
    )]
    InUse {
        /// Name of the resource.
        resource: String,
        /// Process ids, as the node counts them.
        clients: Vec<u32>,
    },
    /// The daemon runs and doesn't say who uses it, and pods have a share.
    #[error(
        "the daemon of MPS of {resource} does not answer ({why}), and these have a share of it and may run through it: \
         {}; drain the node, or delete them, and try again; to end it all the same, add `--mps-too`",
        .holders.join(", ")
    )]
    Silent {
        /// Name of the resource.
        resource: String,
        /// Why it doesn't answer.
        why: String,
        /// Pods, `namespace/name`, or processes.
        holders: Vec<String>,
    },
    /// The daemon runs and doesn't say who uses it, and neither does the node.
    #[error(
        "the daemon of MPS of {resource} does not answer ({why}), and it can't be told who uses it, as the node's \
         processes can't be looked at: {unread}; run it as root on the node, or end the daemon all the same with \
         `--mps-too`"
    )]
    Unread {
        /// Name of the resource.
        resource: String,
        /// Why it doesn't answer.
        why: String,
        /// Why processes can't be looked at.
        unread: String,
    },
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
    /// Looks what is there. `root` is the host's root as the agent sees it. With `silent_too` a daemon that doesn't answer
    /// goes whoever may use it.
    ///
    /// # Errors
    /// Where programs use it, or may. Then nothing is to be taken away.
    pub async fn look(
        system: Arc<dyn System>,
        host: Arc<dyn HostFs + Send + Sync>,
        root: &Path,
        place: &Place,
        silent_too: bool,
    ) -> Result<Self, Refused> {
        let (notices, told) = unbounded_channel();
        let ground = Ground::to_remove(system, host, root, notices, place.clone());
        let daemons: Vec<Daemon> = ground.disk.daemons().into_values().collect();
        for daemon in &daemons {
            refuse(&ground, daemon, silent_too).await?;
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

/// Fails where programs use a daemon, or may.
async fn refuse(ground: &Ground, daemon: &Daemon, silent_too: bool) -> Result<(), Refused> {
    let resource = daemon.resource.clone();
    let why = match ground.clients(daemon).await {
        Ok(clients) if clients.is_empty() => return Ok(()),
        Ok(clients) => return Err(Refused::InUse { resource, clients }),
        Err(why) => why,
    };
    // What it served has failed already where it is gone.
    if silent_too || ground.is_gone(daemon).await {
        return Ok(());
    }
    match ground.holders(daemon) {
        Ok(holders) if holders.is_empty() => Ok(()),
        Ok(holders) => {
            let holders = holders.into_iter().collect();
            Err(Refused::Silent {
                resource,
                why,
                holders,
            })
        }
        Err(error) => {
            let unread = error.to_string();
            Err(Refused::Unread {
                resource,
                why,
                unread,
            })
        }
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
