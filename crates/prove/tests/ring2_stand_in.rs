//! Whole proofs on the stand-in: what is well passes, and every fault is found and placed.

use std::cell::RefCell;
use std::time::Duration;

use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::inventory::CudaVersion;
use pitcrew_core::proof::{
    CorruptionClass, Outcome, PeerPath, PeerRoute, Phase, PhaseKind, Profile, SetupErrorCode, Skip, Unit,
};
use pitcrew_prove::device::{Device, DeviceFacts, Variant};
use pitcrew_prove::pace::Pace;
use pitcrew_prove::peers::{self, Peers};
use pitcrew_prove::progress::Progress;
use pitcrew_prove::run::{Options, Outcomes, Place, run};
use pitcrew_prove::stand_in::{Ailment, Description, Rates, StandIn};
use pitcrew_prove::telemetry::Unwatched;

const GIB: u64 = 1 << 30;

fn h100(ailments: &[Ailment], seed: u64) -> StandIn {
    StandIn::new(description(ailments, seed))
}

fn description(ailments: &[Ailment], seed: u64) -> Description {
    Description {
        facts: DeviceFacts {
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            uuid: "GPU-0".to_owned(),
            pci: None,
            compute_capability: ComputeCapability { major: 9, minor: 0 },
            sms: 132,
            memory_bytes: 80 * GIB,
            l2_bytes: 50 << 20,
            sm_clock_mhz: 1980,
            memory_clock_mhz: 2619,
            cuda: CudaVersion::from_driver(12_080),
        },
        rates: Rates {
            half: 785e12,
            byte: Some(1500e12),
            tf32: Some(400e12),
            single: 60e12,
            double: 60e12,
            memory: 3017e9,
            cache: 7000e9,
            host: 53e9,
            peer: None,
            clock_mhz: 1755.0,
        },
        ailments: ailments.to_vec(),
        seed,
    }
}

fn options(profile: Profile) -> Options {
    Options {
        profile,
        time: None,
        variant: None,
        inject: Vec::new(),
        seed: 1,
    }
}

struct Proof {
    outcomes: Outcomes,
    told: Vec<Progress>,
}

impl Proof {
    fn of(device: &StandIn, options: &Options) -> Self {
        Self::until(device, options, &|| false)
    }

    fn until(device: &StandIn, options: &Options, is_cancelled: &dyn Fn() -> bool) -> Self {
        let told = RefCell::new(Vec::new());
        let outcomes = run(
            Place {
                device,
                pace: device,
                watch: &mut Unwatched,
                is_cancelled,
                tell: &mut |progress| told.borrow_mut().push(progress),
            },
            options,
        );
        Self {
            outcomes,
            told: told.into_inner(),
        }
    }

    fn phase(&self, title: &str) -> &Phase {
        let found = self.outcomes.phases.iter().find(|phase| phase.title() == title);
        found.expect(title)
    }

    fn corrupt(&self) -> Vec<&Phase> {
        let phases = self.outcomes.phases.iter();
        phases.filter(|phase| phase.corruption_count > 0).collect()
    }

