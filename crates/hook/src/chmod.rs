//! `chmod`: for old crun, which made the directories of device nodes unreadable for others.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{FileType, Mode};

use crate::root::{self, ContainerRoot, Last, RootError};
use crate::walk;

/// Why a mode could not be set.
#[derive(Debug, thiserror::Error)]
pub enum ChmodError {
    /// Not an octal number of at most three digits: no set-user-ID from a hook.
    #[error("--mode `{0}` is not an octal mode from 0 to 777")]
    Mode(String),
    /// In the container.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Sets the mode of paths in the container; those that don't exist, and links, are left alone.
pub fn set<'a>(
    root: &ContainerRoot,
    mode: &str,
    paths: impl Iterator<Item = &'a str>,
) -> Result<(), ChmodError> {
    let bits = u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o777);
    let bits = bits.ok_or_else(|| ChmodError::Mode(mode.to_owned()))?;
    for path in paths {
        let path = root::clean(Path::new(path));
        let fd = match root.resolve(&path, Last::Itself) {
            Err(error) if error.is_absent() => continue,
            fd => fd?,
        };
        let failed = |errno| root::at("could not set the mode of", &path, errno);
        if walk::kind(fd.as_fd()).map_err(failed)? != FileType::Symlink {
            rustix::fs::chmod(root::proc_path(fd.as_fd()), Mode::from_raw_mode(bits)).map_err(failed)?;
        }
    }
    Ok(())
}
