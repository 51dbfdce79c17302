//! What is wrong with a configuration, and what is only worth knowing.

use std::fmt;

/// Something that can't hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, e.g. `sharing.timeSlicing.resources[0].replicas`; empty for the whole.
    pub path: String,
    /// Line of the text, from 1, where it comes from one.
    pub line: Option<u64>,
    /// What is wrong with it, why, and what would be right.
    pub what: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            line: None,
            what: what.into(),
        }
    }
}

fn show(f: &mut fmt::Formatter<'_>, path: &str, line: Option<u64>, what: &str) -> fmt::Result {
    if let Some(line) = line {
        write!(f, "line {line}: ")?;
    }
    match path {
        "" => f.write_str(what),
        path => write!(f, "`{path}` {what}"),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.path, self.line, &self.what)
    }
}

/// Something that holds, and isn't what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Path of the field or name of what it is about.
    pub path: String,
    /// Line of the text, from 1, where it comes from one.
    pub line: Option<u64>,
    /// What is to be known.
    pub what: String,
}

impl Remark {
    pub(crate) fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            line: None,
            what: what.into(),
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.path, self.line, &self.what)
    }
}

/// A configuration that can't hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is neither YAML nor JSON.
    #[error("the device plugin's configuration can't be read: line {line}, column {column}: {what}")]
    Syntax {
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong there.
        what: String,
    },
    /// Fields of it can't hold; there is at least one.
    #[error("the device plugin's configuration is refused: {}", joined(.0))]
    Invalid(Vec<Problem>),
}

fn joined(problems: &[Problem]) -> String {
    let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
    problems.join("; ")
}
