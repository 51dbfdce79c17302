//! What the children do.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use pitcrew_core::gpu::{GpuReadings, MigDevice, MigMode};
use pitcrew_core::inventory::Silent;
use pitcrew_core::mig::Profile;
use pitcrew_core::ports::{Events, GpuError, GpuEvent, GpuEventKind, InventorySource, Mig, Sampling};
use pitcrew_core::{Inventory, Reading};
use pitcrew_nvml::{Nvml, Patience, Places, Progress, Relay, Worker, WorkerSource, field_id, field_names};
use pitcrew_scenario::{Change, Machine, Scenario};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

/// What a case is given.
pub(crate) struct Setting {
    pub(crate) mock: PathBuf,
    pub(crate) scenario: String,
    pub(crate) changes: PathBuf,
}

impl Setting {
    /// The scenario itself, which says what is right.
    pub(crate) fn machine(&self) -> Machine {
        Machine::new(Scenario::builtin(&self.scenario).unwrap())
    }

    /// The driver over the mock.
    pub(crate) fn nvml(&self) -> Nvml {
        Nvml::load(Some(&self.mock), &[]).unwrap()
    }

    /// Has the mock see a change.
    fn change(&self, change: &Change) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.changes)
            .unwrap();
        writeln!(file, "{}", serde_json::to_string(change).unwrap()).unwrap();
    }

    /// Has the mock and the scenario see a change.
    pub(crate) fn change_both(&self, machine: &Machine, change: &Change) {
        machine.change(change).unwrap();
        self.change(change);
    }
}

pub(crate) fn run(case: &str, setting: &Setting) {
    match case {
        "inventory" => inventory(setting),
        "fields" => fields(setting),
        "nvlinks" => nvlinks(setting),
        "profiling" => profiling(setting),
        "mig" => mig(setting),
        "compute-instances" => crate::compute_instances::round_trip(setting),
        "no-mig" => no_mig(setting),
        "events" => events(setting),
        "lost" => lost(setting),
        "hang" => hang(setting),
        "silent" => silent(setting),
        "driver" => driver(setting),
        "release" => release(setting),
        other => unreachable!("there is no case `{other}`"),
    }
}

/// What NVML can't carry is taken from the scenario's side: reasons are numbers there, XIDs are told only to who
/// listens, and whether kernel modules are open is not said.
fn as_nvml_says(mut inventory: Inventory) -> Inventory {
    inventory.driver.open_kernel_modules = Reading::NotSupported;
    let lost: Vec<u32> = inventory
        .gpus
        .iter()
        .filter(|gpu| gpu.readings.present().is_empty())
        .map(|gpu| gpu.index)
        .collect();
    // The scenario remembers how a lost GPU was connected; the driver can't be asked.
    inventory
        .links
        .retain(|link| !lost.contains(&link.from) && !lost.contains(&link.to));
    for gpu in &mut inventory.gpus {
        if !gpu.readings.uuid.is_absent() {
            gpu.readings.xids = Reading::NotSupported;
        }
        if let Reading::Value(processes) = &mut gpu.readings.processes {
            processes.sort_by_key(|process| (process.pid, process.gpu_instance, process.compute_instance));
        }
    }
    without_reasons(inventory)
}

/// The same reason for every failure: NVML has only numbers for them.
fn without_reasons(mut inventory: Inventory) -> Inventory {
    for gpu in &mut inventory.gpus {
        for unread in gpu.readings.unread() {
            assert!(gpu.readings.fail(unread.field, "-"));
        }
    }
    inventory
}

/// A device without the sizes that the scenario doesn't know: the mock must give some.
pub(crate) fn sized_as(real: &MigDevice, expected: &MigDevice) -> MigDevice {
    let mut device = real.clone();
    if expected.memory_total_bytes.is_absent() {
        device.memory_total_bytes = expected.memory_total_bytes.clone();
    }
    if expected.multiprocessors.is_absent() {
        device.multiprocessors = expected.multiprocessors.clone();
    }
    device
}

