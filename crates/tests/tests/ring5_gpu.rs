//! A real GPU, read through the driver's own library; and a real fault, which the driver must tell us of.
#![expect(
    clippy::print_stderr,
    reason = "what a card answers is worth recording: run with `--nocapture`"
)]

#[path = "ring5_gpu/cuda.rs"]
mod cuda;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use pitcrew_core::Reading;
use pitcrew_core::gpu::Gpu;
use pitcrew_core::ports::{Events, GpuError, GpuEventKind, InventorySource, Mig, Sampling};
use pitcrew_nvml::{Nvml, Worker, WorkerSource, field_names};

/// Tells the child process to break its context; see [`a_fault_of_a_kernel_arrives_as_an_event`].
const CHILD: &str = "PITCREW_TEST_FAULT";
/// Past this a driver is broken, not slow: the first client of a GPU without persistence mode waits for seconds.
const DEADLINE: Duration = Duration::from_mins(1);

/// Tests count what this process has open, so they go one by one, also without `--test-threads=1`.
static ONE_BY_ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn one_by_one() -> std::sync::MutexGuard<'static, ()> {
    ONE_BY_ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn load() -> Nvml {
    Nvml::load(None, &[]).expect("the driver's library can be loaded")
}

fn uuid(gpu: &Gpu) -> &str {
    gpu.readings.uuid.value().expect("a real GPU has a UUID")
}

#[test]
#[ignore = "needs an NVIDIA driver: cargo xtask test --ring 5"]
fn everything_that_this_card_has_can_be_read_and_makes_sense() {
    let _alone = one_by_one();
    let inventory = load().inventory().expect("the GPUs can be read");
    let driver = &inventory.driver;
    let module = fs::read_to_string("/sys/module/nvidia/version").expect("the kernel module has a version");
    assert_eq!(driver.version.value().map(String::as_str), Some(module.trim()));
    assert!(driver.unread().is_empty(), "{:?}", driver.unread());
    assert!(driver.cuda.value().is_some_and(|cuda| cuda.major >= 11));
    assert!(!inventory.gpus.is_empty());
    for gpu in &inventory.gpus {
        let readings = &gpu.readings;
        assert_eq!(readings.unread(), [], "a healthy GPU refuses nothing that it has");
        assert!(uuid(gpu).starts_with("GPU-") && uuid(gpu).len() == 40);
        let sysfs = format!("/sys/bus/pci/devices/{}", gpu.pci.address);
        let id = fs::read_to_string(format!("{sysfs}/device")).expect("the bus has it too");
        assert_eq!(id.trim(), format!("{:#06x}", gpu.pci.device_id));
        let value = |field: &Reading<u64>| *field.value().expect("every GPU has memory");
        let total = value(&readings.memory_total_bytes);
        let (used, free) = (
            value(&readings.memory_used_bytes),
            value(&readings.memory_free_bytes),
        );
        assert!(total > 1 << 30 && used + free <= total);
        if let Some(&reserved) = readings.memory_reserved_bytes.value() {
            // What is neither used nor free, but for what moves between two figures.
            assert!((total - used - free).abs_diff(reserved) <= 64 << 20, "{reserved}");
        }
        for limit in [
            &readings.power_limit_requested_mw,
            &readings.power_limit_default_mw,
        ] {
            assert!(
                limit.value().is_none_or(|milliwatts| *milliwatts > 0),
                "{limit:?}"
            );
        }
        // Firmware and driver come in one package.
        if let Some(firmware) = readings.gsp_firmware.value() {
            assert_eq!(Some(firmware), driver.version.value());
        }
        assert!(
            readings
                .temperature_c
                .value()
                .is_some_and(|c| (1..110).contains(c))
        );
        assert!(
            gpu.card().is_some(),
            "{:?} is not in the catalogue",
            readings.name
        );
        assert!(
            readings.present().len() >= 30,
            "only these could be read: {:?}",
            readings.present()
        );
    }
}

