//! What one resource offers to the kubelet at a moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pitcrew_core::plugin::Resource;
use pitcrew_core::plugin::holders::Blocked;
use pitcrew_core::plugin::preference::Preference;
use pitcrew_kubelet::device_plugin::{
    Device, HEALTHY, ListAndWatchResponse, NumaNode, TopologyInfo, UNHEALTHY,
};

use super::Answers;

/// What a resource offers. It is made anew whenever something of it changes, so that a call of the kubelet finds
/// everything ready.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offer {
    /// The resource.
    pub(crate) resource: Arc<Resource>,
    /// Why an id must not be used, by id.
    pub(crate) unhealthy: Arc<BTreeMap<String, String>>,
    /// What answers are made of.
    pub(crate) answers: Arc<Answers>,
    /// Which devices to prefer.
    pub(crate) preference: Arc<Preference>,
}

impl Offer {
    /// Which of the free devices to take. Those that must not be used are left out, whatever the kubelet thinks of
    /// them; it never fails.
    pub(crate) fn prefer(&self, available: &[String], must: &[String], size: usize) -> Vec<String> {
        let usable = |id: &&String| !self.unhealthy.contains_key(*id) || must.contains(id);
        let available: Vec<String> = available.iter().filter(usable).cloned().collect();
        self.preference.choose(&available, must, size)
    }

    /// The devices as the kubelet wants them.
    pub(crate) fn list(&self) -> ListAndWatchResponse {
        let device = |device: &pitcrew_core::plugin::Device| Device {
            id: device.id.clone(),
            health: match self.unhealthy.get(&device.id) {
                None => HEALTHY.to_owned(),
                Some(_) => UNHEALTHY.to_owned(),
            },
            topology: device.numa.map(|node| TopologyInfo {
                nodes: vec![NumaNode { id: i64::from(node) }],
            }),
        };
        ListAndWatchResponse {
            devices: self.resource.devices.iter().map(device).collect(),
        }
    }
}

/// Why a device is sick: its GPU is, or the MIG device itself.
pub(crate) fn sickness<'a>(
    sick: &'a BTreeMap<String, String>,
    device: &pitcrew_core::plugin::Device,
) -> Option<&'a String> {
    sick.get(&device.gpu).or_else(|| sick.get(&device.uuid))
}

/// Ids of a resource that must not be used, with the reason: all replicas and MIG devices of a sick GPU or one that is
/// withheld, a sick MIG device, what no container could start with, and ids whose device somebody else holds.
pub(crate) fn unhealthy(
    resource: &Resource,
    sick: &BTreeMap<String, String>,
    withheld: &BTreeMap<String, String>,
    held_back: &Blocked,
    answers: &Answers,
) -> BTreeMap<String, String> {
    let mut unhealthy = BTreeMap::new();
    for device in &resource.devices {
        let why = sickness(sick, device)
            .cloned()
            .or_else(|| withheld.get(&device.gpu).cloned())
            .or_else(|| answers.obstacle(resource, &device.uuid))
            .or_else(|| held_back.get(&resource.name)?.get(&device.id).cloned());
        if let Some(why) = why {
            unhealthy.insert(device.id.clone(), why);
        }
    }
    unhealthy
}

