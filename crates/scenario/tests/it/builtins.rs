//! Every scenario that comes with the program.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use pitcrew_core::Reading;
use pitcrew_core::gpu::RecoveryAction;
use pitcrew_core::ports::{HostFs, Sampling};
use pitcrew_core::{Inventory, health};
use pitcrew_scenario::{Machine, Scenario};

use crate::{look, machine};

/// A node in a few lines.
fn summary(inventory: &Inventory) -> String {
    let driver = &inventory.driver;
    let mut text = format!("driver {:?}\n", driver.version.value());
    for gpu in &inventory.gpus {
        let readings = &gpu.readings;
        let _ = writeln!(
            text,
            "{} {} {} {:?}\n  memory {:?} of {:?}, {:?} C, {:?} of {:?} mW, PCIe {:?} x{:?}, NVLinks {:?}",
            gpu.index,
            gpu.pci.address,
            readings.uuid.value().map_or("-", String::as_str),
            readings.name.value(),
            readings.memory_used_bytes.value(),
            readings.memory_total_bytes.value(),
            readings.temperature_c.value(),
            readings.power_mw.value(),
            readings.power_limit_mw.value(),
            readings.pcie_generation.value(),
            readings.pcie_width.value(),
            readings.nvlinks_active.value(),
        );
        for device in readings.mig_devices.value().into_iter().flatten() {
            let at = device.placement;
            let _ = writeln!(
                text,
                "  gi{} {} @{}:{} {}",
                device.gpu_instance, device.profile, at.start, at.size, device.uuid
            );
        }
        for process in readings.processes.value().into_iter().flatten() {
            let _ = writeln!(
                text,
                "  process {} in {:?}: {:?}",
                process.pid, process.gpu_instance, process.memory_bytes
            );
        }
        let _ = writeln!(text, "  {}", health::assess(gpu).verdict);
    }
    let _ = writeln!(text, "links {}", inventory.links.len());
    for link in inventory.links.iter().take(3) {
        let _ = writeln!(
            text,
            "  {}-{} {:?} {:?}",
            link.from,
            link.to,
            link.path.value(),
            link.nvlinks.value()
        );
    }
    text
}

#[test]
fn every_built_in_gives_an_inventory() {
    for (name, _) in Scenario::builtin_names() {
        let inventory = look(&machine(name));
        assert!(!inventory.gpus.is_empty(), "{name}");
        for gpu in &inventory.gpus {
            assert!(
                gpu.card().is_some(),
                "{name}: the catalogue must know GPU {}",
                gpu.index
            );
        }
        insta::assert_snapshot!(name, summary(&inventory));
    }
}

#[test]
fn the_same_scenario_gives_the_same_node_and_another_node_others() {
    assert_eq!(look(&machine("a100x8")), look(&machine("a100x8")));
    let one = Machine::new(Scenario::builtin("a100x8").unwrap().for_node("one")).uuids();
    let two = Machine::new(Scenario::builtin("a100x8").unwrap().for_node("two")).uuids();
    assert!(one.iter().all(|uuid| !two.contains(uuid)));
}

#[test]
fn h100x8_is_as_recorded() {
    let inventory = look(&machine("h100x8"));
    assert_eq!(inventory.driver.version, Reading::Value("580.159.04".to_owned()));
    assert_eq!(inventory.driver.cuda.value().unwrap().to_string(), "13.0");
    for gpu in inventory.gpus {
        let readings = gpu.readings;
        assert_eq!(readings.name, Reading::Value("NVIDIA H100 80GB HBM3".to_owned()));
        assert_eq!(
            readings.board_part_number,
            Reading::Value("695-2G520-0200-000".to_owned())
        );
        assert_eq!(readings.memory_total_bytes, Reading::Value(85_520_809_984));
        assert_eq!(readings.memory_free_bytes, Reading::Value(85_017_493_504));
        assert_eq!(readings.cores, Reading::Value(16_896));
        assert_eq!(readings.memory_bus_bits, Reading::Value(5120));
        assert_eq!(readings.power_mw, Reading::Value(112_058));
        let range = readings.power_limit_range_mw.value().unwrap();
        assert_eq!((range.min, range.max), (200_000, 700_000));
        assert_eq!(readings.compute_capability.value().unwrap().to_string(), "9.0");
        assert_eq!(readings.numa_node, Reading::NotSupported);
        assert_eq!(readings.fan_percent, Reading::NotSupported);
        assert_eq!(readings.bar1_total_bytes, Reading::Value(137_438_953_472));
        assert_eq!(readings.energy_mj, Reading::Value(2_237_183));
        assert_eq!(readings.gsp_firmware, Reading::Value("580.159.04".to_owned()));
        assert_eq!(readings.memory_reserved_bytes, Reading::Value(480 << 20));
        assert_eq!(readings.power_instant_mw, Reading::Value(75_029));
        assert_eq!(readings.power_limit_default_mw, Reading::Value(700_000));
        assert_eq!(readings.ecc_pending, Reading::Value(true));
        assert_eq!(
            readings.recovery_action,
            Reading::Value(RecoveryAction::from_number(0))
        );
        assert_eq!(readings.retired_pages, Reading::NotSupported);
        // That one is imaginary: the recorded card was alone, and had no fabric.
        assert!(readings.fabric.value().unwrap().is_registered());
    }
}

