//! Proofs that end before their time, or could not do all.

use std::time::Duration;

use pitcrew_core::proof::{Outcome, PhaseKind, Profile, SetupErrorCode, Skip};
use pitcrew_prove::pace::Pace as _;
use pitcrew_prove::stand_in::Ailment;

use crate::bed::{GIB, Proof, h100, options};

#[test]
fn a_gpu_that_is_lost_in_the_middle_ends_the_run_and_what_was_not_reached_is_not_passed() {
    let lost = Ailment::LostAfter(Duration::from_secs(20));
    let proof = Proof::of(&h100(&[lost], 1), &options(Profile::Prove));
    let error = proof.outcomes.setup_error.as_ref().unwrap();
    assert_eq!(error.code, SetupErrorCode::GpuLost);
    assert!(error.message.contains("lost") && error.fix.is_some());
    assert_eq!(proof.phase("march").outcome, Outcome::Ran);
    let failed: Vec<_> = proof
        .outcomes
        .phases
        .iter()
        .filter(|phase| matches!(phase.outcome, Outcome::Failed { .. }))
        .collect();
    assert_eq!(failed.len(), 1);
    assert!(matches!(
        &proof.phase("power bf16").outcome,
        Outcome::Skipped { skip: Skip::NotTested, why } if why.contains("not reached: the GPU is lost")
    ));
}

#[test]
fn a_gpu_that_hangs_or_is_stopped_ends_the_run_too() {
    for (ailment, code) in [
        (Ailment::HangsAfter(Duration::from_secs(2)), SetupErrorCode::Hang),
        (
            Ailment::StoppedAfter(Duration::from_secs(2)),
            SetupErrorCode::GpuLost,
        ),
    ] {
        let proof = Proof::of(&h100(&[ailment], 1), &options(Profile::Smoke));
        assert_eq!(proof.outcomes.setup_error.as_ref().unwrap().code, code);
    }
}

#[test]
fn what_finds_no_memory_is_not_tested_and_says_so() {
    let proof = Proof::of(&h100(&[Ailment::FullBut(GIB / 4)], 1), &options(Profile::Prove));
    let skipped: Vec<_> = proof
        .outcomes
        .phases
        .iter()
        .filter(|phase| {
            matches!(&phase.outcome, Outcome::Skipped { skip: Skip::NotTested, why } if why.contains("out of memory"))
        })
        .collect();
    assert!(
        skipped.iter().any(|phase| phase.kind == PhaseKind::March),
        "{skipped:?}"
    );
    assert!(proof.outcomes.setup_error.is_none());
}

#[test]
fn a_run_that_is_stopped_ends_within_a_second_with_what_it_has() {
    let device = h100(&[], 1);
    let stop_at = Duration::from_secs(15);
    let is_cancelled = || device.elapsed() >= stop_at;
    let proof = Proof::until(&device, &options(Profile::Prove), &is_cancelled);
    assert!(proof.outcomes.is_interrupted);
    assert!(device.elapsed() < stop_at + Duration::from_secs(1));
    let phases = &proof.outcomes.phases;
    assert!(phases.iter().any(|phase| phase.outcome == Outcome::Interrupted));
    assert!(phases.iter().any(|phase| phase.outcome == Outcome::Ran));
    assert!(
        phases
            .iter()
            .any(|phase| matches!(phase.outcome, Outcome::Skipped { .. }))
    );
}
