//! Names of MIG profiles.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// What a profile has more or less of than its size says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// One set of media engines (`+me`).
    Media,
    /// All media engines (`+me.all`).
    AllMedia,
    /// Graphics (`+gfx`).
    Graphics,
    /// No media engines (`-me`).
    NoMedia,
}

impl Attribute {
    const ALL: [(Self, &'static str); 4] = [
        (Self::AllMedia, "+me.all"),
        (Self::Media, "+me"),
        (Self::Graphics, "+gfx"),
        (Self::NoMedia, "-me"),
    ];

    fn suffix(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(attribute, _)| *attribute == self)
            .map_or("", |(_, suffix)| suffix)
    }
}

/// The name of a MIG profile: `1g.10gb`, `1g.10gb+me`, `1c.3g.40gb`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Profile {
    /// Compute slices; as many as GPU slices unless the name says otherwise.
    pub compute_slices: u8,
    /// GPU slices.
    pub gpu_slices: u8,
    /// Memory in GB, rounded as in the name.
    pub memory_gb: u16,
    /// What it has more or less of.
    pub attribute: Option<Attribute>,
}

impl Profile {
    /// A profile of whole GPU instances.
    pub(crate) fn whole(gpu_slices: u8, memory_gb: u16) -> Self {
        Self {
            compute_slices: gpu_slices,
            gpu_slices,
            memory_gb,
            attribute: None,
        }
    }

    pub(crate) fn with(self, attribute: Attribute) -> Self {
        Self {
            attribute: Some(attribute),
            ..self
        }
    }

    /// The profile of the GPU instance that it is of: `3g.40gb` of `1c.3g.40gb`, and itself of a whole one.
    #[must_use]
    pub fn gpu_instance(&self) -> Self {
        Self {
            compute_slices: self.gpu_slices,
            ..self.clone()
        }
    }

    /// What its GPU instance can be cut into, smallest first: compute instances of one, two, three or four slices,
    /// or of all. Four slices have no part of three (NVIDIA's MIG user guide, compute instances).
    pub fn parts(&self) -> impl Iterator<Item = Self> {
        let whole = self.gpu_instance();
        let all = whole.gpu_slices;
        let smaller = (1..=4).filter(move |&part| part < all && !(part == 3 && all == 4));
        smaller.chain([all]).map(move |compute_slices| Self {
            compute_slices,
            ..whole.clone()
        })
    }

    /// The resource that the device plugin's strategy `mixed` offers it as, without the prefix `nvidia.com/`.
    pub fn resource_name(&self) -> String {
        format!("mig-{}", self.to_string().replace('+', "."))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compute = match self.compute_slices {
            all if all == self.gpu_slices => String::new(),
            part => format!("{part}c."),
        };
        let suffix = self.attribute.map_or("", Attribute::suffix);
        f.pad(&format!(
            "{compute}{}g.{}gb{suffix}",
            self.gpu_slices, self.memory_gb
        ))
    }
}

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not the name of a MIG profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MIG profile such as `1g.10gb`")]
pub struct ParseProfileError(String);

impl FromStr for Profile {
    type Err = ParseProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (size, attribute) = Attribute::ALL
                .iter()
                .find_map(|(attribute, suffix)| Some((text.strip_suffix(suffix)?, Some(*attribute))))
                .unwrap_or((text, None));
            let (slices, memory) = size.rsplit_once('.')?;
            let memory_gb = number(memory.strip_suffix("gb")?)?;
            let (compute, gpu) = match slices.split_once('.') {
                Some((compute, gpu)) => (Some(compute.strip_suffix('c')?), gpu),
                None => (None, slices),
            };
            let gpu_slices = u8::try_from(number(gpu.strip_suffix('g')?)?).ok()?;
            let compute_slices = match compute {
                Some(compute) => u8::try_from(number(compute)?).ok()?,
                None => gpu_slices,
            };
            let plausible =
                gpu_slices > 0 && compute_slices > 0 && compute_slices <= gpu_slices && memory_gb > 0;
            plausible.then_some(Self {
                compute_slices,
                gpu_slices,
                memory_gb,
                attribute,
            })
        };
        parse().ok_or_else(|| ParseProfileError(text.to_owned()))
    }
}

/// Digits alone: no sign, no blanks.
fn number(text: &str) -> Option<u16> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in [
            "1g.5gb",
            "7g.80gb",
            "1g.10gb+me",
            "1c.3g.40gb",
            "1g.24gb+gfx",
            "2g.48gb+me.all",
            "1g.24gb-me",
        ] {
            assert_eq!(name.parse::<Profile>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn resources_are_named_as_the_reference_names_them() {
        let resource = |name: &str| name.parse::<Profile>().unwrap().resource_name();
        assert_eq!(resource("1g.5gb"), "mig-1g.5gb");
        assert_eq!(resource("1g.5gb+me"), "mig-1g.5gb.me");
        assert_eq!(resource("1g.24gb-me"), "mig-1g.24gb-me");
        assert_eq!(resource("2g.48gb+me.all"), "mig-2g.48gb.me.all");
    }

    #[test]
    fn a_gpu_instance_is_cut_into_parts_or_left_whole() {
        let parts = |name: &str| {
            let profile = name.parse::<Profile>().unwrap();
            let names: Vec<_> = profile.parts().map(|part| part.to_string()).collect();
            names.join(" ")
        };
        assert_eq!(parts("1g.10gb+me"), "1g.10gb+me");
        assert_eq!(parts("2g.48gb+gfx"), "1c.2g.48gb+gfx 2g.48gb+gfx");
        assert_eq!(parts("1c.3g.40gb"), "1c.3g.40gb 2c.3g.40gb 3g.40gb");
        assert_eq!(parts("4g.40gb"), "1c.4g.40gb 2c.4g.40gb 4g.40gb");
        assert_eq!(
            parts("7g.80gb"),
            "1c.7g.80gb 2c.7g.80gb 3c.7g.80gb 4c.7g.80gb 7g.80gb"
        );
        let part: Profile = "1c.3g.40gb".parse().unwrap();
        assert_eq!(part.gpu_instance().to_string(), "3g.40gb");
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in [
            "",
            "1g",
            "g.gb",
            "0g.5gb",
            "1g.0gb",
            "4c.3g.40gb",
            "1g.5gb+xx",
            "1g.+5gb",
            "1g.5GB",
            "1c.1c.1g.5gb",
        ] {
            assert!(text.parse::<Profile>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in "[0-9cgb.+me-]{0,20}") {
            if let Ok(profile) = text.parse::<Profile>() {
                prop_assert_eq!(profile.to_string().parse::<Profile>().unwrap(), profile);
            }
        }
    }
}
