//! Conditions and status from the facts: tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pitcrew_agent::runtime::Tier;
use pitcrew_agent::snapshot::{Part, Snapshot};
use pitcrew_agent::status::{self, events};
use pitcrew_api::condition::kind;
use pitcrew_api::gpu_node::GpuHealth;
use pitcrew_api::{ConditionStatus, GpuNodeStatus};
use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::plugin::Sharing;
use pitcrew_core::ports::GpuError;
use pitcrew_core::{Inventory, Reading};
use pitcrew_scenario::Change;
use proptest::prelude::*;

use crate::node;

/// Reasons of all conditions on one line, those that don't hold with a sign before them.
fn told(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for judgement in status::judge(snapshot) {
        let sign = match judgement.status {
            ConditionStatus::True => "",
            ConditionStatus::False => "!",
            ConditionStatus::Unknown => "?",
        };
        let _ = write!(text, "{sign}{} ", judgement.reason);
    }
    text.trim_end().to_owned()
}

/// Everything that can be the matter, with what is said of it: `Ready DriverReady RuntimeReady DevicesAdvertised
/// Healthy Proven`.
#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<(&'static str, Snapshot, &'static str)> {
    let worker = node::worker("h100x8");
    let ready = || node::registered(&worker);
    let bare = |name: &str| node::looked(&node::root(name));
    let mounts = |mut snapshot: Snapshot| {
        snapshot.tier = Tier::Mounts;
        snapshot
    };
    let driver_error = |error: GpuError| Snapshot {
        gpus: Some(Err(error)),
        resources: Vec::new(),
        registered: BTreeSet::new(),
        ..ready()
    };
    let no_tier = |mut snapshot: Snapshot, containerd| {
        snapshot.tier = Tier::Unknown;
        let mut host = (*snapshot.host.unwrap()).clone();
        host.containerd = containerd;
        snapshot.host = Some(host.into());
        snapshot
    };
    let all_sick = {
        let mut snapshot = ready();
        for index in 0..8 {
            let uuid = node::uuid(&snapshot, index);
            snapshot.sick.insert(uuid, "XID 79".to_owned());
        }
        snapshot
    };
    let shared_by_mps = {
        let mut snapshot = ready();
        snapshot.resources[0].sharing = Sharing::Mps;
        snapshot
    };
    vec![
        (
            "nothing was looked at yet",
            node::nothing_known(),
            "?Starting ?Starting ?Starting ?Starting ?Starting ?NotProven",
        ),
        (
            "all is well",
            ready(),
            "Ready DriverRunning NativeCdi Advertised AllHealthy ?NotProven",
        ),
        (
            "all is well on an old runtime",
            mounts(ready()),
            "Ready DriverRunning DeviceMounts Advertised AllHealthy ?NotProven",
        ),
        (
            "all is well through a handler",
            Snapshot {
                tier: Tier::Handler,
                ..ready()
            },
            "Ready DriverRunning Handler Advertised AllHealthy ?NotProven",
        ),
        (
            "the kubelet has not answered yet",
            Snapshot {
                registered: BTreeSet::new(),
                ..ready()
            },
            "!Registering DriverRunning NativeCdi !Registering AllHealthy ?NotProven",
        ),
        (
            "nouveau took the card",
            bare("nouveau"),
            "!NouveauHoldsGpu !NouveauHoldsGpu NativeCdi !DriverNotReady ?DriverNotReady ?NotProven",
        ),
        (
            "no driver is installed",
            bare("no-driver"),
            "!DriverNotInstalled !DriverNotInstalled NativeCdi !DriverNotReady ?DriverNotReady ?NotProven",
        ),
        (
            "the module is not signed",
            bare("secure-boot"),
            "!ModuleNotSigned !ModuleNotSigned NativeCdi !DriverNotReady ?DriverNotReady ?NotProven",
        ),
        (
            "libraries and module differ",
            bare("mismatch"),
            "!LibrariesDoNotFit !LibrariesDoNotFit NativeCdi !DriverNotReady ?DriverNotReady ?NotProven",
        ),
        (
            "the fabric is not up",
            node::registered(&node::root("hgx-no-fabric-manager")),
            "!FabricManagerMissing !FabricManagerMissing NativeCdi Advertised AllHealthy ?NotProven",
        ),
        (
            "no card is there",
            bare("no-gpu"),
            "!NoGpu !NoGpu NativeCdi !DriverNotReady ?DriverNotReady ?NotProven",
        ),
        (
            "the driver hangs",
            driver_error(GpuError::DriverFailed("no answer within 5 s".to_owned())),
            "!DriverDoesNotAnswer !DriverDoesNotAnswer NativeCdi !DriverNotReady ?DriverNotReady ?NotProven",
        ),
        (
            "the driver's library is gone",
            driver_error(GpuError::NoDriver("libnvidia-ml.so.1".to_owned())),
            "!LibrariesMissing !LibrariesMissing NativeCdi !DriverNotReady ?DriverNotReady ?NotProven",
        ),
        (
            "a part says so of the driver",
            node::with_problem(ready(), Part::Driver, "ModulesNotLoaded"),
            "!ModulesNotLoaded !ModulesNotLoaded NativeCdi Advertised AllHealthy ?NotProven",
        ),
        (
            "the handler waits, and only pods that name it",
            node::with_problem(ready(), Part::Runtime, "HandlerPending"),
            "Ready DriverRunning HandlerPending Advertised AllHealthy ?NotProven",
        ),
        (
            "the handler waits, and every pod needs it",
            Snapshot {
                tier: Tier::Handler,
                ..node::with_problem(ready(), Part::Runtime, "HandlerPending")
            },
            "!HandlerPending DriverRunning !HandlerPending Advertised AllHealthy ?NotProven",
        ),
        (
            "the toolkit can't be installed",
            node::with_problem(ready(), Part::Runtime, "ReadOnly"),
            "!ReadOnly DriverRunning !ReadOnly Advertised AllHealthy ?NotProven",
        ),
        (
            "no specification can be written",
            node::with_problem(ready(), Part::Specs, "SpecNotWritten"),
            "!SpecNotWritten DriverRunning !SpecNotWritten Advertised AllHealthy ?NotProven",
        ),
        (
            "no specification can be written, and none is needed",
            mounts(node::with_problem(ready(), Part::Specs, "SpecNotWritten")),
            "Ready DriverRunning DeviceMounts Advertised AllHealthy ?NotProven",
        ),
        (
            "there is no runtime",
            no_tier(ready(), Reading::NotSupported),
            "!NoRuntime DriverRunning !NoRuntime Advertised AllHealthy ?NotProven",
        ),
        (
            "the runtime can't be read",
            no_tier(ready(), Reading::Failed("permission denied".to_owned())),
            "?RuntimeUnreadable DriverRunning ?RuntimeUnreadable Advertised AllHealthy ?NotProven",
        ),
        (
            "how the runtime takes GPUs isn't known yet",
            Snapshot {
                tier: Tier::Unknown,
                ..ready()
            },
            "?RuntimeUnknown DriverRunning ?RuntimeUnknown Advertised AllHealthy ?NotProven",
        ),
        (
            "another plugin serves the resource",
            node::with_problem(ready(), Part::Plugin, "OtherPlugin"),
            "!OtherPlugin DriverRunning NativeCdi !OtherPlugin AllHealthy ?NotProven",
        ),
        (
            "the new configuration is wrong, the old one in force",
            node::with_problem(ready(), Part::Config, "ConfigInvalid"),
            "Ready DriverRunning NativeCdi ConfigInvalid AllHealthy ?NotProven",
        ),
        (
            "the only configuration is wrong",
            node::with_problem(
                Snapshot {
                    resources: Vec::new(),
                    ..ready()
                },
                Part::Config,
                "ConfigInvalid",
            ),
            "!ConfigInvalid DriverRunning NativeCdi !ConfigInvalid AllHealthy ?NotProven",
        ),
        (
            "MPS is down, and somebody shares by it",
            node::with_problem(shared_by_mps.clone(), Part::Mps, "MpsDown"),
            "!MpsDown DriverRunning NativeCdi !MpsDown AllHealthy ?NotProven",
        ),
        (
            "MPS keeps nobody out, and somebody shares by it",
            node::with_remark(shared_by_mps, Part::Mps, "NotExclusive"),
            "Ready DriverRunning NativeCdi NotExclusive AllHealthy ?NotProven",
        ),
        (
            "MPS is down, and nobody shares by it",
            node::with_problem(ready(), Part::Mps, "MpsDown"),
            "Ready DriverRunning NativeCdi Advertised AllHealthy ?NotProven",
        ),
        (
            "labels can't be written",
            node::with_problem(ready(), Part::Labels, "LabelsNotWritten"),
            "Ready DriverRunning NativeCdi Advertised AllHealthy ?NotProven",
        ),
        (
            "nothing is left to advertise",
            Snapshot {
                resources: Vec::new(),
                ..ready()
            },
            "!NoDevices DriverRunning NativeCdi !NoDevices AllHealthy ?NotProven",
        ),
        (
            "every GPU is sick",
            all_sick,
            "!NoHealthyDevice DriverRunning NativeCdi !NoHealthyDevice !GpuUnhealthy ?NotProven",
        ),
        (
            "no container could start with any of the devices",
            held_back(8),
            "!NoHealthyDevice DriverRunning NativeCdi !NoHealthyDevice AllHealthy ?NotProven",
        ),
        (
            "no container could start with one of the devices",
            held_back(1),
            "Ready DriverRunning NativeCdi Advertised AllHealthy ?NotProven",
        ),
    ]
}

