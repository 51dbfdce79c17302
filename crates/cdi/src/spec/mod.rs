//! The types of a specification, as in its files.
//!
//! Fields that a runtime doesn't know make it refuse the whole file, so unknown ones are refused here too. Fields
//! that are absent, `null` and empty are the same, as they are for containerd.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

mod name;
mod rules;
mod version;

pub use name::{DEVICE_PLUGIN_GPU, GPU, Kind, MANAGEMENT_GPU, NameError, QualifiedName};
pub use rules::{Invalid, Problem};
pub use version::{Version, VersionError};

/// A specification: devices of one kind, and what all of them need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Version of CDI that it is written in, e.g. `0.5.0`.
    #[serde(rename = "cdiVersion", default, deserialize_with = "or_default")]
    pub version: String,
    /// Vendor and class of its devices, e.g. `nvidia.com/gpu`.
    #[serde(default, deserialize_with = "or_default")]
    pub kind: String,
    /// Remarks of CDI's own; they reach no container. Since 0.6.0.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The devices.
    #[serde(default, deserialize_with = "or_default")]
    pub devices: Vec<Device>,
    /// What a container gets once, whichever of the devices it gets.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "ContainerEdits::is_empty"
    )]
    pub container_edits: ContainerEdits,
}

/// A device that a container can ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Its name within the kind.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Remarks of CDI's own; they reach no container. Since 0.6.0.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// What a container gets with it; never nothing.
    #[serde(default, deserialize_with = "or_default")]
    pub container_edits: ContainerEdits,
}

/// What is changed in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerEdits {
    /// Environment variables, `NAME=VALUE`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub device_nodes: Vec<DeviceNode>,
    /// Network interfaces that are moved into it. Since 1.1.0.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub net_devices: Vec<NetDevice>,
    /// Programs that the runtime starts on the host, in this order.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub hooks: Vec<Hook>,
    /// Files and directories of the host.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mounts: Vec<Mount>,
    /// Shares of the processor's cache and memory bandwidth. Since 0.7.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// Groups that its processes are members of, besides their own. Since 0.7.0.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub additional_gids: Vec<u32>,
}

impl ContainerEdits {
    /// True where nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds others behind these.
    pub fn append(&mut self, other: Self) {
        self.env.extend(other.env);
        self.device_nodes.extend(other.device_nodes);
        self.net_devices.extend(other.net_devices);
        self.hooks.extend(other.hooks);
        self.mounts.extend(other.mounts);
        self.intel_rdt = other.intel_rdt.or(self.intel_rdt.take());
        self.additional_gids.extend(other.additional_gids);
    }
}

/// A device node. What is not said is taken from the host's node when a container is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    /// Where it is in the container.
    #[serde(default, deserialize_with = "or_default")]
    pub path: String,
    /// Where it is on the host, if elsewhere. Since 0.5.0.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub host_path: String,
    /// `b`, `c`, `u` or `p`.
    #[serde(
        default,
        rename = "type",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub kind: String,
    /// Major number; 0 is the same as absent.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub major: i64,
    /// Minor number; 0 is the same as absent.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub minor: i64,
    /// Permission bits, written in decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// What the container's cgroup allows: of `r`, `w` and `m`, or `none`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub permissions: String,
    /// Owner; absent for that of the container's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group; absent for that of the container's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl DeviceNode {
    /// Where it is on the host.
    pub fn on_host(&self) -> &str {
        if self.host_path.is_empty() {
            &self.path
        } else {
            &self.host_path
        }
    }
}

/// A network interface that is moved into the container. Since 1.1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetDevice {
    /// Its name on the host.
    #[serde(default, deserialize_with = "or_default")]
    pub host_interface_name: String,
    /// Its name in the container.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
}

/// A file or directory of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// Where it is on the host.
    #[serde(default, deserialize_with = "or_default")]
    pub host_path: String,
    /// Where it is in the container.
    #[serde(default, deserialize_with = "or_default")]
    pub container_path: String,
    /// Options of the mount.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub options: Vec<String>,
    /// Type of the file system; empty for a bind mount. Since 0.4.0.
    #[serde(
        default,
        rename = "type",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub kind: String,
}

/// A program that the runtime starts on the host while it makes the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// When: one of OCI's names, such as `createContainer`.
    #[serde(default, deserialize_with = "or_default")]
    pub hook_name: String,
    /// The program.
    #[serde(default, deserialize_with = "or_default")]
    pub path: String,
    /// Its arguments, the first of which is its own name.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<String>,
    /// All of its environment.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// Seconds after which it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// Shares of the processor's cache and memory bandwidth. Since 0.7.0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IntelRdt {
    /// Class of service.
    #[serde(
        default,
        rename = "closID",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub clos_id: String,
    /// Schema of the last-level cache.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub l3_cache_schema: String,
    /// Schema of the memory bandwidth.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub mem_bw_schema: String,
    /// Schemata, as the kernel writes them. Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemata: Option<Vec<String>>,
    /// A monitoring group is made. Since 1.1.0.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub enable_monitoring: bool,
}

/// `null` is what isn't there.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}
