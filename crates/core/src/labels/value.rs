//! What may stand in a label.
//!
//! Kubernetes: at most 63 characters, nothing or letters and digits at both ends, between them also `-`, `_` and `.`.

use crate::product;

/// Most characters of a value, and of the part of a key behind the slash.
const LONGEST: usize = 63;

/// True for a value that Kubernetes takes.
pub fn is_valid(value: &str) -> bool {
    let end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= LONGEST
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && end(value.chars().next())
        && end(value.chars().next_back())
}

/// The value itself where it is valid, else the nearest that is: characters that can't stand in it dropped, what can't
/// stand at an end too, and cut. `None` where nothing is left of something.
pub fn valid(value: &str) -> Option<String> {
    if is_valid(value) {
        return Some(value.to_owned());
    }
    let words = words(value);
    (!words.is_empty()).then_some(words)
}

/// Words joined by dashes, as the reference writes names, cut to a valid value.
pub fn words(text: &str) -> String {
    cut(&product::label(text), LONGEST)
}

/// A product's name and what follows it (`-SHARED`, `-MIG-1g.10gb`). Where both are too long the name is cut, since what
/// follows tells more.
pub fn product(name: &str, suffix: &str) -> String {
    let name = product::label(name);
    let room = LONGEST.saturating_sub(suffix.len());
    cut(&format!("{}{suffix}", cut(&name, room)), LONGEST)
}

/// What stands behind the slash of a key: at most as long as it may be, and never nothing.
pub(super) fn in_key(prefix: &str, name: &str) -> Option<String> {
    let room = LONGEST.saturating_sub(prefix.len());
    let name = cut(&product::label(name), room);
    (!name.is_empty()).then_some(name)
}

/// At most so many characters, which are all ASCII here, and no mark at an end.
fn cut(text: &str, most: usize) -> String {
    let mark = |c: char| !c.is_ascii_alphanumeric();
    let text = text.trim_start_matches(mark);
    let text = text.get(..most).unwrap_or(text);
    text.trim_end_matches(mark).to_owned()
}