#[test]
#[ignore = "needs an NVIDIA driver: cargo xtask test --ring 5"]
fn field_values_agree_with_what_other_calls_say() {
    let _alone = one_by_one();
    let mut nvml = load();
    let gpus = nvml.inventory().expect("the GPUs can be read").gpus;
    for gpu in &gpus {
        let names: Vec<&str> = field_names().collect();
        let values = nvml.fields(uuid(gpu), &names).expect("fields can be read");
        let fields: BTreeMap<&str, &Reading<u64>> = names.iter().copied().zip(&values).collect();
        // Seen with `--nocapture`: what this driver answers.
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_absent()) {
            eprintln!("{name} {value:?}");
        }
        let readings = &gpu.readings;
        let field = |name: &str| fields[name].value().copied();
        assert_eq!(
            field("NVML_FI_DEV_ECC_CURRENT"),
            readings.ecc.value().map(|ecc| u64::from(*ecc))
        );
        assert_eq!(
            field("NVML_FI_DEV_REMAPPED_UNC"),
            readings
                .remapped_rows
                .value()
                .map(|rows| u64::from(rows.uncorrectable))
        );
        if let (Some(later), Some(&earlier)) = (
            field("NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
            readings.energy_mj.value(),
        ) {
            assert!((earlier..earlier + 100_000_000).contains(&later));
        }
        if let (Some(instant), Some((_, limit))) = (
            field("NVML_FI_DEV_POWER_INSTANT"),
            readings
                .power_limit_range_mw
                .value()
                .map(|range| (range.min, range.max)),
        ) {
            assert!((1..=2 * u64::from(limit)).contains(&instant), "{instant} mW");
        }
        // Lest a driver that fills in nothing be taken for one that says 0.
        if let Some(limit) = field("NVML_FI_DEV_POWER_MAX_LIMIT") {
            assert!(limit > 0);
        }
        assert_eq!(
            nvml.fields(uuid(gpu), &["NVML_FI_DEV_NO_SUCH_FIELD"]),
            Ok(vec![Reading::NotSupported])
        );
    }
}

#[test]
#[ignore = "needs an NVIDIA driver: cargo xtask test --ring 5"]
fn profiling_figures_come_with_the_second_sample_on_hopper_and_later() {
    const BUSY: u32 = 1;
    const MEMORY: u32 = 10;
    const NO_SUCH_METRIC: u32 = 8;
    let _alone = one_by_one();
    let mut nvml = load();
    let gpus = nvml.inventory().expect("the GPUs can be read").gpus;
    for gpu in &gpus {
        let hopper = gpu
            .readings
            .compute_capability
            .value()
            .is_some_and(|version| version.major >= 9);
        let metrics = [BUSY, MEMORY, NO_SUCH_METRIC];
        let first = nvml.profiling(uuid(gpu), &metrics);
        if !hopper {
            assert!(
                matches!(first, Err(GpuError::NotSupported { .. })) || first.is_ok(),
                "{first:?}"
            );
            continue;
        }
        let first = first.expect("Hopper has profiling");
        assert!(
            first.iter().all(Reading::is_absent),
            "one sample has no duration: {first:?}"
        );
        // The least that NVML asks for between two samples.
        std::thread::sleep(Duration::from_millis(150));
        let second = nvml.profiling(uuid(gpu), &metrics).expect("Hopper has profiling");
        for figure in &second[..2] {
            assert!(
                figure
                    .value()
                    .is_some_and(|percent| (0.0..=100.0).contains(percent)),
                "{second:?}"
            );
        }
        assert_eq!(second[2], Reading::NotSupported);
    }
}

