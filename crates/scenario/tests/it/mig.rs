//! MIG as a state machine.

use std::collections::BTreeSet;
use std::path::Path;

use pitcrew_core::Reading;
use pitcrew_core::gpu::MigMode;
use pitcrew_core::mig::{Placement, Profile};
use pitcrew_core::ports::{GpuError, HostFs, Mig};
use pitcrew_scenario::{Change, Machine};
use proptest::prelude::*;

use crate::{look, machine};

fn profile(name: &str) -> Profile {
    name.parse().unwrap()
}

fn mode(machine: &Machine, gpu: usize) -> (bool, bool) {
    let MigMode { current, pending } = *look(machine).gpus[gpu].readings.mig_mode.value().unwrap();
    (current, pending)
}

fn exists(machine: &Machine, path: &str) -> bool {
    machine.kind(Path::new(path)).is_ok()
}

#[test]
fn ampere_changes_its_mode_at_a_reset_and_hopper_at_once() {
    let mut ampere = machine("a30");
    let uuid = ampere.uuids()[0].clone();
    ampere.set_mode(&uuid, true).unwrap();
    assert_eq!(mode(&ampere, 0), (false, true));
    assert!(matches!(
        ampere.create(&uuid, &profile("1g.6gb"), None),
        Err(GpuError::Refused { .. })
    ));
    ampere.reset(&uuid).unwrap();
    assert_eq!(mode(&ampere, 0), (true, true));

    let mut hopper = machine("h200");
    let uuid = hopper.uuids()[0].clone();
    hopper.set_mode(&uuid, true).unwrap();
    assert_eq!(mode(&hopper, 0), (true, true));
    assert_eq!(
        look(&hopper).gpus[0].readings.utilization_gpu_percent,
        Reading::NotSupported
    );
}

#[test]
fn a_card_without_mig_says_so() {
    let mut machine = machine("rtx3060");
    let uuid = machine.uuids()[0].clone();
    assert!(matches!(
        machine.set_mode(&uuid, true),
        Err(GpuError::NotSupported { .. })
    ));
    assert!(matches!(
        machine.profiles(&uuid),
        Err(GpuError::NotSupported { .. })
    ));
    assert!(!exists(&machine, "/dev/nvidia-caps"));
}

#[test]
fn an_instance_brings_its_nodes_and_takes_them_away() {
    let mut machine = machine("h100x8");
    let uuid = machine.uuids()[1].clone();
    machine.set_mode(&uuid, true).unwrap();
    let access = "/proc/driver/nvidia/capabilities/gpu1/mig/gi0/access";
    assert!(!exists(&machine, access));
    let first = machine.create(&uuid, &profile("3g.40gb"), None).unwrap();
    assert_eq!(
        (first.gpu_instance, first.placement),
        (0, Placement { start: 0, size: 4 })
    );
    let text = String::from_utf8(machine.read(Path::new(access)).unwrap()).unwrap();
    assert_eq!(
        text,
        "DeviceFileMinor: 138\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
    );
    assert!(exists(&machine, "/dev/nvidia-caps/nvidia-cap138"));
    assert!(
        exists(&machine, "/dev/nvidia-caps/nvidia-cap139"),
        "the compute instance has its own node"
    );
    machine.destroy(&uuid, 0).unwrap();
    assert!(!exists(&machine, access) && !exists(&machine, "/dev/nvidia-caps/nvidia-cap138"));
    let again = machine.create(&uuid, &profile("3g.40gb"), None).unwrap();
    assert_ne!(first.uuid, again.uuid, "a new instance has a new UUID");
}

