//! What a CDI specification says, as device nodes and mounts of an answer to the kubelet: for a runtime that knows no
//! CDI, such as containerd 1.6 and 1.7.
//!
//! No hook runs there, so no loader's cache is written and no link is made. Each library is mounted once more for
//! every name that programs look for (its SONAME, and the bare `.so` where the host has that), into directories that
//! loaders search without a cache.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pitcrew_cdi::{ContainerEdits, Hook, Spec};

/// Directories that loaders of images for this machine search by themselves: Debian's and Ubuntu's, then those of RHEL,
/// SUSE and an unpatched glibc. The first is not there in images of the second kind, and the other way round; an
/// unused one does no harm.
pub const LOADER_DIRS: &[&str] = if cfg!(target_arch = "aarch64") {
    &["/usr/lib/aarch64-linux-gnu", "/usr/lib64"]
} else {
    &["/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
};

/// What a container may do with a device node.
const PERMISSIONS: &str = "rw";

/// A device node of an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Where it is on the host.
    pub on_host: String,
    /// Where it is in the container.
    pub inside: String,
    /// What the container's cgroup allows: of `r`, `w` and `m`.
    pub permissions: String,
}

/// A mount of an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// Where it is on the host.
    pub on_host: String,
    /// Where it is in the container.
    pub inside: String,
    /// True where the container can't write to it.
    pub read_only: bool,
}

/// What containers get of a specification without its hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Injection {
    /// Device nodes of each device, by its name.
    devices: BTreeMap<String, Vec<Node>>,
    /// Device nodes that come with any device.
    nodes: Vec<Node>,
    /// Mounts that come with any device.
    mounts: Vec<Mount>,
    /// Environment that comes with any device.
    env: BTreeMap<String, String>,
    /// What the specification has a hook do and nothing here does instead: names of hooks.
    lost: BTreeSet<String>,
}

/// What one container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Device nodes.
    pub nodes: Vec<Node>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Environment.
    pub env: BTreeMap<String, String>,
}

impl Injection {
    /// Takes a specification apart.
    ///
    /// `loader_dirs` are directories of the container that its loader searches by itself; see [`LOADER_DIRS`].
    pub fn of(spec: &Spec, loader_dirs: &[&str]) -> Self {
        let common = &spec.container_edits;
        let names = Names::of(&common.hooks);
        Self {
            devices: spec
                .devices
                .iter()
                .map(|device| (device.name.clone(), nodes(&device.container_edits)))
                .collect(),
            nodes: nodes(common),
            mounts: mounts(common, &names, loader_dirs),
            env: common
                .env
                .iter()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            lost: lost(spec),
        }
    }

    /// What a container gets with these devices; `None` where one isn't known.
    pub fn edits<'a>(&self, devices: impl IntoIterator<Item = &'a str>) -> Option<Edits> {
        let mut all = self.nodes.clone();
        for name in devices {
            for node in self.devices.get(name)? {
                if !all.contains(node) {
                    all.push(node.clone());
                }
            }
        }
        Some(Edits {
            nodes: all,
            mounts: self.mounts.clone(),
            env: self.env.clone(),
        })
    }

    /// The driver's device nodes alone, without those for drawing: what NVIDIA's plugin passes with
    /// `passDeviceSpecs`. `None` where a device isn't known.
    pub fn driver_nodes<'a>(&self, devices: impl IntoIterator<Item = &'a str>) -> Option<Vec<Node>> {
        let mut nodes = self.edits(devices)?.nodes;
        nodes.retain(|node| node.inside.starts_with("/dev/nvidia"));
        Some(nodes)
    }

    /// Hooks that do something which is not done instead, e.g. `enable-cuda-compat`: by name, each once.
    pub fn lost(&self) -> impl Iterator<Item = &str> {
        self.lost.iter().map(String::as_str)
    }
}

fn nodes(edits: &ContainerEdits) -> Vec<Node> {
    let node = |node: &pitcrew_cdi::DeviceNode| Node {
        on_host: node.on_host().to_owned(),
        inside: node.path.clone(),
        permissions: PERMISSIONS.to_owned(),
    };
    edits.device_nodes.iter().map(node).collect()
}

