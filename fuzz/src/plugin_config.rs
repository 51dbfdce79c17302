//! Configurations of NVIDIA's device plugin: any text is one, or is refused with a reason. What one makes of a node is the
//! same each time, has each device once, and can be chosen from.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pitcrew_core::Inventory;
use pitcrew_core::plugin::config::{Config, ConfigError, Overrides};
use pitcrew_core::plugin::preference::{Preference, Topology};
use pitcrew_core::plugin::resources::plan;
use pitcrew_core::plugin::{holders, uuid_of};
use pitcrew_core::ports::InventorySource;
use pitcrew_scenario::{Machine, Scenario};

static NODES: LazyLock<Vec<Inventory>> = LazyLock::new(|| {
    ["mixed", "v100x4", "broken"]
        .into_iter()
        .map(|name| Machine::new(Scenario::builtin(name).expect("it is built in")))
        .map(|mut machine| machine.inventory().expect("it has a driver"))
        .collect()
});

fuzz_target!(|text: &str| {
    let config = match Config::parse(text).and_then(|config| config.with(&Overrides::default())) {
        Ok(config) => config,
        Err(ConfigError::Invalid(problems)) => return assert!(!problems.is_empty()),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for node in NODES.iter() {
        let first = plan(node, &config, &BTreeMap::new());
        assert_eq!(first, plan(node, &config, &BTreeMap::new()));
        let Ok(plan) = first else { continue };
        let mut ids = BTreeSet::new();
        for resource in &plan.resources {
            assert!(resource.devices.iter().all(|device| ids.insert(&device.id) && uuid_of(&device.id) == device.uuid));
            let all: Vec<String> = resource.devices.iter().map(|device| device.id.clone()).collect();
            let preference = Preference::new(resource, &Topology::of(node), config.flags.plugin.sharing_policy);
            assert_eq!(preference.choose(&all, &[], 2).len(), all.len().min(2));
        }
        assert!(holders::blocked(&plan, &[]).is_empty());
    }
});
