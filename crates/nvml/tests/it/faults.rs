//! A driver that is wrong in one way is told in one line, and costs no more than what it is wrong about.

use std::time::{Duration, Instant};

use pitcrew_core::Reading;
use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::pci::{PciAddress, PciFunction};
use pitcrew_core::ports::{GpuError, InventorySource, Mig, Sampling};
use pitcrew_nvml::{Nvml, Worker, WorkerSource};

use crate::library::{Built, build};

const GPU0: &str = "GPU-00000000-0000-4000-8000-000000000000";
const GPU1: &str = "GPU-00000000-0000-4000-8000-000000000001";

fn load(built: &Built) -> Result<Nvml, GpuError> {
    Nvml::load(Some(&built.file), &[])
}

fn told(error: &GpuError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than a line: {text}");
    text
}

fn function(bus: u8) -> PciFunction {
    PciFunction {
        address: PciAddress {
            domain: 0,
            bus,
            device: 0,
            function: 0,
        },
        vendor_id: 0x10de,
        device_id: 0x2330,
        subsystem_vendor_id: 0x10de,
        subsystem_device_id: 0x16c1,
    }
}

#[test]
fn a_library_that_is_not_nvml_is_named_as_such() {
    let built = build(&["NOT_NVML"]);
    let error = load(&built).unwrap_err();
    assert!(matches!(error, GpuError::NoDriver(_)));
    let text = told(&error).replace(&built.dir().display().to_string(), "DIR");
    assert_eq!(
        text,
        "no NVIDIA driver library was found: `DIR/libnvidia-ml.so.1` is not NVIDIA's management library: it has no \
         `nvmlInit_v2`"
    );
}

#[test]
fn a_driver_that_does_not_start_says_why() {
    for (code, says) in [
        (
            9,
            "its kernel module is not loaded (`nvmlInit_v2`: Driver Not Loaded)",
        ),
        (
            18,
            "as after an update without a reboot (`nvmlInit_v2`: Driver/library version mismatch)",
        ),
        (
            4,
            "may not be opened by this user or in this container (`nvmlInit_v2`: Insufficient Permissions)",
        ),
        (15, "a GPU has fallen off the bus (`nvmlInit_v2`: GPU is lost)"),
        (999, "(`nvmlInit_v2`: Unknown Error)"),
        (12345, "(`nvmlInit_v2`: NVML error 12345)"),
    ] {
        let error = load(&build(&[&format!("FAILS={code}")])).unwrap_err();
        assert!(matches!(error, GpuError::DriverFailed(_)));
        let text = told(&error);
        assert!(text.ends_with(says), "{code}: {text}");
    }
}

#[test]
fn the_usual_directories_are_searched_after_the_loader() {
    let built = build(&[]);
    let empty = tempfile::tempdir().unwrap();
    if Nvml::load(None, &[]).is_ok() {
        // Beside a real driver the loader's own comes first, as it should.
        return;
    }
    let found = Nvml::load(None, &[empty.path().to_owned(), built.dir().to_owned()]).unwrap();
    assert_eq!(found.identity().unwrap().path, built.file.canonicalize().unwrap());
    let none = Nvml::load(None, &[empty.path().to_owned()]).unwrap_err();
    assert!(matches!(none, GpuError::NoDriver(_)), "{none}");
}

