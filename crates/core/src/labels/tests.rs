//! By the rules of the fact sheet, one case for each.

mod mig;
mod valid;

use std::collections::BTreeMap;

use super::*;
use crate::catalog::ComputeCapability;
use crate::gpu::{Fabric, FabricState, GpuReadings, MigDevice, MigMode};
use crate::mig::{Engines, Placement};
use crate::pci::PciFunction;

const GIB: u64 = 1 << 30;

/// A GPU of which only what is named here is known.
fn gpu(index: u32, name: &str, capability: (u32, u32), memory_gib: u64) -> Gpu {
    let readings = GpuReadings {
        name: Reading::Value(name.to_owned()),
        memory_total_bytes: Reading::Value(memory_gib * GIB),
        compute_capability: Reading::Value(ComputeCapability {
            major: capability.0,
            minor: capability.1,
        }),
        ..GpuReadings::none_supported()
    };
    let address = PciAddress {
        domain: 0,
        bus: u8::try_from(index).unwrap(),
        device: 0,
        function: 0,
    };
    let pci = PciFunction {
        address,
        vendor_id: crate::pci::NVIDIA_VENDOR_ID,
        device_id: 0xffff,
        subsystem_vendor_id: 0,
        subsystem_device_id: 0,
    };
    Gpu { index, pci, readings }
}

fn a100(index: u32) -> Gpu {
    let mut gpu = gpu(index, "NVIDIA A100-SXM4-40GB", (8, 0), 40);
    gpu.readings.mig_mode = mode(false);
    gpu
}

fn mode(current: bool) -> Reading<MigMode> {
    Reading::Value(MigMode {
        current,
        pending: current,
    })
}

/// The same GPU, cut up.
fn cut(mut gpu: Gpu, profiles: &[&str]) -> Gpu {
    gpu.readings.mig_mode = mode(true);
    let devices = (0_u32..).zip(profiles).map(|(number, profile)| MigDevice {
        uuid: format!("MIG-{}-{number}", gpu.index),
        gpu_instance: number,
        compute_instance: 0,
        profile: profile.parse().unwrap(),
        placement: Placement { start: 0, size: 1 },
        memory_total_bytes: Reading::Value(4864 << 20),
        memory_used_bytes: Reading::NotSupported,
        multiprocessors: Reading::Value(14),
        engines: Reading::Value(Engines {
            copy: 1,
            decoder: 0,
            encoder: 0,
            jpeg: 0,
            ofa: 0,
        }),
    });
    gpu.readings.mig_devices = Reading::Value(devices.collect());
    gpu
}

fn inventory(gpus: Vec<Gpu>) -> Inventory {
    let driver = DriverReadings {
        version: Reading::Value("580.159.04".to_owned()),
        cuda: Reading::Value(CudaVersion::from_driver(13_000)),
        ..DriverReadings::none_supported()
    };
    Inventory {
        driver,
        gpus,
        links: Vec::new(),
        silent: Vec::new(),
    }
}

fn labels_of(inventory: &Inventory, offer: &Offer) -> BTreeMap<String, String> {
    let pci = inventory
        .gpus
        .iter()
        .map(|gpu| (gpu.pci.address, 0x03_0200))
        .collect();
    let facts = Facts {
        inventory: Some(inventory),
        pci: &pci,
        machine: Reading::Value("PowerEdge R760"),
        vgpus: &[],
        timestamp: None,
    };
    labels(&facts, offer)
}

fn offer(mig: MigStrategy) -> Offer {
    Offer {
        mig,
        ..Offer::default()
    }
}

fn shared(sharing: Sharing, name: &str, replicas: u32, renamed: bool) -> Offer {
    let resource = SharedResource {
        name: name.to_owned(),
        replicas,
        renamed,
    };
    Offer {
        mig: MigStrategy::None,
        sharing: Some(sharing),
        shared: vec![resource],
        names: NamingRules::default(),
    }
}

/// Those that begin so, as `rest=value`.
fn under(labels: &BTreeMap<String, String>, prefix: &str) -> Vec<String> {
    let of = labels
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
    of.map(|(key, value)| format!("{key}={value}")).collect()
}

fn get<'a>(labels: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    labels.get(key).map(String::as_str)
}

