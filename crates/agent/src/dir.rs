//! Directories of the host that something is written in, opened so that nobody can have another one written in instead.
//!
//! The agent is root, and some of the directories that it writes in lie in those that others write to: `/dev/shm` is open
//! to all users, and to every pod with `hostIPC`. Whoever plants a link there, or a directory of their own, would have the
//! agent make files, or open directories to all, where they like. So a path is walked piece by piece, each opened beneath
//! the last and held: links are followed inside the host's root, as the host would, but for those that others could have
//! planted.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, mkdirat, open, openat, readlinkat};
use rustix::io::Errno;

/// As many links as the kernel follows on one way.
const MOST_LINKS: usize = 40;
/// Mode of what is made, whatever our umask is.
const MODE: u32 = 0o755;

/// Something that others could have planted, so that nothing is written there.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` is {what} in a directory that others write to: whoever made it would have the agent, which is root, write where \
     they like",
    .path.display()
)]
pub(crate) struct Planted {
    /// Where it is, on the host.
    pub(crate) path: PathBuf,
    what: String,
}

impl Planted {
    /// What was planted, where an error says so.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// A directory, held open.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    stat: Stat,
}

impl Dir {
    /// Opens a directory of the host whose root is mounted at `root`.
    ///
    /// # Errors
    /// Where it is not there, is no directory, or was [planted](Planted), as far as can be told.
    pub(crate) fn open(root: &Path, path: &Path) -> io::Result<Self> {
        walk(root, path, false)
    }

    /// As [`Dir::open`]; it and those above it that are missing are made, for everybody to look into.
    ///
    /// # Errors
    /// As those of [`Dir::open`], and where one can't be made.
    pub(crate) fn make(root: &Path, path: &Path) -> io::Result<Self> {
        walk(root, path, true)
    }

    /// A path that leads to this very directory as long as it is held, whatever is put in its place.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Sets its mode.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.path(), Permissions::from_mode(mode))
    }

    fn of(fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        Ok(Self { fd, stat })
    }

    /// Whether everybody can put something in it.
    fn is_open_to_all(&self) -> bool {
        self.stat.st_mode & 0o002 != 0
    }

    /// What there is by a name; itself, where that is a link.
    fn entry(&self, name: &OsStr) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.fd, name, flags, Mode::empty())
    }

    fn entry_or_made(&self, name: &OsStr) -> io::Result<OwnedFd> {
        match self.entry(name) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let is_new = match mkdirat(&self.fd, name, Mode::from_raw_mode(MODE)) {
            Ok(()) => true,
            // Somebody was faster, and is judged as if they had been there before.
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let entry = self.entry(name)?;
        if is_new && FileType::from_raw_mode(fstat(&entry)?.st_mode) == FileType::Directory {
            fs::set_permissions(
                format!("/proc/self/fd/{}", entry.as_raw_fd()),
                Permissions::from_mode(MODE),
            )?;
            fs::File::open(self.path())?.sync_all()?;
        }
        Ok(entry)
    }
}

/// True for root, and for whom we run as: whatever they planted they could write as well.
fn is_trusted(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()
}

