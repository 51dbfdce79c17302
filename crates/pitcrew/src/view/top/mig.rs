//! MIG devices as a tree under their GPU.

use pitcrew_core::Gpu;
use pitcrew_core::Reading;
use pitcrew_core::gpu::MigDevice;
use ratatui::text::Line;

use super::bar::bar;
use super::figure::{gib, with};
use super::history::share;
use super::paint::Paint;
use super::row::Row;

/// Column where the tree begins: under the name of the GPU.
const INDENT: usize = 4;

/// One line for each MIG device; one that says so where MIG is on and there is none, or they can't be listed.
pub(crate) fn tree(gpu: &Gpu, paint: Paint, width: usize) -> Vec<Line<'static>> {
    let is_on = gpu.readings.mig_mode.value().is_some_and(|mode| mode.current);
    let remark = |text: &str| {
        let mut row = Row::new();
        row.to(INDENT).clipped(text, width, paint.dim());
        vec![row.line()]
    };
    match &gpu.readings.mig_devices {
        Reading::Value(devices) if !devices.is_empty() => {
            let last = devices.len() - 1;
            let lines = devices.iter().enumerate();
            lines
                .map(|(at, device)| branch(device, at == last, paint, width))
                .collect()
        }
        Reading::Value(_) if is_on => remark("└ MIG is on, and no device was created"),
        Reading::Failed(reason) if is_on => {
            remark(&format!("└ MIG is on; its devices could not be read: {reason}"))
        }
        Reading::Value(_) | Reading::Failed(_) | Reading::NotSupported => Vec::new(),
    }
}

fn branch(device: &MigDevice, is_last: bool, paint: Paint, width: usize) -> Line<'static> {
    let held = &device.memory_used_bytes;
    let total = &device.memory_total_bytes;
    let part = match (held, total) {
        (Reading::Value(held), Reading::Value(total)) => share(*held, *total),
        _ => None,
    };
    let (filled, rest) = bar(part, 10);
    let mut row = Row::new();
    row.to(INDENT)
        .push(if is_last { "└ " } else { "├ " }, paint.dim())
        .push(device.profile.to_string(), paint.name())
        .to(22)
        .push(
            format!("gi {} ci {}", device.gpu_instance, device.compute_instance),
            paint.dim(),
        )
        .to(34)
        .push(filled, paint.memory())
        .push(rest, paint.dim());
    let memory = format!(
        "{}/{} GiB",
        with(held, |bytes| gib(*bytes)),
        with(total, |bytes| gib(*bytes))
    );
    row.right(&memory, 59, paint.plain());
    let units = with(&device.multiprocessors, ToString::to_string);
    row.right(&format!("{units} SMs"), 68, paint.dim());
    // As much of the UUID as tells devices apart, or all of it.
    let room = width.saturating_sub(70);
    if room >= 12 {
        row.to(70).clipped(&device.uuid, width, paint.dim());
    }
    row.line()
}
