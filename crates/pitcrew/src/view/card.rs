//! One card in full.

use std::fmt::Write as _;

use pitcrew_core::catalog::{Card, Isolation};
use pitcrew_core::mig::{self, Geometry};
use serde::Serialize;

use super::chart::{expected, figure, memory};
use super::slices;

/// One card as a document: the chart's line, and what follows from it.
#[derive(Serialize)]
pub(crate) struct Document<'a> {
    #[serde(flatten)]
    card: &'a Card,
    #[serde(skip_serializing_if = "Option::is_none")]
    mig: Option<Geometry>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(card: &'a Card) -> Self {
        Self {
            card,
            mig: mig::geometry(card),
        }
    }
}

/// Figures, MIG, drivers and sharing.
pub(crate) fn text(card: &Card) -> String {
    let mut text = format!("{}\n\n", card.name);
    let basis = |value: String, basis: &str| {
        if basis.is_empty() {
            value
        } else {
            format!("{value}  ({basis})")
        }
    };
    for (label, value) in [
        (
            "architecture",
            format!(
                "{}, compute capability {}",
                card.architecture, card.compute_capability
            ),
        ),
        ("class", card.class.to_string()),
        ("PCI id", format!("10de:{:04x}", card.pci_device_id)),
        ("memory", memory(card)),
        ("bandwidth", format!("{} GB/s", figure(card.memory_bandwidth_gbs))),
        (
            "  expected",
            basis(
                format!("{} GB/s", expected(card.expected_memory_gbs)),
                &card.expected_memory_basis,
            ),
        ),
        (
            "tensor",
            format!("{} TFLOP/s {}", expected(card.tensor_tflops), card.tensor_dtype),
        ),
        (
            "  expected",
            basis(
                format!("{} TFLOP/s", expected(card.expected_tensor_tflops)),
                &card.expected_tensor_basis,
            ),
        ),
        ("power", format!("{} W", card.tdp_w)),
        ("driver", card.driver_support().to_string()),
    ] {
        let _ = writeln!(text, "{label:<14}{value}");
    }
    text += "\nSharing, and what keeps one user from another:\n";
    for Isolation { way, isolates, .. } in card.sharing() {
        let _ = writeln!(text, "  {way:<14}{isolates}");
    }
    match mig::geometry(card) {
        Some(geometry) => text += &picture(&geometry),
        None => text += "\nMIG: this card can't be cut up\n",
    }
    text
}

fn picture(geometry: &Geometry) -> String {
    let slices = usize::from(geometry.memory_slices);
    let names = geometry
        .profiles
        .iter()
        .map(|profile| profile.profile.to_string())
        .collect::<Vec<_>>();
    let width = names
        .iter()
        .map(String::len)
        .chain(["memory slice".len()])
        .max()
        .unwrap_or_default()
        + 6;
    let pad = width - 4;
    let mut text = format!(
        "\nMIG profiles, and the places that each can take:\n  {:<width$}{}\n",
        "memory slice",
        slices::ruler(slices)
    );
    for (profile, name) in geometry.profiles.iter().zip(names) {
        let places: Vec<(usize, usize)> = profile
            .placements
            .iter()
            .map(|place| (usize::from(place.start), usize::from(place.size)))
            .collect();
        let mut label = format!("{name:<pad$}x{}", places.len());
        for bar in slices::bars(slices, &places) {
            let _ = writeln!(text, "  {label:<width$}{bar}");
            label.clear();
        }
    }
    text
}
