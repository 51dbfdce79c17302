mod kept;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pitcrew_api::gpu_node::{ProofProfile, ProofSpec};
use pitcrew_core::ports::InventorySource as _;
use pitcrew_core::proof::{
    Device, DeviceEvidence, Driver, Evidence, Format, Node, Outcome, Phase, PhaseKind, Profile, Report, Run,
    SetupError, SetupErrorCode, Thresholds, Timestamp, Tool, Verdict, judge,
};
use pitcrew_core::{Gpu, Inventory};
use pitcrew_scenario::{Machine, Scenario};

use super::keep::boot_time_of;
use super::withhold::{gated, held};
use super::*;

const NOW: Timestamp = Timestamp(1_764_000_000);
const DRIVER: &str = "580.95.05";

fn proof(verdict: Verdict, started: u32) -> Proof {
    Proof {
        verdict,
        profile: Profile::Prove,
        started: Timestamp(started),
        seconds: 60,
        verified: 1_000,
        driver: Some(DRIVER.to_owned()),
        reason: None,
        action: None,
    }
}

fn inventory(scenario: &str) -> Inventory {
    Machine::new(Scenario::builtin(scenario).unwrap())
        .inventory()
        .unwrap()
}

fn card() -> Gpu {
    inventory("rtx3060").gpus.remove(0)
}

fn uuid(gpu: &Gpu) -> String {
    gpu.readings.uuid.value().unwrap().clone()
}

fn view(proofs: impl IntoIterator<Item = (String, Proof)>) -> View {
    View {
        proofs: proofs.into_iter().collect(),
        booted: Some(Timestamp(NOW.0 - 1_000)),
        ..View::default()
    }
}

fn stands(verdict: Verdict, started: u32, driver: &str) -> Standing {
    let gpu = card();
    standing(&view([(uuid(&gpu), proof(verdict, started))]), &gpu, Some(driver))
}

#[test]
fn a_verdict_holds_until_a_boot_or_another_driver() {
    assert!(matches!(
        stands(Verdict::Pass, NOW.0, DRIVER),
        Standing::Proven(_)
    ));
    assert!(matches!(
        stands(Verdict::Warn, NOW.0, DRIVER),
        Standing::Proven(_)
    ));
    for verdict in [
        Verdict::FailEnv,
        Verdict::FailPerf,
        Verdict::FailHardware,
        Verdict::FailCorruption,
    ] {
        assert!(
            matches!(stands(verdict, NOW.0, DRIVER), Standing::Failed(_)),
            "{verdict}"
        );
    }
    for verdict in [Verdict::ErrorSetup, Verdict::Interrupted] {
        assert!(
            matches!(stands(verdict, NOW.0, DRIVER), Standing::Incomplete(_)),
            "{verdict}"
        );
    }
    let before_boot = stands(Verdict::Pass, NOW.0 - 1_001, DRIVER);
    assert!(matches!(before_boot, Standing::Stale(_, Stale::Booted)));
    let other = stands(Verdict::FailCorruption, NOW.0, "595.58");
    assert!(matches!(other, Standing::Stale(_, Stale::Driver)));
    assert!(!other.has_computed());
    // What isn't known says nothing against it.
    let gpu = card();
    let mut unknown = view([(uuid(&gpu), proof(Verdict::Pass, 1))]);
    unknown.booted = None;
    assert!(matches!(standing(&unknown, &gpu, None), Standing::Proven(_)));
    assert_eq!(standing(&view([]), &gpu, Some(DRIVER)), Standing::None);
}

#[test]
fn of_a_gpu_that_is_cut_up_the_worst_of_its_mig_devices_counts() {
    let gpu = inventory("mixed")
        .gpus
        .into_iter()
        .find(|gpu| devices_of(gpu).len() > 1)
        .unwrap();
    let devices = devices_of(&gpu);
    let all = |verdict: Verdict| {
        let proofs = devices
            .iter()
            .map(|device| (device.clone(), proof(Verdict::Pass, NOW.0)));
        let mut view = view(proofs);
        view.proofs.insert(devices[1].clone(), proof(verdict, NOW.0));
        standing(&view, &gpu, Some(DRIVER))
    };
    assert!(matches!(all(Verdict::Pass), Standing::Proven(_)));
    assert!(matches!(all(Verdict::FailPerf), Standing::Failed(_)));
    let one = view([(devices[0].clone(), proof(Verdict::Pass, NOW.0))]);
    assert_eq!(
        standing(&one, &gpu, Some(DRIVER)),
        Standing::None,
        "the others are not proven"
    );
}

