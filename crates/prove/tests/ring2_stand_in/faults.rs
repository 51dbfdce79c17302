//! Every fault is found and placed.

use std::time::Duration;

use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::proof::{CorruptionClass, Outcome, PhaseKind, Profile, Skip};
use pitcrew_prove::device::Variant;
use pitcrew_prove::stand_in::{Ailment, StandIn};

use crate::bed::{Proof, description, h100, near, options};

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
