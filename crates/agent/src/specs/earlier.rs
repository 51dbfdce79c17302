//! Names that containers were given before: by index, by NVIDIA's device plugin under `deviceIDStrategy: index`.
//!
//! The kubelet starts a container of such a pod anew by the same name, and its books know the device by UUID alone. Which
//! device a name means is therefore told by the device nodes that stand behind both: an index is another GPU's as soon as
//! one before it is lost.

use std::collections::BTreeSet;

use pitcrew_cdi::Device;

/// Names that we give ourselves begin so.
const UUIDS: [&str; 2] = ["GPU-", "MIG-"];
/// Device nodes that belong to one GPU or MIG device begin so.
const OF_GPUS: [&str; 2] = ["/dev/nvidia-caps/nvidia-", "/dev/nvidia"];

/// True for a name that says nothing of which device it is.
pub(super) fn is_index(device: &Device) -> bool {
    !UUIDS.iter().any(|start| device.name.starts_with(start))
}

/// The one of these devices that has the nodes of `earlier`.
pub(super) fn same<'a>(
    earlier: &Device,
    devices: impl IntoIterator<Item = &'a Device>,
) -> Option<&'a Device> {
    let nodes = nodes(earlier);
    let mut found = devices
        .into_iter()
        .filter(|device| !nodes.is_empty() && !is_index(device) && self::nodes(device) == nodes);
    let first = found.next()?;
    // Nodes that several have tell nothing.
    found.next().is_none().then_some(first)
}

/// The device under its earlier name.
pub(super) fn under_the_name(earlier: &Device, now: &Device) -> Device {
    Device {
        name: earlier.name.clone(),
        ..now.clone()
    }
}

/// The nodes that are of this device alone: `/dev/nvidia3`, and the capabilities of a MIG device.
fn nodes(device: &Device) -> BTreeSet<&str> {
    let nodes = device.container_edits.device_nodes.iter();
    nodes
        .map(|node| node.path.as_str())
        .filter(|path| {
            let rest = OF_GPUS.iter().find_map(|start| path.strip_prefix(start));
            rest.is_some_and(|rest| {
                rest.starts_with(|first: char| first.is_ascii_digit()) || rest.starts_with("cap")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use pitcrew_cdi::spec::DeviceNode;

    use super::*;

    fn device(name: &str, paths: &[&str]) -> Device {
        let mut device = Device {
            name: name.to_owned(),
            ..Device::default()
        };
        let nodes = paths.iter().map(|path| DeviceNode {
            path: (*path).to_owned(),
            ..DeviceNode::default()
        });
        device.container_edits.device_nodes = nodes.collect();
        device
    }

    #[test]
    fn two_slices_of_one_gpu_are_told_apart_by_their_capabilities() {
        let slice = |name, cap| device(name, &["/dev/nvidiactl", "/dev/nvidia0", cap]);
        let now = [
            slice("MIG-a", "/dev/nvidia-caps/nvidia-cap30"),
            slice("MIG-b", "/dev/nvidia-caps/nvidia-cap39"),
        ];
        let earlier = slice("0:1", "/dev/nvidia-caps/nvidia-cap39");
        assert_eq!(same(&earlier, &now).unwrap().name, "MIG-b");
        // The slice is gone: what is left of its GPU is another one.
        assert!(same(&earlier, &now[..1]).is_none());
    }
}
