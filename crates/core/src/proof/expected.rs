//! What a healthy GPU reaches: from the catalogue where the card is there, else from its SMs and their clock.
//!
//! Peaks are operations per clock and SM, two for each multiplication with its addition, sums in FP32 (S32 for INT8).
//! Source: fact sheet `prove`, section 5, and NVIDIA's white papers of each architecture.

use super::{Device, Format};
use crate::catalog::{Card, ComputeCapability};
use crate::mig;

/// What a figure should be, and what that rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// In the unit of the figure.
    pub value: f64,
    /// `measured`, `estimated` or `computed`, and how.
    pub basis: String,
    /// True where a healthy card of this kind was measured: only then can a figure by itself be a failure.
    pub is_measured: bool,
}

impl Expected {
    /// What somebody has measured and says so.
    pub(super) fn told(value: f64) -> Self {
        Self {
            value,
            basis: "measured, by the thresholds that were given".to_owned(),
            is_measured: true,
        }
    }

    fn from_catalogue(value: f64, basis: &str) -> Self {
        let is_measured = basis.starts_with("measured");
        let basis = if is_measured || basis.starts_with("estimated") {
            basis.to_owned()
        } else {
            format!("estimated: {basis}")
        };
        Self {
            value,
            basis,
            is_measured,
        }
    }

    /// Of a part of a card, which nobody has measured.
    fn of_part(self, factor: f64, how: &str) -> Self {
        let whole = self.basis.strip_prefix("estimated: ").unwrap_or(&self.basis);
        Self {
            value: self.value * factor,
            basis: format!("estimated {how}, of the whole: {whole}"),
            is_measured: false,
        }
    }

    pub(super) fn estimated(self, factor: f64, why: &str) -> Self {
        Self {
            value: self.value * factor,
            basis: format!("estimated from another format or kernel: {}; {why}", self.basis),
            is_measured: false,
        }
    }
}

/// Operations per clock and SM of a whole card, by what the hardware has: the best instruction for the format.
///
/// None for formats that the hardware has no instruction for, and where the rate isn't known.
pub fn peak_per_clock(device: &Device, format: Format) -> Option<f64> {
    let ComputeCapability { major, minor } = device.compute_capability?;
    let full_rate = match (major, minor) {
        (7 | 12, _) | (8, 6 | 9) => 1024.0,
        (8, 0) => 2048.0,
        (9, 0) => 4096.0,
        (10, _) => 8192.0,
        _ => 0.0,
    };
    let tensor = full_rate * held_back(device, full_rate);
    let plain = plain_per_clock(major, minor)?;
    let best = match format {
        Format::Fp16 => tensor,
        Format::Bf16 if major >= 8 => tensor,
        Format::Tf32 if major >= 8 => tensor / 2.0,
        Format::Bf16 | Format::Tf32 | Format::Fp32 => 0.0,
        // Sums in integers are not slowed down where those in FP32 are. 10.3 has given up most of INT8 and FP64.
        Format::Int8 if (major, minor) == (10, 3) => return None,
        Format::Int8 if major >= 8 || (major, minor) == (7, 5) => full_rate * 2.0,
        Format::Int8 if (major, minor) == (6, 1) => return Some(1024.0),
        Format::Fp8 if (major, minor) == (8, 9) || major >= 9 => tensor * 2.0,
        Format::Int8 | Format::Fp8 => return None,
        Format::Fp64 => {
            return match (major, minor) {
                (9, 0) => Some(256.0),
                (8 | 10, 0) => Some(128.0),
                (6 | 7, 0) => Some(64.0),
                (5 | 6, _) => Some(8.0),
                (7, 5) | (8, 6 | 9) | (12, _) => Some(4.0),
                _ => None,
            };
        }
    };
    Some(if best > 0.0 { best } else { plain })
}

/// FP32 without tensor cores: two operations for each core.
fn plain_per_clock(major: u32, minor: u32) -> Option<f64> {
    match (major, minor) {
        (5 | 9 | 10 | 12, _) | (6, 1..) | (8, 6 | 9) => Some(256.0),
        (6 | 8, 0) | (7, _) => Some(128.0),
        _ => None,
    }
}

