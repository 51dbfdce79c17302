//! What can be wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// A configuration that containerd would not take, or that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, where it isn't just a text.
    pub file: Option<PathBuf>,
    /// Line and column, from 1, where the text itself is wrong.
    pub at: Option<(usize, usize)>,
    /// The key that it is about, e.g. `plugins."io.containerd.grpc.v1.cri".enable_cdi`.
    pub key: Option<String>,
    /// What is wrong.
    pub what: Box<str>,
    /// True where it is only that we can't read a file, which containerd may well: it runs as root.
    pub unread: bool,
}

impl ConfigError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self {
            file: None,
            at: None,
            key: None,
            what: what.into().into_boxed_str(),
            unread: false,
        }
    }

    pub(super) fn unread(mut self, unread: bool) -> Self {
        self.unread = unread;
        self
    }

    pub(super) fn at(mut self, at: Option<(usize, usize)>) -> Self {
        self.at = at;
        self
    }

    pub(super) fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(super) fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file.get_or_insert(file.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
        }
        if let Some((line, column)) = self.at {
            if self.file.is_some() {
                write!(f, ":{line}:{column}")?;
            } else {
                write!(f, "line {line}, column {column}")?;
            }
        }
        if self.file.is_some() || self.at.is_some() {
            f.write_str(": ")?;
        }
        f.write_str(&self.what)?;
        if let Some(key) = &self.key {
            write!(f, " (`{key}`)")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
