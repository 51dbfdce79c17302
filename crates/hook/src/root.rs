//! The container's root directory, and the only way to anything in it.
//!
//! A path is resolved by the kernel's `openat2` with `RESOLVE_IN_ROOT`: links, absolute ones too, and `..` end at the
//! container's root whatever is moved meanwhile. Kernels before 5.6 don't have it, and some seccomp filters forbid it:
//! there the path is walked component by component, which is as safe and slower. What was opened is used through its
//! descriptor from then on, never through its name again.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::walk;

/// Why something in the container's root directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It is no directory that can be opened.
    #[error("the container's root directory {} could not be opened: {source}", path.display())]
    Open {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A hook that worked there would work on the host.
    #[error("the container's root directory {} is the host's; hooks are for containers alone", .0.display())]
    HostRoot(PathBuf),
    /// Without it no file can be opened again.
    #[error(
        "/proc is not mounted on the host (kernel {kernel}), so files of the container can't be opened safely"
    )]
    NoProc {
        /// The kernel's release.
        kernel: String,
    },
    /// A path in the container.
    #[error("{action} {} in the container: {source}", path.display())]
    Path {
        /// What was tried.
        action: &'static str,
        /// The path in the container.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something else where a regular file must be.
    #[error("{} in the container is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// More than what is sane.
    #[error("{} in the container is too large: more than {most} {unit}", path.display())]
    TooLarge {
        /// The path in the container.
        path: PathBuf,
        /// What is allowed.
        most: usize,
        /// Of what.
        unit: &'static str,
    },
}

impl RootError {
    /// Whether it fails because there is nothing at the path.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Path { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Whether a link at a path's end is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is, inside the root.
    Followed,
    /// The link itself is meant.
    Itself,
}

/// A container's root directory.
#[derive(Debug)]
pub struct ContainerRoot {
    fd: OwnedFd,
    walks: AtomicBool,
}

/// How often the kernel is asked for a path with `..`: it gives up whenever anything at all is renamed or mounted
/// meanwhile, anywhere on the host. The walk then does not.
const MOST_TRIES: u32 = 8;

impl ContainerRoot {
    /// Opens it. The host's own root directory is refused.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let failed = |errno: Errno| RootError::Open {
            path: path.to_owned(),
            source: errno.into(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let (ours, hosts) = (
            rustix::fs::fstat(&fd).map_err(failed)?,
            rustix::fs::stat("/").map_err(failed)?,
        );
        if (ours.st_dev, ours.st_ino) == (hosts.st_dev, hosts.st_ino) {
            return Err(RootError::HostRoot(path.to_owned()));
        }
        let proc = rustix::fs::open("/proc", flags, Mode::empty());
        if !proc
            .and_then(|proc| walk::is_procfs(proc.as_fd()))
            .unwrap_or(false)
        {
            return Err(RootError::NoProc { kernel: kernel() });
        }
        Ok(Self {
            fd,
            walks: AtomicBool::new(false),
        })
    }

    /// The same, by the walk that kernels before 5.6 need.
    pub fn open_walking(path: &Path) -> Result<Self, RootError> {
        let root = Self::open(path)?;
        root.walks.store(true, Ordering::Relaxed);
        Ok(root)
    }

    /// Opens a path by `O_PATH`: neither read nor written, only known.
    pub fn resolve(&self, path: &Path, last: Last) -> Result<OwnedFd, RootError> {
        self.resolved(path, last)
            .map_err(|errno| at("could not find", path, errno))
    }

