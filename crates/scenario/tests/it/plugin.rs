//! Imaginary nodes as the device plugin offers them, and which of their GPUs it prefers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use pitcrew_core::Inventory;
use pitcrew_core::plugin::config::{Config, Overrides, SharingPolicy};
use pitcrew_core::plugin::preference::{Preference, Topology};
use pitcrew_core::plugin::resources::{Plan, plan};
use pitcrew_core::ports::InventorySource as _;
use pitcrew_scenario::{Machine, Scenario};

fn inventory(name: &str) -> Inventory {
    Machine::new(Scenario::builtin(name).unwrap())
        .inventory()
        .unwrap()
}

fn planned(inventory: &Inventory, text: &str) -> Plan {
    let config = Config::parse(text).unwrap().with(&Overrides::default()).unwrap();
    plan(inventory, &config, &BTreeMap::new()).unwrap()
}

/// Resources, and how many ids and GPUs or MIG devices are in each.
fn shown(plan: &Plan) -> String {
    let mut text = String::new();
    for resource in &plan.resources {
        let devices: BTreeSet<&str> = resource
            .devices
            .iter()
            .map(|device| device.uuid.as_str())
            .collect();
        let ids = resource.devices.len();
        writeln!(text, "{}: {ids} of {}", resource.name, devices.len()).unwrap();
    }
    for left in &plan.left_out {
        writeln!(text, "{left}").unwrap();
    }
    text
}

/// Indices of the GPUs that are preferred while those in `taken` are in use.
fn preferred(inventory: &Inventory, taken: &[u32], size: usize) -> Vec<u32> {
    let plan = planned(inventory, "");
    let resource = &plan.resources[0];
    let preference = Preference::new(resource, &Topology::of(inventory), SharingPolicy::Distributed);
    let free: Vec<String> = resource
        .devices
        .iter()
        .filter(|device| !taken.contains(&device.gpu_index))
        .map(|device| device.id.clone())
        .collect();
    let chosen = preference.choose(&free, &[], size);
    let index = |id: &String| {
        resource
            .devices
            .iter()
            .find(|device| device.id == *id)
            .unwrap()
            .gpu_index
    };
    let mut chosen: Vec<u32> = chosen.iter().map(index).collect();
    chosen.sort_unstable();
    chosen
}

#[test]
fn every_builtin_node_offers_each_of_its_gpus_or_says_why_not() {
    for (name, _) in Scenario::builtin_names() {
        let inventory = inventory(name);
        for strategy in ["none", "mixed"] {
            let plan = planned(&inventory, &format!("flags: {{migStrategy: {strategy}}}"));
            for gpu in &inventory.gpus {
                let is_offered = plan
                    .resources
                    .iter()
                    .flat_map(|resource| &resource.devices)
                    .any(|device| device.gpu_index == gpu.index);
                let is_told = plan.left_out.iter().any(|left| left.gpu_index == gpu.index);
                let mig_without_devices = gpu.readings.mig_devices.value().is_some_and(Vec::is_empty);
                assert!(
                    is_offered || is_told || mig_without_devices,
                    "{name}: GPU {}",
                    gpu.index
                );
            }
        }
    }
}

#[test]
fn a_node_of_four_cards_offers_them_beside_the_mig_devices_of_one() {
    let inventory = inventory("mixed");
    insta::assert_snapshot!(shown(&planned(&inventory, "flags: {migStrategy: mixed}")), @r"
    nvidia.com/mig-3g.20gb: 1 of 1
    nvidia.com/mig-1g.5gb: 2 of 2
    nvidia.com/gpu: 3 of 3
    ");
    let named = "resources: {gpus: [{pattern: '*RTX*', name: rtx}]}\n\
                 sharing: {timeSlicing: {resources: [{name: rtx, replicas: 4}, {name: gpu, devices: [2], replicas: 10}]}}";
    insta::assert_snapshot!(shown(&planned(&inventory, named)), @r"
    nvidia.com/gpu: 12 of 3
    nvidia.com/rtx: 4 of 1
    ");
}

/// Pain #2 of the fact sheet `devices`, section 7 (NVIDIA/k8s-device-plugin#2038).
#[test]
fn a_node_with_a_lost_gpu_offers_the_others() {
    let inventory = inventory("broken");
    insta::assert_snapshot!(shown(&planned(&inventory, "")), @r"
    nvidia.com/gpu: 3 of 3
    GPU 2 at 0000:03:00.0 is not offered: GPU is lost
    ");
}

/// Pain #11 of the fact sheet `devices`, section 7 (NVIDIA/k8s-device-plugin#546, #1193): V100s without switches, of which
/// some are joined by two NVLinks and some by one.
#[test]
fn of_four_v100_two_with_two_nvlinks_go_together() {
    let inventory = inventory("v100x4");
    let links = |pair: &[u32]| {
        let link = inventory
            .links
            .iter()
            .find(|link| [link.from, link.to] == *pair)
            .unwrap();
        *link.nvlinks.value().unwrap()
    };
    assert_eq!(links(&preferred(&inventory, &[], 2)), 2);
    for taken in 0..4 {
        assert_eq!(links(&preferred(&inventory, &[taken], 2)), 2, "without {taken}");
    }
    assert_eq!(preferred(&inventory, &[0, 1], 2), [2, 3]);
}

#[test]
fn of_eight_h100_behind_switches_four_of_one_numa_node_go_together() {
    let inventory = inventory("h100x8");
    assert_eq!(preferred(&inventory, &[], 4), [0, 1, 2, 3]);
    assert_eq!(preferred(&inventory, &[0], 4), [4, 5, 6, 7]);
    assert_eq!(preferred(&inventory, &[0, 5], 2), [1, 2]);
}
