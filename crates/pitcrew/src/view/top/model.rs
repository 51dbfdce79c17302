//! What has been seen of the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::gpu::{GpuReadings, ProcessKind};
use pitcrew_core::pci::PciAddress;
use pitcrew_core::{Gpu, Inventory, Reading};

use super::figure::short_name;
use super::history::History;
use super::look::{Look, ProcessInfo, Trouble};

/// What has been seen of the machine. Times are since the view was started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// The last inventory that was read.
    pub(crate) inventory: Option<Inventory>,
    /// When it was read.
    pub(crate) taken: Duration,
    /// When the last look came, with or without an answer.
    pub(crate) looked: Duration,
    /// Why the last look gave nothing.
    pub(crate) trouble: Option<Trouble>,
    /// A driver that was replaced, and when that was seen.
    pub(crate) replaced: Option<Replaced>,
    /// GPUs that the driver listed and doesn't list any more.
    pub(crate) gone: Vec<Gone>,
    /// GPUs that only the PCI bus knows.
    pub(crate) bus_only: Vec<PciAddress>,
    processes: BTreeMap<u32, ProcessInfo>,
    histories: BTreeMap<String, History>,
    seen: BTreeMap<PciAddress, Seen>,
    version: Option<String>,
}

/// A driver that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// Version before.
    pub(crate) from: String,
    /// Version now.
    pub(crate) to: String,
    /// When it was seen.
    pub(crate) at: Duration,
}

/// A GPU that the driver no longer lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Its index when it was last seen.
    pub(crate) index: u32,
    /// Where it was.
    pub(crate) address: PciAddress,
    /// What it was called.
    pub(crate) name: String,
    /// When it was missed first.
    pub(crate) since: Duration,
}

/// What is remembered of the GPU in a slot, for when it doesn't say so any more.
#[derive(Debug, Clone)]
struct Seen {
    index: u32,
    uuid: String,
    name: String,
    lost_since: Option<Duration>,
}

/// One process on one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) kind: ProcessKind,
    pub(crate) memory: Reading<u64>,
    /// Index of the GPU.
    pub(crate) gpu: u32,
    pub(crate) gpu_instance: Option<u32>,
    pub(crate) info: ProcessInfo,
}

/// True when nothing at all could be read of a GPU.
pub(crate) fn is_lost(readings: &GpuReadings) -> bool {
    readings.uuid.failure().is_some() && readings.present().is_empty()
}

impl Model {
    /// Takes in a look.
    pub(crate) fn update(&mut self, look: Look) {
        self.looked = look.taken;
        match look.inventory {
            Ok(inventory) => {
                self.trouble = None;
                self.taken = look.taken;
                self.processes = look.processes;
                self.bus_only = look.bus_only;
                self.notice_driver(&inventory, look.taken);
                self.notice_gpus(&inventory, look.taken);
                self.remember(&inventory);
                self.inventory = Some(inventory);
            }
            Err(trouble) => {
                self.trouble = Some(trouble);
                self.histories.values_mut().for_each(History::gap);
            }
        }
    }

    fn notice_driver(&mut self, inventory: &Inventory, now: Duration) {
        let Some(to) = inventory.driver.version.value() else {
            return;
        };
        if let Some(from) = self.version.replace(to.clone())
            && from != *to
        {
            let to = to.clone();
            self.replaced = Some(Replaced { from, to, at: now });
        }
    }

    fn notice_gpus(&mut self, inventory: &Inventory, now: Duration) {
        for gpu in &inventory.gpus {
            let address = gpu.pci.address;
            self.gone.retain(|gone| gone.address != address);
            let lost = is_lost(&gpu.readings);
            if let Some(uuid) = gpu.readings.uuid.value() {
                let seen = Seen {
                    index: gpu.index,
                    uuid: uuid.clone(),
                    name: self.name(gpu),
                    lost_since: None,
                };
                self.seen.insert(address, seen);
            } else if let Some(seen) = self.seen.get_mut(&address)
                && lost
            {
                seen.lost_since.get_or_insert(now);
            }
        }
        let is_listed = |address: &PciAddress| inventory.gpus.iter().any(|gpu| gpu.pci.address == *address);
        for (&address, seen) in &self.seen {
            if !is_listed(&address) && !self.gone.iter().any(|gone| gone.address == address) {
                self.gone.push(Gone {
                    index: seen.index,
                    address,
                    name: seen.name.clone(),
                    since: now,
                });
            }
        }
    }

    fn remember(&mut self, inventory: &Inventory) {
        let keys: Vec<String> = inventory.gpus.iter().map(|gpu| self.key(gpu)).collect();
        for (key, history) in &mut self.histories {
            if !keys.contains(key) {
                history.gap();
            }
        }
        for (key, gpu) in keys.into_iter().zip(&inventory.gpus) {
            self.histories.entry(key).or_default().push(&gpu.readings);
        }
    }

    /// GPUs that were last listed.
    pub(crate) fn gpus(&self) -> &[Gpu] {
        self.inventory
            .as_ref()
            .map_or(&[], |inventory| inventory.gpus.as_slice())
    }

    /// What a GPU is known by: its UUID, also when it no longer says so itself; without one its address.
    pub(crate) fn key(&self, gpu: &Gpu) -> String {
        match (&gpu.readings.uuid, self.seen.get(&gpu.pci.address)) {
            (Reading::Value(uuid), _) => uuid.clone(),
            (_, Some(seen)) => seen.uuid.clone(),
            (_, None) => gpu.pci.address.to_string(),
        }
    }

    /// What a GPU is called: by the driver, by the driver before, or by its PCI id.
    pub(crate) fn name(&self, gpu: &Gpu) -> String {
        let seen = self.seen.get(&gpu.pci.address);
        match (&gpu.readings.name, seen, gpu.card()) {
            (Reading::Value(name), _, _) => short_name(name).to_owned(),
            (_, Some(seen), _) => seen.name.clone(),
            (_, _, Some(card)) => card.name.clone(),
            (Reading::NotSupported, None, None) => "-".to_owned(),
            (Reading::Failed(_), None, None) => "?".to_owned(),
        }
    }

    /// Since when a GPU that answered before doesn't any more.
    pub(crate) fn lost_since(&self, gpu: &Gpu) -> Option<Duration> {
        self.seen
            .get(&gpu.pci.address)
            .filter(|_| is_lost(&gpu.readings))
            .and_then(|seen| seen.lost_since)
    }

    /// What is remembered of a GPU.
    pub(crate) fn history(&self, gpu: &Gpu) -> Option<&History> {
        self.histories.get(&self.key(gpu))
    }

    /// Every process on every GPU; one that holds several GPUs is there several times.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let of = |gpu: &Gpu| {
            let index = gpu.index;
            let all = gpu.readings.processes.value().cloned().unwrap_or_default();
            all.into_iter().map(move |process| (index, process))
        };
        let all = self.gpus().iter().flat_map(of);
        all.map(|(gpu, process)| Process {
            pid: process.pid,
            kind: process.kind,
            memory: process.memory_bytes,
            gpu,
            gpu_instance: process.gpu_instance,
            info: self
                .processes
                .get(&process.pid)
                .cloned()
                .unwrap_or_else(ProcessInfo::nothing),
        })
        .collect()
    }
}
