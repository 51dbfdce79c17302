//! The last minutes of a GPU as Braille curves.

use std::time::Duration;

use ratatui::style::Style;
use ratatui::text::Line;

use super::bar::curve;
use super::figure::{celsius, duration, percent, size, watts, with};
use super::gpu::View;
use super::history::{History, Kind};
use super::row::{Row, width as cells};

/// Blanks between two charts.
const GAP: usize = 2;
/// Looks that a chart shows at least, once there were as many: a narrow one shows means of several.
const LOOKS: usize = 240;

/// Four charts in `height` lines of `width` cells: side by side where they are wide enough, else in two rows.
pub(crate) fn charts(view: &View<'_>, interval: Duration, width: usize, height: usize) -> Vec<Line<'static>> {
    let kinds = [Kind::Busy, Kind::Memory, Kind::Power, Kind::Temperature];
    let columns = match (width, height) {
        (_, 0..6) => 4.min(width / 16).max(1),
        _ => 2,
    };
    let rows = kinds.len().div_ceil(columns);
    let (chart_width, chart_height) = ((width + GAP) / columns - GAP, height / rows);
    let mut lines = Vec::new();
    for kinds in kinds.chunks(columns) {
        let charts: Vec<Vec<Line<'static>>> = kinds
            .iter()
            .map(|&kind| chart(view, kind, interval, chart_width, chart_height))
            .collect();
        for at in 0..chart_height {
            let mut row = Row::new();
            for (column, chart) in charts.iter().enumerate() {
                row.to(column * (chart_width + GAP));
                if let Some(line) = chart.get(at) {
                    row.append(line.clone());
                }
            }
            lines.push(row.line());
        }
    }
    lines.truncate(height);
    lines
}

/// A line that says what it is, how much now, and how far back it goes; then the curve.
fn chart(view: &View<'_>, kind: Kind, interval: Duration, width: usize, height: usize) -> Vec<Line<'static>> {
    let readings = &view.gpu.readings;
    let (label, now, style): (&str, String, Style) = match kind {
        Kind::Busy => (
            "busy",
            percent(&readings.utilization_gpu_percent),
            view.paint.busy(),
        ),
        Kind::Memory => (
            "memory",
            with(&readings.memory_used_bytes, |bytes| size(*bytes)),
            view.paint.memory(),
        ),
        Kind::Power => (
            "power",
            with(&readings.power_mw, |milliwatts| {
                format!("{} W", watts(*milliwatts))
            }),
            view.paint.power(),
        ),
        Kind::Temperature => (
            "temperature",
            celsius(&readings.temperature_c),
            view.paint.temperature(),
        ),
    };
    let dots = width * 2;
    let remembered = view.history.map_or(0, History::len);
    let each = remembered.div_ceil(dots).clamp(1, LOOKS.div_ceil(dots));
    let parts = view
        .history
        .map_or(vec![None; dots], |history| history.pieces(kind, dots, each));
    let span = interval * u32::try_from(dots * each).unwrap_or(u32::MAX);

    let mut head = Row::new();
    head.clipped(label, width, view.paint.dim());
    if head.width() + 1 + cells(&now) <= width {
        head.push(format!(" {now}"), style);
    }
    let span = duration(span);
    if head.width() + 2 + cells(&span) <= width {
        head.right(&span, width, view.paint.dim());
    }
    let mut lines = vec![head.line()];
    lines.extend(
        curve(&parts, height.saturating_sub(1))
            .into_iter()
            .map(|text| Line::styled(text, style)),
    );
    lines
}
