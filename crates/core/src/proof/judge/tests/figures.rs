//! What was reached, and what follows from it.

use super::*;

#[test]
fn a_slow_chip_fails_and_one_that_its_power_limit_holds_does_not() {
    // 500 of 785 at full clock and no reason: the chip or what runs on it.
    let without_reason = |evidence: &mut Evidence| {
        for sample in &mut evidence.devices[0].samples {
            sample.reasons = Some(0);
        }
    };
    let (verdict, codes) = after(|evidence| {
        without_reason(evidence);
        slower(evidence, PhaseKind::Gemm, 0.6);
    });
    assert_eq!(verdict, Verdict::FailPerf);
    assert_eq!(codes, [ReasonCode::PipeEfficiency, ReasonCode::BelowExpected]);
    // The same rate at a clock that the power limit has brought down: the SMs were busy.
    let (verdict, codes) = after(|evidence| {
        slower(evidence, PhaseKind::Gemm, 0.6);
        phase(evidence, PhaseKind::Gemm).sm_clock_mhz = Some(1_000.0);
    });
    assert_eq!(
        (verdict, &*codes),
        (Verdict::Warn, &[ReasonCode::BelowExpected][..])
    );
}

#[test]
fn an_estimate_warns_and_never_fails() {
    let (verdict, codes) = after(|evidence| {
        let device = &mut evidence.devices[0];
        // An H100 PCIe: its figures are estimates.
        device.device.pci_device_id = Some(0x2331);
        device.device.name = "NVIDIA H100 PCIe".to_owned();
        device.device.sm_count = Some(114);
        for sample in &mut device.samples {
            sample.reasons = Some(0);
        }
        for kind in [PhaseKind::Gemm, PhaseKind::Copy, PhaseKind::MmaLoop] {
            slower(evidence, kind, 0.1);
        }
    });
    assert_eq!(verdict, Verdict::Warn, "{codes:?}");
    assert!(codes.len() >= 3, "{codes:?}");
}

#[test]
fn slow_memory_fails_where_the_figure_was_measured() {
    assert_eq!(
        after(|evidence| slower(evidence, PhaseKind::Copy, 0.9)),
        (Verdict::Warn, vec![ReasonCode::BelowExpected])
    );
    assert_eq!(
        after(|evidence| slower(evidence, PhaseKind::Copy, 0.7)),
        (Verdict::FailPerf, vec![ReasonCode::BelowExpected])
    );
}

#[test]
fn a_mig_device_is_not_blamed_for_its_neighbours_power() {
    let (verdict, codes) = after(|evidence| {
        let device = &mut evidence.devices[0];
        device.device.mig = Some(MigSlice {
            profile: "3g.40gb".to_owned(),
            memory_slices: 4,
        });
        device.device.sm_count = Some(60);
        for kind in [PhaseKind::Gemm, PhaseKind::MmaLoop] {
            slower(evidence, kind, 60.0 / 132.0 * 0.5);
            phase(evidence, kind).sm_clock_mhz = Some(800.0);
        }
        slower(evidence, PhaseKind::Copy, 0.5);
        slower(evidence, PhaseKind::HostToDevice, 0.1);
    });
    assert_eq!(
        (verdict, &*codes),
        (Verdict::Warn, &[ReasonCode::BelowExpected][..])
    );
}

#[test]
fn one_slow_sm_is_named() {
    let mut evidence = evidence();
    phase(&mut evidence, PhaseKind::MmaLoop).sms = (0..132)
        .map(|sm| SmResult {
            sm,
            tiles: 10,
            wrong: 0,
            clock_mhz: Some(1_650.0),
            relative_speed: Some(if sm == 77 { 0.8 } else { 1.0 }),
        })
        .collect();
    let report = report(evidence);
    assert_eq!(report.verdict, Verdict::Warn);
    assert_eq!(
        report.judgement.reasons[0].text,
        "mma-loop bf16: slower than the others: SM 77 at 80 %"
    );
}