pub(crate) fn assert_same(real: Inventory, expected: Inventory) {
    let (mut real, expected) = (without_reasons(real), as_nvml_says(expected));
    for (real, expected) in real.gpus.iter_mut().zip(&expected.gpus) {
        if let (Reading::Value(real), Reading::Value(expected)) =
            (&mut real.readings.mig_devices, &expected.readings.mig_devices)
        {
            for (real, expected) in real.iter_mut().zip(expected) {
                *real = sized_as(real, expected);
            }
        }
    }
    assert_eq!(real.driver, expected.driver);
    assert_eq!(real.gpus.len(), expected.gpus.len());
    for (real, expected) in real.gpus.iter().zip(&expected.gpus) {
        assert_eq!(
            (real.index, real.pci),
            (expected.index, expected.pci),
            "GPU {}",
            real.index
        );
        let shown = |readings: &GpuReadings| format!("{readings:#?}");
        let (left, right) = (shown(&real.readings), shown(&expected.readings));
        let differing: Vec<_> = left.lines().zip(right.lines()).filter(|(a, b)| a != b).collect();
        assert_eq!(
            real.readings, expected.readings,
            "GPU {}: {differing:#?}",
            real.index
        );
    }
    assert_eq!(real.links, expected.links);
}

fn inventory(setting: &Setting) {
    let mut machine = setting.machine();
    let expected = machine.inventory().unwrap();
    let pci = expected.gpus.iter().map(|gpu| gpu.pci).collect();
    let mut nvml = setting.nvml().with_pci(pci);
    assert_same(nvml.inventory().unwrap(), expected);
    // And as it changes: a load on each GPU that answers, and a process.
    for gpu in machine.inventory().unwrap().gpus {
        if gpu.readings.uuid.is_absent() {
            continue;
        }
        let load = Change::Load {
            gpu: gpu.index,
            percent: 60,
        };
        setting.change_both(&machine, &load);
    }
    assert_same(nvml.inventory().unwrap(), machine.inventory().unwrap());
}

/// UUIDs of the GPUs that answer.
fn answering(machine: &mut Machine) -> Vec<String> {
    let gpus = machine.inventory().unwrap().gpus;
    gpus.iter()
        .filter_map(|gpu| gpu.readings.uuid.value().cloned())
        .collect()
}

fn fields(setting: &Setting) {
    let (mut machine, mut nvml) = (setting.machine(), setting.nvml());
    // The mock numbers what comes after 250 as the header of CUDA 13.0 does, which other headers don't.
    let names: Vec<&str> = field_names()
        .filter(|name| field_id(name).is_some_and(|id| id <= 250))
        .collect();
    let mut compared = 0;
    for uuid in answering(&mut machine) {
        let expected = machine.fields(&uuid, &names).unwrap();
        let real = nvml.fields(&uuid, &names).unwrap();
        for ((name, real), expected) in names.iter().zip(&real).zip(&expected) {
            // A number with two names has one value; a scenario may give it under one of them.
            if let Some(expected) = expected.value() {
                assert_eq!(real.value(), Some(expected), "{name}");
                compared += 1;
            }
        }
        assert_eq!(
            nvml.fields(&uuid, &["NVML_FI_DEV_NO_SUCH_FIELD"]),
            Ok(vec![Reading::NotSupported])
        );
    }
    assert!(compared > 0, "nothing was compared");
    assert_eq!(
        nvml.fields("GPU-nobody", &[]),
        Err(GpuError::NoSuchGpu("GPU-nobody".to_owned()))
    );
}

fn nvlinks(setting: &Setting) {
    let (mut machine, mut nvml) = (setting.machine(), setting.nvml());
    for uuid in answering(&mut machine) {
        let links = |source: &mut dyn Sampling| match source.nvlinks(&uuid) {
            Ok(links) => Some(links),
            Err(GpuError::NotSupported { .. }) => None,
            Err(error) => unreachable!("{uuid}: {error}"),
        };
        assert_eq!(links(&mut nvml), links(&mut machine), "{uuid}");
    }
}

fn profiling(setting: &Setting) {
    let (mut machine, mut nvml) = (setting.machine(), setting.nvml());
    let metrics: Vec<u32> = (1..=100).collect();
    for uuid in answering(&mut machine) {
        let expected = machine.profiling(&uuid, &metrics);
        let first = nvml.profiling(&uuid, &metrics);
        let Ok(expected) = expected else {
            assert!(matches!(first, Err(GpuError::NotSupported { .. })), "{first:?}");
            continue;
        };
        assert!(first.unwrap().iter().all(Reading::is_absent));
        assert_eq!(nvml.profiling(&uuid, &metrics).unwrap(), expected);
    }
}