#[test]
fn a_proof_is_due_by_request_by_want_of_one_and_by_age_and_never_by_itself() {
    let held = stands(Verdict::Pass, NOW.0 - 900, DRIVER);
    let failed = stands(Verdict::FailCorruption, NOW.0 - 900, DRIVER);
    let stale = stands(Verdict::Pass, NOW.0 - 2_000, DRIVER);
    let nothing = Policy::default();
    for standing in [&held, &failed, &stale, &Standing::None] {
        assert_eq!(due(&nothing, standing, false, None, NOW), None);
    }
    let unproven = Policy {
        when_unproven: true,
        ..Policy::default()
    };
    assert_eq!(due(&unproven, &held, false, None, NOW), None);
    assert_eq!(
        due(&unproven, &failed, false, None, NOW),
        None,
        "a verdict is one"
    );
    assert_eq!(due(&unproven, &stale, false, None, NOW), Some(Due::Unproven));
    assert_eq!(
        due(&unproven, &Standing::None, false, None, NOW),
        Some(Due::Unproven)
    );
    let until = Some(Timestamp(NOW.0 + 1));
    assert_eq!(
        due(&unproven, &Standing::None, false, until, NOW),
        None,
        "it rests"
    );
    assert_eq!(
        due(&unproven, &Standing::None, false, Some(NOW), NOW),
        Some(Due::Unproven)
    );
    let every = Policy {
        every: Some(Duration::from_mins(15)),
        ..Policy::default()
    };
    assert_eq!(due(&every, &held, false, None, NOW), Some(Due::Old));
    assert_eq!(due(&every, &held, false, None, Timestamp(NOW.0 - 1)), None);
    let asked = Policy {
        request: Some("today".to_owned()),
        ..Policy::default()
    };
    assert_eq!(
        due(&asked, &held, false, until, NOW),
        Some(Due::Requested),
        "who asks doesn't wait"
    );
    assert_eq!(due(&asked, &held, true, None, NOW), None);
}

#[test]
fn what_is_wanted_of_the_node_stands_above_the_agents_settings_field_by_field() {
    let settings = Policy {
        when_unproven: true,
        every: Some(Duration::from_hours(24)),
        ..Policy::default()
    };
    assert_eq!(settings.with(None), settings);
    let wanted = ProofSpec {
        profile: Some(ProofProfile::Smoke),
        every: Some("7d".to_owned()),
        gates_readiness: Some(true),
        ..ProofSpec::default()
    };
    let expected = Policy {
        profile: Profile::Smoke,
        when_unproven: true,
        every: Some(Duration::from_hours(7 * 24)),
        request: None,
        gates_readiness: true,
    };
    assert_eq!(settings.with(Some(&wanted)), expected);
    for text in [
        "", "h", "0h", "-1h", "1", "1m", "10000h", "1.5h", "1 h", "h1", "7dd", "١h",
    ] {
        assert_eq!(parse_every(text), None, "{text}");
    }
    assert_eq!(parse_every("12h"), Some(Duration::from_hours(12)));
}

#[test]
fn without_the_gate_nothing_is_withheld_and_with_it_what_is_not_proven() {
    let inventory = inventory("h100x8");
    let [first, second, third] = [0, 1, 2].map(|at| uuid(&inventory.gpus[at]));
    let mut view = view([
        (first.clone(), proof(Verdict::Pass, NOW.0)),
        (second.clone(), proof(Verdict::Warn, NOW.0)),
        (third.clone(), proof(Verdict::FailHardware, NOW.0)),
    ]);
    assert_eq!(gated(&view, &inventory.gpus, Some(DRIVER)), BTreeMap::new());
    view.policy.gates_readiness = true;
    let withheld = gated(&view, &inventory.gpus, Some(DRIVER));
    assert_eq!(withheld.len(), 6);
    assert!(!withheld.contains_key(&first) && !withheld.contains_key(&second));
    assert!(withheld[&third].contains("FAIL_HARDWARE"), "{}", withheld[&third]);
}

#[test]
fn a_gpu_is_held_whole_by_a_replica_of_any_kind_or_by_a_mig_device_on_it() {
    let inventory = inventory("mixed");
    let cut = inventory
        .gpus
        .iter()
        .find(|gpu| devices_of(gpu).len() > 1)
        .unwrap();
    let whole = inventory
        .gpus
        .iter()
        .find(|gpu| devices_of(gpu) == [uuid(gpu)])
        .unwrap();
    let all: BTreeSet<String> = inventory.gpus.iter().map(uuid).collect();
    let held_by = |id: &str| held(&all, &inventory, [id].into_iter());
    let only = |gpu: &Gpu| BTreeSet::from([uuid(gpu)]);
    assert_eq!(held_by(&uuid(whole)), only(whole));
    assert_eq!(held_by(&format!("{}::3", uuid(whole))), only(whole));
    assert_eq!(held_by(&format!("{}::3-of-4", uuid(whole))), only(whole));
    assert_eq!(held_by(&devices_of(cut)[1]), only(cut));
    assert_eq!(held_by(&uuid(cut)), only(cut));
    assert_eq!(held_by("GPU-of-another"), BTreeSet::new());
    assert_eq!(
        held(&only(cut), &inventory, [uuid(whole).as_str()].into_iter()),
        BTreeSet::new()
    );
}

