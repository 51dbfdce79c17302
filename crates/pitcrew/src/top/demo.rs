//! Imaginary GPUs that look alive: jobs come and go, in the same order every time.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::ports::InventorySource;
use pitcrew_core::{Gpu, Reading};
use pitcrew_nvml::Worker;
use pitcrew_scenario::{Change, Machine, Scenario};

use super::machine::silent;
use super::watch::Feed;
use crate::error::Error;
use crate::view::top::{Look, Pod, ProcessInfo, Trouble};

/// Process ids of jobs; a scenario's own are lower.
const FIRST_PID: u32 = 100_000;
/// What imaginary jobs do.
const JOBS: [&str; 5] = ["train", "infer", "render", "embed", "tune"];

/// An imaginary machine, as it stands or with jobs that come and go.
pub(crate) struct Demo {
    machine: Machine,
    alive: bool,
    interval: Duration,
    /// Looks so far.
    step: u32,
    /// The job on each GPU, if any.
    jobs: BTreeMap<u32, Job>,
    started: u32,
}

/// One job on one GPU.
struct Job {
    pid: u32,
    name: &'static str,
    /// The look at which it ends.
    ends: u32,
    /// Load that it swings around, in percent.
    load: u32,
}

/// A number from 0 to below `sides`, the same every time for the same look, GPU and purpose.
fn dice(step: u32, gpu: u32, purpose: u64, sides: u32) -> u32 {
    // SplitMix64, as published by Sebastiano Vigna.
    let mut state = (u64::from(step) << 32 | u64::from(gpu) << 8 | purpose)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^= state >> 31;
    u32::try_from(state % u64::from(sides.max(1))).unwrap_or_default()
}

impl Demo {
    /// The scenario as it stands; with `alive`, jobs come and go from the second look on.
    pub(crate) fn new(machine: Machine, interval: Duration, alive: bool) -> Self {
        Self {
            machine,
            alive,
            interval,
            step: 0,
            jobs: BTreeMap::new(),
            started: 0,
        }
    }

    /// From a scenario.
    pub(crate) fn of(scenario: Scenario, interval: Duration, alive: bool) -> Self {
        Self::new(Machine::new(scenario), interval, alive)
    }

    /// One step of imaginary life on every GPU that answers.
    fn live(&mut self) {
        let Ok(inventory) = self.machine.inventory() else {
            return;
        };
        self.machine.advance(self.interval);
        for gpu in &inventory.gpus {
            if gpu.readings.uuid.is_absent() {
                self.jobs.remove(&gpu.index);
                continue;
            }
            self.work(gpu);
        }
    }

    fn work(&mut self, gpu: &Gpu) {
        let (step, index) = (self.step, gpu.index);
        if self.jobs.get(&index).is_some_and(|job| job.ends <= step)
            && let Some(job) = self.jobs.remove(&index)
        {
            self.change(&Change::EndProcess {
                gpu: index,
                pid: job.pid,
            });
            self.load(index, 0);
            return;
        }
        if let Some(job) = self.jobs.get(&index) {
            let swing = dice(step, index, 1, 17);
            let percent = (job.load + swing).saturating_sub(8).clamp(1, 100);
            self.load(index, percent);
        } else if dice(step, index, 2, if step == 1 { 2 } else { 12 }) == 0 {
            self.begin(gpu);
        }
    }

    /// A job begins, if there is a place and memory for it.
    fn begin(&mut self, gpu: &Gpu) {
        let (step, index) = (self.step, gpu.index);
        let devices = gpu.readings.mig_devices.value().map_or(&[][..], Vec::as_slice);
        let is_cut = gpu.readings.mig_mode.value().is_some_and(|mode| mode.current);
        let device = (!devices.is_empty()).then(|| {
            let count = u32::try_from(devices.len()).unwrap_or(1);
            let at = usize::try_from(dice(step, index, 3, count)).unwrap_or_default();
            devices.get(at)
        });
        let device = device.flatten();
        if is_cut && device.is_none() {
            return;
        }
        let room = match device {
            Some(device) => device.memory_total_bytes.value().copied(),
            None => gpu.readings.memory_free_bytes.value().copied(),
        };
        self.started += 1;
        let pid = FIRST_PID + self.started * 37;
        let share = u64::from(15 + dice(step, index, 4, 60));
        let begun = self.change(&Change::StartProcess {
            gpu: index,
            pid,
            memory_bytes: room.map(|bytes| bytes / 100 * share),
            gpu_instance: device.map(|device| device.gpu_instance),
            compute_instance: device.map(|device| device.compute_instance),
        });
        if begun {
            let kind = usize::try_from(dice(step, index, 5, 5)).unwrap_or_default();
            let job = Job {
                pid,
                name: JOBS.get(kind).copied().unwrap_or("job"),
                ends: step + 20 + dice(step, index, 6, 120),
                load: 30 + dice(step, index, 7, 71),
            };
            self.load(index, job.load.min(100));
            self.jobs.insert(index, job);
        }
    }

