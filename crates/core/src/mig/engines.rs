//! Engines beside the multiprocessors: copies, video, pictures, optical flow.

use serde::Serialize;

use super::{Attribute, Geometry, GeometryProfile};
use crate::catalog::{Architecture, Card};

/// Engines of a GPU instance, by NVML's names (`nvmlDeviceAttributes_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Engines {
    /// Copy engines.
    pub copy: u32,
    /// Video decoders.
    pub decoder: u32,
    /// Video encoders.
    pub encoder: u32,
    /// JPEG decoders.
    pub jpeg: u32,
    /// Optical flow accelerators.
    pub ofa: u32,
}

/// Engines of a GPU instance of this profile: Hopper as recorded from an H100, which Blackwell for datacentres is taken to
/// equal; A100 and A30 by NVIDIA's MIG user guide; of an RTX PRO 6000 one engine of each kind for a slice, as the card
/// has four.
pub fn engines(card: &Card, geometry: &Geometry, known: &GeometryProfile) -> Engines {
    let slices = u32::from(known.profile.gpu_slices);
    let media = known.profile.attribute == Some(Attribute::Media);
    let double =
        known.profile.gpu_slices == 1 && known.placements.first().is_some_and(|place| place.size == 2);
    let [copy, decoder, encoder, jpeg, ofa] = match (card.architecture, geometry.memory_slices) {
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
        decoder,
        encoder,
        jpeg,
        ofa,
    }
}
