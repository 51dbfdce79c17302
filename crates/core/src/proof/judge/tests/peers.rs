//! Copies between GPUs: what follows for either end.

use super::super::super::tests::h100;
use super::*;

/// Copies over NVLink that are well, and were not measured.
fn path(from: usize, to: usize) -> PeerPath {
    PeerPath {
        from,
        to,
        route: PeerRoute::NvLink,
        outcome: Outcome::Ran,
        rate: None,
        both_ways: None,
        verified_bytes: 1 << 30,
        corruption_count: 0,
        corruptions: Vec::new(),
    }
}

#[test]
fn both_ends_of_a_link_that_corrupts_are_suspect() {
    let mut evidence = evidence();
    evidence.devices = vec![h100(0), h100(1), h100(2)];
    evidence.peers = vec![PeerPath {
        corruption_count: 5,
        ..path(0, 2)
    }];
    let report = report(evidence);
    assert_eq!(
        report.judgement.verdicts,
        [Verdict::FailCorruption, Verdict::Pass, Verdict::FailCorruption]
    );
}

#[test]
fn a_slow_nvlink_warns_and_fails_where_its_rate_was_told() {
    let with_path = || {
        let mut evidence = evidence();
        evidence.devices = vec![h100(0), h100(1)];
        evidence.peers = vec![PeerPath {
            rate: Rate::of(Unit::Gbs, vec![200.0]),
            ..path(0, 1)
        }];
        evidence
    };
    let report = judge(with_path(), &Thresholds::default());
    assert_eq!(report.verdict, Verdict::Warn);
    assert_eq!(
        report.judgement.reasons[0].text,
        "NVLink to GPU 1: 200 of 374 GB/s (54 %; the latter is estimated)"
    );
    let told = Thresholds {
        cards: vec![CardFigures {
            pci_device_id: Some(0x2330),
            nvlink_gbs: Some(376.0),
            ..CardFigures::default()
        }],
        ..Thresholds::default()
    };
    assert_eq!(judge(with_path(), &told).verdict, Verdict::FailPerf);
}

#[test]
fn gpus_between_which_copies_failed_have_not_passed() {
    let mut evidence = evidence();
    evidence.devices.extend([h100(1), h100(2)]);
    let why = "they hang".to_owned();
    let failed = PeerPath {
        outcome: Outcome::Failed { why },
        ..path(0, 1)
    };
    evidence.peers = vec![failed, path(1, 0), path(0, 2)];
    let report = report(evidence);
    let verdicts = [Verdict::ErrorSetup, Verdict::ErrorSetup, Verdict::Pass];
    assert_eq!(report.judgement.verdicts, verdicts);
    assert_eq!(
        report.judgement.reasons[0].text,
        "copies from or to GPU 1 could not end: they hang"
    );
}
