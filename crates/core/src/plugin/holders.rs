//! Who holds a device under another id than it has now, so that nobody is handed it twice.
//!
//! The kubelet keeps books of ids, not of GPUs. When the sharing changes, a GPU has other ids, or the same under another
//! resource, and all of them look free while a pod still has the GPU under its old one. Until that pod ends, such ids
//! must be unhealthy. What is decided here rests on ids alone, so it is the same after a restart of the agent.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::resources::Plan;
use super::{Device, Resource, uuid_of};

/// A device that a container holds, as pod-resources tell it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holding {
    /// Full name of the resource that it came from.
    pub resource: String,
    /// Its id towards the kubelet.
    pub id: String,
    /// Who holds it, for a person: `namespace/pod`.
    pub holder: String,
}

/// Ids that must not be handed out, by resource, each with the reason.
pub type Blocked = BTreeMap<String, BTreeMap<String, String>>;

/// How a device is handed out, as its id tells. Replicas that NVIDIA's own plugin handed out for MPS look like time
/// slices; its daemon is gone where we serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form<'a> {
    /// To one container.
    Whole,
    /// To several that take turns.
    Slice,
    /// To a client of a daemon that gives each this part. Also what no other form's id looks like.
    Part(&'a str),
}

fn form(id: &str) -> Form<'_> {
    match id.split_once("::") {
        None => Form::Whole,
        Some((_, replica)) if replica.bytes().all(|byte| byte.is_ascii_digit()) => Form::Slice,
        Some((_, replica)) => Form::Part(replica.split_once("-of-").map_or(replica, |(_, of)| of)),
    }
}

/// What a holding does to a device of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing: they have nothing in common, or the kubelet itself keeps them apart.
    None,
    /// The device takes turns with it, which its own replicas don't count.
    Turn,
    /// The device must wait.
    Wait,
}

/// What `held` does to `device` of `resource`.
fn effect(plan: &Plan, held: &Holding, resource: &Resource, device: &Device) -> Effect {
    let uuid = uuid_of(&held.id);
    if uuid != device.uuid {
        // A MIG device and the GPU that it is on exclude each other; two MIG devices of one GPU have nothing in common.
        let held_on = plan.mig_parents.get(uuid).map(String::as_str);
        let one_on_other = device.gpu == uuid || held_on == Some(device.uuid.as_str());
        return if one_on_other { Effect::Wait } else { Effect::None };
    }
    let is_known = held.resource == resource.name && resource.devices.iter().any(|other| other.id == held.id);
    match (form(&held.id), form(&device.id)) {
        (Form::Whole, Form::Whole) | (Form::Slice, Form::Slice) if is_known => Effect::None,
        (Form::Slice, Form::Slice) => Effect::Turn,
        // The daemon is the resource's: under another name there are two, and a GPU takes one.
        (Form::Part(one), Form::Part(other)) if one == other && is_known => Effect::None,
        _ => Effect::Wait,
    }
}

/// Ids of the plan that must be unhealthy because their GPU or MIG device is held under another id form: as a whole or
/// shared, in time slices or through MPS, under another resource's name, the GPU or a MIG device on it.
///
/// Of time slices only as many as there are holders beyond the plan: who takes turns with `replicas` others agreed to it
/// under whatever name, and to no more. A pod that holds an id of the plan keeps it; of the ids, those that were held
/// under another name are blocked before others.
pub fn blocked(plan: &Plan, held: &[Holding]) -> Blocked {
    let mut blocked = Blocked::new();
    for resource in &plan.resources {
        let mut wait: BTreeMap<String, String> = BTreeMap::new();
        for same in resource.devices.chunk_by(|one, other| one.uuid == other.uuid) {
            let Some(first) = same.first() else { continue };
            let mut turns: BTreeSet<&Holding> = BTreeSet::new();
            for holding in held {
                match effect(plan, holding, resource, first) {
                    Effect::None => {}
                    Effect::Turn => {
                        turns.insert(holding);
                    }
                    Effect::Wait => {
                        for device in same {
                            let why = || why(&device.uuid, holding);
                            wait.entry(device.id.clone()).or_insert_with(why);
                        }
                    }
                }
            }
            turn(resource, same, &turns, held, &mut wait);
        }
        if !wait.is_empty() {
            blocked.insert(resource.name.clone(), wait);
        }
    }
    blocked
}

/// Blocks one free replica for each holder beyond the plan.
fn turn(
    resource: &Resource,
    same: &[Device],
    turns: &BTreeSet<&Holding>,
    held: &[Holding],
    wait: &mut BTreeMap<String, String>,
) {
    let is_held = |device: &&Device| {
        held.iter()
            .any(|holding| holding.resource == resource.name && holding.id == device.id)
    };
    let mut free: Vec<&Device> = same.iter().filter(|device| !is_held(device)).collect();
    let mut rest: Vec<&Holding> = Vec::new();
    for holding in turns {
        match free.iter().position(|device| device.id == holding.id) {
            Some(at) => {
                let device = free.remove(at);
                wait.insert(device.id.clone(), why(&device.uuid, holding));
            }
            None => rest.push(holding),
        }
    }
    for (holding, device) in rest.into_iter().zip(free.iter().rev()) {
        wait.insert(device.id.clone(), why(&device.uuid, holding));
    }
}

fn why(uuid: &str, holding: &Holding) -> String {
    let Holding { resource, id, holder } = holding;
    format!("{uuid} is still held by {holder} as {id} of {resource}, until that pod ends")
}
