//! Before GPUs work: kernel modules, and device nodes that nobody has made yet.
//!
//! NVIDIA's driver leaves both to programs: a headless machine boots without `/dev/nvidia-uvm`, without which no CUDA
//! program starts, and a MIG device that is cut later has no capability nodes. What is there and right is left alone; of a
//! GPU that isn't the driver's nothing is touched.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::{FileKind, HostFs};
use pitcrew_host::Host;
use pitcrew_host::devices::parse_devices;

use super::install::{Executor, Step};
use crate::deps::System;

/// Modules in the order in which they are loaded, as `modprobe` and as `/proc/modules` call them.
const MODULES: [(&str, &str); 3] = [
    ("nvidia", "nvidia"),
    ("nvidia-uvm", "nvidia_uvm"),
    ("nvidia-modeset", "nvidia_modeset"),
];
/// Nodes that all GPUs share: path, names of the major number in `/proc/devices` (older drivers have one for all), and
/// minor number.
const CONTROL: [(&str, &[&str], u32); 4] = [
    ("/dev/nvidiactl", &["nvidiactl", "nvidia", "nvidia-frontend"], 255),
    (
        "/dev/nvidia-modeset",
        &["nvidia-modeset", "nvidia", "nvidia-frontend"],
        254,
    ),
    ("/dev/nvidia-uvm", &["nvidia-uvm"], 0),
    ("/dev/nvidia-uvm-tools", &["nvidia-uvm"], 1),
];
const OF_GPUS: [&str; 2] = ["nvidia", "nvidia-frontend"];
const CAPABILITIES: &str = "/proc/driver/nvidia/capabilities";
/// `gpu0/mig/gi1/ci0/access` is the deepest.
const DEEPEST: usize = 6;

/// A device node that should be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Where.
    pub path: PathBuf,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// One change to `/dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a directory, makes a link, or takes away a node whose number belongs to nobody any more.
    File(Step),
    /// Makes a node.
    Node(Node),
}

/// What was done, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Modules that were loaded.
    pub loaded: Vec<&'static str>,
    /// Paths that were made.
    pub made: Vec<PathBuf>,
    /// What could not be done, why, and what to do: one sentence each, in lower case.
    pub remarks: Vec<String>,
}

/// Loads what isn't loaded and makes what isn't there. Nothing is done twice, and nothing at all on a node without a GPU
/// that the driver may have.
pub async fn prepare(
    fs: &(dyn HostFs + Send + Sync),
    host: &Host,
    root: &Path,
    system: &dyn System,
) -> Prepared {
    let mut prepared = Prepared::default();
    for module in modules(host) {
        match system.load_module(module).await {
            Ok(()) => prepared.loaded.push(module),
            Err(error) => {
                prepared.remarks.push(format!(
                    "the kernel module {module} could not be loaded: {error}; see what `modprobe {module}` and `dmesg` say \
                     on the node"
                ));
                // The others need the first.
                if module == MODULES[0].0 {
                    return prepared;
                }
            }
        }
    }
    let executor = Executor::new(root);
    for change in changes(fs, &nodes(fs)) {
        let (path, done) = match &change {
            Change::File(step) => (step.path(), executor.step(step).map_err(|error| error.source)),
            Change::Node(node) => (
                node.path.as_path(),
                system.make_char_device(&node.path, node.major, node.minor),
            ),
        };
        match done {
            Ok(()) => prepared.made.push(path.to_owned()),
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                prepared
                    .remarks
                    .push(format!("`{}` could not be made: {error}", path.display()));
                if error.kind() == io::ErrorKind::PermissionDenied {
                    return prepared;
                }
            }
        }
    }
    prepared
}

/// Modules that should be loaded and aren't. None where no GPU is the driver's to have: bound to `vfio-pci` or to
/// `nouveau`, or none there; and none where no module is on the node, or a container brings it.
pub fn modules(host: &Host) -> Vec<&'static str> {
    let free = |driver: &Reading<String>| match driver {
        Reading::Value(name) => name == "nvidia",
        Reading::NotSupported => true,
        Reading::Failed(_) => false,
    };
    let gpus = host.gpus.value().map(Vec::as_slice).unwrap_or_default();
    let driver = &host.driver;
    let Reading::Value(loaded) = &driver.loaded_modules else {
        return Vec::new();
    };
    let is_loaded = |name: &str| loaded.iter().any(|module| module == name);
    // One whose version can't be told is a module all the same.
    let can_load = driver.module_on_disk != Reading::NotSupported && driver.container_root.is_none();
    if !gpus.iter().any(|gpu| free(&gpu.driver)) || !(is_loaded("nvidia") || can_load) {
        return Vec::new();
    }
    MODULES
        .iter()
        .filter(|(_, name)| !is_loaded(name))
        .map(|(module, _)| *module)
        .collect()
}

