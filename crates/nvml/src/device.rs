//! One GPU or MIG device, and what can be asked of it.

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::Gpu;
use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::gpu::{ComputeMode, MigMode, PowerRange, RemappedRows, RetiredPages, Virtualization};
use pitcrew_core::inventory::{CudaVersion, PciPath};
use pitcrew_core::pci::{PciAddress, PciFunction};

use crate::call::{self, Handle, Plain as _, version_of};
use crate::code::{Answer, Code};
use crate::library::Library;

/// More links than any GPU has; NVML refuses the first that there isn't.
const MOST_LINKS: u32 = 64;

/// A handle of a GPU or of a MIG device. It lives no longer than the library.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device<'l> {
    pub(crate) library: &'l Library,
    raw: sys::nvmlDevice_t,
}

impl Handle for Device<'_> {
    type Raw = sys::nvmlDevice_t;
    fn raw(self) -> Self::Raw {
        self.raw
    }
}

/// What the driver says of itself.
impl Library {
    pub(crate) fn driver_version(&self) -> Answer<String> {
        call::text::<80>(&self.functions.nvmlSystemGetDriverVersion)
    }

    pub(crate) fn nvml_version(&self) -> Answer<String> {
        call::text::<80>(&self.functions.nvmlSystemGetNVMLVersion)
    }

    pub(crate) fn cuda(&self) -> Answer<CudaVersion> {
        let functions = &self.functions;
        let number = call::get(&functions.nvmlSystemGetCudaDriverVersion_v2)
            .or_else(|_| call::get(&functions.nvmlSystemGetCudaDriverVersion))?;
        u32::try_from(number)
            .map(CudaVersion::from_driver)
            .map_err(|_| Code::UNKNOWN)
    }

    /// GPUs that the driver knows, lost ones too.
    pub(crate) fn count(&self) -> Answer<u32> {
        call::get(&self.functions.nvmlDeviceGetCount_v2)
    }

    pub(crate) fn device(&self, index: u32) -> Answer<Device<'_>> {
        call::get_of(&self.functions.nvmlDeviceGetHandleByIndex_v2, index).map(|raw| self.adopt(raw))
    }

    /// A GPU or MIG device.
    pub(crate) fn device_by_uuid(&self, uuid: &str) -> Answer<Device<'_>> {
        let uuid = std::ffi::CString::new(uuid).map_err(|_| Code::INVALID_ARGUMENT)?;
        call::get_by_text(&self.functions.nvmlDeviceGetHandleByUUID, &uuid).map(|raw| self.adopt(raw))
    }

    /// Private, so that only what this library gave becomes a handle.
    fn adopt(&self, raw: sys::nvmlDevice_t) -> Device<'_> {
        Device { library: self, raw }
    }
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) used: u64,
    pub(crate) free: u64,
    /// What the driver keeps for itself; only drivers from R510 on say it.
    pub(crate) reserved: Option<u64>,
}

/// The far end of an `NVLink`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remote {
    /// Through switches, to every GPU on them.
    Switch,
    /// Another device, a GPU or a processor.
    Device(PciAddress),
    /// The driver doesn't say.
    Unknown,
}

