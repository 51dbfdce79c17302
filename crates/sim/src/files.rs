//! The files of an imaginary node: what lies in its scratch directory, over what its machine shows at this moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pitcrew_core::ports::{FileKind, HostFs, Ownership};
use pitcrew_host::root::{HostRoots, Roots};
use pitcrew_scenario::HostRoot;

/// Links that are followed on the way to one file; the kernel's own limit.
const MOST_LINKS: usize = 40;

/// The files of an imaginary node. A handle: clones are the same node.
///
/// What is written under the scratch directory is real. Device nodes, `/proc`, `/sys` and the driver's libraries follow
/// the machine as it changes, so that a MIG device that is created makes its nodes appear; device nodes that somebody
/// makes are remembered, as only root can make real ones.
#[derive(Debug, Clone)]
pub struct Files {
    written: HostRoots,
    machine: HostRoot,
    made: Arc<Mutex<BTreeMap<PathBuf, (u32, u32)>>>,
}

impl Files {
    pub(crate) fn new(scratch: &Path, machine: HostRoot) -> Self {
        Self {
            written: HostRoots::new(Roots::under(scratch)),
            machine,
            made: Arc::default(),
        }
    }

    /// Device nodes that were made, with their numbers.
    pub fn made(&self) -> BTreeMap<PathBuf, (u32, u32)> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a device node, as `mknod` does.
    ///
    /// # Errors
    /// Where something is there already.
    pub(crate) fn make(&self, path: &Path, major: u32, minor: u32) -> io::Result<()> {
        let path = self.resolve(path, false)?;
        if self.kind_at(&path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.insert(path, (major, minor));
        Ok(())
    }

    /// What is at a path on the way to which there is no link.
    fn kind_at(&self, path: &Path) -> io::Result<FileKind> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((major, minor)) = made.get(path).copied() {
            return Ok(FileKind::CharDevice { major, minor });
        }
        let is_above = made.keys().any(|known| known.starts_with(path));
        drop(made);
        match self.written.kind(path) {
            Err(error) if is_missing(&error) => match self.machine.kind(path) {
                Err(error) if is_missing(&error) && is_above => Ok(FileKind::Directory),
                kind => kind,
            },
            kind => kind,
        }
    }

    /// The path without links, which are followed inside the node.
    fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        let mut seen = PathBuf::from("/");
        let mut ahead = parts(path);
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            match part {
                Part::Root => seen = PathBuf::from("/"),
                Part::Up => {
                    seen.pop();
                }
                Part::Name(name) => {
                    seen.push(name);
                    if ahead.is_empty() && !follow_last {
                        break;
                    }
                    if let Ok(FileKind::Link(target)) = self.kind_at(&seen) {
                        links += 1;
                        if links > MOST_LINKS {
                            let text = format!("too many links on the way to {}", path.display());
                            return Err(io::Error::other(text));
                        }
                        seen.pop();
                        for part in parts(&target).into_iter().rev() {
                            ahead.push_front(part);
                        }
                    }
                }
            }
        }
        Ok(seen)
    }
}

/// One step of a path.
enum Part {
    Root,
    Up,
    Name(OsString),
}

