//! The YAML of a host root, as written. `docs/scenarios.md` explains it with examples.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

/// A whole file: the root of one imaginary node. Paths are absolute, and as on the node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// What it is, in one line.
    pub(crate) description: String,
    /// Another manifest, whose entries lie under these.
    pub(crate) like: Option<Spanned<String>>,
    /// A built-in scenario, the files of whose machine lie under all others: PCI, `/proc`, `/dev`, libraries.
    pub(crate) scenario: Option<Spanned<String>>,
    /// What differs in the machine's driver.
    #[serde(default)]
    pub(crate) driver: Driver,
    /// Texts of files.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, Spanned<String>>,
    /// Where links point.
    #[serde(default)]
    pub(crate) links: BTreeMap<String, Spanned<String>>,
    /// Character devices, as `major:minor`.
    #[serde(default)]
    pub(crate) devices: BTreeMap<String, Spanned<String>>,
    /// Unix sockets.
    #[serde(default)]
    pub(crate) sockets: Vec<Spanned<String>>,
    /// Directories; those that something lies in need not be named.
    #[serde(default)]
    pub(crate) directories: Vec<Spanned<String>>,
    /// Modes in octal digits, e.g. `"0600"`, of what is laid out in a directory.
    #[serde(default)]
    pub(crate) modes: BTreeMap<String, Spanned<String>>,
    /// What is there, and may not be read.
    #[serde(default)]
    pub(crate) unreadable: Vec<Spanned<String>>,
    /// What of `like` and of the machine is not there, with all below it.
    #[serde(default)]
    pub(crate) remove: Vec<Spanned<String>>,
}

/// What differs in the driver of the scenario's machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Driver {
    /// False for a driver that is not there: no module, no device nodes, no libraries.
    pub(crate) loaded: Option<bool>,
    /// Version of its modules and libraries.
    pub(crate) version: Option<String>,
    /// Directory of its libraries, `/usr/lib/x86_64-linux-gnu` if not given.
    pub(crate) libraries: Option<String>,
}