/// The part of their architecture's rate that some cards are held to: `GeForce`, A10G and L40 a half where sums are FP32,
/// H20 a quarter. It follows from the datasheet's rate.
fn held_back(device: &Device, full_rate: f64) -> f64 {
    let of_datasheet = || {
        let card = device.card()?;
        let per_second = f64::from(card.sm_count) * f64::from(card.boost_mhz) * 1e6;
        Some(card.tensor_tflops? * 1e12 / per_second / full_rate)
    };
    match of_datasheet() {
        Some(part) if part < 0.37 => 0.25,
        Some(part) if part < 0.75 => 0.5,
        _ => 1.0,
    }
}

/// The part of [`peak_per_clock`] that these kernels reach on a healthy chip, in a loop from shared memory or in a large
/// product. Hopper's are measured, on one H100 SXM ([performance.md](../../../../docs/performance.md)); the others are
/// estimates, which can warn and not fail.
pub fn pipe_efficiency(device: &Device, format: Format, variant: &str, is_loop: bool) -> Option<Expected> {
    let ComputeCapability { major, .. } = device.compute_capability?;
    let of = |(of_loop, of_product): (f64, f64)| if is_loop { of_loop } else { of_product };
    if is_hopper(device)
        && let Some(measured) = of_hopper(format, variant)
    {
        return Some(Expected {
            value: of(measured),
            basis: format!("measured on an H100 SXM: {variant}"),
            is_measured: device.card().is_some_and(is_h100_sxm),
        });
    }
    let peak = peak_per_clock(device, format)?;
    let (parts, how) = match (variant, major) {
        ("simt", _) => {
            let part = plain_part(device, format, peak)?;
            (
                (part * 0.75, part * 0.62),
                "plain cores, as measured on an H100 SXM",
            )
        }
        ("m8n8k4", 7) => ((0.85, 0.65), "m8n8k4"),
        ("m16n8k8", 7) => ((0.90, 0.80), "m16n8k8"),
        ("m16n8k8", 10) => ((0.20, 0.15), "m16n8k8 on Blackwell"),
        ("m16n8k8", _) => ((0.80, 0.60), "m16n8k8 on a newer card"),
        // It is the only one for that.
        ("m16n8k16", 10) if format == Format::Fp64 => ((0.85, 0.60), "m8n8k4 of FP64"),
        ("m16n8k16", 10) => ((0.30, 0.25), "m16n8k16 on Blackwell"),
        ("m16n8k16", _) => ((0.93, 0.80), "m16n8k16"),
        ("fp8", 8 | 12) => ((0.90, 0.75), "FP8 by mma"),
        ("tcgen05", 10) => ((0.85, 0.60), "tcgen05"),
        _ => return None,
    };
    Some(Expected {
        value: of(parts),
        basis: format!("estimated: {how}"),
        is_measured: false,
    })
}

/// What was measured on an H100 SXM of 700 W, loop and product: at the limit of power and not of the instruction, so the
/// parts are lower the more an instruction draws.
fn of_hopper(format: Format, variant: &str) -> Option<(f64, f64)> {
    Some(match (variant, format) {
        ("wgmma", Format::Bf16 | Format::Fp16) => (0.81, 0.79),
        ("wgmma", Format::Tf32) => (0.90, 0.88),
        ("wgmma", Format::Fp8) => (0.69, 0.78),
        ("wgmma", Format::Int8) => (0.70, 0.74),
        ("m16n8k16", Format::Bf16 | Format::Fp16) => (0.56, 0.45),
        ("m16n8k16", Format::Tf32) => (0.60, 0.46),
        ("m16n8k16", Format::Int8) => (0.51, 0.42),
        ("m16n8k16", Format::Fp64) => (0.95, 0.82),
        ("m16n8k8", Format::Fp16) => (0.36, 0.29),
        ("m16n8k8", Format::Int8) => (0.21, 0.20),
        ("simt", Format::Fp32) => (0.75, 0.62),
        _ => return None,
    })
}