#[test]
fn a_call_that_hangs_keeps_nobody() {
    let built = build(&["HANGS"]);
    let nvml = load(&built).unwrap();
    let worker = Worker::start("nvml", || nvml).unwrap();
    let mut source = WorkerSource {
        worker,
        deadline: Duration::from_millis(100),
    };
    let start = Instant::now();
    let error = source.inventory().unwrap_err();
    assert_eq!(
        told(&error),
        "the NVIDIA driver does not answer: `read the GPUs` has not returned for 0 s"
    );
    assert!(
        source.fields(GPU0, &[]).is_err(),
        "and who comes next is told at once"
    );
    drop(source);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_library_that_lacks_most_functions_gives_what_it_has() {
    let mut nvml = load(&build(&["POOR"])).unwrap();
    let inventory = nvml.inventory().unwrap();
    assert_eq!(inventory.driver.version, Reading::NotSupported);
    assert_eq!(inventory.gpus.len(), 2);
    let gpu = &inventory.gpus[0];
    assert_eq!(gpu.pci, function(1));
    assert_eq!(gpu.readings.present(), ["uuid"]);
    assert!(gpu.readings.unread().is_empty(), "{:?}", gpu.readings.unread());
    assert_eq!(inventory.links[0].nvlinks, Reading::NotSupported);
    assert!(matches!(nvml.events(), Err(GpuError::DriverFailed(_))));
    assert!(matches!(
        nvml.fields(GPU0, &["NVML_FI_DEV_ECC_CURRENT"]),
        Err(GpuError::NotSupported { .. })
    ));
    assert!(matches!(
        nvml.profiling(GPU0, &[1]),
        Err(GpuError::NotSupported { .. })
    ));
    assert!(matches!(nvml.profiles(GPU0), Err(GpuError::NotSupported { .. })));
    assert!(matches!(
        nvml.set_mode(GPU0, true),
        Err(GpuError::NotSupported { .. })
    ));
    assert!(matches!(
        nvml.destroy(GPU0, 1),
        Err(GpuError::NotSupported { .. })
    ));
    assert_eq!(
        nvml.profiling("GPU-nobody", &[1]),
        Err(GpuError::NoSuchGpu("GPU-nobody".to_owned()))
    );
}

#[test]
fn old_calls_stand_in_for_new_ones_and_what_makes_no_sense_fails_alone() {
    let mut nvml = load(&build(&[])).unwrap();
    let readings = nvml.inventory().unwrap().gpus.remove(0).readings;
    assert_eq!(readings.memory_total_bytes, Reading::Value(80));
    assert_eq!(readings.memory_free_bytes, Reading::Value(70));
    assert_eq!(readings.temperature_c, Reading::Value(-5));
    assert_eq!(
        readings.processes,
        Reading::Failed("Insufficient Size".to_owned())
    );
    assert_eq!(readings.name.value().unwrap(), "NVIDIA H100 80GB HBM3");
}

#[test]
fn a_lost_gpu_is_told_whole_and_costs_the_others_nothing() {
    let mut nvml = load(&build(&["LOST"])).unwrap();
    let inventory = nvml.inventory().unwrap();
    assert_eq!(
        inventory.gpus[0].readings.name.value().unwrap(),
        "NVIDIA H100 80GB HBM3"
    );
    assert_eq!(inventory.gpus[1].pci, function(2));
    assert_eq!(
        inventory.gpus[1].readings,
        GpuReadings::all_failed("GPU is lost"),
        "a UUID alone would look like half a GPU"
    );
}

#[test]
fn a_gpu_without_a_handle_is_where_the_bus_says() {
    let built = build(&["NO_HANDLE"]);
    let unplaced = load(&built).unwrap().inventory().unwrap();
    assert_eq!(unplaced.gpus.len(), 1, "nothing is known of the other");

    let mut nvml = load(&built).unwrap().with_pci(vec![function(1), function(7)]);
    let inventory = nvml.inventory().unwrap();
    assert_eq!(inventory.gpus.len(), 2);
    assert_eq!((inventory.gpus[1].index, inventory.gpus[1].pci), (1, function(7)));
    assert_eq!(inventory.gpus[1].readings, GpuReadings::all_failed("GPU is lost"));
    assert!(nvml.fields(GPU1, &[]).is_ok(), "a UUID still finds it");
}

#[test]
fn a_replaced_driver_is_noticed() {
    let built = build(&[]);
    let nvml = load(&built).unwrap().with_kernel_version(Some("580.159.04\n"));
    assert_eq!(nvml.change(Some("580.159.04")), None);
    assert!(
        matches!(nvml.change(Some("590.1")), Some(pitcrew_nvml::DriverChange::Kernel { from, .. }) if from == "580.159.04")
    );
    assert!(nvml.change(None).is_some(), "the module was unloaded");
    crate::library::compile(&built.file, &["VERSION=\"590.1\""]);
    assert_eq!(
        nvml.change(Some("580.159.04")),
        Some(pitcrew_nvml::DriverChange::Library)
    );
    drop(nvml);
    let mut new = load(&built).unwrap();
    assert!(new.is_current(None));
    assert_eq!(
        new.inventory().unwrap().driver.version,
        Reading::Value("590.1".to_owned())
    );
}
