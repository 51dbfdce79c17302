//! What a GPU instance of each profile has.

use pitcrew_core::catalog::Architecture;
use pitcrew_core::mig::{Attribute, Geometry, GeometryProfile, Profile};
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, ReadingExt as _, code};

/// Engines of a GPU instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Engines {
    pub(crate) copy: u32,
    pub(crate) decoders: u32,
    pub(crate) encoders: u32,
    pub(crate) jpeg: u32,
    pub(crate) optical_flow: u32,
}

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
            engines: engines(gpu.card.architecture, geometry.memory_slices, known),
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

/// Hopper as recorded from an H100, which Blackwell for datacentres is taken to equal; A100 and A30 by NVIDIA's MIG
/// user guide; of an RTX PRO 6000 one engine of each kind for a slice, as the card has four.
fn engines(architecture: Architecture, memory_slices: u8, known: &GeometryProfile) -> Engines {
    let slices = u32::from(known.profile.gpu_slices);
    let media = known.profile.attribute == Some(Attribute::Media);
    let double =
        known.profile.gpu_slices == 1 && known.placements.first().is_some_and(|place| place.size == 2);
    let [copy, decoders, encoders, jpeg, optical_flow] = match (architecture, memory_slices) {
        (Architecture::Ampere, 8) => match slices {
            1 if media => [1, 1, 0, 1, 1],
            1 if double => [1, 1, 0, 0, 0],
            1 => [1, 0, 0, 0, 0],
            2 => [2, 1, 0, 0, 0],
            3 | 4 => [slices, 2, 0, 0, 0],
            _ => [7, 5, 0, 1, 1],
        },
        (_, 8) => match slices {
            7 => [8, 7, 0, 7, 1],
            _ => [slices, slices, 0, slices, u32::from(media)],
        },
        (Architecture::Ampere, _) => match slices {
            1 => [1, u32::from(media), 0, u32::from(media), u32::from(media)],
            4 => [4, 4, 0, 1, 1],
            _ => [slices, slices, 0, u32::from(media), u32::from(media)],
        },
        _ => match known.profile.attribute {
            Some(Attribute::AllMedia) => [slices, 4, 4, 4, 1],
            Some(Attribute::NoMedia) => [slices, 0, 0, 0, 0],
            _ => [slices, slices, slices, slices, u32::from(slices == 4)],
        },
    };
    Engines {
        copy,
        decoders,
        encoders,
        jpeg,
        optical_flow,
    }
}