/// What became of ids between two offers, for a person: reasons, each with the devices that it is about. An id that the
/// resource no longer has is not well again, it is gone.
pub(crate) fn changes(
    resource: &Resource,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Changes {
    let mut changes = Changes::default();
    for (id, why) in after {
        if before.get(id) != Some(why) {
            changes.unhealthy.entry(why.clone()).or_default().push(id.clone());
        }
    }
    let is_there = |id: &&String| resource.devices.iter().any(|device| device.id == **id);
    let recovered = before.keys().filter(|id| !after.contains_key(*id));
    changes.healthy = recovered.filter(is_there).cloned().collect();
    changes
}

/// See [`changes`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Ids that are not to be used now, by reason.
    pub(crate) unhealthy: HashMap<String, Vec<String>>,
    /// Ids that can be used again.
    pub(crate) healthy: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Strategy;
    use pitcrew_core::plugin::config::SharingPolicy;
    use pitcrew_core::plugin::preference::Topology;
    use pitcrew_core::plugin::{Device as CoreDevice, Sharing};

    fn device(id: &str, uuid: &str, gpu: &str) -> CoreDevice {
        CoreDevice {
            id: id.to_owned(),
            uuid: uuid.to_owned(),
            gpu: gpu.to_owned(),
            gpu_index: 0,
            numa: (gpu == "GPU-1").then_some(1),
        }
    }

    fn resource() -> Resource {
        Resource {
            name: "nvidia.com/gpu".to_owned(),
            sharing: Sharing::TimeSlicing,
            one_per_container: false,
            devices: vec![
                device("GPU-1::0", "GPU-1", "GPU-1"),
                device("GPU-1::1", "GPU-1", "GPU-1"),
                device("MIG-1", "MIG-1", "GPU-2"),
                device("MIG-2", "MIG-2", "GPU-2"),
                device("GPU-3", "GPU-3", "GPU-3"),
            ],
        }
    }

    fn reasons(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|&(id, why)| (id.to_owned(), why.to_owned()))
            .collect()
    }

    fn answers() -> Answers {
        Answers {
            strategies: vec![Strategy::CdiCri],
            ..Answers::default()
        }
    }

    fn ids(unhealthy: &BTreeMap<String, String>) -> Vec<&str> {
        unhealthy.keys().map(String::as_str).collect()
    }

    /// The reference marks one device of a sick GPU only (`parentToDeviceMap`), so its other replicas are handed out.
    #[test]
    fn all_replicas_and_mig_devices_of_a_sick_gpu_are_unhealthy() {
        let none = Blocked::new();
        let of = |sick: &[(&str, &str)]| {
            unhealthy(&resource(), &reasons(sick), &BTreeMap::new(), &none, &answers())
        };
        assert_eq!(ids(&of(&[("GPU-1", "XID 79")])), ["GPU-1::0", "GPU-1::1"]);
        assert_eq!(ids(&of(&[("GPU-2", "XID 79")])), ["MIG-1", "MIG-2"]);
        assert_eq!(ids(&of(&[("MIG-2", "XID 94")])), ["MIG-2"]);
        assert_eq!(ids(&of(&[("GPU-9", "gone")])), [""; 0]);
    }

    #[test]
    fn a_gpu_that_is_withheld_is_so_with_all_its_replicas_and_mig_devices() {
        let withheld = reasons(&[("GPU-1", "being proved"), ("GPU-2", "being proved")]);
        let sick = reasons(&[("GPU-2", "XID 79")]);
        let unhealthy = unhealthy(&resource(), &sick, &withheld, &Blocked::new(), &answers());
        assert_eq!(ids(&unhealthy), ["GPU-1::0", "GPU-1::1", "MIG-1", "MIG-2"]);
        assert_eq!(unhealthy["GPU-1::0"], "being proved");
        assert_eq!(unhealthy["MIG-1"], "XID 79");
    }

    #[test]
    fn a_sick_gpus_reason_comes_before_that_of_a_holder() {
        let sick = reasons(&[("GPU-1", "XID 79")]);
        let held = Blocked::from([(
            "nvidia.com/gpu".to_owned(),
            reasons(&[("GPU-1::0", "held"), ("GPU-3", "held")]),
        )]);
        let unhealthy = unhealthy(&resource(), &sick, &BTreeMap::new(), &held, &answers());
        assert_eq!(unhealthy["GPU-1::0"], "XID 79");
        assert_eq!(unhealthy["GPU-3"], "held");
    }

    /// Pitfall of order: a device that is advertised before its specification is written kills the pods that get it.
    #[test]
    fn what_no_container_could_start_with_is_unhealthy() {
        let none = BTreeMap::new();
        let of = |resource: &Resource, answers: &Answers| -> usize {
            unhealthy(resource, &none, &BTreeMap::new(), &Blocked::new(), answers).len()
        };
        let mut resource = resource();
        let mut answers = answers();
        assert_eq!(of(&resource, &answers), 0);
        answers.in_spec = Some(["GPU-1", "MIG-1"].map(str::to_owned).into());
        assert_eq!(of(&resource, &answers), 2);
        answers.strategies = vec![Strategy::Mounts];
        assert_eq!(of(&resource, &answers), 5);
        answers.strategies = vec![Strategy::Envvar];
        assert_eq!(of(&resource, &answers), 0);
        resource.sharing = Sharing::Mps;
        assert_eq!(of(&resource, &answers), 5);
        answers
            .mps
            .insert(resource.name.clone(), crate::plugin::Shared::default());
        assert_eq!(of(&resource, &answers), 0);
        answers.strategies.clear();
        assert_eq!(of(&resource, &answers), 5);
    }

    fn offer(unhealthy: &[(&str, &str)]) -> Offer {
        let resource = resource();
        Offer {
            preference: Arc::new(Preference::new(
                &resource,
                &Topology::default(),
                SharingPolicy::default(),
            )),
            resource: Arc::new(resource),
            unhealthy: Arc::new(reasons(unhealthy)),
            answers: Arc::default(),
        }
    }

    /// Pain 2 of the reference: one lost GPU fails every call.
    #[test]
    fn pain_2_a_sick_gpu_is_never_preferred_and_never_in_the_way() {
        let offer = offer(&[("GPU-3", "lost"), ("MIG-1", "lost")]);
        let available = ["GPU-3", "MIG-1", "MIG-2", "GPU-1::1", "nobody knows this"].map(str::to_owned);
        let chosen = offer.prefer(&available, &[], 2);
        assert_eq!(chosen.len(), 2);
        assert!(
            chosen.iter().all(|id| id == "MIG-2" || id == "GPU-1::1"),
            "{chosen:?}"
        );
        assert_eq!(offer.prefer(&available, &["GPU-3".to_owned()], 1), ["GPU-3"]);
    }

    #[test]
    fn the_list_has_every_device_with_its_health_and_numa_node() {
        let offer = offer(&[("MIG-1", "XID 79")]);
        let list = offer.list().devices;
        assert_eq!(list.len(), 5);
        assert_eq!(list[0].topology.as_ref().unwrap().nodes[0].id, 1);
        assert_eq!(list[2].health, "Unhealthy");
        assert_eq!(list[2].topology, None);
        assert_eq!(list[3].health, "Healthy");
    }

    #[test]
    fn changes_are_told_once_and_by_reason() {
        let before = reasons(&[("GPU-3", "held"), ("MIG-1", "held")]);
        let after = reasons(&[("MIG-1", "held"), ("GPU-1::0", "XID 79"), ("GPU-1::1", "XID 79")]);
        let changes = changes(&resource(), &before, &after);
        assert_eq!(changes.healthy, ["GPU-3"]);
        assert_eq!(changes.unhealthy["XID 79"], ["GPU-1::0", "GPU-1::1"]);
        assert_eq!(changes.unhealthy.len(), 1);
    }

    #[test]
    fn an_id_that_has_left_the_resource_is_not_told_to_be_healthy_again() {
        let before = reasons(&[("GPU-1", "held by default/train"), ("GPU-3", "XID 79")]);
        let changes = changes(&resource(), &before, &BTreeMap::new());
        assert_eq!(changes.healthy, ["GPU-3"]);
    }
}
