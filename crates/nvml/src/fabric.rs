//! The fabric that `NVSwitch`es make, and a GPU's place in it.

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::gpu::{Fabric, FabricState};

use crate::call::{self, Plain as _, version_of};
use crate::code::{Answer, Code};
use crate::device::Device;

/// What both forms of the call say.
#[derive(Debug, Clone, Copy)]
struct Info {
    cluster: [u8; 16],
    status: u32,
    clique: u32,
    state: u8,
}

impl Device<'_> {
    /// Where the GPU stands with its fabric. A GPU that has none is not supported, whichever way the driver says it.
    pub(crate) fn fabric(self) -> Answer<Fabric> {
        let functions = self.f();
        // The third version only adds a summary of health, and older drivers don't know it.
        let wanted = sys::nvmlGpuFabricInfoV_t {
            version: version_of::<sys::nvmlGpuFabricInfo_v2_t>(2),
            ..sys::nvmlGpuFabricInfoV_t::zeroed()
        };
        let info = match call::get_into(&functions.nvmlDeviceGetGpuFabricInfoV, self, wanted) {
            Ok(info) => Info {
                cluster: info.clusterUuid,
                status: info.status,
                clique: info.cliqueId,
                state: info.state,
            },
            Err(code) if code.wants_older_call() => {
                let info: sys::nvmlGpuFabricInfo_t =
                    call::get_of(&functions.nvmlDeviceGetGpuFabricInfo, self)?;
                Info {
                    cluster: info.clusterUuid,
                    status: info.status,
                    clique: info.cliqueId,
                    state: info.state,
                }
            }
            Err(code) => return Err(code),
        };
        read(info)
    }
}

fn read(info: Info) -> Answer<Fabric> {
    let state = match u32::from(info.state) {
        // Also of an answer that nobody has filled in.
        sys::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED => return Err(Code::NOT_SUPPORTED),
        sys::NVML_GPU_FABRIC_STATE_NOT_STARTED => FabricState::NotStarted,
        sys::NVML_GPU_FABRIC_STATE_IN_PROGRESS => FabricState::InProgress,
        sys::NVML_GPU_FABRIC_STATE_COMPLETED => FabricState::Completed,
        _ => return Err(Code::UNKNOWN),
    };
    // nvml.h: the status means something only where registering has ended.
    let has_ended = state == FabricState::Completed;
    Ok(Fabric {
        state,
        status: has_ended.then(|| {
            Code::check(info.status).map_or_else(|code| code.to_string(), |()| Fabric::SUCCESS.to_owned())
        }),
        clique: has_ended.then_some(info.clique),
        cluster_uuid: has_ended.then(|| uuid(info.cluster)),
    })
}

/// A UUID as it is written.
fn uuid(bytes: [u8; 16]) -> String {
    let number = u128::from_be_bytes(bytes);
    let part = |shift: u32, digits: u32| number >> shift & ((1 << (4 * digits)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(state: u8, status: u32) -> Info {
        let mut cluster = [0; 16];
        (cluster[0], cluster[15]) = (0xab, 0x01);
        Info {
            cluster,
            status,
            clique: 7,
            state,
        }
    }

    #[test]
    fn a_gpu_without_a_fabric_and_an_answer_that_nobody_filled_in_are_not_supported() {
        assert_eq!(read(info(0, 0)), Err(Code::NOT_SUPPORTED));
        assert_eq!(read(info(9, 0)), Err(Code::UNKNOWN));
    }

    #[test]
    fn status_and_place_are_told_once_registering_has_ended() {
        for (state, expected) in [(1, FabricState::NotStarted), (2, FabricState::InProgress)] {
            let fabric = read(info(state, 999)).unwrap();
            assert_eq!(
                (fabric.state, fabric.status, fabric.clique),
                (expected, None, None)
            );
        }
        let fabric = read(info(3, 0)).unwrap();
        assert!(fabric.is_registered());
        assert_eq!(fabric.clique, Some(7));
        assert_eq!(
            fabric.cluster_uuid.as_deref(),
            Some("ab000000-0000-0000-0000-000000000001")
        );
        let failed = read(info(3, 999)).unwrap();
        assert_eq!(failed.status.as_deref(), Some("Unknown Error"));
        assert!(!failed.is_registered());
        assert_eq!(
            read(info(3, 4711)).unwrap().status.as_deref(),
            Some("NVML error 4711")
        );
    }

    #[test]
    fn versions_are_those_of_the_header() {
        assert_eq!(version_of::<sys::nvmlGpuFabricInfo_v2_t>(2), 0x0200_0024);
    }
}
