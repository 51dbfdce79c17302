//! A host's files in real directories: the machine's own, or a host's root that is mounted elsewhere.
//!
//! Links are followed inside the root, one component after the other, so that a host's absolute link under
//! `--root DIR` stays in DIR. That needs no `openat2`, which old kernels lack. It is made for the roots of one's own
//! hosts: who can change the directories while they are read can lead a read astray, though never into a device or
//! a pipe.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs, Ownership};
use rustix::fs::OFlags;

/// The largest file that is read whole, in bytes.
pub const LARGEST_FILE: u64 = 16 * 1024 * 1024;
/// Links that are followed on the way to one file; the kernel's own limit.
const MOST_LINKS: usize = 40;

/// Where the parts of a host are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The root of the host.
    pub host: PathBuf,
    /// What the host has at `/proc`.
    pub proc: PathBuf,
    /// What the host has at `/sys`.
    pub sys: PathBuf,
    /// What the host has at `/dev`.
    pub dev: PathBuf,
    /// What the host has at `/run/nvidia/driver`, where NVIDIA's driver container has mounted its root; `None` to
    /// look under the host's root.
    pub driver: Option<PathBuf>,
}

impl Roots {
    /// All of them under one directory; `/` is the machine itself.
    pub fn under(host: impl Into<PathBuf>) -> Self {
        let host = host.into();
        Self {
            proc: host.join("proc"),
            sys: host.join("sys"),
            dev: host.join("dev"),
            driver: None,
            host,
        }
    }
}

/// A host's files in real directories.
#[derive(Debug, Clone)]
pub struct HostRoots {
    host: PathBuf,
    /// Paths of the host that are in directories of their own, and which.
    elsewhere: Vec<(PathBuf, PathBuf)>,
}

impl HostRoots {
    /// The host whose parts are there.
    pub fn new(roots: Roots) -> Self {
        let Roots {
            host,
            proc,
            sys,
            dev,
            driver,
        } = roots;
        let elsewhere = [
            ("/proc", Some(proc)),
            ("/sys", Some(sys)),
            ("/dev", Some(dev)),
            ("/run/nvidia/driver", driver),
        ];
        let elsewhere = elsewhere
            .into_iter()
            .filter_map(|(path, real)| Some((PathBuf::from(path), real?)))
            .filter(|(path, real)| *real != beneath(&host, path))
            .collect();
        Self { host, elsewhere }
    }

    /// True where the host's paths are the machine's own, and the kernel can follow its links.
    fn is_machine(&self) -> bool {
        self.host == Path::new("/") && self.elsewhere.is_empty()
    }

    /// The real path of a host's path that holds no links.
    fn real(&self, path: &Path) -> PathBuf {
        for (prefix, real) in &self.elsewhere {
            if let Ok(rest) = path.strip_prefix(prefix) {
                return real.join(rest);
            }
        }
        beneath(&self.host, path)
    }

    /// The real path, links followed inside the root.
    fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        if self.is_machine() {
            return Ok(beneath(Path::new("/"), path));
        }
        let mut seen = PathBuf::from("/");
        let mut real = self.real(&seen);
        let mut ahead = parts(path);
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            match part {
                Part::Root => seen = PathBuf::from("/"),
                Part::Up => {
                    seen.pop();
                }
                Part::Name(name) => {
                    let parent = seen.clone();
                    seen.push(name);
                    let here = self.real(&seen);
                    if ahead.is_empty() && !follow_last {
                        return Ok(here);
                    }
                    if fs::symlink_metadata(&here)?.is_symlink() {
                        links += 1;
                        if links > MOST_LINKS {
                            let message = format!("too many links on the way to {}", path.display());
                            return Err(io::Error::other(message));
                        }
                        for part in parts(&fs::read_link(&here)?).into_iter().rev() {
                            ahead.push_front(part);
                        }
                        seen = parent;
                    }
                }
            }
            real = self.real(&seen);
        }
        Ok(real)
    }

    /// Opens a regular file, and nothing else: opening a device or a pipe can wait, or do something.
    fn open(&self, path: &Path) -> io::Result<(File, Metadata)> {
        let real = self.resolve(path, true)?;
        regular(path, &fs::metadata(&real)?)?;
        // A link that took the file's place just now is refused, a pipe is not waited for.
        let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        if !self.is_machine() {
            flags |= OFlags::NOFOLLOW;
        }
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&real)?;
        let metadata = file.metadata()?;
        regular(path, &metadata)?;
        Ok((file, metadata))
    }
}

impl HostFs for HostRoots {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let real = self.resolve(path, false)?;
        let metadata = fs::symlink_metadata(&real)?;
        let kind = metadata.file_type();
        Ok(if kind.is_symlink() {
            FileKind::Link(fs::read_link(&real)?)
        } else if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_file() {
            FileKind::File(metadata.len())
        } else if kind.is_char_device() {
            FileKind::CharDevice {
                major: rustix::fs::major(metadata.rdev()),
                minor: rustix::fs::minor(metadata.rdev()),
            }
        } else {
            FileKind::Other
        })
    }

    fn ownership(&self, path: &Path) -> io::Result<Ownership> {
        let metadata = fs::symlink_metadata(self.resolve(path, false)?)?;
        Ok(Ownership {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (file, metadata) = self.open(path)?;
        if metadata.len() > LARGEST_FILE {
            return Err(too_large(path));
        }
        // What the kernel says of the size of its own files is no guide: `/proc` says 0.
        let mut bytes = Vec::new();
        file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(too_large(path));
        }
        Ok(bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.resolve(path, true)?)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read_part(&self, path: &Path, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let (mut file, _) = self.open(path)?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))?;
        }
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A step of a path.
enum Part {
    Root,
    Up,
    Name(OsString),
}