#[test]
fn fields_and_profiling_are_as_recorded_and_the_rest_is_not_supported() {
    let mut machine = machine("h100x8");
    let uuid = machine.uuids()[0].clone();
    let names = [
        "POWER_AVERAGE",
        "POWER_INSTANT",
        "MEMORY_TEMP",
        "PCIE_COUNT_RECEIVER_ERROR",
        "ECC_SBE_VOL_L1",
    ]
    .map(|name| format!("NVML_FI_DEV_{name}"));
    let fields = machine
        .fields(&uuid, &names.each_ref().map(String::as_str))
        .unwrap();
    let values: Vec<_> = fields.iter().map(|field| field.value().copied()).collect();
    assert_eq!(values, [Some(112_058), Some(75_029), Some(53), Some(7), None]);
    let figures = machine.profiling(&uuid, &[1, 5, 8]).unwrap();
    assert_eq!(figures[0], Reading::Value(42.269_416_120_396_556));
    assert_eq!(figures[2], Reading::NotSupported);
    assert!(machine.fields("GPU-nobody", &[]).is_err());
}

#[test]
fn recorded_latencies_are_replayed_only_if_asked_for() {
    let timed = |replay| {
        let mut machine = machine("h100x8").with_latency(replay);
        let uuid = machine.uuids()[0].clone();
        let start = std::time::Instant::now();
        for _ in 0..3 {
            // A profile query took 767 us when recorded.
            pitcrew_core::ports::Mig::profiles(&mut machine, &uuid).unwrap();
        }
        start.elapsed()
    };
    assert!(timed(true) >= Duration::from_micros(3 * 767));
    assert!(timed(false) < timed(true));
}

#[test]
fn the_hosts_files_are_as_recorded() {
    let machine = machine("h100x8");
    let read = |path: &str| String::from_utf8(machine.read(Path::new(path)).unwrap()).unwrap();
    insta::assert_snapshot!(read("/proc/driver/nvidia/version"), @r#"
    NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (imaginary)
    GCC version:  gcc version 15.3.0 (GCC)
    "#);
    insta::assert_snapshot!(read("/proc/driver/nvidia/gpus/0000:1b:00.0/information"), @r#"
    Model: 		 NVIDIA H100 80GB HBM3
    IRQ:   		 41
    GPU UUID: 	 GPU-53e078c4-1f64-4ed9-9fc9-d71bf796066b
    Video BIOS: 	 96.00.da.00.0c
    Bus Type: 	 PCIe
    DMA Size: 	 52 bits
    DMA Mask: 	 0xfffffffffffff
    Bus Location: 	 0000:1b:00.0
    Device Minor: 	 0
    GPU Firmware: 	 580.159.04
    GPU Excluded:	 No
    "#);
    insta::assert_snapshot!(read("/proc/driver/nvidia/capabilities/mig/config"), @r#"
    DeviceFileMinor: 1
    DeviceFileMode: 256
    DeviceFileModify: 1
    "#);
    insta::assert_snapshot!(
        ["vendor", "device", "class", "subsystem_vendor", "subsystem_device", "numa_node"]
            .map(|name| read(&format!("/sys/bus/pci/devices/0000:df:00.0/{name}")).trim().to_owned())
            .join(" "),
        @"0x10de 0x2330 0x030200 0x10de 0x16c1 1"
    );
    assert_eq!(
        read("/sys/bus/pci/devices/0000:df:00.0/driver/module/version"),
        "580.159.04\n"
    );
    insta::assert_snapshot!(machine.list(Path::new("/dev")).unwrap().join(" "), @"nvidia-caps nvidia-modeset nvidia-uvm nvidia-uvm-tools nvidia0 nvidia1 nvidia2 nvidia3 nvidia4 nvidia5 nvidia6 nvidia7 nvidiactl");
    insta::assert_snapshot!(format!("{:?}", machine.kind(Path::new("/dev/nvidia-uvm")).unwrap()), @"CharDevice { major: 238, minor: 0 }");
    insta::assert_snapshot!(machine.read(Path::new("/dev")).unwrap_err(), @"/dev is a directory");
    insta::assert_snapshot!(machine.read(Path::new("/dev/none")).unwrap_err(), @"/dev/none does not exist");
    insta::assert_snapshot!(machine.list(Path::new("/dev/nvidia0")).unwrap_err(), @"/dev/nvidia0 is not a directory");
}
