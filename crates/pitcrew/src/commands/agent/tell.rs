//! What the agent tells, as lines.

use pitcrew_agent::Notice;
use pitcrew_agent::notice::Level;
use pitcrew_cli::Format;
use serde::Serialize;

/// A line as programs read it.
#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    topic: String,
    text: &'a str,
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

/// One line: for people, or a JSON object where anything but a table was asked for. Whoever collects the lines knows
/// their time.
pub(super) fn line(notice: &Notice, format: Format) -> String {
    let line = Line {
        level: word(notice.level),
        topic: notice.topic.to_string(),
        text: &notice.text,
    };
    match format {
        Format::Table => {
            // Lines of a text would look like several notices.
            let text = line.text.replace('\n', " ");
            match notice.level {
                Level::Info => format!("{}: {text}", line.topic),
                Level::Warning | Level::Error => format!("{}: {}: {text}", line.topic, line.level),
            }
        }
        Format::Json | Format::Yaml => serde_json::to_string(&line).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_agent::Topic;

    #[test]
    fn a_notice_is_one_line_whatever_is_in_it() {
        let notice = |level| Notice {
            topic: Topic::Health,
            level,
            text: "GPU-1 is sick:\n\"XID 48\"".to_owned(),
        };
        assert_eq!(
            line(&notice(Level::Info), Format::Table),
            "health: GPU-1 is sick: \"XID 48\""
        );
        assert_eq!(
            line(&notice(Level::Error), Format::Table),
            "health: error: GPU-1 is sick: \"XID 48\""
        );
        assert_eq!(
            line(&notice(Level::Warning), Format::Json),
            r#"{"level":"warning","topic":"health","text":"GPU-1 is sick:\n\"XID 48\""}"#
        );
    }
}
