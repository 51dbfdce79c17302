//! Reports for the tests of the views: a node that is well, one that is not, a machine without a driver, a fleet.

use std::collections::BTreeMap;

use pitcrew_core::proof::{
    Bits, Corruption, CorruptionClass, Counters, Coverage, Device, DeviceEvidence, Driver, Evidence, Format,
    LinkState, Node, Outcome, PeerPath, PeerRoute, Phase, PhaseKind, Profile, Rate, Report, Run, Sample,
    SetupError, SetupErrorCode, Skip, SmResult, Thresholds, Timestamp, Tool, Unit, XidEvent, judge,
};

/// Two H100 that reach what they should.
pub(crate) fn well() -> Report {
    judge(
        evidence("gpu-1", vec![h100(0, 1.0), h100(1, 0.985)]),
        &Thresholds::default(),
    )
}

/// Two H100: one computes wrong on an SM, the other is hot and slow, and its slot has half of its lanes.
pub(crate) fn sick() -> Report {
    let mut wrong = h100(0, 1.0);
    if let Some(gemm) = wrong
        .phases
        .iter_mut()
        .find(|phase| phase.kind == PhaseKind::Gemm)
    {
        gemm.corruption_count = 12;
        gemm.corruptions = (0..12)
            .map(|index| Corruption {
                sm: Some(77),
                tile: Some(31 + 132 * index),
                row: Some(128 * u64::from(index) + 17),
                column: Some(1_943),
                expected: Some(Bits(0x0010_2bc4)),
                got: Some(Bits(0x0010_3bc4)),
                iteration: Some(40 * u64::from(index) + 3),
                temperature_c: Some(66.0),
                ..Corruption::new(CorruptionClass::ComputePermanent, 38.0 + f64::from(index) * 0.7)
            })
            .collect();
    }
    for phase in &mut wrong.phases {
        for sm in phase.sms.iter_mut().filter(|sm| sm.sm == 77) {
            sm.wrong = 12;
        }
    }
    let mut hot = h100(1, 0.74);
    hot.device.serial = Some("1650923000001".to_owned());
    for phase in &mut hot.phases {
        phase.sm_clock_mhz = phase.sm_clock_mhz.map(|clock| clock * 0.75);
    }
    for sample in hot
        .samples
        .iter_mut()
        .filter(|sample| sample.at_s > 34.0 && sample.at_s < 58.0)
    {
        sample.reasons = Some(0x48);
        sample.temperature_c = sample.temperature_c.map(|heat| heat + 24.0);
        sample.clock_sm_mhz = sample.clock_sm_mhz.map(|clock| clock - 420);
        sample.power_w = sample.power_w.map(|power| power * 0.72);
    }
    for sample in &mut hot.samples {
        sample.pcie_width = Some(8);
    }
    hot.after.nvlinks[3].replays = Some(2);
    hot.after.nvlinks[11].up = false;
    hot.after.ecc_corrected = Some(9);
    hot.xids = vec![XidEvent {
        at_s: 44.0,
        number: 63,
    }];
    let mut evidence = evidence("gpu-2", vec![wrong, hot]);
    evidence.peers[1].rate = Some(rate(Unit::Gbs, 212.0));
    judge(evidence, &Thresholds::default())
}

/// Eight H100 behind switches, one of which is hot.
pub(crate) fn eight() -> Report {
    let devices = (0..8_u32)
        .map(|index| h100(index, 1.0 - f64::from(index) * 0.004))
        .collect();
    let mut evidence = evidence("gpu-8", devices);
    let pairs = (0..8).flat_map(|from| (0..8).map(move |to| (from, to)));
    evidence.peers = pairs
        .filter(|(from, to)| from != to)
        .map(|(from, to)| peer(from, to))
        .collect();
    for sample in &mut evidence.devices[6].samples {
        if sample.at_s > 50.0 {
            sample.reasons = Some(0x20);
        }
    }
    judge(evidence, &Thresholds::default())
}

/// Nothing to test.
pub(crate) fn no_driver() -> Report {
    let mut evidence = evidence("laptop", Vec::new());
    evidence.peers.clear();
    evidence.driver = Driver::default();
    evidence.setup_error = Some(SetupError {
        code: SetupErrorCode::NoDriver,
        message: "there is no `libcuda.so.1` and no `/dev/nvidia0`: no GPU was given to this container"
            .to_owned(),
        fix: Some(
            "Ask for `nvidia.com/gpu` in the pod's limits, and set `runtimeClassName: nvidia`".to_owned(),
        ),
        cuda_error: None,
    });
    judge(evidence, &Thresholds::default())
}

