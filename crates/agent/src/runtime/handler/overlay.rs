//! A host's files as they would be.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs};

/// A host with some files in the place of its own.
pub(super) struct Overlay<'a> {
    below: &'a dyn HostFs,
    files: BTreeMap<PathBuf, String>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(below: &'a dyn HostFs, files: BTreeMap<PathBuf, String>) -> Self {
        Self { below, files }
    }
}

impl HostFs for Overlay<'_> {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        match self.files.get(path) {
            Some(text) => Ok(FileKind::File(text.len() as u64)),
            None => match self.below.kind(path) {
                Err(_) if self.files.keys().any(|file| file.starts_with(path)) => Ok(FileKind::Directory),
                other => other,
            },
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.files.get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None => self.below.read(path),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let ours = self.files.keys().filter(|file| file.parent() == Some(path));
        let ours: Vec<String> = ours
            .filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()))
            .collect();
        let mut names = match self.below.list(path) {
            Err(_) if !ours.is_empty() => Vec::new(),
            other => other?,
        };
        names.extend(ours);
        names.sort();
        names.dedup();
        Ok(names)
    }
}
