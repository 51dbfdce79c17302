//! Names of vendors, classes and devices.

use std::fmt;
use std::str::FromStr;

/// The kind that NVIDIA's own specifications of a host have.
pub const GPU: &str = "nvidia.com/gpu";
/// The kind that NVIDIA's device plugin hands to containerd.
pub const DEVICE_PLUGIN_GPU: &str = "k8s.device-plugin.nvidia.com/gpu";
/// The kind of the device that holds all nodes, for what manages GPUs.
pub const MANAGEMENT_GPU: &str = "management.nvidia.com/gpu";

/// A text is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no slash, or nothing before or behind it.
    #[error("`{0}` is no kind such as `nvidia.com/gpu`")]
    NoKind(String),
    /// There is no `=`, or nothing before or behind it.
    #[error("`{0}` is no device such as `nvidia.com/gpu=0`")]
    NotQualified(String),
    /// A vendor or class is spelled wrongly.
    #[error(
        "`{0}` is no {1}: it must begin with a letter, end with a letter or digit, have two characters at least, \
         and hold nothing but letters, digits, `_`, `-` and `.`"
    )]
    Part(String, &'static str),
    /// The name of a device is spelled wrongly.
    #[error(
        "`{0}` is no device's name: it must begin and end with a letter or digit, and hold nothing but letters, \
         digits, `_`, `-`, `.` and `:`"
    )]
    Device(String),
}

/// Vendor and class, e.g. `nvidia.com/gpu`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    vendor: String,
    class: String,
}

impl Kind {
    /// The vendor, e.g. `nvidia.com`.
    pub fn vendor(&self) -> &str {
        &self.vendor
    }

    /// The class, e.g. `gpu`.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// Name of a specification's file without its ending: `nvidia.com-gpu`.
    pub fn file_stem(&self) -> String {
        format!("{}-{}", self.vendor, self.class)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vendor, self.class)
    }
}

impl FromStr for Kind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts = text
            .split_once('/')
            .filter(|(vendor, class)| !vendor.is_empty() && !class.is_empty());
        let (vendor, class) = parts.ok_or_else(|| NameError::NoKind(text.to_owned()))?;
        for (part, what) in [(vendor, "vendor"), (class, "class")] {
            if !is_part(part) {
                return Err(NameError::Part(part.to_owned(), what));
            }
        }
        Ok(Self {
            vendor: vendor.to_owned(),
            class: class.to_owned(),
        })
    }
}

/// A device by its full name, e.g. `nvidia.com/gpu=0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// Vendor and class.
    pub kind: Kind,
    /// Name within the kind.
    pub name: String,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

impl FromStr for QualifiedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts = text
            .split_once('=')
            .filter(|(kind, name)| !kind.is_empty() && !name.is_empty());
        let (kind, name) = parts.ok_or_else(|| NameError::NotQualified(text.to_owned()))?;
        check_device(name)?;
        Ok(Self {
            kind: kind.parse()?,
            name: name.to_owned(),
        })
    }
}

/// Refuses what can't be the name of a device.
pub(super) fn check_device(name: &str) -> Result<(), NameError> {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let good = name.starts_with(plain)
        && name.ends_with(plain)
        && name.chars().all(|c| plain(c) || "_-.:".contains(c));
    good.then_some(())
        .ok_or_else(|| NameError::Device(name.to_owned()))
}

/// True for a vendor or class. A single letter is refused although CDI allows it: its library (1.1) panics on one.
fn is_part(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_and_devices_are_spelled_as_cdi_says() {
        let kind: Kind = DEVICE_PLUGIN_GPU.parse().unwrap();
        assert_eq!(
            (kind.vendor(), kind.class()),
            ("k8s.device-plugin.nvidia.com", "gpu")
        );
        assert_eq!(kind.file_stem(), "k8s.device-plugin.nvidia.com-gpu");
        let device: QualifiedName = "nvidia.com/gpu=0:1".parse().unwrap();
        assert_eq!(
            (device.kind.to_string().as_str(), device.name.as_str()),
            (GPU, "0:1")
        );
        for refused in [
            "",
            "/",
            "gpu",
            "/gpu",
            "nvidia.com/",
            "1nvidia.com/gpu",
            "nvidia.com./gpu",
            "a b/gpu",
            "n/gpu",
        ] {
            assert!(refused.parse::<Kind>().is_err(), "{refused}");
        }
        for refused in [
            "",
            "=",
            "nvidia.com/gpu",
            "nvidia.com/gpu=",
            "nvidia.com/gpu=-",
            "nvidia.com/gpu=a b",
            "gpu=0",
        ] {
            assert!(refused.parse::<QualifiedName>().is_err(), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_prints_as_it_was_written(text in "\\PC*|[a-z.]{0,6}/[a-z]{0,3}=[a-z:0-9]{0,3}") {
            if let Ok(name) = text.parse::<QualifiedName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
