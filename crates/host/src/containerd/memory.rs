//! Files in memory, for tests.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs};

/// A file system of a few texts; directories follow from them.
#[derive(Debug, Default, Clone)]
pub(crate) struct MemoryFs(BTreeMap<PathBuf, String>);

impl MemoryFs {
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(
            files
                .into_iter()
                .map(|(path, text)| (PathBuf::from(path), text.to_owned()))
                .collect(),
        )
    }
}

impl HostFs for MemoryFs {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        match self.0.get(path) {
            Some(text) => Ok(FileKind::File(text.len() as u64)),
            None if self.0.keys().any(|file| file.starts_with(path)) => Ok(FileKind::Directory),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.0.get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = self
            .0
            .keys()
            .filter_map(|file| file.strip_prefix(path).ok()?.components().next())
            .map(|first| first.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        if names.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(names)
    }
}
