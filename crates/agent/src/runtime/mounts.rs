//! The answer to the kubelet where the container runtime takes no CDI names: device nodes, and files of the driver where
//! a container's loader finds them without being told.
//!
//! No hook runs in this tier, so nothing writes the loader's cache or makes links in the container. Each library is
//! therefore mounted under every name that programs ask for, in each directory that a loader knows by itself: Debian's
//! and the one of everybody else. `docs/runtime-tiers.md` says what was tried, and what this tier can't do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pitcrew_cdi::spec::{DeviceNode, Mount};
use pitcrew_cdi::{ContainerEdits, Spec};
use pitcrew_core::ports::HostFs;

/// Directories that glibc's loader searches whatever its cache says, of which an image has at least one: that of Debian
/// and Ubuntu, and that of RHEL, SUSE, Fedora and Arch. Not `/lib...`: where that is a directory of its own, `/usr/lib...`
/// is searched too.
pub const LOADER_DIRS: [&str; 2] = if cfg!(target_arch = "aarch64") {
    ["/usr/lib/aarch64-linux-gnu", "/usr/lib64"]
} else {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
};

/// What a container gets: device nodes, files and variables, as the kubelet takes them from a device plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Device nodes, by their path in the container.
    pub devices: Vec<DeviceFile>,
    /// Files and directories, by their path in the container.
    pub mounts: Vec<BindMount>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceFile {
    /// Where it is in the container.
    pub container: String,
    /// Where it is on the host.
    pub host: String,
    /// What the container's cgroup allows: of `r`, `w` and `m`.
    pub permissions: String,
}

/// A file or directory of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BindMount {
    /// Where it is in the container.
    pub container: String,
    /// Where it is on the host. For a library with a SONAME that is the host's link of that name, which the container
    /// runtime follows at every start: it stays right when the driver is replaced.
    pub host: String,
    /// False for sockets, which are written to.
    pub read_only: bool,
}

/// A device that the specification doesn't have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the specification of {kind} has no device `{name}`")]
pub struct NoSuchDevice {
    /// Kind of the specification.
    pub kind: String,
    /// What was asked for.
    pub name: String,
}

/// What a container gets that is given these devices of a specification.
///
/// # Errors
/// Where the specification lacks one of them.
pub fn answer(spec: &Spec, devices: &[&str]) -> Result<Answer, NoSuchDevice> {
    let mut edits = ContainerEdits::default();
    for name in devices {
        let found = spec.devices.iter().find(|device| device.name == *name);
        let found = found.ok_or_else(|| NoSuchDevice {
            kind: spec.kind.clone(),
            name: (*name).to_owned(),
        })?;
        edits.append(found.container_edits.clone());
    }
    edits.append(spec.container_edits.clone());
    let nodes: BTreeSet<DeviceFile> = edits.device_nodes.iter().map(device).collect();
    let mounts: BTreeMap<String, BindMount> = files(&edits)
        .into_iter()
        .map(|mount| (mount.container.clone(), mount))
        .collect();
    let env = edits.env.iter().filter_map(|pair| pair.split_once('='));
    Ok(Answer {
        devices: nodes.into_iter().collect(),
        mounts: mounts.into_values().collect(),
        env: env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    })
}

impl Answer {
    /// Paths on the host that aren't there. containerd makes a directory of each when it starts the container, on the
    /// host: an answer that has any must not be given.
    pub fn missing(&self, fs: &dyn HostFs) -> Vec<String> {
        let devices = self.devices.iter().map(|device| &device.host);
        let mounts = self.mounts.iter().map(|mount| &mount.host);
        devices
            .chain(mounts)
            .filter(|path| fs.kind(Path::new(path)).is_err())
            .cloned()
            .collect()
    }
}

fn device(node: &DeviceNode) -> DeviceFile {
    let permissions = match node.permissions.as_str() {
        "" => "rwm",
        given => given,
    };
    DeviceFile {
        container: node.path.clone(),
        host: node.on_host().to_owned(),
        permissions: permissions.to_owned(),
    }
}