#[test]
fn what_collides_is_refused_and_what_is_held_stays() {
    let mut machine = machine("h100x8");
    let uuid = machine.uuids()[0].clone();
    machine.set_mode(&uuid, true).unwrap();
    machine
        .create(&uuid, &profile("3g.40gb"), Some(Placement { start: 4, size: 4 }))
        .unwrap();
    for (name, start, size) in [
        ("7g.80gb", 0, 8),
        ("1g.10gb", 5, 1),
        ("3g.40gb", 4, 4),
        ("2g.20gb", 1, 2),
    ] {
        let result = machine.create(&uuid, &profile(name), Some(Placement { start, size }));
        assert!(
            matches!(result, Err(GpuError::Refused { .. })),
            "{name}@{start}: {result:?}"
        );
    }
    machine.create(&uuid, &profile("4g.40gb"), None).unwrap();
    assert!(matches!(
        machine.create(&uuid, &profile("1g.10gb"), None),
        Err(GpuError::Refused { .. })
    ));
    assert!(matches!(
        machine.set_mode(&uuid, false),
        Err(GpuError::InUse { .. })
    ));

    let start = Change::StartProcess {
        gpu: 0,
        pid: 7,
        memory_bytes: None,
        gpu_instance: Some(0),
        compute_instance: None,
    };
    machine.change(&start).unwrap();
    assert!(matches!(machine.destroy(&uuid, 0), Err(GpuError::InUse { .. })));
    machine.destroy(&uuid, 1).unwrap();
    machine.change(&Change::EndProcess { gpu: 0, pid: 7 }).unwrap();
    machine.destroy(&uuid, 0).unwrap();
    assert!(matches!(machine.destroy(&uuid, 0), Err(GpuError::Refused { .. })));
    machine.set_mode(&uuid, false).unwrap();
    assert_eq!(mode(&machine, 0), (false, false));
}

#[test]
fn a_process_runs_in_an_instance_or_not_at_all() {
    let machine = machine("a100x8");
    let start = |gpu_instance| Change::StartProcess {
        gpu: 0,
        pid: 9,
        memory_bytes: None,
        gpu_instance,
        compute_instance: None,
    };
    assert!(machine.change(&start(None)).is_err());
    assert!(machine.change(&start(Some(14))).is_err());
    machine.change(&start(Some(2))).unwrap();
}

#[test]
fn an_instance_uses_what_its_processes_hold_whichever_compute_instance_they_run_in() {
    let machine = machine("h100x8");
    let create = |slices| Change::CreateComputeInstance {
        gpu: 0,
        gpu_instance: 0,
        slices,
        start: None,
    };
    for change in [
        Change::MigMode {
            gpu: 0,
            enabled: true,
        },
        Change::CreateGpuInstance {
            gpu: 0,
            profile: "2g.20gb".to_owned(),
            start: None,
        },
        create(1),
        create(1),
    ] {
        machine.change(&change).unwrap();
    }
    let start = |pid, compute_instance| Change::StartProcess {
        gpu: 0,
        pid,
        memory_bytes: Some(1 << 20),
        gpu_instance: Some(0),
        compute_instance,
    };
    machine.change(&start(1, None)).unwrap();
    machine.change(&start(1, Some(1))).unwrap();
    assert!(
        machine.change(&start(1, Some(0))).is_err(),
        "it holds that already"
    );
    let absent = machine.change(&start(2, Some(7))).unwrap_err();
    insta::assert_snapshot!(absent, @"GPU 0: there is no compute instance 7 for process 2");

    let readings = look(&machine).gpus[0].readings.clone();
    let devices = readings.mig_devices.value().unwrap();
    let used: Vec<_> = devices
        .iter()
        .map(|device| device.memory_used_bytes.clone())
        .collect();
    assert_eq!(used, [Reading::Value(2 << 20), Reading::Value(2 << 20)]);
    let processes = readings.processes.value().unwrap();
    let places: Vec<_> = processes.iter().map(|process| process.compute_instance).collect();
    assert_eq!(places, [Some(0), Some(1)]);
}