fn mig(setting: &Setting) {
    let (mut machine, mut nvml) = (setting.machine(), setting.nvml());
    let gpus = machine.inventory().unwrap().gpus;
    // One that is not cut up yet, or else the last: a scenario may have cut all but leave room nowhere.
    let free = gpus
        .iter()
        .find(|gpu| gpu.readings.mig_mode.value().is_some_and(|mode| !mode.current));
    let Some(gpu) = free else {
        let uuid = gpus[0].readings.uuid.value().unwrap();
        assert_eq!(
            sizes(&nvml.profiles(uuid).unwrap()),
            sizes(&machine.profiles(uuid).unwrap())
        );
        return;
    };
    let uuid = gpu.readings.uuid.value().unwrap().as_str();
    assert!(matches!(
        nvml.create(uuid, &"7g.80gb".parse().unwrap(), None),
        Err(GpuError::Refused { .. })
    ));
    nvml.set_mode(uuid, true).unwrap();
    machine.set_mode(uuid, true).unwrap();
    let mode = |source: &mut dyn InventorySource| -> MigMode {
        let gpus = source.inventory().unwrap().gpus;
        *gpus[gpu.index as usize].readings.mig_mode.value().unwrap()
    };
    assert_eq!(mode(&mut nvml), mode(&mut machine));
    if !mode(&mut machine).current {
        // Ampere: only after a reset, which is not NVML's to give.
        return;
    }

    let profiles = nvml.profiles(uuid).unwrap();
    let mut expected = machine.profiles(uuid).unwrap();
    expected.sort_by_key(|known| known.nvml_profile);
    let mut known = profiles.clone();
    for (real, expected) in known.iter_mut().zip(&expected) {
        // NVML has a number and sizes for every profile, our table only those that were published.
        real.id = real.id.filter(|_| expected.id.is_some());
        real.memory_mib = real.memory_mib.filter(|_| expected.memory_mib.is_some());
        real.multiprocessors = real
            .multiprocessors
            .filter(|_| expected.multiprocessors.is_some());
    }
    assert_eq!(known, expected);
    let smallest = profiles[0].profile.clone();
    let largest = profiles
        .iter()
        .max_by_key(|known| known.slice_count)
        .unwrap()
        .profile
        .clone();

    let first = nvml.create(uuid, &smallest, None).unwrap();
    let expected = machine.create(uuid, &smallest, None).unwrap();
    assert_eq!(sized_as(&first, &expected), expected);
    let last = *profiles[0].placements.last().unwrap();
    let placed = nvml.create(uuid, &smallest, Some(last)).unwrap();
    let expected = machine.create(uuid, &smallest, Some(last)).unwrap();
    assert_eq!(sized_as(&placed, &expected), expected);
    assert_same(nvml.inventory().unwrap(), machine.inventory().unwrap());

    let refused = nvml.create(uuid, &largest, None).unwrap_err();
    assert!(
        matches!(&refused, GpuError::Refused { reason, .. } if reason.contains(&largest.to_string())),
        "{refused}"
    );
    let unknown: Profile = "1g.999gb".parse().unwrap();
    let refused = nvml.create(uuid, &unknown, None).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("it has no profile `1g.999gb`; it has"),
        "{refused}"
    );
    let in_use = nvml.set_mode(uuid, false).unwrap_err();
    assert!(matches!(in_use, GpuError::InUse { .. }), "{in_use}");

    // Fields and samples of a slice.
    if machine.profiling(uuid, &[1]).is_ok() {
        assert!(nvml.profiling(&first.uuid, &[1]).unwrap()[0].is_absent());
        assert!(nvml.profiling(&first.uuid, &[1]).is_ok());
    }

    for device in [first, placed] {
        nvml.destroy(uuid, device.gpu_instance).unwrap();
        machine.destroy(uuid, device.gpu_instance).unwrap();
    }
    assert_same(nvml.inventory().unwrap(), machine.inventory().unwrap());
    let gone = nvml.destroy(uuid, 0).unwrap_err();
    assert!(gone.to_string().contains("there is no GPU instance 0"), "{gone}");
    nvml.set_mode(uuid, false).unwrap();
    assert!(!mode(&mut nvml).current);
}

/// Profiles without their placements, which the driver doesn't give while MIG is off.
fn sizes(profiles: &[pitcrew_core::mig::GeometryProfile]) -> Vec<(String, Option<u32>, u32)> {
    profiles
        .iter()
        .map(|known| (known.profile.to_string(), known.id, known.max_instances))
        .collect()
}

