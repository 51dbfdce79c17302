//! Imaginary nodes seen from outside: through the traits that the product uses.
#![allow(missing_docs, clippy::unwrap_used)]

mod builtins;
mod changes;
mod mig;
mod plugin;
mod refusals;
mod roots;

use pitcrew_core::Inventory;
use pitcrew_core::ports::InventorySource;
use pitcrew_scenario::{Machine, Scenario};

fn machine(name: &str) -> Machine {
    Machine::new(Scenario::builtin(name).unwrap())
}

fn look(machine: &Machine) -> Inventory {
    machine.clone().inventory().unwrap()
}
