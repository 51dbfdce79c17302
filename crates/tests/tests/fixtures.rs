//! What NVIDIA's tools said of a scenario once still speaks of the same devices.

use std::collections::BTreeSet;

use pitcrew_core::ports::InventorySource as _;
use pitcrew_scenario::{Machine, Scenario};

/// Names of devices in a CDI specification.
fn devices(cdi: &str) -> BTreeSet<String> {
    let names = cdi.lines().filter_map(|line| line.strip_prefix("    - name: "));
    names.map(|name| name.trim_matches('"').to_owned()).collect()
}

/// What `nvidia-ctk cdi generate` names: UUIDs and positions of GPUs that aren't cut up and of MIG devices, and all.
fn expected(scenario: &str) -> BTreeSet<String> {
    let mut machine = Machine::new(Scenario::builtin(scenario).expect("it is built in"));
    let mut names = BTreeSet::from(["all".to_owned()]);
    for gpu in machine.inventory().expect("its driver answers").gpus {
        let devices = gpu.readings.mig_devices.value().cloned().unwrap_or_default();
        if devices.is_empty() {
            names.extend([
                gpu.index.to_string(),
                gpu.readings.uuid.value().cloned().unwrap_or_default(),
            ]);
        }
        for (device, at) in devices.into_iter().zip(0..) {
            names.extend([format!("{}:{at}", gpu.index), device.uuid]);
        }
    }
    names
}

#[test]
fn nvidias_cdi_specifications_name_the_devices_of_their_scenarios() {
    let h100x8 = include_str!("../fixtures/nvidia-ctk-1.20.1-cdi-h100x8.yaml");
    let mixed = include_str!("../fixtures/nvidia-ctk-1.20.1-cdi-mixed.yaml");
    assert_eq!(devices(h100x8), expected("h100x8"));
    assert_eq!(devices(mixed), expected("mixed"));
}
