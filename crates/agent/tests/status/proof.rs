//! What is said of proofs: the condition, the GPUs' own, Events.

use std::collections::BTreeSet;
use std::sync::Arc;

use pitcrew_agent::proof::{Policy, Proof, View};
use pitcrew_agent::snapshot::Snapshot;
use pitcrew_agent::status::{self, Judgement, events};
use pitcrew_api::condition::kind;
use pitcrew_api::{ConditionStatus, GpuNodeStatus};
use pitcrew_core::proof::{Profile, Timestamp, Verdict};

use crate::node;

const STARTED: u32 = 1_764_000_000;

/// A node on which every GPU has this verdict, changed by `change`.
fn node(verdict: Verdict, change: impl FnOnce(&mut View, &[String])) -> Snapshot {
    let mut snapshot = node::registered(&node::worker("h100x8"));
    let inventory = snapshot.gpus.as_ref().unwrap().as_ref().unwrap();
    let driver = inventory.driver.version.value().cloned();
    let gpus = inventory.gpus.iter();
    let uuids: Vec<String> = gpus
        .filter_map(|gpu| gpu.readings.uuid.value().cloned())
        .collect();
    let proof = Proof {
        verdict,
        profile: Profile::Prove,
        started: Timestamp(STARTED),
        seconds: 60,
        verified: 1 << 40,
        driver,
        reason: None,
        action: None,
    };
    let mut view = View {
        proofs: uuids.iter().map(|uuid| (uuid.clone(), proof.clone())).collect(),
        booted: Some(Timestamp(STARTED - 1)),
        ..View::default()
    };
    change(&mut view, &uuids);
    snapshot.proof = Arc::new(view);
    snapshot
}

fn said(snapshot: &Snapshot, kind: &str) -> Judgement {
    let mut all = status::judge(snapshot).into_iter();
    all.find(|judgement| judgement.kind == kind).unwrap()
}

fn proven(snapshot: &Snapshot) -> (ConditionStatus, String) {
    let judgement = said(snapshot, kind::PROVEN);
    (judgement.status, judgement.reason)
}

#[test]
fn the_reason_is_the_verdicts_or_what_is_in_its_way() {
    use ConditionStatus::{False, True, Unknown};
    let nothing = |_: &mut View, _: &[String]| {};
    for (verdict, status, reason) in [
        (Verdict::Pass, True, "Pass"),
        (Verdict::Warn, True, "Warn"),
        (Verdict::FailCorruption, False, "FailCorruption"),
        (Verdict::FailHardware, False, "FailHardware"),
        (Verdict::FailPerf, False, "FailPerf"),
        (Verdict::FailEnv, False, "FailEnv"),
        (Verdict::ErrorSetup, Unknown, "ErrorSetup"),
        (Verdict::Interrupted, Unknown, "Interrupted"),
    ] {
        let expected = (status, reason.to_owned());
        assert_eq!(proven(&node(verdict, nothing)), expected);
    }
    let booted = node(Verdict::Pass, |view, _| {
        view.booted = Some(Timestamp(STARTED + 1));
    });
    assert_eq!(proven(&booted), (Unknown, "BootedSince".to_owned()));
    let driver = node(Verdict::Pass, |view, uuids| {
        view.proofs.get_mut(&uuids[5]).unwrap().driver = Some("1.2.3".to_owned());
    });
    assert_eq!(proven(&driver), (Unknown, "DriverChanged".to_owned()));
    let message = said(&driver, kind::PROVEN).message;
    assert!(
        message.starts_with("the proof of GPU 5 (") && message.contains("the driver was 1.2.3"),
        "{message}"
    );
    let new = node(Verdict::Pass, |view, uuids| drop(view.proofs.remove(&uuids[2])));
    assert_eq!(proven(&new), (Unknown, "NotProven".to_owned()));
    let waits = node(Verdict::Pass, |view, uuids| {
        view.proofs.remove(&uuids[2]);
        view.waiting
            .insert(uuids[2].clone(), "default/train holds it".to_owned());
    });
    assert_eq!(proven(&waits), (Unknown, "Waiting".to_owned()));
    let failed = node(Verdict::Pass, |view, uuids| {
        view.proofs.remove(&uuids[2]);
        view.failed
            .insert(uuids[2].clone(), "there is no driver".to_owned());
    });
    assert_eq!(proven(&failed), (Unknown, "ProofFailed".to_owned()));
    let runs = node(Verdict::Pass, |view, uuids| {
        view.proofs.remove(&uuids[2]);
        view.running = BTreeSet::from([uuids[2].clone()]);
    });
    assert_eq!(proven(&runs), (Unknown, "Proving".to_owned()));
    // A new proof takes nothing away from the last one until it has a verdict.
    let again = node(Verdict::Pass, |view, uuids| {
        view.running = BTreeSet::from([uuids[2].clone()]);
    });
    assert_eq!(proven(&again), (True, "Pass".to_owned()));
}