fn walk(root: &Path, path: &Path, is_made: bool) -> io::Result<Dir> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // The directories on the way, outermost first, and their names.
    let mut way: Vec<(Dir, OsString)> = Vec::new();
    let top = || Dir::of(open(root, flags, Mode::empty())?);
    let mut here = top()?;
    let mut ahead: Vec<OsString> = pieces(path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == "/" {
            way.clear();
            here = top()?;
            continue;
        }
        if name == ".." {
            if let Some((above, _)) = way.pop() {
                here = above;
            }
            continue;
        }
        let entry = if is_made {
            here.entry_or_made(&name)?
        } else {
            here.entry(&name)?
        };
        let next = Dir::of(entry)?;
        let planted = |what: String| {
            let names = way.iter().map(|(_, name)| name.as_os_str());
            let path = Path::new("/").join(names.collect::<PathBuf>()).join(&name);
            io::Error::new(io::ErrorKind::PermissionDenied, Planted { path, what })
        };
        match FileType::from_raw_mode(next.stat.st_mode) {
            FileType::Symlink if here.is_open_to_all() || !is_trusted(&next.stat) => {
                return Err(planted("a symbolic link".to_owned()));
            }
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(&next.fd, "", Vec::new())?;
                ahead.extend(pieces(Path::new(&OsString::from_vec(target.into_bytes()))));
            }
            FileType::Directory if here.is_open_to_all() && !is_trusted(&next.stat) => {
                return Err(planted(format!("a directory of user {}", next.stat.st_uid)));
            }
            FileType::Directory => {
                let above = std::mem::replace(&mut here, next);
                way.push((above, name));
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok(here)
}

/// The pieces of a path, the last first.
fn pieces(path: &Path) -> Vec<OsString> {
    let pieces = path.components().filter_map(|component| match component {
        Component::RootDir | Component::ParentDir | Component::Normal(_) => {
            Some(component.as_os_str().to_owned())
        }
        Component::CurDir | Component::Prefix(_) => None,
    });
    pieces.rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    const SHARED: &str = "/dev/shm/nvidia-mps";

    /// A host with a directory that all can write to.
    fn host() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let shm = root.path().join("dev/shm");
        fs::create_dir_all(&shm).unwrap();
        fs::set_permissions(shm, Permissions::from_mode(0o1777)).unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        root
    }

    fn refused(root: &Path, path: &str) -> String {
        let error = Dir::make(root, Path::new(path)).unwrap_err();
        assert!(Planted::of(&error).is_some(), "{error}");
        error.to_string()
    }

    #[test]
    fn directories_that_are_missing_are_made_whatever_the_umask_is() {
        let root = host();
        let dir = Dir::make(root.path(), Path::new("/run/nvidia/mps")).unwrap();
        fs::write(dir.path().join("one"), "1").unwrap();
        let seen = root.path().join("run/nvidia/mps");
        assert_eq!(fs::read_to_string(seen.join("one")).unwrap(), "1");
        assert_eq!(fs::metadata(&seen).unwrap().mode() & 0o7777, 0o755);
        dir.set_mode(0o1777).unwrap();
        assert_eq!(fs::metadata(&seen).unwrap().mode() & 0o7777, 0o1777);
        // What is there stays as it is.
        Dir::make(root.path(), Path::new("/run/nvidia/mps")).unwrap();
        assert_eq!(fs::metadata(&seen).unwrap().mode() & 0o7777, 0o1777);
        let error = Dir::open(root.path(), Path::new("/run/none")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!root.path().join("run/none").exists());
    }

    #[test]
    fn a_link_where_all_can_write_is_refused_and_what_it_leads_to_stays() {
        let root = host();
        let before = fs::metadata(root.path().join("etc")).unwrap().mode();
        for target in ["/etc", "../../etc", "nothing"] {
            symlink(target, root.path().join("dev/shm/nvidia-mps")).unwrap();
            for path in [SHARED, "/dev/shm/nvidia-mps/below"] {
                let told = refused(root.path(), path);
                assert!(
                    told.starts_with("`/dev/shm/nvidia-mps` is a symbolic link in a directory"),
                    "{told}"
                );
            }
            fs::remove_file(root.path().join("dev/shm/nvidia-mps")).unwrap();
        }
        assert_eq!(fs::metadata(root.path().join("etc")).unwrap().mode(), before);
        assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 0);
        assert!(!root.path().join("dev/shm/nothing").exists());
    }

    #[test]
    fn a_directory_of_another_user_where_all_can_write_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = host();
        let dir = root.path().join("dev/shm/nvidia-mps");
        fs::create_dir(&dir).unwrap();
        Dir::make(root.path(), Path::new(SHARED)).unwrap();
        chown(&dir, Some(1000), None).unwrap();
        let told = refused(root.path(), SHARED);
        assert!(
            told.contains("is a directory of user 1000 in a directory"),
            "{told}"
        );
    }

    #[test]
    fn links_that_the_hosts_owner_made_are_followed_inside_its_root() {
        let root = host();
        fs::create_dir(root.path().join("run")).unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        symlink("/run", root.path().join("var/run")).unwrap();
        symlink("../../../../../run/nvidia", root.path().join("var/up")).unwrap();
        let path = Path::new("/var/run/nvidia/validations");
        let dir = Dir::make(root.path(), path).unwrap();
        fs::write(dir.path().join("one"), "").unwrap();
        assert!(root.path().join("run/nvidia/validations/one").exists());
        let dir = Dir::open(root.path(), Path::new("/var/up/validations")).unwrap();
        assert!(dir.path().join("one").exists());
        symlink("loop", root.path().join("var/loop")).unwrap();
        let error = Dir::make(root.path(), Path::new("/var/loop")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn what_is_put_in_the_place_of_a_directory_that_is_held_changes_nothing() {
        let root = host();
        let dir = Dir::make(root.path(), Path::new(SHARED)).unwrap();
        let seen = root.path().join("dev/shm/nvidia-mps");
        fs::rename(&seen, root.path().join("dev/shm/moved")).unwrap();
        symlink("/etc", &seen).unwrap();
        dir.set_mode(0o1777).unwrap();
        fs::write(dir.path().join("one"), "").unwrap();
        assert!(root.path().join("dev/shm/moved/one").exists());
        assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 0);
    }
}
