//! Proofs of the node's GPUs: when one runs, whose reports count, and what follows from them.
//!
//! A proof is [`pitcrew prove`](pitcrew_core::proof), run as a process of its own ([`Prover`](crate::deps::Prover)): the agent
//! itself loads no CUDA, and a driver that hangs hangs the child. It runs on GPUs that no pod holds and that the kubelet was
//! told not to hand out before ([`keep`]), on all that are due and free at once: eight GPUs one after the other would be away
//! eight times as long, heat and power supply show only when all work, and copies between GPUs need two.
//!
//! A report counts whoever made it, as long as it is of this node's GPUs and no older than what is known ([`take()`]). It is
//! judged anew from its evidence. What it says holds until the node is booted anew or another driver is there
//! ([`standing()`]).

mod attempt;
mod due;
pub(crate) mod keep;
mod policy;
mod shelf;
mod standing;
mod taken;
#[cfg(test)]
mod tests;
mod withhold;

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_core::Gpu;
use pitcrew_core::proof::{Profile, Timestamp, Verdict};

pub use due::{Due, due};
pub use policy::{Policy, parse_every};
pub use shelf::{DIR, hand_over, on_disk};
pub use standing::{Stale, Standing, standing};
pub use taken::{Expected, Refused, Taken, take};

/// What the newest report says of a GPU or MIG device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The verdict on this device.
    pub verdict: Verdict,
    /// How much was tested.
    pub profile: Profile,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, in seconds.
    pub seconds: u32,
    /// Results that were compared, and bytes of memory.
    pub verified: u64,
    /// Version of the driver that ran it; absent where the report doesn't say.
    pub driver: Option<String>,
    /// What speaks against the device, the gravest alone.
    pub reason: Option<String>,
    /// What to do about it.
    pub action: Option<String>,
}

impl Proof {
    /// True for verdicts that say something about the GPU.
    pub const fn is_verdict(&self) -> bool {
        !matches!(self.verdict, Verdict::ErrorSetup | Verdict::Interrupted)
    }
}

/// What there is of proofs on a node, for everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// What is asked for.
    pub policy: Policy,
    /// The newest proof of each device, by UUID of the GPU or MIG device.
    pub proofs: BTreeMap<String, Proof>,
    /// When the node was booted; `None` where it can't be told.
    pub booted: Option<Timestamp>,
    /// GPUs on which a proof runs now, by UUID.
    pub running: BTreeSet<String>,
    /// GPUs that a proof is due on, and why it doesn't run yet.
    pub waiting: BTreeMap<String, String>,
    /// Why the last attempt gave no verdict, by UUID of the GPU.
    pub failed: BTreeMap<String, String>,
    /// GPUs that the kubelet must not hand out for the sake of their proof, by UUID, with the reason.
    pub withheld: BTreeMap<String, String>,
    /// The request that was answered last.
    pub answered: Option<String>,
}

/// UUIDs of what is proved of a GPU: its MIG devices where it is cut up, else itself; none where that can't be read.
pub fn devices_of(gpu: &Gpu) -> Vec<String> {
    let readings = &gpu.readings;
    if readings.mig_mode.value().is_some_and(|mode| mode.current) {
        let devices = readings.mig_devices.value().map_or(&[][..], Vec::as_slice);
        return devices.iter().map(|device| device.uuid.clone()).collect();
    }
    readings.uuid.value().cloned().into_iter().collect()
}
