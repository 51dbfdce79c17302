//! `NVLinks`.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{self as nvml, nvmlDevice_t, nvmlPciInfo_t};
use pitcrew_core::catalog::Architecture;
use pitcrew_core::nvlink::{NvLink, made};
use pitcrew_core::pci::{NVIDIA_VENDOR_ID, PciAddress, PciFunction};
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, ReadingExt as _, code, flag};
use crate::pci::{info, set_old};
use crate::world::Call;

/// What a link ends at.
enum Remote {
    Switch(PciFunction),
    Gpu(PciFunction),
}

exports! {
    fn nvmlDeviceGetNvLinkState(device: nvmlDevice_t, link: c_uint, isActive: *mut c_uint) |call| {
        isActive.set(flag(is_active(&call.gpu(&device)?, link)?))
    }

    fn nvmlDeviceGetNvLinkVersion(device: nvmlDevice_t, link: c_uint, version_: *mut c_uint) |call| {
        version_.set(version(&call.gpu(&device)?, link)?)
    }

    fn nvmlDeviceGetNvLinkCapability(
        device: nvmlDevice_t,
        link: c_uint,
        capability: c_uint,
        capResult: *mut c_uint,
    ) |call| {
        let active = is_active(&call.gpu(&device)?, link)?;
        // Two GPUs can address each other and do atomics; links to host memory and SLI bridges aren't there.
        capResult.set(match capability {
            nvml::nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_P2P_SUPPORTED
            | nvml::nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_P2P_ATOMICS
            | nvml::nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_VALID => flag(active),
            nvml::nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_SYSMEM_ACCESS
            | nvml::nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_SYSMEM_ATOMICS
            | nvml::nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_SLI_BRIDGE => 0,
            _ => return Err(code::INVALID_ARGUMENT),
        })
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo(device: nvmlDevice_t, link: c_uint, pci: *mut nvmlPciInfo_t) |call| {
        let (Remote::Gpu(there) | Remote::Switch(there)) = remote(call, &call.gpu(&device)?, link)?;
        set_old(&pci, &there)
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(device: nvmlDevice_t, link: c_uint, pci: *mut nvmlPciInfo_t) |call| {
        let (Remote::Gpu(there) | Remote::Switch(there)) = remote(call, &call.gpu(&device)?, link)?;
        pci.set(info(&there))
    }

    fn nvmlDeviceGetNvLinkRemoteDeviceType(
        device: nvmlDevice_t,
        link: c_uint,
        pNvLinkDeviceType: *mut c_uint,
    ) |call| {
        pNvLinkDeviceType.set(match remote(call, &call.gpu(&device)?, link)? {
            Remote::Gpu(_) => nvml::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
            Remote::Switch(_) => nvml::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
        })
    }

    fn nvmlDeviceGetNvLinkErrorCounter(
        device: nvmlDevice_t,
        link: c_uint,
        counter: c_uint,
        counterValue: *mut c_ulonglong,
    ) |call| {
        let gpu = call.gpu(&device)?;
        is_active(&gpu, link)?;
        let of_link = one(call, &gpu, link)?;
        counterValue.set(match counter {
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY => of_link.replays.answer()?,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY => of_link.recoveries.answer()?,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT => of_link.crc_flit.answer()?,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA => of_link.crc_data.answer()?,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_ECC_DATA => {
                call.number(&gpu, &format!("NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_L{link}"))?
            }
            _ => return Err(code::INVALID_ARGUMENT),
        })
    }
}

/// Links that a GPU has, used or not.
fn links(gpu: &GpuFacts, active: u32) -> u32 {
    active.max(made(gpu.card.architecture))
}

/// All that is known of one link.
fn one(call: &Call, gpu: &GpuFacts, link: u32) -> Answer<NvLink> {
    let mut links = call.machine().nvlinks_of(gpu.index).into_iter();
    links.find(|known| known.index == link).ok_or(code::NOT_SUPPORTED)
}

/// What a link was trained to, in MB/s.
pub(crate) fn speed(call: &Call, gpu: &GpuFacts, link: u32) -> Answer<u64> {
    one(call, gpu, link)?.speed_mbs.answer()
}

/// Whether a link is up: those that are come first.
pub(crate) fn is_active(gpu: &GpuFacts, link: u32) -> Answer<bool> {
    let active = gpu.readings.nvlinks_active.answer()?;
    if link < links(gpu, active) {
        Ok(link < active)
    } else {
        Err(code::INVALID_ARGUMENT)
    }
}

pub(crate) fn version(gpu: &GpuFacts, link: u32) -> Answer<u32> {
    is_active(gpu, link)?;
    match gpu.card.architecture {
        Architecture::Volta | Architecture::Turing => {
            Ok(nvml::nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_2_0)
        }
        Architecture::Ampere => Ok(nvml::nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_3_0),
        Architecture::Hopper => Ok(nvml::nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_4_0),
        Architecture::Blackwell => Ok(nvml::nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_5_0),
        Architecture::Maxwell | Architecture::Pascal | Architecture::Ada => Err(code::NOT_SUPPORTED),
    }
}

/// Links that end at switches.
pub(crate) fn to_switches(gpu: &GpuFacts) -> Answer<u32> {
    let active = gpu.readings.nvlinks_active.answer()?;
    Ok(if gpu.switched { active } else { 0 })
}

/// What an active link ends at: with switches all end there, without them peers in the driver's order have as many
/// as the scenario says.
fn remote(call: &Call, gpu: &GpuFacts, link: u32) -> Answer<Remote> {
    if !is_active(gpu, link)? {
        return Err(code::NOT_SUPPORTED);
    }
    if gpu.switched {
        // Four switches, as on boards of eight GPUs, taken in turn.
        return Ok(Remote::Switch(PciFunction {
            address: PciAddress {
                domain: 0,
                bus: u8::try_from(0xf0 + link % 4).unwrap_or(u8::MAX),
                device: 0,
                function: 0,
            },
            vendor_id: NVIDIA_VENDOR_ID,
            device_id: 0x22a3,
            subsystem_vendor_id: NVIDIA_VENDOR_ID,
            subsystem_device_id: 0,
        }));
    }
    let mut first = 0;
    for peer in peers(call, gpu.index) {
        let (index, links) = peer;
        if link < first + links {
            let peer = call.machine().gpu(index).ok_or(code::UNKNOWN)?;
            return Ok(Remote::Gpu(peer.pci));
        }
        first += links;
    }
    Err(code::NOT_SUPPORTED)
}

/// Peers of a GPU and how many links lead to each, lowest index first.
fn peers(call: &Call, gpu: u32) -> Vec<(u32, u32)> {
    let links = call.machine().links();
    let mut peers: Vec<_> = links
        .iter()
        .filter_map(|link| {
            let there = match (link.from == gpu, link.to == gpu) {
                (true, _) => link.to,
                (_, true) => link.from,
                _ => return None,
            };
            link.nvlinks
                .value()
                .filter(|links| **links > 0)
                .map(|links| (there, *links))
        })
        .collect();
    peers.sort_unstable();
    peers
}
