//! One GPU or MIG device: what it is, its counters before and after, what it said under load, and its phases.

use serde::{Deserialize, Serialize};

use super::{LinkState, Phase};
use crate::catalog::{self, Card, ComputeCapability};
use crate::gpu::{Gpu, GpuReadings, MigDevice};
use crate::nvlink::NvLink;

/// All that was seen of one GPU or MIG device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceEvidence {
    /// What it is.
    pub device: Device,
    /// Why it could not be tested, where it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_error: Option<super::SetupError>,
    /// Processes of others that held it while it was tested: its figures are theirs too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
    /// Counters before the first phase.
    #[serde(default)]
    pub before: Counters,
    /// Counters after the last one.
    #[serde(default)]
    pub after: Counters,
    /// XIDs that the driver reported meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xids: Vec<XidEvent>,
    /// The phases in the order in which they ran, those that were skipped too.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// What the driver said at several moments each second, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// What should have been readable and was not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
}

impl DeviceEvidence {
    /// A device of which nothing was seen yet.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            setup_error: None,
            processes: Vec::new(),
            before: Counters::default(),
            after: Counters::default(),
            xids: Vec::new(),
            phases: Vec::new(),
            samples: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// True where others used the GPU too: what it reached says nothing about it.
    pub fn is_shared(&self) -> bool {
        !self.processes.is_empty()
    }
}

/// What a GPU or MIG device is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Position in the driver's order, from 0; that of the GPU for a MIG device.
    pub index: u32,
    /// `GPU-` or `MIG-` and a UUID.
    pub uuid: String,
    /// Product name as the driver gives it.
    pub name: String,
    /// PCI address, e.g. `0000:3b:00.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// PCI device id, e.g. `0x2330` of an H100.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_id")]
    pub pci_device_id: Option<u16>,
    /// Serial number of the board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Version of the VBIOS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vbios: Option<String>,
    /// CUDA compute capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<ComputeCapability>,
    /// SMs that the process sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_count: Option<u32>,
    /// Highest clock of the SMs, in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_sm_max_mhz: Option<u32>,
    /// All memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// True when ECC is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc: Option<bool>,
    /// The instance, for a MIG device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<MigSlice>,
    /// Power limit in force, in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit_w: Option<f64>,
    /// Power limit that the card starts with, in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit_default_w: Option<f64>,
    /// Highest PCIe generation of GPU and slot together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_generation_max: Option<u32>,
    /// Most lanes of GPU and slot together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_width_max: Option<u32>,
}

impl Device {
    /// From what the driver's management library says of a GPU. A name or UUID that can't be read is empty.
    pub fn of(gpu: &Gpu) -> Self {
        let readings = &gpu.readings;
        let watts = |reading: &crate::Reading<u32>| reading.value().map(|&mw| f64::from(mw) / 1000.0);
        Self {
            index: gpu.index,
            uuid: readings.uuid.value().cloned().unwrap_or_default(),
            name: readings.name.value().cloned().unwrap_or_default(),
            pci_address: Some(gpu.pci.address.to_string()),
            pci_device_id: Some(gpu.pci.device_id),
            serial: readings.serial.value().cloned(),
            vbios: readings.vbios.value().cloned(),
            compute_capability: readings.compute_capability.value().copied(),
            sm_count: None,
            clock_sm_max_mhz: readings.clock_sm_max_mhz.value().copied(),
            memory_total_bytes: readings.memory_total_bytes.value().copied(),
            ecc: readings.ecc.value().copied(),
            mig: None,
            power_limit_w: watts(&readings.power_limit_mw),
            power_limit_default_w: watts(&readings.power_limit_default_mw),
            pcie_generation_max: readings.pcie_generation_max.value().copied(),
            pcie_width_max: readings.pcie_width_max.value().copied(),
        }
    }

    /// As [`Device::of`], for one of the GPU's MIG devices.
    pub fn of_mig(gpu: &Gpu, mig: &MigDevice) -> Self {
        Self {
            uuid: mig.uuid.clone(),
            sm_count: mig.multiprocessors.value().copied(),
            memory_total_bytes: mig.memory_total_bytes.value().copied(),
            mig: Some(MigSlice {
                profile: mig.profile.to_string(),
                memory_slices: mig.placement.size.into(),
            }),
            ..Self::of(gpu)
        }
    }

    /// The card in the catalogue, by PCI id and then by name; none for a card that isn't there.
    pub fn card(&self) -> Option<&'static Card> {
        catalog::lookup(self.pci_device_id, (!self.name.is_empty()).then_some(&*self.name))
    }

    /// What it is called in a sentence: `GPU 3`, or `GPU 3 MIG 1g.10gb`.
    pub fn title(&self) -> String {
        match &self.mig {
            Some(mig) => format!("GPU {} MIG {}", self.index, mig.profile),
            None => format!("GPU {}", self.index),
        }
    }
}

/// The part of a GPU that a MIG device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigSlice {
    /// Profile, e.g. `3g.40gb`.
    pub profile: String,
    /// Memory slices that it has, of eight on most cards.
    pub memory_slices: u32,
}