/// A card that reaches what somebody says it does passes, whatever the catalogue says, and one that doesn't fails.
#[test]
fn figures_that_are_told_go_before_the_catalogues() {
    let told = |card: CardFigures| Thresholds {
        cards: vec![card],
        ..Thresholds::default()
    };
    let verdict = |card: CardFigures| {
        let mut evidence = evidence();
        for sample in &mut evidence.devices[0].samples {
            sample.reasons = Some(0);
        }
        judge(evidence, &told(card))
    };
    let by_name = CardFigures {
        name: Some("nvidia h100 80gb hbm3".to_owned()),
        ..CardFigures::default()
    };
    let more = CardFigures {
        products_tflops: [(Format::Bf16, 1_300.0)].into(),
        ..by_name.clone()
    };
    let report = verdict(more);
    assert_eq!(report.verdict, Verdict::FailPerf);
    assert_eq!(
        report.judgement.reasons[0].text,
        "gemm bf16: 780 of 1300 TFLOP/s (60 %; the latter is measured)"
    );
    let memory = CardFigures {
        memory_gbs: Some(5_000.0),
        ..by_name.clone()
    };
    assert_eq!(verdict(memory).verdict, Verdict::FailPerf);
    let pcie = CardFigures {
        pcie_gbs: Some(120.0),
        pci_device_id: Some(0x2330),
        ..CardFigures::default()
    };
    assert_eq!(verdict(pcie).verdict, Verdict::FailEnv);
    let another = CardFigures {
        name: Some("NVIDIA L40S".to_owned()),
        pci_device_id: Some(0x2330),
        memory_gbs: Some(5_000.0),
        ..CardFigures::default()
    };
    assert_eq!(
        verdict(another).verdict,
        Verdict::Pass,
        "name and id must both fit"
    );
}

/// As a proof measured it on an H100 SXM: phase, format, kernels, TFLOP/s, part of the peak at the clock that it had.
const RECORDED: [(PhaseKind, Format, &str, f64, f64); 9] = [
    (PhaseKind::MmaLoop, Format::Bf16, "wgmma", 758.0, 0.81),
    (PhaseKind::MmaLoop, Format::Fp8, "wgmma", 1_328.0, 0.69),
    (PhaseKind::MmaLoop, Format::Fp32, "simt", 50.7, 0.75),
    (PhaseKind::Gemm, Format::Bf16, "wgmma", 727.0, 0.84),
    (PhaseKind::Gemm, Format::Fp16, "wgmma", 728.0, 0.84),
    (PhaseKind::Gemm, Format::Tf32, "wgmma", 406.0, 0.92),
    (PhaseKind::Gemm, Format::Fp8, "wgmma", 1_435.0, 0.80),
    (PhaseKind::Gemm, Format::Int8, "wgmma", 1_359.0, 0.76),
    (PhaseKind::Gemm, Format::Fp64, "m16n8k16", 54.8, 0.82),
];

#[test]
fn what_was_measured_on_an_h100_is_good() {
    let recorded = |factor: f64| {
        let mut evidence = evidence();
        let device = &mut evidence.devices[0];
        device
            .phases
            .retain(|phase| !matches!(phase.kind, PhaseKind::MmaLoop | PhaseKind::Gemm));
        for (kind, format, variant, tflops, pipe) in RECORDED {
            let peak = expected::peak_per_clock(&device.device, format).unwrap();
            device.phases.push(Phase {
                start_s: 30.0,
                seconds: 2.0,
                variant: Some(variant.to_owned()),
                rate: Rate::of(Unit::Tflops, vec![tflops * factor]),
                sm_clock_mhz: Some(tflops * 1e6 / (132.0 * peak * pipe)),
                verified_outputs: 1,
                ..Phase::new(kind, Some(format), Outcome::Ran)
            });
        }
        report(evidence)
    };
    let well = recorded(1.0);
    assert_eq!(well.verdict, Verdict::Pass, "{:#?}", well.judgement.reasons);
    for figure in &well.judgement.figures {
        if figure.phase == PhaseKind::Gemm {
            assert_eq!(figure.grade, Grade::Good, "{figure:?}");
            assert!(
                figure
                    .basis
                    .as_deref()
                    .is_some_and(|basis| basis.starts_with("measured")),
                "{figure:?}"
            );
        }
    }
    // A chip that is a third slower fails in every format.
    let slow = recorded(0.67);
    assert_eq!(slow.verdict, Verdict::FailPerf);
    let slow_gemms = slow.judgement.figures.iter();
    assert!(
        slow_gemms
            .filter(|figure| figure.phase == PhaseKind::Gemm)
            .all(|figure| figure.grade == Grade::Bad),
        "{:#?}",
        slow.judgement.figures
    );
}
