//! What the labels should be, over time.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::labels::{Facts, Offer, labels};
use pitcrew_core::{Inventory, Reading};
use pitcrew_host::facts::Host;
use tokio::time::Instant;

use crate::snapshot::Snapshot;

/// How long labels stay while the driver can't be read, as in an upgrade. GPUs that are gone from the bus take theirs
/// along at once.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Since when the driver can't be read.
    unread: Option<Instant>,
}

/// What the labels should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// Not known yet: nothing is written.
    Wait,
    /// These.
    Labels(BTreeMap<String, String>),
    /// Whatever they are, until this moment; these if there are none.
    Keep(Instant, BTreeMap<String, String>),
}

impl Memory {
    pub(super) fn wish(
        &mut self,
        snapshot: &Snapshot,
        offer: Option<&Offer>,
        timestamp: Option<u64>,
        now: Instant,
    ) -> Wish {
        // A node that shares its GPUs must not be told to be one that doesn't until its configuration is read.
        let (Some(host), Some(gpus), Some(offer)) = (&snapshot.host, &snapshot.gpus, offer) else {
            return Wish::Wait;
        };
        let made = |inventory| made_of(host, inventory, offer, timestamp);
        match gpus {
            Ok(inventory) => {
                self.unread = None;
                Wish::Labels(made(Some(inventory)))
            }
            Err(_) if host.gpus.value().is_some_and(Vec::is_empty) => {
                self.unread = None;
                Wish::Labels(BTreeMap::new())
            }
            Err(_) => {
                let until = *self.unread.get_or_insert(now) + PATIENCE;
                let bare = made(None);
                if now < until {
                    Wish::Keep(until, bare)
                } else {
                    Wish::Labels(bare)
                }
            }
        }
    }
}

fn made_of(
    host: &Host,
    inventory: Option<&Inventory>,
    offer: &Offer,
    timestamp: Option<u64>,
) -> BTreeMap<String, String> {
    let gpus = host.gpus.value().map(Vec::as_slice).unwrap_or_default();
    let pci = gpus.iter().map(|gpu| (gpu.function.address, gpu.class)).collect();
    let vgpus: Vec<_> = gpus
        .iter()
        .filter_map(|gpu| gpu.vgpu_host.value().cloned())
        .collect();
    let machine = match &host.system.machine {
        Reading::Value(name) => Reading::Value(name.as_str()),
        Reading::NotSupported => Reading::NotSupported,
        Reading::Failed(why) => Reading::Failed(why.clone()),
    };
    let facts = Facts {
        inventory,
        pci: &pci,
        machine,
        vgpus: &vgpus,
        timestamp,
    };
    labels(&facts, offer)
}
