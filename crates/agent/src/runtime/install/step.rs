//! One step of changing a node's files, and who does it.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown, symlink};
use std::path::{Component, Path, PathBuf};

use super::manifest::{Entry, Kind};
use crate::dir::Dir;

/// One change: whole or not done at all, and the same if it is done twice. Paths are the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes a directory that everybody can look into, and those above it.
    MakeDir {
        /// The directory.
        path: PathBuf,
    },
    /// Copies a program from the agent's own file system.
    Copy {
        /// On the agent's file system.
        from: PathBuf,
        /// Where to.
        to: PathBuf,
    },
    /// Writes a file.
    Write {
        /// Where to.
        to: PathBuf,
        /// Its text.
        text: String,
    },
    /// Writes a file of somebody else's anew, where it still says what was read: its owner, its mode and the link that
    /// leads to it stay as they are.
    Edit {
        /// Which.
        path: PathBuf,
        /// The text that was read; `None` where there was no such file.
        was: Option<String>,
        /// Its text.
        text: String,
    },
    /// Makes a link, in the place of one that is there.
    Link {
        /// Where.
        at: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
    /// Takes away a file, link or socket.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Takes away a directory where nothing is in it any more.
    RemoveDir {
        /// Which.
        path: PathBuf,
    },
}

impl Step {
    /// Makes a directory.
    pub fn make_dir(path: &Path) -> Self {
        Self::MakeDir {
            path: path.to_owned(),
        }
    }

    /// Copies a program.
    pub fn copy(from: &Path, to: &Path) -> Self {
        Self::Copy {
            from: from.to_owned(),
            to: to.to_owned(),
        }
    }

    /// Writes a file.
    pub fn write(to: &Path, text: String) -> Self {
        Self::Write {
            to: to.to_owned(),
            text,
        }
    }

    /// Writes a file of somebody else's anew, where it still says what was read.
    pub fn edit(path: &Path, was: Option<String>, text: String) -> Self {
        Self::Edit {
            path: path.to_owned(),
            was,
            text,
        }
    }

    /// Makes a link.
    pub fn link(at: &Path, to: &Path) -> Self {
        Self::Link {
            at: at.to_owned(),
            to: to.to_owned(),
        }
    }

    /// Takes away a file, link or socket.
    pub fn remove(path: PathBuf) -> Self {
        Self::Remove { path }
    }

    /// Takes away what a list names; `None` for a piece of a file, for which that says too little.
    pub(crate) fn take_away(entry: &Entry) -> Option<Self> {
        let path = entry.path.clone();
        match entry.kind {
            Kind::Directory => Some(Self::RemoveDir { path }),
            Kind::File | Kind::Link => Some(Self::Remove { path }),
            Kind::Piece => None,
        }
    }

    /// What it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::MakeDir { path }
            | Self::Edit { path, .. }
            | Self::Remove { path }
            | Self::RemoveDir { path } => path,
            Self::Copy { to, .. } | Self::Write { to, .. } => to,
            Self::Link { at, .. } => at,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::MakeDir { .. } => "made",
            Self::Copy { .. } | Self::Write { .. } | Self::Edit { .. } => "written",
            Self::Link { .. } => "linked",
            Self::Remove { .. } | Self::RemoveDir { .. } => "removed",
        }
    }
}

/// A step that failed. What was done before it stays; trying again later goes on from there.
#[derive(Debug, thiserror::Error)]
#[error("`{}` could not be {verb}: {source}", .path.display())]
pub struct StepError {
    /// What it was about, on the host.
    pub path: PathBuf,
    verb: &'static str,
    /// Why.
    pub source: io::Error,
}

impl StepError {
    /// True where somebody has changed the file since it was read, and a new look is all that is needed.
    pub(crate) fn is_changed(&self) -> bool {
        let why = self.source.get_ref();
        why.and_then(|why| why.downcast_ref::<Changed>()).is_some()
    }
}

/// A file says something else than when it was read.
#[derive(Debug, thiserror::Error)]
#[error("somebody has changed it since it was read, and what they wrote stays; try again")]
struct Changed;

/// Does steps on the host whose root is mounted somewhere.
#[derive(Debug, Clone, Copy)]
pub struct Executor<'a> {
    root: &'a Path,
}

/// What our unfinished files begin with; they end in `.tmp`.
pub(super) const UNFINISHED: &str = ".pitcrew-";

impl<'a> Executor<'a> {
    /// For the host with this root.
    pub fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// Does all steps, up to the first that fails.
    ///
    /// # Errors
    /// Of that step.
    pub fn run(&self, steps: &[Step]) -> Result<(), StepError> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    /// Does one step.
    ///
    /// # Errors
    /// Where the file system refuses; what was there is then as it was.
    pub fn step(&self, step: &Step) -> Result<(), StepError> {
        self.attempt(step).map_err(|source| StepError {
            path: step.path().to_owned(),
            verb: step.verb(),
            source,
        })
    }

