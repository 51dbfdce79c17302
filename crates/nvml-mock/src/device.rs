//! What a device is: names, numbers, modes.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlDeviceAddressingMode_t, nvmlDeviceAttributes_t, nvmlUUID_t,
};
use pitcrew_core::catalog::{Architecture, Card, Class};
use pitcrew_core::gpu::{ComputeMode, ProcessKind, Virtualization};
use pitcrew_scenario::{Change, GpuFacts, Value};

use crate::abi::{Answer, In, ReadingExt as _, code, flag, struct_version, uuid_bytes};
use crate::mig::attributes;
use crate::system::by_uuid;
use crate::world::Device;

exports! {
    fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) |call| {
        match call.device(&device)? {
            Device::Gpu(gpu) => name.text(length, &gpu.readings.name.answer()?),
            Device::Mig(slice) => {
                let whole = slice.gpu.readings.name.answer()?;
                name.text(length, &format!("{whole} MIG {}", slice.device.profile))
            }
        }
    }

    fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) |call| {
        match call.device(&device)? {
            Device::Gpu(gpu) => uuid.text(length, &gpu.readings.uuid.answer()?),
            Device::Mig(slice) => uuid.text(length, &slice.device.uuid),
        }
    }

    fn nvmlDeviceGetHandleByUUIDV(uuid: *const nvmlUUID_t, device: *mut nvmlDevice_t) |call| {
        by_uuid(call, &written_uuid(&uuid)?, &device)
    }

    fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint) |call| {
        match call.device(&device) {
            Ok(Device::Mig(slice)) => index.set(slice.index),
            Ok(Device::Gpu(gpu)) => index.set(gpu.index),
            Err(code::GPU_IS_LOST) => index.set(call.known(&device)?.index),
            Err(code) => Err(code),
        }
    }

    fn nvmlDeviceGetSerial(device: nvmlDevice_t, serial: *mut c_char, length: c_uint) |call| {
        serial.text(length, &call.gpu(&device)?.readings.serial.answer()?)
    }

    fn nvmlDeviceGetBoardPartNumber(device: nvmlDevice_t, partNumber: *mut c_char, length: c_uint) |call| {
        partNumber.text(length, &call.gpu(&device)?.readings.board_part_number.answer()?)
    }

    fn nvmlDeviceGetVbiosVersion(device: nvmlDevice_t, version: *mut c_char, length: c_uint) |call| {
        version.text(length, &call.gpu(&device)?.readings.vbios.answer()?)
    }

    fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minorNumber: *mut c_uint) |call| {
        minorNumber.set(call.gpu(&device)?.readings.minor.answer()?)
    }

    fn nvmlDeviceGetBrand(device: nvmlDevice_t, type_: *mut c_uint) |call| {
        type_.set(brand(call.gpu(&device)?.card))
    }

    fn nvmlDeviceGetArchitecture(device: nvmlDevice_t, arch: *mut c_uint) |call| {
        arch.set(match parent(&call.device(&device)?).card.architecture {
            Architecture::Maxwell => nvml::NVML_DEVICE_ARCH_MAXWELL,
            Architecture::Pascal => nvml::NVML_DEVICE_ARCH_PASCAL,
            Architecture::Volta => nvml::NVML_DEVICE_ARCH_VOLTA,
            Architecture::Turing => nvml::NVML_DEVICE_ARCH_TURING,
            Architecture::Ampere => nvml::NVML_DEVICE_ARCH_AMPERE,
            Architecture::Ada => nvml::NVML_DEVICE_ARCH_ADA,
            Architecture::Hopper => nvml::NVML_DEVICE_ARCH_HOPPER,
            Architecture::Blackwell => nvml::NVML_DEVICE_ARCH_BLACKWELL,
        })
    }

    fn nvmlDeviceGetCudaComputeCapability(device: nvmlDevice_t, major: *mut c_int, minor: *mut c_int) |call| {
        let version = parent(&call.device(&device)?).readings.compute_capability.answer()?;
        let number = |part: u32| c_int::try_from(part).map_err(|_| code::UNKNOWN);
        major.set(number(version.major)?)?;
        minor.set(number(version.minor)?)
    }

    fn nvmlDeviceGetNumGpuCores(device: nvmlDevice_t, numCores: *mut c_uint) |call| {
        numCores.set(call.gpu(&device)?.readings.cores.answer()?)
    }

    fn nvmlDeviceGetModuleId(device: nvmlDevice_t, moduleId: *mut c_uint) |call| {
        let gpu = call.gpu(&device)?;
        // Boards that carry several GPUs and their switches number them.
        if gpu.switched { moduleId.set(gpu.index) } else { Err(code::NOT_SUPPORTED) }
    }

    fn nvmlDeviceGetBoardId(device: nvmlDevice_t, boardId: *mut c_uint) |call| {
        let address = call.gpu(&device)?.pci.address;
        boardId.set(address.domain << 16 | c_uint::from(address.bus) << 8)
    }

    fn nvmlDeviceGetMultiGpuBoard(device: nvmlDevice_t, multiGpuBool: *mut c_uint) |call| {
        call.gpu(&device)?;
        multiGpuBool.set(0)
    }

    fn nvmlDeviceGetPersistenceMode(device: nvmlDevice_t, mode: *mut c_uint) |call| {
        mode.set(flag(call.gpu(&device)?.readings.persistence.answer()?))
    }

    fn nvmlDeviceSetPersistenceMode(device: nvmlDevice_t, mode: c_uint) |call| {
        let gpu = call.gpu(&device)?;
        gpu.readings.persistence.answer()?;
        call.change(&Change::SetReading {
            gpu: gpu.index,
            field: "persistence".to_owned(),
            value: Value::Bool(enabled(mode)?),
        })
    }

    fn nvmlDeviceGetComputeMode(device: nvmlDevice_t, mode: *mut c_uint) |call| {
        mode.set(match call.gpu(&device)?.readings.compute_mode.answer()? {
            ComputeMode::Default => nvml::nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT,
            ComputeMode::Prohibited => nvml::nvmlComputeMode_enum_NVML_COMPUTEMODE_PROHIBITED,
            ComputeMode::ExclusiveProcess => nvml::nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
        })
    }

    fn nvmlDeviceSetComputeMode(device: nvmlDevice_t, mode: c_uint) |call| {
        let gpu = call.gpu(&device)?;
        gpu.readings.compute_mode.answer()?;
        let mode = match mode {
            nvml::nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT => "default",
            nvml::nvmlComputeMode_enum_NVML_COMPUTEMODE_PROHIBITED => "prohibited",
            nvml::nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS => "exclusive-process",
            _ => return Err(code::INVALID_ARGUMENT),
        };
        call.change(&Change::SetReading {
            gpu: gpu.index,
            field: "compute_mode".to_owned(),
            value: Value::Text(mode.to_owned()),
        })
    }

    fn nvmlDeviceGetVirtualizationMode(device: nvmlDevice_t, pVirtualMode: *mut c_uint) |call| {
        let mode = parent(&call.device(&device)?).readings.virtualization.answer()?;
        pVirtualMode.set(match mode {
            Virtualization::None => nvml::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_NONE,
            Virtualization::Passthrough => nvml::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_PASSTHROUGH,
            Virtualization::Vgpu => nvml::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_VGPU,
            Virtualization::HostVgpu => nvml::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU,
            Virtualization::HostVsga => nvml::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_HOST_VSGA,
        })
    }

    fn nvmlDeviceGetHostVgpuMode(device: nvmlDevice_t, pHostVgpuMode: *mut c_uint) |call| {
        match call.gpu(&device)?.readings.virtualization.answer()? {
            Virtualization::HostVgpu => pHostVgpuMode.set(nvml::nvmlHostVgpuMode_enum_NVML_HOST_VGPU_MODE_NON_SRIOV),
            Virtualization::HostVsga => pHostVgpuMode.set(nvml::nvmlHostVgpuMode_enum_NVML_HOST_VGPU_MODE_SRIOV),
            _ => Err(code::NOT_SUPPORTED),
        }
    }

    fn nvmlDeviceGetDisplayMode(device: nvmlDevice_t, display: *mut c_uint) |call| {
        display.set(flag(draws(&call.gpu(&device)?)))
    }

    fn nvmlDeviceGetDisplayActive(device: nvmlDevice_t, isActive: *mut c_uint) |call| {
        isActive.set(flag(draws(&call.gpu(&device)?)))
    }

    fn nvmlDeviceGetAttributes(device: nvmlDevice_t, attributes_: *mut nvmlDeviceAttributes_t) |call| {
        attributes_.set(attributes(&call.device(&device)?)?)
    }

    fn nvmlDeviceGetAttributes_v2(device: nvmlDevice_t, attributes_: *mut nvmlDeviceAttributes_t) |call| {
        attributes_.set(attributes(&call.device(&device)?)?)
    }

    fn nvmlDeviceGetIrqNum(device: nvmlDevice_t, irqNum: *mut c_uint) |call| {
        // As `/proc/driver/nvidia/gpus/*/information` of the scenario says.
        irqNum.set(41 + call.gpu(&device)?.readings.minor.answer()?)
    }

    fn nvmlDeviceGetPowerSource(device: nvmlDevice_t, powerSource: *mut c_uint) |call| {
        call.gpu(&device)?;
        powerSource.set(nvml::NVML_POWER_SOURCE_AC)
    }

    fn nvmlDeviceGetGspFirmwareVersion(device: nvmlDevice_t, version: *mut c_char) |call| {
        let firmware = call.gpu(&device)?.readings.gsp_firmware.answer()?;
        version.text(nvml::NVML_GSP_FIRMWARE_VERSION_BUF_SIZE, &firmware)
    }

    fn nvmlDeviceGetGspFirmwareMode(
        device: nvmlDevice_t,
        isEnabled: *mut c_uint,
        defaultMode: *mut c_uint,
    ) |call| {
        call.gpu(&device)?.readings.gsp_firmware.answer()?;
        isEnabled.set(1)?;
        defaultMode.set(1)
    }

    fn nvmlDeviceGetAddressingMode(device: nvmlDevice_t, mode: *mut nvmlDeviceAddressingMode_t) |call| {
        mode.only_version()?;
        let gpu = call.gpu(&device)?;
        let mut info = mode.get()?;
        // Memory with a NUMA node of its own is what the CPU addresses too.
        info.value = if gpu.readings.numa_node.value().is_some() {
            nvml::nvmlDeviceAddressingModeType_t_NVML_DEVICE_ADDRESSING_MODE_ATS
        } else {
            nvml::nvmlDeviceAddressingModeType_t_NVML_DEVICE_ADDRESSING_MODE_NONE
        };
        mode.set(info)
    }

    fn nvmlDeviceGetNumaNodeId(device: nvmlDevice_t, node: *mut c_uint) |call| {
        node.set(call.gpu(&device)?.readings.numa_node.answer()?)
    }
}

