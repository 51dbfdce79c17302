//! One line of the view, put together from left to right.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// A line under construction; it knows how wide it is.
#[derive(Debug, Default)]
pub(crate) struct Row {
    spans: Vec<Span<'static>>,
    width: usize,
}

/// Cells that a text takes.
pub(crate) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text without control characters, cut to `width` cells with an ellipsis where it is longer.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    let clean: String = text
        .chars()
        .map(|char| if char.is_control() { '?' } else { char })
        .collect();
    if width(&clean) <= limit {
        return clean;
    }
    let mut cut = String::new();
    let mut used = 0;
    for char in clean.chars() {
        let wide = width(char.encode_utf8(&mut [0; 4]));
        if used + wide + 1 > limit {
            break;
        }
        used += wide;
        cut.push(char);
    }
    if limit > 0 {
        cut.push('…');
    }
    cut
}

/// Words in lines of at most `limit` cells.
pub(crate) fn wrap(text: &str, limit: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(clip(word, limit)),
        }
    }
    lines
}

impl Row {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Cells so far.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Adds a text.
    pub(crate) fn push(&mut self, text: impl Into<String>, style: Style) -> &mut Self {
        let span = Span::styled(text.into(), style);
        self.width += span.width();
        self.spans.push(span);
        self
    }

    /// Adds a text that ends before column `limit`.
    pub(crate) fn clipped(&mut self, text: &str, limit: usize, style: Style) -> &mut Self {
        let room = limit.saturating_sub(self.width);
        self.push(clip(text, room), style)
    }

    /// Blanks up to column `column`.
    pub(crate) fn to(&mut self, column: usize) -> &mut Self {
        let blanks = column.saturating_sub(self.width);
        if blanks > 0 {
            self.push(" ".repeat(blanks), Style::new());
        }
        self
    }

    /// Adds a text that ends at column `end`, as numbers do.
    pub(crate) fn right(&mut self, text: &str, end: usize, style: Style) -> &mut Self {
        let text = clip(text, end.saturating_sub(self.width));
        self.to(end.saturating_sub(width(&text))).push(text, style)
    }

    /// Adds another line.
    pub(crate) fn append(&mut self, line: Line<'static>) -> &mut Self {
        for span in line.spans {
            let style = line.style.patch(span.style);
            self.push(span.content.into_owned(), style);
        }
        self
    }

    /// The line.
    pub(crate) fn line(&mut self) -> Line<'static> {
        self.width = 0;
        Line::from(std::mem::take(&mut self.spans))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_ends_in_an_ellipsis_and_never_goes_over() {
        assert_eq!(clip("trainer", 7), "trainer");
        assert_eq!(clip("trainer-0", 7), "traine…");
        assert_eq!(clip("画像生成サーバー", 7), "画像生…");
        assert_eq!(clip("a\u{1b}[2Jb", 9), "a?[2Jb");
        for limit in 0..12 {
            assert!(width(&clip("画像-trainer", limit)) <= limit);
        }
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(
            wrap("drain the node and reboot it", 12),
            ["drain the", "node and", "reboot it"]
        );
    }

    #[test]
    fn a_number_ends_where_it_should() {
        let mut row = Row::new();
        row.push("ab", Style::new()).right("42", 8, Style::new());
        assert_eq!(row.line().to_string(), "ab    42");
    }
}