fn parts(path: &Path) -> VecDeque<Part> {
    path.components()
        .filter_map(|component| match component {
            Component::RootDir => Some(Part::Root),
            Component::ParentDir => Some(Part::Up),
            Component::Normal(name) => Some(Part::Name(name.to_owned())),
            Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// The host's path under another directory; also of a path that was given without its `/`.
fn beneath(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn regular(path: &Path, metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let (kind, what) = if metadata.is_dir() {
        (io::ErrorKind::IsADirectory, "a directory")
    } else {
        (io::ErrorKind::InvalidInput, "no regular file")
    };
    Err(io::Error::new(kind, format!("{} is {what}", path.display())))
}

fn too_large(path: &Path) -> io::Error {
    let message = format!("{} is larger than {} MiB", path.display(), LARGEST_FILE >> 20);
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn fixture() -> (tempfile::TempDir, HostRoots) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("etc/sub")).unwrap();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/os-release"), "ID=imaginary\n").unwrap();
        symlink("../usr/lib/os-release", root.join("etc/os-release")).unwrap();
        symlink("/usr/lib/os-release", root.join("etc/absolute")).unwrap();
        symlink("../../../../../../usr/lib", root.join("etc/sub/up")).unwrap();
        symlink("loop", root.join("etc/loop")).unwrap();
        symlink("/etc/hostname", root.join("etc/only-outside")).unwrap();
        let roots = HostRoots::new(Roots::under(root));
        (dir, roots)
    }

    #[test]
    fn links_stay_inside_the_root() {
        let (_dir, roots) = fixture();
        for path in [
            "/etc/os-release",
            "/etc/absolute",
            "/etc/sub/up/os-release",
            "/etc/sub/../os-release",
        ] {
            assert_eq!(roots.read(Path::new(path)).unwrap(), b"ID=imaginary\n", "{path}");
        }
        let outside = roots.read(Path::new("/etc/only-outside")).unwrap_err();
        assert_eq!(outside.kind(), io::ErrorKind::NotFound);
        assert_eq!(
            roots.kind(Path::new("/etc/absolute")).unwrap(),
            FileKind::Link("/usr/lib/os-release".into())
        );
        assert_eq!(roots.list(Path::new("/../..")).unwrap(), ["etc", "usr"]);
    }

    #[test]
    fn a_loop_of_links_is_an_error_and_not_a_wait() {
        let (_dir, roots) = fixture();
        let error = roots.read(Path::new("/etc/loop")).unwrap_err();
        assert_eq!(error.to_string(), "too many links on the way to /etc/loop");
    }

    #[test]
    fn pipes_sockets_and_devices_are_told_and_never_opened() {
        let (dir, roots) = fixture();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        for path in ["/pipe", "/socket"] {
            assert_eq!(roots.kind(Path::new(path)).unwrap(), FileKind::Other);
            let error = roots.read(Path::new(path)).unwrap_err();
            assert_eq!(error.to_string(), format!("{path} is no regular file"));
        }
        let machine = HostRoots::new(Roots::under("/"));
        assert_eq!(
            machine.kind(Path::new("/dev/null")).unwrap(),
            FileKind::CharDevice { major: 1, minor: 3 }
        );
        assert!(machine.read(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_whole_and_read_in_parts() {
        let (dir, roots) = fixture();
        let large = File::create(dir.path().join("large")).unwrap();
        large.set_len(LARGEST_FILE + 1).unwrap();
        let error = roots.read(Path::new("/large")).unwrap_err();
        assert_eq!(error.to_string(), "/large is larger than 16 MiB");
        assert_eq!(
            roots
                .read_part(Path::new("/large"), LARGEST_FILE - 1, 10)
                .unwrap(),
            [0, 0]
        );
        assert_eq!(
            roots.read_part(Path::new("/etc/absolute"), 3, 4).unwrap(),
            b"imag"
        );
        assert_eq!(roots.read_part(Path::new("/etc/absolute"), 300, 4).unwrap(), b"");
    }

    #[test]
    fn parts_of_a_host_can_be_mounted_elsewhere() {
        let (dir, _) = fixture();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir_all(elsewhere.path().join("class")).unwrap();
        fs::write(elsewhere.path().join("class/one"), "1\n").unwrap();
        symlink("/etc/os-release", elsewhere.path().join("to-host")).unwrap();
        symlink("/sys/class", dir.path().join("to-sys")).unwrap();
        let roots = HostRoots::new(Roots {
            sys: elsewhere.path().to_owned(),
            ..Roots::under(dir.path())
        });
        assert_eq!(roots.read(Path::new("/sys/class/one")).unwrap(), b"1\n");
        assert_eq!(roots.read(Path::new("/to-sys/one")).unwrap(), b"1\n");
        assert_eq!(roots.read(Path::new("/sys/to-host")).unwrap(), b"ID=imaginary\n");
    }

    #[test]
    fn the_machine_itself_is_read_as_the_kernel_does() {
        let machine = HostRoots::new(Roots::under("/"));
        assert!(machine.is_machine());
        let own = String::from_utf8(machine.read(Path::new("/proc/self/stat")).unwrap()).unwrap();
        assert!(own.starts_with(&std::process::id().to_string()));
        assert!(machine.list(Path::new("/proc/self/fd")).unwrap().len() > 2);
    }
}
