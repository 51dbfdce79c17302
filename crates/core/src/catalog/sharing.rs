//! Ways to share a card, and what each keeps apart.

use serde::Serialize;

use super::Card;

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
    /// The numbers of MPS clients are those that NVIDIA's device plugin allows: 48 from compute capability 7.5 on,
    /// 16 below, also on 7.0.
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
            max_clients: Some(if capability >= (7, 5) { 48 } else { 16 }),
        });
        ways.push(Isolation {
            way: "time-slicing",
            isolates: "faults; not memory, one user can take all of it",
            max_clients: None,
        });
        ways
    }
}
