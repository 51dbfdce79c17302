//! What must not be handed out, because its GPU is held in another form.
//!
//! The kubelet knows ids, not GPUs: a GPU that was handed out as a whole and is offered in shares afterwards is free to
//! it, and so is a MIG device of a GPU that somebody holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pitcrew_core::plugin::{Device, Resource, Sharing, uuid_of};

use super::holders::Holding;

/// How ids of the past were shared, by resource and id.
pub(crate) type Past = HashMap<(String, String), Sharing>;

/// Ids that are held back, by resource and id, each with the reason.
pub(crate) fn conflicts(
    resources: &[Arc<Resource>],
    held: &[Holding],
    past: &Past,
) -> BTreeMap<(String, String), String> {
    let mut gpu_of: HashMap<&str, &str> = HashMap::new();
    for device in resources.iter().flat_map(|resource| &resource.devices) {
        gpu_of.insert(&device.uuid, &device.gpu);
    }
    let mut conflicts = BTreeMap::new();
    for resource in resources {
        for device in &resource.devices {
            let other = held
                .iter()
                .find(|holding| overlap(holding, device, &gpu_of) && !is_same_form(holding, resource, past));
            if let Some(other) = other {
                let why = format!(
                    "its GPU is held as {} of {} by {}",
                    other.id, other.resource, other.holder
                );
                conflicts.insert((resource.name.clone(), device.id.clone()), why);
            }
        }
    }
    conflicts
}

/// True where what is held and the device are, or are on, one another.
fn overlap(holding: &Holding, device: &Device, gpu_of: &HashMap<&str, &str>) -> bool {
    let uuid = uuid_of(&holding.id);
    uuid == device.uuid || uuid == device.gpu || gpu_of.get(uuid).is_some_and(|gpu| *gpu == device.uuid)
}

/// True for what was handed out of the resource as it is now: the kubelet counts it by itself, or it is one more turn on
/// a GPU on which everybody takes turns.
fn is_same_form(holding: &Holding, resource: &Resource, past: &Past) -> bool {
    if holding.resource != resource.name {
        return false;
    }
    let key = (holding.resource.clone(), holding.id.clone());
    let was = past.get(&key).copied();
    if resource.devices.iter().any(|device| device.id == holding.id) {
        return was.is_none_or(|was| was == resource.sharing);
    }
    was == Some(Sharing::TimeSlicing) && resource.sharing == Sharing::TimeSlicing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, gpu: &str) -> Device {
        Device {
            id: id.to_owned(),
            uuid: uuid_of(id).to_owned(),
            gpu: gpu.to_owned(),
            gpu_index: 0,
            numa: None,
        }
    }

    fn resource(name: &str, sharing: Sharing, ids: &[(&str, &str)]) -> Arc<Resource> {
        Arc::new(Resource {
            name: name.to_owned(),
            sharing,
            one_per_container: false,
            devices: ids.iter().map(|&(id, gpu)| device(id, gpu)).collect(),
        })
    }

    fn shares(sharing: Sharing) -> Arc<Resource> {
        let ids = [
            ("GPU-1::0", "GPU-1"),
            ("GPU-1::1", "GPU-1"),
            ("GPU-2::0", "GPU-2"),
        ];
        resource("nvidia.com/gpu", sharing, &ids)
    }

    fn held(resource: &str, id: &str) -> Holding {
        Holding {
            resource: resource.to_owned(),
            id: id.to_owned(),
            holder: "default/train".to_owned(),
        }
    }

    fn ids(conflicts: &BTreeMap<(String, String), String>) -> Vec<&str> {
        conflicts.keys().map(|(_, id)| id.as_str()).collect()
    }

    #[test]
    fn shares_of_a_gpu_that_is_held_whole_are_held_back() {
        let resources = [shares(Sharing::TimeSlicing)];
        let found = conflicts(&resources, &[held("nvidia.com/gpu", "GPU-1")], &Past::new());
        assert_eq!(ids(&found), ["GPU-1::0", "GPU-1::1"]);
        let why = found.values().next().unwrap();
        assert_eq!(why, "its GPU is held as GPU-1 of nvidia.com/gpu by default/train");
    }

    #[test]
    fn a_whole_gpu_of_which_shares_are_held_is_held_back() {
        let whole = resource(
            "nvidia.com/gpu",
            Sharing::None,
            &[("GPU-1", "GPU-1"), ("GPU-2", "GPU-2")],
        );
        let found = conflicts(
            &[whole],
            &[held("nvidia.com/gpu.shared", "GPU-1::7")],
            &Past::new(),
        );
        assert_eq!(ids(&found), ["GPU-1"]);
    }

    #[test]
    fn mig_devices_and_the_gpu_that_they_are_on_exclude_each_other() {
        let mig = resource(
            "nvidia.com/mig-1g.10gb",
            Sharing::None,
            &[("MIG-1", "GPU-1"), ("MIG-2", "GPU-2")],
        );
        let whole = resource("nvidia.com/gpu", Sharing::None, &[("GPU-1", "GPU-1")]);
        let resources = [whole, mig];
        let found = conflicts(&resources, &[held("nvidia.com/gpu", "GPU-1")], &Past::new());
        assert_eq!(ids(&found), ["MIG-1"]);
        let found = conflicts(
            &resources,
            &[held("nvidia.com/mig-1g.10gb", "MIG-1")],
            &Past::new(),
        );
        assert_eq!(ids(&found), ["GPU-1"]);
    }

    #[test]
    fn what_the_kubelet_counts_by_itself_is_not_held_back() {
        let resources = [shares(Sharing::TimeSlicing)];
        let found = conflicts(&resources, &[held("nvidia.com/gpu", "GPU-1::0")], &Past::new());
        assert_eq!(ids(&found), [""; 0]);
        // Fewer shares than before: the old ones take their turns to the end.
        let old = held("nvidia.com/gpu", "GPU-1::9");
        let past = Past::from([((old.resource.clone(), old.id.clone()), Sharing::TimeSlicing)]);
        assert_eq!(
            ids(&conflicts(&resources, std::slice::from_ref(&old), &past)),
            [""; 0]
        );
        assert_eq!(ids(&conflicts(&resources, &[old], &Past::new())).len(), 2);
    }

    #[test]
    fn turns_and_shares_of_mps_exclude_each_other_under_the_same_ids() {
        let holding = held("nvidia.com/gpu", "GPU-1::0");
        let key = (holding.resource.clone(), holding.id.clone());
        let past = Past::from([(key, Sharing::Mps)]);
        let found = conflicts(
            &[shares(Sharing::TimeSlicing)],
            std::slice::from_ref(&holding),
            &past,
        );
        assert_eq!(ids(&found), ["GPU-1::0", "GPU-1::1"]);
        assert_eq!(
            ids(&conflicts(&[shares(Sharing::Mps)], &[holding], &past)),
            [""; 0]
        );
    }
}
