//! GPUs as they were when they last answered.

use std::sync::Arc;

use pitcrew_core::{Gpu, Inventory};

use super::Node;
use crate::notice::{Level, Topic};

/// The driver that hands a GPU to containers.
const OURS: &str = "nvidia";

impl Node {
    /// The GPUs of a look, and in the place of each that doesn't answer what it was before: it is still there, and its
    /// devices are sick and not gone. Not so one that is somebody else's now.
    pub(super) fn remember(&self, inventory: &Arc<Inventory>) -> Arc<Inventory> {
        let answers = |gpu: &Gpu| gpu.readings.uuid.value().is_some();
        let Some(before) = &self.known else {
            return Arc::clone(inventory);
        };
        let lost: Vec<&Gpu> = before
            .gpus
            .iter()
            .filter(|old| {
                let now = inventory
                    .gpus
                    .iter()
                    .find(|gpu| gpu.pci.address == old.pci.address);
                let elsewhere = inventory
                    .gpus
                    .iter()
                    .any(|gpu| answers(gpu) && gpu.readings.uuid == old.readings.uuid);
                answers(old) && !now.is_some_and(answers) && !elsewhere && !self.is_foreign(old)
            })
            .collect();
        if lost.is_empty() {
            return Arc::clone(inventory);
        }
        let mut known = Inventory::clone(inventory);
        known
            .gpus
            .retain(|gpu| !lost.iter().any(|old| old.pci.address == gpu.pci.address));
        known.gpus.extend(lost.into_iter().cloned());
        known.gpus.sort_by_key(|gpu| gpu.index);
        Arc::new(known)
    }

    /// True for a GPU that another driver holds, such as `vfio-pci` for a virtual machine.
    fn is_foreign(&self, gpu: &Gpu) -> bool {
        let on_bus = self.host.as_ref().and_then(|host| host.gpus.value());
        on_bus.is_some_and(|on_bus| {
            on_bus
                .iter()
                .find(|found| found.function.address == gpu.pci.address)
                .and_then(|found| found.driver.value())
                .is_some_and(|driver| driver != OURS)
        })
    }

    /// Forgets GPUs that have become somebody else's.
    pub(super) fn forget_foreign(&mut self) {
        let Some(known) = &self.known else { return };
        let (gone, kept): (Vec<Gpu>, Vec<Gpu>) =
            known.gpus.iter().cloned().partition(|gpu| self.is_foreign(gpu));
        if gone.is_empty() {
            return;
        }
        let inventory = Inventory {
            gpus: kept,
            ..Inventory::clone(known)
        };
        self.known = Some(Arc::new(inventory));
        for gpu in gone {
            if let Some(uuid) = gpu.readings.uuid.value() {
                let text = format!("GPU {uuid} was given to another driver: it is not handed out any more");
                self.tell(Level::Warning, Topic::Gpus, text);
                let changes = self.health.forget(uuid);
                self.tell_health(changes);
            }
        }
    }
}
