//! What a container really gets for an answer of the device plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pitcrew_cdi::directories::{DEFAULT, Directories};
use pitcrew_cdi::{ContainerEdits, QualifiedName};
use pitcrew_core::ports::{FileKind, HostFs};
use pitcrew_kubelet::device_plugin::ContainerAllocateResponse;

/// Prefix of annotations that ask a container runtime for CDI devices.
const CDI_ANNOTATION: &str = "cdi.k8s.io/";

/// What a container gets: the answer, with the names in it looked up as the container runtime does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Ids of the devices that the kubelet has taken.
    pub ids: Vec<String>,
    /// Names of CDI devices.
    pub cdi: BTreeSet<String>,
    /// Device nodes in the container, from the answer and from the specifications.
    pub nodes: BTreeSet<String>,
    /// Host paths that are mounted.
    pub mounts: BTreeSet<String>,
    /// Environment of the answer itself.
    pub env: BTreeMap<String, String>,
    /// Names of CDI devices that no specification has: the container would not start.
    pub unresolved: Vec<String>,
    /// What the host doesn't have, of nodes and mounts: the container would not start either.
    pub missing: Vec<String>,
}

impl Given {
    /// Looks up an answer on the host.
    pub fn look_up(fs: &dyn HostFs, ids: Vec<String>, answers: &[ContainerAllocateResponse]) -> Self {
        let mut given = Self {
            ids,
            ..Self::default()
        };
        let mut wanted = BTreeSet::new();
        for answer in answers {
            given.env.extend(answer.envs.clone());
            for node in &answer.devices {
                given.nodes.insert(node.container_path.clone());
                given.check_node(fs, &node.host_path);
            }
            for mount in &answer.mounts {
                given.mounts.insert(mount.host_path.clone());
            }
            wanted.extend(answer.cdi_devices.iter().map(|device| device.name.clone()));
            let annotations = answer.annotations.iter();
            let of_cdi = annotations.filter(|(name, _)| name.starts_with(CDI_ANNOTATION));
            wanted.extend(of_cdi.flat_map(|(_, names)| names.split(',').map(str::to_owned)));
        }
        if !wanted.is_empty() {
            given.resolve(fs, &wanted);
        }
        given.cdi = wanted;
        given
    }

    fn resolve(&mut self, fs: &dyn HostFs, wanted: &BTreeSet<String>) {
        let directories = Directories::read(fs, &DEFAULT);
        let devices = directories.devices();
        // Edits of a file are made once, however many of its devices are asked for.
        let mut files = BTreeSet::new();
        for text in wanted {
            let found = text
                .parse::<QualifiedName>()
                .ok()
                .and_then(|name| Some((name.clone(), *devices.found.get(&name)?)));
            let Some((name, file)) = found else {
                self.unresolved.push(text.clone());
                continue;
            };
            let Ok(spec) = &file.spec else { continue };
            if files.insert(file.path.clone()) {
                self.edit(fs, &spec.container_edits);
            }
            for device in spec.devices.iter().filter(|device| device.name == name.name) {
                self.edit(fs, &device.container_edits);
            }
        }
    }

    fn edit(&mut self, fs: &dyn HostFs, edits: &ContainerEdits) {
        for node in &edits.device_nodes {
            self.nodes.insert(node.path.clone());
            self.check_node(fs, node.on_host());
        }
        for mount in &edits.mounts {
            self.mounts.insert(mount.host_path.clone());
            if fs.kind(Path::new(&mount.host_path)).is_err() {
                self.missing
                    .push(format!("{} is not there to be mounted", mount.host_path));
            }
        }
    }

    fn check_node(&mut self, fs: &dyn HostFs, path: &str) {
        if !matches!(fs.kind(Path::new(path)), Ok(FileKind::CharDevice { .. })) {
            self.missing.push(format!("{path} is no device node"));
        }
    }

    /// Device nodes of GPUs and of MIG devices, without those that every container gets.
    pub fn own_nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(String::as_str).filter(|node| {
            let number = node.strip_prefix("/dev/nvidia").unwrap_or_default();
            let is_gpu = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            is_gpu || node.starts_with("/dev/nvidia-caps/")
        })
    }
}
