//! containerd's configuration: read as containerd reads it, and rendered as RKE2 and K3s will at their next start.
//!
//! - [`parse`] reads one file; [`effective`] reads a file with everything that it imports, merged as the containerd of
//!   that [`Generation`] merges it.
//!
//! What is written here of containerd's behaviour was measured with `containerd config dump` of 1.7 and 2.2; the tests
//! of ring 3 measure it again.

mod base;
mod config;
mod data;
pub mod edit;
mod error;
mod glob;
#[cfg(test)]
pub(crate) mod memory;
mod merge;
pub mod next_boot;
mod supervisor;
mod template;
mod tree;

pub use base::{MASKED, NodeFacts, Runtime, Shape, render};
pub use config::parse;
pub use data::template_data;
pub use error::ConfigError;
pub use merge::{ConfigFile, Effective, effective};
pub use template::{Datum, TemplateError, render_template};
pub use tree::{Table, Value, parse_table};

use semver::Version;

/// What differs between containerds in how a configuration is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// 1.x: reads versions 1 and 2; a drop-in replaces a plugin's whole section.
    One,
    /// 2.0 and later: reads version 2 and 3, merges drop-ins key by key, and takes a version 2 for a version 3 after
    /// merging. A version 1 is accepted, and what it says of CRI is ignored without a word.
    Two,
}

impl Generation {
    /// The generation of a version of containerd.
    pub fn of(version: &Version) -> Self {
        if version.major < 2 { Self::One } else { Self::Two }
    }

    /// The version that this generation writes by itself.
    pub fn config_version(self) -> u32 {
        match self {
            Self::One => 2,
            Self::Two => 3,
        }
    }
}
