//! `create-symlinks`: links to the driver's files, under the names that programs look for.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::AtFlags;

use crate::root::{self, ContainerRoot, RootError};

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not `TARGET::PATH`.
    #[error("--link `{0}` is not of the form TARGET::PATH")]
    Form(String),
    /// In the container.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Makes each `TARGET::PATH`: a link at PATH in the container whose text is TARGET. What was there is replaced, but not
/// a directory; a link that says so already stays.
pub fn create<'a>(root: &ContainerRoot, links: impl Iterator<Item = &'a str>) -> Result<(), LinkError> {
    for link in links {
        let parts = link
            .split_once("::")
            .filter(|(target, path)| !target.is_empty() && !path.is_empty());
        let (target, path) = parts.ok_or_else(|| LinkError::Form(link.to_owned()))?;
        one(root, OsStr::new(target), &root::clean(Path::new(path)))?;
    }
    Ok(())
}

fn one(root: &ContainerRoot, target: &OsStr, path: &Path) -> Result<(), RootError> {
    let (parent, name) = root.parent(path)?;
    let there = rustix::fs::readlinkat(parent.as_fd(), name, Vec::new());
    if there.is_ok_and(|there| there.as_bytes() == target.as_bytes()) {
        return Ok(());
    }
    let failed = |errno| root::at("could not make the link", path, errno);
    let temporary = root::temporary_name();
    rustix::fs::symlinkat(target, &parent, &temporary).map_err(failed)?;
    rustix::fs::renameat(&parent, &temporary, &parent, name).map_err(|errno| {
        let _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::empty());
        failed(errno)
    })
}
