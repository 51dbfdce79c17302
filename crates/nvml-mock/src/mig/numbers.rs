//! What a GPU instance of each profile has.

use pitcrew_core::mig::{Engines, Geometry, GeometryProfile, Profile, engines};
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, ReadingExt as _, code};

/// All that NVML tells of a profile.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    pub(crate) profile: Profile,
    /// The id that instances are created by.
    pub(crate) id: u32,
    pub(crate) slices: u32,
    pub(crate) instances: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) memory_mib: u64,
    pub(crate) engines: Engines,
}

impl Numbers {
    /// By NVML's `NVML_GPU_INSTANCE_PROFILE_*`.
    pub(crate) fn of_kind(gpu: &GpuFacts, kind: u32) -> Answer<Self> {
        // One more than the bindings know: three slices with graphics.
        if kind > nvml_wrapper_sys::bindings::NVML_GPU_INSTANCE_PROFILE_COUNT {
            return Err(code::INVALID_ARGUMENT);
        }
        Self::find(gpu, |known| known.nvml_profile == kind).ok_or(code::NOT_SUPPORTED)
    }

    /// By the id that [`Numbers::id`] gives.
    pub(crate) fn of_id(gpu: &GpuFacts, wanted: u32) -> Answer<Self> {
        if gpu.geometry.is_none() {
            return Err(code::NOT_SUPPORTED);
        }
        Self::find(gpu, |known| id(known) == wanted).ok_or(code::INVALID_ARGUMENT)
    }

    pub(crate) fn named(gpu: &GpuFacts, profile: &Profile) -> Answer<Self> {
        Self::find(gpu, |known| known.profile == *profile).ok_or(code::NOT_SUPPORTED)
    }

    fn find(gpu: &GpuFacts, is_it: impl Fn(&GeometryProfile) -> bool) -> Option<Self> {
        let geometry = gpu.geometry.as_ref()?;
        let known = geometry.profiles.iter().find(|known| is_it(known))?;
        Some(Self::new(gpu, geometry, known))
    }

    fn new(gpu: &GpuFacts, geometry: &Geometry, known: &GeometryProfile) -> Self {
        let slices = u32::from(known.profile.gpu_slices);
        let size = known.placements.first().map_or(0, |place| u64::from(place.size));
        let all = u64::from(geometry.memory_slices.max(1));
        // Where the tables have no figure, it is a part of the whole as large as the placement.
        let total = gpu.readings.memory_total_bytes.answer().unwrap_or(0) >> 20;
        let share = total * size / all;
        let whole = size == all;
        let share_of_processors = if whole {
            gpu.card.sm_count
        } else {
            // Multiprocessors come in pairs.
            gpu.card.sm_count * slices / u32::from(geometry.memory_slices.max(1)) / 2 * 2
        };
        Self {
            profile: known.profile.clone(),
            id: id(known),
            slices: known.slice_count,
            instances: known.max_instances,
            multiprocessors: known.multiprocessors.unwrap_or(share_of_processors),
            memory_mib: known.memory_mib.map_or(share, u64::from),
            engines: engines(gpu.card, geometry, known),
        }
    }

    /// Multiprocessors of a compute instance of so many slices.
    pub(crate) fn part(&self, slices: u8) -> u32 {
        self.multiprocessors * u32::from(slices) / self.slices.max(1)
    }
}

/// The id that NVML gives, or where it isn't known one that no card has.
fn id(known: &GeometryProfile) -> u32 {
    known.id.unwrap_or(128 + known.nvml_profile)
}
