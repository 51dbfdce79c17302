//! Each rule: what it needs to speak, and what leaves it silent.

mod figures;
mod peers;

use super::super::tests::{evidence, report};
use super::super::*;
use super::judge;

/// The verdict and the codes of the reasons, for a run that was changed at one place.
fn after(change: impl FnOnce(&mut Evidence)) -> (Verdict, Vec<ReasonCode>) {
    let mut evidence = evidence();
    change(&mut evidence);
    let report = report(evidence);
    let codes = report
        .judgement
        .reasons
        .iter()
        .map(|reason| reason.code)
        .collect();
    (report.verdict, codes)
}

fn phase(evidence: &mut Evidence, kind: PhaseKind) -> &mut Phase {
    evidence.devices[0]
        .phases
        .iter_mut()
        .find(|phase| phase.kind == kind)
        .unwrap()
}

fn slower(evidence: &mut Evidence, kind: PhaseKind, factor: f64) {
    let rate = phase(evidence, kind).rate.as_mut().unwrap();
    rate.p50 *= factor;
}

#[test]
fn a_card_that_is_well_passes_without_a_reason() {
    assert_eq!(after(|_| {}), (Verdict::Pass, Vec::new()));
    let report = report(evidence());
    assert_eq!(report.judgement.verdicts, [Verdict::Pass]);
    assert_eq!(report.judgement.actions, [] as [&str; 0]);
    let gemm = report
        .judgement
        .figures
        .iter()
        .find(|figure| figure.phase == PhaseKind::Gemm)
        .unwrap();
    assert!((gemm.ratio.unwrap() - 780.0 / 785.0).abs() < 1e-9);
    let pipe = 780e12 / (132.0 * 1.56e9 * 4096.0);
    assert!((gemm.pipe_efficiency.unwrap() - pipe).abs() < 1e-9);
    assert_eq!(gemm.grade, Grade::Good);
}

#[test]
fn corruption_outranks_everything_and_names_the_sm() {
    let (verdict, codes) = after(|evidence| {
        let gemm = phase(evidence, PhaseKind::Gemm);
        gemm.corruption_count = 3;
        gemm.corruptions = (0..3)
            .map(|_| Corruption {
                sm: Some(7),
                expected: Some(Bits(0x10)),
                got: Some(Bits(0x1010)),
                ..Corruption::new(CorruptionClass::ComputePermanent, 40.0)
            })
            .collect();
        evidence.devices[0].xids = vec![XidEvent {
            at_s: 41.0,
            number: 79,
        }];
        evidence.run.interrupted = Some("SIGINT".to_owned());
    });
    assert_eq!(verdict, Verdict::FailCorruption);
    assert_eq!(
        codes,
        [ReasonCode::Corruption, ReasonCode::Xid, ReasonCode::Interrupted]
    );
    let mut evidence = evidence();
    let gemm = phase(&mut evidence, PhaseKind::Gemm);
    gemm.corruption_count = 1;
    gemm.corruptions = vec![Corruption {
        sm: Some(7),
        expected: Some(Bits(0x10)),
        got: Some(Bits(0x1010)),
        ..Corruption::new(CorruptionClass::ComputePermanent, 40.0)
    }];
    let report = report(evidence);
    assert_eq!(
        report.judgement.reasons[0].text,
        "gemm bf16: 1 wrong in 1.0e12 results: computes wrong again and again, SM 7, bits 0x1000"
    );
    assert!(
        report.judgement.actions[0].contains("have it replaced"),
        "{:?}",
        report.judgement.actions
    );
}

#[test]
fn a_wrong_word_of_memory_is_told_with_its_offset() {
    let mut evidence = evidence();
    let march = phase(&mut evidence, PhaseKind::March);
    march.corruption_count = 2;
    march.corruptions = [0x1000, 0x9008]
        .map(|offset| Corruption {
            offset: Some(offset),
            expected: Some(Bits(u64::MAX)),
            got: Some(Bits(u64::MAX ^ 4)),
            ..Corruption::new(CorruptionClass::Stored, 3.0)
        })
        .to_vec();
    let text = report(evidence).judgement.reasons.remove(0).text;
    assert_eq!(
        text,
        "march: 2 wrong in 7.7e10 bytes: memory holds something else, offsets 0x1000 to 0x9008, bits 0x4"
    );
}

#[test]
fn a_planted_fault_fails_and_asks_for_nothing() {
    let mut evidence = evidence();
    evidence.run.injected = vec!["sm=7,bit=12".to_owned()];
    phase(&mut evidence, PhaseKind::Gemm).corruption_count = 1;
    let report = report(evidence);
    assert_eq!(report.verdict, Verdict::FailCorruption);
    assert!(report.judgement.actions[0].starts_with("Nothing: the faults were planted"));
}

