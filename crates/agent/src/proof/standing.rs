//! What the newest proof of a GPU is worth now. Pure.

use pitcrew_core::Gpu;
use pitcrew_core::proof::{Timestamp, Verdict};

use super::{Proof, View, devices_of};

/// What is known of a GPU by its proofs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No report of it, or of one of its MIG devices, was handed over.
    None,
    /// It could not be tested, or not to the end.
    Incomplete(Proof),
    /// There was a verdict, and it holds no more.
    Stale(Proof, Stale),
    /// Every result was right.
    Proven(Proof),
    /// There is a verdict against it or its surroundings.
    Failed(Proof),
}

/// Why a verdict holds no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The node was booted since.
    Booted,
    /// Another driver runs it.
    Driver,
}

impl Standing {
    /// The proof behind it.
    pub const fn proof(&self) -> Option<&Proof> {
        match self {
            Self::None => None,
            Self::Incomplete(proof) | Self::Stale(proof, _) | Self::Proven(proof) | Self::Failed(proof) => {
                Some(proof)
            }
        }
    }

    /// True while a program that computes on it has run under this driver since the node's boot.
    pub fn has_computed(&self) -> bool {
        matches!(self, Self::Proven(_) | Self::Failed(_))
            && self.proof().is_some_and(|proof| proof.verified > 0)
    }

    /// What counts of several MIG devices before others: a fault before what is not known, and that before a pass.
    const fn rank(&self) -> u8 {
        match self {
            Self::Proven(_) => 0,
            Self::Stale(..) => 1,
            Self::Incomplete(_) => 2,
            Self::None => 3,
            Self::Failed(_) => 4,
        }
    }
}

/// What is known of a GPU; of one that MIG cuts up, what counts of its devices. `driver` is the version of the driver that
/// runs it now.
pub fn standing(view: &View, gpu: &Gpu, driver: Option<&str>) -> Standing {
    let of = |uuid: &String| {
        let proof = view.proofs.get(uuid);
        proof.map_or(Standing::None, |proof| of_device(proof, view.booted, driver))
    };
    let all = devices_of(gpu);
    let worst = all.iter().map(of).max_by_key(|standing| {
        let verdict = standing.proof().map_or(Verdict::Pass, |proof| proof.verdict);
        (standing.rank(), verdict)
    });
    worst.unwrap_or(Standing::None)
}

fn of_device(proof: &Proof, booted: Option<Timestamp>, driver: Option<&str>) -> Standing {
    if !proof.is_verdict() {
        return Standing::Incomplete(proof.clone());
    }
    if booted.is_some_and(|booted| proof.started < booted) {
        return Standing::Stale(proof.clone(), Stale::Booted);
    }
    let other = driver.zip(proof.driver.as_deref());
    if other.is_some_and(|(now, then)| now != then) {
        return Standing::Stale(proof.clone(), Stale::Driver);
    }
    if proof.verdict.is_failure() {
        Standing::Failed(proof.clone())
    } else {
        Standing::Proven(proof.clone())
    }
}
