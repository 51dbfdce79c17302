//! This machine's GPUs, and whose processes hold them.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_cli::GlobalArgs;
use pitcrew_core::Inventory;
use pitcrew_host::process::{Membership, Pods, Process};
use pitcrew_host::root::{HostRoots, Roots};
use pitcrew_nvml::Stuck;

use super::watch::Feed;
use crate::driver::{self, Opened, Seen};
use crate::error::Error;
use crate::view::report::Source;
use crate::view::top::{Look, Pod, ProcessInfo, Trouble};

/// Looks at this machine's GPUs.
struct MachineFeed {
    global: GlobalArgs,
    driver: Opened,
    files: HostRoots,
}

/// This machine's GPUs. With `listens`, looks tell the XIDs that happen between them.
pub(crate) fn machine(global: &GlobalArgs, listens: bool) -> Result<Box<dyn Feed>, Error> {
    let driver = driver::open(global, None)?;
    if listens {
        driver.listen();
    }
    Ok(Box::new(MachineFeed {
        global: global.clone(),
        driver,
        files: HostRoots::new(Roots::under(&global.root)),
    }))
}

impl MachineFeed {
    fn seen(&self, deadline: Duration) -> Result<Seen, Trouble> {
        if !driver::is_to_be_asked(&self.global).map_err(|error| refused(&error))? {
            return Err(Trouble::Refused("no NVIDIA GPU is on this machine".to_owned()));
        }
        match self.driver.look_within(deadline) {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(error)) => Err(refused(&error)),
            Err(stuck) => Err(silent(stuck)),
        }
    }

    /// What the node says of the processes that hold a GPU.
    fn processes(&self, inventory: &Inventory) -> BTreeMap<u32, ProcessInfo> {
        let gpus = inventory.gpus.iter();
        let pids: Vec<u32> = gpus
            .flat_map(|gpu| gpu.readings.processes.value().into_iter().flatten())
            .map(|process| process.pid)
            .collect();
        if pids.is_empty() {
            return BTreeMap::new();
        }
        let known = Pods::read(&self.files);
        let info = |pid: u32| {
            let Process {
                name,
                user,
                membership,
                ..
            } = Process::read(&self.files, pid);
            let pod = membership.map(|member| pod(&known, member));
            (pid, ProcessInfo { name, user, pod })
        };
        pids.into_iter().map(info).collect()
    }
}

fn pod(pods: &Pods, member: Membership) -> Pod {
    Pod {
        name: pods
            .pod(&member.pod_uid)
            .map(|pod| (pod.namespace.clone(), pod.name.clone())),
        uid: member.pod_uid,
    }
}

impl Feed for MachineFeed {
    fn look(&mut self, now: Duration, deadline: Duration) -> Look {
        match self.seen(deadline) {
            Ok(Seen { source, inventory }) => Look {
                taken: now,
                bus_only: match source {
                    Source::Driver { bus_only, .. } => bus_only,
                    Source::Scenario { .. } | Source::Pci { .. } => Vec::new(),
                },
                processes: self.processes(&inventory),
                inventory: Ok(inventory),
            },
            Err(trouble) => Look {
                taken: now,
                inventory: Err(trouble),
                bus_only: Vec::new(),
                processes: BTreeMap::new(),
            },
        }
    }
}

/// An error in one line, with what caused it.
fn refused(error: &Error) -> Trouble {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // The driver's own words say it all.
        text = match text.as_str() {
            "the GPUs can't be read" => error.to_string(),
            text => format!("{text}: {error}"),
        };
        cause = error.source();
    }
    Trouble::Refused(text)
}

/// What is told of a driver that doesn't answer in time.
pub(super) fn silent(stuck: Stuck) -> Trouble {
    match stuck {
        Stuck::NotReturned { what, running } => Trouble::Silent {
            // What the thread was asked for is told only where it names a call: that the GPUs were read is no news.
            call: Some(what).filter(|what| what.starts_with("nvml")),
            waited: running,
        },
        ended @ Stuck::Ended { .. } => Trouble::Refused(ended.to_string()),
    }
}
