//! `disable-device-node-modification`: in the container, the driver's parameters say that device files are not to be
//! made. Else a library of the driver would make them for all GPUs, in a container that has but one.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::mount::MountFlags;

use crate::root::{self, ContainerRoot, Last, RootError};
use crate::walk;

/// Where the driver says its parameters, on the host and in the container.
pub const PARAMS: &str = "/proc/driver/nvidia/params";
const KEY: &str = "ModifyDeviceFiles";

/// The host's parameters with the one changed; none where it is off already or not there.
pub fn changed(params: &str) -> Option<String> {
    let is_on = |line: &str| {
        line.split_once(':')
            .is_some_and(|(key, value)| key == KEY && value.trim() == "1")
    };
    if !params.lines().any(is_on) {
        return None;
    }
    let mut text = String::with_capacity(params.len());
    for line in params.lines() {
        if is_on(line) {
            text.push_str(KEY);
            text.push_str(": 0");
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    Some(text)
}

/// Why the file could not be covered.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    /// The image has something of its own there.
    #[error("{0} in the container is not on procfs")]
    NotProc(String),
    /// In the container.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Covers a file of the container's procfs, read-only, with a text. Where there is none there is nothing to do, and
/// where it has that text already, nothing more.
pub fn cover(root: &ContainerRoot, path: &Path, text: &str) -> Result<(), ParamsError> {
    if matches!(root.read(path, text.len() + 1), Ok(Some(found)) if found == text.as_bytes()) {
        return Ok(());
    }
    let target = match root.resolve(path, Last::Followed) {
        Err(error) if error.is_absent() => return Ok(()),
        target => target?,
    };
    let failed = |errno| root::at("could not cover", path, errno);
    if !walk::is_procfs(target.as_fd()).map_err(failed)? {
        return Err(ParamsError::NotProc(path.display().to_string()));
    }
    let (dir, name) = place(root)?;
    let covered = (|| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, &name, flags, Mode::from_raw_mode(0o444))?;
        root::write_all(file.as_fd(), text.as_bytes())?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))?;
        rustix::mount::mount_bind(root::proc_path(file.as_fd()), root::proc_path(target.as_fd()))?;
        let written = rustix::fs::fstat(&file)?;
        // The descriptor still says the file below; the path leads to what now lies on it.
        let top = root
            .resolve(path, Last::Followed)
            .map_err(|_| rustix::io::Errno::AGAIN)?;
        let found = rustix::fs::fstat(&top)?;
        if (written.st_dev, written.st_ino) != (found.st_dev, found.st_ino) {
            return Err(rustix::io::Errno::AGAIN);
        }
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC;
        rustix::mount::mount_remount(root::proc_path(top.as_fd()), flags, c"")
    })();
    // The mount keeps the file; its name was only the way to it.
    let _ = rustix::fs::unlinkat(&dir, &name, AtFlags::empty());
    Ok(covered.map_err(failed)?)
}

/// A directory of the container where a file can be made for a moment: its root, which belongs to it alone, or `/dev`
/// where that is read-only.
fn place(root: &ContainerRoot) -> Result<(OwnedFd, std::ffi::OsString), RootError> {
    let name = root::temporary_name();
    let top = root.resolve(Path::new("/"), Last::Followed)?;
    let writable = rustix::fs::fstatvfs(&top)
        .is_ok_and(|found| !found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let dir = if writable {
        top
    } else {
        root.resolve(Path::new("/dev"), Last::Followed)?
    };
    Ok((dir, name))
}

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn only_the_one_parameter_changes_and_only_where_it_is_on() {
        let on = "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\n";
        let off = "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 0\nDeviceFileUID: 0\n";
        assert_eq!(changed(on).as_deref(), Some(off));
        assert_eq!(changed(off), None);
        assert_eq!(changed("ModifyDeviceFilesToo: 1\n"), None);
        assert_eq!(changed(""), None);
    }
}
