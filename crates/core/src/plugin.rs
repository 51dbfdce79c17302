//! What a node hands to its kubelet: extended resources, made of GPUs and MIG devices, shared or not.
//!
//! Everything here is pure: configuration ([`config`]), the plan of resources ([`resources`]), who must wait for a
//! holder of the same device ([`holders`]), the choice among free devices ([`preference`]).

pub mod config;
pub mod holders;
pub mod preference;
pub mod resources;

#[cfg(test)]
mod testing;

use serde::Serialize;

/// One extended resource of a node, e.g. `nvidia.com/gpu`, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// Full name, with the domain.
    pub name: String,
    /// How its devices are shared.
    pub sharing: Sharing,
    /// True when a container may have only one device of a shared resource. It is about replicas ([`is_replica`])
    /// alone: of devices that aren't shared a container can have as many as it asks for.
    pub one_per_container: bool,
    /// Its devices, in the driver's order, replicas of one device together.
    pub devices: Vec<Device>,
}

impl Resource {
    /// How many ids stand for the GPU or MIG device with this UUID: its replicas, 1 for one that isn't shared, 0 for
    /// one that isn't here.
    pub fn replicas(&self, uuid: &str) -> usize {
        self.devices.iter().filter(|device| device.uuid == uuid).count()
    }
}

/// How the devices of a resource are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Each belongs to one container.
    None,
    /// Several containers take turns.
    TimeSlicing,
    /// Several containers run at once through NVIDIA's Multi-Process Service.
    Mps,
}

/// One device as the kubelet counts them: a GPU, a MIG device, or a replica of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its id towards the kubelet: the UUID, and for a replica what [`replica_id`] makes of it.
    pub id: String,
    /// UUID of the GPU or MIG device that a container gets. Also its name in the CDI specification.
    pub uuid: String,
    /// UUID of the GPU that it is or is on.
    pub gpu: String,
    /// Position of that GPU in the driver's order.
    pub gpu_index: u32,
    /// NUMA node, where the kernel knows it.
    pub numa: Option<u32>,
}

/// The UUID in a device's id: what is before `::`.
pub fn uuid_of(id: &str) -> &str {
    id.split_once("::").map_or(id, |(uuid, _)| uuid)
}

/// True for the id of a replica.
pub fn is_replica(id: &str) -> bool {
    id.contains("::")
}

/// The id of replica `number` (from 0) of `of`: `UUID::N` for a time slice, as NVIDIA's device plugin writes it, and
/// `UUID::N-of-M` for a client of the Multi-Process Service.
///
/// There the reference writes `UUID::N` as well. An id is all that pod-resources keep of how a device was handed out, and
/// who got a GPU from a daemon that gives each client an Mth of it can share it neither with time slices nor with
/// clients that get another part: whether it is so must be seen by the id. Whoever reads ids cuts them at `::`, as
/// NVIDIA's own exporter does.
pub fn replica_id(uuid: &str, sharing: Sharing, number: u32, of: u32) -> String {
    match sharing {
        Sharing::None => uuid.to_owned(),
        Sharing::TimeSlicing => format!("{uuid}::{number}"),
        Sharing::Mps => format!("{uuid}::{number}-of-{of}"),
    }
}
