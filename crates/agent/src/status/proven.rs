//! What is said of a node's proofs: the condition `Proven`, and the proof of each GPU. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pitcrew_api::ConditionStatus;
use pitcrew_api::condition::kind;
use pitcrew_api::gpu_node::{GpuProof, ProofProfile};
use pitcrew_core::Gpu;
use pitcrew_core::proof::{Profile, Verdict};

use super::events::cut;
use super::inventory::{answers, counted, inventory};
use super::judge::Judgement;
use crate::proof::{Proof, Stale, Standing, standing};
use crate::snapshot::Snapshot;

/// Longest message, in bytes.
const LONGEST: usize = 1024;
/// Longest reason and hint of one GPU, in bytes.
const LONGEST_OF_GPU: usize = 512;
/// How to have it proved.
const ASK: &str = "kubectl patch gpunode NODE --type=merge -p '{\"spec\":{\"proof\":{\"request\":\"1\"}}}' (another text each \
                   time), or on the node: pitcrew prove --hand-over";

/// A GPU and what is known of it by its proofs.
struct Known<'a> {
    gpu: &'a Gpu,
    uuid: &'a str,
    standing: Standing,
}

impl Known<'_> {
    fn name(&self) -> String {
        format!("GPU {} ({})", self.gpu.index, self.uuid)
    }
}

fn driver(snapshot: &Snapshot) -> Option<&str> {
    inventory(snapshot)?.driver.version.value().map(String::as_str)
}

fn known(snapshot: &Snapshot) -> Vec<Known<'_>> {
    let gpus = inventory(snapshot).map_or(&[][..], |inventory| &inventory.gpus);
    let known = gpus.iter().filter(|gpu| answers(gpu)).filter_map(|gpu| {
        Some(Known {
            uuid: gpu.readings.uuid.value()?,
            standing: standing(&snapshot.proof, gpu, driver(snapshot)),
            gpu,
        })
    });
    known.collect()
}

/// True once a program that computes has run on a GPU of this node, under the driver that is there, since its boot.
pub(super) fn has_computed(snapshot: &Snapshot) -> bool {
    known(snapshot).iter().any(|known| known.standing.has_computed())
}

/// The condition: false where there is a verdict against a GPU, true where all are proven, else unknown.
pub(super) fn proven(snapshot: &Snapshot) -> Judgement {
    let mut judgement = judge(snapshot);
    judgement.message = cut(&judgement.message, LONGEST).to_owned();
    judgement
}