/// The mounts of a specification, libraries at every name and in every directory where they are looked for.
fn mounts(edits: &ContainerEdits, names: &Names, loader_dirs: &[&str]) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    let mut taken = BTreeSet::new();
    let mut add = |on_host: &str, inside: String, read_only: bool| {
        // Two files at one place: the first is the one that the specification's order means.
        if taken.insert(inside.clone()) {
            found.push(Mount {
                on_host: on_host.to_owned(),
                inside,
                read_only,
            });
        }
    };
    for mount in &edits.mounts {
        let read_only = mount.options.iter().any(|option| option == "ro");
        let inside = Path::new(&mount.container_path);
        let file = inside.file_name().and_then(|name| name.to_str());
        let dir = inside.parent().and_then(Path::to_str);
        let (Some(file), Some(dir)) = (file, dir) else {
            add(&mount.host_path, mount.container_path.clone(), read_only);
            continue;
        };
        if is_loaded_by_name(file, dir) {
            for name in names.of_file(dir, file) {
                for loader_dir in loader_dirs {
                    add(&mount.host_path, format!("{loader_dir}/{name}"), read_only);
                }
            }
            // A back end of GBM is a link in a directory of its own, where it is opened by path.
            for link in names.in_other_dirs(dir, file) {
                add(&mount.host_path, link, read_only);
            }
        } else {
            // What is looked for at a place, not by a loader; also under the names that hooks would give it there.
            for link in names.all(&format!("{dir}/{file}")) {
                add(&mount.host_path, link, read_only);
            }
            add(&mount.host_path, mount.container_path.clone(), read_only);
        }
    }
    found
}

/// True for a library that a loader finds by its name alone. Those of X.Org and VDPAU are opened by path.
fn is_loaded_by_name(file: &str, dir: &str) -> bool {
    let opened_by_path = ["xorg", "vdpau", "gbm"];
    let is_library = file
        .split_once(".so")
        .is_some_and(|(_, version)| version.is_empty() || version.starts_with('.'));
    file.starts_with("lib") && is_library && !dir.split('/').any(|part| opened_by_path.contains(&part))
}

/// The links that hooks would make.
struct Names {
    /// Full paths of links, by the full path of what they point to.
    links: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    fn of(hooks: &[Hook]) -> Self {
        let mut links: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let made = hooks.iter().filter(|hook| is(hook, "create-symlinks"));
        for link in made.flat_map(|hook| &hook.args) {
            let Some((target, link)) = link.split_once("::") else {
                continue;
            };
            let dir = Path::new(link).parent().unwrap_or(Path::new("/"));
            let target = clean(&dir.join(target));
            links.entry(target).or_default().insert(link.to_owned());
        }
        Self { links }
    }

    /// Full paths of all links to a file, also those that point to another link.
    fn all(&self, path: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            for link in self.links.get(&path).into_iter().flatten() {
                if found.insert(link.clone()) {
                    open.push(link.clone());
                }
            }
        }
        found
    }

    /// Names by which a loader looks for a library: those of the links beside it, or its own where there are none.
    fn of_file(&self, dir: &str, file: &str) -> BTreeSet<String> {
        let beside = format!("{dir}/");
        let names: BTreeSet<String> = self
            .all(&format!("{dir}/{file}"))
            .iter()
            .filter_map(|link| link.strip_prefix(&beside))
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            BTreeSet::from([file.to_owned()])
        } else {
            names
        }
    }

    /// Full paths of the links to a library in other directories than its own.
    fn in_other_dirs(&self, dir: &str, file: &str) -> BTreeSet<String> {
        let mut links = self.all(&format!("{dir}/{file}"));
        links.retain(|link| Path::new(link).parent().and_then(Path::to_str) != Some(dir));
        links
    }
}

