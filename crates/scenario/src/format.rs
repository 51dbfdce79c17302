//! The YAML of a scenario, as written. `docs/scenarios.md` explains it with examples.
//!
//! Every value that a check can refuse is [`Spanned`], so that the message names its line and column.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::value::Value;

/// A whole file: one imaginary node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// What the scenario is for, in one line.
    pub description: String,
    /// The driver.
    pub driver: Spanned<Driver>,
    /// GPUs, in groups of equal ones, in the driver's order.
    pub gpus: Spanned<Vec<Group>>,
    /// How the GPUs are connected; without it by `PCIe` only.
    pub links: Option<Spanned<Links>>,
    /// Calls that hang from the start, by NVML's name; `*` at the end stands for any rest.
    #[serde(default)]
    pub hang: Vec<Spanned<String>>,
}

/// The driver.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Driver {
    /// Version of the kernel module, e.g. `580.159.04`.
    pub version: Spanned<String>,
    /// Highest CUDA version that it runs, e.g. `"13.0"`. Quoted, or 12.10 would be 12.1.
    pub cuda: Spanned<String>,
    /// True for NVIDIA's open kernel modules.
    #[serde(default)]
    pub open_kernel_modules: bool,
    /// Why the driver doesn't answer at all; without it, it does.
    pub fault: Option<String>,
}

/// A number of equal GPUs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The card, by its name in the catalogue (`pitcrew gpus catalog`).
    pub card: Spanned<String>,
    /// How many, 1 to 64; 1 if not given.
    pub count: Option<Spanned<i64>>,
    /// The name that the driver gives, where the rule would make another one.
    pub name: Option<String>,
    /// PCI addresses, one for each GPU; without it the next free buses.
    #[serde(default)]
    pub pci: Vec<Spanned<String>>,
    /// PCI id of the board: subsystem vendor and device, e.g. `10de:16c1`.
    pub subsystem: Option<Spanned<String>>,
    /// NUMA node of the slot; without it by the rule in `docs/scenarios.md`.
    pub numa_node: Option<u32>,
    /// MIG mode and devices at the start.
    pub mig: Option<Spanned<MigDocument>>,
    /// Readings that differ from what follows from the card, by the name of the field in the output.
    #[serde(default)]
    pub readings: BTreeMap<String, Spanned<Value>>,
    /// Readings that fail, with the reason.
    #[serde(default)]
    pub fail: BTreeMap<String, Spanned<String>>,
    /// Readings that the card doesn't support.
    #[serde(default)]
    pub unsupported: Vec<Spanned<String>>,
    /// What is wrong with the whole GPU.
    pub fault: Option<Fault>,
    /// Processes that hold each GPU of the group.
    #[serde(default)]
    pub processes: Vec<Process>,
    /// XIDs that the driver has reported, oldest first.
    #[serde(default)]
    pub xids: Vec<u32>,
    /// Numbers that no reading gives, by NVML's name: field values (`NVML_FI_DEV_*`), and others that the mock of
    /// NVIDIA's library answers with (`NVML_TEMPERATURE_THRESHOLD_*`).
    #[serde(default)]
    pub fields: BTreeMap<String, u64>,
    /// Profiling figures by NVML's GPM metric number: percent, or MiB/s from 20 on.
    #[serde(default)]
    pub gpm: BTreeMap<u32, f64>,
    /// How long a call takes, in microseconds, by NVML's name; replayed only if asked for.
    #[serde(default)]
    pub latency_us: BTreeMap<String, Spanned<u64>>,
}

/// MIG at the start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigDocument {
    /// True when MIG is on.
    pub enabled: bool,
    /// Profiles of the devices, e.g. `3g.40gb`; placed in this order, each at the first free place, or where
    /// `3g.40gb@4` says.
    #[serde(default)]
    pub devices: Vec<Spanned<String>>,
}

/// What can be wrong with a whole GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The GPU no longer answers; its PCI function is still listed.
    FallenOffBus,
}

/// A process that holds a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Compute if not given.
    #[serde(default)]
    pub kind: Kind,
    /// GPU memory that it uses, in bytes; without it the driver doesn't tell.
    pub memory_bytes: Option<u64>,
    /// GPU instance that it runs in.
    pub gpu_instance: Option<u32>,
    /// Compute instance in it; the first one if not given.
    pub compute_instance: Option<u32>,
}

/// What a process does on a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// CUDA.
    #[default]
    Compute,
    /// A graphics context.
    Graphics,
    /// An MPS client.
    Mps,
}

/// How the GPUs are connected.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Links {
    /// All to all through `NVSwitch`es; each GPU has this many links.
    Nvswitch(u32),
    /// By `PCIe` only: one NUMA node or the interconnect between CPUs.
    Pcie,
    /// Row by row what `nvidia-smi topo -m` prints: `X`, `NV4`, `PIX`, `PXB`, `PHB`, `NODE`, `SYS`.
    Matrix(Vec<Spanned<String>>),
}
