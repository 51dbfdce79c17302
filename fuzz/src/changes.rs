//! Lines of a file of changes: whatever is in them is a change or a refusal, and the node can be looked at afterwards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pitcrew_core::ports::InventorySource;
use pitcrew_scenario::{Change, Machine, Scenario};

fuzz_target!(|text: &str| {
    let mut machine = Machine::new(Scenario::builtin("h100x8").expect("it is built in"));
    for line in text.lines().take(64) {
        // A change that makes calls hang would make the look below wait for ever.
        match serde_json::from_str(line) {
            Ok(Change::Hang { .. }) | Err(_) => {}
            Ok(change) => {
                let _ = machine.change(&change);
            }
        }
    }
    let _ = machine.inventory();
    let _ = machine.gpu(0);
});
