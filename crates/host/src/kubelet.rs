//! The kubelet's directories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::plugin::holders::Holding;
use pitcrew_core::ports::{FileKind, HostFs};

use serde::Deserialize;

use crate::distribution::Settings;
use crate::facts::Kubelet;
use crate::read;

/// The kubelet's own socket.
const OWN_SOCKET: &str = "kubelet.sock";

pub(crate) fn gather(fs: &dyn HostFs, settings: Option<&Settings>) -> Kubelet {
    let root = settings
        .and_then(|settings| settings.argument("kubelet-arg", "root-dir"))
        .map_or_else(|| PathBuf::from("/var/lib/kubelet"), PathBuf::from);
    let plugins = root.join("device-plugins");
    let checkpoint = plugins.join("kubelet_internal_checkpoint");
    let mut plugin_sockets = read::names_or_none(fs, &plugins);
    plugin_sockets.retain(|name| name != OWN_SOCKET && is_socket(fs, &plugins.join(name)));
    Kubelet {
        device_plugin_socket: socket_in(fs, &plugins),
        pod_resources_socket: socket_in(fs, &root.join("pod-resources")),
        plugin_sockets,
        registered_resources: match read::text(fs, &checkpoint) {
            Reading::Value(text) => parse_checkpoint(&text).map_or_else(
                |why| Reading::Failed(format!("`{}` can't be read: {why}", checkpoint.display())),
                Reading::Value,
            ),
            Reading::NotSupported => Reading::NotSupported,
            Reading::Failed(why) => Reading::Failed(why),
        },
        root,
    }
}

fn is_socket(fs: &dyn HostFs, path: &Path) -> bool {
    matches!(fs.kind(path), Ok(FileKind::Other))
}

/// Whether the kubelet's socket is in a directory; not supported where there is no directory.
fn socket_in(fs: &dyn HostFs, dir: &Path) -> Reading<bool> {
    read::names(fs, dir).map(|_| is_socket(fs, &dir.join(OWN_SOCKET)))
}

/// Names of the resources in the kubelet's checkpoint of device plugins, sorted.
pub fn parse_checkpoint(text: &str) -> Result<Vec<String>, String> {
    let document: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match document.pointer("/Data/RegisteredDevices") {
        Some(serde_json::Value::Object(resources)) => {
            let mut names: Vec<String> = resources.keys().cloned().collect();
            names.sort_unstable();
            Ok(names)
        }
        Some(serde_json::Value::Null) => Ok(Vec::new()),
        _ => Err("it holds no `Data.RegisteredDevices`".to_owned()),
    }
}

/// The kubelet's checkpoint of devices, as far as it matters here.
#[derive(Deserialize)]
struct Checkpoint {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "PodDeviceEntries", default)]
    entries: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "PodUID", default)]
    pod: String,
    #[serde(rename = "ResourceName", default)]
    resource: String,
    /// By NUMA node.
    #[serde(rename = "DeviceIDs", default)]
    ids: Option<BTreeMap<String, Option<Vec<String>>>>,
}

/// Who held what when the kubelet wrote its checkpoint. A holder is a pod's UID there.
///
/// # Errors
/// With the reason, where the text is no such checkpoint.
pub fn parse_held(text: &[u8]) -> Result<Vec<Holding>, String> {
    let checkpoint: Checkpoint = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut held = Vec::new();
    for entry in checkpoint.data.entries.into_iter().flatten() {
        let ids = entry.ids.into_iter().flat_map(BTreeMap::into_values);
        held.extend(ids.flatten().flatten().map(|id| Holding {
            resource: entry.resource.clone(),
            id,
            holder: format!("pod {}", entry.pod),
        }));
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_the_checkpoint_are_sorted_names() {
        let text = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"a","ContainerName":"b","ResourceName":"nvidia.com/gpu","DeviceIDs":{"-1":["GPU-1"]},"AllocResp":"Cg=="}],"RegisteredDevices":{"nvidia.com/mig-1g.10gb":[],"nvidia.com/gpu":["GPU-1"]}},"Checksum":1}"#;
        assert_eq!(
            parse_checkpoint(text).unwrap(),
            ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb"]
        );
        assert_eq!(
            parse_checkpoint(r#"{"Data":{"RegisteredDevices":null}}"#).unwrap(),
            [""; 0]
        );
        assert!(parse_checkpoint("{}").is_err());
        assert!(parse_checkpoint("").is_err());
    }

    fn holding(id: &str, holder: &str) -> Holding {
        Holding {
            resource: "nvidia.com/gpu".to_owned(),
            id: id.to_owned(),
            holder: holder.to_owned(),
        }
    }

    #[test]
    fn a_checkpoint_is_read_with_all_that_kubelets_leave_out() {
        let text = br#"{"Data":{"PodDeviceEntries":[{"PodUID":"u1","ContainerName":"c","ResourceName":"nvidia.com/gpu",
            "DeviceIDs":{"-1":["GPU-1"],"0":["GPU-2"],"1":null},"AllocResp":"Cg=="},{"PodUID":"u2","DeviceIDs":null}],
            "RegisteredDevices":{"nvidia.com/gpu":["GPU-1"]}},"Checksum":1}"#;
        assert_eq!(
            parse_held(text).unwrap(),
            [holding("GPU-1", "pod u1"), holding("GPU-2", "pod u1")]
        );
        let none = br#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":0}"#;
        assert_eq!(parse_held(none), Ok(Vec::new()));
        assert!(parse_held(b"").is_err());
        assert!(parse_held(b"{\"Data\":7}").is_err());
    }
}
