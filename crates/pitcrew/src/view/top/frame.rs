//! The whole frame: header, what is wrong, GPUs, processes, keys.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

use super::card;
use super::figure::{duration, with};
use super::gpu::{self, View};
use super::process::{table, window};
use super::row::{Row, clip, width as cells, wrap};
use super::state::{Screen, State};
use super::{details, help};

/// Width of a frame that goes nowhere in particular.
const USUAL: usize = 80;
/// From this width on, cards stand side by side.
const TWO_CARDS: usize = 160;
/// Lines that processes get at least: heading and three of them.
const PROCESSES: usize = 4;

/// Draws the state.
pub(crate) fn render(state: &State, frame: &mut Frame<'_>) {
    let area = frame.area();
    let lines = screen(state, usize::from(area.width), usize::from(area.height));
    write(&lines, area, frame.buffer_mut());
}

/// One frame as text, as high as it needs to be, with colours as escape sequences.
pub(crate) fn print(state: &State, width: Option<usize>) -> String {
    let width = width.unwrap_or(USUAL);
    let mut lines = header(state, width);
    lines.push(Line::default());
    let (gpus, _) = overview(state, width, None);
    lines.extend(gpus);
    if !state.model().gpus().is_empty() {
        lines.push(Line::default());
        lines.extend(table(state, &state.processes(), width, None));
    }
    let area = Rect::new(
        0,
        0,
        u16::try_from(width).unwrap_or(u16::MAX),
        u16::try_from(lines.len()).unwrap_or(u16::MAX),
    );
    let mut buffer = Buffer::empty(area);
    write(&lines, area, &mut buffer);
    text(&buffer)
}

fn write(lines: &[Line<'static>], area: Rect, buffer: &mut Buffer) {
    for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
        buffer.set_line(area.left(), y, line, area.width);
    }
}

/// All lines of a screen of this size, exactly `height` of them where anything is below.
pub(super) fn screen(state: &State, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = header(state, width);
    let used = lines.len();
    let body = height.saturating_sub(used + 1);
    let middle = if state.help {
        help::lines(state)
    } else if state.screen == Screen::Details {
        let all = details::lines(state, width, body);
        let first = state.scroll.min(all.len().saturating_sub(body));
        all.into_iter().skip(first).collect()
    } else {
        body_of(state, width, body)
    };
    lines.extend(middle.into_iter().take(body));
    lines.resize(used + body, Line::default());
    lines.push(footer(state, width));
    lines
}

/// GPUs and processes in exactly this much room.
fn body_of(state: &State, width: usize, height: usize) -> Vec<Line<'static>> {
    if state.model().gpus().is_empty() {
        return nothing(state, width);
    }
    let processes = state.processes();
    let (mut lines, selected) = overview(state, width, Some(height));
    let room = height.saturating_sub(PROCESSES.min(processes.len() + 2) + 1);
    if lines.len() > room {
        // The heading of one-line GPUs scrolls with them: the columns explain themselves.
        let middle = usize::midpoint(selected.start, selected.end);
        let first = window(middle, lines.len(), room).min(selected.start);
        lines = lines.into_iter().skip(first).take(room).collect();
    }
    // Air where there is room for it and for every process.
    if lines.len() + processes.len().max(1) + 3 <= height {
        lines.insert(0, Line::default());
    }
    lines.push(Line::default());
    let room = height.saturating_sub(lines.len());
    lines.extend(table(state, &processes, width, Some(room)));
    lines
}

/// Where there is no GPU to show.
fn nothing(state: &State, width: usize) -> Vec<Line<'static>> {
    let paint = state.settings.paint;
    let text = match (&state.model().inventory, &state.model().trouble) {
        (Some(_), _) => "the driver lists no GPU",
        (None, Some(_)) => "no GPU could be read yet",
        (None, None) => "asking the driver ...",
    };
    let mut lines = vec![Line::default(), Line::styled(format!("  {text}"), paint.name())];
    if state.model().inventory.is_some() || state.model().trouble.is_some() {
        for hint in &state.settings.hints {
            for words in wrap(&format!("hint: {hint}"), width.saturating_sub(4)) {
                lines.push(Line::styled(format!("  {words}"), paint.dim()));
            }
        }
    }
    lines
}

