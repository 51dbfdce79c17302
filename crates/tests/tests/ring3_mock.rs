//! The mock of NVIDIA's library, through NVIDIA's own Python client: every scenario can be read, and whatever changes
//! in a scenario is seen.

use std::collections::BTreeSet;
use std::process::Command;

use pitcrew_core::gpu::GpuReadings;
use pitcrew_scenario::Scenario;
use pitcrew_tests::mock::{Node, library};
use pitcrew_tests::run;
use serde_json::{Value, json};

/// What stands in the generated file behind this macro: `name` of each line.
fn generated(list: &str) -> BTreeSet<String> {
    let text = include_str!("../../nvml-mock/src/generated.rs");
    let (_, after) = text
        .split_once(&format!("\n{list}! {{\n"))
        .expect("the list is there");
    let (lines, _) = after.split_once("\n}").expect("the list ends");
    let name = |line: &str| line.trim().split(['(', ' ']).next().map(str::to_owned);
    lines.lines().filter_map(name).collect()
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn every_function_of_the_header_is_exported_under_nvidias_soname() {
    let mut header = generated("not_supported");
    header.extend(generated("written"));
    assert!(header.len() > 390, "{}", header.len());
    for legacy in [
        "nvmlInit",
        "nvmlDeviceGetCount",
        "nvmlDeviceGetPciInfo_v2",
        "nvmlEventSetWait",
    ] {
        assert!(header.contains(legacy), "{legacy}");
    }
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "--format=just-symbols"])
        .arg(library());
    let exported: BTreeSet<String> = run(nm, "").ok().lines().map(str::to_owned).collect();
    assert_eq!(exported, header, "exports, and functions of the header");

    let mut readelf = Command::new("readelf");
    readelf.args(["--dynamic", "--wide"]).arg(library());
    let dynamic = run(readelf, "").ok();
    assert!(
        dynamic.contains("Library soname: [libnvidia-ml.so.1]"),
        "{dynamic}"
    );
}

/// Functions that take a device first are also called with a handle that nobody gave out, and with a real one.
const MISUSE: &str = "
import ctypes, sys
lib = ctypes.CDLL('libnvidia-ml.so.1')
assert lib.nvmlDeviceGetCount_v2(None) == 1, 'not initialised'
assert lib.nvmlInit_v2() == 0
handle = ctypes.c_void_p()
assert lib.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)) == 0
wild = ctypes.c_void_p(0x123456789abc0)
nothing = [ctypes.c_void_p(0)] * 8
for line in sys.stdin:
    kind, name = line.split()
    function = getattr(lib, name)
    for first in [[], [wild], [handle]] if kind == 'device' else [[]]:
        answer = function(*first, *nothing)
        if first != [handle]:
            print(name, len(first), answer)