fn no_mig(setting: &Setting) {
    let (mut machine, mut nvml) = (setting.machine(), setting.nvml());
    for uuid in answering(&mut machine) {
        for result in [
            nvml.profiles(&uuid).map(drop),
            nvml.set_mode(&uuid, true),
            nvml.create(&uuid, &"1g.5gb".parse().unwrap(), None).map(drop),
            nvml.destroy(&uuid, 0),
        ] {
            assert!(matches!(result, Err(GpuError::NotSupported { .. })), "{result:?}");
        }
    }
}

fn events(setting: &Setting) {
    let (mut machine, mut nvml) = (setting.machine(), setting.nvml());
    let uuid = answering(&mut machine).remove(0);
    let mut events = nvml.events().unwrap();
    assert_eq!(events.wait(SHORT), Ok(None));
    let xids = |nvml: &mut Nvml| nvml.inventory().unwrap().gpus.remove(0).readings.xids;
    assert_eq!(xids(&mut nvml), Reading::Value(Vec::new()));
    let expected = |gpu_instance: Option<u32>, xid| GpuEvent {
        uuid: uuid.clone(),
        kind: GpuEventKind::Xid(xid),
        gpu_instance,
        compute_instance: gpu_instance.map(|_| 0),
    };
    for (xid, gpu_instance) in [(31, None), (94, Some(2))] {
        setting.change(&Change::Xid {
            gpu: 0,
            xid,
            gpu_instance,
        });
        assert_eq!(events.wait(LONG), Ok(Some(expected(gpu_instance, xid))));
    }
    assert_eq!(xids(&mut nvml), Reading::Value(vec![31, 94]));
}

fn lost(setting: &Setting) {
    let (mut machine, mut nvml) = (setting.machine(), setting.nvml());
    assert_same(nvml.inventory().unwrap(), machine.inventory().unwrap());
    let uuids = answering(&mut machine);
    let mut events = nvml.events().unwrap();
    setting.change_both(&machine, &Change::FallOffBus { gpu: 3 });
    let event = events.wait(LONG);
    assert!(
        matches!(&event, Ok(Some(GpuEvent { uuid, kind: GpuEventKind::Xid(79), .. })) if *uuid == uuids[3])
            || event == Err(GpuError::GpuLost(uuids[3].clone())),
        "{event:?}"
    );
    drop(events);
    let seen = nvml.inventory().unwrap();
    assert_eq!(seen.gpus.len(), 8);
    assert_eq!(seen.gpus[3].readings, GpuReadings::all_failed("GPU is lost"));
    assert_eq!(seen.gpus[3].pci, machine.inventory().unwrap().gpus[3].pci);
    assert!(seen.gpus[4].readings.unread().is_empty());
    assert_eq!(
        nvml.fields(&uuids[3], &["NVML_FI_DEV_ECC_CURRENT"]),
        Err(GpuError::GpuLost(uuids[3].clone()))
    );
    // Who comes later has never seen it, and knows it from the bus.
    let pci = machine
        .inventory()
        .unwrap()
        .gpus
        .iter()
        .map(|gpu| gpu.pci)
        .collect();
    let later = setting.nvml().with_pci(pci).inventory().unwrap();
    assert_eq!(later.gpus[3], seen.gpus[3]);

    setting.change_both(&machine, &Change::Return { gpu: 3 });
    let back = nvml.inventory().unwrap();
    assert!(back.gpus[3].readings.unread().is_empty(), "it is back");
}

fn hang(setting: &Setting) {
    let nvml = setting.nvml();
    let worker = Worker::start("nvml", || nvml).unwrap();
    let mut source = WorkerSource {
        worker,
        deadline: LONG,
    };
    source.inventory().unwrap();
    setting.change(&Change::Hang {
        call: "nvmlDeviceGetPowerUsage".to_owned(),
        gpu: None,
    });
    source.deadline = SHORT;
    let error = source.inventory().unwrap_err();
    assert!(
        matches!(&error, GpuError::DriverSilent(reason) if reason.starts_with("`read the GPUs` has not returned")),
        "{error}"
    );
    setting.change(&Change::Release);
    while source.worker.hanging().is_some() {
        std::thread::yield_now();
    }
    source.deadline = LONG;
    source.inventory().unwrap();
}