/// Nodes that the loaded driver has, whether they are there or not: of its control, its GPUs and its capabilities.
pub fn nodes(fs: &dyn HostFs) -> Vec<Node> {
    let text = |path: &Path| {
        fs.read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .ok()
    };
    let devices = text(Path::new("/proc/devices")).unwrap_or_default();
    let majors: BTreeMap<String, u32> = parse_devices(&devices).into_iter().collect();
    let major = |names: &[&str]| names.iter().find_map(|name| majors.get(*name).copied());
    let modeset = text(Path::new("/proc/modules")).is_some_and(|text| text.contains("nvidia_modeset "));

    let mut nodes = Vec::new();
    for (path, names, minor) in CONTROL {
        if path == "/dev/nvidia-modeset" && !modeset {
            continue;
        }
        nodes.extend(major(names).map(|major| Node {
            path: path.into(),
            major,
            minor,
        }));
    }
    if let Some(major) = major(&OF_GPUS) {
        let dir = Path::new("/proc/driver/nvidia/gpus");
        let gpus = fs.list(dir).unwrap_or_default();
        let gpus = gpus
            .iter()
            .filter_map(|address| text(&dir.join(address).join("information")));
        nodes.extend(
            gpus.filter_map(|text| parse_information(&text))
                .map(|minor| Node {
                    path: format!("/dev/nvidia{minor}").into(),
                    major,
                    minor,
                }),
        );
    }
    if let Some(major) = major(&["nvidia-caps"]) {
        let mut minors = Vec::new();
        capabilities(fs, Path::new(CAPABILITIES), DEEPEST, &mut minors);
        nodes.extend(minors.into_iter().map(|minor| Node {
            path: format!("/dev/nvidia-caps/nvidia-cap{minor}").into(),
            major,
            minor,
        }));
    }
    nodes.sort();
    nodes.dedup();
    nodes
}

/// Minors of the capabilities that there are below a directory of procfs.
fn capabilities(fs: &dyn HostFs, dir: &Path, depth: usize, minors: &mut Vec<u32>) {
    for name in fs.list(dir).unwrap_or_default() {
        let path = dir.join(name);
        match fs.kind(&path) {
            Ok(FileKind::Directory) if depth > 0 => capabilities(fs, &path, depth - 1, minors),
            Ok(FileKind::File(_)) => {
                let text = fs
                    .read(&path)
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                minors.extend(text.ok().and_then(|text| parse_capability(&text)));
            }
            _ => {}
        }
    }
}

/// The minor number of a GPU's node in its `information`; `None` where it has none, or the driver excludes the GPU.
pub fn parse_information(text: &str) -> Option<u32> {
    let of = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
    };
    if of("GPU Excluded") == Some("Yes") {
        return None;
    }
    of("Device Minor")?.parse().ok()
}

/// The minor number in a capability's file.
pub fn parse_capability(text: &str) -> Option<u32> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, minor) = lines.find(|(name, _)| name.trim() == "DeviceFileMinor")?;
    minor.trim().parse().ok()
}

/// What of `/dev` is to be changed so that these nodes are there, and their links in `/dev/char`, by which systemd knows
/// devices that it lets containers use.
pub fn changes(fs: &dyn HostFs, nodes: &[Node]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for node in nodes {
        match fs.kind(&node.path) {
            Ok(FileKind::CharDevice { major, minor }) if (major, minor) == (node.major, node.minor) => {
                continue;
            }
            // The numbers of all but the GPUs are given out anew whenever a module is loaded.
            Ok(FileKind::CharDevice { .. }) => changes.push(Change::File(Step::remove(node.path.clone()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Whoever put something else there meant something by it.
            Ok(_) | Err(_) => continue,
        }
        let dir = node.path.parent().unwrap_or(Path::new("/dev")).to_owned();
        if !dirs.contains(&dir) && fs.kind(&dir).is_err() {
            changes.push(Change::File(Step::make_dir(&dir)));
            dirs.push(dir);
        }
        changes.push(Change::Node(node.clone()));
    }
    let char_dir = Path::new("/dev/char");
    if matches!(fs.kind(char_dir), Ok(FileKind::Directory)) {
        for node in nodes {
            let link = char_dir.join(format!("{}:{}", node.major, node.minor));
            let below = node.path.strip_prefix("/dev").unwrap_or(&node.path);
            let target = Path::new("..").join(below);
            let is_right = matches!(fs.kind(&link), Ok(FileKind::Link(to)) if to == target);
            if !is_right {
                changes.push(Change::File(Step::link(&link, &target)));
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests;
