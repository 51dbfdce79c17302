//! What makes a container runtime refuse a specification, beyond its fields.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::name::check_device;
use super::{ContainerEdits, Kind, Spec, Version};

/// When a hook can run: OCI's names.
const HOOK_NAMES: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];
/// All annotations of a specification or device together, in bytes.
const MOST_ANNOTATIONS: usize = 256 * 1024;

/// One thing that is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, e.g. `devices[0].containerEdits.mounts[3].hostPath`.
    pub path: String,
    /// What, and what it should be.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// A specification that a container runtime would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", .0.first().map(ToString::to_string).unwrap_or_default(), more(.0.len()))]
pub struct Invalid(pub Vec<Problem>);

fn more(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        count => format!(", and {} more", count - 1),
    }
}

impl Spec {
    /// Refuses what a container runtime would refuse.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        let problems = self.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Invalid(problems))
        }
    }

    /// Everything that is wrong with it; nothing, where a container runtime takes it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found::default();
        match self.version.parse::<Version>() {
            Ok(version) => {
                let needs = self.needs();
                if version < needs {
                    found.add("cdiVersion", format!("what is used here needs version {needs}"));
                }
            }
            Err(error) => found.add("cdiVersion", error.to_string()),
        }
        if let Err(error) = self.kind.parse::<Kind>() {
            found.add("kind", error.to_string());
        }
        found.annotations("annotations", &self.annotations);
        found.edits("containerEdits", &self.container_edits);
        if self.devices.is_empty() {
            found.add("devices", "there is no device".to_owned());
        }
        let mut names = BTreeSet::new();
        for (at, device) in self.devices.iter().enumerate() {
            let path = format!("devices[{at}]");
            if let Err(error) = check_device(&device.name) {
                found.add(&format!("{path}.name"), error.to_string());
            } else if !names.insert(&device.name) {
                found.add(
                    &format!("{path}.name"),
                    format!("another device is called `{}` too", device.name),
                );
            }
            found.annotations(&format!("{path}.annotations"), &device.annotations);
            let edits = format!("{path}.containerEdits");
            if device.container_edits.is_empty() {
                found.add(
                    &edits,
                    format!("the device `{}` changes nothing in a container", device.name),
                );
            }
            found.edits(&edits, &device.container_edits);
        }
        found.0
    }
}

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, path: &str, what: String) {
        let path = path.to_owned();
        self.0.push(Problem { path, what });
    }

    fn edits(&mut self, path: &str, edits: &ContainerEdits) {
        self.env(&format!("{path}.env"), &edits.env);
        for (at, node) in edits.device_nodes.iter().enumerate() {
            let path = format!("{path}.deviceNodes[{at}]");
            if node.path.is_empty() {
                self.add(&format!("{path}.path"), "it is empty".to_owned());
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                let what = format!("`{}` is none of `b`, `c`, `u` and `p`", node.kind);
                self.add(&format!("{path}.type"), what);
            }
            if node.permissions != "none" && node.permissions.contains(|c| !"rwm".contains(c)) {
                let what = format!(
                    "`{}` is neither made of `r`, `w` and `m` nor `none`",
                    node.permissions
                );
                self.add(&format!("{path}.permissions"), what);
            }
        }
        for (at, hook) in edits.hooks.iter().enumerate() {
            let path = format!("{path}.hooks[{at}]");
            if !HOOK_NAMES.contains(&hook.hook_name.as_str()) {
                let what = format!("`{}` is none of `{}`", hook.hook_name, HOOK_NAMES.join("`, `"));
                self.add(&format!("{path}.hookName"), what);
            }
            if hook.path.is_empty() {
                self.add(&format!("{path}.path"), "it is empty".to_owned());
            }
            self.env(&format!("{path}.env"), &hook.env);
        }
        for (at, mount) in edits.mounts.iter().enumerate() {
            for (name, value) in [
                ("hostPath", &mount.host_path),
                ("containerPath", &mount.container_path),
            ] {
                if value.is_empty() {
                    self.add(&format!("{path}.mounts[{at}].{name}"), "it is empty".to_owned());
                }
            }
        }
        self.net_devices(&format!("{path}.netDevices"), edits);
        if let Some(rdt) = &edits.intel_rdt {
            let id = rdt.clos_id.as_str();
            if id != "/" && (id.len() >= 4096 || id == "." || id == ".." || id.contains(['/', '\n'])) {
                self.add(
                    &format!("{path}.intelRdt.closID"),
                    "it is no name of a directory".to_owned(),
                );
            }
        }
    }

    fn env(&mut self, path: &str, env: &[String]) {
        for (at, variable) in env.iter().enumerate() {
            if variable.find('=').is_none_or(|at| at == 0) {
                self.add(
                    &format!("{path}[{at}]"),
                    format!("`{variable}` is not `NAME=VALUE`"),
                );
            }
        }
    }

    fn net_devices(&mut self, path: &str, edits: &ContainerEdits) {
        let (mut on_host, mut inside) = (BTreeSet::new(), BTreeSet::new());
        for (at, device) in edits.net_devices.iter().enumerate() {
            for (name, value, seen) in [
                ("hostInterfaceName", &device.host_interface_name, &mut on_host),
                ("name", &device.name, &mut inside),
            ] {
                if value.is_empty() {
                    self.add(&format!("{path}[{at}].{name}"), "it is empty".to_owned());
                } else if !seen.insert(value) {
                    self.add(
                        &format!("{path}[{at}].{name}"),
                        format!("`{value}` is given twice"),
                    );
                }
            }
        }
    }

    /// The rules of Kubernetes' annotations, which CDI has taken over.
    fn annotations(&mut self, path: &str, annotations: &BTreeMap<String, String>) {
        for key in annotations.keys().filter(|key| !is_annotation_key(key)) {
            self.add(
                path,
                format!("`{key}` is no key of an annotation such as `example.com/name`"),
            );
        }
        let size: usize = annotations
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if size > MOST_ANNOTATIONS {
            self.add(
                path,
                format!("they are {size} bytes, of {MOST_ANNOTATIONS} at most"),
            );
        }
    }
}