/// The GPU of a device, be it whole or a slice.
pub(crate) fn parent(device: &Device) -> &GpuFacts {
    match device {
        Device::Gpu(gpu) => gpu,
        Device::Mig(slice) => &slice.gpu,
    }
}

/// `NVML_FEATURE_ENABLED` or `NVML_FEATURE_DISABLED`.
pub(crate) fn enabled(state: c_uint) -> Answer<bool> {
    match state {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

/// An H100 says `NVIDIA` (recorded); older names are those that drivers of their time gave.
fn brand(card: &Card) -> c_uint {
    let older = card.architecture < Architecture::Ampere;
    match card.class {
        Class::Datacentre if older => nvml::nvmlBrandType_enum_NVML_BRAND_TESLA,
        Class::Datacentre => nvml::nvmlBrandType_enum_NVML_BRAND_NVIDIA,
        Class::Consumer if card.name.contains("TITAN") => nvml::nvmlBrandType_enum_NVML_BRAND_TITAN,
        Class::Consumer if card.name.contains("RTX") => nvml::nvmlBrandType_enum_NVML_BRAND_GEFORCE_RTX,
        Class::Consumer => nvml::nvmlBrandType_enum_NVML_BRAND_GEFORCE,
        Class::Workstation if card.name.contains("Quadro RTX") => {
            nvml::nvmlBrandType_enum_NVML_BRAND_QUADRO_RTX
        }
        Class::Workstation if card.name.contains("Quadro") => nvml::nvmlBrandType_enum_NVML_BRAND_QUADRO,
        Class::Workstation => nvml::nvmlBrandType_enum_NVML_BRAND_NVIDIA_RTX,
    }
}

/// True when something draws on a display: a graphics process holds the GPU.
fn draws(gpu: &GpuFacts) -> bool {
    let processes = gpu.readings.processes.value();
    processes.is_some_and(|all| all.iter().any(|process| process.kind == ProcessKind::Graphics))
}

/// The UUID in a caller's struct, in the form with dashes; of bytes without a prefix it is a GPU's.
fn written_uuid(uuid: &In<nvmlUUID_t>) -> Answer<String> {
    let uuid = uuid.get()?;
    if uuid.version != struct_version(size_of::<nvmlUUID_t>(), 1) {
        return Err(code::VERSION_MISMATCH);
    }
    let bytes = uuid_bytes(&uuid);
    match uuid.type_ {
        nvml::nvmlUUIDType_t_NVML_UUID_TYPE_ASCII => {
            let text = bytes.into_iter().take_while(|byte| *byte != 0).collect();
            String::from_utf8(text).map_err(|_| code::INVALID_ARGUMENT)
        }
        nvml::nvmlUUIDType_t_NVML_UUID_TYPE_BINARY => {
            let bytes = *bytes.first_chunk().ok_or(code::UNKNOWN)?;
            let number = u128::from_be_bytes(bytes);
            let part = |shift: u32, digits: u32| number >> shift & ((1 << (4 * digits)) - 1);
            Ok(format!(
                "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                part(96, 8),
                part(80, 4),
                part(64, 4),
                part(48, 4),
                part(0, 12)
            ))
        }
        _ => Err(code::INVALID_ARGUMENT),
    }
}
