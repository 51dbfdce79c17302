//! The list of all that was written on the node.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The list's format.
const SCHEMA: &str = "pitcrew.dev/installed/v1";

/// All that was written, by path. Something in it may not be there: the list is written first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    schema: String,
    paths: Vec<Entry>,
}

/// One thing that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Where it is, on the host.
    pub path: PathBuf,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file.
    File,
    /// A directory that was not there before; it is taken away only when it is empty.
    Directory,
    /// A link into our directory; it is taken away only while it leads there.
    Link,
    /// A piece of a file that is somebody else's; the piece is taken out, and the file stays.
    Piece,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            paths: Vec::new(),
        }
    }
}

impl Manifest {
    /// What is in it.
    pub fn entries(&self) -> &[Entry] {
        &self.paths
    }

    /// Adds something, unless it is in it.
    pub fn add(&mut self, kind: Kind, path: &Path) {
        if !self.paths.iter().any(|entry| entry.path == path) {
            self.paths.push(Entry {
                kind,
                path: path.to_owned(),
            });
            self.paths.sort_by(|a, b| a.path.cmp(&b.path));
        }
    }

    /// Keeps what the test says yes to.
    pub fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.paths.retain(keep);
    }

    /// Text of the file.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Reads the list. One that can't be read, of another format, or with a path that isn't absolute or leads upwards, is no
/// list: what it would name is then left alone.
pub fn parse(text: &[u8]) -> Option<Manifest> {
    let manifest: Manifest = serde_json::from_slice(text).ok()?;
    let is_plain = |entry: &Entry| {
        let mut components = entry.path.components();
        components.next() == Some(std::path::Component::RootDir)
            && components.all(|component| matches!(component, std::path::Component::Normal(_)))
    };
    (manifest.schema == SCHEMA && manifest.paths.iter().all(is_plain)).then_some(manifest)
}