#[test]
fn a_message_is_no_longer_than_a_kilobyte_and_begins_with_the_gravest() {
    let snapshot = node(Verdict::FailPerf, |view, uuids| {
        for proof in view.proofs.values_mut() {
            proof.reason = Some("ä".repeat(400));
        }
        view.proofs.get_mut(&uuids[6]).unwrap().verdict = Verdict::FailCorruption;
    });
    let judgement = said(&snapshot, kind::PROVEN);
    assert!(judgement.message.len() <= 1024);
    assert!(judgement.message.starts_with("GPU 6 ("), "{}", judgement.message);
    for gpu in status::status(&snapshot).gpus {
        assert!(gpu.proof.unwrap().reason.unwrap().len() <= 512);
    }
}

#[test]
fn what_is_withheld_for_a_proof_costs_no_readiness_unless_readiness_hangs_on_it() {
    let withhold = |view: &mut View, uuids: &[String]| {
        view.withheld = uuids
            .iter()
            .map(|uuid| (uuid.clone(), "it is being proved".to_owned()))
            .collect();
        view.running = uuids.iter().cloned().collect();
    };
    let told = |mut snapshot: Snapshot| {
        let ids = snapshot.proof.withheld.clone();
        snapshot.unhealthy = [("nvidia.com/gpu".to_owned(), ids)].into();
        let judgement = said(&snapshot, kind::READY);
        (judgement.status, said(&snapshot, kind::DEVICES_ADVERTISED).reason)
    };
    let free = node(Verdict::Pass, withhold);
    assert_eq!(told(free), (ConditionStatus::True, "BeingProved".to_owned()));
    let gated = node(Verdict::Pass, |view, uuids| {
        withhold(view, uuids);
        view.proofs.clear();
        view.policy = Policy {
            gates_readiness: true,
            ..Policy::default()
        };
    });
    assert_eq!(told(gated), (ConditionStatus::False, "NotProven".to_owned()));
}

#[test]
fn a_new_verdict_is_one_event_and_one_that_an_earlier_agent_told_of_is_none() {
    let of = |snapshot: &Snapshot| status::status(snapshot);
    let reasons = |before: Option<&GpuNodeStatus>, now: &GpuNodeStatus| -> Vec<String> {
        let told = events::between(before, now).into_iter();
        told.map(|happening| happening.reason).collect()
    };
    let none = of(&node(Verdict::Pass, |view, _| view.proofs.clear()));
    let passed = of(&node(Verdict::Pass, |_, _| {}));
    assert_eq!(reasons(Some(&none), &passed), ["GpuProven"; 8]);
    assert_eq!(reasons(Some(&passed), &passed), [""; 0]);
    assert_eq!(reasons(None, &passed), [""; 0]);
    let one = of(&node(Verdict::Pass, |view, uuids| {
        view.proofs.get_mut(&uuids[3]).unwrap().verdict = Verdict::FailCorruption;
    }));
    assert_eq!(reasons(Some(&passed), &one), ["GpuNotProven"]);
}
