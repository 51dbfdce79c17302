//! Who stands out among equals, and who doesn't.

use super::*;
use crate::proof::tests::{evidence, h100, report};

/// A node with one H100 that reaches this part of what it should.
fn node(name: &str, factor: f64) -> Report {
    let mut run = evidence();
    run.node.name = name.to_owned();
    let device = &mut run.devices[0];
    device.device.uuid = format!("GPU-{name}");
    for phase in &mut device.phases {
        if let Some(rate) = phase.rate.as_mut().filter(|_| phase.kind == PhaseKind::Gemm) {
            rate.p50 *= factor;
        }
    }
    report(run)
}

/// Eight that differ by single per cents.
fn nodes() -> Vec<Report> {
    let factors = [1.0, 0.99, 1.01, 0.985, 1.012, 1.003, 0.995, 0.975];
    factors
        .iter()
        .enumerate()
        .map(|(index, factor)| node(&format!("gpu-{index}"), *factor))
        .collect()
}

#[test]
fn equals_that_differ_as_equals_do_are_left_alone() {
    let fleet = compare(&nodes());
    assert_eq!((fleet.members.len(), fleet.groups.len()), (8, 1));
    assert_eq!(fleet.outliers, []);
    assert_eq!(fleet.verdict, Verdict::Pass);
    assert_eq!(
        fleet.groups[0].title,
        "NVIDIA H100 80GB HBM3, 0x2330, 80 GiB, 700 W, driver 580"
    );
}

#[test]
fn the_slow_gpu_is_found() {
    let mut reports = nodes();
    reports.push(node("gpu-8", 0.88));
    let fleet = compare(&reports);
    assert_eq!(fleet.outliers.len(), 1, "{:?}", fleet.outliers);
    assert_eq!(fleet.verdict, Verdict::Warn);
    let outlier = &fleet.outliers[0];
    assert_eq!(fleet.members[outlier.member].node, "gpu-8");
    assert_eq!(
        outlier.text,
        "gpu-8 GPU 0: gemm bf16 (wgmma) is 686 TFLOP/s, -12 % from the median of 9 equals (776)"
    );
}

#[test]
fn far_by_chance_and_near_in_per_cent_is_no_outlier() {
    // Seven as good as the same and one 4 % lower: hundreds of deviations, and no reason to act.
    let mut reports: Vec<Report> = (0..7).map(|index| node(&format!("gpu-{index}"), 1.0)).collect();
    reports.push(node("gpu-7", 0.96));
    assert_eq!(compare(&reports).outliers, []);
}

#[test]
fn where_most_are_the_same_a_slow_one_is_still_found() {
    let mut reports: Vec<Report> = (0..7).map(|index| node(&format!("gpu-{index}"), 1.0)).collect();
    reports.push(node("gpu-7", 0.5));
    assert_eq!(compare(&reports).outliers.len(), 1);
}

#[test]
fn of_two_nobody_knows_which_is_odd() {
    assert_eq!(compare(&[node("a", 1.0), node("b", 0.5)]).outliers, []);
}

#[test]
fn another_power_limit_is_another_group() {
    let mut reports = nodes();
    let mut capped = node("gpu-8", 0.6);
    capped.evidence.devices[0].device.power_limit_w = Some(450.0);
    reports.push(capped);
    let fleet = compare(&reports);
    assert_eq!(fleet.groups.len(), 2);
    assert_eq!(fleet.outliers, []);
}

#[test]
fn of_one_gpu_the_newest_report_counts_and_the_older_tells_its_drift() {
    let mut reports = nodes();
    let mut later = node("gpu-0", 0.9);
    later.evidence.run.started = Timestamp(1_765_000_000);
    reports.insert(0, later);
    let fleet = compare(&reports);
    assert_eq!(fleet.members.len(), 8);
    assert_eq!(fleet.drifts.len(), 1);
    assert_eq!(fleet.drifts[0].measure, "gemm bf16 (wgmma)");
    assert!((fleet.drifts[0].off + 0.1).abs() < 1e-9);
}

#[test]
fn a_slot_that_is_slow_on_two_nodes_is_named() {
    let mut reports = nodes();
    reports.extend([node("gpu-8", 0.8), node("gpu-9", 0.82)]);
    let fleet = compare(&reports);
    assert_eq!(
        fleet.slots,
        [Slot {
            pci_address: "0000:1b:00.0".to_owned(),
            nodes: vec!["gpu-8".to_owned(), "gpu-9".to_owned()],
        }]
    );
}

#[test]
fn shared_gpus_are_members_and_not_compared_and_empty_runs_are_told() {
    let mut reports = nodes();
    let mut shared = node("gpu-8", 0.2);
    shared.evidence.devices[0].processes = vec![crate::proof::Process {
        pid: 1,
        memory_bytes: None,
    }];
    reports.push(shared);
    let mut nothing = evidence();
    nothing.devices.clear();
    reports.push(report(nothing));
    let fleet = compare(&reports);
    assert_eq!(
        (fleet.members.len(), fleet.outliers.len(), fleet.empty.len()),
        (9, 0, 1)
    );
    // The report of the shared one was judged before it was shared.
    assert_eq!(fleet.verdict, Verdict::FailPerf);
    assert_eq!(fleet.empty[0].verdict, Verdict::ErrorSetup);
    assert_eq!(compare(&[]).verdict, Verdict::ErrorSetup);
    assert_eq!(h100(0).device.title(), "GPU 0");
}