    fn load(&self, gpu: u32, percent: u32) {
        self.change(&Change::Load { gpu, percent });
    }

    /// Whether it could happen. What a scenario forbids, such as a second process where none can be listed, doesn't.
    fn change(&self, change: &Change) -> bool {
        self.machine.change(change).is_ok()
    }

    /// What there is to know of the jobs: their processes are as imaginary as the GPUs.
    fn processes(&self) -> BTreeMap<u32, ProcessInfo> {
        let info = |job: &Job| ProcessInfo {
            name: Reading::Value(job.name.to_owned()),
            user: Reading::Value("demo".to_owned()),
            pod: Reading::Value(Pod {
                name: Some(("demo".to_owned(), format!("{}-{}", job.name, job.pid % 1000))),
                uid: String::new(),
            }),
        };
        self.jobs.values().map(|job| (job.pid, info(job))).collect()
    }
}

impl Feed for Demo {
    fn look(&mut self, now: Duration, _deadline: Duration) -> Look {
        if self.alive && self.step > 0 {
            self.live();
        }
        self.step += 1;
        Look {
            taken: now,
            inventory: self
                .machine
                .inventory()
                .map_err(|error| Trouble::Refused(error.to_string())),
            bus_only: Vec::new(),
            processes: self.processes(),
        }
    }
}

/// A feed on a thread of its own, so that one that hangs is told as a driver that hangs.
#[derive(Debug)]
pub(crate) struct OnThread<F>(Worker<F>);

impl<F: Feed + 'static> OnThread<F> {
    pub(crate) fn new(feed: F) -> Result<Self, Error> {
        Worker::start("top-demo", || feed)
            .map(Self)
            .map_err(Error::NoThread)
    }
}

impl<F: Feed + 'static> Feed for OnThread<F> {
    fn look(&mut self, now: Duration, deadline: Duration) -> Look {
        let look = self.0.call("read the GPUs", deadline, move |feed: &mut F| {
            feed.look(now, deadline)
        });
        look.unwrap_or_else(|stuck| Look {
            taken: now,
            inventory: Err(silent(stuck)),
            bus_only: Vec::new(),
            processes: BTreeMap::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(look: &Look) -> Vec<u32> {
        let inventory = look.inventory.as_ref().unwrap();
        let gpus = inventory.gpus.iter();
        gpus.filter_map(|gpu| gpu.readings.utilization_gpu_percent.value().copied())
            .collect()
    }

    fn looks(scenario: &str, alive: bool, count: u64) -> Vec<Look> {
        let mut demo = Demo::of(
            Scenario::builtin(scenario).unwrap(),
            Duration::from_secs(1),
            alive,
        );
        (0..count)
            .map(|second| demo.look(Duration::from_secs(second), Duration::from_secs(1)))
            .collect()
    }

    #[test]
    fn jobs_come_and_go_and_are_the_same_every_time() {
        let first = looks("h100x8", true, 300);
        let again = looks("h100x8", true, 300);
        let loads: Vec<Vec<u32>> = first.iter().map(busy).collect();
        assert_eq!(loads, again.iter().map(busy).collect::<Vec<_>>());
        assert_eq!(loads[0], [0; 8], "the first look is the scenario as it stands");
        for gpu in 0..8 {
            assert!(loads.iter().any(|looks| looks[gpu] > 30), "GPU {gpu} never works");
            assert!(
                loads.iter().skip(1).any(|looks| looks[gpu] == 0),
                "GPU {gpu} never rests"
            );
        }
        for look in &first {
            for gpu in &look.inventory.as_ref().unwrap().gpus {
                let readings = &gpu.readings;
                assert!(
                    readings.memory_used_bytes.value() <= readings.memory_total_bytes.value(),
                    "{gpu:?}"
                );
                for process in readings.processes.value().unwrap() {
                    assert!(look.processes.contains_key(&process.pid));
                }
            }
        }
    }

    #[test]
    fn as_it_stands_nothing_changes() {
        let all = looks("mixed", false, 50);
        let first = all[0].inventory.as_ref().unwrap();
        assert!(all.iter().all(|look| look.inventory.as_ref().unwrap() == first));
    }

    #[test]
    fn a_lost_gpu_stays_lost_and_every_scenario_can_be_lived_in() {
        for (name, _) in Scenario::builtin_names() {
            assert_eq!(looks(name, true, 100).len(), 100, "{name}");
        }
        let broken = looks("broken", true, 100);
        let last = broken.last().unwrap().inventory.as_ref().unwrap();
        assert!(last.gpus[2].readings.uuid.is_absent());
    }
}
