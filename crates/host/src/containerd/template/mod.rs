//! Templates of the user, in the part of Go's `text/template` that such templates use.
//!
//! Own, and not a general crate: K3s's data has zero values that templates rely on (`(index .ExtraRuntimes
//! "nvidia").BinaryName` of a runtime that wasn't found is the empty string), and what can't be known must end in
//! "can't tell", never in a guess. Total: text, depth, steps and output are bounded, and no text makes it panic. What
//! it prints is tested against what Go's own implementation printed for the same templates and data.

mod eval;
mod functions;
mod lexer;
mod parser;

use std::collections::BTreeMap;
use std::fmt;

/// The longest template that is read, in bytes.
const MAX_BYTES: usize = 256 << 10;

/// A value that a template sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// A pointer that points to nothing.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Datum>),
    /// A structure: a field that isn't here may exist and isn't known.
    Struct(BTreeMap<String, Datum>),
    /// A map, and the value of a key that it lacks.
    Map {
        /// What it holds.
        entries: BTreeMap<String, Datum>,
        /// The zero value of its kind.
        zero: Box<Datum>,
    },
    /// Something that exists and whose value isn't known, with its name.
    Unknown(String),
}

impl Datum {
    /// A structure of these fields.
    pub fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Struct(
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    /// A map of these entries.
    pub fn map(entries: impl IntoIterator<Item = (String, Self)>, zero: Self) -> Self {
        Self::Map {
            entries: entries.into_iter().collect(),
            zero: Box::new(zero),
        }
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Datum {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

/// Why a template gives no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, or what isn't known.
    pub what: String,
    /// True where Go refuses it too, so that RKE2 and K3s don't start; false where we can't tell what it gives.
    pub refused: bool,
}

impl TemplateError {
    fn refused(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
            refused: true,
        }
    }

    fn unknown(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
            refused: false,
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for TemplateError {}

/// Renders a template over `data`; `{{ template "base" . }}` gives `base` as it is.
///
/// # Errors
/// Where the template is wrong, or uses what we don't know; see [`TemplateError::refused`].
pub fn render_template(text: &str, base: &str, data: &Datum) -> Result<String, TemplateError> {
    if text.len() > MAX_BYTES {
        return Err(TemplateError::unknown(
            1,
            format!("the template has more than {MAX_BYTES} bytes"),
        ));
    }
    let template = parser::parse(text)?;
    eval::run(&template, base, data)
}
