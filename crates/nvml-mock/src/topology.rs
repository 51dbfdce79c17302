//! How GPUs, processors and memory lie to each other.

use std::ffi::{c_int, c_uint, c_ulong};

use nvml_wrapper_sys::bindings::{self as nvml, nvmlDevice_t};
use pitcrew_core::inventory::{Link, PciPath};

use crate::abi::{Answer, Out, ReadingExt as _, code, flag, list};
use crate::world::Call;

/// Processors of each NUMA node of an imaginary machine.
const CPUS_PER_NODE: u32 = 32;

exports! {
    fn nvmlDeviceGetTopologyCommonAncestor(
        device1: nvmlDevice_t,
        device2: nvmlDevice_t,
        pathInfo: *mut c_uint,
    ) |call| {
        let (one, other) = (call.gpu(&device1)?, call.gpu(&device2)?);
        pathInfo.set(level(call, one.index, other.index)?)
    }

    fn nvmlDeviceGetTopologyNearestGpus(
        device: nvmlDevice_t,
        level_: c_uint,
        count: *mut c_uint,
        deviceArray: *mut nvmlDevice_t,
    ) |call| {
        let gpu = call.gpu(&device)?;
        let others = (0..call.machine().gpu_count()).filter(|&other| {
            other != gpu.index && level(call, gpu.index, other) == Ok(level_)
        });
        let handles: Vec<_> = others.map(|other| call.gpu_handle(other)).collect();
        if deviceArray.is_null() {
            return count.set(crate::abi::count(handles.len()));
        }
        list(&count, &deviceArray, handles)
    }

    fn nvmlSystemGetTopologyGpuSet(
        cpuNumber: c_uint,
        count: *mut c_uint,
        deviceArray: *mut nvmlDevice_t,
    ) |call| {
        call.driver()?;
        let node = cpuNumber / CPUS_PER_NODE;
        let near = (0..call.machine().gpu_count()).filter(|&index| {
            call.machine().gpu(index).is_some_and(|gpu| gpu.numa_node == node)
        });
        let handles: Vec<_> = near.map(|index| call.gpu_handle(index)).collect();
        if deviceArray.is_null() {
            return count.set(crate::abi::count(handles.len()));
        }
        list(&count, &deviceArray, handles)
    }

    fn nvmlDeviceGetP2PStatus(
        device1: nvmlDevice_t,
        device2: nvmlDevice_t,
        p2pIndex: c_uint,
        p2pStatus: *mut c_uint,
    ) |call| {
        let (one, other) = (call.gpu(&device1)?, call.gpu(&device2)?);
        if one.index == other.index || p2pIndex >= nvml::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_UNKNOWN {
            return Err(code::INVALID_ARGUMENT);
        }
        let link = between(call, one.index, other.index)?;
        let nvlink = link.nvlinks.value().is_some_and(|links| *links > 0);
        let data_centre = |gpu: &pitcrew_scenario::GpuFacts| {
            gpu.card.class != pitcrew_core::catalog::Class::Consumer
        };
        // Over PCIe consumer cards don't reach each other, and nobody across the link between two processors.
        let pcie = data_centre(&one) && data_centre(&other)
            && link.path.value().is_some_and(|path| *path < PciPath::System);
        let reach = match p2pIndex {
            nvml::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK
            | nvml::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_ATOMICS => nvlink,
            nvml::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_PCI => pcie,
            _ => nvlink || pcie,
        };
        p2pStatus.set(if reach {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK
        } else {
            nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED
        })
    }

    fn nvmlDeviceOnSameBoard(device1: nvmlDevice_t, device2: nvmlDevice_t, onSameBoard: *mut c_int) |call| {
        let (one, other) = (call.gpu(&device1)?, call.gpu(&device2)?);
        let same = one.index == other.index
            || between(call, one.index, other.index)?.path.value() == Some(&PciPath::SameBoard);
        onSameBoard.set(c_int::from(same))
    }

    fn nvmlDeviceGetCpuAffinity(device: nvmlDevice_t, cpuSetSize: c_uint, cpuSet: *mut c_ulong) |call| {
        cpus(call.gpu(&device)?.numa_node, cpuSetSize, &cpuSet)
    }

    fn nvmlDeviceGetCpuAffinityWithinScope(
        device: nvmlDevice_t,
        cpuSetSize: c_uint,
        cpuSet: *mut c_ulong,
        scope: c_uint,
    ) |call| {
        affinity(scope)?;
        cpus(call.gpu(&device)?.numa_node, cpuSetSize, &cpuSet)
    }

    fn nvmlDeviceGetMemoryAffinity(
        device: nvmlDevice_t,
        nodeSetSize: c_uint,
        nodeSet: *mut c_ulong,
        scope: c_uint,
    ) |call| {
        affinity(scope)?;
        let node = call.gpu(&device)?.numa_node;
        bits(node, 1, nodeSetSize, &nodeSet)
    }

    fn nvmlDeviceSetCpuAffinity(device: nvmlDevice_t) |call| {
        // There are no imaginary processors to run on; a client that asks for them goes on where it is.
        call.gpu(&device).map(drop)
    }

    fn nvmlDeviceClearCpuAffinity(device: nvmlDevice_t) |call| {
        call.gpu(&device).map(drop)
    }
}

fn between(call: &Call, one: u32, other: u32) -> Answer<Link> {
    let (from, to) = (one.min(other), one.max(other));
    let links = call.machine().links();
    let found = links.into_iter().find(|link| link.from == from && link.to == to);
    found.ok_or(code::NOT_SUPPORTED)
}

fn level(call: &Call, one: u32, other: u32) -> Answer<c_uint> {
    if one == other {
        return Ok(nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL);
    }
    Ok(match between(call, one, other)?.path.answer()? {
        PciPath::SameBoard => nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL,
        PciPath::SingleSwitch => nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_SINGLE,
        PciPath::MultipleSwitches => nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_MULTIPLE,
        PciPath::HostBridge => nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_HOSTBRIDGE,
        PciPath::NumaNode => nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE,
        PciPath::System => nvml::nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM,
    })
}

/// A node is a socket here.
fn affinity(scope: c_uint) -> Answer {
    match scope {
        nvml::NVML_AFFINITY_SCOPE_NODE | nvml::NVML_AFFINITY_SCOPE_SOCKET => Ok(()),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

fn cpus(node: u32, words: c_uint, set: &Out<c_ulong>) -> Answer {
    bits(node.saturating_mul(CPUS_PER_NODE), CPUS_PER_NODE, words, set)
}

/// `count` bits from `first` on, in as many words as the caller has; what lies beyond is cut off.
fn bits(first: u32, count: u32, words: c_uint, set: &Out<c_ulong>) -> Answer {
    if words == 0 {
        return Err(code::INVALID_ARGUMENT);
    }
    let word = |at: u32| {
        let is_set = |bit: &u32| (first..first.saturating_add(count)).contains(&(at * c_ulong::BITS + bit));
        (0..c_ulong::BITS)
            .filter(is_set)
            .fold(0, |word, bit| word | c_ulong::from(flag(true)) << bit)
    };
    let room = usize::try_from(words).unwrap_or(usize::MAX);
    // 64 GPUs lie on fewer than 64 nodes of 32 processors.
    let used = words.min(64);
    set.fill(
        room,
        (0..used)
            .map(word)
            .chain(std::iter::repeat_n(0, room.saturating_sub(64))),
    )
}
