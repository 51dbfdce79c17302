//! What is well passes.

use std::time::Duration;

use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::proof::{Outcome, Phase, Profile, Skip, Unit};
use pitcrew_prove::device::Variant;
use pitcrew_prove::stand_in::StandIn;

use crate::bed::{Proof, description, h100, near, options};

#[test]
fn a_well_gpu_passes_every_phase_at_its_rates() {
    let proof = Proof::of(&h100(&[], 7), &options(Profile::Prove));
    assert_eq!(proof.found(), "");
    assert!(proof.corrupt().is_empty());
    let outcomes = &proof.outcomes;
    assert!(!outcomes.is_interrupted && outcomes.setup_error.is_none());
    let not_asked = Outcome::Skipped {
        skip: Skip::NotAsked,
        why: "not in this profile".to_owned(),
    };
    for phase in &outcomes.phases {
        let expected = if phase.title() == "gemm fp32" {
            &not_asked
        } else {
            &Outcome::Ran
        };
        assert_eq!(phase.outcome, *expected, "{}", phase.title());
    }
    for (title, rate, unit) in [
        ("gemm bf16", 785.0, Unit::Tflops),
        ("gemm fp8", 1500.0, Unit::Tflops),
        ("mma-loop bf16", 785.0, Unit::Tflops),
        ("mma-loop fp32", 60.0, Unit::Tflops),
        ("power bf16", 785.0, Unit::Tflops),
        ("march", 3017.0, Unit::Gbs),
        ("copy", 3017.0, Unit::Gbs),
        ("triad", 3017.0, Unit::Gbs),
        ("cache", 7000.0, Unit::Gbs),
        ("host-to-device", 53.0, Unit::Gbs),
        ("device-to-host", 53.0, Unit::Gbs),
        ("host-both-ways", 106.0, Unit::Gbs),
    ] {
        let found = proof
            .phase(title)
            .rate
            .unwrap_or_else(|| panic!("{title} has no rate"));
        assert!(found.unit == unit && near(found.p50, rate), "{title}: {found:?}");
    }
    let gemm = proof.phase("gemm bf16");
    assert_eq!(gemm.variant.as_deref(), Some("wgmma"));
    assert_eq!(gemm.sms.len(), 132);
    assert!(gemm.verified_outputs > 100_000, "{}", gemm.verified_outputs);
    let loops = proof.phase("mma-loop bf16");
    assert!(near(loops.sm_clock_mhz.unwrap(), 1755.0));
    assert!(loops.sms.iter().all(|sm| near(sm.relative_speed.unwrap(), 1.0)));
    let coverage = proof.phase("march").coverage.unwrap();
    assert!(
        coverage.tested_bytes * 100 >= coverage.free_bytes * 90,
        "{coverage:?}"
    );
    assert!(coverage.passes >= 3, "{coverage:?}");
    let seconds = outcomes.phases.iter().map(|phase| phase.seconds).sum::<f64>();
    assert!((50.0..75.0).contains(&seconds), "{seconds}");
}

#[test]
fn there_is_no_false_alarm_over_many_seeds() {
    let mut verified = 0;
    for seed in 0..40 {
        let mut options = options(Profile::Smoke);
        options.seed = seed;
        let proof = Proof::of(&h100(&[], u64::from(seed)), &options);
        assert!(proof.corrupt().is_empty(), "seed {seed}: {}", proof.found());
        verified += proof
            .outcomes
            .phases
            .iter()
            .map(|phase| phase.verified_outputs)
            .sum::<u64>();
    }
    assert!(verified > 10_000_000, "{verified}");
}

#[test]
fn a_variant_that_is_asked_for_is_the_one_that_runs() {
    let mut options = options(Profile::Prove);
    options.variant = Some(Variant::Simt);
    let proof = Proof::of(&h100(&[], 1), &options);
    assert_eq!(proof.phase("gemm bf16").variant.as_deref(), Some("simt"));
    let fp8 = proof.phase("gemm fp8");
    assert!(
        matches!(&fp8.outcome, Outcome::Skipped { skip: Skip::Unsupported, why } if why.contains("only simt was asked for")),
        "{:?}",
        fp8.outcome
    );
}

#[test]
fn a_burn_has_pulses_and_no_phase_twice() {
    let mut options = options(Profile::Burn);
    options.time = Some(Duration::from_secs(400));
    let proof = Proof::of(&h100(&[], 1), &options);
    assert!(proof.corrupt().is_empty());
    let mut titles: Vec<_> = proof.outcomes.phases.iter().map(Phase::title).collect();
    let all = titles.len();
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), all);
    let pulse = proof.phase("pulse bf16");
    assert_eq!(pulse.outcome, Outcome::Ran);
    let gemm = proof.phase("gemm bf16");
    assert!(gemm.seconds > 60.0);
    // It comes again and again, and each time is told.
    assert!(gemm.spans.len() > 1);
    let told: f64 = gemm.spans.iter().map(|(from, to)| to - from).sum();
    assert!((told - gemm.seconds).abs() < 1e-6);
    assert_eq!(proof.phase("copy").spans, []);
}

#[test]
fn a_stand_in_has_the_kernels_that_a_gpu_of_its_kind_has() {
    for (major, minor, kernels) in [
        (7, 5, [("fp16", "m16n8k8"), ("int8", "m16n8k8"), ("fp64", "simt")]),
        (8, 9, [("bf16", "m16n8k16"), ("fp8", "fp8"), ("fp64", "m16n8k16")]),
        (12, 0, [("bf16", "m16n8k16"), ("fp8", "fp8"), ("fp64", "simt")]),
    ] {
        let mut description = description(&[], 1);
        description.facts.compute_capability = ComputeCapability { major, minor };
        let proof = Proof::of(&StandIn::new(description), &options(Profile::Prove));
        for (format, variant) in kernels {
            let gemm = proof.phase(&format!("gemm {format}"));
            assert_eq!(gemm.variant.as_deref(), Some(variant), "{major}.{minor} {format}");
        }
    }
}
