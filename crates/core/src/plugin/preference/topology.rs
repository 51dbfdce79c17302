//! How well GPUs are connected, as numbers.

use std::collections::HashMap;

use crate::Inventory;
use crate::inventory::{Link, PciPath};

/// What an NVLink between two GPUs is worth.
const NVLINK: u32 = 100;
/// Most NVLinks that count: what a GPU has at most.
const MOST_NVLINKS: u32 = 18;

/// How well each two GPUs of a node are connected: 100 for each NVLink, directly or through switches, and for the way
/// over PCIe 60 (one board), 50 (one switch), 40 (several switches), 30 (one host bridge), 20 (one NUMA node) or 10
/// (another one). The reference's numbers (fact sheet `devices`, section 1.6).
///
/// Where all GPUs hang on `NVSwitch`es, each two have as many NVLinks, so that PCIe and NUMA decide. What can't be read is
/// worth nothing; of a pair whose way over PCIe isn't known, the NUMA nodes are taken instead. A pair counts once,
/// whichever way round it is listed, and the better of two entries that differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    pairs: HashMap<(String, String), Pair>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Pair {
    nvlinks: u32,
    path: Option<u32>,
}

const fn path_score(path: PciPath) -> u32 {
    match path {
        PciPath::SameBoard => 60,
        PciPath::SingleSwitch => 50,
        PciPath::MultipleSwitches => 40,
        PciPath::HostBridge => 30,
        PciPath::NumaNode => SAME_NUMA,
        PciPath::System => OTHER_NUMA,
    }
}

const SAME_NUMA: u32 = 20;
const OTHER_NUMA: u32 = 10;

impl Topology {
    /// Of a node. GPUs that can't be told apart have no part in it.
    pub fn of(inventory: &Inventory) -> Self {
        let mut topology = Self::default();
        let uuids: HashMap<u32, &String> = inventory
            .gpus
            .iter()
            .filter_map(|gpu| Some((gpu.index, gpu.readings.uuid.value()?)))
            .collect();
        for Link {
            from,
            to,
            path,
            nvlinks,
        } in &inventory.links
        {
            let (Some(one), Some(other)) = (uuids.get(from), uuids.get(to)) else {
                continue;
            };
            let pair = topology.pairs.entry(key(one, other)).or_default();
            let nvlinks = nvlinks.value().copied().unwrap_or(0).min(MOST_NVLINKS);
            pair.nvlinks = pair.nvlinks.max(nvlinks);
            pair.path = pair.path.max(path.value().copied().map(path_score));
        }
        topology
    }

    /// How well two GPUs, each with its NUMA node, are connected. A GPU is with itself better than with any other.
    pub(super) fn score(&self, one: (&str, Option<u32>), other: (&str, Option<u32>)) -> u32 {
        if one.0 == other.0 {
            return NVLINK * (MOST_NVLINKS + 1);
        }
        let pair = self.pairs.get(&key(one.0, other.0)).copied().unwrap_or_default();
        let by_numa = || match (one.1, other.1) {
            (Some(one), Some(other)) if one == other => SAME_NUMA,
            (Some(_), Some(_)) => OTHER_NUMA,
            _ => 0,
        };
        pair.nvlinks * NVLINK + pair.path.unwrap_or_else(by_numa)
    }
}

fn key(one: &str, other: &str) -> (String, String) {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    (low.to_owned(), high.to_owned())
}
