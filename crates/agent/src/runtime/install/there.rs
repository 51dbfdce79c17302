//! What is there of what the agent writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pitcrew_host::Host;
use rustix::fs::{Access, StatVfsMountFlags};

use super::manifest::{self, Kind, Manifest};
use super::step::{self, UNFINISHED, followed, inside};
use super::{BIN, HOOK, MANIFEST, WRAPPER, WRAPPER_CDI, WRAPPER_SETTINGS, Wanted};
use crate::runtime::tier::{TOOLKIT_DIR, is_supervised};

/// What is at a path that a link of ours may be at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    /// Nothing.
    Nobody,
    /// A link into our directory, and where it leads.
    Ours(PathBuf),
    /// Something that we didn't write.
    Theirs,
}

/// A directory that our files could lie in, and why they can't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub path: PathBuf,
    /// Why nothing can be written or executed there.
    pub closed: Option<String>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct There {
    /// Our own directory, on the host.
    pub home: PathBuf,
    /// Why it is not the usual one.
    pub home_remark: Option<String>,
    /// The list of all that was written; empty where there is none.
    pub manifest: Manifest,
    /// Versions that have a directory.
    pub versions: BTreeSet<String>,
    /// Programs of the wanted version that are there, as they should be.
    pub same_binary: BTreeSet<String>,
    /// The wrapper's settings in the wanted version.
    pub settings: Option<String>,
    /// Files of ours that were never finished.
    pub leftovers: Vec<PathBuf>,
    /// Why nothing can be written into the toolkit directory.
    pub toolkit_closed: Option<String>,
    /// Where links to the wrapper are, or shall be: the toolkit directory, or one of ours where that is closed.
    pub links_dir: PathBuf,
    /// What is where links to the wrapper are.
    pub occupants: BTreeMap<PathBuf, Occupant>,
    /// Texts of files that have a piece of ours.
    pub pieces: BTreeMap<PathBuf, String>,
    /// Directories that are there, out of those that may have to be made.
    pub dirs: BTreeSet<PathBuf>,
}

/// Directories that our files can lie in, best first: on RKE2 and K3s their own, whose SELinux labels and fapolicyd rules
/// let programs run.
pub(super) fn candidates(host: &Host) -> Vec<PathBuf> {
    let own = host
        .distribution
        .value()
        .filter(|_| is_supervised(host))
        .map(|distribution| distribution.data_dir.join("agent/pitcrew"));
    own.into_iter()
        .chain(["/opt/pitcrew", "/var/lib/pitcrew"].map(PathBuf::from))
        .collect()
}

/// The first place that is open; one that has a list already stays the one, so that nothing is lost from sight.
pub(super) fn choose(places: &[Place], has_list: impl Fn(&Path) -> bool) -> (PathBuf, Option<String>) {
    let chosen = places
        .iter()
        .find(|place| has_list(&place.path))
        .or_else(|| places.iter().find(|place| place.closed.is_none()));
    let Some(chosen) = chosen.or(places.first()) else {
        return ("/opt/pitcrew".into(), None);
    };
    let before: Vec<&str> = places
        .iter()
        .take_while(|place| *place != chosen)
        .filter_map(|place| place.closed.as_deref())
        .collect();
    let remark = (!before.is_empty()).then(|| {
        format!(
            "our files lie in `{}`: {}",
            chosen.path.display(),
            before.join("; ")
        )
    });
    (chosen.path.clone(), remark)
}