/// Takes `.` and `..` out of a path.
fn clean(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.iter().filter_map(|part| part.to_str()) {
        match part {
            "/" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn is(hook: &Hook, name: &str) -> bool {
    hook.args.get(1).is_some_and(|argument| argument == name)
}

/// Hooks of a specification that nothing here stands for.
fn lost(spec: &Spec) -> BTreeSet<String> {
    let devices = spec.devices.iter().map(|device| &device.container_edits);
    let all = devices
        .chain([&spec.container_edits])
        .flat_map(|edits| &edits.hooks);
    let replaced = |hook: &&Hook| is(hook, "create-symlinks") || is(hook, "update-ldcache");
    all.filter(|hook| !replaced(hook))
        .filter_map(|hook| hook.args.get(1).or(hook.args.first()).cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_cdi::{Device, DeviceNode, Mount as CdiMount};

    fn hook(arguments: &[&str]) -> Hook {
        Hook {
            hook_name: "createContainer".to_owned(),
            path: "/usr/bin/nvidia-cdi-hook".to_owned(),
            args: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            ..Hook::default()
        }
    }

    fn mount(on_host: &str, inside: &str, options: &[&str]) -> CdiMount {
        CdiMount {
            host_path: on_host.to_owned(),
            container_path: inside.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            kind: String::new(),
        }
    }

    fn node(path: &str, host: &str) -> DeviceNode {
        DeviceNode {
            path: path.to_owned(),
            host_path: host.to_owned(),
            permissions: "rwm".to_owned(),
            ..DeviceNode::default()
        }
    }

    fn device(name: &str, nodes: Vec<DeviceNode>) -> Device {
        Device {
            name: name.to_owned(),
            container_edits: ContainerEdits {
                device_nodes: nodes,
                ..ContainerEdits::default()
            },
            ..Device::default()
        }
    }

    fn spec() -> Spec {
        let lib = "/usr/lib/x86_64-linux-gnu";
        let root = "/run/nvidia/driver";
        Spec {
            devices: vec![
                device(
                    "GPU-1",
                    vec![node("/dev/nvidia0", "/run/nvidia/driver/dev/nvidia0")],
                ),
                device(
                    "MIG-1",
                    vec![node("/dev/nvidia1", ""), node("/dev/nvidia-caps/nvidia-cap3", "")],
                ),
                device(
                    "MIG-2",
                    vec![node("/dev/nvidia1", ""), node("/dev/nvidia-caps/nvidia-cap4", "")],
                ),
            ],
            container_edits: ContainerEdits {
                env: vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned(), "broken".to_owned()],
                device_nodes: vec![node("/dev/nvidiactl", ""), node("/dev/dri/card0", "")],
                hooks: vec![
                    hook(&[
                        "nvidia-cdi-hook",
                        "create-symlinks",
                        "--link",
                        &format!("libcuda.so.1::{lib}/libcuda.so"),
                        "--link",
                        &format!("libcuda.so.580.1::{lib}/libcuda.so.1"),
                        "--link",
                        &format!("../libnvidia-allocator.so.1::{lib}/gbm/nvidia-drm_gbm.so"),
                        "--link",
                        &format!("libnvidia-allocator.so.580.1::{lib}/libnvidia-allocator.so.1"),
                    ]),
                    hook(&[
                        "nvidia-cdi-hook",
                        "enable-cuda-compat",
                        "--host-driver-version=580.1",
                    ]),
                    hook(&["nvidia-cdi-hook", "update-ldcache", "--folder", lib]),
                    hook(&["nvidia-cdi-hook", "disable-device-node-modification"]),
                ],
                mounts: vec![
                    mount(
                        "/run/nvidia-persistenced/socket",
                        "/run/nvidia-persistenced/socket",
                        &["nosuid"],
                    ),
                    mount("/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi", &["ro", "nosuid"]),
                    mount(
                        &format!("{root}{lib}/libcuda.so.580.1"),
                        &format!("{lib}/libcuda.so.580.1"),
                        &["ro"],
                    ),
                    mount(
                        &format!("{root}{lib}/libnvidia-allocator.so.580.1"),
                        &format!("{lib}/libnvidia-allocator.so.580.1"),
                        &["ro"],
                    ),
                    mount(
                        &format!("{root}{lib}/libnvidia-gpucomp.so.580.1"),
                        &format!("{lib}/libnvidia-gpucomp.so.580.1"),
                        &["ro"],
                    ),
                    mount(
                        &format!("{root}{lib}/vdpau/libvdpau_nvidia.so.580.1"),
                        &format!("{lib}/vdpau/libvdpau_nvidia.so.580.1"),
                        &["ro"],
                    ),
                ],
                ..ContainerEdits::default()
            },
            ..Spec::default()
        }
    }

    #[test]
    fn libraries_are_mounted_under_the_names_that_loaders_look_for() {
        let edits = Injection::of(&spec(), &["/lib/a", "/lib/b"])
            .edits(["GPU-1"])
            .unwrap();
        let of = |inside: &str| {
            edits
                .mounts
                .iter()
                .find(|mount| mount.inside == inside)
                .map(|mount| (mount.on_host.as_str(), mount.read_only))
        };
        let cuda = "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.580.1";
        for inside in [
            "/lib/a/libcuda.so.1",
            "/lib/b/libcuda.so.1",
            "/lib/a/libcuda.so",
            "/lib/b/libcuda.so",
        ] {
            assert_eq!(of(inside), Some((cuda, true)), "{inside}");
        }
        assert_eq!(of("/lib/a/libcuda.so.580.1"), None);
        // Its SONAME is its own name.
        assert!(of("/lib/a/libnvidia-gpucomp.so.580.1").is_some());
        // Where a place is what counts, it stays.
        assert!(of("/usr/lib/x86_64-linux-gnu/vdpau/libvdpau_nvidia.so.580.1").is_some());
        assert_eq!(of("/usr/bin/nvidia-smi"), Some(("/usr/bin/nvidia-smi", true)));
        // Sockets are written to.
        let socket = "/run/nvidia-persistenced/socket";
        assert_eq!(of(socket), Some((socket, false)));
        // A link in a directory that the loader doesn't search is no name for it.
        assert_eq!(of("/lib/a/nvidia-drm_gbm.so"), None);
        assert!(of("/usr/lib/x86_64-linux-gnu/gbm/nvidia-drm_gbm.so").is_some());
    }

    #[test]
    fn a_container_gets_the_nodes_of_its_devices_and_no_others() {
        let injection = Injection::of(&spec(), LOADER_DIRS);
        let inside = |devices: &[&str]| -> Vec<String> {
            let edits = injection.edits(devices.iter().copied()).unwrap();
            edits.nodes.into_iter().map(|node| node.inside).collect()
        };
        assert_eq!(
            inside(&["GPU-1"]),
            ["/dev/nvidiactl", "/dev/dri/card0", "/dev/nvidia0"]
        );
        assert_eq!(
            inside(&["MIG-1", "MIG-2"]),
            [
                "/dev/nvidiactl",
                "/dev/dri/card0",
                "/dev/nvidia1",
                "/dev/nvidia-caps/nvidia-cap3",
                "/dev/nvidia-caps/nvidia-cap4"
            ]
        );
        assert_eq!(injection.edits(["GPU-9"]), None);
        let nodes = injection.driver_nodes(["GPU-1"]).unwrap();
        let paths: Vec<&str> = nodes.iter().map(|node| node.on_host.as_str()).collect();
        assert_eq!(paths, ["/dev/nvidiactl", "/run/nvidia/driver/dev/nvidia0"]);
        assert!(nodes.iter().all(|node| node.permissions == "rw"));
    }

    #[test]
    fn hooks_that_nothing_stands_for_are_named() {
        let injection = Injection::of(&spec(), LOADER_DIRS);
        let lost: Vec<&str> = injection.lost().collect();
        assert_eq!(lost, ["disable-device-node-modification", "enable-cuda-compat"]);
    }

    #[test]
    fn no_place_in_the_container_is_mounted_twice() {
        let mut spec = spec();
        let again = spec.container_edits.mounts.clone();
        spec.container_edits.mounts.extend(again);
        let edits = Injection::of(&spec, &["/lib/a", "/lib/a"])
            .edits(["GPU-1"])
            .unwrap();
        let mut places: Vec<&str> = edits.mounts.iter().map(|mount| mount.inside.as_str()).collect();
        let count = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), count);
    }

    #[test]
    fn links_that_point_in_a_circle_end() {
        let mut spec = spec();
        spec.container_edits.hooks = vec![hook(&[
            "hook",
            "create-symlinks",
            "--link",
            "b::/usr/lib/x86_64-linux-gnu/libcuda.so.580.1",
            "--link",
            "libcuda.so.580.1::/usr/lib/x86_64-linux-gnu/b",
            "--link",
            "nothing",
        ])];
        let edits = Injection::of(&spec, &["/lib/a"]).edits(["GPU-1"]).unwrap();
        assert!(edits.mounts.iter().any(|mount| mount.inside == "/lib/a/b"));
    }
}
