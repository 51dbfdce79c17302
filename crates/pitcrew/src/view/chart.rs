//! The hardware chart.

use pitcrew_core::catalog::Card;

use super::table::{Column, render};

/// One line for each card.
pub(crate) fn text(cards: &[&Card], width: Option<usize>) -> String {
    if cards.is_empty() {
        return "no such cards\n".to_owned();
    }
    let cells = |cell: &dyn Fn(&Card) -> String| cards.iter().map(|card| cell(card)).collect::<Vec<_>>();
    let columns = vec![
        Column::new("NAME", cells(&|card| card.name.clone())),
        Column::new("ARCH", cells(&|card| card.architecture.to_string())).expendable(2),
        Column::new("CC", cells(&|card| card.compute_capability.to_string())).right(),
        Column::new("CLASS", cells(&|card| card.class.to_string())).expendable(3),
        Column::new("MEMORY", cells(&memory)).expendable(1),
        Column::new("GB/S", cells(&|card| figure(card.memory_bandwidth_gbs))).right(),
        Column::new("TFLOP/S", cells(&|card| expected(card.expected_tensor_tflops))).right(),
        Column::new("BASIS", cells(&|card| card.expected_tensor_basis.clone())).expendable(4),
        Column::new("TDP", cells(&|card| format!("{} W", card.tdp_w))).right(),
        Column::new("MIG", cells(&|card| instances(card.mig_max_instances))).right(),
        Column::new("PCI ID", cells(&|card| format!("{:04x}", card.pci_device_id))),
    ];
    let table = render(columns, width);
    format!("{table}\nTFLOP/S is what a healthy card's tensor cores reach, not the datasheet's figure\n")
}

pub(crate) fn memory(card: &Card) -> String {
    format!("{} GB {}", card.memory_gb, card.memory_type)
}

pub(crate) fn figure(value: f64) -> String {
    format!("{value}")
}

/// A figure, or a dash where nothing is expected.
pub(crate) fn expected(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), figure)
}

fn instances(count: u32) -> String {
    if count == 0 {
        "-".to_owned()
    } else {
        format!("x{count}")
    }
}
