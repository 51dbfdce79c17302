//! One GPU as it was seen at one moment.

use serde::Serialize;

use crate::Reading;
use crate::catalog::{self, Card, ComputeCapability};
use crate::mig::{Placement, Profile};
use crate::pci::PciFunction;
use crate::readings;

/// One GPU: where it is, and everything that was read of it.
///
/// Only the PCI function is certain. A GPU that has fallen off the bus still has one, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    /// Position in the driver's order, from 0. Not stable across reboots; [`GpuReadings::uuid`] is.
    pub index: u32,
    /// The PCI function behind it.
    pub pci: PciFunction,
    /// What the driver said.
    #[serde(flatten)]
    pub readings: GpuReadings,
}

impl Gpu {
    /// The card in the catalogue, by PCI id and then by name; `None` for a card that we don't know.
    pub fn card(&self) -> Option<&'static Card> {
        catalog::lookup(
            Some(self.pci.device_id),
            self.readings.name.value().map(String::as_str),
        )
    }
}

readings! {
    /// Everything that is read of a GPU. Fields are named as in the output; units are in the names.
    pub struct GpuReadings {
        /// Product name as the driver gives it, e.g. `NVIDIA H100 80GB HBM3`.
        pub name: String,
        /// `GPU-` and a UUID: the same across reboots and machines.
        pub uuid: String,
        /// Serial number of the board.
        pub serial: String,
        /// Part number of the board.
        pub board_part_number: String,
        /// Version of the VBIOS.
        pub vbios: String,
        /// N of `/dev/nvidiaN`.
        pub minor: u32,
        /// CUDA compute capability.
        pub compute_capability: ComputeCapability,
        /// CUDA cores.
        pub cores: u32,
        /// Width of the memory bus in bits.
        pub memory_bus_bits: u32,
        /// NUMA node of the GPU's own memory (Grace Hopper only).
        pub numa_node: u32,

        /// All memory, in bytes.
        pub memory_total_bytes: u64,
        /// Memory in use, in bytes, without what the driver keeps for itself.
        pub memory_used_bytes: u64,
        /// Memory free, in bytes.
        pub memory_free_bytes: u64,
        /// BAR1 aperture, in bytes.
        pub bar1_total_bytes: u64,
        /// BAR1 in use, in bytes.
        pub bar1_used_bytes: u64,

        /// Temperature of the GPU, in degrees Celsius.
        pub temperature_c: i32,
        /// Temperature of the memory, in degrees Celsius.
        pub memory_temperature_c: i32,
        /// Fan speed, in percent of full speed.
        pub fan_percent: u32,
        /// Power drawn, in milliwatts, averaged over a second where the GPU does so.
        pub power_mw: u32,
        /// Limit in force, in milliwatts.
        pub power_limit_mw: u32,
        /// Lowest and highest limit that can be set, in milliwatts.
        pub power_limit_range_mw: PowerRange,
        /// Energy since the driver was loaded, in millijoules.
        pub energy_mj: u64,

        /// Share of the last sample period with a kernel running, in percent.
        pub utilization_gpu_percent: u32,
        /// Share of the last sample period with memory traffic, in percent.
        pub utilization_memory_percent: u32,
        /// Clock of the SMs, in MHz.
        pub clock_sm_mhz: u32,
        /// Clock of the memory, in MHz.
        pub clock_memory_mhz: u32,
        /// Highest clock of the SMs, in MHz.
        pub clock_sm_max_mhz: u32,
        /// Highest clock of the memory, in MHz.
        pub clock_memory_max_mhz: u32,
        /// Why the clocks are where they are: NVML's `nvmlClocksEventReason*` bits.
        pub clocks_event_reasons: u64,
        /// Performance state, 0 (fastest) to 15.
        pub performance_state: u32,

        /// PCIe generation of the link now.
        pub pcie_generation: u32,
        /// Highest PCIe generation of GPU and slot together.
        pub pcie_generation_max: u32,
        /// Lanes in use.
        pub pcie_width: u32,
        /// Most lanes of GPU and slot together.
        pub pcie_width_max: u32,
        /// PCIe packets sent again since the driver was loaded.
        pub pcie_replays: u64,
        /// `NVLinks` that are up.
        pub nvlinks_active: u32,

        /// True when ECC is on.
        pub ecc: bool,
        /// Corrected memory errors since the driver was loaded.
        pub ecc_corrected: u64,
        /// Uncorrected memory errors since the driver was loaded.
        pub ecc_uncorrected: u64,
        /// Rows of memory that were remapped, and whether a remap waits for a reset.
        pub remapped_rows: RemappedRows,

        /// True in persistence mode: the driver stays initialised with no client.
        pub persistence: bool,
        /// How the GPU is given to this machine.
        pub virtualization: Virtualization,
        /// What compute clients may do with it.
        pub compute_mode: ComputeMode,
        /// MIG mode, now and after the next reset.
        pub mig_mode: MigMode,
        /// MIG devices on it; empty with MIG on and nothing created.
        pub mig_devices: Vec<MigDevice>,
        /// Processes that hold it.
        pub processes: Vec<GpuProcess>,
        /// The last XIDs the driver reported for it, oldest first.
        pub xids: Vec<u32>,
    }
}