#[test]
fn a_compute_instance_goes_alone_and_what_runs_beside_it_goes_on() {
    let mut machine = machine("h100x8");
    let uuid = machine.uuids()[0].clone();
    assert!(machine.gpu_instances(&uuid).unwrap().is_empty());
    machine.set_mode(&uuid, true).unwrap();
    let whole = machine
        .create_gpu_instance(&uuid, &profile("3g.40gb"), None)
        .unwrap();
    assert_eq!(
        machine.gpu_instances(&uuid).unwrap(),
        std::slice::from_ref(&whole)
    );
    for (wrong, names) in [
        ("1c.2g.20gb", "1c.3g.40gb, 2c.3g.40gb, 3g.40gb"),
        ("7g.80gb", "1c.3g.40gb, 2c.3g.40gb, 3g.40gb"),
    ] {
        let refused = machine.create_compute_instance(&uuid, whole.id, &profile(wrong));
        let reason = refused.unwrap_err().to_string();
        assert!(
            reason.contains(&format!("has no part `{wrong}`; it has {names}")),
            "{reason}"
        );
    }
    let refused = machine
        .create_gpu_instance(&uuid, &profile("1c.3g.40gb"), None)
        .unwrap_err();
    assert!(
        refused.to_string().contains("no profile `1c.3g.40gb`"),
        "{refused}"
    );

    let part = profile("1c.3g.40gb");
    for id in 0..3 {
        let device = machine.create_compute_instance(&uuid, whole.id, &part).unwrap();
        assert_eq!((device.compute_instance, &device.profile), (id, &part));
        assert_eq!(device.multiprocessors, Reading::Value(20), "a third of 60");
    }
    let held = Change::StartProcess {
        gpu: 0,
        pid: 7,
        memory_bytes: None,
        gpu_instance: Some(whole.id),
        compute_instance: Some(1),
    };
    machine.change(&held).unwrap();
    assert!(matches!(
        machine.destroy_compute_instance(&uuid, whole.id, 1),
        Err(GpuError::InUse { .. })
    ));
    machine.destroy_compute_instance(&uuid, whole.id, 0).unwrap();
    assert!(matches!(
        machine.destroy(&uuid, whole.id),
        Err(GpuError::InUse { .. })
    ));
    assert_eq!(
        devices(&machine),
        ["0.1 1c.3g.40gb", "0.2 1c.3g.40gb"],
        "all are left as they are"
    );
    machine.change(&Change::EndProcess { gpu: 0, pid: 7 }).unwrap();
    machine.destroy(&uuid, whole.id).unwrap();
    assert!(machine.gpu_instances(&uuid).unwrap().is_empty() && devices(&machine).is_empty());
}

#[test]
fn a_device_of_a_part_is_made_in_one_step_or_not_at_all() {
    let mut machine = machine("h200");
    let uuid = machine.uuids()[0].clone();
    machine.set_mode(&uuid, true).unwrap();
    let device = machine.create(&uuid, &profile("2c.4g.71gb"), None).unwrap();
    assert_eq!(device.profile, profile("2c.4g.71gb"));
    machine.destroy(&uuid, device.gpu_instance).unwrap();
    // Four slices have no part of three.
    assert!(machine.create(&uuid, &profile("3c.4g.71gb"), None).is_err());
    assert!(machine.gpu_instances(&uuid).unwrap().is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Mode(bool),
    Create(usize, Option<usize>),
    Destroy(u32),
    Empty(usize),
    Part(u32, usize),
    Unpart(u32, u32),
    Reset,
    Hold(u32),
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Mode),
        6 => (0..8_usize, proptest::option::of(0..8_usize)).prop_map(|(profile, at)| Step::Create(profile, at)),
        3 => (0..8_u32).prop_map(Step::Destroy),
        3 => (0..8_usize).prop_map(Step::Empty),
        8 => (0..3_u32, 0..5_usize).prop_map(|(instance, part)| Step::Part(instance, part)),
        3 => (0..3_u32, 0..7_u32).prop_map(|(instance, compute)| Step::Unpart(instance, compute)),
        1 => Just(Step::Reset),
        1 => (0..8_u32).prop_map(Step::Hold),
        1 => Just(Step::Release),
    ]
}

