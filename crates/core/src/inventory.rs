//! One snapshot of all GPUs of a node, from which everything else is made: CDI, resources, labels, metrics, status.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{Gpu, Reading, readings};

/// All GPUs of a node at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inventory {
    /// The driver.
    pub driver: DriverReadings,
    /// GPUs in the driver's order; those that only the PCI bus knows come last.
    pub gpus: Vec<Gpu>,
    /// How pairs of GPUs are connected: one entry for each pair of indices that the driver knows, lower index first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// GPUs about which a call has not returned: of their readings nothing is known, for or against them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<Silent>,
}

impl Inventory {
    /// Why nothing is known of the GPU with this index, where a call about it has not returned.
    pub fn silence(&self, index: u32) -> Option<&str> {
        let of_gpu = self.silent.iter().find(|silent| silent.index == index);
        of_gpu.map(|silent| silent.reason.as_str())
    }
}

/// A GPU about which a call of the driver has not returned, and may never do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silent {
    /// The driver's number of the GPU.
    pub index: u32,
    /// Which call, and how long was waited for it. It stays the same for as long as that call has not returned.
    pub reason: String,
}

readings! {
    /// What the driver says of itself.
    pub struct DriverReadings {
        /// Version of the kernel module, e.g. `580.159.04`.
        pub version: String,
        /// Version of NVML.
        pub nvml_version: String,
        /// Highest CUDA version that the driver can run.
        pub cuda: CudaVersion,
        /// True for NVIDIA's open kernel modules.
        pub open_kernel_modules: bool,
    }
}

/// A CUDA version, e.g. 13.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl CudaVersion {
    /// From the driver's number: 1000 times the major and 10 times the minor version.
    pub fn from_driver(number: u32) -> Self {
        Self {
            major: number / 1000,
            minor: number % 1000 / 10,
        }
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for CudaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How two GPUs are connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Index of the first GPU.
    pub from: u32,
    /// Index of the second GPU, greater than `from`.
    pub to: u32,
    /// The nearest common ancestor on the PCI bus.
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub path: Reading<PciPath>,
    /// `NVLinks` between the two, directly or through switches.
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub nvlinks: Reading<u32>,
}

/// The nearest common ancestor of two GPUs on the PCI bus, nearest first; in brackets what `nvidia-smi topo` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PciPath {
    /// Both on one board.
    SameBoard,
    /// One PCIe switch (PIX).
    SingleSwitch,
    /// Several PCIe switches, no host bridge (PXB).
    MultipleSwitches,
    /// One host bridge (PHB).
    HostBridge,
    /// One NUMA node, several host bridges (NODE).
    NumaNode,
    /// The interconnect between CPUs (SYS).
    System,
}
