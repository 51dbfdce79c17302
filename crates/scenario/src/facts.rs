//! Everything that is known of a node at one moment, for the mock of NVIDIA's library: it answers many more
//! questions than our traits ask, one at a time.
//!
//! Nothing here hangs or takes time; [`Machine::hangs`] and [`Machine::takes`] say what a caller must do itself.

use std::time::Duration;

use pitcrew_core::Reading;
use pitcrew_core::catalog::Card;
use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::inventory::{DriverReadings, Link};
use pitcrew_core::mig::Geometry;
use pitcrew_core::nvlink::NvLink;
use pitcrew_core::pci::PciFunction;
use pitcrew_core::ports::GpuError;

use crate::calls;
use crate::machine::Machine;
use crate::mig::GpuInstance;
use crate::state::GpuState;

/// One GPU at one moment.
#[derive(Debug, Clone)]
pub struct GpuFacts {
    /// Position in the driver's order.
    pub index: u32,
    /// `GPU-` and a UUID; known of a lost GPU too.
    pub uuid: String,
    /// Where it sits; known of a lost GPU too.
    pub pci: PciFunction,
    /// PCI class code, three bytes.
    pub pci_class: u32,
    /// NUMA node of its slot.
    pub numa_node: u32,
    /// The card in the catalogue.
    pub card: &'static Card,
    /// How it can be cut; none for a card without MIG.
    pub geometry: Option<Geometry>,
    /// GPU instances on it, by number.
    pub instances: Vec<GpuInstance>,
    /// What it says; all of it failed if it is lost.
    pub readings: GpuReadings,
    /// True when it no longer answers.
    pub lost: bool,
    /// True when it has profiling figures (GPM).
    pub profiled: bool,
    /// True when its `NVLinks` end at `NVSwitch`es.
    pub switched: bool,
}

impl Machine {
    /// What the driver says of itself, or why it says nothing.
    pub fn driver(&self) -> Result<DriverReadings, GpuError> {
        self.shared.lock().inventory().map(|inventory| inventory.driver)
    }

    /// How many GPUs the driver knows, lost ones too.
    pub fn gpu_count(&self) -> u32 {
        u32::try_from(self.shared.lock().gpus.len()).unwrap_or(u32::MAX)
    }

    /// All that is known of one GPU, by its position; none if there is no such GPU.
    pub fn gpu(&self, index: u32) -> Option<GpuFacts> {
        let state = self.shared.lock();
        let gpu = state.gpus.get(usize::try_from(index).ok()?)?;
        Some(GpuFacts {
            index,
            uuid: gpu.uuid.clone(),
            pci: gpu.pci,
            pci_class: gpu.pci_class(),
            numa_node: gpu.numa_node,
            card: gpu.card,
            geometry: gpu.geometry.clone(),
            instances: gpu.instances.clone(),
            readings: gpu.readings(),
            lost: gpu.lost,
            profiled: !gpu.gpm.is_empty(),
            switched: state.nvswitch,
        })
    }

    /// How pairs of GPUs are connected.
    pub fn links(&self) -> Vec<Link> {
        self.shared.lock().links.clone()
    }

    /// The `NVLinks` of a GPU one by one; empty for a card without.
    pub fn nvlinks_of(&self, index: u32) -> Vec<NvLink> {
        let state = self.shared.lock();
        let found = usize::try_from(index).ok().and_then(|at| state.gpus.get(at));
        found.and_then(GpuState::nvlinks).unwrap_or_default()
    }

    /// A number by NVML's name for it: a field value (`NVML_FI_DEV_*`), or another that only the scenario's `fields`
    /// can give.
    pub fn number(&self, index: u32, name: &str) -> Reading<u64> {
        let state = self.shared.lock();
        let found = usize::try_from(index).ok().and_then(|at| state.gpus.get(at));
        found.map_or(Reading::NotSupported, |gpu| {
            let given = || {
                gpu.fields
                    .get(name)
                    .map_or(Reading::NotSupported, |&value| Reading::Value(value))
            };
            if name.starts_with("NVML_FI_") {
                gpu.field(&gpu.readings(), name)
            } else {
                given()
            }
        })
    }

    /// A profiling figure by NVML's number.
    pub fn metric(&self, index: u32, metric: u32) -> Reading<f64> {
        let state = self.shared.lock();
        let found = usize::try_from(index).ok().and_then(|at| state.gpus.get(at));
        found.map_or(Reading::NotSupported, |gpu| gpu.metric(metric))
    }

    /// True when this call on this GPU, or on any if none is named, would not return now.
    pub fn hangs(&self, call: &str, gpu: Option<u32>) -> bool {
        self.shared.lock().hangs(call, gpu)
    }

    /// True when this call would not return now, whatever it is about: not where it hangs at one GPU only.
    pub fn hangs_at_all(&self, call: &str) -> bool {
        let state = self.shared.lock();
        let mut whole = state.hangs.iter().filter(|hang| hang.gpu.is_none());
        whole.any(|hang| calls::matches(&hang.call, call))
    }

    /// How long this call on this GPU takes, where that was recorded and latencies are replayed.
    pub fn takes(&self, call: &str, gpu: u32) -> Duration {
        let state = self.shared.lock();
        let found = usize::try_from(gpu).ok().and_then(|at| state.gpus.get(at));
        found
            .filter(|_| self.latency)
            .map_or(Duration::ZERO, |gpu| gpu.latencies.of([call]))
    }
}