print('end')
";

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn null_and_wild_pointers_are_refused_and_nothing_crashes() {
    let text = include_str!("../../nvml-mock/src/generated.rs");
    let mut calls = String::new();
    let written = generated("written");
    for name in &written {
        // Those two say what they are told, and end what the others need.
        if !["nvmlErrorString", "nvmlShutdown"].contains(&name.as_str()) {
            let device = text.contains(&format!(" {name} = (nvmlDevice_t"));
            let kind = if device { "device" } else { "other" };
            calls.extend([kind, " ", name, "\n"]);
        }
    }
    let node = Node::new("h100x8");
    let mut python = node.command(std::path::Path::new("python3"));
    python.args(["-c", MISUSE]);
    let said = run(python, &calls).ok();
    assert!(said.ends_with("end\n"), "{said}");
    let takes_nothing = ["nvmlInit", "nvmlInit_v2", "nvmlInitWithFlags"];
    let accepted: Vec<&str> = said
        .lines()
        .filter(|line| {
            line.ends_with(" 0") && !takes_nothing.contains(&line.split(' ').next().unwrap_or_default())
        })
        .collect();
    assert_eq!(accepted, Vec::<&str>::new());
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn nvidias_client_reads_every_scenario() {
    for (name, _) in Scenario::builtin_names() {
        let node = Node::new(name);
        let all = node.client().ask("read");
        let gpus = all["gpus"].as_array().unwrap_or_else(|| panic!("{name}: {all}"));
        assert!(!gpus.is_empty(), "{name}");
        for (index, gpu) in gpus.iter().enumerate() {
            if name == "broken" && index == 2 {
                assert_eq!(gpu, &json!({"error": "GPU is lost"}), "{name} {index}");
                continue;
            }
            for by in ["by_uuid", "by_pci", "nvmlDeviceGetIndex"] {
                assert_eq!(gpu[by], json!(index), "{name} {index}: {by}");
            }
            assert_eq!(gpu["is_mig"], json!(0), "{name} {index}");
            let strange = errors(gpu);
            assert_eq!(strange, Vec::<String>::new(), "{name} {index}");
        }
    }
}

/// Errors that a healthy GPU has no reason for.
fn errors(gpu: &Value) -> Vec<String> {
    let known = [
        "Not Supported",
        "Function Not Found",
        "Not Found",
        "Invalid Argument",
        "client: ",
    ];
    let mut found = Vec::new();
    let mut left = vec![(String::new(), gpu)];
    while let Some((path, value)) = left.pop() {
        match value {
            Value::Object(parts) => {
                if let Some(error) = parts.get("error").and_then(Value::as_str)
                    && !known.iter().any(|known| error.starts_with(known))
                {
                    found.push(format!("{path}: {error}"));
                }
                left.extend(parts.iter().map(|(name, part)| (format!("{path}/{name}"), part)));
            }
            Value::Array(parts) => {
                left.extend(
                    parts
                        .iter()
                        .enumerate()
                        .map(|(at, part)| (format!("{path}/{at}"), part)),
                );
            }
            _ => {}
        }
    }
    found
}

/// The recording of a real H100, as this client read it then.
#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn an_imaginary_h100_answers_as_the_recorded_one() {
    let all = Node::new("h100x8").client().ask("read");
    let gpu = &all["gpus"][0];
    let recorded = [
        ("nvmlDeviceGetName", json!("NVIDIA H100 80GB HBM3")),
        ("nvmlDeviceGetBoardPartNumber", json!("695-2G520-0200-000")),
        ("nvmlDeviceGetBrand", json!(14)),
        ("nvmlDeviceGetArchitecture", json!(9)),
        ("nvmlDeviceGetCudaComputeCapability", json!([9, 0])),
        ("nvmlDeviceGetMigMode", json!([0, 0])),
        ("nvmlDeviceGetMaxMigDeviceCount", json!(0)),
        ("nvmlDeviceGetPowerUsage", json!(112_058)),
        ("nvmlDeviceGetEnforcedPowerLimit", json!(700_000)),
        ("nvmlDeviceGetTotalEnergyConsumption", json!(2_237_183)),
        ("nvmlDeviceGetCurrentClocksEventReasons", json!(1)),
        ("nvmlDeviceGetPersistenceMode", json!(1)),
        ("nvmlDeviceGetEccMode", json!([1, 1])),
        ("nvmlDeviceGetRemappedRows", json!([0, 0, 0, 0])),
        ("nvmlDeviceGetCurrPcieLinkGeneration", json!(5)),
        ("nvmlDeviceGetNumGpuCores", json!(16_896)),
        ("nvmlDeviceGetMemoryBusWidth", json!(5120)),
        ("nvmlDeviceGetEncoderUtilization", json!([0, 100_000])),
        ("nvmlDeviceGetComputeRunningProcesses", json!([])),
        ("nvmlDeviceGetSupportedEventTypes", json!(65_439)),
        ("nvmlDeviceGetVirtualizationMode", json!(1)),
        ("nvmlDeviceGetNumaNodeId", json!({"error": "Not Supported"})),
        ("nvmlDeviceGetAttributes_v2", json!({"error": "Not Supported"})),
        ("nvmlDeviceGetGspFirmwareVersion", json!("580.159.04")),
        ("nvmlDeviceGetNumFans", json!(0)),
        (
            "nvmlDeviceGetPowerManagementLimitConstraints",
            json!([200_000, 700_000]),
        ),
        ("nvmlDeviceGetPowerManagementDefaultLimit", json!(700_000)),
        (
            "nvmlDeviceGetMemoryInfo",
            json!({"total": 85_520_809_984_u64, "free": 85_017_493_504_u64, "used": 503_316_480}),
        ),
        (
            "nvmlDeviceGetBAR1MemoryInfo",
            json!({"bar1Total": 137_438_953_472_u64, "bar1Free": 137_437_249_536_u64, "bar1Used": 1_703_936}),
        ),
        ("NVML_CLOCK_VIDEO", json!(1545)),
        ("temperature", json!(51)),
    ];
    for (name, value) in recorded {
        assert_eq!(gpu[name], value, "{name}");
    }
    assert_eq!(gpu["fields"]["NVML_FI_DEV_MEMORY_TEMP"], json!(53));
    assert_eq!(
        gpu["fields"]["NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER"],
        json!(439)
    );
    assert_eq!(gpu["gpm"]["5"], json!(34.691_500_227_476_446));

    // id, slices, instances, multiprocessors, copy, decoders, jpeg, optical flow, MiB, name, by NVML's number.
    let profiles = [
        (0, json!([19, 1, 7, 16, 1, 1, 1, 0, 9984, "MIG 1g.10gb"])),
        (1, json!([14, 2, 3, 32, 2, 2, 2, 0, 20096, "MIG 2g.20gb"])),
        (2, json!([9, 3, 2, 60, 3, 3, 3, 0, 40448, "MIG 3g.40gb"])),
        (3, json!([5, 4, 1, 64, 4, 4, 4, 0, 40448, "MIG 4g.40gb"])),
        (4, json!([0, 7, 1, 132, 8, 7, 7, 1, 81152, "MIG 7g.80gb"])),
        (7, json!([20, 1, 1, 16, 1, 1, 1, 1, 9984, "MIG 1g.10gb+me"])),
        (9, json!([15, 1, 4, 26, 1, 1, 1, 0, 20096, "MIG 1g.20gb"])),
    ];
    for (number, recorded) in profiles {
        let info = &gpu["profiles"][number.to_string()];
        let names = [
            "id",
            "sliceCount",
            "instanceCount",
            "multiprocessorCount",
            "copyEngineCount",
            "decoderCount",
            "jpegCount",
            "ofaCount",
            "memorySizeMB",
            "name",
        ];
        let told: Vec<&Value> = names.iter().map(|name| &info[*name]).collect();
        assert_eq!(json!(told), recorded, "profile {number}");
    }
    for number in ["5", "6", "8", "10", "11"] {
        assert_eq!(
            gpu["profiles"][number],
            json!({"error": "Not Supported"}),
            "profile {number}"
        );
    }
}

