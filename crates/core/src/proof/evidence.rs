//! A run as a whole: with what, where, when, and which GPUs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Corruption, DeviceEvidence, Outcome, Rate, Timestamp};

/// What one run has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The program and its kernels.
    pub tool: Tool,
    /// How it ran.
    pub run: Run,
    /// Where it ran.
    pub node: Node,
    /// The driver.
    pub driver: Driver,
    /// Why no GPU could be tested at all; the run has no devices then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_error: Option<SetupError>,
    /// The GPUs and MIG devices, in the driver's order.
    #[serde(default)]
    pub devices: Vec<DeviceEvidence>,
    /// Copies from one GPU to another, one entry for each direction of each pair.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerPath>,
}

/// The program that measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Version of pitcrew.
    pub version: String,
    /// SHA-256 of the manifest of its kernels, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<String>,
}

/// How much is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Five seconds: does it compute at all.
    Smoke,
    /// A minute: every phase.
    Prove,
    /// A quarter of an hour at the limit.
    Burn,
    /// Hours.
    Soak,
}

impl Profile {
    /// All of them, shortest first.
    pub const ALL: &'static [Self] = &[Self::Smoke, Self::Prove, Self::Burn, Self::Soak];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Prove => "prove",
            Self::Burn => "burn",
            Self::Soak => "soak",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// How much was to be tested.
    pub profile: Profile,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Why it ended early (a signal, say); absent where it ran to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<String>,
    /// The scenario whose imaginary GPUs these are; absent for real ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// Faults that were planted on purpose (`--inject`), as they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub injected: Vec<String>,
    /// The run was told to go on where other processes hold a GPU.
    #[serde(default)]
    pub share: bool,
}

/// Where a run took place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name of the node, as its API server has it, or of the machine.
    pub name: String,
    /// Namespace and name of the pod, `namespace/name`; absent outside pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Release of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Variables that decide what a process sees of the GPUs (`CUDA_*`, `NVIDIA_*`), by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

/// The driver that was there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Version of the driver, e.g. `580.95.05`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Newest CUDA version that it takes, e.g. `13.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<String>,
}

impl Driver {
    /// The branch, which is what nodes are compared by: `580` of `580.95.05`.
    pub fn branch(&self) -> Option<&str> {
        self.version.as_deref()?.split('.').next()
    }
}

/// Why a GPU could not be used at all, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupError {
    /// Which of the known causes.
    pub code: SetupErrorCode,
    /// What happened and why, in one line.
    pub message: String,
    /// What to do, in one line; absent where it isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The driver's own number for it (`CUresult`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_error: Option<u32>,
}

/// What keeps a GPU from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetupErrorCode {
    /// There is no `libcuda.so.1`, and no device node either: no GPU was given to this container or machine.
    NoDriver,
    /// Device nodes are there, the library is not: the container lacks the capability `compute`, or its C library isn't
    /// glibc.
    NoLibrary,
    /// The driver finds no GPU (CUDA 100).
    NoDevice,
    /// MIG is on and there is no instance.
    NoMigInstance,
    /// The GPU has fallen off the bus.
    GpuLost,
    /// The fabric manager or IMEX is not up (CUDA 802).
    FabricNotReady,
    /// Library and kernel module differ (CUDA 803, 804).
    DriverMismatch,
    /// The driver is older than anything that the kernels were made for (CUDA 222, 35).
    DriverTooOld,
    /// No kernel runs on this GPU (CUDA 209, 221).
    NoKernel,
    /// Too little memory is free.
    OutOfMemory,
    /// Another process has the GPU for itself (CUDA 46), or holds it and sharing was not allowed.
    InUse,
    /// A device node may not be opened.
    NotPermitted,
    /// No progress in ten seconds.
    Hang,
    /// Anything else; the message says it.
    Other,
}

/// Copies from one GPU to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerPath {
    /// Index of the device that is read, in [`Evidence::devices`].
    pub from: usize,
    /// Index of the device that is written.
    pub to: usize,
    /// The way that the data took.
    pub route: PeerRoute,
    /// What became of the test.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The rate in GB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The rate in this direction while the other was busy too, in GB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub both_ways: Option<Rate>,
    /// Bytes that were compared after the copy.
    #[serde(default)]
    pub verified_bytes: u64,
    /// Words that were wrong, all of them.
    #[serde(default)]
    pub corruption_count: u64,
    /// The first thousand of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corruptions: Vec<Corruption>,
}

/// The way between two GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerRoute {
    /// NVLink, directly or by NVSwitch.
    NvLink,
    /// PCIe, without the host's memory.
    Pcie,
    /// Through the host's memory: no peer access.
    Host,
    /// It is not known.
    Unknown,
}
