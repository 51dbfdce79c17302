//! One GPU as it was seen at one moment.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::Reading;
use crate::catalog::{self, Card, ComputeCapability};
use crate::mig::{Engines, Placement, Profile};
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
        /// Version of the firmware on the GPU's own processor (GSP); it comes with the driver, which loads it.
        pub gsp_firmware: String,
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
        /// Memory that the driver and the firmware keep for themselves, in bytes.
        pub memory_reserved_bytes: u64,
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
        /// Power drawn at this moment, in milliwatts.
        pub power_instant_mw: u32,
        /// Limit in force, in milliwatts.
        pub power_limit_mw: u32,
        /// Limit that was asked for, in milliwatts; the one in force can be lower, never higher.
        pub power_limit_requested_mw: u32,
        /// Limit that the card starts with, in milliwatts.
        pub power_limit_default_mw: u32,
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
        /// Where the GPU stands with the fabric that `NVSwitch`es make (Hopper and later).
        pub fabric: Fabric,

        /// True when ECC is on.
        pub ecc: bool,
        /// True when ECC will be on after the next reset. Differs from `ecc` only while a reset is due.
        pub ecc_pending: bool,
        /// Corrected memory errors since the driver was loaded.
        pub ecc_corrected: u64,
        /// Uncorrected memory errors since the driver was loaded.
        pub ecc_uncorrected: u64,
        /// Rows of memory that were remapped, and whether a remap waits for a reset.
        pub remapped_rows: RemappedRows,
        /// Pages of memory that are no longer used, and whether more wait for a reset (before Ampere).
        pub retired_pages: RetiredPages,
        /// What the driver wants done to recover the GPU (R570 and later).
        pub recovery_action: RecoveryAction,

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

/// Pages of memory that the driver no longer uses (cards before Ampere).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RetiredPages {
    /// Pages retired after several single-bit errors.
    pub single_bit: u32,
    /// Pages retired after a double-bit error.
    pub double_bit: u32,
    /// More pages are retired at the next reboot or reload of the driver; until then they may be used.
    pub pending: bool,
}

/// What the driver wants done to recover a GPU: NVML's `nvmlDeviceGpuRecoveryAction_t`.
///
/// In text it is the name in kebab case, and for a number without a name here `unknown-` and the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// Reset the GPU.
    GpuReset,
    /// Reboot the node.
    NodeReboot,
    /// End what uses the GPU peer to peer.
    DrainP2p,
    /// Let what runs end, then reset the GPU.
    DrainAndReset,
    /// Bring the IMEX domain back.
    RecoverImexDomain,
    /// Reset the GPU's `PCIe` bus.
    BusReset,
    /// Reboot the whole system, of which the node can be a part.
    SystemReboot,
    /// A number that newer drivers may use.
    Unknown(u32),
}

impl RecoveryAction {
    /// Those that have a name, in the order of their numbers, from 0.
    const NAMED: [(Self, &'static str); 8] = [
        (Self::None, "none"),
        (Self::GpuReset, "gpu-reset"),
        (Self::NodeReboot, "node-reboot"),
        (Self::DrainP2p, "drain-p2p"),
        (Self::DrainAndReset, "drain-and-reset"),
        (Self::RecoverImexDomain, "recover-imex-domain"),
        (Self::BusReset, "bus-reset"),
        (Self::SystemReboot, "system-reboot"),
    ];

    /// By the driver's number.
    pub fn from_number(number: u32) -> Self {
        let named = usize::try_from(number)
            .ok()
            .and_then(|number| Self::NAMED.get(number));
        named.map_or(Self::Unknown(number), |(action, _)| *action)
    }

    /// The driver's number.
    pub fn number(self) -> u32 {
        match self {
            Self::Unknown(number) => number,
            named => (0..)
                .zip(Self::NAMED)
                .find(|(_, (action, _))| *action == named)
                .map_or(0, |(number, _)| number),
        }
    }
}

impl fmt::Display for RecoveryAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, Self::NAMED.iter().find(|(action, _)| action == self)) {
            (_, Some((_, name))) => f.write_str(name),
            (Self::Unknown(number), None) => write!(f, "unknown-{number}"),
            // Each of the others is in the table.
            (_, None) => f.write_str("unknown"),
        }
    }
}

