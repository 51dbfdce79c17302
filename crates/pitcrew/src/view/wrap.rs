//! Text that fits the width there is: prose at its blanks, commands so that a shell still takes them.

use std::fmt::Write as _;

/// Fewest columns that text is squeezed into: narrower it is better cut by the terminal.
const NARROWEST: usize = 24;

/// What is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Words.
    Prose,
    /// A command line: broken with a backslash, and only outside of quotes.
    Command,
}

/// `label`, then the text, later lines set in below its beginning; every line ends with a newline.
pub(crate) fn paragraph(label: &str, text: &str, width: usize, kind: Kind) -> String {
    let indent = label.chars().count();
    let room = width.saturating_sub(indent).max(NARROWEST);
    let lines = match kind {
        Kind::Prose => prose(text, room),
        Kind::Command => command(text, room),
    };
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let left = if index == 0 {
            label.to_owned()
        } else {
            " ".repeat(indent)
        };
        let _ = writeln!(out, "{}", format!("{left}{line}").trim_end());
    }
    if lines.is_empty() {
        let _ = writeln!(out, "{}", label.trim_end());
    }
    out
}

fn prose(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        if !append(lines.last_mut(), word, room) {
            lines.extend(pieces(word, room));
        }
    }
    lines
}

/// Broken before the operators of the shell where that is enough, else between any two words; what goes on ends with a
/// blank and a backslash.
fn command(text: &str, room: usize) -> Vec<String> {
    if text.chars().count() <= room {
        return vec![text.to_owned()];
    }
    let room = room - 2;
    let mut lines: Vec<String> = Vec::new();
    for part in parts(shell_words(text)) {
        if append(lines.last_mut(), &part.join(" "), room) {
            continue;
        }
        let mut first = true;
        for word in part {
            if first || !append(lines.last_mut(), &word, room) {
                lines.push(word);
            }
            first = false;
        }
    }
    let last = lines.len().saturating_sub(1);
    for line in lines.iter_mut().take(last) {
        *line += " \\";
    }
    lines
}

/// Adds to a line what it has room for; false where it has none.
fn append(line: Option<&mut String>, what: &str, room: usize) -> bool {
    match line {
        Some(line) if line.chars().count() + 1 + what.chars().count() <= room => {
            line.push(' ');
            *line += what;
            true
        }
        _ => false,
    }
}

/// Words up to the next operator, which begins the next part.
fn parts(words: Vec<String>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = vec![Vec::new()];
    for word in words {
        if matches!(word.as_str(), "&&" | "|" | "||") {
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(word);
        }
    }
    parts
}

/// A word that is wider than the room, such as a long path, is cut, behind a `/` or `.` where the line is then at least
/// half full.
fn pieces(word: &str, room: usize) -> Vec<String> {
    let mut rest: Vec<char> = word.chars().collect();
    let mut pieces = Vec::new();
    while rest.len() > room {
        let (line, _) = rest.split_at(room);
        let at = line.iter().rposition(|c| matches!(c, '/' | '.')).map(|at| at + 1);
        let at = at.filter(|at| *at >= room / 2).unwrap_or(room);
        let after = rest.split_off(at);
        pieces.push(rest.into_iter().collect());
        rest = after;
    }
    pieces.push(rest.into_iter().collect());
    pieces
}

/// Words as a shell sees them, with their quotes.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (None, ' ') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// True for a line that a shell takes, false for advice in words.
pub(crate) fn is_command(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    !matches!(first, "install" | "add" | "rewrite")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_at_blanks_and_long_words_are_cut() {
        let text = paragraph(
            "why:  ",
            "the module is loaded and did not start",
            32,
            Kind::Prose,
        );
        assert_eq!(text, "why:  the module is loaded and\n      did not start\n");
        let path = "x".repeat(60);
        assert!(
            paragraph("", &path, 30, Kind::Prose)
                .lines()
                .all(|line| line.len() == 30)
        );
    }

    #[test]
    fn a_long_path_is_cut_between_its_parts() {
        let path = "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl";
        assert_eq!(
            paragraph("", path, 40, Kind::Prose),
            "/var/lib/rancher/rke2/agent/etc/\ncontainerd/config-v3.toml.tmpl\n"
        );
    }

    #[test]
    fn a_command_is_broken_so_that_a_shell_takes_it() {
        let command =
            "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee /etc/x && sudo reboot";
        let text = paragraph("next: ", command, 70, Kind::Command);
        insta::assert_snapshot!(text, @r"
        next: printf 'blacklist nouveau\noptions nouveau modeset=0\n' \
              | sudo tee /etc/x && sudo reboot
        ");
        let joined = text.trim_start_matches("next: ").replace(" \\\n      ", " ");
        assert_eq!(joined.trim_end(), command);
    }

    #[test]
    fn a_short_command_has_no_backslash() {
        assert_eq!(
            paragraph("next: ", "sudo reboot", 80, Kind::Command),
            "next: sudo reboot\n"
        );
    }
}