fn files(edits: &ContainerEdits) -> Vec<BindMount> {
    let dirs = library_dirs(edits);
    let links = links(edits);
    let mut mounts = Vec::new();
    for mount in edits.mounts.iter().filter(|mount| mount.kind.is_empty()) {
        let inside = Path::new(&mount.container_path);
        let Some(dir) = dirs.iter().find(|dir| is_library(inside, dir)) else {
            mounts.push(as_is(mount));
            continue;
        };
        let names = names(inside, &links);
        let host = on_host(mount, inside, &names);
        let all = if names.is_empty() {
            BTreeSet::from([inside.to_owned()])
        } else {
            names
        };
        for name in all {
            // What a link outside of the directory of libraries is for, no loader knows.
            let Ok(below) = name.strip_prefix(dir) else {
                continue;
            };
            mounts.extend(LOADER_DIRS.iter().map(|dir| BindMount {
                container: text(&Path::new(dir).join(below)),
                host: host.clone(),
                read_only: true,
            }));
        }
    }
    mounts
}

fn as_is(mount: &Mount) -> BindMount {
    BindMount {
        container: mount.container_path.clone(),
        host: mount.host_path.clone(),
        read_only: mount.options.iter().any(|option| option == "ro"),
    }
}

/// Directories that hold the driver's main libraries, longest first, so that what lies in one within another is taken for
/// a part of the inner.
fn library_dirs(edits: &ContainerEdits) -> Vec<PathBuf> {
    let main = |path: &&Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["libcuda.so.", "libnvidia-ml.so."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let paths = edits.mounts.iter().map(|mount| Path::new(&mount.container_path));
    let dirs: BTreeSet<PathBuf> = paths
        .filter(main)
        .filter_map(|path| path.parent())
        .map(Path::to_owned)
        .collect();
    let mut dirs: Vec<PathBuf> = dirs.into_iter().collect();
    dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    dirs
}

/// True for a file below the directory whose name has `.so` in it as libraries do.
fn is_library(path: &Path, dir: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_so = name
        .split_once(".so")
        .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('.'));
    is_so && path.starts_with(dir)
}

/// Links that the hooks would make in the container, as link and where it points, both absolute.
fn links(edits: &ContainerEdits) -> Vec<(PathBuf, PathBuf)> {
    let hooks = edits
        .hooks
        .iter()
        .filter(|hook| hook.args.get(1).is_some_and(|name| name == "create-symlinks"));
    let pairs = hooks.flat_map(|hook| hook.args.windows(2).filter(|pair| pair[0] == "--link"));
    pairs
        .filter_map(|pair| pair[1].split_once("::"))
        .map(|(target, link)| {
            let dir = Path::new(link).parent().unwrap_or(Path::new("/"));
            (PathBuf::from(link), normal(&dir.join(target)))
        })
        .collect()
}

/// The path with `.` and `..` taken away by name.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Every link that leads to the file, over others or not.
fn names(file: &Path, links: &[(PathBuf, PathBuf)]) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    let mut targets = vec![file.to_owned()];
    while let Some(target) = targets.pop() {
        for (link, _) in links.iter().filter(|(_, to)| *to == target) {
            if names.insert(link.clone()) {
                targets.push(link.clone());
            }
        }
    }
    names
}

/// The host's link by the library's SONAME where there is one, else the file: specifications name a link of the form
/// `libX.so.N` beside `libX.so.VERSION` only where the host has it.
fn on_host(mount: &Mount, inside: &Path, names: &BTreeSet<PathBuf>) -> String {
    let file = inside.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.split_once(".so.").map(|(stem, _)| format!("{stem}.so."));
    let is_soname = |name: &&PathBuf| {
        let own = name.file_name().unwrap_or_default().to_string_lossy();
        let number = stem.as_deref().and_then(|stem| own.strip_prefix(stem));
        name.parent() == inside.parent()
            && number
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let soname = names.iter().find(is_soname).and_then(|name| name.file_name());
    soname.map_or_else(
        || mount.host_path.clone(),
        |name| text(&Path::new(&mount.host_path).with_file_name(name)),
    )
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