#[test]
fn the_kernel_says_when_it_was_booted() {
    let text = "cpu  1 2 3\nintr 5 0\nctxt 7\nbtime 1764000000\nprocesses 9\n";
    assert_eq!(boot_time_of(text), Some(NOW));
    for text in ["", "btime", "btime x", "btime -1", "btime 99999999999"] {
        assert_eq!(boot_time_of(text), None, "{text}");
    }
}

fn evidence() -> Evidence {
    let phases = [PhaseKind::March, PhaseKind::MmaLoop, PhaseKind::Gemm].map(|kind| Phase {
        verified_outputs: 10,
        verified_bytes: 20,
        ..Phase::new(kind, Some(Format::Bf16), Outcome::Ran)
    });
    let device = |index: u32| DeviceEvidence {
        phases: phases.to_vec(),
        ..DeviceEvidence::new(Device {
            index,
            uuid: format!("GPU-{index}"),
            ..Device::default()
        })
    };
    Evidence {
        tool: Tool {
            version: "0.1.0".to_owned(),
            kernels: None,
        },
        run: Run {
            profile: Profile::Smoke,
            started: NOW,
            seconds: 5.9,
            interrupted: None,
            scenario: None,
            injected: Vec::new(),
            share: false,
        },
        node: Node {
            name: "worker-1".to_owned(),
            pod: None,
            kernel: None,
            environment: BTreeMap::new(),
        },
        driver: Driver {
            version: Some(DRIVER.to_owned()),
            cuda: None,
        },
        setup_error: None,
        devices: (0..12).map(device).collect(),
        peers: Vec::new(),
    }
}

fn report(change: impl FnOnce(&mut Evidence)) -> Report {
    let mut evidence = evidence();
    change(&mut evidence);
    judge(evidence, &Thresholds::default())
}

fn expected() -> Expected {
    Expected {
        node: "worker-1".to_owned(),
        imaginary: false,
        devices: ["GPU-1", "GPU-11"].map(str::to_owned).into(),
        now: NOW,
    }
}

#[test]
fn of_a_report_what_it_says_of_this_nodes_gpus_is_taken_with_the_advice_that_is_about_each() {
    let wrong = |evidence: &mut Evidence| {
        evidence.devices[1].phases[2].corruption_count = 3;
        evidence.devices[11].phases[2].corruption_count = 4;
    };
    let taken = take(report(wrong), &expected()).unwrap();
    let names: Vec<&str> = taken.proofs.iter().map(|(uuid, _)| uuid.as_str()).collect();
    assert_eq!(names, ["GPU-1", "GPU-11"]);
    let proof = &taken.proofs[0].1;
    assert_eq!(
        (proof.verdict, proof.seconds, proof.verified),
        (Verdict::FailCorruption, 5, 90)
    );
    assert_eq!(proof.driver.as_deref(), Some(DRIVER));
    for (uuid, proof) in &taken.proofs {
        assert!(proof.reason.is_some());
        assert!(
            proof.action.as_ref().unwrap().contains(&format!("({uuid}")),
            "{proof:?}"
        );
    }
    assert_eq!(taken.differs, None);
}

#[test]
fn advice_for_one_gpu_is_not_given_to_another() {
    // Actions that name a GPU by its title, by its number for a tool, and by its slot.
    let wrong = |evidence: &mut Evidence| {
        for (index, device) in evidence.devices.iter_mut().enumerate() {
            device.device.pci_address = Some(format!("0000:{index:02x}:00.0"));
        }
        evidence.devices[10].phases[2].corruption_count = 3;
        for index in [1, 11] {
            evidence.devices[index].phases[2].outcome = Outcome::Failed {
                why: "a call failed".to_owned(),
            };
        }
    };
    let taken = take(report(wrong), &expected()).unwrap();
    for (uuid, proof) in &taken.proofs {
        assert_ne!(proof.verdict, Verdict::Pass, "{uuid}");
        assert_eq!(proof.action, None, "{uuid}");
    }
    // What names no GPU is for all that are in trouble.
    let stopped = |evidence: &mut Evidence| evidence.run.interrupted = Some("SIGTERM".to_owned());
    let taken = take(report(stopped), &expected()).unwrap();
    for (uuid, proof) in &taken.proofs {
        assert_eq!(
            proof.action.as_deref(),
            Some("Run it again, to its end"),
            "{uuid}"
        );
    }
    // What mends one GPU's own trouble at the start is its own, whatever it names.
    let held = |evidence: &mut Evidence| {
        for (index, fix) in [(1, "delete pod a"), (11, "delete pod b")] {
            evidence.devices[index].phases.clear();
            evidence.devices[index].setup_error = Some(SetupError {
                code: SetupErrorCode::InUse,
                message: "a pod holds it".to_owned(),
                fix: Some(fix.to_owned()),
                cuda_error: None,
            });
        }
    };
    let taken = take(report(held), &expected()).unwrap();
    let actions: Vec<&str> = taken
        .proofs
        .iter()
        .filter_map(|(_, proof)| proof.action.as_deref())
        .collect();
    assert_eq!(actions, ["delete pod a", "delete pod b"]);
}

