//! The fabric that `NVSwitch`es make.

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlGpuFabricInfoV_t,
};
use pitcrew_core::Reading;
use pitcrew_core::catalog::Architecture;
use pitcrew_core::gpu::{Fabric, FabricState};
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, ReadingExt as _, code, code_of};

exports! {
    fn nvmlDeviceGetGpuFabricInfo(device: nvmlDevice_t, gpuFabricInfo: *mut nvmlGpuFabricInfo_t) |call| {
        let place = place(&call.gpu(&device)?)?;
        gpuFabricInfo.set(nvmlGpuFabricInfo_t {
            clusterUuid: place.cluster,
            status: place.status,
            cliqueId: place.clique,
            state: place.state,
        })
    }

    fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, gpuFabricInfo: *mut nvmlGpuFabricInfoV_t) |call| {
        let version = gpuFabricInfo.version(&[
            (size_of::<nvmlGpuFabricInfo_v2_t>(), 2),
            (size_of::<nvmlGpuFabricInfo_v3_t>(), 3),
        ])?;
        let place = place(&call.gpu(&device)?)?;
        let to = gpuFabricInfo.cast::<nvmlGpuFabricInfo_v2_t>();
        // The third version only adds to the end of the second.
        to.set(nvmlGpuFabricInfo_v2_t {
            version: to.get()?.version,
            clusterUuid: place.cluster,
            status: place.status,
            cliqueId: place.clique,
            state: place.state,
            healthMask: 0,
        })?;
        if version == 3 {
            let mut info = gpuFabricInfo.get()?;
            info.healthSummary = summary(&place);
            gpuFabricInfo.set(info)?;
        }
        Ok(())
    }
}

/// A GPU's place as NVML gives it.
struct Place {
    cluster: [u8; 16],
    status: u32,
    clique: u32,
    state: u8,
}

/// From Hopper on every GPU can be asked, and one that has no fabric says so by its state.
fn place(gpu: &GpuFacts) -> Answer<Place> {
    let fabric = match &gpu.readings.fabric {
        Reading::NotSupported if gpu.card.architecture >= Architecture::Hopper => None,
        fabric => Some(fabric.answer()?),
    };
    let state = match fabric.as_ref().map(|fabric| fabric.state) {
        None => nvml::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED,
        Some(FabricState::NotStarted) => nvml::NVML_GPU_FABRIC_STATE_NOT_STARTED,
        Some(FabricState::InProgress) => nvml::NVML_GPU_FABRIC_STATE_IN_PROGRESS,
        Some(FabricState::Completed) => nvml::NVML_GPU_FABRIC_STATE_COMPLETED,
    };
    let place = |fabric: &Fabric| {
        let cluster = fabric.cluster_uuid.as_deref();
        let cluster = cluster.and_then(pitcrew_scenario::uuid_bytes);
        (cluster, fabric.status.as_deref().map(code_of), fabric.clique)
    };
    let (cluster, status, clique) = fabric.as_ref().map_or((None, None, None), place);
    Ok(Place {
        cluster: cluster.unwrap_or_default(),
        status: status.unwrap_or(code::SUCCESS),
        clique: clique.unwrap_or_default(),
        state: u8::try_from(state).map_err(|_| code::UNKNOWN)?,
    })
}

fn summary(place: &Place) -> u8 {
    let has_ended = u32::from(place.state) == nvml::NVML_GPU_FABRIC_STATE_COMPLETED;
    let summary = match (has_ended, place.status) {
        (true, code::SUCCESS) => nvml::NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY,
        (true, _) => nvml::NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY,
        (false, _) => nvml::NVML_GPU_FABRIC_HEALTH_SUMMARY_NOT_SUPPORTED,
    };
    u8::try_from(summary).unwrap_or(0)
}
