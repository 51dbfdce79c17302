//! Which devices of a resource are meant.

use std::fmt;
use std::str::FromStr;

/// Which devices of a resource are shared: `devices`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Devices {
    /// All of them that no entry before this one means.
    #[default]
    All,
    /// The first so many of those, in the driver's order.
    Count(u32),
    /// These. Those that the node lacks are none: one configuration serves many nodes.
    List(Vec<DeviceRef>),
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceRef {
    /// A GPU, by its position in the driver's order.
    Gpu(u32),
    /// A MIG device: position of the GPU, and its own on it.
    Mig(u32, u32),
    /// A GPU or MIG device, by its UUID.
    Uuid(String),
}

/// A text that means no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is `{0}`, which means no device: give a GPU's index (`0`), a MIG device's two (`0:1`) or a UUID (`GPU-...`, `MIG-...`)"
)]
pub struct ParseDeviceRefError(String);

impl FromStr for DeviceRef {
    type Err = ParseDeviceRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse::<u32>().ok()).flatten()
        };
        let parse = || {
            if let Some(index) = number(text) {
                return Some(Self::Gpu(index));
            }
            if let Some((gpu, mig)) = text.split_once(':') {
                return Some(Self::Mig(number(gpu)?, number(mig)?));
            }
            // UUIDs of the driver; those of MIG before R470 hold the GPU's and two numbers: `MIG-GPU-.../1/0`.
            let body = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-"))?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/');
            (!body.is_empty() && body.bytes().all(plain)).then(|| Self::Uuid(text.to_owned()))
        };
        parse().ok_or_else(|| ParseDeviceRefError(text.to_owned()))
    }
}

impl fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(index) => write!(f, "{index}"),
            Self::Mig(gpu, mig) => write!(f, "{gpu}:{mig}"),
            Self::Uuid(uuid) => f.write_str(uuid),
        }
    }
}