fn take(machine: &mut Machine, uuid: &str, step: &Step) -> Result<Option<String>, GpuError> {
    match *step {
        Step::Mode(on) => machine.set_mode(uuid, on)?,
        Step::Create(profile, at) => {
            let profiles = machine.profiles(uuid)?;
            let known = &profiles[profile % profiles.len()];
            let placement = at.map(|at| known.placements[at % known.placements.len()]);
            return Ok(Some(machine.create(uuid, &known.profile, placement)?.uuid));
        }
        Step::Destroy(instance) => machine.destroy(uuid, instance)?,
        Step::Empty(profile) => {
            let profiles = machine.profiles(uuid)?;
            machine.create_gpu_instance(uuid, &profiles[profile % profiles.len()].profile, None)?;
        }
        Step::Part(instance, part) => {
            let instances = machine.gpu_instances(uuid)?;
            let Some(found) = instances.iter().find(|found| found.id == instance) else {
                return Ok(None);
            };
            let parts: Vec<_> = found.profile.parts().collect();
            let device = machine.create_compute_instance(uuid, instance, &parts[part % parts.len()])?;
            return Ok(Some(device.uuid));
        }
        Step::Unpart(instance, compute) => machine.destroy_compute_instance(uuid, instance, compute)?,
        Step::Reset => machine.reset(uuid)?,
        Step::Hold(instance) => {
            let gpu_instance = Some(instance);
            // Refused where there is no such instance, which is as good a step as any.
            let _ = machine.change(&Change::StartProcess {
                gpu: 0,
                pid: 1,
                memory_bytes: None,
                gpu_instance,
                compute_instance: None,
            });
        }
        Step::Release => {
            let _ = machine.change(&Change::EndProcess { gpu: 0, pid: 1 });
        }
    }
    Ok(None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_done_the_layout_stays_possible_and_the_files_follow(
        hopper in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        let mut machine = machine(if hopper { "h200" } else { "a30" });
        let uuid = machine.uuids()[0].clone();
        let mut seen = BTreeSet::new();
        for step in &steps {
            if let Ok(Some(created)) = take(&mut machine, &uuid, step) {
                prop_assert!(seen.insert(created), "a UUID came twice");
            }
            let readings = look(&machine).gpus[0].readings.clone();
            let devices = readings.mig_devices.value().unwrap();
            let instances = machine.gpu(0).unwrap().instances;
            prop_assert!(instances.is_empty() || mode(&machine, 0).0, "instances with MIG off");
            let mut slices = BTreeSet::new();
            let mut files = BTreeSet::from(["config".to_owned(), "monitor".to_owned()]);
            let mut parts = Vec::new();
            for instance in &instances {
                let Placement { start, size } = instance.placement;
                for slice in start..start + size {
                    prop_assert!(slices.insert(slice), "two instances share a slice: {instances:?}");
                }
                let mut taken = BTreeSet::new();
                for compute in &instance.compute {
                    for slice in compute.start..compute.start + compute.slices {
                        prop_assert!(slice < instance.profile.gpu_slices, "past the end: {instance:?}");
                        prop_assert!(taken.insert(slice), "two parts share a slice: {instance:?}");
                    }
                    parts.push((instance.id, compute.id, compute.uuid.clone()));
                }
                files.insert(format!("gi{}", instance.id));
            }
            let listed: Vec<_> = devices
                .iter()
                .map(|device| (device.gpu_instance, device.compute_instance, device.uuid.clone()))
                .collect();
            prop_assert_eq!(&listed, &parts, "each part is a device");
            let list = |path: &str| machine.list(Path::new(path)).unwrap_or_default();
            let mut found: BTreeSet<_> = list("/proc/driver/nvidia/capabilities/mig").into_iter().collect();
            found.extend(list("/proc/driver/nvidia/capabilities/gpu0/mig"));
            prop_assert_eq!(&found, &files);
            // config, monitor, and one for each instance of either kind.
            prop_assert_eq!(list("/dev/nvidia-caps").len(), 2 + instances.len() + devices.len());
        }
    }
}

/// A change as whoever steers writes it.
fn make(machine: &Machine, json: &str) -> Result<(), String> {
    let change: Change = serde_json::from_str(json).unwrap();
    assert_eq!(
        serde_json::from_str::<Change>(&serde_json::to_string(&change).unwrap()).unwrap(),
        change
    );
    machine.change(&change).map_err(|error| error.to_string())
}

fn devices(machine: &Machine) -> Vec<String> {
    let devices = look(machine).gpus[0]
        .readings
        .mig_devices
        .value()
        .unwrap()
        .clone();
    let named = devices.iter().map(|device| {
        format!(
            "{}.{} {}",
            device.gpu_instance, device.compute_instance, device.profile
        )
    });
    named.collect()
}

#[test]
fn a_gpu_is_cut_step_by_step_as_the_driver_does_it() {
    let machine = machine("h100x8");
    let create = r#"{"create-gpu-instance": {"gpu": 0, "profile": "3g.40gb", "start": 4}}"#;
    assert!(make(&machine, create).unwrap_err().contains("MIG is off"));
    make(&machine, r#"{"mig-mode": {"gpu": 0, "enabled": true}}"#).unwrap();
    make(&machine, create).unwrap();
    assert!(devices(&machine).is_empty(), "a GPU instance alone is no device");
    assert!(exists(
        &machine,
        "/proc/driver/nvidia/capabilities/gpu0/mig/gi0/access"
    ));

    let compute = |slices: u8| {
        let json =
            format!(r#"{{"create-compute-instance": {{"gpu": 0, "gpu_instance": 0, "slices": {slices}}}}}"#);
        make(&machine, &json)
    };
    assert!(compute(0).is_err(), "nothing is no instance");
    compute(1).unwrap();
    let refused = compute(3).unwrap_err();
    assert!(
        refused.contains("GPU instance 0 has no room for 3 compute slices"),
        "{refused}"
    );
    compute(1).unwrap();
    compute(1).unwrap();
    assert_eq!(
        devices(&machine),
        ["0.0 1c.3g.40gb", "0.1 1c.3g.40gb", "0.2 1c.3g.40gb"]
    );
    assert!(exists(
        &machine,
        "/proc/driver/nvidia/capabilities/gpu0/mig/gi0/ci2/access"
    ));
    let first = machine.gpu(0).unwrap().instances[0].compute.clone();

    let destroy = r#"{"destroy-gpu-instance": {"gpu": 0, "gpu_instance": 0}}"#;
    assert!(
        make(&machine, destroy)
            .unwrap_err()
            .contains("3 compute instances exist")
    );
    let less = |id: u32| {
        let json = format!(
            r#"{{"destroy-compute-instance": {{"gpu": 0, "gpu_instance": 0, "compute_instance": {id}}}}}"#
        );
        make(&machine, &json)
    };
    less(1).unwrap();
    assert!(less(1).unwrap_err().contains("has no compute instance 1"));
    compute(1).unwrap();
    let second = machine.gpu(0).unwrap().instances[0].compute.clone();
    assert_eq!((second[1].id, second[1].start), (1, 1), "the lowest that is free");
    assert_ne!(second[1].uuid, first[1].uuid, "a UUID is never used again");
    for id in [0, 1, 2] {
        less(id).unwrap();
    }
    make(&machine, destroy).unwrap();
    assert!(machine.gpu(0).unwrap().instances.is_empty());
    make(&machine, r#"{"mig-mode": {"gpu": 0, "enabled": false}}"#).unwrap();
}

#[test]
fn a_lost_gpu_can_not_be_cut_and_a_reset_clears_it() {
    let machine = machine("a30");
    make(&machine, r#"{"mig-mode": {"gpu": 0, "enabled": true}}"#).unwrap();
    assert_eq!(mode(&machine, 0), (false, true));
    make(&machine, r#"{"reset": {"gpu": 0}}"#).unwrap();
    assert_eq!(mode(&machine, 0), (true, true));
    make(
        &machine,
        r#"{"create-gpu-instance": {"gpu": 0, "profile": "2g.12gb"}}"#,
    )
    .unwrap();
    make(&machine, r#"{"reset": {"gpu": 0}}"#).unwrap();
    assert!(machine.gpu(0).unwrap().instances.is_empty());
    make(&machine, r#"{"fall-off-bus": {"gpu": 0}}"#).unwrap();
    let lost = make(
        &machine,
        r#"{"create-gpu-instance": {"gpu": 0, "profile": "2g.12gb"}}"#,
    )
    .unwrap_err();
    assert!(lost.contains("is lost"), "{lost}");
    let facts = machine.gpu(0).unwrap();
    assert!(facts.lost && facts.readings.present().is_empty() && facts.uuid.starts_with("GPU-"));
}

#[test]
fn numbers_are_given_by_nvmls_names() {
    let machine = machine("h100x8");
    assert_eq!(machine.number(0, "NVML_FI_DEV_MEMORY_TEMP"), Reading::Value(53));
    assert_eq!(machine.number(0, "NVML_CLOCK_VIDEO"), Reading::Value(1545));
    assert_eq!(
        machine.number(0, "NVML_TEMPERATURE_THRESHOLD_SHUTDOWN"),
        Reading::NotSupported
    );
    assert_eq!(
        machine.number(8, "NVML_CLOCK_VIDEO"),
        Reading::NotSupported,
        "there is no ninth"
    );
    assert_eq!(machine.metric(0, 11), Reading::Value(0.0));
    assert!(machine.gpu(0).unwrap().switched && machine.gpu(0).unwrap().profiled);
    assert!(machine.gpu(8).is_none());
}
