//! What a node hands to its kubelet: extended resources, made of GPUs and MIG devices, shared or not.
//!
//! Everything here is pure: configuration (`config`), the plan of resources (`resources`), the choice among free
//! devices (`preference`).

use serde::Serialize;

/// One extended resource of a node, e.g. `nvidia.com/gpu`, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// Full name, with the domain.
    pub name: String,
    /// How its devices are shared.
    pub sharing: Sharing,
    /// True when a container may have only one device of a shared resource.
    pub one_per_container: bool,
    /// Its devices, in the driver's order, replicas of one device together.
    pub devices: Vec<Device>,
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
    /// Its id towards the kubelet: the UUID, and for a replica `UUID::N`.
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