fn judge(snapshot: &Snapshot) -> Judgement {
    let kind = kind::PROVEN;
    let all = known(snapshot);
    if all.is_empty() {
        let message = "there is no GPU that answers, and none to prove";
        return Judgement::unknown(kind, "NotProven", message, "see the hint of DriverReady");
    }
    let mut failed: Vec<(&Known<'_>, &Proof)> = all
        .iter()
        .filter_map(|known| match &known.standing {
            Standing::Failed(proof) => Some((known, proof)),
            _ => None,
        })
        .collect();
    failed.sort_by_key(|(_, proof)| std::cmp::Reverse(proof.verdict));
    if let Some((_, worst)) = failed.first() {
        let told = failed.iter().map(|(known, proof)| told(known, proof));
        let hint = worst.action.clone().unwrap_or_else(|| ASK.to_owned());
        return Judgement::fails(
            kind,
            reason(worst.verdict),
            told.collect::<Vec<_>>().join("; "),
            hint,
        );
    }
    let open: Vec<&Known<'_>> = all
        .iter()
        .filter(|known| !matches!(known.standing, Standing::Proven(_)))
        .collect();
    match open.first() {
        None => passed(&all),
        Some(first) => under_way(snapshot, &open).unwrap_or_else(|| not_proven(snapshot, first, &open)),
    }
}

/// What keeps GPUs from being proven at the moment: a proof runs, waits, or could not run. `None` where nothing does.
fn under_way(snapshot: &Snapshot, open: &[&Known<'_>]) -> Option<Judgement> {
    let (kind, view) = (kind::PROVEN, &snapshot.proof);
    let runs = |known: &Known<'_>| view.running.contains(known.uuid);
    if open.iter().any(|known| runs(known)) {
        let message = format!(
            "being proved (profile {}): {}",
            view.policy.profile,
            names(open, runs)
        );
        return Some(Judgement::unknown(
            kind,
            "Proving",
            message,
            "wait until it has ended",
        ));
    }
    let first = |of: &std::collections::BTreeMap<String, String>| {
        let found = open
            .iter()
            .find_map(|known| Some((known.name(), of.get(known.uuid)?.clone())));
        found.map(|(name, why)| (name, why, more(of.len())))
    };
    if let Some((name, why, more)) = first(&view.waiting) {
        let message = format!("{name} waits for its proof: {why}{more}");
        let hint = "it begins when no pod holds the GPU any more";
        return Some(Judgement::unknown(kind, "Waiting", message, hint));
    }
    let (name, why, more) = first(&view.failed)?;
    let message = format!("{name} could not be proved: {why}{more}");
    let hint = "pitcrew prove, on the node, says more";
    Some(Judgement::unknown(kind, "ProofFailed", message, hint))
}

fn names(open: &[&Known<'_>], which: impl Fn(&Known<'_>) -> bool) -> String {
    let names: Vec<String> = open
        .iter()
        .filter(|known| which(known))
        .map(|known| known.name())
        .collect();
    names.join(", ")
}

/// Why no verdict holds on the first of these.
fn not_proven(snapshot: &Snapshot, first: &Known<'_>, open: &[&Known<'_>]) -> Judgement {
    let kind = kind::PROVEN;
    match &first.standing {
        Standing::Stale(proof, stale) => {
            let (reason, since) = match stale {
                Stale::Booted => ("BootedSince", "the node was booted since".to_owned()),
                Stale::Driver => (
                    "DriverChanged",
                    format!(
                        "the driver was {}, and is {}",
                        proof.driver.as_deref().unwrap_or("another"),
                        driver(snapshot).unwrap_or("another"),
                    ),
                ),
            };
            let message = format!(
                "the proof of {} ({}, {}) holds no more: {since}{}",
                first.name(),
                proof.verdict,
                proof.started,
                more(open.len())
            );
            Judgement::unknown(kind, reason, message, ASK)
        }
        Standing::Incomplete(proof) => {
            let hint = proof.action.clone().unwrap_or_else(|| ASK.to_owned());
            Judgement::unknown(kind, reason(proof.verdict), told(first, proof), hint)
        }
        _ => {
            let is_new = |known: &Known<'_>| known.standing == Standing::None;
            let message = format!("no proof has run on {}", names(open, is_new));
            Judgement::unknown(kind, "NotProven", message, ASK)
        }
    }
}

/// `; and 3 more` behind the first of several.
fn more(count: usize) -> String {
    match count.saturating_sub(1) {
        0 => String::new(),
        more => format!("; and {more} more"),
    }
}

fn passed(all: &[Known<'_>]) -> Judgement {
    let proofs = all
        .iter()
        .filter_map(|known| Some((known, known.standing.proof()?)));
    let warned: Vec<(&Known<'_>, &Proof)> = proofs
        .clone()
        .filter(|(_, proof)| proof.verdict != Verdict::Pass)
        .collect();
    if let Some((_, first)) = warned.first() {
        let told: Vec<String> = warned.iter().map(|(known, proof)| told(known, proof)).collect();
        return Judgement {
            hint: first.action.clone(),
            ..Judgement::holds(kind::PROVEN, reason(Verdict::Warn), told.join("; "))
        };
    }
    let oldest = proofs.map(|(_, proof)| proof).min_by_key(|proof| proof.started);
    let when = oldest.map_or_else(String::new, |proof| {
        format!(" (profile {}, {})", proof.profile, proof.started)
    });
    let message = format!("every result of {} was right{when}", counted(all.len(), "GPU"));
    Judgement::holds(kind::PROVEN, reason(Verdict::Pass), message)
}

fn told(known: &Known<'_>, proof: &Proof) -> String {
    let why = proof.reason.as_deref().unwrap_or_else(|| proof.verdict.meaning());
    format!("{}: {} on {}: {why}", known.name(), proof.verdict, proof.started)
}

/// A verdict as the reason of a condition: `FailCorruption`.
const fn reason(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "Pass",
        Verdict::Warn => "Warn",
        Verdict::Interrupted => "Interrupted",
        Verdict::ErrorSetup => "ErrorSetup",
        Verdict::FailEnv => "FailEnv",
        Verdict::FailPerf => "FailPerf",
        Verdict::FailHardware => "FailHardware",
        Verdict::FailCorruption => "FailCorruption",
    }
}

/// What the `GpuNode` says of one GPU's proof.
pub(super) fn of_gpu(snapshot: &Snapshot, gpu: &Gpu) -> Option<GpuProof> {
    let standing = standing(&snapshot.proof, gpu, driver(snapshot));
    let proof = standing.proof()?;
    let short = |text: &String| cut(text, LONGEST_OF_GPU).to_owned();
    let started = Timestamp::from_second(i64::from(proof.started.0)).unwrap_or(Timestamp::UNIX_EPOCH);
    Some(GpuProof {
        verdict: proof.verdict.name().to_owned(),
        profile: match proof.profile {
            Profile::Smoke => ProofProfile::Smoke,
            Profile::Prove => ProofProfile::Prove,
            Profile::Burn => ProofProfile::Burn,
            Profile::Soak => ProofProfile::Soak,
        },
        started: Time(started),
        seconds: i64::from(proof.seconds),
        verified: i64::try_from(proof.verified).unwrap_or(i64::MAX),
        stale: matches!(standing, Standing::Stale(..)),
        reason: proof.reason.as_ref().map(short),
        hint: proof.action.as_ref().map(short),
    })
}

/// What `DevicesAdvertised` says where all devices that are well are withheld for the sake of their proof; `None` where
/// none is.
pub(super) fn withheld(snapshot: &Snapshot, told: &str) -> Option<Judgement> {
    let kind = kind::DEVICES_ADVERTISED;
    let view = &snapshot.proof;
    let devices = snapshot.resources.iter().flat_map(|resource| &resource.devices);
    let mut gpus = devices
        .map(|device| &device.gpu)
        .filter(|gpu| !snapshot.sick.contains_key(*gpu));
    let gpu = gpus.find(|gpu| view.withheld.contains_key(*gpu))?;
    if view.policy.gates_readiness {
        let proven = proven(snapshot);
        let hint = proven.hint.unwrap_or_else(|| ASK.to_owned());
        let message = format!("no GPU goes to pods before it is proven: {}", proven.message);
        return Some(Judgement::fails(kind, "NotProven", message, hint));
    }
    let why = view.withheld.get(gpu).map_or("", String::as_str);
    // They come back by themselves, and soon: whoever asks for one waits no longer than the proof takes.
    (!view.running.is_empty()).then(|| Judgement {
        status: ConditionStatus::True,
        ..Judgement::holds(kind, "BeingProved", format!("{told}; {gpu} is held back: {why}"))
    })
}
