//! Paths inside a root directory on kernels without `openat2` (before 5.6): one component after the other.
//!
//! Safe by construction: the kernel is never asked for `..` nor to follow a link. Where the path stands is a stack of
//! open directories, `..` goes back to the one below, and at the root it stays there.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;
/// As many components in all, those of links counted too.
const MOST_STEPS: u32 = 4096;

/// Opens a path in `root`, which is a directory, by `O_PATH`; a link at its end is followed only if `follow` says so.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &OsStr, follow: bool) -> Result<OwnedFd, Errno> {
    let mut stack: Vec<OwnedFd> = Vec::new();
    let mut ahead = VecDeque::new();
    put_ahead(&mut ahead, path.as_bytes());
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = ahead.pop_front() {
        steps += 1;
        if steps > MOST_STEPS {
            return Err(Errno::LOOP);
        }
        let here = stack.last().map_or(root, |fd| fd.as_fd());
        if name == "." || name == ".." {
            if FileType::from_raw_mode(rustix::fs::fstat(here)?.st_mode) != FileType::Directory {
                return Err(Errno::NOTDIR);
            }
            if name == ".." {
                stack.pop();
            }
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(here, &name, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode);
        if kind == FileType::Symlink && (follow || !ahead.is_empty()) {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&next, c"", Vec::new())?;
            if target.is_empty() {
                return Err(Errno::NOENT);
            }
            if target.as_bytes().starts_with(b"/") {
                stack.clear();
            }
            put_ahead(&mut ahead, target.as_bytes());
        } else {
            stack.push(next);
        }
    }
    stack.pop().map_or_else(
        || rustix::fs::openat(root, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
        Ok,
    )
}

/// Puts the components of `path` before what is ahead; a slash at the end asks for a directory, as `.` does.
fn put_ahead(ahead: &mut VecDeque<OsString>, path: &[u8]) {
    if path.ends_with(b"/") {
        ahead.push_front(OsString::from("."));
    }
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
    for part in parts.rev() {
        ahead.push_front(OsString::from_vec(part.to_vec()));
    }
}

/// Whether a path is on procfs.
pub(crate) fn is_procfs(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == PROC_SUPER_MAGIC)
}

/// Of `linux/magic.h`.
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// What kind of file an open path is.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> Result<FileType, Errno> {
    let stat = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}
