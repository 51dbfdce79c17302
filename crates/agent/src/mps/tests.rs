//! The daemons on an imaginary host. How the imaginary daemon answers was seen of driver 550's.

mod host;
mod outliving;
mod planted;
mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pitcrew_core::plugin::{Device, Resource, Sharing};
use pitcrew_core::ports::InventorySource as _;
use pitcrew_core::{Inventory, Reading};
use pitcrew_scenario::{Machine, Scenario};
use proptest::prelude::*;

use super::dialogue::{self, Mode};
use super::next::next;
use super::{Daemon, Part, Place, container, plan};

pub(super) const GPU: &str = "nvidia.com/gpu";

pub(super) fn inventory(scenario: &str) -> Inventory {
    Machine::new(Scenario::builtin(scenario).unwrap())
        .inventory()
        .unwrap()
}

fn uuid(gpus: &Inventory, index: usize) -> String {
    gpus.gpus[index].readings.uuid.value().unwrap().clone()
}

/// A resource of all GPUs, each with as many replicas as `replicas` says.
pub(super) fn shared(gpus: &Inventory, replicas: impl Fn(usize) -> usize) -> Resource {
    let devices = (0..gpus.gpus.len()).flat_map(|index| {
        let uuid = uuid(gpus, index);
        let of = replicas(index);
        (0..of).map(move |number| Device {
            id: format!("{uuid}::{number}-of-{of}"),
            uuid: uuid.clone(),
            gpu: uuid.clone(),
            gpu_index: u32::try_from(index).unwrap(),
            numa: None,
        })
    });
    Resource {
        name: GPU.to_owned(),
        sharing: Sharing::Mps,
        one_per_container: true,
        devices: devices.collect(),
    }
}

fn planned(scenario: &str, replicas: usize) -> Result<Daemon, String> {
    let gpus = inventory(scenario);
    let plans = plan(&[shared(&gpus, |_| replicas)], &gpus);
    plans[GPU]
        .clone()
        .map_err(|problem| format!("{}: {}; {}", problem.reason, problem.message, problem.hint))
}

#[test]
fn a_client_gets_its_part_of_memory_and_threads() {
    let daemon = planned("rtx3060", 4).unwrap();
    assert_eq!(daemon.active_thread_percentage, 25);
    let gpus = inventory("rtx3060");
    let bytes = *gpus.gpus[0].readings.memory_total_bytes.value().unwrap();
    assert_eq!(daemon.gpus[0].memory_limit_mib, Some(bytes / 4 / 1024 / 1024));
    assert_eq!(planned("h100x8", 3).unwrap().active_thread_percentage, 33);
    assert_eq!(planned("h100x8", 3).unwrap().gpus.len(), 8);
}

#[test]
fn a_gpu_has_48_clients_from_compute_capability_7_5_on_and_16_before() {
    // T4: 7.5. V100: 7.0, which the reference counts among the old ones.
    assert!(planned("t4", 48).is_ok());
    assert!(planned("v100x4", 16).is_ok());
    for (scenario, replicas, most) in [("t4", 49, 48), ("v100x4", 17, 16)] {
        let problem = planned(scenario, replicas).unwrap_err();
        assert!(problem.starts_with("TooManyReplicas: GPU-"), "{problem}");
        assert!(
            problem.ends_with(&format!(
                "can have {most} clients of MPS, and {replicas} replicas of it are asked for; \
                 set `replicas` to {most} or fewer"
            )),
            "{problem}"
        );
    }
}

#[test]
fn a_gpu_whose_capability_nobody_knows_is_taken_for_an_old_one() {
    let mut gpus = inventory("t4");
    for gpu in &mut gpus.gpus {
        gpu.readings.compute_capability = Reading::NotSupported;
        gpu.readings.name = Reading::NotSupported;
        gpu.pci.device_id = 0;
    }
    let plans = plan(&[shared(&gpus, |_| 17)], &gpus);
    assert_eq!(plans[GPU].as_ref().unwrap_err().reason, "TooManyReplicas");
}

#[test]
fn where_gpus_are_divided_differently_nobody_gets_less_than_its_own_part() {
    let gpus = inventory("h100x8");
    let daemon = plan(&[shared(&gpus, |index| if index == 0 { 2 } else { 10 })], &gpus)[GPU]
        .clone()
        .unwrap();
    assert_eq!(daemon.active_thread_percentage, 50);
    let limits: Vec<_> = daemon
        .gpus
        .iter()
        .map(|part| part.memory_limit_mib.unwrap())
        .collect();
    assert!(
        limits[0] / limits[1] == 5 || limits[0] / limits[1] == 4,
        "{limits:?}"
    );
}

#[test]
fn memory_that_nobody_knows_is_no_limit_and_not_a_limit_of_zero() {
    let mut gpus = inventory("rtx3060");
    gpus.gpus[0].readings.memory_total_bytes = Reading::Failed("lost".to_owned());
    let daemon = plan(&[shared(&gpus, |_| 2)], &gpus)[GPU].clone().unwrap();
    assert_eq!(daemon.gpus[0].memory_limit_mib, None);
}

#[test]
fn mig_devices_are_not_shared_through_mps() {
    let gpus = inventory("rtx3060");
    let mut resource = shared(&gpus, |_| 2);
    for device in &mut resource.devices {
        device.uuid = "MIG-1".to_owned();
    }
    assert_eq!(
        plan(&[resource], &gpus)[GPU].as_ref().unwrap_err().reason,
        "MpsOnMig"
    );

    let gpus = inventory("h100x8");
    let mut in_mig_mode = gpus.clone();
    in_mig_mode.gpus[3].readings.mig_mode = Reading::Value(pitcrew_core::gpu::MigMode {
        current: true,
        pending: true,
    });
    let problem = plan(&[shared(&gpus, |_| 2)], &in_mig_mode)[GPU]
        .clone()
        .unwrap_err();
    assert!(
        problem
            .hint
            .contains(&format!("nvidia-smi -i {} -mig 0", uuid(&gpus, 3))),
        "{problem:?}"
    );
}