#[test]
fn a_node_without_a_gpu_has_no_labels() {
    assert!(labels_of(&inventory(Vec::new()), &Offer::default()).is_empty());
}

#[test]
fn a_gpu_without_a_driver_is_present_and_nothing_else_is_said_of_it() {
    let pci = BTreeMap::from([("0000:01:00.0".parse().unwrap(), 0x03_0000)]);
    let facts = Facts {
        inventory: None,
        pci: &pci,
        machine: Reading::Failed("permission denied".to_owned()),
        vgpus: &[],
        timestamp: Some(1_764_000_000),
    };
    let lines = under(&labels(&facts, &offer(MigStrategy::Single)), "nvidia.com/");
    assert_eq!(
        lines,
        [
            "gfd.timestamp=1764000000",
            "gpu.machine=unknown",
            "gpu.present=true",
            "vgpu.present=false"
        ]
    );
}

/// Pain "gfd#76" of the fact sheet `devices`, section 7: there the reference has a configuration of its own, and says 1.
#[test]
fn the_replicas_label_says_what_the_plugin_offers() {
    let gpus = || inventory(vec![gpu(0, "Tesla T4", (7, 5), 16)]);
    for (offer, expected) in [
        (Offer::default(), ["Tesla-T4", "1", "none"]),
        (
            shared(Sharing::TimeSlicing, GPU, 4, false),
            ["Tesla-T4-SHARED", "4", "time-slicing"],
        ),
        (
            shared(Sharing::TimeSlicing, GPU, 4, true),
            ["Tesla-T4", "4", "time-slicing"],
        ),
        (
            shared(Sharing::Mps, GPU, 10, false),
            ["Tesla-T4-SHARED", "10", "mps"],
        ),
        (
            shared(Sharing::TimeSlicing, GPU, 1, false),
            ["Tesla-T4", "1", "none"],
        ),
        (
            shared(Sharing::TimeSlicing, GPU, 0, false),
            ["Tesla-T4", "1", "none"],
        ),
        // Another resource is shared.
        (
            shared(Sharing::TimeSlicing, "nvidia.com/mig-1g.5gb", 4, false),
            ["Tesla-T4", "1", "none"],
        ),
    ] {
        let labels = labels_of(&gpus(), &offer);
        let said = ["product", "replicas", "sharing-strategy"];
        let said = said.map(|key| get(&labels, &format!("nvidia.com/gpu.{key}")).unwrap());
        assert_eq!(said, expected, "{offer:?}");
        let mps = offer.sharing == Some(Sharing::Mps);
        assert_eq!(
            get(&labels, "nvidia.com/mps.capable"),
            Some(if mps { "true" } else { "false" })
        );
    }
}

#[test]
fn an_offer_is_read_from_the_plugins_configuration() {
    let of = |text: &str| Offer::of(&Config::parse(text).unwrap());
    assert_eq!(of(""), Offer::default());
    let text = "\
flags: {migStrategy: single}
sharing:
  timeSlicing:
    resources: [{name: nvidia.com/gpu, replicas: 4}, {name: nvidia.com/mig-1g.5gb, rename: nvidia.com/small, replicas: 2}]
";
    let mut expected = shared(Sharing::TimeSlicing, GPU, 4, false);
    expected.mig = MigStrategy::Single;
    expected.shared.push(SharedResource {
        name: "nvidia.com/mig-1g.5gb".to_owned(),
        replicas: 2,
        renamed: true,
    });
    assert_eq!(of(text), expected);
    let text = "sharing: {mps: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 3}]}}";
    assert_eq!(of(text), shared(Sharing::Mps, GPU, 3, true));
}

#[test]
fn a_name_of_ones_own_says_which_sharing_counts() {
    let offer = Offer::of(
        &Config::parse(
            "\
resources:
  gpus: [{pattern: 'Tesla T4', name: small}]
  mig: [{pattern: 1g.5gb, name: slice}]
sharing:
  timeSlicing:
    resources:
    - {name: nvidia.com/gpu, replicas: 2}
    - {name: nvidia.com/small, replicas: 8}
    - {name: nvidia.com/slice, replicas: 3}
flags: {migStrategy: mixed}
",
        )
        .unwrap(),
    );
    let replicas = |gpus: Vec<Gpu>, key: &str| labels_of(&inventory(gpus), &offer).get(key).cloned();
    let gpus = vec![gpu(0, "Tesla T4", (7, 5), 16)];
    assert_eq!(replicas(gpus, "nvidia.com/gpu.replicas").as_deref(), Some("8"));
    assert_eq!(
        replicas(vec![a100(0)], "nvidia.com/gpu.replicas").as_deref(),
        Some("2")
    );
    let gpus = vec![cut(a100(0), &["1g.5gb"])];
    assert_eq!(
        replicas(gpus, "nvidia.com/mig-1g.5gb.replicas").as_deref(),
        Some("3")
    );
}