/// The kubelet is told that so many devices are unhealthy, none of them for its GPU's sake.
fn held_back(count: usize) -> Snapshot {
    let mut snapshot = node::registered(&node::worker("h100x8"));
    let devices = snapshot.resources[0].devices.iter().take(count);
    let ids = devices.map(|device| (device.id.clone(), "it is in no specification".to_owned()));
    snapshot.unhealthy = BTreeMap::from([("nvidia.com/gpu".to_owned(), ids.collect())]);
    snapshot
}

#[test]
fn what_the_kubelet_is_told_to_be_unhealthy_is_not_counted_and_the_first_is_named() {
    let snapshot = held_back(3);
    let first = snapshot.resources[0].devices[0].id.clone();
    let judged = status::judge(&snapshot);
    let message = &judged
        .iter()
        .find(|it| it.kind == kind::DEVICES_ADVERTISED)
        .unwrap()
        .message;
    assert_eq!(
        *message,
        format!("nvidia.com/gpu: 5 of 8; {first} and 2 more are held back: it is in no specification")
    );
    assert_eq!(status::status(&snapshot).resources[0].allocatable, 5);
}

#[test]
fn every_state_of_a_node_has_its_reasons() {
    let mut wrong = String::new();
    for (case, snapshot, expected) in cases() {
        let found = told(&snapshot);
        if found != expected {
            let _ = writeln!(wrong, "{case}:\n  expected {expected}\n  found    {found}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The message says why, the hint what to do; both in words of their own.
#[test]
fn every_condition_that_does_not_hold_has_a_message_and_a_hint() {
    for (case, snapshot, _) in cases() {
        let judgements = status::judge(&snapshot);
        let kinds: Vec<&str> = judgements.iter().map(|it| it.kind).collect();
        assert_eq!(kinds, kind::ALL, "{case}");
        for it in judgements {
            assert!(!it.message.is_empty(), "{case}: {it:?}");
            assert!(
                it.reason.starts_with(|first: char| first.is_ascii_uppercase())
                    && it.reason.chars().all(char::is_alphanumeric),
                "{case}: {it:?}"
            );
            let needs_hint = it.status != ConditionStatus::True;
            assert!(
                !needs_hint || it.hint.is_some_and(|hint| !hint.is_empty()),
                "{case}: {}",
                it.kind
            );
        }
    }
}

/// The hints are the advice of `pitcrew check`: of this operating system and distribution.
#[test]
fn what_is_said_of_a_driver_that_is_missing_names_the_next_command() {
    let judgements = status::judge(&node::looked(&node::root("no-driver")));
    let driver = judgements
        .iter()
        .find(|it| it.kind == kind::DRIVER_READY)
        .unwrap();
    insta::assert_snapshot!(format!("{}\n{}", driver.message, driver.hint.as_ref().unwrap()));
}

/// Two of four cards are bound to vfio-pci: the driver knows nothing of them, and nobody may call them lost.
#[test]
fn gpus_for_virtual_machines_are_listed_and_neither_sick_nor_counted() {
    let mut snapshot = node::registered(&node::root("vfio"));
    let inventory = snapshot.gpus.as_ref().unwrap().as_ref().unwrap();
    let mut inventory = Inventory::clone(inventory);
    let kept = ["0000:1d:00.0", "0000:1e:00.0"];
    for gpu in &mut inventory.gpus {
        if kept.contains(&gpu.pci.address.to_string().as_str()) {
            gpu.readings = GpuReadings::all_failed("bound to vfio-pci");
        }
    }
    snapshot.gpus = Some(Ok(inventory.into()));
    assert_eq!(
        told(&snapshot),
        "Ready DriverRunning NativeCdi Advertised AllHealthy ?NotProven"
    );
    let status = status::status(&snapshot);
    assert_eq!((status.gpu_count, status.sick_count), (Some(2), Some(0)));
    let listed: Vec<&str> = status
        .gpus
        .iter()
        .filter(|gpu| gpu.health == GpuHealth::Unknown)
        .map(|gpu| gpu.pci.as_str())
        .collect();
    assert_eq!(listed, kept);
}

#[test]
fn a_node_whose_gpus_are_all_for_virtual_machines_says_so() {
    let mut snapshot = node::looked(&node::root("vfio"));
    let mut host = (*snapshot.host.unwrap()).clone();
    if let Reading::Value(gpus) = &mut host.gpus {
        for gpu in gpus {
            gpu.driver = Reading::Value("vfio-pci".to_owned());
        }
    }
    snapshot.host = Some(host.into());
    let error = GpuError::DriverFailed("no devices were found".to_owned());
    snapshot.gpus = Some(Err(error));
    let judgements = status::judge(&snapshot);
    assert_eq!(judgements[1].reason, "PassedThrough", "{judgements:?}");
    assert_eq!(status::status(&snapshot).gpu_count, Some(0));
}

/// Pain 15 of device plugins: "why is my GPU unhealthy?"
#[test]
fn a_sick_gpu_is_told_with_its_xid_and_what_to_do_while_the_others_stay_ready() {
    let worker = node::worker("h100x8");
    let mut snapshot = node::registered(&worker);
    let sick = node::uuid(&snapshot, 3);
    let before = status_of(&snapshot, None);
    worker
        .1
        .change(&Change::Xid {
            gpu: 3,
            xid: 79,
            gpu_instance: None,
        })
        .unwrap();
    snapshot.gpus = node::looked(&worker).gpus;
    snapshot.sick = BTreeMap::from([(sick.clone(), "XID 79: GPU has fallen off the bus".to_owned())]);
    let now = status_of(&snapshot, Some(&before));
    assert_eq!(now.condition(kind::READY).unwrap().status, ConditionStatus::True);
    let healthy = now.condition(kind::HEALTHY).unwrap();
    assert_eq!(healthy.status, ConditionStatus::False);
    assert!(
        healthy.message.contains("XID 79") && healthy.message.contains(&sick),
        "{healthy:?}"
    );
    assert!(healthy.hint.is_some());
    assert_eq!((now.gpu_count, now.sick_count), (Some(8), Some(1)));
    assert_eq!((now.resources[0].capacity, now.resources[0].allocatable), (8, 7));

    let happened = events::between(Some(&before), &now);
    assert_eq!(happened.len(), 1, "{happened:?}");
    assert!(happened[0].is_warning && happened[0].reason == "GpuUnhealthy");
    assert!(
        happened[0].note.contains("XID 79") && happened[0].note.contains("; next: "),
        "{happened:?}"
    );

    // Pain 1: it comes back.
    let back = events::between(Some(&now), &before);
    assert_eq!(back.len(), 1, "{back:?}");
    assert!(!back[0].is_warning && back[0].reason == "GpuRecovered");
}

#[test]
fn a_gpu_that_a_call_hangs_at_is_unknown_with_the_call_and_told_when_it_is_back() {
    let worker = node::worker("h100x8");
    let mut snapshot = node::registered(&worker);
    let before = status_of(&snapshot, None);
    let hang = Change::Hang {
        call: "nvmlDeviceGetName".to_owned(),
        gpu: Some(3),
    };
    worker.1.change(&hang).unwrap();
    let beside = worker.1.inventory_beside_hangs().unwrap();
    let silent = worker.1.uuids()[3].clone();
    snapshot.gpus = Some(Ok(std::sync::Arc::new(beside)));
    snapshot.sick = BTreeMap::from([(silent, "the GPU does not answer".to_owned())]);
    let now = status_of(&snapshot, Some(&before));
    let driver = now.condition(kind::DRIVER_READY).unwrap();
    assert_eq!(driver.status, ConditionStatus::True, "the others work");
    let healthy = now.condition(kind::HEALTHY).unwrap();
    assert_eq!(healthy.status, ConditionStatus::Unknown);
    assert!(
        healthy.message.contains("`nvmlDeviceGetName` did not return"),
        "{healthy:?}"
    );
    assert_eq!((now.gpu_count, now.sick_count), (Some(8), Some(0)));
    assert_eq!(now.gpus[3].health, pitcrew_api::gpu_node::GpuHealth::Unknown);
    assert_eq!((now.resources[0].capacity, now.resources[0].allocatable), (8, 7));

    let happened = events::between(Some(&before), &now);
    assert_eq!(happened.len(), 1, "{happened:?}");
    assert!(happened[0].is_warning && happened[0].reason == "GpuSilent");
    assert!(
        happened[0].note.contains("`nvmlDeviceGetName` did not return") && happened[0].note.contains("dmesg"),
        "{happened:?}"
    );
    assert_eq!(events::between(Some(&now), &now), []);
    let back = events::between(Some(&now), &before);
    assert_eq!(back.len(), 1, "{back:?}");
    assert!(!back[0].is_warning && back[0].reason == "GpuRecovered");
}

/// Pain 14: a health check that is switched off is no reason to say that all is well.
#[test]
fn a_fault_that_nobody_takes_the_gpu_away_for_is_told_all_the_same() {
    let worker = node::worker("h100x8");
    let mut snapshot = node::registered(&worker);
    worker
        .1
        .change(&Change::Xid {
            gpu: 0,
            xid: 79,
            gpu_instance: None,
        })
        .unwrap();
    snapshot.gpus = node::looked(&worker).gpus;
    let inventory = snapshot.gpus.as_ref().unwrap().as_ref().unwrap();
    if inventory.gpus[0].readings.uuid.value().is_none() {
        // A GPU that fell off the bus has no UUID to be called by: it is told as sick.
        assert_eq!(status::status(&snapshot).gpus[0].health, GpuHealth::Unhealthy);
    } else {
        assert_eq!(status::status(&snapshot).gpus[0].health, GpuHealth::Degraded);
    }
    assert!(told(&snapshot).contains("Gpu"), "{}", told(&snapshot));
}

#[test]
fn the_status_of_a_node_tells_what_there_is() {
    let mut snapshot = node::registered(&node::worker("h100x8"));
    snapshot.held = Some(BTreeMap::from([(
        node::uuid(&snapshot, 1),
        BTreeSet::from(["default/a".to_owned(), "default/b".to_owned()]),
    )]));
    let status = status::status(&snapshot);
    let pods: Vec<Option<i32>> = status.gpus.iter().map(|gpu| gpu.pods).collect();
    assert_eq!(pods[..3], [Some(0), Some(2), Some(0)]);
    let text = serde_json::to_string_pretty(&GpuNodeStatus {
        gpus: status.gpus[..2].to_vec(),
        ..status
    });
    insta::assert_snapshot!(text.unwrap());
}

#[test]
fn who_holds_a_gpu_is_left_out_where_the_kubelet_does_not_say() {
    let snapshot = node::registered(&node::worker("rtx3060"));
    assert_eq!(status::status(&snapshot).gpus[0].pods, None);
}

#[test]
fn without_a_driver_the_cards_are_named_by_what_the_bus_says() {
    let status = status::status(&node::looked(&node::root("no-driver")));
    assert!(!status.gpus.is_empty());
    assert!(
        status
            .gpus
            .iter()
            .all(|gpu| gpu.health == GpuHealth::Unknown && gpu.uuid.is_none())
    );
    assert!(status.product.is_some() && status.gpu_count.is_some());
    assert_eq!(status.sick_count, None, "unknown is not zero");
}

#[test]
fn several_models_are_counted_and_a_mig_card_lists_its_profiles() {
    let mixed = status::status(&node::registered(&node::worker("mixed")));
    insta::assert_debug_snapshot!((
        mixed.product,
        mixed
            .gpus
            .iter()
            .filter_map(|gpu| gpu.mig.clone())
            .collect::<Vec<_>>()
    ));
}

/// A node that has lost its UUIDs, sees a card fall off the bus, or whose readings fail is still told of.
#[test]
fn a_broken_node_is_told_gpu_by_gpu() {
    let snapshot = node::registered(&node::worker("broken"));
    let status = status::status(&snapshot);
    let told: Vec<String> = status
        .gpus
        .iter()
        .map(|gpu| format!("{} {:?} {:?}", gpu.index, gpu.health, gpu.reason))
        .collect();
    insta::assert_debug_snapshot!((told, self::told(&snapshot)));
}

fn status_of(snapshot: &Snapshot, before: Option<&GpuNodeStatus>) -> GpuNodeStatus {
    at(snapshot, before, 0)
}

fn at(snapshot: &Snapshot, before: Option<&GpuNodeStatus>, second: i64) -> GpuNodeStatus {
    let now = Time(Timestamp::from_second(second).unwrap());
    let before = before.map_or(&[][..], |before| &before.conditions);
    GpuNodeStatus {
        conditions: status::conditions(status::judge(snapshot), before, &now, None),
        ..status::status(snapshot)
    }
}

#[test]
fn a_time_is_kept_as_long_as_the_status_is_the_same_whatever_the_reason() {
    let ready = node::registered(&node::worker("rtx3060"));
    let pending = node::with_problem(ready.clone(), Part::Runtime, "HandlerPending");
    let broken = node::with_problem(ready.clone(), Part::Runtime, "ReadOnly");
    let since = |status: &GpuNodeStatus| {
        status
            .condition(kind::RUNTIME_READY)
            .unwrap()
            .last_transition_time
            .0
    };
    let first = at(&ready, None, 10);
    let second = at(&pending, Some(&first), 20);
    assert_eq!(since(&second).as_second(), 10);
    let third = at(&broken, Some(&second), 30);
    assert_eq!(since(&third).as_second(), 30);
}

#[test]
fn a_start_and_a_registration_that_pass_are_no_events() {
    let ready = node::registered(&node::worker("rtx3060"));
    let registering = Snapshot {
        registered: BTreeSet::new(),
        ..ready.clone()
    };
    let ready = status_of(&ready, None);
    let registering = status_of(&registering, Some(&ready));
    assert_eq!(events::between(Some(&ready), &registering), []);
    let starting = status_of(&node::nothing_known(), Some(&ready));
    assert_eq!(events::between(Some(&ready), &starting), []);
    let first = events::between(None, &ready);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].reason, "GpusReady");
    assert_eq!(events::between(Some(&ready), &ready), []);
}

#[test]
fn a_driver_that_vanishes_is_one_event_with_the_next_command() {
    let ready = status_of(&node::registered(&node::worker("rtx3060")), None);
    let gone = status_of(&node::looked(&node::root("no-driver")), Some(&ready));
    let happened = events::between(Some(&ready), &gone);
    let reasons: Vec<&str> = happened.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(reasons, ["DriverNotInstalled", "DriverNotReady"]);
    assert!(
        happened
            .iter()
            .all(|it| it.is_warning && it.note.contains("; next: "))
    );
}

proptest! {
    /// `events.k8s.io/v1` refuses a note that is longer.
    #[test]
    fn no_note_is_longer_than_an_api_server_takes(message in "\\PC{0,3000}", hint in "\\PC{0,3000}") {
        static READY: LazyLock<Snapshot> = LazyLock::new(|| node::registered(&node::worker("rtx3060")));
        let mut snapshot = READY.clone();
        snapshot.problems.insert(Part::Plugin, pitcrew_agent::snapshot::Problem {
            reason: "Long".to_owned(),
            message,
            hint: hint.clone(),
        });
        let happened = events::between(None, &status_of(&snapshot, None));
        prop_assert_eq!(happened.len(), 1);
        prop_assert!(happened[0].note.len() <= 1024);
        // What to do is not what is cut, as long as it fits.
        if hint.len() < 900 {
            prop_assert!(happened[0].note.ends_with(&hint));
        }
    }
}
