//! A glance at what changes when something happens to the node, without a call of the driver.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs};

/// Files whose text is taken, up to a few KiB of each.
const TEXTS: &[&str] = &["/sys/module/nvidia/version", "/proc/driver/nvidia/version"];
/// Directories whose names are taken, with where links lead.
const LISTS: &[&str] = &[
    "/proc/driver/nvidia/gpus",
    "/sys/bus/pci/drivers/nvidia",
    "/sys/bus/pci/drivers/vfio-pci",
    "/sys/bus/pci/drivers/nouveau",
    "/etc/cdi",
    "/var/run/cdi",
];
/// Instances of MIG are directories below this one.
const CAPABILITIES: &str = "/proc/driver/nvidia/capabilities";
/// How deep they lie: `gpu0/mig/gi1/ci0`.
const DEPTH: usize = 4;
/// How much of a file is taken.
const MOST: usize = 64 * 1024;

/// What of the driver and what of the rest was seen, as numbers that differ when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Glance {
    /// The driver, its GPUs and their MIG instances: the GPUs must be looked at.
    pub(super) driver: u64,
    /// Device nodes, libraries, the runtime's configuration, CDI: the host's facts must be gathered.
    pub(super) host: u64,
}

/// Looks at the files that there always are, and at those that are named.
pub(super) fn glance(fs: &dyn HostFs, files: &[PathBuf]) -> Glance {
    let mut driver = DefaultHasher::new();
    for path in TEXTS {
        text(fs, Path::new(path), &mut driver);
    }
    for path in LISTS {
        if !path.ends_with("/cdi") {
            fs.list(Path::new(path)).ok().hash(&mut driver);
        }
    }
    tree(fs, Path::new(CAPABILITIES), DEPTH, &mut driver);

    let mut host = DefaultHasher::new();
    for path in LISTS.iter().filter(|path| path.ends_with("/cdi")) {
        for name in fs.list(Path::new(path)).unwrap_or_default() {
            let path = Path::new(path).join(&name);
            name.hash(&mut host);
            kind(fs, &path, &mut host);
        }
    }
    let nodes = fs.list(Path::new("/dev")).unwrap_or_default();
    for name in nodes.iter().filter(|name| name.starts_with("nvidia")) {
        name.hash(&mut host);
        kind(fs, &Path::new("/dev").join(name), &mut host);
    }
    for path in files {
        kind(fs, path, &mut host);
        text(fs, path, &mut host);
    }
    Glance {
        driver: driver.finish(),
        host: host.finish(),
    }
}

fn text(fs: &dyn HostFs, path: &Path, hasher: &mut DefaultHasher) {
    fs.read_part(path, 0, MOST).ok().hash(hasher);
}

fn kind(fs: &dyn HostFs, path: &Path, hasher: &mut DefaultHasher) {
    match fs.kind(path) {
        Ok(FileKind::File(size)) => (1_u8, size).hash(hasher),
        Ok(FileKind::Directory) => 2_u8.hash(hasher),
        Ok(FileKind::Link(target)) => (3_u8, target).hash(hasher),
        Ok(FileKind::CharDevice { major, minor }) => (4_u8, major, minor).hash(hasher),
        Ok(FileKind::Other) => 5_u8.hash(hasher),
        Err(_) => 6_u8.hash(hasher),
    }
}

fn tree(fs: &dyn HostFs, path: &Path, depth: usize, hasher: &mut DefaultHasher) {
    let Ok(names) = fs.list(path) else { return };
    for name in names {
        name.hash(hasher);
        if depth > 1 {
            tree(fs, &path.join(name), depth - 1, hasher);
        }
    }
    // Or two instances could trade places unseen.
    u64::MAX.hash(hasher);
}