impl<'l> Device<'l> {
    pub(crate) fn f(self) -> &'l crate::library::Functions {
        &self.library.functions
    }

    /// The address of the handle, to tell devices in events apart.
    pub(crate) fn address(self) -> usize {
        self.raw.addr()
    }

    pub(crate) fn name(self) -> Answer<String> {
        call::text_of::<96, _>(&self.f().nvmlDeviceGetName, self)
    }

    pub(crate) fn uuid(self) -> Answer<String> {
        call::text_of::<96, _>(&self.f().nvmlDeviceGetUUID, self)
    }

    pub(crate) fn serial(self) -> Answer<String> {
        call::text_of::<96, _>(&self.f().nvmlDeviceGetSerial, self)
    }

    pub(crate) fn board_part_number(self) -> Answer<String> {
        call::text_of::<96, _>(&self.f().nvmlDeviceGetBoardPartNumber, self)
    }

    pub(crate) fn vbios(self) -> Answer<String> {
        call::text_of::<96, _>(&self.f().nvmlDeviceGetVbiosVersion, self)
    }

    pub(crate) fn gsp_firmware(self) -> Answer<String> {
        const LENGTH: usize = sys::NVML_GSP_FIRMWARE_VERSION_BUF_SIZE as usize;
        let version = call::text_of_fixed::<LENGTH, _>(&self.f().nvmlDeviceGetGspFirmwareVersion, self)?;
        if version.is_empty() {
            // Success, and nothing written.
            return Err(Code::NOT_SUPPORTED);
        }
        Ok(version)
    }

    pub(crate) fn minor(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetMinorNumber, self)
    }

    pub(crate) fn compute_capability(self) -> Answer<ComputeCapability> {
        let (major, minor) =
            call::get_pair::<_, i32, i32>(&self.f().nvmlDeviceGetCudaComputeCapability, self)?;
        match (u32::try_from(major), u32::try_from(minor)) {
            (Ok(major), Ok(minor)) => Ok(ComputeCapability { major, minor }),
            _ => Err(Code::UNKNOWN),
        }
    }

    pub(crate) fn cores(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetNumGpuCores, self)
    }

    pub(crate) fn memory_bus_bits(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetMemoryBusWidth, self)
    }

    pub(crate) fn numa_node(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetNumaNodeId, self)
    }

    pub(crate) fn pci(self) -> Answer<PciFunction> {
        let functions = self.f();
        let info = call::get_of(&functions.nvmlDeviceGetPciInfo_v3, self).or_else(|code| {
            if code.wants_older_call() {
                call::get_of(&functions.nvmlDeviceGetPciInfo_v2, self)
            } else {
                Err(code)
            }
        })?;
        let address = address(&info).ok_or(Code::UNKNOWN)?;
        let [device_high, device_low, vendor_high, vendor_low] = info.pciDeviceId.to_be_bytes();
        let [board_high, board_low, maker_high, maker_low] = info.pciSubSystemId.to_be_bytes();
        Ok(PciFunction {
            address,
            vendor_id: u16::from_be_bytes([vendor_high, vendor_low]),
            device_id: u16::from_be_bytes([device_high, device_low]),
            subsystem_vendor_id: u16::from_be_bytes([maker_high, maker_low]),
            subsystem_device_id: u16::from_be_bytes([board_high, board_low]),
        })
    }

    /// Memory of a GPU or MIG device. Drivers before R510 count what they keep for themselves as used.
    pub(crate) fn memory(self) -> Answer<Memory> {
        let wanted = sys::nvmlMemory_v2_t {
            version: version_of::<sys::nvmlMemory_v2_t>(2),
            ..sys::nvmlMemory_v2_t::zeroed()
        };
        match call::get_into(&self.f().nvmlDeviceGetMemoryInfo_v2, self, wanted) {
            Ok(memory) => Ok(Memory {
                total: memory.total,
                used: memory.used,
                free: memory.free,
                reserved: Some(memory.reserved),
            }),
            Err(code) if code.wants_older_call() => {
                let memory: sys::nvmlMemory_t = call::get_of(&self.f().nvmlDeviceGetMemoryInfo, self)?;
                Ok(Memory {
                    total: memory.total,
                    used: memory.used,
                    free: memory.free,
                    reserved: None,
                })
            }
            Err(code) => Err(code),
        }
    }

    /// All of BAR1 and what is used of it.
    pub(crate) fn bar1(self) -> Answer<(u64, u64)> {
        let bar1: sys::nvmlBAR1Memory_t = call::get_of(&self.f().nvmlDeviceGetBAR1MemoryInfo, self)?;
        Ok((bar1.bar1Total, bar1.bar1Used))
    }

    pub(crate) fn temperature(self) -> Answer<i32> {
        let celsius: u32 = call::get_of_two(
            &self.f().nvmlDeviceGetTemperature,
            self,
            sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU,
        )?;
        // The prototype says unsigned; a card in the cold is below zero all the same.
        Ok(celsius.cast_signed())
    }

    pub(crate) fn fan_percent(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetFanSpeed, self)
    }

    pub(crate) fn power_mw(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetPowerUsage, self)
    }

    pub(crate) fn power_limit_mw(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetEnforcedPowerLimit, self)
    }

    pub(crate) fn power_limit_requested_mw(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetPowerManagementLimit, self).and_then(filled_in)
    }

    pub(crate) fn power_limit_default_mw(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetPowerManagementDefaultLimit, self).and_then(filled_in)
    }

    pub(crate) fn power_limit_range_mw(self) -> Answer<PowerRange> {
        call::get_pair(&self.f().nvmlDeviceGetPowerManagementLimitConstraints, self)
            .map(|(min, max)| PowerRange { min, max })
    }

    pub(crate) fn energy_mj(self) -> Answer<u64> {
        call::get_of(&self.f().nvmlDeviceGetTotalEnergyConsumption, self)
    }

    /// Share of the last sample period with a kernel running, and with memory traffic, in percent.
    pub(crate) fn utilization(self) -> Answer<(u32, u32)> {
        let used: sys::nvmlUtilization_t = call::get_of(&self.f().nvmlDeviceGetUtilizationRates, self)?;
        Ok((used.gpu, used.memory))
    }

    pub(crate) fn clock_sm_mhz(self) -> Answer<u32> {
        call::get_of_two(
            &self.f().nvmlDeviceGetClockInfo,
            self,
            sys::nvmlClockType_enum_NVML_CLOCK_SM,
        )
    }

    pub(crate) fn clock_memory_mhz(self) -> Answer<u32> {
        call::get_of_two(
            &self.f().nvmlDeviceGetClockInfo,
            self,
            sys::nvmlClockType_enum_NVML_CLOCK_MEM,
        )
    }

    pub(crate) fn clock_sm_max_mhz(self) -> Answer<u32> {
        call::get_of_two(
            &self.f().nvmlDeviceGetMaxClockInfo,
            self,
            sys::nvmlClockType_enum_NVML_CLOCK_SM,
        )
    }

    pub(crate) fn clock_memory_max_mhz(self) -> Answer<u32> {
        call::get_of_two(
            &self.f().nvmlDeviceGetMaxClockInfo,
            self,
            sys::nvmlClockType_enum_NVML_CLOCK_MEM,
        )
    }

    pub(crate) fn clocks_event_reasons(self) -> Answer<u64> {
        let functions = self.f();
        // Before R535 the call had another name.
        call::get_of(&functions.nvmlDeviceGetCurrentClocksEventReasons, self).or_else(|code| {
            if code.wants_older_call() {
                call::get_of(&functions.nvmlDeviceGetCurrentClocksThrottleReasons, self)
            } else {
                Err(code)
            }
        })
    }

    pub(crate) fn performance_state(self) -> Answer<u32> {
        let state = call::get_of(&self.f().nvmlDeviceGetPerformanceState, self)?;
        if state <= 15 {
            Ok(state)
        } else {
            Err(Code::UNKNOWN)
        }
    }

    pub(crate) fn pcie_generation(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetCurrPcieLinkGeneration, self)
    }

    pub(crate) fn pcie_generation_max(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetMaxPcieLinkGeneration, self)
    }

    pub(crate) fn pcie_width(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetCurrPcieLinkWidth, self)
    }

    pub(crate) fn pcie_width_max(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetMaxPcieLinkWidth, self)
    }

    pub(crate) fn pcie_replays(self) -> Answer<u64> {
        call::get_of::<_, u32>(&self.f().nvmlDeviceGetPcieReplayCounter, self).map(u64::from)
    }

    /// ECC now and after the next reset.
    pub(crate) fn ecc(self) -> Answer<(bool, bool)> {
        let (current, pending) = call::get_pair::<_, u32, u32>(&self.f().nvmlDeviceGetEccMode, self)?;
        Ok((enabled(current)?, enabled(pending)?))
    }

    /// Memory errors since the driver was loaded.
    pub(crate) fn ecc_errors(self, corrected: bool) -> Answer<u64> {
        let kind = if corrected {
            sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED
        } else {
            sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        };
        let volatile = sys::nvmlEccCounterType_enum_NVML_VOLATILE_ECC;
        call::get_of_three(&self.f().nvmlDeviceGetTotalEccErrors, self, kind, volatile)
    }

    pub(crate) fn remapped_rows(self) -> Answer<RemappedRows> {
        let [correctable, uncorrectable, pending, failure] =
            call::get_four(&self.f().nvmlDeviceGetRemappedRows, self)?;
        Ok(RemappedRows {
            correctable,
            uncorrectable,
            pending: pending != 0,
            failure: failure != 0,
        })
    }

    pub(crate) fn retired_pages(self) -> Answer<RetiredPages> {
        let count = |cause: u32| {
            let pages: Vec<u64> = call::list_by_kind(&self.f().nvmlDeviceGetRetiredPages, self, cause)?;
            u32::try_from(pages.len()).map_err(|_| Code::UNKNOWN)
        };
        Ok(RetiredPages {
            single_bit: count(
                sys::nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
            )?,
            double_bit: count(
                sys::nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
            )?,
            pending: enabled(call::get_of(
                &self.f().nvmlDeviceGetRetiredPagesPendingStatus,
                self,
            )?)?,
        })
    }

    pub(crate) fn persistence(self) -> Answer<bool> {
        enabled(call::get_of(&self.f().nvmlDeviceGetPersistenceMode, self)?)
    }

    pub(crate) fn virtualization(self) -> Answer<Virtualization> {
        match call::get_of(&self.f().nvmlDeviceGetVirtualizationMode, self)? {
            0 => Ok(Virtualization::None),
            1 => Ok(Virtualization::Passthrough),
            2 => Ok(Virtualization::Vgpu),
            3 => Ok(Virtualization::HostVgpu),
            4 => Ok(Virtualization::HostVsga),
            _ => Err(Code::UNKNOWN),
        }
    }

    pub(crate) fn compute_mode(self) -> Answer<ComputeMode> {
        match call::get_of(&self.f().nvmlDeviceGetComputeMode, self)? {
            0 => Ok(ComputeMode::Default),
            2 => Ok(ComputeMode::Prohibited),
            3 => Ok(ComputeMode::ExclusiveProcess),
            _ => Err(Code::UNKNOWN),
        }
    }

    pub(crate) fn mig_mode(self) -> Answer<MigMode> {
        let (current, pending) = call::get_pair::<_, u32, u32>(&self.f().nvmlDeviceGetMigMode, self)?;
        Ok(MigMode {
            current: enabled(current)?,
            pending: enabled(pending)?,
        })
    }

    pub(crate) fn supported_events(self) -> Answer<u64> {
        call::get_of(&self.f().nvmlDeviceGetSupportedEventTypes, self)
    }

    /// The nearest common ancestor on the PCI bus.
    pub(crate) fn path_to(self, other: Device<'l>) -> Answer<PciPath> {
        match call::get_of_two(&self.f().nvmlDeviceGetTopologyCommonAncestor, self, other)? {
            0 => Ok(PciPath::SameBoard),
            10 => Ok(PciPath::SingleSwitch),
            20 => Ok(PciPath::MultipleSwitches),
            30 => Ok(PciPath::HostBridge),
            40 => Ok(PciPath::NumaNode),
            50 => Ok(PciPath::System),
            _ => Err(Code::UNKNOWN),
        }
    }

    /// Numbers of the `NVLinks` that are up.
    pub(crate) fn nvlinks(self) -> Answer<Vec<u32>> {
        let links = self.nvlink_states()?.into_iter();
        Ok(links.filter(|(_, is_up)| *is_up).map(|(link, _)| link).collect())
    }

    /// The `NVLinks` that are wired, each with whether it is up.
    pub(crate) fn nvlink_states(self) -> Answer<Vec<(u32, bool)>> {
        let mut links = Vec::new();
        for link in 0..MOST_LINKS {
            match call::get_of_two::<_, _, u32>(&self.f().nvmlDeviceGetNvLinkState, self, link) {
                Ok(state) => links.push((link, state == 1)),
                // Past the last link; or a card with none, or a link that this board hasn't wired.
                Err(Code::INVALID_ARGUMENT) => break,
                Err(code) if code.is_unsupported() => {}
                Err(code) => return Err(code),
            }
        }
        if links.is_empty() {
            Err(Code::NOT_SUPPORTED)
        } else {
            Ok(links)
        }
    }

    /// Where an `NVLink` leads.
    pub(crate) fn remote(self, link: u32) -> Answer<Remote> {
        let functions = self.f();
        let kind = call::get_of_two(&functions.nvmlDeviceGetNvLinkRemoteDeviceType, self, link);
        if kind == Ok(sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH) {
            return Ok(Remote::Switch);
        }
        let info = call::get_of_two(&functions.nvmlDeviceGetNvLinkRemotePciInfo_v2, self, link)?;
        Ok(address(&info).map_or(Remote::Unknown, Remote::Device))
    }

    pub(crate) fn max_mig_devices(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetMaxMigDeviceCount, self)
    }

    /// MIG devices on it; a number without a device is passed over.
    pub(crate) fn mig_devices(self) -> Answer<Vec<Device<'l>>> {
        let mut found = Vec::new();
        for index in 0..self.max_mig_devices()? {
            match call::get_of_two(&self.f().nvmlDeviceGetMigDeviceHandleByIndex, self, index) {
                Ok(raw) => found.push(self.library.adopt(raw)),
                Err(Code::NOT_FOUND | Code::INVALID_ARGUMENT) => {}
                Err(code) => return Err(code),
            }
        }
        Ok(found)
    }

    /// The GPU of a MIG device.
    pub(crate) fn parent(self) -> Answer<Device<'l>> {
        call::get_of(&self.f().nvmlDeviceGetDeviceHandleFromMigDeviceHandle, self)
            .map(|raw| self.library.adopt(raw))
    }

    /// GPU instance of a MIG device.
    pub(crate) fn gpu_instance_id(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetGpuInstanceId, self)
    }

    /// Compute instance of a MIG device.
    pub(crate) fn compute_instance_id(self) -> Answer<u32> {
        call::get_of(&self.f().nvmlDeviceGetComputeInstanceId, self)
    }

    /// Size of a MIG device.
    pub(crate) fn attributes(self) -> Answer<sys::nvmlDeviceAttributes_t> {
        call::get_of(&self.f().nvmlDeviceGetAttributes_v2, self)
    }
}

