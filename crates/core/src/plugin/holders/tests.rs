//! Changes of sharing while pods hold devices.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::Inventory;
use crate::plugin::config::Config;
use crate::plugin::resources::plan;
use crate::plugin::testing::{cut, gpu, node, planned};
use crate::plugin::{Sharing, is_replica};

fn holding(resource: &str, id: &str) -> Holding {
    Holding {
        resource: format!("nvidia.com/{resource}"),
        id: id.to_owned(),
        holder: format!("default/of-{id}"),
    }
}

/// Ids that are blocked, with spaces.
fn ids(plan: &Plan, held: &[Holding]) -> String {
    let blocked = blocked(plan, held);
    let ids: Vec<&str> = blocked
        .values()
        .flat_map(BTreeMap::keys)
        .map(String::as_str)
        .collect();
    ids.join(" ")
}

fn slices(replicas: u32) -> String {
    format!("sharing: {{timeSlicing: {{resources: [{{name: gpu, replicas: {replicas}}}]}}}}")
}

fn parts(replicas: u32) -> String {
    format!("sharing: {{mps: {{resources: [{{name: gpu, replicas: {replicas}}}]}}}}")
}

const MIXED: &str = "flags: {migStrategy: mixed}";

fn two() -> Inventory {
    node(vec![gpu(0), gpu(1)])
}

#[test]
fn what_is_held_as_it_is_offered_blocks_nothing() {
    for (text, held) in [
        (String::new(), holding("gpu", "GPU-0")),
        (slices(2), holding("gpu", "GPU-0::1")),
        (parts(2), holding("gpu", "GPU-0::1-of-2")),
    ] {
        assert_eq!(ids(&planned(&two(), &text), &[held]), "", "{text}");
    }
}

#[test]
fn a_gpu_that_is_held_as_a_whole_has_no_free_replica_and_the_other_way_round() {
    let whole = [holding("gpu", "GPU-0")];
    assert_eq!(ids(&planned(&two(), &slices(2)), &whole), "GPU-0::0 GPU-0::1");
    assert_eq!(
        ids(&planned(&two(), &parts(2)), &whole),
        "GPU-0::0-of-2 GPU-0::1-of-2"
    );
    assert_eq!(ids(&planned(&two(), ""), &[holding("gpu", "GPU-1::3")]), "GPU-1");
    assert_eq!(
        ids(&planned(&two(), ""), &[holding("gpu", "GPU-1::0-of-2")]),
        "GPU-1"
    );
}

#[test]
fn time_slices_and_clients_of_mps_exclude_each_other_under_the_same_name() {
    let plan = planned(&two(), &parts(2));
    assert_eq!(
        ids(&plan, &[holding("gpu", "GPU-0::0")]),
        "GPU-0::0-of-2 GPU-0::1-of-2"
    );
    let plan = planned(&two(), &slices(2));
    assert_eq!(
        ids(&plan, &[holding("gpu", "GPU-0::0-of-2")]),
        "GPU-0::0 GPU-0::1"
    );
}

#[test]
fn clients_of_mps_wait_for_those_that_have_another_part() {
    let plan = planned(&two(), &parts(2));
    assert_eq!(
        ids(&plan, &[holding("gpu", "GPU-0::0-of-4")]),
        "GPU-0::0-of-2 GPU-0::1-of-2"
    );
}

#[test]
fn clients_of_mps_wait_for_those_of_another_daemon() {
    let renamed = "sharing: {mps: {renameByDefault: true, resources: [{name: gpu, replicas: 2}]}}";
    let plan = planned(&two(), renamed);
    assert_eq!(
        ids(&plan, &[holding("gpu", "GPU-0::0-of-2")]),
        "GPU-0::0-of-2 GPU-0::1-of-2"
    );
    assert_eq!(ids(&plan, &[holding("gpu.shared", "GPU-0::0-of-2")]), "");
}

#[test]
fn a_whole_gpu_under_another_name_waits() {
    let named = "resources: {gpus: [{pattern: '*', name: a100}]}";
    assert_eq!(ids(&planned(&two(), named), &[holding("gpu", "GPU-1")]), "GPU-1");
}

#[test]
fn a_mig_device_and_its_gpu_exclude_each_other_and_two_mig_devices_do_not() {
    let inventory = node(vec![gpu(0), cut(1, &["1g.5gb", "1g.5gb", "2g.10gb"])]);
    let cut_up = planned(&inventory, MIXED);
    let whole = planned(&inventory, "");
    assert_eq!(
        ids(&cut_up, &[holding("gpu", "GPU-1")]),
        "MIG-1-0 MIG-1-1 MIG-1-2"
    );
    assert_eq!(
        ids(&cut_up, &[holding("gpu", "GPU-1::0")]),
        "MIG-1-0 MIG-1-1 MIG-1-2"
    );
    assert_eq!(ids(&whole, &[holding("mig-1g.5gb", "MIG-1-0")]), "GPU-1");
    assert_eq!(ids(&cut_up, &[holding("mig-1g.5gb", "MIG-1-0")]), "");
    // Handed out by the strategy `single`.
    assert_eq!(ids(&cut_up, &[holding("gpu", "MIG-1-0")]), "MIG-1-0");
    // Gone with its GPU instance, or never ours.
    assert_eq!(
        ids(
            &whole,
            &[holding("mig-1g.5gb", "MIG-9-9"), holding("nic", "eth0")]
        ),
        ""
    );
}