/// The part of the best instruction's peak that plain cores have; none where they can't do the format.
fn plain_part(device: &Device, format: Format, peak: f64) -> Option<f64> {
    let ComputeCapability { major, minor } = device.compute_capability?;
    match format {
        Format::Bf16 | Format::Fp16 | Format::Tf32 | Format::Fp32 => {
            Some(plain_per_clock(major, minor)? / peak)
        }
        // Tensor cores double FP64 there.
        Format::Fp64 if matches!((major, minor), (8 | 9, 0)) => Some(0.5),
        Format::Fp64 => Some(1.0),
        Format::Int8 => Some((512.0 / peak).min(1.0)),
        Format::Fp8 => None,
    }
}

/// TFLOP/s of large products.
pub fn product(device: &Device, format: Format, variant: &str) -> Option<Expected> {
    of_sms(device, product_of_card(device.card()?, device, format, variant)?)
}

/// What a MIG device reaches of its card's products; all of it for a whole GPU.
pub(super) fn of_sms(device: &Device, whole: Expected) -> Option<Expected> {
    if device.mig.is_none() {
        return Some(whole);
    }
    let all = f64::from(device.card()?.sm_count);
    Some(match device.sm_count.map(f64::from) {
        // Part of a GPU's SMs: a little is lost at the borders (fact sheet `prove`, section 5).
        Some(sms) if sms < all => whole.of_part(sms / all * 0.97, "by the SMs of the MIG device"),
        _ => whole,
    })
}

/// What a MIG device reaches of its card's memory; all of it for a whole GPU.
pub(super) fn of_slices(device: &Device, whole: Expected) -> Expected {
    let Some(slice) = &device.mig else { return whole };
    let geometry = device.card().and_then(mig::geometry);
    let slices = geometry.map_or(8, |geometry| geometry.memory_slices);
    let part = f64::from(slice.memory_slices) / f64::from(slices);
    whole.of_part(part.min(1.0), "by the memory slices of the MIG device")
}

fn product_of_card(card: &Card, device: &Device, format: Format, variant: &str) -> Option<Expected> {
    let of_catalogue = match card.tensor_dtype.as_str() {
        "bf16" => Some(Format::Bf16),
        "fp16" => Some(Format::Fp16),
        _ => None,
    };
    let catalogued = || {
        let basis = &card.expected_tensor_basis;
        Some(Expected::from_catalogue(card.expected_tensor_tflops?, basis))
    };
    let is_same =
        Some(format) == of_catalogue || (format, of_catalogue) == (Format::Fp16, Some(Format::Bf16));
    if is_same && is_best(device, format, variant) {
        return catalogued();
    }
    if is_hopper(device)
        && let Some(measured) = product_of_hopper(format, variant)
    {
        if is_h100_sxm(card) {
            return Some(Expected {
                value: measured,
                basis: format!("measured on an H100 SXM: {format} by {variant}"),
                is_measured: true,
            });
        }
        let part = measured / HOPPER_BF16;
        return Some(catalogued()?.estimated(part, &format!("{format} by {variant}, as on an H100 SXM")));
    }
    if format == Format::Fp32 {
        let basis = "estimated: 0.62 of the datasheet's FP32, as on an H100 SXM";
        return Some(Expected::from_catalogue(card.fp32_tflops? * 0.62, basis));
    }
    let same_rate = peak_per_clock(device, format)? / peak_per_clock(device, of_catalogue?)?;
    let why = format!("{format} by {variant}");
    Some(catalogued()?.estimated(same_rate * part_of_best(device, format, variant)?, &why))
}

/// What a variant reaches of what the best one for the format does: 1 for that one itself. None where it can't be told.
pub(super) fn part_of_best(device: &Device, format: Format, variant: &str) -> Option<f64> {
    if is_best(device, format, variant) {
        return Some(1.0);
    }
    let best = best_variant(device)?;
    let reach = |variant: &str| pipe_efficiency(device, format, variant, false);
    Some(reach(variant)?.value / reach(best)?.value)
}