/// How a reading is made different, where the difference is seen, and as what. `change` is made through the file of
/// changes; readings that a GPU keeps for as long as it runs are in [`KEPT`].
fn perturbation(field: &str) -> (Value, &'static str, Value) {
    let set = |value: Value, path, seen: Value| {
        (
            json!({"set-reading": {"gpu": 0, "field": field, "value": value}}),
            path,
            seen,
        )
    };
    let same = |value: Value, path| set(value.clone(), path, value);
    match field {
        "name" => same(json!("Imaginary 1"), "/nvmlDeviceGetName"),
        "serial" => same(json!("4711"), "/nvmlDeviceGetSerial"),
        "board_part_number" => same(json!("900-1"), "/nvmlDeviceGetBoardPartNumber"),
        "vbios" => same(json!("1.2.3"), "/nvmlDeviceGetVbiosVersion"),
        "gsp_firmware" => same(json!("580.1.2"), "/nvmlDeviceGetGspFirmwareVersion"),
        "compute_capability" => set(json!("8.9"), "/nvmlDeviceGetCudaComputeCapability", json!([8, 9])),
        "cores" => same(json!(17), "/nvmlDeviceGetNumGpuCores"),
        "memory_bus_bits" => same(json!(18), "/nvmlDeviceGetMemoryBusWidth"),
        "numa_node" => same(json!(3), "/nvmlDeviceGetNumaNodeId"),
        "memory_total_bytes" => same(json!(85_520_809_985_u64), "/memory_v2/total"),
        "memory_used_bytes" => same(json!(1_000_003), "/memory_v2/used"),
        "memory_free_bytes" => same(json!(85_000_000_001_u64), "/memory_v2/free"),
        "memory_reserved_bytes" => same(json!(503_316_481), "/memory_v2/reserved"),
        "bar1_total_bytes" => same(json!(1_u64 << 36), "/nvmlDeviceGetBAR1MemoryInfo/bar1Total"),
        "bar1_used_bytes" => same(json!(1_703_937), "/nvmlDeviceGetBAR1MemoryInfo/bar1Used"),
        "temperature_c" => same(json!(33), "/temperature"),
        "memory_temperature_c" => same(json!(34), "/fields/NVML_FI_DEV_MEMORY_TEMP"),
        "fan_percent" => same(json!(35), "/nvmlDeviceGetFanSpeed"),
        "power_mw" => same(json!(36_000), "/nvmlDeviceGetPowerUsage"),
        "power_limit_mw" => same(json!(370_000), "/nvmlDeviceGetEnforcedPowerLimit"),
        "power_instant_mw" => same(json!(36_001), "/fields/NVML_FI_DEV_POWER_INSTANT"),
        "power_limit_requested_mw" => same(json!(380_000), "/nvmlDeviceGetPowerManagementLimit"),
        "power_limit_default_mw" => same(json!(390_000), "/nvmlDeviceGetPowerManagementDefaultLimit"),
        "power_limit_range_mw" => set(
            json!({"min": 1000, "max": 2000}),
            "/nvmlDeviceGetPowerManagementLimitConstraints",
            json!([1000, 2000]),
        ),
        "energy_mj" => same(json!(38), "/nvmlDeviceGetTotalEnergyConsumption"),
        "utilization_gpu_percent" => same(json!(39), "/nvmlDeviceGetUtilizationRates/gpu"),
        "utilization_memory_percent" => same(json!(40), "/nvmlDeviceGetUtilizationRates/memory"),
        "clock_sm_mhz" => same(json!(410), "/NVML_CLOCK_SM"),
        "clock_memory_mhz" => same(json!(420), "/NVML_CLOCK_MEM"),
        "clock_sm_max_mhz" => same(json!(4300), "/NVML_CLOCK_SM max"),
        "clock_memory_max_mhz" => same(json!(4400), "/NVML_CLOCK_MEM max"),
        "clocks_event_reasons" => same(json!(0x44), "/nvmlDeviceGetCurrentClocksEventReasons"),
        "performance_state" => same(json!(5), "/nvmlDeviceGetPerformanceState"),
        "pcie_generation" => same(json!(3), "/nvmlDeviceGetCurrPcieLinkGeneration"),
        "pcie_generation_max" => same(json!(4), "/nvmlDeviceGetMaxPcieLinkGeneration"),
        "pcie_width" => same(json!(8), "/nvmlDeviceGetCurrPcieLinkWidth"),
        "pcie_width_max" => same(json!(12), "/nvmlDeviceGetMaxPcieLinkWidth"),
        "pcie_replays" => same(json!(45), "/nvmlDeviceGetPcieReplayCounter"),
        "nvlinks_active" => set(json!(7), "/links/7/state", json!(0)),
        "ecc" => set(json!(false), "/nvmlDeviceGetCurrentEccMode", json!(0)),
        "fabric" => set(
            json!({"state": "completed", "status": "Timeout", "clique": 7,
                "cluster_uuid": "01020304-0506-0708-090a-0b0c0d0e0f10"}),
            "/fabric/clusterUuid",
            json!((1..=16).collect::<Vec<u8>>()),
        ),
        "ecc_pending" => set(json!(false), "/nvmlDeviceGetPendingEccMode", json!(0)),
        "ecc_corrected" => same(json!(46), "/ecc corrected volatile"),
        "ecc_uncorrected" => same(json!(47), "/ecc uncorrected volatile"),
        "remapped_rows" => set(
            json!({"correctable": 1, "uncorrectable": 2, "pending": true, "failure": true}),
            "/nvmlDeviceGetRemappedRows",
            json!([1, 2, 1, 1]),
        ),
        "retired_pages" => set(
            json!({"single_bit": 1, "double_bit": 2, "pending": true}),
            // Addresses of the pages: as many as there are.
            "/retired pages 1",
            json!([0, 4096]),
        ),
        "recovery_action" => set(
            json!("node-reboot"),
            "/fields/NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
            json!(2),
        ),
        "persistence" => set(json!(false), "/nvmlDeviceGetPersistenceMode", json!(0)),
        "virtualization" => set(json!("vgpu"), "/nvmlDeviceGetVirtualizationMode", json!(2)),
        "compute_mode" => set(json!("exclusive-process"), "/nvmlDeviceGetComputeMode", json!(3)),
        "mig_mode" => (
            json!({"mig-mode": {"gpu": 0, "enabled": true}}),
            "/nvmlDeviceGetMigMode",
            json!([1, 1]),
        ),
        "mig_devices" => (
            json!({"create-compute-instance": {"gpu": 0, "gpu_instance": 0, "slices": 2}}),
            "/mig_devices/0/nvmlDeviceGetName",
            json!("NVIDIA H100 80GB HBM3 MIG 2g.20gb"),
        ),
        "processes" => (
            json!({"start-process": {"gpu": 0, "pid": 4711, "memory_bytes": 48}}),
            "/nvmlDeviceGetComputeRunningProcesses_v3/0/pid",
            json!(4711),
        ),
        other => unreachable!("nothing perturbs `{other}`: add it here"),
    }
}

