//! Versions of CDI, and which one a specification needs.

use std::fmt;
use std::str::FromStr;

use super::{ContainerEdits, Spec};

/// A version that specifications can be written in.
///
/// 0.1.0 and 0.2.0 are known to nobody but the library's own list: it refuses them in every specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.3.0, the first.
    V0_3,
    /// 0.4.0: types of mounts.
    V0_4,
    /// 0.5.0: another path of a node on the host, and names of devices that begin with a digit.
    V0_5,
    /// 0.6.0: annotations, and dots in a class.
    V0_6,
    /// 0.7.0: Intel RDT, and additional groups.
    V0_7,
    /// 0.8.0: nothing new.
    V0_8,
    /// 1.0.0: nothing new.
    V1_0,
    /// 1.1.0: network interfaces, and more of Intel RDT.
    V1_1,
}

const ALL: [(Version, &str); 8] = [
    (Version::V0_3, "0.3.0"),
    (Version::V0_4, "0.4.0"),
    (Version::V0_5, "0.5.0"),
    (Version::V0_6, "0.6.0"),
    (Version::V0_7, "0.7.0"),
    (Version::V0_8, "0.8.0"),
    (Version::V1_0, "1.0.0"),
    (Version::V1_1, "1.1.0"),
];

/// The text is no version of CDI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version of CDI: those from 0.3.0 to 1.1.0 are known")]
pub struct VersionError(String);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = ALL.iter().find(|(known, _)| known == self);
        f.write_str(text.map_or("", |(_, text)| text))
    }
}

impl FromStr for Version {
    type Err = VersionError;

    /// A `v` in front is allowed, as CDI does.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let plain = text.strip_prefix('v').unwrap_or(text);
        let found = ALL.iter().find(|(_, known)| *known == plain);
        found
            .map(|(version, _)| *version)
            .ok_or_else(|| VersionError(text.to_owned()))
    }
}

impl Spec {
    /// The lowest version that has all that is used here. Older runtimes refuse a higher one, whatever is in it.
    pub fn needs(&self) -> Version {
        let any = |uses: fn(&ContainerEdits) -> bool| {
            uses(&self.container_edits) || self.devices.iter().any(|device| uses(&device.container_edits))
        };
        let more_rdt = |edits: &ContainerEdits| {
            let rdt = edits.intel_rdt.as_ref();
            rdt.is_some_and(|rdt| rdt.schemata.is_some() || rdt.enable_monitoring)
        };
        let annotated =
            !self.annotations.is_empty() || self.devices.iter().any(|device| !device.annotations.is_empty());
        let dotted = self
            .kind
            .split_once('/')
            .is_some_and(|(_, class)| class.contains('.'));
        let digit = |name: &str| name.starts_with(|c: char| c.is_ascii_digit());
        if any(|edits| !edits.net_devices.is_empty()) || any(more_rdt) {
            Version::V1_1
        } else if any(|edits| edits.intel_rdt.is_some() || !edits.additional_gids.is_empty()) {
            Version::V0_7
        } else if annotated || dotted {
            Version::V0_6
        } else if self.devices.iter().any(|device| digit(&device.name))
            || any(|edits| edits.device_nodes.iter().any(|node| !node.host_path.is_empty()))
        {
            Version::V0_5
        } else if any(|edits| edits.mounts.iter().any(|mount| !mount.kind.is_empty())) {
            Version::V0_4
        } else {
            Version::V0_3
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Device, DeviceNode, IntelRdt, Mount, NetDevice};
    use super::*;

    fn with(change: impl FnOnce(&mut Spec)) -> Version {
        let mut spec = Spec {
            kind: "nvidia.com/gpu".to_owned(),
            devices: vec![Device {
                name: "all".to_owned(),
                ..Device::default()
            }],
            ..Spec::default()
        };
        change(&mut spec);
        spec.needs()
    }

    #[test]
    fn each_field_needs_the_version_that_brought_it() {
        assert_eq!(with(|_| ()), Version::V0_3);
        assert_eq!(
            with(|spec| spec.container_edits.mounts = vec![Mount {
                kind: "tmpfs".to_owned(),
                ..Mount::default()
            }]),
            Version::V0_4
        );
        assert_eq!(with(|spec| spec.devices[0].name = "0".to_owned()), Version::V0_5);
        assert_eq!(
            with(|spec| {
                let node = DeviceNode {
                    host_path: "/x".to_owned(),
                    ..DeviceNode::default()
                };
                spec.devices[0].container_edits.device_nodes = vec![node];
            }),
            Version::V0_5
        );
        assert_eq!(
            with(|spec| spec.kind = "nvidia.com/gpu.coherent".to_owned()),
            Version::V0_6
        );
        assert_eq!(
            with(|spec| drop(spec.devices[0].annotations.insert("a".to_owned(), String::new()))),
            Version::V0_6
        );
        assert_eq!(
            with(|spec| spec.container_edits.additional_gids = vec![44]),
            Version::V0_7
        );
        assert_eq!(
            with(|spec| spec.container_edits.intel_rdt = Some(IntelRdt::default())),
            Version::V0_7
        );
        assert_eq!(
            with(|spec| {
                let rdt = IntelRdt {
                    enable_monitoring: true,
                    ..IntelRdt::default()
                };
                spec.container_edits.intel_rdt = Some(rdt);
            }),
            Version::V1_1
        );
        assert_eq!(
            with(|spec| spec.devices[0].container_edits.net_devices = vec![NetDevice::default()]),
            Version::V1_1
        );
    }

    #[test]
    fn versions_are_read_with_a_v_too_and_nothing_else() {
        for (version, text) in ALL {
            assert_eq!(text.parse(), Ok(version));
            assert_eq!(format!("v{text}").parse(), Ok(version));
            assert_eq!(version.to_string(), text);
        }
        for refused in ["", "0.5", "0.2.0", "1.2.0", "vv0.5.0", "0.5.0 "] {
            assert!(refused.parse::<Version>().is_err(), "{refused}");
        }
    }
}