/// Whether figures that are told of a format go with this variant.
pub(super) fn is_best(device: &Device, format: Format, variant: &str) -> bool {
    let best = best_variant(device);
    match format {
        Format::Fp8 => best == Some(variant) || variant == "fp8",
        // No tensor cores multiply those, or they do in one way alone.
        Format::Fp32 => variant == "simt",
        Format::Fp64 if best == Some("wgmma") => variant == "m16n8k16",
        _ => best == Some(variant),
    }
}

fn is_hopper(device: &Device) -> bool {
    device.compute_capability == Some(ComputeCapability { major: 9, minor: 0 })
}

/// The card that Hopper's figures were measured on.
fn is_h100_sxm(card: &Card) -> bool {
    card.name.starts_with("H100 SXM")
}

/// What the catalogue has for products in BF16 of an H100 SXM.
const HOPPER_BF16: f64 = 785.0;

/// Products of 8192 x 8192 x 8192 with these kernels on an H100 SXM of 700 W, in TFLOP/s: medians of whole proofs, and of the
/// kernels alone for what no proof runs ([performance.md](../../../../docs/performance.md)).
fn product_of_hopper(format: Format, variant: &str) -> Option<f64> {
    Some(match (variant, format) {
        ("wgmma", Format::Tf32) => 408.0,
        ("wgmma", Format::Fp8) => 1_435.0,
        ("wgmma", Format::Int8) => 1_359.0,
        ("m16n8k16", Format::Bf16 | Format::Fp16) => 440.0,
        ("m16n8k16", Format::Tf32) => 227.0,
        ("m16n8k16", Format::Int8) => 837.0,
        ("m16n8k16", Format::Fp64) => 54.8,
        ("m16n8k8", Format::Fp16) => 293.0,
        ("simt", Format::Fp32) => 41.6,
        _ => return None,
    })
}

/// The variant that the catalogue's figures go with.
pub fn best_variant(device: &Device) -> Option<&'static str> {
    let ComputeCapability { major, minor } = device.compute_capability?;
    Some(match (major, minor) {
        (7, 0 | 2) => "m8n8k4",
        (7, _) => "m16n8k8",
        (8 | 11 | 12, _) => "m16n8k16",
        (9, _) => "wgmma",
        (10, _) => "tcgen05",
        _ => "simt",
    })
}

/// GB/s of memory in a copy or triad.
pub fn memory(device: &Device) -> Option<Expected> {
    let card = device.card()?;
    let whole = Expected::from_catalogue(card.expected_memory_gbs?, &card.expected_memory_basis);
    Some(of_slices(device, whole))
}

/// GB/s of copies between pinned host memory and the GPU, one way, over the widest link that GPU and slot have together.
/// None where the CPU isn't behind PCIe.
pub fn host(device: &Device) -> Option<Expected> {
    let card = device.card();
    if card.is_some_and(|card| card.expected_pcie_gbs.is_none()) {
        return None;
    }
    let generation = device.pcie_generation_max.or(card.map(|card| card.pcie_gen))?;
    let width = device.pcie_width_max.or(card.map(|card| card.pcie_width))?;
    // Sixteen lanes, as measured by nvbandwidth (fact sheet `prove`, section 5).
    let of_sixteen = match generation {
        1 => 3.0,
        2 => 6.0,
        3 => 12.3,
        4 => 25.5,
        5 => 54.0,
        _ => return None,
    };
    Some(Expected {
        value: of_sixteen * f64::from(width) / 16.0,
        basis: format!("measured: PCIe {generation}.0 x{width}, pinned memory"),
        is_measured: true,
    })
}

