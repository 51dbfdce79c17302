//! One node as the rules see it: its facts, what the driver said, and what follows from both.

use std::collections::BTreeMap;

use pitcrew_core::catalog::{self, Card};
use pitcrew_core::ports::GpuError;
use pitcrew_core::{Gpu, Inventory, Reading};
use pitcrew_host::Host;
use pitcrew_host::facts::{Containerd, Distribution, PciGpu};

use crate::advice::Advice;

/// A driver that isn't loaded says nothing, whoever else answered in its place.
static NOT_LOADED: GpuError = GpuError::NoDriver(String::new());

/// One node.
pub(crate) struct Node<'a> {
    pub(crate) host: &'a Host,
    pub(crate) gpus: Result<&'a Inventory, &'a GpuError>,
    pub(crate) advice: Advice<'a>,
}

/// Why there is no GPU that a container could use.
pub(crate) enum NoGpu {
    /// The bus can't be read.
    Unreadable,
    /// There is none.
    None,
    /// All are kept for virtual machines.
    AllVfio,
}

impl NoGpu {
    /// In words, for checks that then mean nothing.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Unreadable => "the PCI bus can't be read",
            Self::None => "no GPU on this node",
            Self::AllVfio => "all GPUs are bound to vfio-pci",
        }
    }
}

impl<'a> Node<'a> {
    pub(crate) fn new(host: &'a Host, gpus: Result<&'a Inventory, &'a GpuError>) -> Self {
        let is_loaded = !matches!(host.driver.kernel_version, Reading::NotSupported);
        Self {
            host,
            gpus: if is_loaded { gpus } else { Err(&NOT_LOADED) },
            advice: Advice::new(host),
        }
    }

    pub(crate) fn distribution(&self) -> Option<&'a Distribution> {
        self.host.distribution.value()
    }

    pub(crate) fn containerd(&self) -> Option<&'a Containerd> {
        self.host.containerd.value()
    }

    /// GPUs that containers can use: those that are not kept for virtual machines.
    pub(crate) fn usable(&self) -> Result<Vec<&'a PciGpu>, NoGpu> {
        let all = match &self.host.gpus {
            Reading::Value(all) => all,
            Reading::NotSupported => return Err(NoGpu::None),
            Reading::Failed(_) => return Err(NoGpu::Unreadable),
        };
        let usable: Vec<_> = all.iter().filter(|gpu| !is_vfio(gpu)).collect();
        match (all.is_empty(), usable.is_empty()) {
            (true, _) => Err(NoGpu::None),
            (false, true) => Err(NoGpu::AllVfio),
            (false, false) => Ok(usable),
        }
    }

    /// What the driver said of this GPU.
    pub(crate) fn reading(&self, gpu: &PciGpu) -> Option<&'a Gpu> {
        let inventory = self.gpus.ok()?;
        inventory
            .gpus
            .iter()
            .find(|known| known.pci.address == gpu.function.address)
    }

    /// The card in the catalogue, by its PCI id, and by the driver's name where two share one.
    pub(crate) fn card(&self, gpu: &PciGpu) -> Option<&'static Card> {
        let name = self
            .reading(gpu)
            .and_then(|known| known.readings.name.value().map(String::as_str));
        catalog::lookup(Some(gpu.function.device_id), name)
    }

    /// Its name for people.
    pub(crate) fn name(&self, gpu: &PciGpu) -> String {
        self.card(gpu).map_or_else(
            || format!("unknown card 10de:{:04x}", gpu.function.device_id),
            |card| card.name.clone(),
        )
    }

    /// Usable GPUs grouped by card, as name, card and count.
    pub(crate) fn cards(&self) -> Vec<(String, Option<&'static Card>, usize)> {
        let mut groups: BTreeMap<String, (Option<&'static Card>, usize)> = BTreeMap::new();
        for gpu in self.usable().unwrap_or_default() {
            groups
                .entry(self.name(gpu))
                .or_insert_with(|| (self.card(gpu), 0))
                .1 += 1;
        }
        groups
            .into_iter()
            .map(|(name, (card, count))| (name, card, count))
            .collect()
    }

    /// True where this kernel module is loaded; `None` where that can't be read.
    pub(crate) fn is_loaded(&self, module: &str) -> Option<bool> {
        match &self.host.driver.loaded_modules {
            Reading::Value(modules) => Some(modules.iter().any(|known| known == module)),
            Reading::NotSupported => Some(false),
            Reading::Failed(_) => None,
        }
    }
}

/// True for a GPU that is kept for virtual machines.
pub(crate) fn is_vfio(gpu: &PciGpu) -> bool {
    gpu.driver.value().is_some_and(|driver| driver == "vfio-pci")
}

/// First number of a driver's version: its branch.
pub(crate) fn branch(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}