fn parts(path: &Path) -> VecDeque<Part> {
    let part = |component: Component<'_>| match component {
        Component::RootDir => Some(Part::Root),
        Component::ParentDir => Some(Part::Up),
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

impl HostFs for Files {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.kind_at(&self.resolve(path, false)?)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = self.resolve(path, true)?;
        match self.written.read(&path) {
            Err(error) if is_missing(&error) => self.machine.read(&path),
            read => read,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = self.resolve(path, true)?;
        let lists = [self.written.list(&path), self.machine.list(&path)];
        let mut names: BTreeSet<String> = self
            .made()
            .keys()
            .filter_map(|made| made.strip_prefix(&path).ok()?.components().next())
            .map(|first| first.as_os_str().to_string_lossy().into_owned())
            .collect();
        let mut is_there = !names.is_empty();
        let mut missing = io::ErrorKind::NotFound.into();
        for list in lists {
            match list {
                Ok(list) => {
                    is_there = true;
                    names.extend(list);
                }
                Err(error) if is_missing(&error) => missing = error,
                Err(error) => return Err(error),
            }
        }
        if is_there {
            Ok(names.into_iter().collect())
        } else {
            Err(missing)
        }
    }

    /// Everything is root's, whoever runs the imaginary node.
    fn ownership(&self, path: &Path) -> io::Result<Ownership> {
        let path = self.resolve(path, false)?;
        let mode = match self.written.ownership(&path) {
            Ok(ownership) => ownership.mode,
            Err(error) if is_missing(&error) => match self.machine.ownership(&path) {
                Ok(ownership) => ownership.mode,
                Err(error) => match self.kind_at(&path) {
                    Ok(FileKind::CharDevice { .. }) => 0o666,
                    Ok(FileKind::Directory) => 0o755,
                    _ => return Err(error),
                },
            },
            Err(error) => return Err(error),
        };
        Ok(Ownership { mode, uid: 0, gid: 0 })
    }
}

/// Makes every absolute link below `scratch` one that stays there: who writes through `/var/run` of an imaginary node
/// must never reach the real one.
pub(crate) fn keep_links_inside(scratch: &Path) -> io::Result<()> {
    let mut directories = vec![PathBuf::new()];
    while let Some(dir) = directories.pop() {
        for entry in fs::read_dir(scratch.join(&dir))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = dir.join(entry.file_name());
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_symlink() {
                let real = scratch.join(&path);
                let target = fs::read_link(&real)?;
                if let Ok(rest) = target.strip_prefix("/") {
                    let up: PathBuf = dir.components().map(|_| "..").collect();
                    fs::remove_file(&real)?;
                    symlink(up.join(rest), &real)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_scenario::{Change, Machine, Scenario};

    fn files(manifest: &str) -> (tempfile::TempDir, Machine, Files) {
        let scratch = tempfile::tempdir().unwrap();
        HostRoot::builtin("rke2").unwrap().build(scratch.path()).unwrap();
        keep_links_inside(scratch.path()).unwrap();
        let machine = Machine::new(Scenario::builtin("rtx3060").unwrap());
        let lower = HostRoot::parse(manifest, "test", &|_| None).unwrap();
        let files = Files::new(scratch.path(), lower.with_machine(machine.clone()));
        (scratch, machine, files)
    }

    #[test]
    fn what_is_written_lies_over_what_the_machine_shows() {
        let (scratch, machine, files) = files("description: all of it");
        let read = |path: &str| String::from_utf8(files.read(Path::new(path)).unwrap()).unwrap();
        assert!(read("/etc/os-release").contains("ubuntu"));
        assert!(read("/proc/driver/nvidia/version").contains("580.159.04"));
        // A link of the host's on the way to a library of the machine's.
        assert!(
            files
                .read(Path::new("/lib/x86_64-linux-gnu/libcuda.so.1"))
                .is_ok()
        );
        fs::write(scratch.path().join("run/cdi/a.json"), "{}").unwrap();
        assert_eq!(files.list(Path::new("/var/run/cdi")).unwrap(), ["a.json"]);
        machine.change(&Change::UnloadDriver).unwrap();
        assert!(files.read(Path::new("/proc/driver/nvidia/version")).is_err());
    }

    #[test]
    fn no_link_leads_out_of_the_scratch_directory() {
        let (scratch, _, _) = files("description: all of it");
        let run = fs::canonicalize(scratch.path().join("var/run")).unwrap();
        assert_eq!(run, fs::canonicalize(scratch.path().join("run")).unwrap());
    }

    #[test]
    fn a_device_node_that_is_made_is_there_and_is_made_once() {
        let (_scratch, _, files) = files("description: bare\nremove: [/dev]");
        let uvm = Path::new("/dev/nvidia-uvm");
        assert!(files.kind(uvm).is_err());
        files.make(uvm, 238, 0).unwrap();
        assert_eq!(
            files.kind(uvm).unwrap(),
            FileKind::CharDevice { major: 238, minor: 0 }
        );
        assert_eq!(files.list(Path::new("/dev")).unwrap(), ["nvidia-uvm"]);
        assert_eq!(files.ownership(uvm).unwrap().uid, 0);
        let again = files.make(uvm, 238, 0).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }
}