#[test]
fn gpus_that_are_cut_up_can_not_be_shared_by_mps() {
    let gpus = inventory(vec![cut(a100(0), &["1g.5gb"])]);
    let labels = labels_of(&gpus, &shared(Sharing::Mps, GPU, 4, false));
    assert_eq!(get(&labels, "nvidia.com/mps.capable"), Some("false"));
}

#[test]
fn families_are_named_as_the_reference_names_them() {
    for (capability, family) in [
        ((1, 3), "tesla"),
        ((2, 0), "fermi"),
        ((3, 5), "kepler"),
        ((4, 0), "undefined"),
        ((5, 2), "maxwell"),
        ((6, 1), "pascal"),
        ((7, 0), "volta"),
        ((7, 2), "volta"),
        ((7, 5), "turing"),
        ((8, 0), "ampere"),
        ((8, 7), "ampere"),
        ((8, 9), "ada-lovelace"),
        ((9, 0), "hopper"),
        ((10, 0), "blackwell"),
        ((11, 0), "undefined"),
        ((12, 0), "blackwell"),
        ((13, 0), "rubin"),
    ] {
        let labels = labels_of(&inventory(vec![gpu(0, "X", capability, 1)]), &Offer::default());
        assert_eq!(
            get(&labels, "nvidia.com/gpu.family"),
            Some(family),
            "{capability:?}"
        );
        assert_eq!(
            under(&labels, "nvidia.com/gpu.compute."),
            [
                format!("major={}", capability.0),
                format!("minor={}", capability.1)
            ]
        );
    }
    let labels = labels_of(&inventory(vec![gpu(0, "X", (0, 0), 1)]), &Offer::default());
    assert!(under(&labels, "nvidia.com/gpu.family").is_empty());
    assert!(under(&labels, "nvidia.com/gpu.compute").is_empty());
}

#[test]
fn a_family_is_named_as_in_the_catalogue() {
    for card in crate::catalog::all() {
        let capability = (card.compute_capability.major, card.compute_capability.minor);
        let labels = labels_of(&inventory(vec![gpu(0, "X", capability, 1)]), &Offer::default());
        let family = get(&labels, "nvidia.com/gpu.family");
        assert_eq!(family, Some(card.architecture.gfd_family()), "{}", card.name);
    }
}

#[test]
fn versions_are_split_as_the_reference_splits_them() {
    let of = |version: &str| {
        let mut inventory = inventory(vec![gpu(0, "Tesla T4", (7, 5), 16)]);
        inventory.driver.version = Reading::Value(version.to_owned());
        under(
            &labels_of(&inventory, &Offer::default()),
            "nvidia.com/cuda.driver",
        )
    };
    assert_eq!(
        of("580.159.04"),
        [
            "-version.full=580.159.04",
            "-version.major=580",
            "-version.minor=159",
            "-version.revision=04",
            ".major=580",
            ".minor=159",
            ".rev=04",
        ]
    );
    assert_eq!(
        of("470.256"),
        [
            "-version.full=470.256",
            "-version.major=470",
            "-version.minor=256",
            "-version.revision=",
            ".major=470",
            ".minor=256",
            ".rev=",
        ]
    );
    for text in ["", "580", "1.2.3.4"] {
        assert!(of(text).is_empty(), "{text}");
    }
    let labels = labels_of(
        &inventory(vec![gpu(0, "Tesla T4", (7, 5), 16)]),
        &Offer::default(),
    );
    assert_eq!(
        under(&labels, "nvidia.com/cuda.runtime"),
        [
            "-version.full=13.0",
            "-version.major=13",
            "-version.minor=0",
            ".major=13",
            ".minor=0"
        ]
    );
}

