//! Lays imaginary files out in a real directory.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, makedev, mknodat, openat};

use crate::hostfs::{Node, mig_minors};
use crate::view::View;

/// Builds all of it, and gives the paths that could not be made as they should be.
pub(super) fn build(view: &View<'_>, modes: &BTreeMap<PathBuf, u32>, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut left_out = Vec::new();
    for (path, node) in view.nodes() {
        let real = under(dir, path);
        if let Some(parent) = real.parent() {
            fs::create_dir_all(parent)?;
        }
        match node {
            Node::File { text, .. } => fs::write(&real, text)?,
            Node::MigMinors => fs::write(&real, mig_minors())?,
            Node::Link(target) => symlink(target, &real)?,
            Node::Directory => fs::create_dir_all(&real)?,
            Node::Socket => socket(&real)?,
            Node::CharDevice { major, minor } => {
                let mode = Mode::from_raw_mode(0o666);
                let device = makedev(*major, *minor);
                match mknodat(rustix::fs::CWD, &real, FileType::CharacterDevice, mode, device) {
                    // As the driver's own nodes are, whatever the caller's umask says.
                    Ok(()) => set_mode(&real, 0o666)?,
                    Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => left_out.push(path.clone()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    for (path, mode) in modes {
        set_mode(&under(dir, path), *mode)?;
    }
    // Deepest first: nothing can be reached below a directory that may not be read.
    for path in view.unreadable.iter().rev() {
        let real = under(dir, path);
        if fs::symlink_metadata(&real).is_ok() {
            set_mode(&real, 0)?;
            if rustix::fs::accessat(
                rustix::fs::CWD,
                &real,
                rustix::fs::Access::READ_OK,
                AtFlags::EACCESS,
            )
            .is_ok()
            {
                left_out.push(path.clone());
            }
        }
    }
    left_out.sort_unstable();
    Ok(left_out)
}

/// A socket that somebody was bound to. Its directory is opened first: the path of a socket has 107 bytes at most.
fn socket(real: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let parent = openat(rustix::fs::CWD, parent, flags, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&parent);
    UnixListener::bind(Path::new("/proc/self/fd").join(number.to_string()).join(name))?;
    Ok(())
}

/// Links are left as they are: they have no mode.
fn set_mode(real: &Path, mode: u32) -> io::Result<()> {
    match fs::symlink_metadata(real) {
        Ok(metadata) if metadata.is_symlink() => Ok(()),
        Ok(_) => fs::set_permissions(real, Permissions::from_mode(mode)),
        // A device that could not be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn under(dir: &Path, path: &Path) -> PathBuf {
    dir.join(path.strip_prefix("/").unwrap_or(path))
}
