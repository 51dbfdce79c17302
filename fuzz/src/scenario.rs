//! Scenario files: whatever is in them is a scenario or a refusal, and a scenario can be run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pitcrew_core::ports::InventorySource;
use pitcrew_scenario::{Machine, Scenario};

fuzz_target!(|text: &str| {
    if let Ok(scenario) = Scenario::parse(text, "fuzz.yaml") {
        let _ = Machine::new(scenario).inventory();
    }
});
