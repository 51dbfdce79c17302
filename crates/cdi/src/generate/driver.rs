//! The driver's libraries: where they are, and which.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use pitcrew_core::ports::HostFs;
use pitcrew_host::ldcache;

use super::root::{Root, matches};
use super::{GenerateError, Options};

/// Where the reference looks first, in this order.
const DIRS: [&str; 11] = [
    "/",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu/nvidia/current",
    "/lib/aarch64-linux-gnu/nvidia/current",
];
/// Where we look where there is no driver elsewhere: places of installers that tell no loader of them.
const MORE_DIRS: [&str; 9] = [
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib64/nvidia",
    "/usr/lib",
    "/usr/local/lib64",
    "/usr/local/lib",
    "/opt/nvidia/lib64",
    "/home/kubernetes/bin/nvidia/lib64",
    "/run/opengl-driver/lib",
];
/// Libraries whose names tell the version of the driver; the first that is there does.
const TELLING: [&str; 2] = ["libcuda.so", "libnvidia-ml.so"];

/// An installed driver, by its libraries. Paths are those in its root, without links.
pub(super) struct Driver<'a> {
    pub(super) root: Root<'a>,
    /// Version in the names of its libraries.
    pub(super) version: String,
    /// Directories that have libraries of this version.
    pub(super) dirs: Vec<PathBuf>,
    places: Places<'a>,
}

impl<'a> Driver<'a> {
    /// Finds the libraries of a version, or of whichever is there.
    pub(super) fn find(
        version: Option<&str>,
        fs: &'a dyn HostFs,
        options: &'a Options,
    ) -> Result<Self, GenerateError> {
        let root = Root::new(fs, &options.driver_root);
        let mut places = Places {
            root,
            given: &options.library_dirs,
            cached: cached(root),
        };
        let wanted = version.unwrap_or("*.*");
        let mut found = places.version(wanted);
        let mut others = Vec::new();
        if found.is_none() {
            others = versions(&places);
        }
        if found.is_none() && options.library_dirs.is_empty() {
            places = Places {
                root,
                given: more_dirs(),
                cached: Vec::new(),
            };
            found = places.version(wanted);
        }
        let Some(version) = found else {
            others.extend(versions(&places));
            others.sort_unstable();
            others.dedup();
            return Err(GenerateError::NoLibraries {
                version: version.map(str::to_owned),
                root: options.driver_root.clone(),
                others,
            });
        };
        let mut dirs: Vec<PathBuf> = Vec::new();
        for library in places.locate(&format!("lib*.so.{version}")) {
            if let Some(dir) = library
                .parent()
                .filter(|dir| !dirs.iter().any(|known| known == dir))
            {
                dirs.push(dir.to_owned());
            }
        }
        Ok(Self {
            root,
            version,
            dirs,
            places,
        })
    }

    /// Libraries anywhere that match.
    pub(super) fn anywhere(&self, pattern: &str) -> Vec<PathBuf> {
        self.places.locate(pattern)
    }

    /// Libraries that match in the driver's directories, and in subdirectories of these.
    pub(super) fn own(&self, pattern: &str, below: &[&str]) -> Vec<PathBuf> {
        let deeper = below
            .iter()
            .flat_map(|below| self.dirs.iter().map(move |dir| dir.join(below)));
        let dirs: Vec<PathBuf> = self.dirs.iter().cloned().chain(deeper).collect();
        self.places.in_dirs(&dirs, pattern)
    }
}

/// [`MORE_DIRS`] as paths.
fn more_dirs() -> &'static [PathBuf] {
    static DIRS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| MORE_DIRS.iter().map(PathBuf::from).collect());
    &DIRS
}

/// Versions of all drivers that are there.
fn versions(places: &Places<'_>) -> Vec<String> {
    let of = |library: &&str| {
        let found = places.locate(&format!("{library}.*.*"));
        let prefix = format!("{library}.");
        let version =
            move |path: &PathBuf| Some(path.file_name()?.to_str()?.strip_prefix(&prefix)?.to_owned());
        found.iter().filter_map(version).collect::<Vec<_>>()
    };
    let versions: BTreeSet<String> = TELLING.iter().flat_map(of).collect();
    versions.into_iter().collect()
}

/// Libraries in the loader's cache under a root, with every link on the way to each.
fn cached(root: Root<'_>) -> Vec<PathBuf> {
    let path = Path::new("/etc/ld.so.cache");
    let real = root.follow(path).map(|(real, _)| root.on_host(&real));
    let bytes = real.and_then(|real| root.fs.read(&real).ok());
    let entries = bytes
        .and_then(|bytes| ldcache::parse(&bytes).ok())
        .unwrap_or_default();
    let mut seen = BTreeSet::new();
    let paths = entries.into_iter().map(|(_, path)| PathBuf::from(path));
    let paths = paths.filter(|path| seen.insert(path.clone()) && root.is_file(path));
    paths.flat_map(|path| root.chain(&path)).collect()
}

struct Places<'a> {
    root: Root<'a>,
    given: &'a [PathBuf],
    cached: Vec<PathBuf>,
}

impl Places<'_> {
    /// Libraries that match: those in the directories that were given, else those in the usual ones, else those that
    /// the loader knows.
    fn locate(&self, pattern: &str) -> Vec<PathBuf> {
        if !self.given.is_empty() {
            return self.in_dirs(self.given, pattern);
        }
        let mut found = self.in_dirs(&DIRS, pattern);
        if found.is_empty() {
            let matching = self.cached.iter().filter(|path| {
                let name = path.file_name().unwrap_or_default();
                matches(pattern, &name.to_string_lossy())
            });
            found = self.real(matching.cloned());
        }
        found
    }

    /// The version in the name of the first library that tells it.
    fn version(&self, wanted: &str) -> Option<String> {
        TELLING.iter().find_map(|library| {
            let paths = self.locate(&format!("{library}.{wanted}"));
            let name = paths.first()?.file_name()?.to_str()?;
            Some(name.strip_prefix(library)?.strip_prefix('.')?.to_owned())
        })
    }

    fn in_dirs<P: AsRef<Path>>(&self, dirs: &[P], pattern: &str) -> Vec<PathBuf> {
        self.real(
            dirs.iter()
                .flat_map(|dir| self.root.matching(dir.as_ref(), pattern)),
        )
    }

    /// Without links, and each once.
    fn real(&self, paths: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        paths
            .filter_map(|path| Some(self.root.follow(&path)?.0))
            .filter(|path| seen.insert(path.clone()))
            .collect()
    }
}
