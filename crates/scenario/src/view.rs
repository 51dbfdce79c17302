//! Imaginary files looked at: links followed, directories made out of what lies below them, one layer over another.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use pitcrew_core::ports::FileKind;

use crate::hostfs::{Node, Tree, mig_minors};

/// Links that are followed on the way to one file, as in the kernel.
const MOST_LINKS: usize = 40;

/// One or two layers of files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    /// What is seen first.
    pub(crate) upper: &'a Tree,
    /// What is seen where the upper layer has nothing.
    pub(crate) lower: Option<&'a Tree>,
    /// What of the lower layer is not seen, with all below it.
    pub(crate) removed: &'a BTreeSet<PathBuf>,
    /// What is there, and may not be read.
    pub(crate) unreadable: &'a BTreeSet<PathBuf>,
}

impl<'a> View<'a> {
    /// Nothing but these files.
    pub(crate) fn of(tree: &'a Tree) -> Self {
        static NONE: BTreeSet<PathBuf> = BTreeSet::new();
        Self {
            upper: tree,
            lower: None,
            removed: &NONE,
            unreadable: &NONE,
        }
    }

    /// What is at a path, links in its directories followed.
    pub(crate) fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let path = self.resolve(path, false)?;
        Ok(match self.get(&path) {
            Some(Node::File { size, .. }) => FileKind::File(*size),
            Some(Node::MigMinors) => FileKind::File(0),
            Some(Node::Link(target)) => FileKind::Link(target.clone()),
            Some(&Node::CharDevice { major, minor }) => FileKind::CharDevice { major, minor },
            Some(Node::Socket) => FileKind::Other,
            Some(Node::Directory) => FileKind::Directory,
            None if self.has_below(&path) => FileKind::Directory,
            None => return Err(absent(&path)),
        })
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = self.resolve(path, true)?;
        self.allowed(&path)?;
        match self.get(&path) {
            Some(Node::File { text, .. }) => Ok(text.clone().into_bytes()),
            Some(Node::MigMinors) => Ok(mig_minors().into_bytes()),
            Some(Node::Link(_) | Node::CharDevice { .. } | Node::Socket) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{} is no file", path.display()),
            )),
            Some(Node::Directory) => Err(is_directory(&path)),
            None if self.has_below(&path) => Err(is_directory(&path)),
            None => Err(absent(&path)),
        }
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = self.resolve(path, true)?;
        self.allowed(&path)?;
        match self.get(&path) {
            Some(Node::Directory) => {}
            Some(_) => {
                let message = format!("{} is not a directory", path.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
            }
            None if self.has_below(&path) => {}
            None => return Err(absent(&path)),
        }
        let names: BTreeSet<String> = self
            .below(&path)
            .filter_map(|(known, _)| known.strip_prefix(&path).ok()?.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        Ok(names.into_iter().collect())
    }

    /// Every path there is and what it is, without the directories that only follow from others.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        let view = *self;
        let lower = self.lower.into_iter().flat_map(Tree::nodes);
        let lower = lower.filter(move |(path, _)| !view.hidden(path));
        self.upper.nodes().chain(lower)
    }

    /// What is at this very path.
    fn get(&self, path: &Path) -> Option<&'a Node> {
        let lower = || self.lower.filter(|_| !self.hidden(path))?.get(path);
        self.upper.get(path).or_else(lower)
    }

    fn below(&self, path: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        let view = *self;
        let lower = self.lower.into_iter().flat_map(|tree| tree.below(path));
        let lower = lower.filter(move |(known, _)| !view.hidden(known));
        self.upper.below(path).chain(lower)
    }

    fn has_below(&self, path: &Path) -> bool {
        let in_lower = |tree: &Tree| tree.below(path).any(|(known, _)| !self.hidden(known));
        path == Path::new("/") || self.upper.below(path).next().is_some() || self.lower.is_some_and(in_lower)
    }

    /// True for a path of the lower layer that is taken away, or has something else in its place or above it.
    fn hidden(&self, path: &Path) -> bool {
        path.ancestors().any(|above| {
            self.removed.contains(above)
                || self
                    .upper
                    .get(above)
                    .is_some_and(|node| !matches!(node, Node::Directory))
        })
    }

    fn allowed(&self, path: &Path) -> io::Result<()> {
        if self.unreadable.contains(path) {
            let message = format!("{}: permission denied", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(())
    }

    /// The path without links, `.` and `..`; the last part's link is followed only if asked.
    fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        let mut resolved = PathBuf::from("/");
        let mut parts = steps(path);
        let mut links = 0;
        while let Some(part) = parts.pop() {
            match part {
                Step::Root => resolved = PathBuf::from("/"),
                Step::Up => {
                    resolved.pop();
                }
                Step::Name(name) => {
                    self.allowed(&resolved)?;
                    resolved.push(name);
                    if parts.is_empty() && !follow_last {
                        break;
                    }
                    if let Some(Node::Link(target)) = self.get(&resolved) {
                        links += 1;
                        if links > MOST_LINKS {
                            let message = format!("too many links on the way to {}", path.display());
                            return Err(io::Error::other(message));
                        }
                        resolved.pop();
                        parts.extend(steps(target));
                    }
                }
            }
        }
        Ok(resolved)
    }
}

/// A step of a path.
enum Step {
    Root,
    Up,
    Name(OsString),
}

/// The steps of a path, the last first.
fn steps(path: &Path) -> Vec<Step> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::RootDir => Some(Step::Root),
            Component::ParentDir => Some(Step::Up),
            Component::Normal(name) => Some(Step::Name(name.to_owned())),
            Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn absent(path: &Path) -> io::Error {
    let message = format!("{} does not exist", path.display());
    io::Error::new(io::ErrorKind::NotFound, message)
}

fn is_directory(path: &Path) -> io::Error {
    let message = format!("{} is a directory", path.display());
    io::Error::new(io::ErrorKind::IsADirectory, message)
}
