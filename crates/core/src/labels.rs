//! Labels of a node, as GPU Feature Discovery writes them: same keys, same spelling, same values.
//!
//! Source: the reference's rules, fact sheet `devices`, section 2. Where it says nothing, or fails as a whole, this is
//! what we do:
//!
//! - A value that can't be read has no label, and takes no other label along. The exceptions are the reference's own
//!   spellings: `gpu.machine=unknown`, `gpu.mode=unknown`, and `cuda.driver.rev` empty for a driver without one.
//! - A GPU of which the driver can't even tell the name (lost, or held by `vfio-pci`) counts for nothing: the reference
//!   writes no labels at all as long as there is one.
//! - A node with several models has the labels of one of them, always the same ([`common`]), where the reference takes
//!   one at random. `pitcrew.dev/gpu.product.PRODUCT=COUNT` names all of them.
//! - Every value is a valid label value ([`value`]), whatever the driver says.
//! - `nvidia.com/gpu.present` is the operator's in the reference.

mod gpus;
mod mig;
pub mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::catalog::Class;
use crate::inventory::{CudaVersion, DriverReadings};
use crate::pci::PciAddress;
use crate::plugin::Sharing;
use crate::plugin::config::{Config, MigStrategy, NamingRules};
use crate::reading::Reading;
use crate::{Gpu, Inventory};

/// The whole GPU's resource, and what its labels begin with.
pub const GPU: &str = "nvidia.com/gpu";
/// Says that the node has a GPU, whatever the driver says.
pub const PRESENT: &str = "nvidia.com/gpu.present";
/// Class of the card: `consumer`, `workstation` or `datacentre`, from the catalogue. No label for a card that isn't in it.
pub const CLASS: &str = "pitcrew.dev/gpu.class";
/// Prefix of the labels that name each model and say how many of it there are.
pub const MODEL: &str = "pitcrew.dev/gpu.product.";
/// Seconds since 1970 when the labels were first made.
pub const TIMESTAMP: &str = "nvidia.com/gfd.timestamp";

/// How the node's GPUs are offered, as far as labels tell it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// How MIG devices are offered.
    pub mig: MigStrategy,
    /// How devices are shared. The labels of a resource say `none` all the same while it has one replica.
    pub sharing: Option<Sharing>,
    /// Resources that are shared. Of two with one name the first counts.
    pub shared: Vec<SharedResource>,
    /// Names of one's own. They change no key of a label, only which of the shared resources a device belongs to.
    pub names: NamingRules,
}

/// One shared resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedResource {
    /// Full name before it is shared: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`, or one's own.
    pub name: String,
    /// How many are made of each device.
    pub replicas: u32,
    /// True when it is offered under another name (`rename`, `renameByDefault`); the product then needs no `-SHARED`.
    pub renamed: bool,
}

impl Offer {
    /// What a configuration offers.
    pub fn of(config: &Config) -> Self {
        let sharing = config.sharing();
        let shared = sharing.into_iter().flat_map(|(_, rules)| {
            rules.resources.iter().map(|resource| SharedResource {
                name: resource.name.clone(),
                replicas: resource.replicas,
                renamed: resource.rename.is_some() || rules.rename_by_default,
            })
        });
        Self {
            mig: config.flags.mig_strategy,
            sharing: sharing.map(|(how, _)| how),
            shared: shared.collect(),
            names: config.names.clone(),
        }
    }

    fn shared(&self, resource: &str) -> Option<&SharedResource> {
        self.shared.iter().find(|shared| shared.name == resource)
    }
}

/// What labels are made of.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The GPUs; `None` while there is no driver to ask.
    pub inventory: Option<&'a Inventory>,
    /// GPUs on the PCI bus and their class codes, e.g. 0x030200: known without a driver.
    pub pci: &'a BTreeMap<PciAddress, u32>,
    /// What the firmware calls the machine (DMI `product_name`).
    pub machine: Reading<&'a str>,
    /// Virtual GPUs among those on the bus, and the driver of their host.
    pub vgpus: &'a [VgpuHost],
    /// When the labels were first made, in seconds since 1970; `None` for no such label.
    pub timestamp: Option<u64>,
}