#[test]
fn a_gpu_that_the_driver_lost_is_left_out_and_the_others_are_served() {
    let gpus = inventory("h100x8");
    let resource = shared(&gpus, |_| 2);
    let mut fewer = gpus.clone();
    fewer.gpus.remove(2);
    let daemon = plan(std::slice::from_ref(&resource), &fewer)[GPU]
        .clone()
        .unwrap();
    assert_eq!(daemon.gpus.len(), 7);
    fewer.gpus.clear();
    assert_eq!(
        plan(&[resource], &fewer)[GPU].as_ref().unwrap_err().reason,
        "NoGpus"
    );
}

#[test]
fn what_is_shared_otherwise_has_no_daemon() {
    let gpus = inventory("rtx3060");
    let mut resource = shared(&gpus, |_| 2);
    resource.sharing = Sharing::TimeSlicing;
    assert!(plan(&[resource], &gpus).is_empty());
}

#[test]
fn a_container_finds_its_daemon_and_its_shared_memory_where_the_reference_puts_them() {
    let shared = container(&Place::default(), "nvidia.com/gpu.shared");
    let env: Vec<_> = shared.env.into_iter().collect();
    let expected = (
        "CUDA_MPS_PIPE_DIRECTORY".to_owned(),
        "/mps/nvidia.com/gpu.shared/pipe".to_owned(),
    );
    assert_eq!(env, [expected]);
    let mounts: Vec<_> = shared
        .mounts
        .iter()
        .map(|mount| (mount.host.as_str(), mount.container.as_str(), mount.read_only))
        .collect();
    let expected = [
        (
            "/run/nvidia/mps/nvidia.com/gpu.shared/pipe",
            "/mps/nvidia.com/gpu.shared/pipe",
            false,
        ),
        ("/dev/shm/nvidia-mps", "/dev/shm", false),
    ];
    assert_eq!(mounts, expected);
}

#[test]
fn a_daemon_whose_gpus_are_held_stays_until_they_are_free() {
    let daemon = |percentage| Daemon {
        resource: GPU.to_owned(),
        gpus: vec![Part {
            uuid: "GPU-1".to_owned(),
            replicas: 2,
            memory_limit_mib: None,
        }],
        active_thread_percentage: percentage,
    };
    let (old, new) = (daemon(50), daemon(25));
    let (nobody, somebody) = (BTreeSet::new(), BTreeSet::from(["GPU-1".to_owned()]));
    let other = BTreeSet::from(["GPU-2".to_owned()]);
    let go = |current, wanted, held| {
        let next = next(current, wanted, held);
        (next.daemon, next.waits)
    };
    assert_eq!(go(None, Some(&new), &somebody), (Some(new.clone()), false));
    assert_eq!(go(Some(&old), Some(&new), &nobody), (Some(new.clone()), false));
    assert_eq!(go(Some(&old), Some(&new), &other), (Some(new.clone()), false));
    assert_eq!(go(Some(&old), Some(&new), &somebody), (Some(old.clone()), true));
    assert_eq!(go(Some(&old), None, &somebody), (Some(old.clone()), true));
    assert_eq!(go(Some(&old), None, &nobody), (None, false));
    assert_eq!(go(Some(&old), Some(&old), &somebody), (Some(old.clone()), false));
}

#[test]
fn answers_of_the_daemon_are_read_as_it_writes_them() {
    assert!(dialogue::is_percentage("25.0\n", 25));
    assert!(!dialogue::is_percentage(
        "Invalid percentage, expected between (0.0, 100.0]\n100.0\n",
        25
    ));
    assert!(!dialogue::is_percentage("", 25));
    assert!(dialogue::is_memory("2G\n", 2048));
    // Half of an H100, and a sixteenth of a T4.
    assert!(dialogue::is_memory("39G\n", 40_779));
    assert!(dialogue::is_memory("960M\n", 960));
    assert!(!dialogue::is_memory("39G\n", 40_960));
    assert!(!dialogue::is_memory("960M\n", 1500));
    assert!(!dialogue::is_memory("\n", 1500));
    assert!(!dialogue::is_memory("Unknown command \"x\"\n", 1500));
    assert_eq!(dialogue::numbers("30471\n4711\n"), [30471, 4711]);
    assert_eq!(dialogue::numbers("Server 1 not found\n"), Vec::<u32>::new());
    assert_eq!(Mode::read("Exclusive_Process\n"), Some(Mode::ExclusiveProcess));
    assert_eq!(Mode::read("Default\n"), Some(Mode::Default));
    assert_eq!(Mode::read("[N/A]\n"), None);
}

proptest! {
    #[test]
    fn whatever_the_daemon_says_is_read_without_a_panic(answer in ".*", number: u64, percentage: u32) {
        let _ = dialogue::is_memory(&answer, number);
        let _ = dialogue::is_percentage(&answer, percentage);
        let _ = dialogue::numbers(&answer);
        let _ = Mode::read(&answer);
        let _ = dialogue::is_memory(&format!("{number}G"), 0);
    }
}

#[test]
fn everything_lies_under_the_root_that_is_configured() {
    let place = Place {
        root: "/var/mps".into(),
        ..Place::default()
    };
    assert_eq!(place.pipe(GPU), Path::new("/var/mps/nvidia.com/gpu/pipe"));
    assert_eq!(
        container(&place, GPU).mounts[0].host,
        "/var/mps/nvidia.com/gpu/pipe"
    );
}
