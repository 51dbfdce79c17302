//! What an upgrade changes on whole nodes.

use pitcrew_check::upgrade::{Effect, Plan, Target, plan};
use pitcrew_core::ports::InventorySource as _;
use pitcrew_host::Host;

use crate::manifests;

fn of(name: &str, words: &[&str]) -> Plan {
    let root = manifests::root(name);
    let gpus = manifests::machine(name, &root).inventory();
    plan(
        &Host::gather(&root),
        gpus.as_ref(),
        &Target::parse(words).unwrap(),
    )
}

fn lines(plan: &Plan) -> String {
    let line = |change: &pitcrew_check::upgrade::Change| {
        format!(
            "{:?} {}: {} -> {}\n",
            change.effect, change.id, change.now, change.then
        )
    };
    plan.changes.iter().map(line).collect()
}

#[test]
fn from_rke2_1_28_to_1_36_with_a_newer_driver() {
    insta::assert_snapshot!(lines(&of("rke2-1.28", &["rke2=1.36.2", "driver=595.58"])));
}

#[test]
fn a_server_with_a_waiting_handler_gets_it_by_the_upgrade() {
    let plan = of("sles-pending", &["rke2=1.31.13"]);
    assert_eq!(plan.change("handler").unwrap().effect, Effect::Changes);
    insta::assert_snapshot!(lines(&plan));
}

#[test]
fn volta_does_not_survive_r595() {
    let plan = of("vfio", &["driver=595.58"]);
    assert_eq!(plan.effect, Effect::Breaks);
    insta::assert_snapshot!(lines(&plan));
}

#[test]
fn the_template_trap_breaks_any_upgrade() {
    let plan = of("template-trap", &["rke2=1.36.3"]);
    assert_eq!(plan.change("config").unwrap().effect, Effect::Breaks);
}
