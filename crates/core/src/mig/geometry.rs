//! The profiles of each card, and where their instances can lie.

use serde::Serialize;

use super::{Attribute, Placement, Profile};
use crate::catalog::Card;

/// How a card can be cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Geometry {
    /// Memory slices: 8 on cards of seven compute slices, 4 on those of four.
    pub memory_slices: u8,
    /// Profiles, smallest first.
    pub profiles: Vec<GeometryProfile>,
}

impl Geometry {
    /// The profile of this name, if the card has it. A compute instance's profile (`1c.3g.40gb`) is none.
    pub fn profile(&self, profile: &Profile) -> Option<&GeometryProfile> {
        self.profiles.iter().find(|known| known.profile == *profile)
    }
}

/// A profile of a GPU instance on one card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GeometryProfile {
    /// Its name.
    pub profile: Profile,
    /// The id that `nvidia-smi mig -lgip` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// NVML's `NVML_GPU_INSTANCE_PROFILE_*`.
    pub nvml_profile: u32,
    /// Compute slices.
    pub slice_count: u32,
    /// Most instances on one card.
    pub max_instances: u32,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Multiprocessors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiprocessors: Option<u32>,
    /// Where an instance can lie.
    pub placements: Vec<Placement>,
}

/// How a card can be cut; `None` for a card without MIG, and for the RTX PRO 5000 and 4500, of which only the number
/// of instances (2) is known.
pub fn geometry(card: &Card) -> Option<Geometry> {
    let name = card.name.as_str();
    match (card.mig_max_instances, card.memory_gb) {
        (7, 40) => Some(seven([5, 10, 10, 20, 20, 40], MEMORY_A100_40, SMS_A100)),
        (7, 80) if name.starts_with('A') => Some(seven([10, 20, 20, 40, 40, 80], MEMORY_A100_80, SMS_A100)),
        (7, 80) if name.contains("SXM") => {
            Some(seven([10, 20, 20, 40, 40, 80], MEMORY_H100_80, SMS_H100_SXM))
        }
        (7, 80) => Some(seven([10, 20, 20, 40, 40, 80], MEMORY_H100_80, UNKNOWN)),
        (7, 94) => Some(seven([12, 24, 24, 47, 47, 94], UNKNOWN, UNKNOWN)),
        (7, 96) => Some(seven([12, 24, 24, 48, 48, 96], UNKNOWN, UNKNOWN)),
        (7, 141) => Some(seven([18, 35, 35, 71, 71, 141], UNKNOWN, UNKNOWN)),
        (7, 144) => Some(seven([18, 36, 36, 72, 72, 144], UNKNOWN, UNKNOWN)),
        (7, 180) => Some(seven([23, 45, 45, 90, 90, 180], UNKNOWN, UNKNOWN)),
        (7, 186) => Some(seven([23, 47, 47, 93, 93, 186], UNKNOWN, UNKNOWN)),
        (7, 288) if name.starts_with("GB") => Some(seven([35, 70, 70, 139, 139, 278], UNKNOWN, UNKNOWN)),
        (7, 288) => Some(seven([34, 67, 67, 135, 135, 269], UNKNOWN, UNKNOWN)),
        (4, 24) => Some(a30()),
        (4, 96) => Some(rtx_pro_6000()),
        _ => None,
    }
}

/// Figures of the six sizes 1g, 1g with double memory, 2g, 3g, 4g, 7g.
type Six = [Option<u32>; 6];

const UNKNOWN: Six = [None; 6];
const MEMORY_A100_40: Six = some([4864, 9856, 9856, 19968, 19968, 40192]);
const MEMORY_A100_80: Six = some([9856, 19968, 19968, 40192, 40192, 80384]);
const SMS_A100: Six = some([14, 14, 28, 42, 56, 98]);
// Recorded from an H100 80GB HBM3, driver 580.
const MEMORY_H100_80: Six = some([9984, 20096, 20096, 40448, 40448, 81152]);
const SMS_H100_SXM: Six = some([16, 26, 32, 60, 64, 132]);

const fn some(figures: [u32; 6]) -> Six {
    let mut six = UNKNOWN;
    let mut i = 0;
    while i < six.len() {
        six[i] = Some(figures[i]);
        i += 1;
    }
    six
}