fn is_annotation_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let framed = |text: &str, middle: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || middle.contains(c))
    };
    let is_domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(|label| framed(label, "-"));
    name.len() <= 63 && framed(name, "-_.") && prefix.is_none_or(is_domain)
}

#[cfg(test)]
mod tests {
    use super::super::{Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice};
    use super::*;

    fn good() -> Spec {
        let node = DeviceNode {
            path: "/dev/nvidia0".to_owned(),
            permissions: "rwm".to_owned(),
            ..DeviceNode::default()
        };
        Spec {
            version: "0.5.0".to_owned(),
            kind: "nvidia.com/gpu".to_owned(),
            devices: vec![Device {
                name: "0".to_owned(),
                container_edits: ContainerEdits {
                    device_nodes: vec![node],
                    ..ContainerEdits::default()
                },
                ..Device::default()
            }],
            ..Spec::default()
        }
    }

    fn paths(change: impl FnOnce(&mut Spec)) -> Vec<String> {
        let mut spec = good();
        change(&mut spec);
        spec.problems().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn every_rule_names_the_place_where_it_is_broken() {
        assert_eq!(good().problems(), []);
        assert_eq!(paths(|spec| spec.version = "0.4.0".to_owned()), ["cdiVersion"]);
        assert_eq!(paths(|spec| spec.version = "0.9.0".to_owned()), ["cdiVersion"]);
        assert_eq!(paths(|spec| spec.kind = "gpu".to_owned()), ["kind"]);
        assert_eq!(paths(|spec| spec.devices.clear()), ["devices"]);
        assert_eq!(
            paths(|spec| spec.devices.push(spec.devices[0].clone())),
            ["devices[1].name"]
        );
        assert_eq!(
            paths(|spec| spec.devices[0].container_edits = ContainerEdits::default()),
            ["devices[0].containerEdits"]
        );
        let edits = |change: fn(&mut ContainerEdits)| {
            paths(|spec| {
                spec.version = "1.1.0".to_owned();
                change(&mut spec.container_edits);
            })
        };
        assert_eq!(
            edits(|edits| edits.env = vec!["A=".to_owned(), "=A".to_owned(), "A".to_owned()]),
            ["containerEdits.env[1]", "containerEdits.env[2]"]
        );
        assert_eq!(
            edits(|edits| {
                edits.device_nodes = vec![DeviceNode {
                    kind: "d".to_owned(),
                    permissions: "rx".to_owned(),
                    ..DeviceNode::default()
                }];
            }),
            [
                "containerEdits.deviceNodes[0].path",
                "containerEdits.deviceNodes[0].type",
                "containerEdits.deviceNodes[0].permissions"
            ]
        );
        assert_eq!(
            edits(|edits| edits.hooks = vec![Hook {
                env: vec!["x".to_owned()],
                ..Hook::default()
            }]),
            [
                "containerEdits.hooks[0].hookName",
                "containerEdits.hooks[0].path",
                "containerEdits.hooks[0].env[0]"
            ]
        );
        assert_eq!(
            edits(|edits| edits.mounts = vec![Mount::default()]),
            [
                "containerEdits.mounts[0].hostPath",
                "containerEdits.mounts[0].containerPath"
            ]
        );
        assert_eq!(
            edits(|edits| {
                let device = NetDevice {
                    host_interface_name: "eth0".to_owned(),
                    name: "a".to_owned(),
                };
                let other = NetDevice {
                    name: "b".to_owned(),
                    ..device.clone()
                };
                edits.net_devices = vec![device, other];
            }),
            ["containerEdits.netDevices[1].hostInterfaceName"]
        );
        assert_eq!(
            edits(|edits| edits.intel_rdt = Some(IntelRdt {
                clos_id: "a/b".to_owned(),
                ..IntelRdt::default()
            })),
            ["containerEdits.intelRdt.closID"]
        );
    }

    #[test]
    fn keys_of_annotations_are_those_of_kubernetes() {
        for key in ["a", "example.com/a_b.c-d", "GPU.nvidia.com/x"] {
            assert!(is_annotation_key(key), "{key}");
        }
        for key in ["", "/", "a/", "/a", "-a", "a..b/c", "a/b/c", "ä"] {
            assert!(!is_annotation_key(key), "{key}");
        }
    }
}