    fn found(&self) -> String {
        let lines = self.told.iter().filter_map(|progress| match progress {
            Progress::Found(text) => Some(&**text),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn near(measured: f64, expected: f64) -> bool {
    (measured / expected - 1.0).abs() < 0.02
}

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
fn a_bad_sm_is_named_by_loops_and_products_alike() {
    for (sm, bit) in [(0, 3), (77, 12), (131, 22)] {
        let ailment = Ailment::BadSm { sm, bit, every: 1 };
        let proof = Proof::of(&h100(&[ailment], 1), &options(Profile::Smoke));
        for title in ["mma-loop bf16", "gemm bf16"] {
            let phase = proof.phase(title);
            assert!(phase.corruption_count > 0, "{title}, SM {sm}, bit {bit}");
            for corruption in &phase.corruptions {
                assert_eq!(corruption.sm, Some(sm), "{title}");
                assert_eq!(corruption.class, CorruptionClass::ComputePermanent, "{title}");
            }
            let wrong: Vec<u32> = phase
                .sms
                .iter()
                .filter(|sm| sm.wrong > 0)
                .map(|sm| sm.sm)
                .collect();
            assert_eq!(wrong, [sm], "{title}");
        }
        let tiles = proof
            .phase("gemm bf16")
            .corruptions
            .iter()
            .map(|corruption| corruption.tile);
        assert!(
            tiles.collect::<std::collections::BTreeSet<_>>().len() > 1,
            "it moves over the tiles"
        );
        assert!(proof.found().contains(&format!("SM {sm}")), "{}", proof.found());
        assert!(proof.corrupt().iter().all(|phase| phase.kind != PhaseKind::March));
    }
}

#[test]
fn an_sm_that_is_wrong_now_and_then_is_named_too() {
    let ailment = Ailment::BadSm {
        sm: 9,
        bit: 5,
        every: 5,
    };
    let proof = Proof::of(&h100(&[ailment], 1), &options(Profile::Prove));
    let gemm = proof.phase("gemm bf16");
    assert!(gemm.corruption_count > 1);
    for corruption in &gemm.corruptions {
        assert_eq!(
            (corruption.sm, corruption.class),
            (Some(9), CorruptionClass::ComputePermanent)
        );
    }
}

#[test]
fn one_flip_in_one_product_is_a_transient_fault_of_that_tile() {
    let ailment = Ailment::FlipOnce {
        gemm: 12,
        tile: 100,
        bit: 1,
    };
    let proof = Proof::of(&h100(&[ailment], 1), &options(Profile::Smoke));
    let [phase] = proof.corrupt()[..] else {
        panic!("{}", proof.found())
    };
    let [corruption] = &phase.corruptions[..] else {
        panic!("{phase:?}")
    };
    assert_eq!(corruption.class, CorruptionClass::ComputeTransient);
    assert_eq!(corruption.tile, Some(100));
}

#[test]
fn a_bad_operand_is_told_with_its_row_and_place_whichever_sm_meets_it() {
    for of_b in [false, true] {
        let ailment = Ailment::BadOperand {
            of_b,
            row: 21,
            k: 33,
            bit: 10,
        };
        let proof = Proof::of(&h100(&[ailment], 1), &options(Profile::Smoke));
        let gemm = proof.phase("gemm bf16");
        assert!(gemm.corruption_count > 10, "{}", proof.found());
        let first = &gemm.corruptions[0];
        assert_eq!(first.class, CorruptionClass::OperandMemory);
        let line = if of_b { first.column } else { first.row };
        assert_eq!((line, first.offset), (Some(21), Some((21 * 64 + 33) * 2)));
        assert_eq!(first.difference().unwrap().0, 1 << 10);
        let classes = gemm.corruptions.iter().map(|corruption| corruption.class);
        assert!(
            classes
                .clone()
                .all(|class| class == CorruptionClass::OperandMemory)
        );
        let expected = if of_b {
            "column 2 of tiles"
        } else {
            "row 2 of tiles"
        };
        assert!(proof.found().contains(expected), "{}", proof.found());
    }
}

#[test]
fn memory_that_loses_a_result_is_found_although_the_registers_were_right() {
    let ailment = Ailment::BadOutput { index: 1000, bit: 2 };
    let proof = Proof::of(&h100(&[ailment], 1), &options(Profile::Prove));
    let gemm = proof.phase("gemm bf16");
    assert!(gemm.corruption_count > 0);
    let corruption = &gemm.corruptions[0];
    assert_eq!(corruption.class, CorruptionClass::OutputMemory);
    assert_eq!(corruption.offset, Some(2000));
    assert_eq!(corruption.difference().unwrap().0, 4);
}

#[test]
fn a_stuck_bit_of_memory_is_told_with_its_offset_and_bit() {
    for (address, bit, value) in [(3_000_001, 6, true), (2_000_000, 0, false)] {
        let ailment = Ailment::StuckBit { address, bit, value };
        let proof = Proof::of(&h100(&[ailment], 1), &options(Profile::Prove));
        let march = proof.phase("march");
        assert!(march.corruption_count > 2, "{}", proof.found());
        let first = &march.corruptions[0];
        assert_eq!(first.class, CorruptionClass::Stored);
        let mask = 1 << (address % 8 * 8 + u64::from(bit));
        for corruption in &march.corruptions {
            assert_eq!(corruption.offset, first.offset);
            assert_eq!(corruption.difference().unwrap().0, mask);
        }
        let offset = first.offset.unwrap();
        // The march's own log lies before what it tests.
        assert!(
            offset < address && address - offset < 200_000,
            "{offset} {address}"
        );
        assert!(proof.found().contains("stuck at"), "{}", proof.found());
    }
}

#[test]
fn a_word_that_is_read_wrong_once_is_no_fault_of_what_is_stored() {
    let ailment = Ailment::MisreadOnce {
        pass: 1,
        word: 5000,
        bit: 40,
    };
    let mut options = options(Profile::Smoke);
    options.time = Some(Duration::from_secs(10));
    let proof = Proof::of(&h100(&[ailment], 1), &options);
    let [phase] = proof.corrupt()[..] else {
        panic!("{}", proof.found())
    };
    assert_eq!(phase.kind, PhaseKind::March);
    let [corruption] = &phase.corruptions[..] else {
        panic!("{phase:?}")
    };
    assert_eq!(corruption.class, CorruptionClass::ReadTransient);
    assert_eq!(corruption.offset, Some(40_000));
    assert_eq!(corruption.difference().unwrap().0, 1 << 40);
}

#[test]
fn data_that_arrives_otherwise_than_it_was_sent_is_found() {
    let proof = Proof::of(
        &h100(&[Ailment::BadTransfer { bit: 3 }], 1),
        &options(Profile::Prove),
    );
    let phase = proof.phase("host-to-device");
    assert_eq!(phase.corruptions[0].class, CorruptionClass::Transfer);
    assert_eq!(phase.corruptions[0].difference().unwrap().0, 8);
}

#[test]
fn a_slow_sm_stands_out() {
    let proof = Proof::of(
        &h100(&[Ailment::SlowSm { sm: 40, factor: 1.25 }], 1),
        &options(Profile::Smoke),
    );
    let sms = &proof.phase("mma-loop bf16").sms;
    for sm in sms {
        let expected = if sm.sm == 40 { 0.8 } else { 1.0 };
        assert!(near(sm.relative_speed.unwrap(), expected), "{sm:?}");
    }
}

#[test]
fn faults_that_are_planted_are_found_where_they_were_planted() {
    let proof_of = |text: &str| {
        let mut options = options(Profile::Prove);
        options.inject = vec![text.parse().unwrap()];
        Proof::of(&h100(&[], 3), &options)
    };
    let proof = proof_of("sm=7,bit=12");
    for title in [
        "gemm bf16",
        "gemm int8",
        "gemm fp8",
        "gemm fp64",
        "mma-loop bf16",
        "power bf16",
    ] {
        let phase = proof.phase(title);
        assert!(phase.corruption_count > 0, "{title}");
        assert!(
            phase
                .corruptions
                .iter()
                .all(|corruption| corruption.sm == Some(7)),
            "{title}"
        );
    }
    assert_eq!(proof.phase("march").corruption_count, 0);

    let proof = proof_of("memory=0x8000,bit=35");
    let march = proof.phase("march");
    assert_eq!(march.corruptions[0].offset, Some(0x8000));
    assert_eq!(march.corruptions[0].difference().unwrap().0, 1 << 35);
    assert_eq!(proof.corrupt().len(), 1);

    let proof = proof_of("operand=b,row=5,k=17,bit=4");
    let gemm = proof.phase("gemm bf16");
    assert_eq!(gemm.corruptions[0].class, CorruptionClass::OperandMemory);
    assert_eq!(
        (gemm.corruptions[0].column, gemm.corruptions[0].row),
        (Some(5), None)
    );

    let proof = proof_of("output=4242,bit=3");
    let gemm = proof.phase("gemm bf16");
    assert_eq!(gemm.corruptions[0].class, CorruptionClass::OutputMemory);
    assert_eq!(gemm.corruptions[0].offset, Some(4242 * 2));

    let proof = proof_of("transfer=72,bit=1");
    for title in ["host-to-device", "device-to-host"] {
        let [corruption] = &proof.phase(title).corruptions[..] else {
            panic!("{title}")
        };
        assert_eq!(
            (corruption.class, corruption.offset),
            (CorruptionClass::Transfer, Some(72))
        );
    }
}

#[test]
fn a_variant_that_is_wrong_everywhere_is_dropped_and_the_gpu_is_not_blamed() {
    let proof = Proof::of(
        &h100(&[Ailment::BrokenVariant(Variant::Wgmma)], 1),
        &options(Profile::Prove),
    );
    assert!(proof.corrupt().is_empty(), "{}", proof.found());
    let gemm = proof.phase("gemm bf16");
    assert_eq!(gemm.variant.as_deref(), Some("m16n8k16"));
    let [refused] = &gemm.refused[..] else {
        panic!("{gemm:?}")
    };
    assert_eq!(refused.variant, "wgmma");
    assert!(refused.why.contains("self-test"), "{}", refused.why);
    // Nor is it passed over.
    let Outcome::Skipped { skip, why } = &proof.phase("self-test bf16").outcome else {
        panic!("{:?}", proof.phase("self-test bf16"))
    };
    assert_eq!(*skip, Skip::NotTested);
    assert!(why.contains("wgmma"), "{why}");
}

#[test]
fn kernels_that_have_run_on_no_gpu_are_told_as_untested_and_give_way_where_they_are_wrong() {
    let of = |minor, ailments: &[Ailment]| {
        let mut description = description(ailments, 1);
        description.facts.compute_capability = ComputeCapability { major: 10, minor };
        Proof::of(&StandIn::new(description), &options(Profile::Prove))
    };
    let proof = of(0, &[]);
    for title in [
        "gemm bf16",
        "gemm fp8",
        "gemm int8",
        "mma-loop bf16",
        "power bf16",
    ] {
        let kernels = proof.phase(title).kernels();
        assert_eq!(kernels.as_deref(), Some("tcgen05 (untested)"), "{title}");
    }
    assert!(!proof.phase("mma-loop fp32").is_untested);
    assert_eq!(proof.phase("gemm fp64").kernels().as_deref(), Some("m16n8k16"));
    // Of its family 10.0 alone has integers.
    assert_eq!(
        of(3, &[]).phase("gemm int8").kernels().as_deref(),
        Some("m16n8k16")
    );
    let wrong = of(0, &[Ailment::BrokenVariant(Variant::Tcgen05)]);
    assert!(wrong.corrupt().is_empty(), "{}", wrong.found());
    let gemm = wrong.phase("gemm bf16");
    assert_eq!(gemm.kernels().as_deref(), Some("m16n8k16"));
    assert_eq!(gemm.refused[0].variant, "tcgen05");
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
            SetupErrorCode::Other,
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

/// GPUs that see each other.
fn pair(bad: Option<Ailment>) -> Vec<StandIn> {
    let devices: Vec<StandIn> = (0..2)
        .map(|number| {
            let mut description = description(bad.filter(|_| number == 1).as_slice(), 5);
            description.facts.uuid = format!("GPU-{number}");
            description.rates.peer = Some(378e9);
            StandIn::new(description)
        })
        .collect();
    StandIn::connect(&devices);
    devices
}

/// Each stand-in has a time of its own: that of both together is what counts.
struct Both<'a>(&'a [StandIn]);

impl Pace for Both<'_> {
    fn elapsed(&self) -> Duration {
        self.0.iter().map(Pace::elapsed).sum()
    }
    fn rest(&self, time: Duration) {
        self.0[0].rest(time);
    }
}

fn peers_of(devices: &[StandIn]) -> Vec<PeerPath> {
    let all: Vec<&dyn Device> = devices.iter().map(|device| device as &dyn Device).collect();
    peers::run(
        &Peers {
            devices: &all,
            pace: &Both(devices),
            is_cancelled: &|| false,
            route: &|_, _| PeerRoute::NvLink,
        },
        Duration::from_secs(1),
    )
}

#[test]
fn copies_between_gpus_are_measured_and_compared_in_each_direction() {
    let paths = peers_of(&pair(None));
    let ends: Vec<_> = paths.iter().map(|path| (path.from, path.to)).collect();
    assert_eq!(ends, [(0, 1), (1, 0)]);
    for path in &paths {
        assert_eq!(path.outcome, Outcome::Ran);
        assert!(near(path.rate.unwrap().p50, 378.0), "{path:?}");
        assert!(path.verified_bytes > 0 && path.corruption_count == 0);
    }
}

#[test]
fn what_arrives_wrong_at_a_peer_is_found_in_that_direction() {
    let stuck = Ailment::StuckBit {
        address: 2000,
        bit: 1,
        value: true,
    };
    let paths = peers_of(&pair(Some(stuck)));
    assert_eq!(paths[0].corruptions[0].class, CorruptionClass::Transfer);
    assert_eq!(paths[0].corruptions[0].difference().unwrap().0, 2);
}

#[test]
fn gpus_without_a_way_to_each_other_say_so() {
    let devices = [h100(&[], 1), h100(&[], 2)];
    for path in peers_of(&devices) {
        assert_eq!(path.route, PeerRoute::Host);
        assert!(matches!(
            path.outcome,
            Outcome::Skipped {
                skip: Skip::Unsupported,
                ..
            }
        ));
    }
}