/// The driver of the host that a virtual GPU runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VgpuHost {
    /// Its version, e.g. `580.95.02`; `None` where the capability doesn't say.
    pub version: Option<String>,
    /// Its branch, e.g. `r580_00`; `None` where the capability doesn't say.
    pub branch: Option<String>,
}

/// The labels of a node. None at all where it has no GPU.
pub fn labels(facts: &Facts<'_>, offer: &Offer) -> BTreeMap<String, String> {
    let mut labels = Labels::default();
    let known: Vec<&Gpu> = facts.inventory.map(named).unwrap_or_default();
    let any = facts
        .inventory
        .is_some_and(|inventory| !inventory.gpus.is_empty());
    if !any && facts.pci.is_empty() {
        return labels.0;
    }
    labels.set(PRESENT, "true");
    if let Some(timestamp) = facts.timestamp {
        labels.set(TIMESTAMP, timestamp);
    }
    labels.set("nvidia.com/gpu.machine", machine(&facts.machine));
    vgpu(&mut labels, facts.vgpus);
    if let Some(inventory) = facts.inventory {
        if !known.is_empty() {
            driver(&mut labels, &inventory.driver);
        }
        gpus::label(&mut labels, &known, facts, offer);
        mig::label(&mut labels, &known, offer);
    }
    labels.0
}

/// True for a label that is made here and by nobody else but GPU Feature Discovery: one that says what is no longer true
/// may be taken away, whoever wrote it. [`PRESENT`] is none of them: the operator and others write it too.
pub fn is_ours(key: &str) -> bool {
    const WHOLE: [&str; 8] = [
        "gfd.timestamp",
        "mig.capable",
        "mig.strategy",
        "mps.capable",
        "vgpu.present",
        "vgpu.host-driver-version",
        "vgpu.host-driver-branch",
        "gpu.machine",
    ];
    const OF_GPUS: [&str; 5] = ["family", "compute.major", "compute.minor", "mode", "clique"];
    const OF_DEVICES: [&str; 13] = [
        "product",
        "count",
        "replicas",
        "sharing-strategy",
        "memory",
        "multiprocessors",
        "slices.gi",
        "slices.ci",
        "engines.copy",
        "engines.decoder",
        "engines.encoder",
        "engines.jpeg",
        "engines.ofa",
    ];
    let Some(name) = key.strip_prefix("nvidia.com/") else {
        return key == CLASS || key.starts_with(MODEL);
    };
    let of_cuda = |name: &str| {
        let part = name.strip_prefix("cuda.").and_then(|rest| rest.split_once('.'));
        part.is_some_and(|(of, part)| {
            matches!(of, "driver" | "runtime" | "driver-version" | "runtime-version")
                && matches!(part, "major" | "minor" | "rev" | "revision" | "full")
        })
    };
    let of_mig = |name: &str| {
        let rest = name.strip_prefix("mig-");
        rest.is_some_and(|rest| {
            let ends = |field: &&str| {
                rest.strip_suffix(*field)
                    .is_some_and(|profile| profile.ends_with('.'))
            };
            OF_DEVICES.iter().any(ends)
        })
    };
    let of_gpus = |name: &str| {
        let field = name.strip_prefix("gpu.");
        field.is_some_and(|field| OF_GPUS.contains(&field) || OF_DEVICES.contains(&field))
    };
    WHOLE.contains(&name) || of_cuda(name) || of_gpus(name) || of_mig(name)
}

/// The GPUs whose names the driver tells.
fn named(inventory: &Inventory) -> Vec<&Gpu> {
    let gpus = inventory.gpus.iter();
    gpus.filter(|gpu| !gpu.readings.name.is_absent()).collect()
}

/// Labels on their way: what is no valid value stays out.
#[derive(Debug, Default)]
struct Labels(BTreeMap<String, String>);

impl Labels {
    fn set(&mut self, key: impl Into<String>, value: impl Into<Text>) {
        if let Some(value) = value::valid(&value.into().0) {
            self.0.insert(key.into(), value);
        }
    }

