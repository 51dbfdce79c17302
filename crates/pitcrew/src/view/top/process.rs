//! Processes as a table.

use pitcrew_core::gpu::ProcessKind;
use ratatui::text::Line;

use super::figure::{show, size, with};
use super::look::Pod;
use super::model::Process;
use super::row::{Row, width as cells};
use super::state::{Focus, State};

/// Where columns begin, or for numbers end.
struct Columns {
    pid_end: usize,
    name: usize,
    user: usize,
    kind: usize,
    gpu: usize,
    memory_end: usize,
    pod: usize,
}

impl Columns {
    fn new(width: usize) -> Self {
        // What is left belongs to the pod.
        let wide = width >= 120;
        let name = 11;
        let user = name + if wide { 28 } else { 14 };
        let kind = user + if wide { 16 } else { 9 };
        let gpu = kind + 9;
        let memory_end = gpu + 8 + 9;
        Self {
            pid_end: 9,
            name,
            user,
            kind,
            gpu,
            memory_end,
            pod: memory_end + 2,
        }
    }
}

/// The table in at most `height` lines (all of it without a limit); the selected process is among them.
pub(crate) fn table(
    state: &State,
    processes: &[Process],
    width: usize,
    height: Option<usize>,
) -> Vec<Line<'static>> {
    let paint = state.settings.paint;
    let mut lines = vec![heading(state, processes.len(), width)];
    let unread = unread(state, width);
    if processes.is_empty() {
        if unread.is_empty() {
            let mut row = Row::new();
            lines.push(row.to(4).push("no process holds a GPU", paint.dim()).line());
        }
        lines.extend(unread);
        return lines;
    }
    let room = height.map_or(processes.len(), |height| {
        height.saturating_sub(1 + unread.len()).max(1)
    });
    let columns = Columns::new(width);
    let selected = (state.focus == Focus::Processes && !state.settings.still)
        .then(|| state.process.min(processes.len() - 1));
    let first = window(selected.unwrap_or(0), processes.len(), room);
    let shown = processes.iter().enumerate().skip(first).take(room);
    lines.extend(shown.map(|(at, process)| line(state, process, &columns, selected == Some(at), width)));
    lines.extend(unread);
    lines
}

/// The first of `room` out of `count`, so that `selected` is in the middle where that can be.
pub(crate) fn window(selected: usize, count: usize, room: usize) -> usize {
    selected.saturating_sub(room / 2).min(count.saturating_sub(room))
}

fn heading(state: &State, count: usize, width: usize) -> Line<'static> {
    let paint = state.settings.paint;
    let columns = Columns::new(width);
    let mut row = Row::new();
    row.right("PID", columns.pid_end, paint.heading())
        .to(columns.name)
        .push("PROCESS", paint.heading())
        .to(columns.user)
        .push("USER", paint.heading())
        .to(columns.kind)
        .push("KIND", paint.heading())
        .to(columns.gpu)
        .push("GPU", paint.heading())
        .right("MEMORY", columns.memory_end, paint.heading())
        .to(columns.pod)
        .push("POD", paint.heading());
    let sum = format!("{count}, by {}", state.sort.word());
    if count > 0 && row.width() + 2 + cells(&sum) <= width {
        row.right(&sum, width, paint.dim());
    }
    row.line()
}

fn line(
    state: &State,
    process: &Process,
    columns: &Columns,
    is_selected: bool,
    width: usize,
) -> Line<'static> {
    let paint = state.settings.paint;
    let kind = match process.kind {
        ProcessKind::Compute => "compute",
        ProcessKind::Graphics => "graphics",
        ProcessKind::Mps => "MPS",
    };
    let name = show(&process.info.name);
    let place = match process.gpu_instance {
        Some(instance) => format!("{} gi {instance}", process.gpu),
        None => process.gpu.to_string(),
    };
    let mut row = Row::new();
    row.push(if is_selected { "▸" } else { " " }, paint.heading())
        .right(&process.pid.to_string(), columns.pid_end, paint.plain())
        .to(columns.name)
        .clipped(&name, columns.user - 1, paint.name())
        .to(columns.user)
        .clipped(&show(&process.info.user), columns.kind - 1, paint.plain())
        .to(columns.kind)
        .push(kind, paint.dim())
        .to(columns.gpu)
        .push(place, paint.plain())
        .right(
            &with(&process.memory, |bytes| size(*bytes)),
            columns.memory_end,
            paint.plain(),
        )
        .to(columns.pod);
    let pod = with(&process.info.pod, Pod::label);
    row.clipped(&pod, width, paint.plain()).line()
}

/// Which GPUs did not tell their processes.
fn unread(state: &State, width: usize) -> Vec<Line<'static>> {
    let gpus = state.model().gpus().iter();
    let failed: Vec<(String, &str)> = gpus
        .filter(|gpu| !super::model::is_lost(&gpu.readings))
        .filter_map(|gpu| Some((gpu.index.to_string(), gpu.readings.processes.failure()?)))
        .collect();
    let Some((_, reason)) = failed.first() else {
        return Vec::new();
    };
    let numbers: Vec<&str> = failed.iter().map(|(index, _)| index.as_str()).collect();
    let text = format!(
        "? the processes of GPU {} could not be read: {reason}",
        numbers.join(", ")
    );
    let mut row = Row::new();
    vec![
        row.to(4)
            .clipped(&text, width, state.settings.paint.warn())
            .line(),
    ]
}
