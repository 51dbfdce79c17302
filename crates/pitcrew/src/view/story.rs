//! The story of an imaginary node, a line for each thing that happens.

use std::fmt::Write as _;

use owo_colors::OwoColorize as _;
use pitcrew_sim::story::{Line, Mark};

use super::wrap::{self, Kind};

/// Columns where nothing says how many there are.
const WIDTH: usize = 100;
/// The widest topic.
const TOPIC: usize = 7;
/// Columns before the text.
const INDENT: usize = 20;

/// One thing that happened, with the seconds since the beginning.
pub(crate) fn line(line: &Line, width: Option<usize>) -> String {
    let width = width.unwrap_or(WIDTH);
    if line.mark == Mark::Chapter {
        return format!("\n{}\n", line.text.bold());
    }
    let mark = match line.mark {
        Mark::Chapter => ' ',
        Mark::Seen => '✓',
        Mark::Done => '→',
        Mark::Skipped => '-',
        Mark::Warning => '!',
        Mark::Failed => '✗',
    };
    let topic = format!("{mark} {:<TOPIC$}", line.topic);
    let plain = format!("{:7.2} s {topic} ", line.at.as_secs_f32());
    let text = wrap::paragraph(&plain, &line.text, width, Kind::Prose);
    let coloured = match line.mark {
        Mark::Seen => topic.green().to_string(),
        Mark::Done => topic.cyan().to_string(),
        Mark::Chapter | Mark::Skipped => topic.dimmed().to_string(),
        Mark::Warning => topic.yellow().to_string(),
        Mark::Failed => topic.red().bold().to_string(),
    };
    let mut out = text.replacen(&topic, &coloured, 1);
    for detail in &line.details {
        let indent = " ".repeat(INDENT);
        let _ = write!(
            out,
            "{}",
            wrap::paragraph(&indent, detail, width, Kind::Prose).dimmed()
        );
    }
    out
}