/// Lowest and highest power limit that can be set, in milliwatts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PowerRange {
    /// Lowest, in milliwatts.
    pub min: u32,
    /// Highest, in milliwatts.
    pub max: u32,
}

/// Rows of memory that the GPU replaced by spare ones (Ampere and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RemappedRows {
    /// Rows remapped after corrected errors.
    pub correctable: u32,
    /// Rows remapped after uncorrected errors.
    pub uncorrectable: u32,
    /// A remap waits for the next GPU reset; until then the bad row may be used.
    pub pending: bool,
    /// A remap failed: no spare row was left. The board must be replaced.
    pub failure: bool,
}

/// How a GPU is given to this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Virtualization {
    /// Bare metal.
    None,
    /// Passed through to this virtual machine.
    Passthrough,
    /// A vGPU inside a virtual machine.
    Vgpu,
    /// The host of vGPUs.
    HostVgpu,
    /// The host of vGPUs by SR-IOV.
    HostVsga,
}

/// What compute clients may do with a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeMode {
    /// Any number of clients.
    Default,
    /// No clients.
    Prohibited,
    /// One process; what MPS wants.
    ExclusiveProcess,
}

/// MIG mode, now and after the next reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MigMode {
    /// True when MIG is on.
    pub current: bool,
    /// True when it will be on after a reset. Differs from `current` only while a reset is due.
    pub pending: bool,
}

/// A MIG device: one compute instance in one GPU instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigDevice {
    /// `MIG-` and a UUID. Another one each time the instance is created.
    pub uuid: String,
    /// Number of the GPU instance.
    pub gpu_instance: u32,
    /// Number of the compute instance in it.
    pub compute_instance: u32,
    /// Profile, e.g. `1g.10gb`.
    pub profile: Profile,
    /// Memory slices that the GPU instance takes.
    pub placement: Placement,
    /// Memory of the GPU instance, in bytes; absent where the source doesn't say.
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub memory_total_bytes: Reading<u64>,
    /// Multiprocessors; absent where the source doesn't say.
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub multiprocessors: Reading<u32>,
}

/// A process that holds a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuProcess {
    /// Process id in the namespace of whoever asked.
    pub pid: u32,
    /// Compute or graphics.
    pub kind: ProcessKind,
    /// GPU memory in bytes; absent where the driver doesn't tell (some virtual machines, WSL).
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub memory_bytes: Reading<u64>,
    /// GPU instance that it runs in, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_instance: Option<u32>,
}

/// What a process does on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessKind {
    /// CUDA.
    Compute,
    /// A graphics context.
    Graphics,
    /// An MPS client.
    Mps,
}
