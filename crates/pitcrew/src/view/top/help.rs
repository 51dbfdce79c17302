//! The keys.

use ratatui::text::Line;

use super::row::Row;
use super::state::State;

const KEYS: &[(&str, &str)] = &[
    ("↑ ↓  k j", "select a GPU, or a process after Tab"),
    ("PgUp PgDn", "move by a page; in details, scroll"),
    ("Home End", "the first, the last"),
    ("Enter", "details of the selected GPU, and back"),
    ("Tab", "move among GPUs or among processes"),
    ("s", "sort processes: memory, GPU, pid, pod"),
    ("p", "pause, and go on"),
    ("?", "this help"),
    ("Esc", "back; from the overview, quit"),
    ("q  Ctrl-C", "quit"),
];

const SIGNS: &[(&str, &str)] = &[
    ("?", "could not be read"),
    ("-", "this card or driver doesn't have it"),
    ("blank", "in a chart: nothing could be read then"),
    ("gi ci", "GPU instance and compute instance of MIG"),
];

/// The keys, as lines.
pub(crate) fn lines(state: &State) -> Vec<Line<'static>> {
    let paint = state.settings.paint;
    let table = |heading: &str, rows: &[(&str, &str)]| {
        let mut row = Row::new();
        let mut lines = vec![row.to(2).push(heading.to_owned(), paint.heading()).line()];
        for (key, meaning) in rows {
            let mut row = Row::new();
            row.to(4)
                .push((*key).to_owned(), paint.name())
                .to(17)
                .push((*meaning).to_owned(), paint.plain());
            lines.push(row.line());
        }
        lines
    };
    let mut lines = table("Keys", KEYS);
    lines.push(Line::default());
    lines.extend(table("Signs", SIGNS));
    lines.push(Line::default());
    let mut row = Row::new();
    row.to(2).push("Any key goes back.", paint.dim());
    lines.push(row.line());
    lines
}