/// Eight nodes of two GPUs, of which one is slow.
pub(crate) fn fleet() -> Vec<Report> {
    let factors = [1.0, 0.99, 1.01, 0.985, 1.012, 1.003, 0.995, 0.975];
    (0_u32..8)
        .zip(factors)
        .map(|(node, factor)| {
            let slow = if node == 5 { 0.86 } else { 1.0 };
            let mut devices = vec![h100(0, factor), h100(1, factor * 0.996 * slow)];
            for (device, index) in devices.iter_mut().zip(0_u32..) {
                device.device.uuid = format!("GPU-{node:08}-0000-0000-0000-{index:012}");
            }
            judge(evidence(&format!("gpu-{node}"), devices), &Thresholds::default())
        })
        .collect()
}

fn evidence(node: &str, devices: Vec<DeviceEvidence>) -> Evidence {
    Evidence {
        tool: Tool {
            version: "0.1.0".to_owned(),
            kernels: Some("6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b".to_owned()),
        },
        run: Run {
            profile: Profile::Prove,
            started: Timestamp(1_764_085_500),
            seconds: 61.4,
            interrupted: None,
            scenario: None,
            injected: Vec::new(),
            share: false,
        },
        node: Node {
            name: node.to_owned(),
            pod: Some("gpu-tests/prove-x7k2p".to_owned()),
            kernel: Some("6.8.0-87-generic".to_owned()),
            environment: BTreeMap::from([("NVIDIA_VISIBLE_DEVICES".to_owned(), "all".to_owned())]),
        },
        driver: Driver {
            version: Some("580.95.05".to_owned()),
            cuda: Some("13.0".to_owned()),
        },
        setup_error: None,
        devices,
        peers: vec![peer(0, 1), peer(1, 0)],
    }
}

fn peer(from: usize, to: usize) -> PeerPath {
    PeerPath {
        from,
        to,
        route: PeerRoute::NvLink,
        outcome: Outcome::Ran,
        rate: Some(rate(Unit::Gbs, 376.0 + f64::from(u8::from(from == 0)))),
        both_ways: Some(rate(Unit::Gbs, 371.0)),
        verified_bytes: 4 << 30,
        corruption_count: 0,
        corruptions: Vec::new(),
    }
}

fn rate(unit: Unit, p50: f64) -> Rate {
    Rate {
        unit,
        p5: p50 * 0.984,
        p50,
        p95: p50 * 1.009,
        count: 240,
    }
}

/// An H100 whose products are this part of what they should be.
fn h100(index: u32, factor: f64) -> DeviceEvidence {
    let device = Device {
        index,
        uuid: format!("GPU-5f3c1a2{index}-7b1e-4c0d-9a55-2f1d3c4b5a6{index}"),
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        pci_address: Some(format!("0000:{:02x}:00.0", 0x1b + index * 0x22)),
        pci_device_id: Some(0x2330),
        serial: Some("1650923000000".to_owned()),
        vbios: Some("96.00.89.00.01".to_owned()),
        compute_capability: Some(pitcrew_core::catalog::ComputeCapability { major: 9, minor: 0 }),
        sm_count: Some(132),
        clock_sm_max_mhz: Some(1980),
        memory_total_bytes: Some(85_520_809_984),
        ecc: Some(true),
        mig: None,
        power_limit_w: Some(700.0),
        power_limit_default_w: Some(700.0),
        pcie_generation_max: Some(5),
        pcie_width_max: Some(16),
    };
    let counters = Counters {
        ecc_corrected: Some(2),
        ecc_uncorrected: Some(0),
        remapped_correctable: Some(0),
        remapped_uncorrectable: Some(0),
        remap_pending: Some(false),
        remap_failed: Some(false),
        pcie_replays: Some(1),
        nvlinks_active: Some(18),
        nvlink_errors: Some(0),
        nvlinks: (0..18).map(nvlink).collect(),
        ..Counters::default()
    };
    let phases = phases(factor);
    let samples = (0..307)
        .map(|tick| sample(f64::from(tick) / 5.0, &phases, factor))
        .collect();
    DeviceEvidence {
        before: counters.clone(),
        after: counters,
        samples,
        phases,
        ..DeviceEvidence::new(device)
    }
}

fn nvlink(index: u32) -> LinkState {
    LinkState {
        index,
        up: true,
        speed_mbs: Some(26_562),
        crc_flit: Some(0),
        crc_data: Some(0),
        replays: Some(0),
        recoveries: Some(0),
    }
}

