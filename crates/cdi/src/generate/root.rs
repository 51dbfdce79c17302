//! Looking for files under a root that is not that of the host: the one of a driver container, mostly.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs};

/// Links that are followed on the way to one file.
const MOST_LINKS: usize = 40;

/// A directory of the host that is somebody's root. Paths are as seen from inside it; links stay in it.
#[derive(Clone, Copy)]
pub(super) struct Root<'a> {
    pub(super) fs: &'a dyn HostFs,
    dir: &'a Path,
}

impl<'a> Root<'a> {
    pub(super) fn new(fs: &'a dyn HostFs, dir: &'a Path) -> Self {
        Self { fs, dir }
    }

    /// The host's path of one in this root.
    pub(super) fn on_host(&self, path: &Path) -> PathBuf {
        self.dir.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The path in this root without links, and what is there; `None` where nothing is.
    pub(super) fn follow(&self, path: &Path) -> Option<(PathBuf, FileKind)> {
        let mut seen = PathBuf::from("/");
        let mut kind = FileKind::Directory;
        let mut ahead = names(path);
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            match name {
                Step::Root => seen = PathBuf::from("/"),
                Step::Up => {
                    seen.pop();
                }
                Step::Name(name) => {
                    seen.push(name);
                    kind = self.fs.kind(&self.on_host(&seen)).ok()?;
                    if let FileKind::Link(target) = &kind {
                        links += 1;
                        if links > MOST_LINKS {
                            return None;
                        }
                        seen.pop();
                        for name in names(target).into_iter().rev() {
                            ahead.push_front(name);
                        }
                        kind = FileKind::Directory;
                    }
                    continue;
                }
            }
            kind = FileKind::Directory;
        }
        Some((seen, kind))
    }

    /// True where there is something that is no directory, links followed.
    pub(super) fn is_file(&self, path: &Path) -> bool {
        self.follow(path)
            .is_some_and(|(_, kind)| kind != FileKind::Directory)
    }

    /// The link at a path, not followed.
    pub(super) fn link(&self, path: &Path) -> Option<PathBuf> {
        let (dir, _) = self.follow(path.parent()?)?;
        match self.fs.kind(&self.on_host(&dir.join(path.file_name()?))).ok()? {
            FileKind::Link(target) => Some(target),
            _ => None,
        }
    }

    /// Files in a directory whose names match, sorted, with the directory as it was given.
    pub(super) fn matching(&self, dir: &Path, pattern: &str) -> Vec<PathBuf> {
        let Some((real, FileKind::Directory)) = self.follow(dir) else {
            return Vec::new();
        };
        let mut names = self.fs.list(&self.on_host(&real)).unwrap_or_default();
        names.retain(|name| matches(pattern, name));
        names.sort_unstable();
        let paths = names.into_iter().map(|name| dir.join(name));
        paths.filter(|path| self.is_file(path)).collect()
    }

    /// The file at each link on the way from a path to its end: what a name of the loader's cache stands for.
    pub(super) fn chain(&self, path: &Path) -> Vec<PathBuf> {
        let mut chain = vec![path.to_owned()];
        while let (Some(last), true) = (chain.last(), chain.len() < MOST_LINKS) {
            let Some(target) = self.link(last) else { break };
            let next = last.parent().unwrap_or(Path::new("/")).join(target);
            chain.push(next);
        }
        chain
    }
}

enum Step {
    Root,
    Up,
    Name(OsString),
}

fn names(path: &Path) -> VecDeque<Step> {
    let step = |component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

/// True where the name is as the pattern says, in which `*` is any text.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_scenario::HostRoot;

    #[test]
    fn links_of_a_drivers_root_stay_in_it() {
        let text = "
description: x
files: {/run/driver/usr/lib64/libcuda.so.1.2: '', /usr/lib64/libcuda.so.9.9: ''}
links:
  /run/driver/lib64: /usr/lib64
  /run/driver/usr/lib64/libcuda.so.1: libcuda.so.1.2
  /run/driver/usr/lib64/libcuda.so: libcuda.so.1
  /run/driver/up: ../../../../usr
  /run/driver/loop: loop
";
        let fs = HostRoot::parse(text, "test", &|_| None).unwrap();
        let root = Root::new(&fs, Path::new("/run/driver"));
        let real = PathBuf::from("/usr/lib64/libcuda.so.1.2");
        for path in ["/lib64/libcuda.so", "/up/lib64/../lib64/libcuda.so.1"] {
            assert_eq!(
                root.follow(Path::new(path)),
                Some((real.clone(), FileKind::File(0))),
                "{path}"
            );
        }
        assert_eq!(root.follow(Path::new("/loop")), None);
        assert_eq!(
            root.matching(Path::new("/lib64"), "libcuda.so.*.*"),
            [Path::new("/lib64/libcuda.so.1.2")]
        );
        assert_eq!(root.chain(Path::new("/usr/lib64/libcuda.so")).len(), 3);
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name) in [
            ("*.so.1.2", "libcuda.so.1.2"),
            ("lib*.so.1", "lib.so.1"),
            ("libcuda.so.*.*", "libcuda.so.580.159.04"),
            ("gsp*.bin", "gsp_ga10x.bin"),
            ("a", "a"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("libcuda.so.*.*", "libcuda.so.1"),
            ("a", "ab"),
            ("a*a", "a"),
            ("*.so.1", "x.so.12"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