/// GPU slices, nvidia-smi's id, NVML's profile, most instances, starts, memory slices.
type Shape = (u8, u32, u32, u32, &'static [u8], u8);

/// Cards of seven compute and eight memory slices: A100, Hopper, and Blackwell for datacentres.
fn seven(memory_gb: [u16; 6], memory_mib: Six, multiprocessors: Six) -> Geometry {
    let shapes: [Shape; 6] = [
        (1, 19, 0, 7, &[0, 1, 2, 3, 4, 5, 6], 1),
        (1, 15, 9, 4, &[0, 2, 4, 6], 2),
        (2, 14, 1, 3, &[0, 2, 4], 2),
        (3, 9, 2, 2, &[0, 4], 4),
        (4, 5, 3, 1, &[0], 4),
        (7, 0, 4, 1, &[0], 8),
    ];
    let mut profiles: Vec<GeometryProfile> = shapes
        .into_iter()
        .zip(
            memory_gb
                .into_iter()
                .zip(memory_mib.into_iter().zip(multiprocessors)),
        )
        .map(
            |((slices, id, nvml_profile, max_instances, starts, size), (gb, (mib, sms)))| GeometryProfile {
                profile: Profile::whole(slices, gb),
                id: Some(id),
                nvml_profile,
                slice_count: u32::from(slices),
                max_instances,
                memory_mib: mib,
                multiprocessors: sms,
                placements: placements(starts, size),
            },
        )
        .collect();
    // The card has one set of media engines to give to a small instance.
    if let Some(small) = profiles.first() {
        let media = variant(small, Attribute::Media, 7, 1, Some(20));
        profiles.insert(1, media);
    }
    Geometry {
        memory_slices: 8,
        profiles,
    }
}

fn a30() -> Geometry {
    let small = four(1, 6, Some(14), Some(5836), Some(14));
    let half = four(2, 12, Some(5), Some(11672), Some(28));
    let whole = four(4, 24, Some(0), Some(23344), Some(56));
    let small_media = variant(&small, Attribute::Media, 7, 1, Some(21));
    let half_media = variant(&half, Attribute::Media, 8, 1, Some(6));
    Geometry {
        memory_slices: 4,
        profiles: vec![small, small_media, half, half_media, whole],
    }
}

fn rtx_pro_6000() -> Geometry {
    let small = four(1, 24, None, None, None);
    let half = four(2, 48, None, None, None);
    let whole = four(4, 96, None, None, None);
    let variants = |base: &GeometryProfile, graphics, all_media, no_media| {
        vec![
            base.clone(),
            variant(base, Attribute::Graphics, graphics, base.max_instances, None),
            variant(base, Attribute::AllMedia, all_media, 1, None),
            variant(base, Attribute::NoMedia, no_media, base.max_instances, None),
        ]
    };
    let mut profiles = variants(&small, 10, 15, 13);
    profiles.extend(variants(&half, 11, 16, 14));
    profiles.push(whole.clone());
    profiles.push(variant(&whole, Attribute::Graphics, 12, 1, None));
    Geometry {
        memory_slices: 4,
        profiles,
    }
}

/// A plain profile of a card of four slices.
fn four(
    slices: u8,
    gb: u16,
    id: Option<u32>,
    memory_mib: Option<u32>,
    multiprocessors: Option<u32>,
) -> GeometryProfile {
    let (nvml_profile, starts): (u32, &[u8]) = match slices {
        1 => (0, &[0, 1, 2, 3]),
        2 => (1, &[0, 2]),
        _ => (3, &[0]),
    };
    GeometryProfile {
        profile: Profile::whole(slices, gb),
        id,
        nvml_profile,
        slice_count: u32::from(slices),
        max_instances: 4 / u32::from(slices),
        memory_mib,
        multiprocessors,
        placements: placements(starts, slices),
    }
}

/// The same size with an attribute.
fn variant(
    base: &GeometryProfile,
    attribute: Attribute,
    nvml_profile: u32,
    max_instances: u32,
    id: Option<u32>,
) -> GeometryProfile {
    GeometryProfile {
        profile: base.profile.clone().with(attribute),
        id,
        nvml_profile,
        max_instances,
        ..base.clone()
    }
}

fn placements(starts: &[u8], size: u8) -> Vec<Placement> {
    starts.iter().map(|&start| Placement { start, size }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    /// As `nvidia-smi mig -lgip` and `-lgipp` print it on an H100 80GB HBM3 (recorded, driver 580).
    #[test]
    fn the_h100_is_cut_as_recorded() {
        let geometry = geometry(catalog::find("H100 SXM5 80GB").unwrap()).unwrap();
        let line = |profile: &GeometryProfile| {
            let starts: Vec<String> = profile
                .placements
                .iter()
                .map(|place| place.start.to_string())
                .collect();
            format!(
                "{} {} x{} {} MiB {} SM {{{}}}:{}",
                profile.id.unwrap(),
                profile.profile,
                profile.max_instances,
                profile.memory_mib.unwrap(),
                profile.multiprocessors.unwrap(),
                starts.join(","),
                profile.placements[0].size,
            )
        };
        let lines: Vec<String> = geometry.profiles.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                "19 1g.10gb x7 9984 MiB 16 SM {0,1,2,3,4,5,6}:1",
                "20 1g.10gb+me x1 9984 MiB 16 SM {0,1,2,3,4,5,6}:1",
                "15 1g.20gb x4 20096 MiB 26 SM {0,2,4,6}:2",
                "14 2g.20gb x3 20096 MiB 32 SM {0,2,4}:2",
                "9 3g.40gb x2 40448 MiB 60 SM {0,4}:4",
                "5 4g.40gb x1 40448 MiB 64 SM {0}:4",
                "0 7g.80gb x1 81152 MiB 132 SM {0}:8",
            ]
        );
    }

    #[test]
    fn every_card_with_mig_has_a_geometry_but_the_two_whose_profiles_are_not_known() {
        let without: Vec<&str> = catalog::all()
            .iter()
            .filter(|card| card.mig_max_instances > 0 && geometry(card).is_none())
            .map(|card| card.name.as_str())
            .collect();
        assert_eq!(without, ["RTX PRO 5000 Blackwell 48GB", "RTX PRO 4500 Blackwell"]);
        assert!(
            catalog::all()
                .iter()
                .all(|card| card.mig_max_instances > 0 || geometry(card).is_none())
        );
    }

    #[test]
    fn no_placement_reaches_past_the_card() {
        for card in catalog::all() {
            let Some(geometry) = geometry(card) else { continue };
            assert!(
                geometry
                    .profiles
                    .iter()
                    .any(|profile| profile.max_instances == card.mig_max_instances)
            );
            for profile in &geometry.profiles {
                assert!(
                    u32::from(profile.profile.memory_gb) <= card.memory_gb,
                    "{} {}",
                    card.name,
                    profile.profile
                );
                assert!(
                    profile
                        .placements
                        .iter()
                        .all(|place| place.start + place.size <= geometry.memory_slices)
                );
            }
        }
    }
}