/// A limit that is one: of 0 W nothing runs, so that 0 is an answer that nobody has filled in.
fn filled_in(limit: u32) -> Answer<u32> {
    if limit == 0 {
        Err(Code::NOT_SUPPORTED)
    } else {
        Ok(limit)
    }
}

/// `nvmlEnableState_t`.
fn enabled(state: u32) -> Answer<bool> {
    match state {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Code::UNKNOWN),
    }
}

/// Where NVML says a device is: by its text, which alone has the function, or else by the numbers.
pub(crate) fn address(info: &sys::nvmlPciInfo_t) -> Option<PciAddress> {
    let numbers = || {
        Some(PciAddress {
            domain: info.domain,
            bus: u8::try_from(info.bus).ok()?,
            device: u8::try_from(info.device).ok().filter(|device| *device < 32)?,
            function: 0,
        })
    };
    [call::from_c(&info.busId), call::from_c(&info.busIdLegacy)]
        .iter()
        .find_map(|text| text.parse().ok())
        .or_else(numbers)
}

/// The GPU as it is known when nothing of it can be read.
pub(crate) fn unreadable(index: u32, pci: PciFunction, reason: &str) -> Gpu {
    Gpu {
        index,
        pci,
        readings: pitcrew_core::gpu::GpuReadings::all_failed(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_from_the_text_or_the_numbers() {
        let mut info = sys::nvmlPciInfo_t::zeroed();
        (info.domain, info.bus, info.device) = (1, 0x3b, 2);
        let by_number = address(&info).unwrap();
        assert_eq!(by_number.to_string(), "0001:3b:02.0");
        for (place, byte) in info.busId.iter_mut().zip(b"00000001:86:00.1") {
            *place = std::ffi::c_char::from_ne_bytes([*byte]);
        }
        assert_eq!(address(&info).unwrap().to_string(), "0001:86:00.1");
        info = sys::nvmlPciInfo_t::zeroed();
        info.bus = 4000;
        assert_eq!(address(&info), None);
    }
}
