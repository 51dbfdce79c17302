//! What one look at the machine gave.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::pci::PciAddress;
use pitcrew_core::{Inventory, Reading};

/// What one look at the machine gave.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// When it was taken, since the view was started.
    pub(crate) taken: Duration,
    /// All GPUs, or why there was no answer.
    pub(crate) inventory: Result<Inventory, Trouble>,
    /// GPUs that only the PCI bus knows: NVIDIA's driver does not manage them.
    pub(crate) bus_only: Vec<PciAddress>,
    /// What is known of processes, by pid. Those that are not here are unknown.
    pub(crate) processes: BTreeMap<u32, ProcessInfo>,
}

/// Why a look gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A call to the driver has not come back.
    Silent {
        /// NVML's name of the call, where it is known.
        call: Option<String>,
        /// For how long.
        waited: Duration,
    },
    /// The driver or its library refused, or isn't there: why, in one line.
    Refused(String),
}

/// What is known of a process without asking the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessInfo {
    /// Its name, as in `/proc/PID/comm`.
    pub(crate) name: Reading<String>,
    /// Name of its user on the host.
    pub(crate) user: Reading<String>,
    /// The pod that it runs in; not supported for one that runs in none.
    pub(crate) pod: Reading<Pod>,
}

impl ProcessInfo {
    /// Of a process that nothing was asked about.
    pub(crate) fn nothing() -> Self {
        Self {
            name: Reading::NotSupported,
            user: Reading::NotSupported,
            pod: Reading::NotSupported,
        }
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its namespace and name, where the node tells.
    pub(crate) name: Option<(String, String)>,
    /// Its UID, which the control group names.
    pub(crate) uid: String,
}

impl Pod {
    /// `namespace/name`, or the UID where the node doesn't tell the name.
    pub(crate) fn label(&self) -> String {
        match &self.name {
            Some((namespace, name)) => format!("{namespace}/{name}"),
            None => format!("pod {}", self.uid),
        }
    }
}