/// The GPUs in the richest form that fits, and the lines of the selected one.
fn overview(
    state: &State,
    width: usize,
    height: Option<usize>,
) -> (Vec<Line<'static>>, std::ops::Range<usize>) {
    let views: Vec<View<'_>> = state
        .model()
        .gpus()
        .iter()
        .enumerate()
        .map(|(at, gpu)| View::new(state, at, gpu))
        .collect();
    if views.is_empty() {
        return (nothing(state, width), 0..0);
    }
    let count = state.processes().len();
    let room = height.map(|height| height.saturating_sub(PROCESSES.min(count + 2) + 1));
    if let Some(room) = room
        && let Some(fit) = cards(state, &views, width, room, count)
    {
        return fit;
    }
    let two = |blank: bool| {
        let blocks = views.iter().map(|view| {
            let mut block = view.two_lines(width);
            block.extend(view.below(width));
            if blank {
                block.push(Line::default());
            }
            block
        });
        stack(blocks.collect(), state.selected())
    };
    let fits = |lines: &[Line<'_>]| room.is_none_or(|room| lines.len() <= room);
    let (mut lines, selected) = two(true);
    lines.pop();
    if fits(&lines) {
        return (lines, selected);
    }
    let (lines, selected) = two(false);
    if fits(&lines) {
        return (lines, selected);
    }
    let blocks = views.iter().map(|view| {
        let mut block = vec![view.one_line(width)];
        block.extend(view.below(width));
        block
    });
    let (mut lines, selected) = stack(blocks.collect(), state.selected());
    lines.insert(0, gpu::heading(width, state.settings.still, state.settings.paint));
    (lines, selected.start + 1..selected.end + 1)
}

/// Blocks one below the other, and where the selected one is.
fn stack(blocks: Vec<Vec<Line<'static>>>, selected: usize) -> (Vec<Line<'static>>, std::ops::Range<usize>) {
    let mut lines = Vec::new();
    let mut range = 0..0;
    for (at, block) in blocks.into_iter().enumerate() {
        if at == selected {
            range = lines.len()..lines.len() + block.len();
        }
        lines.extend(block);
    }
    (lines, range)
}

/// Cards, where all of them fit in `room` lines; the lines that are left make their charts higher.
fn cards(
    state: &State,
    views: &[View<'_>],
    width: usize,
    room: usize,
    processes: usize,
) -> Option<(Vec<Line<'static>>, std::ops::Range<usize>)> {
    let across = if width >= TWO_CARDS && views.len() > 1 {
        2
    } else {
        1
    };
    let gap = 3;
    let card_width = (width + gap) / across - gap;
    let below: Vec<Vec<Line<'static>>> = views.iter().map(|view| view.below(card_width)).collect();
    let extra = |row: &[Vec<Line<'static>>]| row.iter().map(Vec::len).max().unwrap_or_default();
    let rows = views.len().div_ceil(across);
    let fixed: usize = below.chunks(across).map(extra).sum::<usize>() + rows - 1;
    if fixed + rows * card::LEAST > room {
        return None;
    }
    // Processes are shown in full before charts grow; charts beyond a third of the screen say nothing more.
    let wanted = room.saturating_sub(processes.saturating_sub(PROCESSES - 2) + 1);
    let most = if rows == 1 { 24 } else { 18 };
    let height = (wanted.saturating_sub(fixed) / rows).clamp(card::LEAST, most);
    let mut lines = Vec::new();
    let mut selected = 0..0;
    for (number, (row, below)) in views.chunks(across).zip(below.chunks(across)).enumerate() {
        if number > 0 {
            lines.push(Line::default());
        }
        let start = lines.len();
        let blocks: Vec<Vec<Line<'static>>> = row
            .iter()
            .zip(below)
            .map(|(view, below)| {
                let mut block = card::card(view, state.settings.interval, card_width, height);
                block.extend(below.iter().cloned());
                block
            })
            .collect();
        for at in 0..height + extra(below) {
            let mut line = Row::new();
            for (column, block) in blocks.iter().enumerate() {
                line.to(column * (card_width + gap));
                if let Some(part) = block.get(at) {
                    line.append(part.clone());
                }
            }
            lines.push(line.line());
        }
        if row.iter().any(|view| view.is_selected) {
            selected = start..lines.len();
        }
    }
    Some((lines, selected))
}

/// What this is, which driver, and what is wrong with the machine as a whole.
fn header(state: &State, width: usize) -> Vec<Line<'static>> {
    let paint = state.settings.paint;
    let mut row = Row::new();
    row.push(" pitcrew top", paint.heading());
    if !state.settings.source.is_empty() {
        row.push("  ", paint.plain())
            .clipped(&state.settings.source, width, paint.warn());
    }
    if let Some(paused) = state.paused() {
        row.push("  ", paint.plain()).push(
            format!(" paused for {} ", duration(paused)),
            Style::new().add_modifier(Modifier::REVERSED),
        );
    }
    if let Some(inventory) = &state.model().inventory {
        let driver = &inventory.driver;
        let mut facts = vec![format!("driver {}", with(&driver.version, Clone::clone))];
        facts.push(format!("CUDA {}", with(&driver.cuda, ToString::to_string)));
        if let Some(&open) = driver.open_kernel_modules.value() {
            facts.push(
                if open {
                    "open modules"
                } else {
                    "proprietary modules"
                }
                .to_owned(),
            );
        }
        facts.push(match inventory.gpus.len() {
            1 => "1 GPU".to_owned(),
            count => format!("{count} GPUs"),
        });
        // The driver's version stays longest.
        while facts.len() > 1 && row.width() + 2 + cells(&facts.join("  ")) > width.saturating_sub(1) {
            facts.remove(if facts.len() == 4 { 2 } else { facts.len() - 1 });
        }
        let facts = facts.join("  ");
        if row.width() + 2 + cells(&facts) < width {
            row.right(&facts, width.saturating_sub(1), paint.dim());
        }
    }
    let mut lines = vec![row.line()];
    for notice in state.notices() {
        let style = if notice.is_bad { paint.bad() } else { paint.warn() };
        for (at, words) in wrap(&notice.text, width.saturating_sub(4))
            .into_iter()
            .take(3)
            .enumerate()
        {
            let mark = if at == 0 { " ! " } else { "   " };
            lines.push(Line::styled(format!("{mark}{words}"), style));
        }
    }
    lines
}

/// The keys that matter here.
fn footer(state: &State, width: usize) -> Line<'static> {
    let paint = state.settings.paint;
    let keys: &[(&str, String)] = &match (state.help, state.screen) {
        (true, _) => vec![("any key", "back".to_owned()), ("q", "quit".to_owned())],
        (false, Screen::Details) => vec![
            ("q", "quit".to_owned()),
            ("Esc", "back".to_owned()),
            ("↑↓", "other GPU".to_owned()),
            ("PgDn", "scroll".to_owned()),
            ("p", "pause".to_owned()),
            ("?", "help".to_owned()),
        ],
        (false, Screen::Overview) => vec![
            ("q", "quit".to_owned()),
            ("↑↓", "select".to_owned()),
            ("Enter", "details".to_owned()),
            ("Tab", "processes".to_owned()),
            ("s", "sort".to_owned()),
            (
                "p",
                if state.paused().is_some() {
                    "go on"
                } else {
                    "pause"
                }
                .to_owned(),
            ),
            ("?", "help".to_owned()),
        ],
    };
    let mut row = Row::new();
    for (key, what) in keys {
        if row.width() + cells(key) + cells(what) + 3 > width {
            break;
        }
        row.push(" ", paint.plain())
            .push((*key).to_owned(), paint.name())
            .push(format!(" {what} "), paint.dim());
    }
    let every = clip(&format!("every {}", duration(state.settings.interval)), width);
    if row.width() + cells(&every) + 2 < width {
        row.right(&every, width.saturating_sub(1), paint.dim());
    }
    row.line()
}

/// A buffer as lines of text, with styles as escape sequences, without blanks at the ends.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        let mut style = Style::new();
        let mut skip = 0;
        for x in buffer.area.left()..buffer.area.right() {
            let Some(cell) = buffer.cell((x, y)) else { continue };
            if skip > 0 {
                skip -= 1;
                continue;
            }
            skip = cells(cell.symbol()).saturating_sub(1);
            let of_cell = Style::new().fg(cell.fg).add_modifier(cell.modifier);
            if of_cell != style {
                line += &escape(of_cell);
                style = of_cell;
            }
            line += cell.symbol();
        }
        if style != Style::new() {
            line += "\u{1b}[0m";
        }
        let _ = writeln!(text, "{}", trim(&line));
    }
    text
}

/// Blanks at the end are of no use; a last escape sequence is.
fn trim(line: &str) -> String {
    match line.strip_suffix("\u{1b}[0m") {
        Some(rest) => format!("{}\u{1b}[0m", rest.trim_end()),
        None => line.trim_end().to_owned(),
    }
}

/// The escape sequence that sets a style of [`super::Paint`].
fn escape(style: Style) -> String {
    let mut codes = vec!["0"];
    for (modifier, code) in [
        (Modifier::BOLD, "1"),
        (Modifier::DIM, "2"),
        (Modifier::REVERSED, "7"),
    ] {
        if style.add_modifier.contains(modifier) {
            codes.push(code);
        }
    }
    match style.fg {
        Some(Color::Red) => codes.push("31"),
        Some(Color::Green) => codes.push("32"),
        Some(Color::Yellow) => codes.push("33"),
        Some(Color::Magenta) => codes.push("35"),
        Some(Color::Cyan) => codes.push("36"),
        _ => {}
    }
    format!("\u{1b}[{}m", codes.join(";"))
}