#[test]
fn the_gpus_own_reports_are_failures_of_hardware() {
    let xid = |number| {
        move |evidence: &mut Evidence| {
            evidence.devices[0].xids = vec![XidEvent { at_s: 1.0, number }];
        }
    };
    for number in [48, 64, 74, 79, 92, 94, 95, 119, 120] {
        assert_eq!(
            after(xid(number)),
            (Verdict::FailHardware, vec![ReasonCode::Xid]),
            "{number}"
        );
    }
    assert_eq!(after(xid(63)), (Verdict::Warn, vec![ReasonCode::Xid]));
    for number in [13, 31, 43, 45] {
        assert_eq!(
            after(xid(number)),
            (Verdict::ErrorSetup, vec![ReasonCode::OwnXid]),
            "{number}"
        );
        // Beside other programs it may be theirs.
        let shared = after(|evidence: &mut Evidence| {
            evidence.run.share = true;
            xid(number)(evidence);
        });
        assert_eq!(shared, (Verdict::Warn, vec![ReasonCode::Xid]), "{number}");
    }
    let counters =
        |change: fn(&mut Counters)| move |evidence: &mut Evidence| change(&mut evidence.devices[0].after);
    let hardware = |code| (Verdict::FailHardware, vec![code]);
    let warning = |code| (Verdict::Warn, vec![code]);
    assert_eq!(
        after(counters(|after| after.ecc_uncorrected = Some(1))),
        hardware(ReasonCode::EccUncorrected)
    );
    assert_eq!(
        after(counters(|after| after.remap_failed = Some(true))),
        hardware(ReasonCode::RemapFailed)
    );
    assert_eq!(
        after(counters(|after| after.nvlinks_active = Some(17))),
        hardware(ReasonCode::NvLink)
    );
    assert_eq!(
        after(counters(|after| after.ecc_corrected = Some(3))),
        warning(ReasonCode::EccCorrected)
    );
    assert_eq!(
        after(counters(|after| after.remap_pending = Some(true))),
        warning(ReasonCode::RemapPending)
    );
    assert_eq!(
        after(counters(|after| after.pcie_replays = Some(81))),
        warning(ReasonCode::PcieReplays)
    );
    // Nothing grew, a counter was reset, and one can't be read any more: nothing is said.
    assert_eq!(
        after(counters(|after| after.pcie_replays = Some(80))).0,
        Verdict::Pass
    );
    assert_eq!(
        after(counters(|after| after.ecc_corrected = Some(0))).0,
        Verdict::Pass
    );
    assert_eq!(
        after(counters(|after| after.ecc_uncorrected = None)).0,
        Verdict::Pass
    );
}

#[test]
fn a_gpu_that_went_away_or_hangs_is_broken_and_one_that_can_not_be_used_is_not() {
    let error = |code| SetupError {
        code,
        message: "what happened".to_owned(),
        fix: Some("Do this".to_owned()),
        cuda_error: None,
    };
    for (code, verdict) in [
        (SetupErrorCode::GpuLost, Verdict::FailHardware),
        (SetupErrorCode::Hang, Verdict::FailHardware),
        (SetupErrorCode::FabricNotReady, Verdict::ErrorSetup),
        (SetupErrorCode::InUse, Verdict::ErrorSetup),
    ] {
        let found = after(|evidence| {
            evidence.devices[0].phases.clear();
            evidence.devices[0].setup_error = Some(error(code));
        });
        assert_eq!(found.0, verdict, "{code:?}");
    }
    let mut evidence = evidence();
    evidence.devices.clear();
    evidence.setup_error = Some(error(SetupErrorCode::NoDriver));
    let report = report(evidence);
    assert_eq!(
        (report.verdict, &*report.judgement.actions),
        (Verdict::ErrorSetup, &["Do this".to_owned()][..])
    );
}

#[test]
fn what_was_not_tested_is_never_a_pass() {
    let skipped = |skip| Outcome::Skipped {
        skip,
        why: "why".to_owned(),
    };
    let outcome = |outcome: Outcome| {
        move |evidence: &mut Evidence| {
            let gemm = phase(evidence, PhaseKind::Gemm);
            *gemm = Phase::new(PhaseKind::Gemm, Some(Format::Bf16), outcome);
        }
    };
    assert_eq!(
        after(outcome(skipped(Skip::NotTested))),
        (Verdict::Warn, vec![ReasonCode::NotTested])
    );
    assert_eq!(
        after(outcome(skipped(Skip::Unsupported))),
        (Verdict::Pass, vec![])
    );
    assert_eq!(after(outcome(skipped(Skip::NotAsked))), (Verdict::Pass, vec![]));
    let failed = Outcome::Failed {
        why: "out of memory".to_owned(),
    };
    assert_eq!(
        after(outcome(failed)),
        (Verdict::ErrorSetup, vec![ReasonCode::PhaseFailed])
    );
    // It ran and compared nothing; it isn't in the report at all; nothing is.
    assert_eq!(
        after(|evidence| phase(evidence, PhaseKind::Gemm).verified_outputs = 0).0,
        Verdict::Warn
    );
    assert_eq!(
        after(|evidence| evidence.devices[0]
            .phases
            .retain(|phase| phase.kind != PhaseKind::March)),
        (Verdict::Warn, vec![ReasonCode::NotTested])
    );
    assert_eq!(
        after(|evidence| evidence.devices[0].phases.clear()),
        (Verdict::ErrorSetup, vec![ReasonCode::NothingVerified])
    );
    assert_eq!(
        after(|evidence| evidence.devices.clear()),
        (Verdict::ErrorSetup, vec![ReasonCode::NothingVerified])
    );
    assert_eq!(
        after(|evidence| {
            evidence.devices[0].phases.clear();
            evidence.run.interrupted = Some("SIGTERM".to_owned());
        }),
        (Verdict::Interrupted, vec![ReasonCode::Interrupted])
    );
}