impl There {
    /// Looks at the host whose root is mounted at `root`.
    pub fn look(root: &Path, host: &Host, wanted: &Wanted) -> Self {
        let places: Vec<Place> = candidates(host)
            .into_iter()
            .map(|path| Place {
                closed: closed(root, &path),
                path,
            })
            .collect();
        let read = |path: &Path| step::read(root, path);
        let (home, home_remark) = choose(&places, |home| read(&home.join(MANIFEST)).is_some());
        let manifest = read(&home.join(MANIFEST)).and_then(|text| manifest::parse(&text));
        let toolkit = Path::new(TOOLKIT_DIR);
        let dir = home.join(&wanted.version);

        let wanted_bytes = fs::read(&wanted.binary).ok();
        let same = |name: &&str| {
            let there = read(&dir.join(name));
            there.is_some() && there == wanted_bytes && is_executable(root, &dir.join(name))
        };
        let same_binary = [HOOK, WRAPPER]
            .into_iter()
            .filter(same)
            .map(str::to_owned)
            .collect();
        let settings = read(&dir.join(WRAPPER_SETTINGS)).and_then(|text| String::from_utf8(text).ok());

        let names = |dir: &Path| -> Vec<(String, bool)> {
            let entries = followed(root, dir).and_then(fs::read_dir);
            let entry = |entry: fs::DirEntry| {
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                Some((entry.file_name().into_string().ok()?, is_dir))
            };
            entries
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(entry)
                .collect()
        };
        let versions: BTreeSet<String> = names(&home)
            .into_iter()
            // Reports of proofs may lie beside them.
            .filter_map(|(name, is_dir)| (is_dir && name != BIN && name != "proofs").then_some(name))
            .collect();
        let mut leftovers = Vec::new();
        let own_dirs = versions.iter().map(|version| home.join(version));
        for dir in own_dirs.chain([home.clone(), home.join(BIN), toolkit.to_owned()]) {
            let unfinished = names(&dir).into_iter().map(|(name, _)| name);
            let unfinished = unfinished.filter(|name| {
                name.strip_suffix(".tmp")
                    .is_some_and(|stem| stem.starts_with(UNFINISHED))
            });
            leftovers.extend(unfinished.map(|name| dir.join(name)));
        }
        leftovers.sort();

        let toolkit_closed = closed(root, toolkit);
        // Where nobody looks for a wrapper, it lies where NVIDIA's installer deletes nothing.
        let links_dir = match toolkit_closed {
            None if is_supervised(host) => toolkit.to_owned(),
            _ => home.join(BIN),
        };
        let places = [toolkit, &home.join(BIN)].map(|dir| [WRAPPER, WRAPPER_CDI].map(|name| dir.join(name)));
        let occupants = places.into_iter().flatten().map(|path| {
            let occupant = occupant(root, &path, &home);
            (path, occupant)
        });
        let may_be_made = [&home, &dir, Path::new("/usr/local/nvidia"), &links_dir];
        let is_dir = |path: &&Path| followed(root, path).is_ok_and(|path| path.is_dir());
        let dirs = may_be_made
            .into_iter()
            .filter(is_dir)
            .map(Path::to_owned)
            .collect();
        let manifest = manifest.unwrap_or_default();
        let pieces = manifest
            .entries()
            .iter()
            .filter(|entry| entry.kind == Kind::Piece);
        let pieces = pieces.filter_map(|entry| {
            let text = followed(root, &entry.path).and_then(fs::read_to_string).ok()?;
            Some((entry.path.clone(), text))
        });
        Self {
            pieces: pieces.collect(),
            toolkit_closed,
            links_dir,
            dirs,
            occupants: occupants.collect(),
            manifest,
            home,
            home_remark,
            versions,
            same_binary,
            settings,
            leftovers,
        }
    }

    /// True where the directory is there.
    pub(super) fn has(&self, dir: &Path) -> bool {
        self.dirs.contains(dir)
    }

    /// What is at a path that a link of ours may be at.
    pub fn occupant(&self, path: &Path) -> &Occupant {
        self.occupants.get(path).unwrap_or(&Occupant::Nobody)
    }

    /// Where our links lead.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Path> {
        self.occupants.values().filter_map(|occupant| match occupant {
            Occupant::Ours(target) => Some(target.as_path()),
            Occupant::Nobody | Occupant::Theirs => None,
        })
    }
}

fn occupant(root: &Path, path: &Path, home: &Path) -> Occupant {
    let Ok(real) = inside(root, path) else {
        return Occupant::Nobody;
    };
    match fs::read_link(&real) {
        Ok(target) if target.starts_with(home) => Occupant::Ours(target),
        Ok(_) => Occupant::Theirs,
        Err(_) if fs::symlink_metadata(&real).is_ok() => Occupant::Theirs,
        Err(_) => Occupant::Nobody,
    }
}

fn is_executable(root: &Path, path: &Path) -> bool {
    inside(root, path).is_ok_and(|path| rustix::fs::access(path, Access::EXEC_OK).is_ok())
}

/// Why programs can't be put into a directory, which may not be there yet.
fn closed(root: &Path, path: &Path) -> Option<String> {
    let exists = |path: &&Path| followed(root, path).is_ok_and(|path| path.is_dir());
    let nearest = path.ancestors().find(exists)?;
    let real = followed(root, nearest).ok()?;
    let flags = rustix::fs::statvfs(&real).ok()?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Some(format!("`{}` is mounted read-only", nearest.display()));
    }
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        return Some(format!(
            "no program may be started from `{}` (mounted noexec)",
            nearest.display()
        ));
    }
    let denied = rustix::fs::access(&real, Access::WRITE_OK).err()?;
    Some(format!(
        "`{}` can't be written to: {}",
        nearest.display(),
        std::io::Error::from(denied)
    ))
}
