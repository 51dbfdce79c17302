//! A GPU that falls ill, and recovers.

use kube::Api;
use pitcrew_api::GpuNode;
use pitcrew_core::plugin::uuid_of;
use pitcrew_core::xid;
use pitcrew_scenario::Change;

use super::{Failure, Mark, Story};

/// The XID that is thrown: the GPU's system processor did not answer. It can happen to every card, and a reset heals it.
const XID: u32 = 119;

impl Story<'_> {
    pub(super) async fn health(&mut self) -> Result<(), Failure> {
        self.chapter("a GPU falls ill");
        let uuids = self.node.machine().uuids();
        let resources = self.node.resources();
        // Of the devices that are handed out whole, as those of a MIG device have another UUID.
        // Nor of one that a process holds, which can't be reset.
        let is_idle = |index| {
            let gpu = self.node.machine().gpu(index);
            gpu.is_some_and(|gpu| gpu.readings.processes.value().is_none_or(Vec::is_empty))
        };
        let found = uuids.iter().zip(0..).find_map(|(uuid, index)| {
            let mut known = resources.values().flatten();
            let is_well = known.any(|device| device.healthy && uuid_of(&device.id) == uuid);
            (is_well && is_idle(index)).then(|| (index, uuid.clone()))
        });
        let Some((gpu, uuid)) = found else {
            self.line(
                Mark::Skipped,
                "health",
                "no whole GPU is healthy and idle, to fall ill and be reset",
                Vec::new(),
            );
            return Ok(());
        };
        let what = xid::lookup(XID).map_or("", |xid| xid.name);
        let fault = Change::Xid {
            gpu,
            xid: XID,
            gpu_instance: None,
        };
        self.node
            .machine()
            .change(&fault)
            .map_err(|error| Self::failed("an XID", error))?;
        self.done("xid", format!("{XID} on {uuid}: {what}"));
        self.healthy(&uuid, false).await?;
        let reason = self.reason(&uuid).await?;
        self.seen("kubelet", format!("{uuid} is unhealthy"), Vec::new());
        self.seen("status", reason, Vec::new());
        self.node
            .machine()
            .reset(&uuid)
            .map_err(|error| Self::failed("resetting the GPU", error))?;
        self.done("reset", format!("{uuid}, as `nvidia-smi --gpu-reset` does"));
        self.healthy(&uuid, true).await?;
        self.seen("kubelet", format!("{uuid} is healthy again"), Vec::new());
        Ok(())
    }

    async fn healthy(&mut self, uuid: &str, wanted: bool) -> Result<(), Failure> {
        let word = if wanted { "healthy" } else { "unhealthy" };
        self.until(&format!("{uuid} being {word} at the kubelet"), async |node| {
            let resources = node.resources();
            let of_gpu = resources
                .values()
                .flatten()
                .filter(|device| uuid_of(&device.id) == uuid);
            let states: Vec<bool> = of_gpu.map(|device| device.healthy).collect();
            if states.is_empty() {
                Err("the kubelet doesn't know it".to_owned())
            } else if states.iter().all(|state| *state == wanted) {
                Ok(())
            } else {
                let word = if wanted { "unhealthy" } else { "healthy" };
                Err(format!("it is {word} there"))
            }
        })
        .await
    }

    /// Why the `GpuNode` says that a GPU is not to be used.
    async fn reason(&mut self, uuid: &str) -> Result<String, Failure> {
        self.until("the GpuNode saying why", async |node| {
            let nodes: Api<GpuNode> = Api::all(node.client().clone());
            let found = nodes.get(node.name()).await.map_err(|error| error.to_string())?;
            let gpus = found.status.map(|status| status.gpus).unwrap_or_default();
            let gpu = gpus.into_iter().find(|gpu| gpu.uuid.as_deref() == Some(uuid));
            let gpu = gpu.ok_or_else(|| "it doesn't know the GPU".to_owned())?;
            gpu.reason
                .map(|reason| format!("{:?}: {reason}", gpu.health))
                .ok_or_else(|| format!("it says {:?}", gpu.health))
        })
        .await
    }
}