#[test]
fn a_title_is_not_taken_for_one_that_it_begins_or_ends() {
    let whole = super::taken::contains_whole;
    assert!(whole("Drain GPU 1 and reset it", "GPU 1"));
    assert!(whole("at GPU 1", "GPU 1") && whole("(GPU 1), now", "GPU 1"));
    for text in [
        "Drain GPU 10 and",
        "Drain GPU 1 MIG 1g.10gb and",
        "a vGPU 1 is",
        "",
    ] {
        assert!(!whole(text, "GPU 1"), "{text}");
    }
    assert!(!whole("GPU 1 MIG 1g.10gb+me is", "GPU 1 MIG 1g.10gb"));
    assert!(whole("GPU 1 MIG 1g.10gb is", "GPU 1 MIG 1g.10gb"));
    assert!(whole("`nvidia-smi -i 1 -pl`", "nvidia-smi -i 1"));
    assert!(!whole("`nvidia-smi -i 10 -pl`", "nvidia-smi -i 1"));
    assert!(!whole("anything", ""));
}

#[test]
fn a_report_is_judged_anew_and_what_it_says_of_itself_counts_for_nothing() {
    let mut lies = report(|evidence| evidence.devices[1].phases[2].corruption_count = 3);
    lies.verdict = Verdict::Pass;
    lies.judgement.verdicts = vec![Verdict::Pass; 12];
    lies.judgement.reasons.clear();
    let taken = take(lies, &expected()).unwrap();
    assert_eq!(taken.proofs[0].1.verdict, Verdict::FailCorruption);
    assert_eq!(taken.differs, Some((Verdict::Pass, Verdict::FailCorruption)));
}

#[test]
fn a_report_that_is_not_of_this_nodes_gpus_as_they_are_is_refused_with_the_reason() {
    let refused = |change: fn(&mut Evidence)| take(report(change), &expected()).unwrap_err();
    assert!(matches!(
        refused(|evidence| evidence.node.name = "worker-2".to_owned()),
        Refused::Node { .. }
    ));
    assert!(matches!(
        refused(|evidence| evidence.run.scenario = Some("h100x8".to_owned())),
        Refused::Imaginary(_)
    ));
    assert!(matches!(
        refused(|evidence| evidence.run.injected.push("sm=7,bit=12".to_owned())),
        Refused::Planted(_)
    ));
    assert!(matches!(
        refused(|evidence| evidence.run.started = Timestamp(NOW.0 + 61)),
        Refused::Future(_)
    ));
    assert!(matches!(
        refused(|evidence| evidence.devices.truncate(1)),
        Refused::OtherGpus(_)
    ));
    let untested = refused(|evidence| {
        evidence.devices.clear();
        evidence.setup_error = Some(SetupError {
            code: SetupErrorCode::NoDriver,
            message: "there is no driver".to_owned(),
            fix: Some("install one".to_owned()),
            cuda_error: None,
        });
    });
    assert_eq!(
        untested.to_string(),
        "no GPU was tested: there is no driver; install one"
    );
    let imaginary = Expected {
        imaginary: true,
        ..expected()
    };
    assert!(matches!(take(report(|_| {}), &imaginary), Err(Refused::Real)));
    // Clocks are never quite the same.
    assert!(
        take(
            report(|evidence| evidence.run.started = Timestamp(NOW.0 + 60)),
            &expected()
        )
        .is_ok()
    );
}

#[test]
fn what_never_counts_is_told_from_what_may_count_later() {
    let refused = |change: fn(&mut Evidence)| take(report(change), &expected()).unwrap_err();
    assert!(refused(|evidence| evidence.devices.clear()).is_for_good());
    assert!(refused(|evidence| evidence.node.name = "worker-2".to_owned()).is_for_good());
    assert!(!refused(|evidence| evidence.run.started = Timestamp(NOW.0 + 61)).is_for_good());
    assert!(!refused(|evidence| evidence.devices.truncate(1)).is_for_good());
}
