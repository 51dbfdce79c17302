//! Ways to share a card, and what each keeps apart.

use serde::Serialize;

use super::{Card, ComputeCapability};

/// One way to share a card between pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// The way.
    pub way: &'static str,
    /// What keeps one user from another.
    pub isolates: &'static str,
    /// Most users of one card at a time; `None` where only memory limits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<u32>,
}

impl Card {
    /// Ways to share this card, the best isolated first.
    ///
    /// The numbers of MPS clients are [`max_mps_clients`].
    pub fn sharing(&self) -> Vec<Isolation> {
        let mut ways = Vec::new();
        if self.mig_max_instances > 0 {
            ways.push(Isolation {
                way: "MIG",
                isolates: "memory, faults and compute, in hardware",
                max_clients: Some(self.mig_max_instances),
            });
        }
        let capability = (self.compute_capability.major, self.compute_capability.minor);
        ways.push(Isolation {
            way: "MPS",
            isolates: if capability >= (7, 0) {
                "memory by a limit on each process; not faults"
            } else {
                "nothing: clients share one address space"
            },
            max_clients: Some(max_mps_clients(self.compute_capability)),
        });
        ways.push(Isolation {
            way: "time-slicing",
            isolates: "faults; not memory, one user can take all of it",
            max_clients: None,
        });
        ways
    }
}

/// Most clients of MPS on one GPU: 48 from compute capability 7.5 on, 16 below, also on 7.0, where the manual says 48.
/// Those are the numbers of NVIDIA's device plugin, whose configurations must mean the same here.
pub fn max_mps_clients(capability: ComputeCapability) -> u32 {
    if (capability.major, capability.minor) >= (7, 5) {
        48
    } else {
        16
    }
}