fn phases(factor: f64) -> Vec<Phase> {
    use Format::{Bf16, Fp8, Fp32};
    let coverage = Coverage {
        tested_bytes: 78_900_000_000,
        free_bytes: 84_300_000_000,
        passes: 84,
    };
    let skipped = Outcome::Skipped {
        skip: Skip::NotAsked,
        why: "only in the profile `soak`".to_owned(),
    };
    vec![
        Phase {
            verified_outputs: 16_384 * 9,
            ..at(PhaseKind::SelfTest, None, 0.2, 0.6)
        },
        Phase {
            rate: Some(rate(Unit::Gbs, 2_710.0)),
            verified_bytes: 6_627_600_000_000,
            coverage: Some(coverage),
            power_w: Some(402.0),
            ..at(PhaseKind::March, None, 1.0, 10.0)
        },
        bandwidth(PhaseKind::Copy, 3_004.0, 11.2),
        bandwidth(PhaseKind::Triad, 2_981.0, 13.4),
        bandwidth(PhaseKind::Cache, 5_620.0, 15.6),
        bandwidth(PhaseKind::HostToDevice, 53.4, 17.6),
        bandwidth(PhaseKind::DeviceToHost, 52.8, 19.4),
        bandwidth(PhaseKind::HostBothWays, 88.2, 21.2),
        compute(PhaseKind::MmaLoop, Bf16, 758.0 * factor, 1_735.0, (23.2, 5.0)),
        compute(PhaseKind::MmaLoop, Fp8, 1_328.0 * factor, 1_780.0, (28.4, 4.0)),
        compute(PhaseKind::MmaLoop, Fp32, 50.7 * factor, 1_980.0, (32.6, 3.0)),
        compute(PhaseKind::Gemm, Bf16, 741.0 * factor, 1_735.0, (36.0, 8.0)),
        compute(PhaseKind::Gemm, Fp8, 1_435.0 * factor, 1_690.0, (44.2, 5.0)),
        compute(PhaseKind::Power, Bf16, 655.0 * factor, 1_410.0, (49.6, 10.0)),
        Phase::new(PhaseKind::BitFade, None, skipped),
    ]
}

fn at(kind: PhaseKind, format: Option<Format>, start_s: f64, seconds: f64) -> Phase {
    Phase {
        start_s,
        seconds,
        ..Phase::new(kind, format, Outcome::Ran)
    }
}

fn bandwidth(kind: PhaseKind, gbs: f64, start_s: f64) -> Phase {
    Phase {
        rate: Some(rate(Unit::Gbs, gbs)),
        ..at(kind, None, start_s, 1.7)
    }
}

fn compute(
    kind: PhaseKind,
    format: Format,
    tflops: f64,
    clock: f64,
    (start_s, seconds): (f64, f64),
) -> Phase {
    let variant = if format == Format::Fp32 { "simt" } else { "wgmma" };
    let sms = (0..132_u32).map(|sm| SmResult {
        sm,
        tiles: 4_000,
        wrong: 0,
        clock_mhz: Some(clock),
        // A little of everything, as real chips have.
        relative_speed: Some(1.0 + f64::from(sm * 37 % 13) * 0.001 - 0.006),
    });
    Phase {
        variant: Some(variant.to_owned()),
        n: (kind == PhaseKind::Gemm).then_some(8_192),
        rate: Some(rate(Unit::Tflops, tflops)),
        sm_clock_mhz: Some(clock),
        power_w: Some(if kind == PhaseKind::Power { 699.0 } else { 672.0 }),
        verified_outputs: 386_000_000_000,
        sms: sms.collect(),
        ..at(kind, Some(format), start_s, seconds)
    }
}

fn sample(at_s: f64, phases: &[Phase], factor: f64) -> Sample {
    let phase = phases
        .iter()
        .find(|phase| at_s >= phase.start_s && at_s <= phase.start_s + phase.seconds);
    let ripple = (at_s * 3.1).sin();
    let (clock, power, reasons) = match phase.map(|phase| phase.kind) {
        Some(PhaseKind::MmaLoop) => (1_690, 655.0, 0x4),
        Some(PhaseKind::Gemm) => (1_560, 690.0, 0x4),
        Some(PhaseKind::Power) => (1_410, 699.0, 0x4),
        Some(PhaseKind::March | PhaseKind::Copy | PhaseKind::Triad) => (1_980, 402.0, 0),
        Some(_) => (1_980, 180.0, 0),
        None => (1_980, 120.0, 0x1),
    };
    let tflops = phase.and_then(|phase| phase.rate.filter(|rate| rate.unit == Unit::Tflops));
    let wave = u32::from(ripple > 0.0) * 15;
    Sample {
        at_s,
        clock_sm_mhz: Some(clock - wave),
        clock_memory_mhz: Some(2_619),
        power_w: Some(power + ripple * 6.0),
        temperature_c: Some(36.0 + 31.0 * (1.0 - (-at_s / 22.0).exp())),
        memory_temperature_c: Some(44.0 + 34.0 * (1.0 - (-at_s / 18.0).exp())),
        reasons: Some(reasons),
        pcie_generation: Some(5),
        pcie_width: Some(16),
        tflops: tflops.map(|rate| rate.p50 * (1.0 + ripple * 0.006) * factor.max(0.98)),
    }
}
