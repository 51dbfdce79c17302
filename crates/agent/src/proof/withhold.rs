//! Which GPUs the kubelet is told not to hand out for the sake of their proof. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_core::plugin::uuid_of;
use pitcrew_core::{Gpu, Inventory};

use super::{Standing, View, devices_of, standing};
use crate::plugin::Status;

/// GPUs that have to wait until a proof of them holds, with the reason, where readiness hangs on it; none elsewhere.
pub(super) fn gated(view: &View, gpus: &[Gpu], driver: Option<&str>) -> BTreeMap<String, String> {
    if !view.policy.gates_readiness {
        return BTreeMap::new();
    }
    let waits = |gpu: &Gpu| {
        let uuid = gpu.readings.uuid.value()?;
        let why = match standing(view, gpu, driver) {
            Standing::Proven(_) => return None,
            Standing::Failed(proof) => format!("its last proof is {}", proof.verdict),
            Standing::Stale(..) => "its last proof holds no more".to_owned(),
            Standing::None | Standing::Incomplete(_) => "it is not proven yet".to_owned(),
        };
        Some((
            uuid.clone(),
            format!("{why}, and `spec.proof.gatesReadiness` asks for one"),
        ))
    };
    gpus.iter().filter_map(waits).collect()
}

/// Which of these GPUs are held, out of ids that pods hold or were just given: whole, in part, or one of their replicas.
pub(super) fn held<'a>(
    gpus: &BTreeSet<String>,
    inventory: &Inventory,
    ids: impl Iterator<Item = &'a str>,
) -> BTreeSet<String> {
    let mut owners: BTreeMap<String, &String> = BTreeMap::new();
    for gpu in &inventory.gpus {
        let Some(uuid) = gpu.readings.uuid.value().filter(|uuid| gpus.contains(*uuid)) else {
            continue;
        };
        owners.insert(uuid.clone(), uuid);
        owners.extend(devices_of(gpu).into_iter().map(|device| (device, uuid)));
    }
    let held = ids.filter_map(|id| owners.get(uuid_of(id)));
    held.map(|uuid| (*uuid).clone()).collect()
}

/// True once the kubelet was told of every device of these GPUs that it must not be handed out.
pub(super) fn is_told(
    gpus: &BTreeSet<String>,
    plan: &[pitcrew_core::plugin::Resource],
    status: &Status,
) -> bool {
    plan.iter().all(|resource| {
        let devices = resource.devices.iter();
        let mut ours = devices.filter(|device| gpus.contains(&device.gpu));
        ours.all(|device| {
            let told = status.unhealthy.get(&resource.name);
            told.is_some_and(|ids| ids.contains_key(&device.id))
        })
    })
}
