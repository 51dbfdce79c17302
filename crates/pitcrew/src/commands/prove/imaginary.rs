//! A scenario's GPUs: stand-ins on the CPU, with the facts and readings of the scenario.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pitcrew_core::Inventory;
use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::inventory::CudaVersion;
use pitcrew_core::ports::{Events as _, GpuEventKind, InventorySource as _, Sampling as _};
use pitcrew_core::proof::{
    Counters, Device, Format, PeerPath, Sample, SetupError, SetupErrorCode, XidEvent, expected,
};
use pitcrew_prove::device::{Device as _, DeviceFacts};
use pitcrew_prove::lane::Lane;
use pitcrew_prove::pace::Pace;
use pitcrew_prove::peers::{self, Peers};
use pitcrew_prove::run::{self, Options, Outcomes, Place};
use pitcrew_prove::stand_in::{Description, Rates, StandIn};
use pitcrew_prove::telemetry::Watch;
use pitcrew_scenario::{Change, EventQueue, Machine};

use super::rack::{Ends, Rack, Target, route};
use crate::driver;
use crate::error::Error;
use crate::view::report::Source;

/// What a GPU that doesn't say its compute capability is taken for: the oldest that kernels are for.
const OLDEST: ComputeCapability = ComputeCapability { major: 5, minor: 0 };
/// Between two samples of an imaginary driver, in its own time.
const INTERVAL: Duration = Duration::from_millis(200);
/// What a card's clock comes down to at its power limit, as the scenario's readings have it under load.
const UNDER_LOAD: f64 = 0.75;
/// Rates of what is in no chart: of a small card of some years ago.
const UNKNOWN: Rates = Rates {
    half: 20e12,
    byte: None,
    tf32: None,
    single: 8e12,
    double: 0.25e12,
    memory: 300e9,
    cache: 900e9,
    host: 12e9,
    peer: None,
    clock_mhz: 1500.0,
};

/// An imaginary machine.
pub(super) struct Imaginary {
    machine: Arc<Mutex<Machine>>,
    inventory: Inventory,
    lane: Lane,
}

/// Opens a scenario, and says its name.
pub(super) fn open(name: &str) -> Result<(Imaginary, String), Error> {
    let (source, scenario) = driver::imaginary::scenario(name)?;
    let name = match source {
        Source::Scenario { scenario, .. } => scenario,
        _ => name.to_owned(),
    };
    let mut machine = Machine::new(scenario);
    let inventory = machine.inventory()?;
    let imaginary = Imaginary {
        machine: Arc::new(Mutex::new(machine)),
        inventory,
        lane: Lane::default(),
    };
    Ok((imaginary, name))
}

impl Imaginary {
    pub(super) fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    fn stand_in(&self, target: &Target) -> StandIn {
        let device = &target.device;
        let sms = device.sm_count.or(device.card().map(|card| card.sm_count));
        let cuda = self.inventory.driver.cuda.value().copied();
        let facts = DeviceFacts {
            name: device.name.clone(),
            uuid: device.uuid.clone(),
            pci: device
                .pci_address
                .as_deref()
                .and_then(|address| address.parse().ok()),
            compute_capability: device.compute_capability.unwrap_or(OLDEST),
            sms: sms.unwrap_or(16),
            memory_bytes: device.memory_total_bytes.unwrap_or(8 << 30),
            l2_bytes: 32 << 20,
            sm_clock_mhz: device.clock_sm_max_mhz.unwrap_or(1500),
            cuda: cuda.unwrap_or(CudaVersion { major: 12, minor: 0 }),
        };
        let mut rates = rates(device, facts.sms);
        let has_links = self
            .inventory
            .links
            .iter()
            .any(|link| link.nvlinks.value().is_some_and(|&links| links > 0));
        let peer = expected::nvlink(device).filter(|_| has_links && device.mig.is_none());
        rates.peer = peer.map(|peer| peer.value * 1e9);
        StandIn::new(Description {
            rates,
            ailments: Vec::new(),
            seed: facts.uuid.bytes().fold(1, |seed: u64, byte| {
                seed.wrapping_mul(31).wrapping_add(byte.into())
            }),
            facts,
        })
    }
}

/// The clock in MHz at which products are as fast as this card should make them.
fn clock(device: &Device, sms: u32, tensor: &str) -> f64 {
    let highest = device.clock_sm_max_mhz.map_or(UNKNOWN.clock_mhz, f64::from);
    let format = if device
        .compute_capability
        .is_some_and(|capability| capability.major >= 8)
    {
        Format::Bf16
    } else {
        Format::Fp16
    };
    let of_card = || {
        let expected = expected::product(device, format, tensor)?.value * 1e12;
        let peak = expected::peak_per_clock(device, format)? * f64::from(sms);
        let reach = expected::pipe_efficiency(device, format, tensor, true)?.value;
        Some(expected / (peak * reach) / 1e6)
    };
    of_card()
        .filter(|mhz| mhz.is_finite())
        .map_or(highest * UNDER_LOAD, |mhz| mhz.clamp(highest / 2.0, highest))
}

