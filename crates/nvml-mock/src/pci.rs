//! Where a GPU sits, and its link.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{self as nvml, nvmlDevice_t, nvmlPciInfo_t, nvmlPciInfoExt_t};
use pitcrew_core::pci::PciFunction;

use crate::abi::{Answer, Out, ReadingExt as _, chars, code};
use crate::world::small;

exports! {
    fn nvmlDeviceGetPciInfo(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) |call| {
        set_old(&pci, &call.known(&device)?.pci)
    }

    fn nvmlDeviceGetPciInfo_v2(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) |call| {
        set_old(&pci, &call.known(&device)?.pci)
    }

    fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) |call| {
        pci.set(info(&call.known(&device)?.pci))
    }

    fn nvmlDeviceGetPciInfoExt(device: nvmlDevice_t, pci: *mut nvmlPciInfoExt_t) |call| {
        pci.only_version()?;
        let gpu = call.known(&device)?;
        let known = info(&gpu.pci);
        pci.set(nvmlPciInfoExt_t {
            version: pci.get()?.version,
            domain: known.domain,
            bus: known.bus,
            device: known.device,
            pciDeviceId: known.pciDeviceId,
            pciSubSystemId: known.pciSubSystemId,
            baseClass: gpu.pci_class >> 16 & 0xff,
            subClass: gpu.pci_class >> 8 & 0xff,
            busId: known.busId,
        })
    }

    fn nvmlDeviceGetBusType(device: nvmlDevice_t, type_: *mut c_uint) |call| {
        call.gpu(&device)?;
        type_.set(nvml::NVML_BUS_TYPE_PCIE)
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(device: nvmlDevice_t, currLinkGen: *mut c_uint) |call| {
        currLinkGen.set(call.gpu(&device)?.readings.pcie_generation.answer()?)
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(device: nvmlDevice_t, maxLinkGen: *mut c_uint) |call| {
        maxLinkGen.set(call.gpu(&device)?.readings.pcie_generation_max.answer()?)
    }

    fn nvmlDeviceGetGpuMaxPcieLinkGeneration(device: nvmlDevice_t, maxLinkGenDevice: *mut c_uint) |call| {
        maxLinkGenDevice.set(call.gpu(&device)?.card.pcie_gen)
    }

    fn nvmlDeviceGetCurrPcieLinkWidth(device: nvmlDevice_t, currLinkWidth: *mut c_uint) |call| {
        currLinkWidth.set(call.gpu(&device)?.readings.pcie_width.answer()?)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(device: nvmlDevice_t, maxLinkWidth: *mut c_uint) |call| {
        maxLinkWidth.set(call.gpu(&device)?.readings.pcie_width_max.answer()?)
    }

    fn nvmlDeviceGetPcieLinkMaxSpeed(device: nvmlDevice_t, maxSpeed: *mut c_uint) |call| {
        // NVML numbers the speeds as the generations.
        maxSpeed.set(call.gpu(&device)?.readings.pcie_generation_max.answer()?)
    }

    fn nvmlDeviceGetPcieSpeed(device: nvmlDevice_t, pcieSpeed: *mut c_uint) |call| {
        let generation = call.gpu(&device)?.readings.pcie_generation.answer()?;
        pcieSpeed.set(match generation {
            1 => 2_500,
            2 => 5_000,
            3 => 8_000,
            4 => 16_000,
            5 => 32_000,
            6 => 64_000,
            _ => return Err(code::UNKNOWN),
        })
    }

    fn nvmlDeviceGetPcieReplayCounter(device: nvmlDevice_t, value: *mut c_uint) |call| {
        value.set(small(call.gpu(&device)?.readings.pcie_replays.answer()?)?)
    }

    fn nvmlDeviceGetPcieThroughput(device: nvmlDevice_t, counter: c_uint, value: *mut c_uint) |call| {
        let gpu = call.gpu(&device)?;
        let metric = match counter {
            nvml::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_TX_BYTES => nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC,
            nvml::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_RX_BYTES => nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC,
            _ => return Err(code::INVALID_ARGUMENT),
        };
        // The scenario knows traffic from its profiling figures only: MiB/s there, KB/s here.
        let rate = call.machine().metric(gpu.index, metric).answer()? * 1048.576;
        value.set(crate::gpm::whole(rate))
    }
}

/// The struct of today.
pub(crate) fn info(pci: &PciFunction) -> nvmlPciInfo_t {
    let address = pci.address;
    let (bus, device) = (address.bus, address.device);
    let ids = |device: u16, vendor: u16| c_uint::from(device) << 16 | c_uint::from(vendor);
    nvmlPciInfo_t {
        busIdLegacy: chars(&format!("{:04X}:{bus:02X}:{device:02X}.0", address.domain)),
        domain: address.domain,
        bus: bus.into(),
        device: device.into(),
        pciDeviceId: ids(pci.device_id, pci.vendor_id),
        pciSubSystemId: ids(pci.subsystem_device_id, pci.subsystem_vendor_id),
        busId: chars(&format!("{:08X}:{bus:02X}:{device:02X}.0", address.domain)),
    }
}

/// The beginning that the struct has had from the first version on: an old client has no room for more.
#[repr(C)]
#[derive(Clone, Copy)]
struct OldPciInfo {
    bus_id: [std::ffi::c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    device_id: c_uint,
    subsystem_id: c_uint,
}

pub(crate) fn set_old(to: &Out<nvmlPciInfo_t>, pci: &PciFunction) -> Answer {
    let info = info(pci);
    to.cast::<OldPciInfo>().set(OldPciInfo {
        bus_id: info.busIdLegacy,
        domain: info.domain,
        bus: info.bus,
        device: info.device,
        device_id: info.pciDeviceId,
        subsystem_id: info.pciSubSystemId,
    })
}
