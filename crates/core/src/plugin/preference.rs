//! Which of the free devices a container should get: `GetPreferredAllocation`.
//!
//! - **Whole GPUs** by how they are connected. Of all sets of the wanted size, the one whose pairs score most together
//!   ([`Topology`]); of those alike, the one with the weakest ties to what is left, so that good groups stay together for
//!   who comes next; then the first in the driver's order. Exact up to [`MOST_SETS`] sets, which is every request on 8
//!   GPUs; beyond that, one GPU after the other from each possible first one. The reference scores whole partitions of
//!   all that is free instead, and so gives a pod a worse set for the sake of pods that may never come.
//! - **Replicas** by the policy: of the device of which the smallest (`distributed`) or largest (`packed`) part is taken,
//!   as the reference does. Of those alike, the one that is best connected with what was chosen before.
//! - **MIG devices** that aren't shared are packed: of the GPU of which most are taken. The reference takes any. A GPU all
//!   of whose MIG devices are free can be cut up anew; one with a single pod on it can't.
//!
//! It never fails. A GPU of which nothing is known (lost, or its links can't be read) is connected to none, and comes
//! last where connections matter.

mod one_by_one;
mod together;
mod topology;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use together::MOST_SETS;
pub use topology::Topology;

use super::config::SharingPolicy;
use super::{Resource, is_replica};

/// Everything that choosing among the devices of one resource needs, made once: a call takes microseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// GPUs and MIG devices of the resource, in the driver's order.
    devices: Vec<Physical>,
    /// Device of each id, and the id's place among all.
    ids: HashMap<String, (usize, usize)>,
    /// How each two GPUs are connected, by their places in `gpus`.
    scores: Scores,
    kind: Kind,
}

/// A GPU or MIG device of the resource.
#[derive(Debug, Clone, PartialEq)]
struct Physical {
    /// Its GPU's place.
    gpu: usize,
    /// How many ids it has.
    total: usize,
}

/// How devices are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whole GPUs, none of them shared.
    Together,
    /// MIG devices, none of them shared.
    Mig,
    /// Replicas.
    Shared(SharingPolicy),
}

/// A square of scores.
#[derive(Debug, Clone, PartialEq)]
struct Scores {
    gpus: usize,
    of: Vec<u32>,
}

impl Scores {
    fn between(&self, one: usize, other: usize) -> u32 {
        self.of.get(one * self.gpus + other).copied().unwrap_or(0)
    }
}

impl Preference {
    /// For one resource.
    pub fn new(resource: &Resource, topology: &Topology, policy: SharingPolicy) -> Self {
        let mut gpus: Vec<(&str, Option<u32>)> = Vec::new();
        let mut devices: Vec<Physical> = Vec::new();
        let mut uuids: HashMap<&str, usize> = HashMap::new();
        let mut ids = HashMap::new();
        let mut whole = true;
        for (order, device) in resource.devices.iter().enumerate() {
            let gpu = gpus.iter().position(|(uuid, _)| *uuid == device.gpu);
            let gpu = gpu.unwrap_or_else(|| {
                gpus.push((&device.gpu, device.numa));
                gpus.len() - 1
            });
            let at = *uuids.entry(&device.uuid).or_insert_with(|| {
                devices.push(Physical { gpu, total: 0 });
                devices.len() - 1
            });
            devices[at].total += 1;
            ids.insert(device.id.clone(), (at, order));
            whole &= device.uuid == device.gpu;
        }
        let shared = resource.devices.iter().any(|device| is_replica(&device.id));
        let of = gpus
            .iter()
            .flat_map(|one| gpus.iter().map(|other| topology.score(*one, *other)))
            .collect();
        let kind = match (shared, whole) {
            (true, _) => Kind::Shared(policy),
            (false, true) => Kind::Together,
            (false, false) => Kind::Mig,
        };
        Self {
            devices,
            ids,
            scores: Scores { gpus: gpus.len(), of },
            kind,
        }
    }

    /// Chooses `size` of the `available` ids; those that `must` be among them come first.
    ///
    /// Fewer where there are not so many. Ids that the resource doesn't have come last. Where more must be among them
    /// than are wanted, the first of those.
    pub fn choose(&self, available: &[String], must: &[String], size: usize) -> Vec<String> {
        let mut chosen: Vec<&String> = Vec::with_capacity(size.min(available.len()));
        for id in must {
            if chosen.len() < size && !chosen.contains(&id) {
                chosen.push(id);
            }
        }
        // Free ids by device, each device's in the driver's order, and those that nobody knows.
        let mut free: Vec<Vec<(usize, &String)>> = vec![Vec::new(); self.devices.len()];
        let mut unknown: Vec<&String> = Vec::new();
        for id in available {
            match self.ids.get(id) {
                Some(&(device, order)) => free[device].push((order, id)),
                None => unknown.push(id),
            }
        }
        for ids in &mut free {
            ids.retain(|(_, id)| !chosen.contains(id));
            ids.sort_unstable();
            ids.dedup();
        }
        let before: Vec<usize> = chosen
            .iter()
            .filter_map(|id| self.ids.get(*id))
            .map(|(device, _)| *device)
            .collect();
        let wanted = size - chosen.len();
        let counts: Vec<usize> = free.iter().map(Vec::len).collect();
        let picks = match self.kind {
            Kind::Together => self.together(&counts, &before, wanted),
            Kind::Mig => self.one_by_one(counts, &before, wanted, None),
            Kind::Shared(policy) => self.one_by_one(counts, &before, wanted, Some(policy)),
        };
        let mut next: Vec<_> = free.into_iter().map(Vec::into_iter).collect();
        chosen.extend(
            picks
                .into_iter()
                .filter_map(|device| Some(next.get_mut(device)?.next()?.1)),
        );
        for id in unknown {
            if chosen.len() < size && !chosen.contains(&id) {
                chosen.push(id);
            }
        }
        chosen.into_iter().cloned().collect()
    }
}