/// What the card should reach at the clock that it has under load.
fn rates(device: &Device, sms: u32) -> Rates {
    let ComputeCapability { major, minor } = device.compute_capability.unwrap_or(OLDEST);
    let tensor = expected::best_variant(device).unwrap_or("simt");
    let clock_mhz = clock(device, sms, tensor);
    let of = |format, variant| {
        let peak = expected::peak_per_clock(device, format)?;
        let reach = expected::pipe_efficiency(device, format, variant, true)?;
        Some(peak * reach.value * f64::from(sms) * clock_mhz * 1e6)
    };
    let single = of(Format::Fp32, "simt").unwrap_or(UNKNOWN.single);
    let memory = expected::memory(device).map_or(UNKNOWN.memory, |memory| memory.value * 1e9);
    Rates {
        half: of(Format::Fp16, tensor).unwrap_or(single),
        byte: of(Format::Fp8, tensor).or_else(|| of(Format::Int8, tensor)),
        tf32: of(Format::Tf32, tensor).filter(|_| major >= 8),
        single,
        double: match (major, minor) {
            (8 | 9, 0) => of(Format::Fp64, "m16n8k16"),
            _ => of(Format::Fp64, "simt"),
        }
        .unwrap_or(UNKNOWN.double),
        memory,
        cache: memory * 2.5,
        host: expected::host(device).map_or(UNKNOWN.host, |host| host.value * 1e9),
        peer: None,
        clock_mhz,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a clock in MHz"
)]
fn whole(mhz: f64) -> u32 {
    mhz.round() as u32
}

fn lock(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the imaginary driver says of one GPU.
struct Watched {
    machine: Arc<Mutex<Machine>>,
    events: EventQueue,
    uuid: String,
    index: u32,
    last: Option<Duration>,
    clock_mhz: f64,
}

impl Watched {
    fn new(machine: &Arc<Mutex<Machine>>, target: &Target, clock_mhz: f64) -> Self {
        let watched = Self {
            events: lock(machine).events(),
            machine: Arc::clone(machine),
            uuid: target.gpu_uuid.clone(),
            index: target.device.index,
            last: None,
            clock_mhz,
        };
        watched.load(100);
        watched
    }

    /// A GPU that can't be busy says so by its readings.
    fn load(&self, percent: u32) {
        let change = Change::Load {
            gpu: self.index,
            percent,
        };
        let _ = lock(&self.machine).change(&change);
    }

    fn readings(&self) -> Option<pitcrew_core::gpu::GpuReadings> {
        let inventory = lock(&self.machine).inventory().ok()?;
        let gpu = inventory
            .gpus
            .into_iter()
            .find(|gpu| gpu.readings.uuid.value() == Some(&self.uuid))?;
        Some(gpu.readings)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.load(0);
    }
}

impl Watch for Watched {
    fn counters(&mut self) -> Counters {
        // The machine answers for itself in no time: no call of a real driver is made here.
        let links = lock(&self.machine).nvlinks(&self.uuid).unwrap_or_default();
        self.readings()
            .map(|readings| Counters::of(&readings).with_links(&links))
            .unwrap_or_default()
    }

    fn samples(&mut self, elapsed: Duration) -> Vec<Sample> {
        if self.last.is_some_and(|last| elapsed < last + INTERVAL) {
            return Vec::new();
        }
        self.last = Some(elapsed);
        let readings = self.readings();
        let under_load = |readings: &pitcrew_core::gpu::GpuReadings| Sample {
            clock_sm_mhz: Some(whole(self.clock_mhz)),
            // The scenario's is that of an idle GPU, whose link sleeps.
            pcie_generation: readings.pcie_generation_max.value().copied(),
            ..Sample::of(readings, elapsed.as_secs_f64())
        };
        readings.as_ref().map(under_load).into_iter().collect()
    }

    fn xids(&mut self, elapsed: Duration) -> Vec<XidEvent> {
        let mut xids = Vec::new();
        while let Ok(Some(event)) = self.events.wait(Duration::ZERO) {
            if let GpuEventKind::Xid(number) = event.kind
                && event.uuid == self.uuid
            {
                xids.push(XidEvent {
                    at_s: elapsed.as_secs_f64(),
                    number,
                });
            }
        }
        xids
    }
}

/// The time of several stand-ins, one of which works at a time.
struct Together<'a>(&'a [StandIn]);

impl Pace for Together<'_> {
    fn elapsed(&self) -> Duration {
        self.0.iter().map(Pace::elapsed).sum()
    }

    fn rest(&self, time: Duration) {
        if let Some(first) = self.0.first() {
            first.rest(time);
        }
    }
}

impl Rack for Imaginary {
    fn work(&self, target: &Target, options: &Options, ends: Ends<'_>) -> Result<Outcomes, SetupError> {
        if target.device.uuid.is_empty() {
            return Err(SetupError {
                code: SetupErrorCode::GpuLost,
                message: format!("{} does not answer", target.device.title()),
                fix: None,
                cuda_error: None,
            });
        }
        let device = self.stand_in(target);
        let clock_mhz = rates(&target.device, device.facts().sms).clock_mhz;
        Ok(run::run(
            Place {
                device: &device,
                pace: &device,
                lane: &self.lane,
                watch: &mut Watched::new(&self.machine, target, clock_mhz),
                is_cancelled: ends.is_cancelled,
                tell: ends.tell,
            },
            options,
        ))
    }

    fn peers(
        &self,
        targets: &[Target],
        time: Duration,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<PeerPath>, SetupError> {
        let devices: Vec<StandIn> = targets.iter().map(|target| self.stand_in(target)).collect();
        StandIn::connect(&devices);
        let all: Vec<&dyn pitcrew_prove::device::Device> = devices
            .iter()
            .map(|device| device as &dyn pitcrew_prove::device::Device)
            .collect();
        Ok(peers::run(
            &Peers {
                devices: &all,
                pace: &Together(&devices),
                is_cancelled,
                route: &|from, to| route(&self.inventory.links, &targets[from], &targets[to]),
            },
            time,
        ))
    }
}