/// A process that held a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the namespace of whoever asked.
    pub pid: u32,
    /// GPU memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Counters that only grow, and marks that only a reset takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Corrected memory errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc_corrected: Option<u64>,
    /// Uncorrected memory errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected: Option<u64>,
    /// Rows remapped after corrected errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remapped_correctable: Option<u64>,
    /// Rows remapped after uncorrected errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remapped_uncorrectable: Option<u64>,
    /// A remap waits for a reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remap_pending: Option<bool>,
    /// A remap failed: no spare row was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remap_failed: Option<bool>,
    /// Pages that are no longer used (before Ampere).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_pages: Option<u64>,
    /// More pages wait for a reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire_pending: Option<bool>,
    /// PCIe packets sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_replays: Option<u64>,
    /// Errors of all NVLinks together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlink_errors: Option<u64>,
    /// NVLinks that are up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlinks_active: Option<u32>,
    /// The NVLinks one by one, by their number; empty where the GPU has none or they were not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nvlinks: Vec<LinkState>,
}

impl Counters {
    /// From what the driver's management library says. The links come apart ([`Counters::with_links`]).
    pub fn of(readings: &GpuReadings) -> Self {
        let rows = readings.remapped_rows.value();
        let pages = readings.retired_pages.value();
        Self {
            ecc_corrected: readings.ecc_corrected.value().copied(),
            ecc_uncorrected: readings.ecc_uncorrected.value().copied(),
            remapped_correctable: rows.map(|rows| rows.correctable.into()),
            remapped_uncorrectable: rows.map(|rows| rows.uncorrectable.into()),
            remap_pending: rows.map(|rows| rows.pending),
            remap_failed: rows.map(|rows| rows.failure),
            retired_pages: pages.map(|pages| u64::from(pages.single_bit) + u64::from(pages.double_bit)),
            retire_pending: pages.map(|pages| pages.pending),
            pcie_replays: readings.pcie_replays.value().copied(),
            nvlink_errors: None,
            nvlinks_active: readings.nvlinks_active.value().copied(),
            nvlinks: Vec::new(),
        }
    }

    /// The same with the NVLinks one by one, and the sum of their errors.
    #[must_use]
    pub fn with_links(mut self, links: &[NvLink]) -> Self {
        self.nvlinks = links.iter().map(LinkState::from).collect();
        let errors = self.nvlinks.iter().filter_map(LinkState::errors);
        self.nvlink_errors = errors.reduce(u64::saturating_add);
        self
    }
}

/// An XID that the driver reported.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct XidEvent {
    /// When, in seconds after the run began.
    pub at_s: f64,
    /// Its number.
    pub number: u32,
}

/// What the driver said at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, in seconds after the run began.
    pub at_s: f64,
    /// Clock of the SMs, in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_sm_mhz: Option<u32>,
    /// Clock of the memory, in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_memory_mhz: Option<u32>,
    /// Power drawn, in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_w: Option<f64>,
    /// Temperature of the GPU, in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    /// Temperature of the memory, in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_temperature_c: Option<f64>,
    /// Why the clocks are where they are: NVML's bits, see [`clocks`](crate::clocks).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<u64>,
    /// PCIe generation of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_generation: Option<u32>,
    /// PCIe lanes in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie_width: Option<u32>,
    /// Rate of the products that ran then, in TFLOP/s; absent while other phases run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tflops: Option<f64>,
}

impl Sample {
    /// From what the driver's management library says.
    pub fn of(readings: &GpuReadings, at_s: f64) -> Self {
        let power = readings.power_instant_mw.value().or(readings.power_mw.value());
        Self {
            at_s,
            clock_sm_mhz: readings.clock_sm_mhz.value().copied(),
            clock_memory_mhz: readings.clock_memory_mhz.value().copied(),
            power_w: power.map(|&mw| f64::from(mw) / 1000.0),
            temperature_c: readings.temperature_c.value().map(|&c| f64::from(c)),
            memory_temperature_c: readings.memory_temperature_c.value().map(|&c| f64::from(c)),
            reasons: readings.clocks_event_reasons.value().copied(),
            pcie_generation: readings.pcie_generation.value().copied(),
            pcie_width: readings.pcie_width.value().copied(),
            tflops: None,
        }
    }
}

/// A field that should have been readable and was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Name of the field.
    pub field: String,
    /// Why there is no value.
    pub reason: String,
}

impl From<crate::reading::Unread> for Unread {
    fn from(unread: crate::reading::Unread) -> Self {
        Self {
            field: unread.field.to_owned(),
            reason: unread.reason,
        }
    }
}

/// A PCI id as people write it: `0x2330`.
pub(super) mod hex_id {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[expect(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde asks for this signature"
    )]
    pub(in crate::proof) fn serialize<S: Serializer>(
        id: &Option<u16>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(&format_args!("{id:#06x}")),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::proof) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u16>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let id = text
            .strip_prefix("0x")
            .and_then(|hex| u16::from_str_radix(hex, 16).ok());
        id.map(Some)
            .ok_or_else(|| D::Error::custom(format_args!("`{text}` is no PCI id such as `0x2330`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_people_write_them() {
        let device = Device {
            pci_device_id: Some(0x2330),
            compute_capability: Some(ComputeCapability { major: 9, minor: 0 }),
            ..Device::default()
        };
        let text = serde_json::to_string(&device).unwrap();
        assert!(
            text.contains(r#""pci_device_id":"0x2330","compute_capability":"9.0""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Device>(&text).unwrap(), device);
        let without = serde_json::to_string(&Device::default()).unwrap();
        assert!(!without.contains("pci_device_id"), "{without}");
        assert_eq!(
            serde_json::from_str::<Device>(&without).unwrap(),
            Device::default()
        );
        for wrong in [
            r#"{"index":0,"uuid":"","name":"","pci_device_id":"2330"}"#,
            r#"{"index":0,"uuid":"","name":"","compute_capability":"9"}"#,
        ] {
            assert!(serde_json::from_str::<Device>(wrong).is_err(), "{wrong}");
        }
    }
}