/// Eight GPUs, at one of which a call hangs; then at all.
fn silent(setting: &Setting) {
    const PATIENCE: Patience = Patience {
        whole: LONG,
        call: Duration::from_secs(1),
    };
    let (mock, places) = (setting.mock.clone(), Places::default());
    let make = move |_: &Progress| Nvml::load(Some(&mock), &[]).unwrap().with_places(places.clone());
    let relay = Relay::start("nvml", make).unwrap();
    let look = || {
        let act = |nvml: &mut Nvml, silent: &[Silent]| {
            nvml.set_silent(silent);
            nvml.inventory()
        };
        relay.ask("read the GPUs", PATIENCE, act).map(Result::unwrap)
    };
    let before = look().unwrap();
    assert_eq!(before.gpus.len(), 8);
    // Before anything is known of the GPU, in the middle, and where several calls of one kind are made.
    for (hangs, call, gpu) in [
        ("nvmlDevice*", "nvmlDeviceGetHandleByIndex_v2", 0),
        ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetPowerUsage", 3),
        ("nvmlDeviceGetNvLinkState", "nvmlDeviceGetNvLinkState", 7),
    ] {
        setting.change(&Change::Hang {
            call: hangs.to_owned(),
            gpu: Some(gpu),
        });
        let inventory = look().unwrap();
        let silent = Silent {
            index: gpu,
            reason: format!("`{call}` did not return within 1 s"),
        };
        assert_eq!(inventory.silent, [silent]);
        for (now, before) in inventory.gpus.iter().zip(&before.gpus) {
            assert_eq!((now.index, now.pci), (before.index, before.pci));
            assert_eq!(now.readings.uuid.value().is_some(), now.index != gpu, "{call}");
        }
        assert_eq!(inventory.links.len(), 7 * 6 / 2, "pairs of those that answer");
        setting.change(&Change::Release);
        until(|| relay.silent().is_empty());
        let back = look().unwrap();
        assert!(back.silent.is_empty() && back.links == before.links, "{call}");
    }
    setting.change(&Change::Hang {
        call: "nvml*".to_owned(),
        gpu: None,
    });
    let stuck = look().unwrap_err();
    assert!(
        stuck
            .reason()
            .starts_with("`nvmlDeviceGetCount_v2` has not returned"),
        "{stuck}"
    );
    setting.change(&Change::Release);
    until(|| look().is_ok_and(|inventory| inventory.silent.is_empty()));
}

fn until(is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn driver(setting: &Setting) {
    let mut nvml = setting.nvml();
    nvml.inventory().unwrap();
    setting.change(&Change::BreakDriver {
        reason: "Driver/library version mismatch".to_owned(),
    });
    assert!(matches!(nvml.inventory(), Err(GpuError::DriverFailed(_))));
    let late = Nvml::load(Some(&setting.mock), &[]).unwrap_err();
    assert!(
        late.to_string().contains("Driver/library version mismatch"),
        "{late}"
    );
    setting.change(&Change::UnloadDriver);
    let none = Nvml::load(Some(&setting.mock), &[]).unwrap_err();
    assert!(
        none.to_string().contains("its kernel module is not loaded"),
        "{none}"
    );
    setting.change(&Change::ReplaceDriver {
        version: "590.48.01".to_owned(),
    });
    let mut new = setting.nvml();
    assert_eq!(
        new.inventory().unwrap().driver.version,
        Reading::Value("590.48.01".to_owned())
    );
}

fn release(setting: &Setting) {
    let mapped = || {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .contains("libnvidia")
    };
    let open = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter(|target| target.starts_with("/dev/nvidia") || *target == setting.changes)
            .count()
    };
    let file = setting.mock.clone();
    let worker = Worker::start("nvml", move || Nvml::load(Some(&file), &[]).unwrap()).unwrap();
    let read = worker.call("read", LONG, |nvml| {
        let mut events = nvml.events().unwrap();
        events.wait(Duration::ZERO).unwrap();
        nvml.inventory().map(|inventory| inventory.gpus.len())
    });
    assert_eq!(read, Ok(Ok(8)));
    assert!(mapped());
    drop(worker);
    assert_eq!(open(), 0);
    // The mock is written in Rust and leaves destructors to the thread, which NVIDIA's library doesn't. glibc unmaps
    // such a library at the first unloading after the thread's end, be it of another one.
    Nvml::load(Some("libm.so.6".as_ref()), &[]).unwrap_err();
    assert!(!mapped(), "the library is still mapped");
}
