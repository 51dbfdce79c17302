//! A table without lines that fits the width there is.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Blanks between two columns.
const GAP: usize = 2;

/// One column: its heading, and when it may go.
pub(crate) struct Column {
    heading: &'static str,
    /// 0 stays; of the others the highest goes first.
    expendable: u8,
    right: bool,
    cells: Vec<String>,
}

impl Column {
    /// A column that always stays.
    pub(crate) fn new(heading: &'static str, cells: impl IntoIterator<Item = String>) -> Self {
        Self {
            heading,
            expendable: 0,
            right: false,
            cells: cells.into_iter().collect(),
        }
    }

    /// A column that is left out where the table is too wide; the highest number goes first.
    pub(crate) fn expendable(mut self, order: u8) -> Self {
        self.expendable = order;
        self
    }

    /// Aligned to the right, as numbers are.
    pub(crate) fn right(mut self) -> Self {
        self.right = true;
        self
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        cells.chain([self.heading.len()]).max().unwrap_or_default()
    }
}

/// Renders, leaving out columns and then wrapping cells until it fits `width`; every line ends with a newline.
pub(crate) fn render(mut columns: Vec<Column>, width: Option<usize>) -> String {
    let total = |columns: &[Column]| columns.iter().map(|column| column.width() + GAP).sum::<usize>();
    if let Some(width) = width {
        while total(&columns) > width + GAP {
            let last = columns
                .iter()
                .enumerate()
                .max_by_key(|(_, column)| column.expendable);
            match last {
                Some((index, column)) if column.expendable > 0 => drop(columns.remove(index)),
                _ => break,
            }
        }
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(columns.iter().map(|column| column.heading));
    let rows = columns
        .iter()
        .map(|column| column.cells.len())
        .max()
        .unwrap_or_default();
    for row in 0..rows {
        table.add_row(
            columns
                .iter()
                .map(|column| column.cells.get(row).map_or("", String::as_str)),
        );
    }
    for (column, drawn) in columns.iter().zip(table.column_iter_mut()) {
        drawn.set_padding((0, 2));
        if column.right {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(width) = width
        && total(&columns) > width + GAP
    {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(width + GAP).unwrap_or(u16::MAX));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let text = |cells: [&str; 2]| cells.map(str::to_owned);
        vec![
            Column::new("GPU", text(["0", "10"])).right(),
            Column::new("NAME", text(["NVIDIA T4", "NVIDIA L40S"])).expendable(1),
            Column::new("UUID", text(["GPU-0123456789", "?"])).expendable(2),
            Column::new("HEALTH", text(["healthy", "unknown"])),
        ]
    }

    #[test]
    fn without_a_width_nothing_is_left_out() {
        insta::assert_snapshot!(render(columns(), None), @r"
        GPU  NAME         UUID            HEALTH
          0  NVIDIA T4    GPU-0123456789  healthy
         10  NVIDIA L40S  ?               unknown
        ");
    }

    #[test]
    fn what_can_be_missed_first_goes_first() {
        insta::assert_snapshot!(render(columns(), Some(25)), @r"
        GPU  NAME         HEALTH
          0  NVIDIA T4    healthy
         10  NVIDIA L40S  unknown
        ");
        insta::assert_snapshot!(render(columns(), Some(20)), @r"
        GPU  HEALTH
          0  healthy
         10  unknown
        ");
    }

    #[test]
    fn no_width_is_too_small() {
        for width in 1..60 {
            assert!(
                render(columns(), Some(width)).contains("GPU") || width < 8,
                "{width}"
            );
        }
    }
}