#[test]
fn a_slow_link_is_the_slots_fault() {
    assert_eq!(
        after(|evidence| slower(evidence, PhaseKind::HostToDevice, 0.5)),
        (Verdict::FailEnv, vec![ReasonCode::PcieLink])
    );
    let mut evidence = evidence();
    for sample in &mut evidence.devices[0].samples {
        sample.pcie_width = Some(8);
    }
    let report = report(evidence);
    assert_eq!(report.verdict, Verdict::Warn);
    assert_eq!(
        report.judgement.reasons[0].text,
        "PCIe at 0000:1b:00.0 has 8 of 16 lanes"
    );
    assert!(report.judgement.actions[0].contains("0000:1b:00.0"));
}

#[test]
fn heat_and_the_power_supply_are_the_surroundings() {
    let reasons = |bits| {
        move |evidence: &mut Evidence| {
            for sample in evidence.devices[0]
                .samples
                .iter_mut()
                .filter(|sample| sample.at_s > 40.0)
            {
                sample.reasons = Some(bits);
            }
        }
    };
    assert_eq!(
        after(reasons(0x48)),
        (Verdict::FailEnv, vec![ReasonCode::Thermal])
    );
    assert_eq!(
        after(reasons(0x88)),
        (Verdict::FailEnv, vec![ReasonCode::PowerBrake])
    );
    assert_eq!(after(reasons(0x8)), (Verdict::FailEnv, vec![ReasonCode::Thermal]));
    assert_eq!(after(reasons(0x20)), (Verdict::Warn, vec![ReasonCode::Thermal]));
    // At the power limit is where a card works.
    assert_eq!(after(reasons(0x4)).0, Verdict::Pass);
    // One sample is not enough.
    assert_eq!(
        after(|evidence| evidence.devices[0].samples[200].reasons = Some(0x40)).0,
        Verdict::Pass
    );
    // A hot card that is slow is told of once: as hot.
    let (verdict, codes) = after(|evidence| {
        reasons(0x40)(evidence);
        slower(evidence, PhaseKind::Gemm, 0.6);
        phase(evidence, PhaseKind::Gemm).sm_clock_mhz = Some(936.0);
    });
    assert_eq!(verdict, Verdict::FailEnv, "{codes:?}");
}

#[test]
fn others_on_the_gpu_take_its_figures_away_and_nothing_else() {
    let shared = |evidence: &mut Evidence| {
        evidence.devices[0].processes = vec![Process {
            pid: 7,
            memory_bytes: None,
        }];
        slower(evidence, PhaseKind::Gemm, 0.3);
        slower(evidence, PhaseKind::Copy, 0.3);
        slower(evidence, PhaseKind::HostToDevice, 0.3);
    };
    assert_eq!(after(shared), (Verdict::Warn, vec![ReasonCode::Shared]));
    let (verdict, _) = after(|evidence| {
        shared(evidence);
        phase(evidence, PhaseKind::Gemm).corruption_count = 1;
    });
    assert_eq!(verdict, Verdict::FailCorruption);
}

#[test]
fn a_card_without_ecc_is_told_and_passes_unless_it_could_have_it() {
    let off = |evidence: &mut Evidence| evidence.devices[0].device.ecc = Some(false);
    assert_eq!(after(off), (Verdict::Warn, vec![ReasonCode::EccOff]));
    let (verdict, codes) = after(|evidence| {
        off(evidence);
        evidence.devices[0].device.pci_device_id = Some(0xffff);
        evidence.devices[0].device.name = "NVIDIA GeForce RTX 9990".to_owned();
    });
    assert_eq!((verdict, &*codes), (Verdict::Pass, &[ReasonCode::EccOff][..]));
}

#[test]
fn thresholds_can_be_others() {
    let strict = Thresholds {
        tensor: Borders {
            warn: 0.999,
            fail: 0.5,
        },
        ..Thresholds::default()
    };
    assert_eq!(judge(evidence(), &strict).verdict, Verdict::Warn);
    let report = judge(evidence(), &strict);
    assert_eq!(
        report.judgement.thresholds, strict,
        "a report says by what it was judged"
    );
    let pcie_only = evidence_with_replays(79);
    assert_eq!(
        judge(pcie_only.clone(), &Thresholds::default()).verdict,
        Verdict::Pass
    );
    let none = Thresholds {
        pcie_replays: 0,
        ..Thresholds::default()
    };
    assert_eq!(judge(pcie_only, &none).verdict, Verdict::Warn);
}

fn evidence_with_replays(replays: u64) -> Evidence {
    let mut evidence = evidence();
    evidence.devices[0].after.pcie_replays = Some(replays);
    evidence
}
