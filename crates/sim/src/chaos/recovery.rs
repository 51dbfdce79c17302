//! What must hold at every moment, and how soon all is well again.

use std::collections::BTreeMap;
use std::time::Instant;

use pitcrew_cdi::QualifiedName;
use pitcrew_cdi::directories::{DEFAULT, Directories};
use pitcrew_core::plugin::uuid_of;
use pitcrew_core::ports::HostFs as _;
use pitcrew_kubelet::fake::{Form, Held, conflicts};
use pitcrew_scenario::Change;

use super::{RECOVERY, World};

/// What is put in force when all is made well again.
const CONFIGURATION: &str = "version: v1\nflags:\n  migStrategy: mixed\n";
/// Between two looks.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

impl World {
    /// Learns which GPU the MIG devices that there are now are on.
    pub(super) fn learn(&mut self) {
        let machine = self.node.machine();
        let gpus = (0..machine.gpu_count()).filter_map(|index| machine.gpu(index));
        for gpu in gpus.collect::<Vec<_>>() {
            for device in gpu.readings.mig_devices.value().into_iter().flatten() {
                self.parents.insert(device.uuid.clone(), gpu.uuid.clone());
            }
            self.parents.insert(gpu.uuid.clone(), gpu.uuid);
        }
    }

    /// The GPU that a device is on, or was.
    pub(super) fn parent(&self, id: &str) -> Option<String> {
        self.parents.get(uuid_of(id)).cloned()
    }

    /// What must hold now.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.learn();
        let held = self.node.kubelet().held();
        if let Some(stranger) = held.iter().find(|held| self.parent(&held.id).is_none()) {
            return Err(format!("{} was handed out and never was there", stranger.id));
        }
        // Of a GPU: all, turns of it, or MIG devices on it.
        let of_gpu = |held: &Held| {
            let gpu = self.parent(&held.id)?;
            let form = match (uuid_of(&held.id) == gpu, held.id.contains("::")) {
                (true, false) => Form::Whole,
                (true, true) => Form::Part("turns".to_owned()),
                (false, _) => Form::Part("MIG".to_owned()),
            };
            Some((gpu, form))
        };
        // Of a device: all, or turns of it.
        let of_device = |held: &Held| {
            let form = if held.id.contains("::") {
                Form::Part("turns".to_owned())
            } else {
                Form::Whole
            };
            Some((uuid_of(&held.id).to_owned(), form))
        };
        let mut found = conflicts(&held, of_gpu);
        found.extend(conflicts(&held, of_device));
        if !found.is_empty() {
            return Err(found.join("; "));
        }
        self.names()
    }

    /// Names of pods that live resolve. A pod without a process doesn't keep the driver from taking its device away.
    fn names(&self) -> Result<(), String> {
        if self.pods.is_empty() {
            return Ok(());
        }
        let read = Directories::read(self.node.files(), &DEFAULT);
        let devices = read.devices();
        for pod in self.pods.iter().filter(|pod| pod.holds) {
            for text in &pod.given.cdi {
                let is_there = text
                    .parse::<QualifiedName>()
                    .is_ok_and(|name| devices.found.contains_key(&name));
                if !is_there {
                    let listed = self.node.files().list(std::path::Path::new("/var/run/cdi"));
                    return Err(format!(
                        "{} was given {text}, which resolves no more; /var/run/cdi has {listed:?}",
                        pod.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// Makes all well again, and waits until all capacity is back.
    pub(super) async fn recover(&mut self) -> Result<(), String> {
        self.note("all is made well again");
        self.end_all();
        self.node.api().faults().clear();
        self.change(&Change::Release);
        let machine = self.node.machine().clone();
        if machine.driver().is_err() {
            self.change(&Change::ReplaceDriver {
                version: "580.159.04".to_owned(),
            });
        }
        for gpu in 0..machine.gpu_count() {
            let Some(facts) = machine.gpu(gpu) else { continue };
            // The processes of the scenario itself don't outlive this.
            for process in facts.readings.processes.value().into_iter().flatten() {
                let pid = process.pid;
                self.change(&Change::EndProcess { gpu, pid });
            }
            if facts.lost {
                self.change(&Change::Return { gpu });
            } else if facts.readings.xids.value().is_some_and(|xids| !xids.is_empty()) {
                self.change(&Change::Reset { gpu });
            }
        }
        self.node
            .configure(CONFIGURATION)
            .map_err(|error| error.to_string())?;
        if !self.node.agent_runs() {
            return Err("the agent has ended by itself".to_owned());
        }
        let begun = Instant::now();
        loop {
            let (expected, known) = (self.expected(), self.known());
            self.check()?;
            if expected == known {
                break;
            }
            if begun.elapsed() > RECOVERY {
                return Err(format!(
                    "capacity did not come back within {RECOVERY:?}: the kubelet knows {known:?} and should know {expected:?}"
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let took = begun.elapsed();
        self.report.recoveries += 1;
        self.report.slowest = self.report.slowest.max(took);
        self.note(&format!("all capacity is back after {:.3} s", took.as_secs_f32()));
        Ok(())
    }

    /// How many healthy devices there should be of each resource.
    fn expected(&self) -> BTreeMap<String, usize> {
        let machine = self.node.machine();
        let mut expected = BTreeMap::new();
        for gpu in (0..machine.gpu_count()).filter_map(|index| machine.gpu(index)) {
            let readings = &gpu.readings;
            if readings.mig_mode.value().is_some_and(|mode| mode.current) {
                for device in readings.mig_devices.value().into_iter().flatten() {
                    let profile = device.profile.to_string().replace('+', ".");
                    *expected.entry(format!("nvidia.com/mig-{profile}")).or_default() += 1;
                }
            } else {
                *expected.entry("nvidia.com/gpu".to_owned()).or_default() += 1;
            }
        }
        expected
    }

    /// How many healthy devices the kubelet knows of each resource; none of a resource whose plugin went counts.
    fn known(&self) -> BTreeMap<String, usize> {
        let capacity = self.node.kubelet().capacity().into_iter();
        capacity
            .map(|(name, (_, healthy))| (name, healthy))
            .filter(|(_, healthy)| *healthy > 0)
            .collect()
    }
}
