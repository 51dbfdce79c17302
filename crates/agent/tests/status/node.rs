//! Imaginary nodes as snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pitcrew_agent::runtime::Tier;
use pitcrew_agent::snapshot::{Part, Problem, Snapshot};
use pitcrew_core::plugin::{Device, Resource, Sharing};
use pitcrew_core::ports::InventorySource as _;
use pitcrew_host::Host;
use pitcrew_scenario::{HostRoot, Machine, Scenario};

/// The host of a manifest of `pitcrew check`, and the machine under it.
pub(crate) fn root(name: &str) -> (HostRoot, Machine) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../check/tests");
    let text = |name: &str| fs::read_to_string(directory.join(format!("roots/{name}.yaml"))).ok();
    let find = |like: &str| text(like).or_else(|| HostRoot::builtin_text(like).map(str::to_owned));
    let root = HostRoot::parse(&find(name).unwrap(), name, &find).unwrap();
    let own = directory.join(format!("scenarios/{name}.yaml"));
    let machine = match Scenario::load(&own) {
        Ok(scenario) => Machine::new(scenario),
        Err(_) => root.machine().unwrap().clone(),
    };
    (root, machine)
}

/// An RKE2 worker with a built-in scenario's GPUs.
pub(crate) fn worker(scenario: &str) -> (HostRoot, Machine) {
    let machine = Machine::new(Scenario::builtin(scenario).unwrap());
    (HostRoot::over(machine.clone()).unwrap(), machine)
}

/// The node as it is: looked at, and nothing more done.
pub(crate) fn looked((root, machine): &(HostRoot, Machine)) -> Snapshot {
    let host = Host::gather(root);
    let gpus = machine.clone().inventory().map(Arc::new);
    Snapshot {
        host: Some(Arc::new(host)),
        gpus: Some(gpus),
        sick: BTreeMap::new(),
        held: None,
        resources: Vec::new(),
        registered: BTreeSet::new(),
        unhealthy: BTreeMap::new(),
        tier: Tier::Native,
        problems: BTreeMap::new(),
        remarks: BTreeMap::new(),
        proof: std::sync::Arc::default(),
    }
}

/// The node with `nvidia.com/gpu` made of every GPU that answers, and taken by the kubelet.
pub(crate) fn registered(node: &(HostRoot, Machine)) -> Snapshot {
    let mut snapshot = looked(node);
    let inventory = snapshot.gpus.as_ref().unwrap().as_ref().unwrap();
    let devices = inventory.gpus.iter().filter_map(|gpu| {
        let uuid = gpu.readings.uuid.value()?;
        Some(Device {
            id: uuid.clone(),
            uuid: uuid.clone(),
            gpu: uuid.clone(),
            gpu_index: gpu.index,
            numa: None,
        })
    });
    snapshot.resources = vec![Resource {
        name: "nvidia.com/gpu".to_owned(),
        sharing: Sharing::None,
        one_per_container: false,
        devices: devices.collect(),
    }];
    snapshot.registered = BTreeSet::from(["nvidia.com/gpu".to_owned()]);
    snapshot
}

pub(crate) fn nothing_known() -> Snapshot {
    Snapshot {
        host: None,
        gpus: None,
        sick: BTreeMap::new(),
        held: None,
        resources: Vec::new(),
        registered: BTreeSet::new(),
        unhealthy: BTreeMap::new(),
        tier: Tier::Unknown,
        problems: BTreeMap::new(),
        remarks: BTreeMap::new(),
        proof: std::sync::Arc::default(),
    }
}

pub(crate) fn with_problem(mut snapshot: Snapshot, part: Part, reason: &str) -> Snapshot {
    let problem = Problem {
        reason: reason.to_owned(),
        message: format!("message of {reason}"),
        hint: format!("hint of {reason}"),
    };
    snapshot.problems.insert(part, problem);
    snapshot
}

/// The part works, and there is something to know of it.
pub(crate) fn with_remark(snapshot: Snapshot, part: Part, reason: &str) -> Snapshot {
    let mut snapshot = with_problem(snapshot, part, reason);
    let remark = snapshot.problems.remove(&part);
    snapshot.remarks.extend(remark.map(|remark| (part, remark)));
    snapshot
}

/// The UUID of the GPU at this index.
pub(crate) fn uuid(snapshot: &Snapshot, index: usize) -> String {
    let inventory = snapshot.gpus.as_ref().unwrap().as_ref().unwrap();
    inventory.gpus[index].readings.uuid.value().unwrap().clone()
}