#[test]
#[ignore = "needs an NVIDIA driver: cargo xtask test --ring 5"]
fn mig_profiles_are_told_by_cards_that_have_them() {
    let _alone = one_by_one();
    let mut nvml = load();
    let gpus = nvml.inventory().expect("the GPUs can be read").gpus;
    for gpu in &gpus {
        let profiles = nvml.profiles(uuid(gpu));
        if gpu.readings.mig_mode.is_absent() {
            assert!(
                matches!(profiles, Err(GpuError::NotSupported { .. })),
                "{profiles:?}"
            );
            continue;
        }
        let profiles = profiles.expect("a card with MIG has profiles");
        assert!(profiles.len() >= 4, "{profiles:?}");
        if let Some(geometry) = gpu.card().and_then(pitcrew_core::mig::geometry) {
            for profile in &profiles {
                let known = geometry.profile(&profile.profile);
                assert!(
                    known.is_some_and(|known| known.nvml_profile == profile.nvml_profile
                        && known.max_instances == profile.max_instances),
                    "the table says {known:?} and the card {profile:?}"
                );
            }
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA driver: cargo xtask test --ring 5"]
fn waiting_for_events_ends_in_time() {
    let _alone = one_by_one();
    let nvml = load();
    let mut events = nvml.events().expect("a real GPU tells of events");
    let start = Instant::now();
    let event = events.wait(Duration::from_secs(1)).expect("waiting is no error");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(event.is_some() || took >= Duration::from_millis(900), "{took:?}");
}

#[test]
#[ignore = "needs an NVIDIA driver: cargo xtask test --ring 5"]
fn a_dropped_driver_has_no_descriptor_and_no_mapping_left() {
    let _alone = one_by_one();
    let holds = || {
        let open = fs::read_dir("/proc/self/fd").expect("it is readable");
        let open = open
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("/dev/nvidia"));
        let maps = fs::read_to_string("/proc/self/maps").expect("it is readable");
        let mapped = maps.lines().filter(|line| line.contains("libnvidia-ml"));
        open.count() + mapped.count()
    };
    assert_eq!(holds(), 0, "another test has left something");
    let worker = Worker::start("nvml", load).expect("a thread can be started");
    let mut source = WorkerSource {
        worker,
        deadline: DEADLINE,
    };
    source.inventory().expect("the GPUs can be read");
    let mut events = source
        .worker
        .call("listen", DEADLINE, |nvml| nvml.events())
        .expect("it answers")
        .expect("a real GPU tells of events");
    events
        .wait(Duration::from_millis(10))
        .expect("waiting is no error");
    assert!(holds() > 0);
    drop(source);
    drop(events);
    assert_eq!(holds(), 0);
}

#[test]
#[ignore = "needs an NVIDIA driver: cargo xtask test --ring 5"]
fn a_fault_of_a_kernel_arrives_as_an_event() {
    // An illegal address is XID 31, an MMU fault, or on some cards 13, an exception of the graphics engine.
    const EXPECTED: [u32; 2] = [31, 13];
    if std::env::var_os(CHILD).is_some() {
        // The child: what it breaks is its own context.
        return cuda::store_to_nowhere();
    }
    let _alone = one_by_one();
    let mut nvml = load();
    let inventory = nvml.inventory().expect("the GPUs can be read");
    let whole = inventory
        .gpus
        .iter()
        .find(|gpu| !gpu.readings.mig_mode.value().is_some_and(|mode| mode.current))
        .expect("a GPU that isn't cut up");
    let mut events = nvml.events().expect("a real GPU tells of events");
    let child = Command::new(std::env::current_exe().expect("this is a program"))
        .args([
            "--exact",
            "a_fault_of_a_kernel_arrives_as_an_event",
            "--include-ignored",
        ])
        .env(CHILD, "1")
        .env("CUDA_VISIBLE_DEVICES", uuid(whole))
        .output()
        .expect("the child can be started");
    assert!(
        child.status.success(),
        "the kernel did not fail as it should: {}{}",
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr)
    );
    let end = Instant::now() + Duration::from_secs(30);
    let event = loop {
        let left = end.saturating_duration_since(Instant::now());
        let event = events.wait(left).expect("waiting is no error");
        match event {
            Some(event) if matches!(event.kind, GpuEventKind::Xid(xid) if EXPECTED.contains(&xid)) => {
                break event;
            }
            _ => assert!(
                Instant::now() < end,
                "no event came in 30 s; the last was {event:?}"
            ),
        }
    };
    assert_eq!(event.uuid, uuid(whole));
    assert_eq!(event.gpu_instance, None);
    let GpuEventKind::Xid(xid) = event.kind else {
        unreachable!("the loop has looked")
    };
    let after = nvml.inventory().expect("the GPUs can be read");
    let gpu = after.gpus.iter().find(|gpu| uuid(gpu) == uuid(whole));
    let xids = gpu.and_then(|gpu| gpu.readings.xids.value());
    assert!(
        xids.is_some_and(|xids| xids.contains(&xid)),
        "the snapshot must know it too: {xids:?}"
    );
}
