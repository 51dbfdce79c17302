//! What a device is, as the driver tells it.
#![expect(unsafe_code, reason = "the driver's functions are called here")]

use std::ffi::c_int;
use std::fmt::Write as _;

use pitcrew_core::catalog::ComputeCapability;

use super::library::{CuDevice, Library};
use super::setup::SetupError;
use crate::device::DeviceFacts;

/// `CU_DEVICE_ATTRIBUTE_*` of `cuda.h`.
pub(super) mod attribute {
    pub(in crate::cuda) const CLOCK_KHZ: i32 = 13;
    pub(in crate::cuda) const SMS: i32 = 16;
    pub(in crate::cuda) const L2_BYTES: i32 = 38;
    pub(in crate::cuda) const MAJOR: i32 = 75;
    pub(in crate::cuda) const MINOR: i32 = 76;
    pub(in crate::cuda) const SHARED_BYTES_PER_SM: i32 = 81;
    pub(in crate::cuda) const SHARED_BYTES_PER_BLOCK: i32 = 97;
}

pub(super) fn read_attribute(library: &Library, device: CuDevice, number: c_int) -> Option<u32> {
    let mut value = 0;
    // SAFETY: one integer is written.
    let code = unsafe { (library.functions.device_get_attribute)(&raw mut value, number, device) };
    (code == 0).then(|| u32::try_from(value).ok()).flatten()
}

pub(super) fn facts(library: &Library, device: CuDevice) -> Result<DeviceFacts, SetupError> {
    let functions = &library.functions;
    let of = |number| read_attribute(library, device, number).unwrap_or_default();
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
    };
    let mut name = [0_u8; 256];
    let mut bus = [0_u8; 64];
    let mut memory = 0_usize;
    // SAFETY: texts no longer than is said, ending with a zero, and one number are written.
    unsafe {
        library.setup(
            "cuDeviceGetName",
            (functions.device_get_name)(name.as_mut_ptr().cast(), 256, device),
        )?;
        (functions.device_get_pci_bus_id)(bus.as_mut_ptr().cast(), 64, device);
        library.setup(
            "cuDeviceTotalMem",
            (functions.device_total_mem)(&raw mut memory, device),
        )?;
    }
    Ok(DeviceFacts {
        name: text(&name),
        uuid: uuid(library, device),
        pci: text(&bus).parse().ok(),
        compute_capability: ComputeCapability {
            major: of(attribute::MAJOR),
            minor: of(attribute::MINOR),
        },
        sms: of(attribute::SMS),
        memory_bytes: memory as u64,
        l2_bytes: u64::from(of(attribute::L2_BYTES)),
        sm_clock_mhz: of(attribute::CLOCK_KHZ) / 1000,
        cuda: library.version(),
    })
}

/// The UUID as NVML writes it. The newer of two functions tells that of a MIG instance, the older that of its GPU.
fn uuid(library: &Library, device: CuDevice) -> String {
    let functions = &library.functions;
    let read = |function: Option<unsafe extern "C" fn(*mut [u8; 16], CuDevice) -> c_int>| {
        let mut bytes = [0_u8; 16];
        // SAFETY: 16 bytes are written.
        let code = unsafe { function?(&raw mut bytes, device) };
        (code == 0).then_some(bytes)
    };
    let (gpu, own) = (
        read(functions.device_get_uuid),
        read(functions.device_get_uuid_v2),
    );
    let prefix = match (gpu, own) {
        (Some(gpu), Some(own)) if gpu != own => "MIG",
        _ => "GPU",
    };
    let Some(bytes) = own.or(gpu) else {
        return String::new();
    };
    let mut text = String::from(prefix);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}