    fn set_some(&mut self, key: impl Into<String>, value: Option<impl Into<Text>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }
}

/// A value before it is known to be a valid one.
struct Text(String);

macro_rules! text_of {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Text {
            fn from(value: $kind) -> Self {
                Self(value.to_string())
            }
        })*
    };
}

text_of!(
    &str,
    String,
    &String,
    bool,
    u8,
    u32,
    &u32,
    u64,
    usize,
    &CudaVersion,
    Class
);

fn machine(name: &Reading<&str>) -> String {
    let name = name.value().map(|name| value::words(name)).unwrap_or_default();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}

fn vgpu(labels: &mut Labels, vgpus: &[VgpuHost]) {
    labels.set("nvidia.com/vgpu.present", !vgpus.is_empty());
    // All are of one host; the reference takes the last.
    for vgpu in vgpus {
        labels.set_some("nvidia.com/vgpu.host-driver-version", vgpu.version.as_deref());
        labels.set_some("nvidia.com/vgpu.host-driver-branch", vgpu.branch.as_deref());
    }
}

/// Versions of driver and CUDA, under the keys of today and under the old ones, which are still written.
fn driver(labels: &mut Labels, driver: &DriverReadings) {
    if let Some(version) = driver.version.value() {
        let parts: Vec<&str> = version.split('.').collect();
        // Anything but X.Y and X.Y.Z is no version to the reference either.
        if let [major, minor, rest @ ..] = parts.as_slice()
            && rest.len() < 2
        {
            let revision = rest.first().copied().unwrap_or_default();
            for (old, key, part) in [
                ("major", "major", *major),
                ("minor", "minor", *minor),
                ("rev", "revision", revision),
            ] {
                labels.set(format!("nvidia.com/cuda.driver.{old}"), part);
                labels.set(format!("nvidia.com/cuda.driver-version.{key}"), part);
            }
            labels.set("nvidia.com/cuda.driver-version.full", version);
        }
    }
    if let Some(cuda) = driver.cuda.value() {
        for (key, part) in [("major", cuda.major), ("minor", cuda.minor)] {
            labels.set(format!("nvidia.com/cuda.runtime.{key}"), part);
            labels.set(format!("nvidia.com/cuda.runtime-version.{key}"), part);
        }
        labels.set("nvidia.com/cuda.runtime-version.full", cuda);
    }
}

/// The most common of these, and of several that are as common the first in the alphabet: the same on each look, in
/// whatever order the driver lists its GPUs.
fn common<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts = BTreeMap::<&str, u32>::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    counts
        .into_iter()
        .find(|(_, count)| *count == most)
        .map(|(name, _)| name)
}

/// What the labels of one resource say of sharing.
struct Share {
    replicas: u32,
    strategy: &'static str,
    suffix: &'static str,
}

impl Share {
    fn of(resource: &str, offer: &Offer) -> Self {
        let shared = offer.shared(resource).filter(|shared| shared.replicas > 0);
        let replicas = shared.map_or(1, |shared| shared.replicas);
        let strategy = match offer.sharing {
            Some(Sharing::TimeSlicing) if replicas > 1 => "time-slicing",
            Some(Sharing::Mps) if replicas > 1 => "mps",
            _ => "none",
        };
        let bare = replicas > 1 && !shared.is_some_and(|shared| shared.renamed);
        Self {
            replicas,
            strategy,
            suffix: if bare { "-SHARED" } else { "" },
        }
    }

    /// What a GPU that is cut up by MIG says where MIG devices aren't offered.
    fn not_offered() -> Self {
        Self {
            replicas: 0,
            strategy: "none",
            suffix: "",
        }
    }

    fn label(&self, labels: &mut Labels, key: &str, product: &str, profile: &str, count: usize) {
        let suffix = format!("{profile}{}", self.suffix);
        labels.set(format!("{key}.product"), value::product(product, &suffix));
        labels.set(format!("{key}.count"), count);
        labels.set(format!("{key}.replicas"), self.replicas);
        labels.set(format!("{key}.sharing-strategy"), self.strategy);
    }
}
