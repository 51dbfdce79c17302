//! Settings that are one of a few words.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A text that isn't one of the words that can stand there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is `{word}`, which is none of {known}")]
pub struct ParseWordError {
    /// The text.
    pub word: String,
    /// The words that can stand there, with commas.
    pub known: String,
}

/// An enum each of whose variants is a word.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[$variant_meta])* $variant, )* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for it.
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = ParseWordError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $( $word => Ok(Self::$variant), )*
                    _ => Err(ParseWordError {
                        word: text.to_owned(),
                        known: [$($word),*].join(", "),
                    }),
                }
            }
        }
    };
}

words! {
    /// How MIG devices are offered: `migStrategy`.
    #[derive(Default)]
    pub enum MigStrategy {
        /// Not at all: whole GPUs only.
        #[default]
        None = "none",
        /// As GPUs: all GPUs of the node are cut up, and all devices are of one profile.
        Single = "single",
        /// Beside GPUs, each profile as a resource of its own.
        Mixed = "mixed",
    }
}

words! {
    /// How a container is told its devices: `deviceListStrategy`.
    pub enum DeviceListStrategy {
        /// In `NVIDIA_VISIBLE_DEVICES`.
        Envvar = "envvar",
        /// As mounts of `/dev/null`.
        VolumeMounts = "volume-mounts",
        /// As names of CDI devices, in an annotation.
        CdiAnnotations = "cdi-annotations",
        /// As names of CDI devices, in a field of their own.
        CdiCri = "cdi-cri",
    }
}

words! {
    /// How devices are named towards a container: `deviceIDStrategy`.
    pub enum DeviceIdStrategy {
        /// By UUID.
        Uuid = "uuid",
        /// By position in the driver's order, and for MIG devices by two.
        Index = "index",
    }
}

words! {
    /// How GPUs are found: `deviceDiscoveryStrategy`. We find what is there, whatever this says.
    pub enum DeviceDiscovery {
        /// By what is there.
        Auto = "auto",
        /// Through the driver's library.
        Nvml = "nvml",
        /// On a Jetson, which we don't run on.
        Tegra = "tegra",
        /// GPUs that are handed to virtual machines, for labels alone.
        Vfio = "vfio",
    }
}

words! {
    /// Which replicas are preferred: `sharedDevicesAllocationPolicy`.
    #[derive(Default)]
    pub enum SharingPolicy {
        /// Those of the device that the fewest hold.
        #[default]
        Distributed = "distributed",
        /// Those of the device that the most hold, so that others stay free.
        Packed = "packed",
    }
}