#[test]
fn what_can_not_be_read_has_no_label_and_takes_no_other_along() {
    let whole = labels_of(&inventory(vec![a100(0)]), &Offer::default());
    let without = |change: &dyn Fn(&mut Inventory)| {
        let mut inventory = inventory(vec![a100(0)]);
        change(&mut inventory);
        let labels = labels_of(&inventory, &Offer::default());
        assert!(labels.iter().all(|(key, value)| whole.get(key) == Some(value)));
        let gone = whole.keys().filter(|key| !labels.contains_key(*key));
        gone.cloned().collect::<Vec<_>>()
    };
    let failed = || "Unknown Error".to_owned();
    assert_eq!(
        without(&|inventory| inventory.gpus[0].readings.memory_total_bytes = Reading::Failed(failed())),
        ["nvidia.com/gpu.memory"]
    );
    assert_eq!(
        without(&|inventory| inventory.gpus[0].readings.memory_total_bytes = Reading::Value(0)),
        ["nvidia.com/gpu.memory"]
    );
    assert_eq!(
        without(&|inventory| inventory.gpus[0].readings.compute_capability = Reading::Failed(failed())),
        [
            "nvidia.com/gpu.compute.major",
            "nvidia.com/gpu.compute.minor",
            "nvidia.com/gpu.family"
        ]
    );
    assert_eq!(
        without(&|inventory| inventory.gpus[0].readings.mig_mode = Reading::Failed(failed())),
        ["nvidia.com/mig.capable"]
    );
    let versions = without(&|inventory| inventory.driver = DriverReadings::all_failed("Unknown Error"));
    assert_eq!(versions.len(), 12);
    assert!(versions.iter().all(|key| key.starts_with("nvidia.com/cuda.")));
}

#[test]
fn a_lost_gpu_counts_for_nothing_and_the_others_keep_their_labels() {
    let mut lost = a100(1);
    lost.readings = GpuReadings::all_failed("GPU is lost");
    let labels = labels_of(&inventory(vec![a100(0), lost, a100(2)]), &Offer::default());
    assert_eq!(get(&labels, "nvidia.com/gpu.count"), Some("2"));
    assert_eq!(
        get(&labels, "nvidia.com/gpu.product"),
        Some("NVIDIA-A100-SXM4-40GB")
    );
    assert_eq!(get(&labels, "nvidia.com/mig.capable"), Some("true"));
}

/// Pain 12 of the fact sheet `devices`, section 7: the reference takes one of several models at random.
#[test]
fn the_labels_of_a_node_with_several_models_do_not_flap() {
    let models = [
        ("NVIDIA L40S", (8, 9), 48),
        ("Tesla T4", (7, 5), 16),
        ("NVIDIA L40S", (8, 9), 48),
        ("NVIDIA A2", (8, 6), 16),
    ];
    let in_order = |order: [usize; 4]| {
        let gpus = (0..).zip(order).map(|(index, at)| {
            let (name, capability, memory) = models[at];
            gpu(index, name, capability, memory)
        });
        labels_of(&inventory(gpus.collect()), &Offer::default())
    };
    let labels = in_order([0, 1, 2, 3]);
    for order in [[3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]] {
        assert_eq!(in_order(order), labels);
    }
    assert_eq!(
        under(&labels, "nvidia.com/gpu."),
        [
            "compute.major=8",
            "compute.minor=9",
            "count=2",
            "family=ada-lovelace",
            "machine=PowerEdge-R760",
            "memory=49152",
            "mode=compute",
            "present=true",
            "product=NVIDIA-L40S",
            "replicas=1",
            "sharing-strategy=none",
        ]
    );
    assert_eq!(
        under(&labels, MODEL),
        ["NVIDIA-A2=1", "NVIDIA-L40S=2", "Tesla-T4=1"]
    );
    // As many of each: the first in the alphabet.
    let two = vec![gpu(0, "Tesla T4", (7, 5), 16), gpu(1, "NVIDIA A2", (8, 6), 16)];
    let labels = labels_of(&inventory(two), &Offer::default());
    assert_eq!(get(&labels, "nvidia.com/gpu.product"), Some("NVIDIA-A2"));
}

