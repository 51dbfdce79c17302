//! Starting, ending, errors, versions, counts.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_st, nvmlDevice_t, nvmlExcludedDeviceInfo_t, nvmlHwbcEntry_t, nvmlSystemDriverBranchInfo_t,
    nvmlUnit_t,
};
use pitcrew_core::pci::PciAddress;

use crate::abi::{Answer, Out, ReadingExt as _, chars, code, contain, error_string, list};
use crate::handles::Object;
use crate::world::{Call, initialise, shut_down};

macro_rules! starts {
    ($($name:ident($($arg:ident: $ty:ty)?);)*) => {$(
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($arg: $ty)?) -> c_uint {
            $(let _ = $arg;)?
            contain(|| initialise(stringify!($name)))
        }
    )*};
}
// Flags ask for less (no GPUs, don't attach), which an imaginary node has no use for.
starts! {
    nvmlInit();
    nvmlInit_v2();
    nvmlInitWithFlags(flags: c_uint);
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlShutdown() -> c_uint {
    contain(shut_down)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlErrorString(result: c_uint) -> *const c_char {
    error_string(result).as_ptr()
}

exports! {
    fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) |call| {
        version.text(length, &call.driver()?.version.answer()?)
    }

    fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) |call| {
        version.text(length, &call.driver()?.nvml_version.answer()?)
    }

    fn nvmlSystemGetCudaDriverVersion(cudaDriverVersion: *mut c_int) |call| {
        cudaDriverVersion.set(cuda(call)?)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(cudaDriverVersion: *mut c_int) |call| {
        cudaDriverVersion.set(cuda(call)?)
    }

    fn nvmlSystemGetProcessName(pid: c_uint, name: *mut c_char, length: c_uint) |call| {
        call.driver()?;
        let text = process_name(call, pid).ok_or(code::NOT_FOUND)?;
        // NVML cuts a name off rather than refuse.
        let room = usize::try_from(length).unwrap_or(0).saturating_sub(1);
        let end = (0..=text.len().min(room)).rev().find(|&end| text.is_char_boundary(end));
        name.text(length, &text[..end.unwrap_or(0)])
    }

    fn nvmlSystemGetDriverBranch(branchInfo: *mut nvmlSystemDriverBranchInfo_t, length: c_uint) |call| {
        branchInfo.only_version()?;
        let version = call.driver()?.version.answer()?;
        let branch = format!("r{}", version.split('.').next().unwrap_or_default());
        if branch.len() >= usize::try_from(length).unwrap_or(0) {
            return Err(code::INSUFFICIENT_SIZE);
        }
        let mut info = branchInfo.get()?;
        info.branch = chars(&branch);
        branchInfo.set(info)
    }

    fn nvmlSystemGetHicVersion(hwbcCount: *mut c_uint, hwbcEntries: *mut nvmlHwbcEntry_t) |call| {
        call.driver()?;
        list(&hwbcCount, &hwbcEntries, Vec::new())
    }

    fn nvmlUnitGetCount(unitCount: *mut c_uint) |call| {
        call.driver()?;
        unitCount.set(0)
    }

    fn nvmlUnitGetHandleByIndex(index: c_uint, unit: *mut nvmlUnit_t) |call| {
        let _ = (index, unit);
        call.driver()?;
        Err(code::INVALID_ARGUMENT)
    }

    fn nvmlGetExcludedDeviceCount(deviceCount: *mut c_uint) |call| {
        call.driver()?;
        deviceCount.set(0)
    }

    fn nvmlGetExcludedDeviceInfoByIndex(index: c_uint, info: *mut nvmlExcludedDeviceInfo_t) |call| {
        let _ = (index, info);
        call.driver()?;
        Err(code::INVALID_ARGUMENT)
    }

    fn nvmlDeviceGetCount(deviceCount: *mut c_uint) |call| {
        call.driver()?;
        deviceCount.set(call.machine().gpu_count())
    }

    fn nvmlDeviceGetCount_v2(deviceCount: *mut c_uint) |call| {
        call.driver()?;
        deviceCount.set(call.machine().gpu_count())
    }

    fn nvmlDeviceGetHandleByIndex(index: c_uint, device: *mut nvmlDevice_t) |call| {
        by_index(call, index, &device)
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) |call| {
        by_index(call, index, &device)
    }

    fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) |call| {
        by_uuid(call, &uuid.text()?, &device)
    }

    fn nvmlDeviceGetHandleBySerial(serial: *const c_char, device: *mut nvmlDevice_t) |call| {
        let serial = serial.text()?;
        call.driver()?;
        let count = call.machine().gpu_count();
        let found = (0..count).filter_map(|index| call.machine().gpu(index)).find(|gpu| {
            gpu.readings.serial.value().is_some_and(|known| *known == serial)
        });
        by_index(call, found.ok_or(code::NOT_FOUND)?.index, &device)
    }

    fn nvmlDeviceGetHandleByPciBusId(pciBusId: *const c_char, device: *mut nvmlDevice_t) |call| {
        by_pci(call, &pciBusId.text()?, &device)
    }

    fn nvmlDeviceGetHandleByPciBusId_v2(pciBusId: *const c_char, device: *mut nvmlDevice_t) |call| {
        by_pci(call, &pciBusId.text()?, &device)
    }
}

