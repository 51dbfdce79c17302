//! The daemon of NVIDIA's Multi-Process Service (MPS), one for each resource that is shared through it.
//!
//! [`plan()`] says which daemons there should be, [`container`] what a container needs to reach its own, and [`run`] keeps
//! them running: told what each client may have, started again when they end, taken over from an agent before, and stopped
//! so that nothing of them is left when nobody holds their GPUs. Facts: fact sheet `devices`, sections 1.8 and 5.2; the
//! daemon's own behaviour was tried with that of driver 550, which runs without a GPU until a client comes.
//!
//! What users should know of MPS itself:
//!
//! - A server runs as the user of its clients. Pods of one user share a GPU at once; pods of another user wait until
//!   those are gone. Whatever the user, the directories on the way to the pipe must be open to all.
//! - Limits are for each process of a pod. A pod that sets variables of MPS itself can lift its own.
//! - What ends a daemon ends what runs on it. The end of the agent doesn't: [`Process`](crate::deps::Process).

mod daemon;
mod dialogue;
mod disk;
mod holders;
mod keeper;
mod modes;
mod next;
mod plan;
mod problems;
mod uninstall;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use keeper::run;
pub use plan::{Daemon, Part, plan};
pub use uninstall::{Refused, Removal};

use crate::plugin::Shared;
use crate::runtime::mounts::BindMount;
use crate::snapshot::Problem;

/// Where MPS keeps things on the host, unless the configuration says otherwise: the reference's place.
pub use pitcrew_core::plugin::config::MPS_ROOT as ROOT;

/// Shared memory of clients and servers, on the host. Its parent is a file system in memory of half the node's on every
/// distribution, so that nothing has to be mounted: a mount of the agent's would have to spread to the host first.
pub const SHARED_MEMORY: &str = "/dev/shm/nvidia-mps";

/// Variable that tells a program where its daemon is.
const PIPE_VARIABLE: &str = "CUDA_MPS_PIPE_DIRECTORY";
/// Where the directories are in a container.
const IN_CONTAINER: &str = "/mps";

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Directory of MPS on the host: [`ROOT`], or `flags.mpsRoot`.
    pub root: PathBuf,
    /// Root of the driver on the host: `/`, or a driver container's.
    pub driver_root: PathBuf,
    /// True where SELinux is on, and containers reach only what is labelled for them.
    pub selinux: bool,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            root: ROOT.into(),
            driver_root: "/".into(),
            selinux: false,
        }
    }
}

impl Place {
    /// The pipe's directory of a resource, on the host.
    pub fn pipe(&self, resource: &str) -> PathBuf {
        self.root.join(resource).join("pipe")
    }

    /// The log's directory of a resource, on the host.
    pub fn log(&self, resource: &str) -> PathBuf {
        self.root.join(resource).join("log")
    }
}

/// What is done to the compute mode of GPUs that are shared through MPS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// `EXCLUSIVE_PROCESS` where the node allows it, as the reference sets it; where it doesn't, the mode that it has, and
    /// the node's status says what that means.
    #[default]
    WherePossible,
    /// `EXCLUSIVE_PROCESS`, or nothing is shared.
    Exclusive,
    /// The mode that it has: the owner's choice.
    Leave,
}

/// What a container needs to use its share of a resource. The kubelet keeps it for as long as the pod lives, so nothing
/// in it depends on how the agent was built or configured but for the root.
pub fn container(place: &Place, resource: &str) -> Shared {
    let inside = format!("{IN_CONTAINER}/{resource}/pipe");
    let mount = |container: &str, host: &Path| BindMount {
        container: container.to_owned(),
        host: host.to_string_lossy().into_owned(),
        read_only: false,
    };
    Shared {
        env: BTreeMap::from([(PIPE_VARIABLE.to_owned(), inside.clone())]),
        mounts: vec![
            mount(&inside, &place.pipe(resource)),
            mount("/dev/shm", Path::new(SHARED_MEMORY)),
        ],
    }
}

/// What there should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Daemons by resource, or why one can't be.
    pub daemons: BTreeMap<String, Result<Daemon, Problem>>,
    /// UUIDs of GPUs that pods hold through MPS. A daemon whose GPUs somebody holds goes on as it is, whatever is wanted:
    /// what was handed out stays valid.
    pub held: BTreeSet<String>,
    /// Where things are.
    pub place: Place,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Resources whose daemon answers and keeps the limits, and what their containers get.
    pub ready: BTreeMap<String, Shared>,
    /// What is wrong, by resource. A resource can be ready and have a problem.
    pub problems: BTreeMap<String, Problem>,
    /// What is to know of resources that are ready, by resource: that other processes can use their GPUs, too.
    pub remarks: BTreeMap<String, Problem>,
}

impl Status {
    /// The first problem, for the node's condition.
    pub fn problem(&self) -> Option<Problem> {
        first(&self.problems)
    }

    /// The first remark, for the node's condition.
    pub fn remark(&self) -> Option<Problem> {
        first(&self.remarks)
    }
}

/// UUIDs of the GPUs of daemons that an agent before this one left. `root` is the host's root as the agent sees it.
pub fn left(root: &Path, place: &Place) -> BTreeSet<String> {
    let daemons = disk::Disk::new(root, place).daemons().into_values();
    daemons
        .flat_map(|daemon| daemon.gpus)
        .map(|part| part.uuid)
        .collect()
}

fn first(all: &BTreeMap<String, Problem>) -> Option<Problem> {
    let (resource, problem) = all.iter().next()?;
    Some(Problem {
        message: format!("{resource}: {}", problem.message),
        ..problem.clone()
    })
}
