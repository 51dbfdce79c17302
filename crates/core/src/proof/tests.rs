//! A run on an H100 that is well, for the tests of this module.

use super::*;

/// A run of a minute in which everything is as it should be.
pub(super) fn evidence() -> Evidence {
    Evidence {
        tool: Tool {
            version: "0.1.0".to_owned(),
            kernels: None,
        },
        run: Run {
            profile: Profile::Prove,
            started: Timestamp(1_764_000_000),
            seconds: 60.0,
            interrupted: None,
            scenario: None,
            injected: Vec::new(),
            share: false,
        },
        node: Node {
            name: "gpu-1".to_owned(),
            pod: None,
            kernel: None,
            environment: std::collections::BTreeMap::new(),
        },
        driver: Driver {
            version: Some("580.95.05".to_owned()),
            cuda: Some("13.0".to_owned()),
        },
        setup_error: None,
        devices: vec![h100(0)],
        peers: Vec::new(),
    }
}

pub(super) fn report(evidence: Evidence) -> Report {
    judge(evidence, &Thresholds::default())
}

/// An H100 that reaches what it should, at its power limit.
pub(super) fn h100(index: u32) -> DeviceEvidence {
    let device = Device {
        index,
        uuid: format!("GPU-0000000{index}-0000-0000-0000-000000000000"),
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        pci_address: Some(format!("0000:{:02x}:00.0", 0x1b + index)),
        pci_device_id: Some(0x2330),
        compute_capability: Some(crate::catalog::ComputeCapability { major: 9, minor: 0 }),
        sm_count: Some(132),
        clock_sm_max_mhz: Some(1980),
        memory_total_bytes: Some(80 << 30),
        ecc: Some(true),
        power_limit_w: Some(700.0),
        power_limit_default_w: Some(700.0),
        pcie_generation_max: Some(5),
        pcie_width_max: Some(16),
        ..Device::default()
    };
    let counters = Counters {
        ecc_corrected: Some(2),
        ecc_uncorrected: Some(0),
        remap_pending: Some(false),
        remap_failed: Some(false),
        pcie_replays: Some(0),
        nvlinks_active: Some(18),
        ..Counters::default()
    };
    DeviceEvidence {
        before: counters.clone(),
        after: counters,
        phases: vec![
            bandwidth(PhaseKind::March, 2_600.0, 0.0),
            bandwidth(PhaseKind::Copy, 3_000.0, 10.0),
            bandwidth(PhaseKind::HostToDevice, 53.0, 20.0),
            bandwidth(PhaseKind::DeviceToHost, 52.0, 24.0),
            compute(PhaseKind::MmaLoop, 830.0, 1_650.0, 28.0),
            compute(PhaseKind::Gemm, 780.0, 1_560.0, 36.0),
            compute(PhaseKind::Power, 650.0, 1_400.0, 50.0),
        ],
        samples: (0..300).map(sample).collect(),
        ..DeviceEvidence::new(device)
    }
}

fn sample(tick: u32) -> Sample {
    let at_s = f64::from(tick) / 5.0;
    Sample {
        at_s,
        clock_sm_mhz: Some(1_600),
        power_w: Some(690.0),
        temperature_c: Some(64.0),
        reasons: Some(if at_s >= 28.0 { 0x4 } else { 0 }),
        pcie_generation: Some(5),
        pcie_width: Some(16),
        ..Sample::default()
    }
}

fn rate(unit: Unit, p50: f64) -> Rate {
    Rate {
        unit,
        p5: p50 * 0.98,
        p50,
        p95: p50 * 1.01,
        count: 100,
    }
}

fn bandwidth(kind: PhaseKind, gbs: f64, start_s: f64) -> Phase {
    Phase {
        start_s,
        seconds: 4.0,
        rate: Some(rate(Unit::Gbs, gbs)),
        verified_bytes: 72 << 30,
        ..Phase::new(kind, None, Outcome::Ran)
    }
}

fn compute(kind: PhaseKind, tflops: f64, clock: f64, start_s: f64) -> Phase {
    Phase {
        start_s,
        seconds: 8.0,
        variant: Some("wgmma".to_owned()),
        rate: Some(rate(Unit::Tflops, tflops)),
        sm_clock_mhz: Some(clock),
        verified_outputs: 1_000_000_000_000,
        ..Phase::new(kind, Some(Format::Bf16), Outcome::Ran)
    }
}

#[test]
fn kernels_that_the_driver_compiled_itself_are_told_by_name() {
    let mut phase = compute(PhaseKind::Gemm, 700.0, 1_700.0, 0.0);
    assert_eq!(
        phase.kernels().as_deref(),
        Some("wgmma"),
        "an older report says nothing of it"
    );
    phase.code = Some(Code::Cubin);
    assert_eq!(phase.kernels().as_deref(), Some("wgmma"));
    phase.code = Some(Code::Ptx);
    assert_eq!(phase.kernels().as_deref(), Some("wgmma (ptx)"));
    let text = serde_json::to_string(&phase).unwrap();
    assert!(text.contains(r#""code":"ptx""#), "{text}");
    phase.variant = None;
    assert_eq!(phase.kernels(), None);
}