#[test]
fn fewer_time_slices_or_another_name_count_those_that_are_still_held() {
    let plan = planned(&two(), &slices(2));
    // Both of the others are held, too: nobody can join.
    let held = [
        holding("gpu", "GPU-0::0"),
        holding("gpu", "GPU-0::2"),
        holding("gpu", "GPU-0::3"),
    ];
    assert_eq!(ids(&plan, &held), "GPU-0::1");
    // One place is left.
    assert_eq!(ids(&plan, &held[1..2]), "GPU-0::1");
    let renamed = "sharing: {timeSlicing: {renameByDefault: true, resources: [{name: gpu, replicas: 3}]}}";
    let plan = planned(&two(), renamed);
    assert_eq!(ids(&plan, &[holding("gpu", "GPU-0::1")]), "GPU-0::1");
    let both = [holding("gpu", "GPU-0::1"), holding("gpu.shared", "GPU-0::1")];
    assert_eq!(ids(&plan, &both), "GPU-0::2");
}

#[test]
fn the_reason_names_the_pod_and_what_it_holds() {
    let blocked = blocked(&planned(&two(), &slices(2)), &[holding("gpu", "GPU-0")]);
    assert_eq!(
        blocked["nvidia.com/gpu"]["GPU-0::1"],
        "GPU-0 is still held by default/of-GPU-0 as GPU-0 of nvidia.com/gpu, until that pod ends"
    );
}

/// A device as it was handed out, in the test's own words.
#[derive(Debug, Clone)]
struct Handed {
    holding: Holding,
    uuid: String,
    gpu: String,
    sharing: Sharing,
    replicas: usize,
}

impl Handed {
    /// True where both can be used at the same time by different pods.
    fn goes_with(&self, other: &Self) -> bool {
        if self.gpu != other.gpu {
            return true;
        }
        if self.uuid != other.uuid {
            // Two MIG devices.
            return self.uuid != self.gpu && other.uuid != other.gpu;
        }
        match (self.sharing, other.sharing) {
            (Sharing::TimeSlicing, Sharing::TimeSlicing) => true,
            (Sharing::Mps, Sharing::Mps) => {
                self.replicas == other.replicas && self.holding.resource == other.holding.resource
            }
            _ => false,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Configure(String),
    HandOut(usize),
    End(usize),
}

/// One resource, shared in every way: what owners switch between.
fn simple() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec!["timeSlicing", "mps"]);
    prop_oneof![
        Just(String::new()),
        Just(MIXED.to_owned()),
        (kind, any::<bool>(), 2..4).prop_map(|(kind, rename, replicas)| format!(
            "sharing: {{{kind}: {{renameByDefault: {rename}, resources: [{{name: gpu, replicas: {replicas}}}]}}}}"
        )),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => crate::plugin::resources::tests::any_config().prop_map(Step::Configure),
        2 => simple().prop_map(Step::Configure),
        8 => any::<usize>().prop_map(Step::HandOut),
        3 => any::<usize>().prop_map(Step::End),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Pain #24 of the fact sheet `devices`, section 7 (HAMi #1181 #409 #1093): after a restart of the agent a shared GPU is
    /// handed out as a whole. Nothing is remembered here but what pod-resources tell.
    #[test]
    fn whatever_the_sharing_was_no_gpu_is_handed_out_in_two_forms_that_exclude_each_other(steps in steps()) {
        let inventory = node(vec![gpu(0), gpu(1), cut(2, &["1g.5gb", "2g.10gb"]), cut(3, &["1g.5gb", "1g.5gb"])]);
        let of = |text: &str| plan(&inventory, &Config::parse(text).ok()?, &BTreeMap::new()).ok();
        let mut now = of("").unwrap();
        let mut out: Vec<Handed> = Vec::new();
        for step in steps {
            match step {
                Step::Configure(text) => {
                    if let Some(plan) = of(&text) {
                        now = plan;
                    }
                }
                Step::End(at) if !out.is_empty() => {
                    let at = at % out.len();
                    out.remove(at);
                }
                Step::End(_) => {}
                Step::HandOut(at) => {
                    let held: Vec<Holding> = out.iter().map(|handed| handed.holding.clone()).collect();
                    let blocked = blocked(&now, &held);
                    let mut free: Vec<Handed> = Vec::new();
                    for resource in &now.resources {
                        for device in &resource.devices {
                            let holding = Holding {
                                resource: resource.name.clone(),
                                id: device.id.clone(),
                                holder: format!("pod/{}", device.id),
                            };
                            // The kubelet's own books: an id of a resource once, and none that is unhealthy.
                            let is_held = held.iter().any(|held| (&held.resource, &held.id) == (&resource.name, &device.id));
                            let is_blocked = blocked.get(&resource.name).is_some_and(|ids| ids.contains_key(&device.id));
                            if !is_held && !is_blocked {
                                free.push(Handed {
                                    holding,
                                    uuid: device.uuid.clone(),
                                    gpu: device.gpu.clone(),
                                    sharing: if is_replica(&device.id) { resource.sharing } else { Sharing::None },
                                    replicas: resource.replicas(&device.uuid),
                                });
                            }
                        }
                    }
                    if free.is_empty() {
                        continue;
                    }
                    let new = free.swap_remove(at % free.len());
                    for other in &out {
                        prop_assert!(new.goes_with(other), "{new:?} beside {other:?}");
                    }
                    let same = out.iter().filter(|other| other.uuid == new.uuid).count();
                    prop_assert!(same < new.replicas, "{new:?} beside {same} others");
                    out.push(new);
                }
            }
        }
        // And when all pods have ended, nothing waits.
        prop_assert!(blocked(&now, &[]).is_empty());
    }
}