/// A reading of the first GPU as `pitcrew gpus` shows it.
fn shown(node: &Node, field: &str) -> Value {
    let gpu = node.shown_by_pitcrew()["gpus"][0].take();
    match field {
        // What is created or started has parts that follow from it; one tells it.
        "mig_devices" => gpu["mig_devices"][0]["profile"].clone(),
        "processes" => gpu["processes"][0]["pid"].clone(),
        _ => gpu[field].clone(),
    }
}

/// What it must be after a change.
fn as_shown(field: &str, change: &Value) -> Value {
    match field {
        "mig_mode" => json!({"current": true, "pending": true}),
        "mig_devices" => json!("2g.20gb"),
        "processes" => json!(4711),
        _ => change["set-reading"]["value"].clone(),
    }
}

/// Readings that can't change while a GPU runs, and XIDs, which NVML only tells as events: each has its own test.
const KEPT: &[&str] = &["uuid", "minor", "xids"];

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn every_reading_that_changes_is_seen_by_nvidias_client() {
    for field in GpuReadings::FIELDS.iter().filter(|field| !KEPT.contains(field)) {
        let node = Node::new("h100x8");
        if *field == "mig_devices" {
            node.change(&json!({"mig-mode": {"gpu": 0, "enabled": true}}));
            node.change(&json!({"create-gpu-instance": {"gpu": 0, "profile": "2g.20gb"}}));
        }
        let mut client = node.client();
        let before = client.ask("read 0 1");
        let (change, path, seen) = perturbation(field);
        let old = before["gpus"][0].pointer(path);
        assert_ne!(old, Some(&seen), "{field} is the same before the change");
        node.change(&change);
        let after = client.ask("read 0 1");
        assert_eq!(after["gpus"][0].pointer(path), Some(&seen), "{field}, at {path}");
        // One GPU changed, not all.
        assert_eq!(before["gpus"][1], after["gpus"][1], "{field}: the other GPU");
        assert_eq!(client.errors(), "", "{field}");
        assert_eq!(
            shown(&node, field),
            as_shown(field, &change),
            "{field}, by pitcrew"
        );
    }
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn a_reading_that_fails_or_is_missing_is_seen_as_nvmls_error() {
    let node = Node::new("h100x8");
    let mut client = node.client();
    let mut says = |change: Value| {
        node.change(&change);
        client.ask("call nvmlDeviceGetPowerUsage @0")
    };
    let fail = |reason| json!({"fail": {"gpu": 0, "field": "power_mw", "reason": reason}});
    assert_eq!(says(fail("Unknown Error")), json!({"error": "Unknown Error"}));
    assert_eq!(says(fail("Timeout")), json!({"error": "Timeout"}));
    assert_eq!(
        says(fail("a reason of our own")),
        json!({"error": "Unknown Error"})
    );
    let unsupported = json!({"unsupported": {"gpu": 0, "field": "power_mw"}});
    assert_eq!(says(unsupported), json!({"error": "Not Supported"}));
    assert_eq!(
        says(json!({"restore": {"gpu": 0, "field": "power_mw"}})),
        json!(112_058)
    );
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn the_driver_and_its_end_are_seen() {
    let node = Node::new("rtx3060");
    let mut client = node.client();
    node.change(&json!({"replace-driver": {"version": "595.10"}}));
    let all = client.ask("read");
    assert_eq!(
        (&all["driver"], &all["nvml"]),
        (&json!("595.10"), &json!("13.595.10"))
    );
    node.change(&json!({"break-driver": {"reason": "Driver/library version mismatch"}}));
    // The client has words of its own for NVML's code.
    let broken = json!({"error": "RM has detected an NVML/RM version mismatch."});
    assert_eq!(client.ask("read"), broken);
    // Who comes later can't even begin.
    let begins = || node.try_client().1;
    assert_eq!(begins(), broken);
    node.change(&json!("unload-driver"));
    assert_eq!(begins(), json!({"error": "Driver Not Loaded"}));
    node.change(&json!({"replace-driver": {"version": "595.10"}}));
    assert_eq!(begins(), json!({"ready": true}));
    assert_eq!(client.ask("read")["driver"], json!("595.10"));
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn a_gpu_that_is_lost_says_so_until_it_returns() {
    let node = Node::new("a100x8");
    let mut client = node.client();
    node.change(&json!({"fall-off-bus": {"gpu": 3}}));
    let all = client.ask("read");
    assert_eq!(all["gpus"][3], json!({"error": "GPU is lost"}));
    assert_eq!(all["gpus"].as_array().map(Vec::len), Some(8), "it is counted");
    let event = client.ask("wait 1000");
    assert_eq!(
        (&event["gpu"], &event["type"], &event["data"]),
        (&json!(3), &json!(8), &json!(79))
    );
    node.change(&json!({"return": {"gpu": 3}}));
    assert_eq!(client.ask("read")["gpus"][3]["nvmlDeviceGetIndex"], json!(3));
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn an_xid_reaches_every_client_that_waits() {
    let node = Node::new("h100x8");
    let (mut one, mut other) = (node.client(), node.client());
    one.tell("wait 60000");
    other.tell("wait 60000");
    node.change(&json!({"xid": {"gpu": 5, "xid": 94, "gpu_instance": 2}}));
    let expected = json!({"gpu": 5, "type": 8, "data": 94, "gpu_instance": 2, "compute_instance": 0});
    assert_eq!(one.answer(), expected);
    assert_eq!(other.answer(), expected);
    assert_eq!(one.ask("wait 1"), json!({"error": "Timeout"}));
    // Who comes later hears nothing of the past.
    assert_eq!(node.client().ask("wait 1"), json!({"error": "Timeout"}));
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn a_call_that_hangs_returns_when_it_is_released() {
    let node = Node::new("h100x8");
    let mut client = node.client();
    node.change(&json!({"hang": {"call": "nvmlDeviceGetPowerUsage", "gpu": 0}}));
    assert_eq!(
        client.ask("call nvmlDeviceGetPowerUsage @1"),
        json!(112_058),
        "another GPU"
    );
    assert_eq!(client.ask("call nvmlDeviceGetIndex @0"), json!(0), "another call");
    client.tell("call nvmlDeviceGetPowerUsage @0");
    node.change(&json!("release"));
    assert_eq!(client.answer(), json!(112_058));
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn a_mistake_is_named_on_standard_error() {
    let (mut client, first) = Node::new("h100").try_client();
    assert_eq!(first, json!({"error": "Unknown Error"}));
    assert_eq!(
        client.errors(),
        "pitcrew's imaginary libnvidia-ml: PITCREW_SCENARIO: no scenario is called `h100`; did you mean `h100x8` or \
         `h200`?\n"
    );

    let node = Node::new("rtx3060");
    let mut client = node.client();
    node.change(&json!({"temperature": {"gpu": 7, "celsius": 90}}));
    node.change(&json!({"temperature": {"gpu": 0, "celsius": 90}}));
    for _ in 0..2 {
        assert_eq!(
            client.ask("read")["gpus"][0]["temperature"],
            json!(90),
            "the good line counts"
        );
    }
    let errors = client.errors();
    assert!(
        errors.ends_with("line 1: there is no GPU 7: the node has 1, counted from 0\n"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "said once: {errors}");
}

/// UUID, minor, PCI address and links are the scenario's from the beginning.
#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn what_a_scenario_says_from_the_beginning_is_seen() {
    let node = Node::written(
        "description: Three GPUs, two of them joined\n\
         driver: {version: 570.1, cuda: \"12.8\"}\n\
         links: {matrix: [X NV4 SYS, NV4 X PIX, SYS PIX X]}\n\
         gpus:\n  \
         - {card: Tesla V100 SXM2 32GB, pci: [\"0001:0a:1f.0\"], subsystem: \"10de:1249\", numa_node: 1, readings: \
         {uuid: GPU-00000000-0000-0000-0000-000000000001, minor: 5}}\n  \
         - {card: Tesla V100 SXM2 32GB, count: 2}\n",
    );
    let mut client = node.client();
    let all = client.ask("read");
    assert_eq!(all["driver"], json!("570.1"));
    assert_eq!(all["cuda"], json!(12_080));
    assert_eq!(all["branch"]["branch"], json!("r570"));
    let first = &all["gpus"][0];
    assert_eq!(
        first["nvmlDeviceGetUUID"],
        json!("GPU-00000000-0000-0000-0000-000000000001")
    );
    assert_eq!(first["nvmlDeviceGetMinorNumber"], json!(5));
    let pci = &first["nvmlDeviceGetPciInfo"];
    assert_eq!(pci["busId"], json!("00000001:0A:1F.0"));
    assert_eq!(
        (&pci["domain"], &pci["bus"], &pci["device"]),
        (&json!(1), &json!(10), &json!(31))
    );
    assert_eq!(pci["pciSubSystemId"], json!(0x1249_10de));
    assert_eq!(
        (&first["pci_ext"]["baseClass"], &first["pci_ext"]["subClass"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(first["cpu_affinity"], json!([0xffff_ffff_0000_0000_u64, 0]));
    // NVML_TOPOLOGY_*: 40 is one node, 50 across, 10 one switch; the second GPU is told no node, so it is on node 0.
    assert_eq!(all["pairs"]["0-1"]["path"], json!(50));
    assert_eq!(all["pairs"]["1-2"]["path"], json!(10));
    // READ, WRITE, NVLINK, ATOMICS, PCI.
    assert_eq!(all["pairs"]["0-1"]["p2p"], json!([0, 0, 0, 0, 5]));
    assert_eq!(all["pairs"]["1-2"]["p2p"], json!([0, 0, 5, 5, 0]));
    let second = all["gpus"][1]["nvmlDeviceGetPciInfo"]["busId"].clone();
    for link in 0..4 {
        assert_eq!(first["links"][link]["remote"]["busId"], second, "link {link}");
        assert_eq!(first["links"][link]["remote_type"], json!(0), "a GPU");
    }
    assert_eq!(first["links"][4]["state"], json!(0));

    let shown = node.shown_by_pitcrew();
    let first = &shown["gpus"][0];
    assert_eq!(first["uuid"], json!("GPU-00000000-0000-0000-0000-000000000001"));
    assert_eq!(first["minor"], json!(5));
    assert_eq!(first["pci"]["address"], json!("0001:0a:1f.0"));
    assert_eq!(first["nvlinks_active"], json!(4));
    assert_eq!(
        shown["links"],
        json!([
            {"from": 0, "to": 1, "path": "system", "nvlinks": 4},
            {"from": 0, "to": 2, "path": "system", "nvlinks": 0},
            {"from": 1, "to": 2, "path": "single-switch", "nvlinks": 0},
        ])
    );
}

#[test]
#[ignore = "needs the mock: cargo xtask test --ring 3"]
fn recorded_latencies_are_replayed_if_asked_for() {
    let node = Node::new("h100x8");
    let mut client = node.command(std::path::Path::new("python3"));
    client
        .env("PITCREW_SCENARIO_LATENCY", "1")
        .env("PYTHONPATH", std::env::var_os("PITCREW_PYTHONPATH").unwrap_or_default())
        .args([
            "-c",
            "import pynvml as n, time; n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0); t = time.monotonic()\n\
             for _ in range(10): n.nvmlDeviceGetPowerUsage(h)\n\
             print(time.monotonic() - t)",
        ]);
    // 2,961 us each, by the recording.
    let took: f64 = run(client, "").ok().trim().parse().expect("a number");
    assert!(took >= 0.029, "{took}");
}