/// Text that names no [`RecoveryAction`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no recovery action")]
pub struct ParseRecoveryActionError(String);

impl FromStr for RecoveryAction {
    type Err = ParseRecoveryActionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::NAMED.iter().find(|(_, name)| *name == text);
        let numbered = || Some(Self::from_number(text.strip_prefix("unknown-")?.parse().ok()?));
        named
            .map(|(action, _)| *action)
            .or_else(numbered)
            .ok_or_else(|| ParseRecoveryActionError(text.to_owned()))
    }
}

impl Serialize for RecoveryAction {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a GPU stands with the fabric that `NVSwitch`es make. Until it is registered, CUDA fails with error 802.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fabric {
    /// How far the GPU is.
    pub state: FabricState,
    /// How registering ended, in the driver's words: `Success`, or why not. Only where it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Clique: GPUs of one clique of one cluster can reach each other. Only where registering has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clique: Option<u32>,
    /// UUID of the cluster, all zeros for one that is a single board. Only where registering has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_uuid: Option<String>,
}

impl Fabric {
    /// What [`Fabric::status`] is for a GPU that is registered.
    pub const SUCCESS: &'static str = "Success";

    /// True when the GPU is registered and can use the fabric.
    pub fn is_registered(&self) -> bool {
        self.state == FabricState::Completed && self.status.as_deref() == Some(Self::SUCCESS)
    }
}

/// How far a GPU is with registering at its fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FabricState {
    /// It has not begun: no fabric manager has come to it yet.
    NotStarted,
    /// It has begun.
    InProgress,
    /// It has ended, well or not.
    Completed,
}

impl fmt::Display for FabricState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "not started",
            Self::InProgress => "in progress",
            Self::Completed => "completed",
        })
    }
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

/// A GPU instance: memory and engines that no other one shares. Compute instances in it make it usable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuInstance {
    /// Its number on the GPU.
    pub id: u32,
    /// Profile, e.g. `3g.40gb`.
    pub profile: Profile,
    /// Memory slices that it takes.
    pub placement: Placement,
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
    /// Profile, e.g. `1g.10gb`, or `1c.3g.40gb` for a part of a GPU instance's compute slices.
    pub profile: Profile,
    /// Memory slices that the GPU instance takes.
    pub placement: Placement,
    /// Memory of the GPU instance, in bytes; absent where the source doesn't say.
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub memory_total_bytes: Reading<u64>,
    /// Memory of the GPU instance that is in use, in bytes; compute instances in one GPU instance share it.
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub memory_used_bytes: Reading<u64>,
    /// Multiprocessors; absent where the source doesn't say.
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub multiprocessors: Reading<u32>,
    /// Engines of the GPU instance, which its compute instances share; absent where the source doesn't say.
    #[serde(skip_serializing_if = "Reading::is_absent")]
    pub engines: Reading<Engines>,
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
    /// Compute instance that it runs in, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_instance: Option<u32>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_action_is_the_same_by_number_and_by_name_and_unknown_ones_stay_what_they_are() {
        for number in 0..20 {
            let action = RecoveryAction::from_number(number);
            assert_eq!(action.number(), number);
            assert_eq!(action.to_string().parse(), Ok(action));
        }
        // nvml.h: NVML_GPU_RECOVERY_ACTION_*.
        assert_eq!(RecoveryAction::from_number(0), RecoveryAction::None);
        assert_eq!(RecoveryAction::from_number(4), RecoveryAction::DrainAndReset);
        assert_eq!(RecoveryAction::from_number(8).to_string(), "unknown-8");
        // A number that has a name is never hidden behind `unknown`.
        assert_eq!("unknown-1".parse(), Ok(RecoveryAction::GpuReset));
        assert!("reboot".parse::<RecoveryAction>().is_err());
    }

    #[test]
    fn only_a_gpu_that_completed_with_success_is_registered() {
        let fabric = |state, status: Option<&str>| Fabric {
            state,
            status: status.map(str::to_owned),
            clique: None,
            cluster_uuid: None,
        };
        assert!(fabric(FabricState::Completed, Some("Success")).is_registered());
        assert!(!fabric(FabricState::Completed, Some("Unknown Error")).is_registered());
        assert!(!fabric(FabricState::Completed, None).is_registered());
        assert!(!fabric(FabricState::InProgress, None).is_registered());
    }
}
