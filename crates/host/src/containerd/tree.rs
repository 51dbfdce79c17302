//! TOML as plain data: what is left of a file once comments, order and quoting are gone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::ConfigError;

/// The largest configuration that is read, in bytes. Those of RKE2 and K3s have some kilobytes.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// A table, by key.
pub type Table = BTreeMap<String, Value>;

/// A value of TOML.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A table, however it was written.
    Table(Table),
    /// An array, or an array of tables.
    Array(Vec<Value>),
    /// A string.
    String(String),
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// A boolean.
    Boolean(bool),
    /// A date or time, as written.
    Datetime(String),
}

impl Value {
    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// What kind of value it is, in TOML's words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::Array(_) => "an array",
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
        }
    }
}

/// Parses a text as TOML.
pub fn parse_table(text: &str) -> Result<Table, ConfigError> {
    if text.len() > MAX_BYTES {
        return Err(ConfigError::new(format!(
            "it has {} bytes, and more than {MAX_BYTES} are not read",
            text.len()
        )));
    }
    let document = toml_edit::Document::parse(text).map_err(|error| broken(text, &error))?;
    Ok(table(document.as_table()))
}

fn broken(text: &str, error: &toml_edit::TomlError) -> ConfigError {
    // Of a message of several lines the first says what is wrong.
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    let span = error.span();
    let at = span.as_ref().map(|span| position(text, span.start));
    let found = ConfigError::new(message).at(at);
    let key = span.and_then(|span| text.get(span)).map(str::trim);
    match key {
        // A span over a whole table would say too much, and one over a value might show a secret.
        Some(key) if !found.what.contains("duplicate") || key.is_empty() => found,
        Some(key) if !key.is_empty() && key.len() <= 120 && !key.contains('\n') => found.key(key),
        _ => found,
    }
}

/// Line and column of a byte, from 1.
pub(super) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn table(from: &toml_edit::Table) -> Table {
    from.iter()
        .filter_map(|(key, item)| Some((key.to_owned(), item_value(item)?)))
        .collect()
}

fn item_value(item: &toml_edit::Item) -> Option<Value> {
    Some(match item {
        toml_edit::Item::None => return None,
        toml_edit::Item::Value(of) => value(of),
        toml_edit::Item::Table(of) => Value::Table(table(of)),
        toml_edit::Item::ArrayOfTables(of) => {
            Value::Array(of.iter().map(|one| Value::Table(table(one))).collect())
        }
    })
}

fn value(of: &toml_edit::Value) -> Value {
    match of {
        toml_edit::Value::String(of) => Value::String(of.value().clone()),
        toml_edit::Value::Integer(of) => Value::Integer(*of.value()),
        toml_edit::Value::Float(of) => Value::Float(*of.value()),
        toml_edit::Value::Boolean(of) => Value::Boolean(*of.value()),
        toml_edit::Value::Datetime(of) => Value::Datetime(of.value().to_string()),
        toml_edit::Value::Array(of) => Value::Array(of.iter().map(value).collect()),
        toml_edit::Value::InlineTable(of) => {
            Value::Table(of.iter().map(|(key, one)| (key.to_owned(), value(one))).collect())
        }
    }
}

/// What is at a path of keys.
pub(super) fn get<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, tables) = path.split_last()?;
    let mut at = table;
    for key in tables {
        at = at.get(*key)?.as_table()?;
    }
    at.get(*last)
}

/// A path of keys as it would be written.
pub(super) fn dotted(path: &[&str]) -> String {
    let mut text = String::new();
    for key in path {
        if !text.is_empty() {
            text.push('.');
        }
        let bare = !key.is_empty()
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if bare {
            text.push_str(key);
        } else {
            let _ = write!(text, "\"{key}\"");
        }
    }
    text
}

/// Where in the text the value of a path of keys is.
pub(super) fn locate(text: &str, path: &[&str]) -> Option<(usize, usize)> {
    let document = toml_edit::Document::parse(text).ok()?;
    let mut at: &dyn toml_edit::TableLike = document.as_table();
    let (last, tables) = path.split_last()?;
    for key in tables {
        at = at.get(key)?.as_table_like()?;
    }
    let span = at.get(last)?.span()?;
    Some(position(text, span.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_there_twice_is_named_with_its_line() {
        let text = "version = 3\n[plugins.'a'.runc]\nx = 1\n[plugins.'a'.runc]\nx = 2\n";
        let error = parse_table(text).unwrap_err();
        assert_eq!(error.at.map(|at| at.0), Some(4), "{error}");
        assert!(error.to_string().contains("duplicate"), "{error}");
        assert!(error.key.is_some(), "{error:?}");
    }

    #[test]
    fn a_template_is_no_toml_and_the_line_is_told() {
        let error = parse_table("version = 2\n{{ template \"base\" . }}\n").unwrap_err();
        assert_eq!(error.at, Some((2, 1)), "{error}");
    }

    #[test]
    fn quoting_order_and_inline_tables_make_no_difference() {
        let one = parse_table("[a.'b.c']\nx = \"1\"\ny = [1, 2]\n").unwrap();
        let other = parse_table("a = { \"b.c\" = { y = [1,2], x = '1' } }").unwrap();
        assert_eq!(one, other);
    }

    #[test]
    fn a_key_with_a_dot_is_quoted() {
        assert_eq!(
            dotted(&["plugins", "io.containerd.grpc.v1.cri", "enable_cdi"]),
            "plugins.\"io.containerd.grpc.v1.cri\".enable_cdi"
        );
    }

    #[test]
    fn nesting_without_end_is_refused_not_followed() {
        let deep = format!("a = {}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert!(parse_table(&deep).is_err());
        let dotted = format!("{}x = 1", "a.".repeat(50_000));
        let _ = parse_table(&dotted);
    }
}