fn cuda(call: &Call) -> Answer<c_int> {
    let cuda = call.driver()?.cuda.answer()?;
    c_int::try_from(cuda.major * 1000 + cuda.minor * 10).map_err(|_| code::UNKNOWN)
}

fn by_index(call: &Call, index: c_uint, device: &Out<*mut nvmlDevice_st>) -> Answer {
    device.present()?;
    // A GPU that has fallen off the bus is counted, and can't be opened. It is asked alone: a call that hangs at one
    // GPU only must not hang at this one.
    let gpu = call.gpu_at(index)?;
    device.set(call.gpu_handle(gpu.index))
}

fn by_pci(call: &Call, address: &str, device: &Out<*mut nvmlDevice_st>) -> Answer {
    let address: PciAddress = address.parse().map_err(|_| code::INVALID_ARGUMENT)?;
    call.driver()?;
    let count = call.machine().gpu_count();
    let mut gpus = (0..count).filter_map(|index| call.machine().gpu(index));
    let found = gpus
        .find(|gpu| gpu.pci.address == address)
        .ok_or(code::NOT_FOUND)?;
    by_index(call, found.index, device)
}

pub(crate) fn by_uuid(call: &Call, uuid: &str, device: &Out<*mut nvmlDevice_st>) -> Answer {
    device.present()?;
    call.driver()?;
    for index in 0..call.machine().gpu_count() {
        let Some(gpu) = call.machine().gpu(index) else {
            continue;
        };
        if gpu.uuid == uuid {
            return by_index(call, index, device);
        }
        let devices = gpu.readings.mig_devices.value();
        if devices.is_some_and(|devices| devices.iter().any(|found| found.uuid == uuid)) {
            let object = Object::Mig {
                gpu: index,
                uuid: uuid.to_owned(),
            };
            let handle = call.handles().of(object);
            return device.set(handle);
        }
    }
    Err(code::NOT_FOUND)
}

/// A real process by its own words; an imaginary one that holds a GPU by its number.
fn process_name(call: &Call, pid: c_uint) -> Option<String> {
    let real = std::fs::read(format!("/proc/{pid}/cmdline")).ok();
    let real = real.and_then(|words| {
        let first = words.split(|byte| *byte == 0).next()?;
        (!first.is_empty()).then(|| String::from_utf8_lossy(first).into_owned())
    });
    real.or_else(|| {
        let count = call.machine().gpu_count();
        let mut gpus = (0..count).filter_map(|index| call.machine().gpu(index));
        let holds = gpus.any(|gpu| {
            let processes = gpu.readings.processes.value();
            processes.is_some_and(|all| all.iter().any(|process| process.pid == pid))
        });
        holds.then(|| format!("imaginary-{pid}"))
    })
}