    fn attempt(&self, step: &Step) -> io::Result<()> {
        if let Step::MakeDir { path } = step {
            return Dir::make(self.root, path)?.set_mode(0o755);
        }
        let held = match held(self.root, step.path()) {
            // It went with its directory.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && matches!(step, Step::Remove { .. } | Step::RemoveDir { .. }) =>
            {
                return Ok(());
            }
            other => other?,
        };
        let at = held.path();
        match step {
            Step::MakeDir { .. } => Ok(()),
            Step::Copy { from, .. } => {
                let mut from = fs::File::open(from)?;
                put(&at, 0o755, |file| io::copy(&mut from, file).map(drop))
            }
            Step::Write { text, .. } => put(&at, 0o644, |file| file.write_all(text.as_bytes())),
            Step::Edit { path, was, text } => {
                let real = walk(self.root, path, true)?;
                edit(&self::held(self.root, &real)?.path(), was.as_deref(), text)
            }
            Step::Link { to, .. } => {
                let dir = &held.dir.path();
                let made = tempfile::Builder::new()
                    .prefix(UNFINISHED)
                    .suffix(".tmp")
                    .make_in(dir, |path| symlink(to, path))?;
                made.into_temp_path().persist(&at)?;
                sync(dir)
            }
            Step::Remove { .. } => or_gone(fs::remove_file(&at)),
            Step::RemoveDir { .. } => match fs::remove_dir(&at) {
                // Somebody else uses it, or it was replaced by something else.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
                    ) =>
                {
                    Ok(())
                }
                other => or_gone(other),
            },
        }
    }
}

fn or_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A name in a directory of the host that is held.
struct Held {
    dir: Dir,
    name: OsString,
}

impl Held {
    fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }
}

fn held(root: &Path, path: &Path) -> io::Result<Held> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let (dir, name) = (Dir::open(root, dir)?, name.to_owned());
    Ok(Held { dir, name })
}

/// Writes beside the place and then into it, so that whoever looks sees the old or the new one, also after a power cut.
fn put(at: &Path, mode: u32, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> io::Result<()> {
    let dir = at.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .suffix(".tmp")
        .tempfile_in(dir)?;
    write(file.as_file_mut())?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(at)?;
    sync(dir)
}

/// As [`put`], with the owner and the mode of what is there, which says what it did when it was read.
fn edit(at: &Path, was: Option<&str>, text: &str) -> io::Result<()> {
    // Last of all, when the new one is written already.
    let is_same = || {
        let is_same = match fs::read(at) {
            // Ours too, where the step is done a second time.
            Ok(there) => was.is_some_and(|was| was.as_bytes() == there) || there == text.as_bytes(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => was.is_none(),
            Err(error) => return Err(error),
        };
        if is_same {
            Ok(())
        } else {
            Err(io::Error::other(Changed))
        }
    };
    let before = match fs::metadata(at) {
        Ok(before) => before,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return put(at, 0o644, |file| {
                file.write_all(text.as_bytes())?;
                is_same()
            });
        }
        Err(error) => return Err(error),
    };
    put(at, before.mode() & 0o7777, |file| {
        file.write_all(text.as_bytes())?;
        fchown(&*file, Some(before.uid()), Some(before.gid()))?;
        file.sync_all()?;
        is_same()
    })
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// A file of the host whose root is mounted somewhere; `None` where it can't be read.
pub(crate) fn read(root: &Path, path: &Path) -> Option<Vec<u8>> {
    inside(root, path).and_then(fs::read).ok()
}

/// Where a path of the host is, as seen from here: links on the way are followed inside the host's root, as the host
/// would. What is at the path itself is not followed.
pub(super) fn inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    Ok(beneath(root, &walk(root, path, false)?))
}

/// Where what a path of the host leads to is, as seen from here: as [`inside`], and a link at the path itself is
/// followed too.
pub(crate) fn followed(root: &Path, path: &Path) -> io::Result<PathBuf> {
    Ok(beneath(root, &walk(root, path, true)?))
}

/// As above, on the host.
fn walk(root: &Path, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
    const MOST_LINKS: usize = 40;
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    let mut real = PathBuf::from("/");
    let mut links = 0;
    let mut components: Vec<Component<'_>>;
    'again: loop {
        let Some(next) = rest.pop() else {
            return Ok(real);
        };
        components = next.components().collect();
        for (index, component) in components.iter().enumerate() {
            match component {
                Component::RootDir => real = PathBuf::from("/"),
                Component::ParentDir => {
                    real.pop();
                }
                Component::CurDir | Component::Prefix(_) => {}
                Component::Normal(name) => {
                    let after: PathBuf = components[index + 1..].iter().collect();
                    let is_last = after.as_os_str().is_empty() && rest.is_empty();
                    let link = fs::read_link(beneath(root, &real.join(name)));
                    let Some(target) = link.ok().filter(|_| follow_last || !is_last) else {
                        real.push(name);
                        continue;
                    };
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(io::Error::from_raw_os_error(
                            rustix::io::Errno::LOOP.raw_os_error(),
                        ));
                    }
                    if !after.as_os_str().is_empty() {
                        rest.push(after);
                    }
                    rest.push(target);
                    continue 'again;
                }
            }
        }
    }
}

fn beneath(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