/// GB/s from one GPU to another over NVLink, one way.
pub fn nvlink(device: &Device) -> Option<Expected> {
    let total = device.card()?.nvlink_gbs;
    (total > 0).then(|| Expected {
        value: f64::from(total) / 2.0 * 0.83,
        basis: "estimated: 0.83 of the links' rate".to_owned(),
        is_measured: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::proof::MigSlice;

    fn of(card: &Card) -> Device {
        Device {
            name: format!("NVIDIA {}", card.name),
            pci_device_id: Some(card.pci_device_id),
            compute_capability: Some(card.compute_capability),
            sm_count: Some(card.sm_count),
            clock_sm_max_mhz: Some(card.boost_mhz),
            ..Device::default()
        }
    }

    fn card(query: &str) -> &'static Card {
        catalog::find(query).unwrap()
    }

    #[test]
    fn peaks_times_sms_times_clock_are_the_datasheets_rates() {
        let mut compared = 0;
        for card in catalog::all() {
            let device = of(card);
            if device.card().is_none_or(|found| found.name != card.name) {
                continue;
            }
            let at_boost = f64::from(card.sm_count) * f64::from(card.boost_mhz) * 1e6 / 1e12;
            let mut compare = |format, datasheet: Option<f64>, tolerance: f64| {
                let Some(datasheet) = datasheet else { return };
                let peak = peak_per_clock(&device, format).unwrap() * at_boost;
                let off = (peak / datasheet - 1.0).abs();
                assert!(
                    off < tolerance,
                    "{} {format}: {peak:.1} of {datasheet}",
                    card.name
                );
                compared += 1;
            };
            compare(Format::Fp32, card.fp32_tflops, 0.12);
            match &*card.tensor_dtype {
                // Some are stated at a lower clock than the boost that goes with their FP32.
                "bf16" => compare(Format::Bf16, card.tensor_tflops, 0.17),
                "fp16" => compare(Format::Fp16, card.tensor_tflops, 0.17),
                _ => {}
            }
            compare(Format::Fp8, card.fp8_tflops, 0.17);
        }
        assert!(compared > 150, "{compared}");
    }

    #[test]
    fn an_h100_is_held_against_what_was_measured() {
        let device = of(card("H100 SXM5"));
        let expected = product(&device, Format::Bf16, "wgmma").unwrap();
        assert!(expected.is_measured);
        assert!((expected.value - 785.0).abs() < 1e-9);
        let older = product(&device, Format::Bf16, "m16n8k16").unwrap();
        assert!((older.value - 440.0).abs() < 1e-9, "{older:?}");
        assert!(memory(&device).unwrap().is_measured);
    }

    #[test]
    fn every_format_of_an_h100_was_measured_and_an_h200_is_estimated_by_it() {
        let (h100, h200) = (of(card("H100 SXM5")), of(card("H200 SXM")));
        for (format, variant) in [
            (Format::Bf16, "wgmma"),
            (Format::Fp16, "wgmma"),
            (Format::Tf32, "wgmma"),
            (Format::Fp8, "wgmma"),
            (Format::Int8, "wgmma"),
            (Format::Fp64, "m16n8k16"),
            (Format::Fp32, "simt"),
            (Format::Bf16, "m16n8k16"),
            (Format::Int8, "m16n8k16"),
            (Format::Fp16, "m16n8k8"),
        ] {
            let expected = product(&h100, format, variant).unwrap();
            assert!(expected.is_measured, "{format} {variant}: {expected:?}");
            assert!(expected.basis.starts_with("measured"), "{expected:?}");
            // No more than the SMs could do at their highest clock, and no less than a tenth of it.
            let peak = peak_per_clock(&h100, format).unwrap() * 132.0 * 1_980e6 / 1e12;
            assert!(
                expected.value < peak && expected.value > peak / 10.0,
                "{format}: {}",
                expected.value
            );
            let other = product(&h200, format, variant).unwrap();
            let is_catalogued = variant == "wgmma" && matches!(format, Format::Bf16 | Format::Fp16);
            assert_eq!(other.is_measured, is_catalogued, "{format}: {other:?}");
            assert!((0.8..1.25).contains(&(other.value / expected.value)), "{other:?}");
        }
    }

    /// Profiles of an H100 as its driver tells them: SMs and memory slices.
    #[test]
    fn a_mig_device_is_held_against_its_part_of_sms_and_memory() {
        let mut device = of(card("H100 SXM5"));
        for (profile, sms, slices) in [
            ("1g.10gb", 16, 1),
            ("1g.20gb", 26, 2),
            ("2g.20gb", 32, 2),
            ("3g.40gb", 60, 4),
            ("4g.40gb", 64, 4),
            ("7g.80gb", 132, 8),
        ] {
            device.sm_count = Some(sms);
            device.mig = Some(MigSlice {
                profile: profile.to_owned(),
                memory_slices: slices,
            });
            let part = if sms == 132 {
                1.0
            } else {
                f64::from(sms) / 132.0 * 0.97
            };
            for (format, variant, whole) in [
                (Format::Bf16, "wgmma", 785.0),
                (Format::Fp8, "wgmma", 1_435.0),
                (Format::Fp64, "m16n8k16", 54.8),
            ] {
                let product = product(&device, format, variant).unwrap();
                assert!(
                    (product.value - whole * part).abs() < 1e-6,
                    "{profile} {format}: {product:?}"
                );
                assert_eq!(product.is_measured, sms == 132, "{profile} {format}");
            }
            let memory = memory(&device).unwrap();
            assert!(
                (memory.value - 3017.0 * f64::from(slices) / 8.0).abs() < 1e-6,
                "{profile}: {memory:?}"
            );
            assert!(memory.basis.contains("by the memory slices"), "{memory:?}");
        }
        device.sm_count = Some(60);
        let basis = product(&device, Format::Bf16, "wgmma").unwrap().basis;
        assert!(
            basis.starts_with("estimated by the SMs of the MIG device, of the whole: measured"),
            "{basis}"
        );
    }

    #[test]
    fn every_profile_of_every_card_has_no_more_than_its_card() {
        let mut compared = 0;
        for card in catalog::all() {
            let Some(geometry) = mig::geometry(card) else {
                continue;
            };
            let whole = of(card);
            for profile in &geometry.profiles {
                let Some(sms) = profile.multiprocessors else {
                    continue;
                };
                let size = profile.placements[0].size;
                let part = Device {
                    sm_count: Some(sms),
                    mig: Some(MigSlice {
                        profile: profile.profile.to_string(),
                        memory_slices: size.into(),
                    }),
                    ..of(card)
                };
                let (Some(of_part), Some(of_card)) = (memory(&part), memory(&whole)) else {
                    continue;
                };
                assert!(
                    of_part.value <= of_card.value,
                    "{} {}",
                    card.name,
                    profile.profile
                );
                let is_whole = u32::from(size) == u32::from(geometry.memory_slices);
                assert_eq!((of_part.value - of_card.value).abs() < 1e-9, is_whole);
                compared += 1;
            }
        }
        assert!(compared > 40, "{compared}");
    }

    #[test]
    fn a_card_in_an_older_slot_is_held_against_the_slot() {
        let mut device = of(card("H100 SXM5"));
        assert!((host(&device).unwrap().value - 54.0).abs() < 1e-9);
        device.pcie_generation_max = Some(4);
        device.pcie_width_max = Some(8);
        assert!((host(&device).unwrap().value - 12.75).abs() < 1e-9);
        assert_eq!(host(&of(card("GH200 96GB"))), None);
    }

    #[test]
    fn a_card_that_is_not_in_the_catalogue_has_peaks_and_no_figures() {
        let device = Device {
            name: "NVIDIA Something New".to_owned(),
            compute_capability: Some(ComputeCapability { major: 9, minor: 0 }),
            ..Device::default()
        };
        assert_eq!(peak_per_clock(&device, Format::Bf16), Some(4096.0));
        assert!(pipe_efficiency(&device, Format::Bf16, "wgmma", true).is_some());
        assert!(pipe_efficiency(&device, Format::Fp8, "wgmma", true).is_some());
        assert_eq!(pipe_efficiency(&device, Format::Fp8, "simt", true), None);
        assert_eq!(product(&device, Format::Bf16, "wgmma"), None);
        assert_eq!(memory(&device), None);
    }
}