#[test]
fn a_model_that_is_offered_comes_before_those_that_are_cut_up() {
    let gpus = vec![
        cut(a100(0), &["1g.5gb"]),
        cut(a100(1), &["1g.5gb"]),
        gpu(2, "Tesla T4", (7, 5), 16),
    ];
    let labels = labels_of(&inventory(gpus), &Offer::default());
    assert_eq!(get(&labels, "nvidia.com/gpu.product"), Some("Tesla-T4"));
    assert_eq!(get(&labels, "nvidia.com/gpu.count"), Some("1"));
    assert_eq!(get(&labels, "nvidia.com/gpu.replicas"), Some("1"));
}

#[test]
fn of_cards_that_differ_under_one_name_the_smaller_memory_is_said() {
    let name = "NVIDIA GeForce RTX 3060";
    let gpus = vec![gpu(0, name, (8, 6), 12), gpu(1, name, (8, 6), 8)];
    let labels = labels_of(&inventory(gpus), &Offer::default());
    assert_eq!(get(&labels, "nvidia.com/gpu.memory"), Some("8192"));
}

#[test]
fn gpus_of_different_classes_have_no_mode() {
    let gpus = inventory(vec![a100(0), a100(1)]);
    let mode = |classes: [Option<u32>; 2]| {
        let pci = gpus.gpus.iter().zip(classes);
        let pci = pci
            .filter_map(|(gpu, class)| Some((gpu.pci.address, class?)))
            .collect();
        let facts = Facts {
            inventory: Some(&gpus),
            pci: &pci,
            machine: Reading::NotSupported,
            vgpus: &[],
            timestamp: None,
        };
        labels(&facts, &Offer::default())["nvidia.com/gpu.mode"].clone()
    };
    assert_eq!(mode([Some(0x03_0000), Some(0x03_0000)]), "graphics");
    assert_eq!(mode([Some(0x03_0200), Some(0x03_0200)]), "compute");
    assert_eq!(mode([Some(0x03_0200), Some(0x03_0000)]), "unknown");
    assert_eq!(mode([Some(0x03_8000), Some(0x03_8000)]), "unknown");
    assert_eq!(mode([Some(0x03_0200), None]), "unknown");
    assert_eq!(mode([None, None]), "unknown");
}

#[test]
fn a_clique_is_said_only_if_all_registered_gpus_agree() {
    let at = |clique: u32, uuid: &str, status: &str| Fabric {
        state: FabricState::Completed,
        status: Some(status.to_owned()),
        clique: Some(clique),
        cluster_uuid: Some(uuid.to_owned()),
    };
    let uuid = "3d2a3b1c-7e0f-4a55-8c1d-0d6a4f0b9a11";
    let none = "00000000-0000-0000-0000-000000000000";
    let of = |fabrics: &[Fabric]| {
        let gpus = (0..).zip(fabrics).map(|(index, fabric)| {
            let mut gpu = a100(index);
            gpu.readings.fabric = Reading::Value(fabric.clone());
            gpu
        });
        let labels = labels_of(&inventory(gpus.collect()), &Offer::default());
        labels.get("nvidia.com/gpu.clique").cloned()
    };
    let said = Some(format!("{uuid}.7"));
    assert_eq!(of(&[at(7, uuid, "Success"), at(7, uuid, "Success")]), said);
    // What isn't attached doesn't matter.
    assert_eq!(of(&[at(7, uuid, "Success"), at(0, none, "Success")]), said);
    assert_eq!(of(&[at(7, uuid, "Success"), at(1, uuid, "Unknown Error")]), said);
    assert_eq!(of(&[at(7, uuid, "Success"), at(1, uuid, "Success")]), None);
    assert_eq!(of(&[at(0, none, "Success")]), None);
    assert_eq!(of(&[]), None);
}

#[test]
fn a_vgpu_says_what_driver_its_host_has() {
    let gpus = inventory(vec![a100(0)]);
    let pci = BTreeMap::new();
    let vgpus = [VgpuHost {
        version: Some("580.95.02".to_owned()),
        branch: Some("r580_00".to_owned()),
    }];
    let facts = Facts {
        inventory: Some(&gpus),
        pci: &pci,
        machine: Reading::NotSupported,
        vgpus: &vgpus,
        timestamp: None,
    };
    assert_eq!(
        under(&labels(&facts, &Offer::default()), "nvidia.com/vgpu."),
        [
            "host-driver-branch=r580_00",
            "host-driver-version=580.95.02",
            "present=true"
        ]
    );
}