    fn resolved(&self, path: &Path, last: Last) -> Result<OwnedFd, Errno> {
        let follow = last == Last::Followed;
        if self.walks.load(Ordering::Relaxed) {
            return walk::resolve(self.fd.as_fd(), path.as_os_str(), follow);
        }
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !follow);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..MOST_TRIES {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // `PERM` is what a seccomp filter that does not know it may say.
                Err(Errno::NOSYS | Errno::PERM) => {
                    self.walks.store(true, Ordering::Relaxed);
                    return walk::resolve(self.fd.as_fd(), path.as_os_str(), follow);
                }
                done => return done,
            }
        }
        walk::resolve(self.fd.as_fd(), path.as_os_str(), follow)
    }

    /// Whether a path leads to something.
    pub fn has(&self, path: &Path) -> bool {
        self.resolve(path, Last::Followed).is_ok()
    }

    /// Opens a regular file for reading. Nothing else is ever opened: not a FIFO, which could block, nor a device.
    pub fn open_file(&self, path: &Path) -> Result<std::fs::File, RootError> {
        let failed = |errno| at("could not open", path, errno);
        let fd = self.resolve(path, Last::Followed)?;
        if walk::kind(fd.as_fd()).map_err(failed)? != FileType::RegularFile {
            return Err(RootError::NotAFile(path.to_owned()));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(proc_path(fd.as_fd()), flags, Mode::empty());
        opened.map(Into::into).map_err(failed)
    }

    /// Reads a regular file of at most `most` bytes; none where there is nothing.
    pub fn read(&self, path: &Path, most: usize) -> Result<Option<Vec<u8>>, RootError> {
        let file = match self.open_file(path) {
            Err(error) if error.is_absent() => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        let read = file.take(most as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| RootError::Path {
            action: "could not read",
            path: path.to_owned(),
            source,
        })?;
        if bytes.len() > most {
            return Err(RootError::TooLarge {
                path: path.to_owned(),
                most,
                unit: "bytes",
            });
        }
        Ok(Some(bytes))
    }

    /// The names in a directory, sorted; none where there is no such directory.
    pub fn list(&self, path: &Path, most: usize) -> Result<Vec<OsString>, RootError> {
        let failed = |errno| at("could not list", path, errno);
        let fd = match self.resolve(path, Last::Followed) {
            Err(error) if error.is_absent() => return Ok(Vec::new()),
            fd => fd?,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&fd, c".", flags, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_owned();
            if names.len() > most {
                return Err(RootError::TooLarge {
                    path: path.to_owned(),
                    most,
                    unit: "entries",
                });
            }
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(&name).to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes a directory and those above it, mode 0755, and opens it by `O_PATH`. `path` is [`clean`].
    pub fn make_dirs(&self, path: &Path) -> Result<OwnedFd, RootError> {
        let failed = |errno| at("could not make the directory", path, errno);
        match self.resolved(path, Last::Followed) {
            Ok(fd) => {
                let is_dir = walk::kind(fd.as_fd()).map_err(failed)? == FileType::Directory;
                return if is_dir {
                    Ok(fd)
                } else {
                    Err(failed(Errno::NOTDIR))
                };
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(Errno::NOENT));
        };
        let parent = self.make_dirs(parent)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        // A link to nothing is there, or one was put there just now: neither is followed.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(failed)
    }

    /// The directory of a path, made where it is missing, and the name in it.
    pub fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), RootError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(at("could not write", path, Errno::ISDIR));
        };
        Ok((self.make_dirs(parent)?, name))
    }

    /// Writes a file of mode 0644 in place of whatever was there (a link is replaced, not followed), making directories
    /// that are missing. A file that has that text already stays.
    pub fn replace(&self, path: &Path, text: &[u8]) -> Result<(), RootError> {
        let path = &clean(path);
        if matches!(self.read(path, text.len()), Ok(Some(found)) if found == text) {
            return Ok(());
        }
        let (parent, name) = self.parent(path)?;
        let failed = |errno| at("could not write", path, errno);
        let temporary = temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&parent, &temporary, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let written = write_all(file.as_fd(), text)
            .and_then(|()| rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644)))
            .and_then(|()| rustix::fs::renameat(&parent, &temporary, &parent, name));
        written.map_err(|errno| {
            let _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::empty());
            failed(errno)
        })
    }
}

impl AsFd for ContainerRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes all of it.
pub(crate) fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The error of one path.
pub(crate) fn at(action: &'static str, path: &Path, errno: Errno) -> RootError {
    RootError::Path {
        action,
        path: path.to_owned(),
        source: errno.into(),
    }
}

/// The name by which the kernel opens again what a descriptor holds, with no path resolved.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A name that nothing else has: two hooks of one container may run at a time.
pub(crate) fn temporary_name() -> OsString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |now| now.as_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(".pitcrew-{:x}-{nanoseconds:x}-{count:x}", std::process::id()).into()
}

/// The path without `.` and `..`, by its text alone, always absolute: what is meant by a path of a specification.
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// The kernel's release.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
