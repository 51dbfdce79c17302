//! Our own control group in every hierarchy of the machine: pods under it, and the daemons, so that
//! whatever the bed started is found again even where no pid file tells of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::daemon::Process;
use super::machine;
use super::paths::{make_dir, write};

/// The directory's name in each hierarchy.
pub(crate) const NAME: &str = "pitcrew-testbed";
/// Under ours: the daemons. With controllers on, cgroup v2 allows processes only in leaves.
const DAEMONS: &str = "daemons";
const MOUNT: &str = "/sys/fs/cgroup";

/// True where the machine has the one hierarchy of cgroup v2.
pub(crate) fn unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// The hierarchies that containers are put in.
fn hierarchies() -> Vec<PathBuf> {
    if unified() {
        return vec![PathBuf::from(MOUNT)];
    }
    let entries = std::fs::read_dir(MOUNT).into_iter().flatten().flatten();
    // Links such as cpu,cpuacct lead to hierarchies that are listed themselves.
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> = real
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    found
}

/// The one hierarchy that we look in for our own processes.
fn tracking() -> Option<PathBuf> {
    let found = hierarchies();
    let named = ["systemd", "pids"].iter().map(|name| Path::new(MOUNT).join(name));
    named
        .into_iter()
        .find(|path| found.contains(path))
        .or_else(|| found.first().cloned())
}

/// Makes our directory in each hierarchy, fit for pods to be made in.
pub(crate) fn provide() -> Result<()> {
    for hierarchy in hierarchies() {
        let ours = hierarchy.join(NAME);
        if unified() {
            delegate(&hierarchy)?;
            make_dir(&ours)?;
            delegate(&ours)?;
        } else {
            make_dir(&ours)?;
            // An empty cpuset admits no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = std::fs::read_to_string(hierarchy.join(file)) {
                    write(&ours.join(file), value.trim())?;
                }
            }
        }
    }
    if let Some(hierarchy) = tracking() {
        make_dir(&hierarchy.join(NAME).join(DAEMONS))?;
    }
    Ok(())
}

/// cgroup v2: lets the directory's children have every controller that it has itself.
fn delegate(directory: &Path) -> Result<()> {
    let available = std::fs::read_to_string(directory.join("cgroup.controllers"))?;
    let given = std::fs::read_to_string(directory.join("cgroup.subtree_control"))?;
    let given: Vec<&str> = given.split_whitespace().collect();
    for controller in available.split_whitespace().filter(|name| !given.contains(name)) {
        let file = directory.join("cgroup.subtree_control");
        let result = std::fs::write(&file, format!("+{controller}"));
        // What the kubelet insists on; others (rdma, misc) may be refused.
        if ["cpu", "cpuset", "memory", "pids", "hugetlb", "io"].contains(&controller) {
            result.with_context(|| {
                format!(
                    "could not turn on the controller {controller} in {}; in a container, run it in a \
                     cgroup namespace whose root holds no processes",
                    file.display()
                )
            })?;
        }
    }
    Ok(())
}

/// Puts a process that we have just started among the daemons.
pub(crate) fn adopt(pid: u32) -> Result<()> {
    let Some(hierarchy) = tracking() else {
        return Ok(());
    };
    let file = hierarchy.join(NAME).join(DAEMONS).join("cgroup.procs");
    match std::fs::write(&file, pid.to_string()) {
        // It ended at once; whoever waits for it says why.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        other => other.with_context(|| format!("could not put process {pid} into {}", file.display())),
    }
}

/// All directories of a tree, deepest first.
fn tree(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    if top.is_dir() {
        found.push(top.to_path_buf());
    }
    found
}

fn members(directories: &[PathBuf]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    for directory in directories {
        let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        for process in text.lines().filter_map(|line| Process::now(line.parse().ok()?)) {
            if !found.contains(&process) {
                found.push(process);
            }
        }
    }
    found
}

/// What runs in pods now.
pub(crate) fn pods() -> Vec<Process> {
    let mut directories: Vec<PathBuf> = hierarchies()
        .iter()
        .flat_map(|hierarchy| tree(&hierarchy.join(NAME)))
        .collect();
    directories.retain(|directory| !directory.ends_with(DAEMONS));
    members(&directories)
}

/// What we started and what those started: daemons, shims, forwarders, and containers that were put
/// into other groups by hand.
pub(crate) fn daemons() -> Vec<Process> {
    let Some(hierarchy) = tracking() else {
        return Vec::new();
    };
    let mut found = members(&[hierarchy.join(NAME).join(DAEMONS)]);
    let parents: Vec<(u32, u32)> = machine::processes()
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut seen = 0;
    while seen < found.len() {
        let above = found[seen].pid;
        seen += 1;
        for process in parents
            .iter()
            .filter(|(_, parent)| *parent == above)
            .filter_map(|(pid, _)| Process::now(*pid))
        {
            if !found.contains(&process) {
                found.push(process);
            }
        }
    }
    found
}

fn parent(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text[text.rfind(')')? + 1..]
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Removes what pods left; with `all`, our directories too. What is still in use stays.
pub(crate) fn remove(all: bool) {
    for hierarchy in hierarchies() {
        let ours = hierarchy.join(NAME);
        for directory in tree(&ours) {
            if all || !(directory == ours || directory.ends_with(DAEMONS)) {
                // Busy ones are named by `left`.
                let _ = std::fs::remove_dir(&directory);
            }
        }
    }
}

/// Our directories that are still there.
pub(crate) fn left() -> Vec<PathBuf> {
    hierarchies()
        .iter()
        .map(|hierarchy| hierarchy.join(NAME))
        .filter(|path| path.exists())
        .collect()
}
