//! What the main loop knows of its node, and what it makes of it. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pitcrew_core::Inventory;
use pitcrew_core::plugin::config::{Config, Remark};
use pitcrew_core::plugin::preference::Topology;
use pitcrew_core::plugin::resources::{self, Plan};
use pitcrew_core::plugin::{Device, Resource, uuid_of};
use pitcrew_core::ports::GpuError;
use pitcrew_host::Host;

use super::eyes::Seen;
use super::install::Installed;
use super::offer;
use crate::config::Chosen;
use crate::health::Health;
use crate::mps;
use crate::notice::{Level, Notice, Topic};
use crate::plugin::Status;
use crate::proof;
use crate::runtime::{Tier, Way, assess};
use crate::settings::Settings;
use crate::snapshot::{Part, Problem, Snapshot};
use crate::specs::keep::Made;

mod known;
mod problem;
mod story;
#[cfg(test)]
mod tests;
mod wanted;

use problem::{driver_problem, released_problem};
use story::of_node;

/// Everything known of the node.
#[derive(Debug)]
pub(super) struct Node {
    health: Health,
    host: Option<Arc<Host>>,
    /// The last look at the GPUs.
    gpus: Option<Result<Arc<Inventory>, GpuError>>,
    /// GPUs as they were when they last answered: what is sick now is still this node's.
    known: Option<Arc<Inventory>>,
    /// Why the driver must be let go of.
    release: Option<String>,
    /// How a GPU reaches a container here.
    way: Option<Way>,
    /// How often the host was looked at.
    turn: u64,
    config: Option<Arc<Chosen<Config>>>,
    /// Why the configuration isn't in force.
    config_problem: Option<Problem>,
    installed: Option<Installed>,
    restart_problem: Option<Problem>,
    /// Pods that can't start for want of the handler.
    waiting: Vec<String>,
    made: Option<Made>,
    plugin: Status,
    shared: mps::Status,
    /// What there is of proofs; `None` before that is known.
    proof: Option<Arc<proof::View>>,
    /// What the node should offer, and how its GPUs are connected; `None` before that is known.
    plan: Option<(Arc<Plan>, Arc<Topology>)>,
    /// What was told of the plan.
    remarks: Vec<String>,
    problems: BTreeMap<Part, Problem>,
    notices: Vec<Notice>,
    cdi_dir: PathBuf,
}

impl Node {
    /// Nothing known yet.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            health: Health::new(settings.xids.clone(), settings.probation),
            host: None,
            gpus: None,
            known: None,
            release: None,
            way: None,
            turn: 0,
            config: None,
            config_problem: None,
            installed: None,
            restart_problem: None,
            waiting: Vec::new(),
            made: None,
            plugin: Status::default(),
            shared: mps::Status::default(),
            proof: None,
            plan: None,
            remarks: Vec::new(),
            problems: BTreeMap::new(),
            notices: Vec::new(),
            cdi_dir: settings.cdi_dir.clone(),
        }
    }

    /// What is to be told since the last call.
    pub(super) fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Takes in what was seen.
    pub(super) fn see(&mut self, seen: Seen, now: Instant) {
        match seen {
            Seen::Gpus(Ok(inventory)) => {
                self.tell_gpus(&inventory);
                let changes = self.health.look(&inventory, now);
                self.set_problem(Part::Driver, None);
                self.known = Some(self.remember(&inventory));
                self.gpus = Some(Ok(inventory));
                self.tell_health(changes);
            }
            Seen::Gpus(Err(error)) => {
                let changes = self.health.failed(&error);
                self.set_problem(Part::Driver, Some(driver_problem(&error)));
                self.gpus = Some(Err(error));
                self.tell_health(changes);
            }
            Seen::Event(event) => {
                let changes = self.health.event(&event, now);
                self.tell_health(changes);
            }
            Seen::Released { why, held } => {
                let changes = self.health.released(&why);
                self.set_problem(Part::Driver, Some(released_problem(&why, held.as_deref())));
                self.tell_health(changes);
            }
            Seen::Host(host) => {
                if self
                    .host
                    .as_ref()
                    .is_none_or(|old| old.distribution != host.distribution)
                {
                    self.tell(Level::Info, Topic::Node, of_node(&host));
                }
                self.see_host(host);
            }
        }
        self.plan();
    }

    fn see_host(&mut self, host: Arc<Host>) {
        let loaded = self.installed.as_ref().map(|installed| installed.loaded);
        let way = assess(&host).since(loaded.unwrap_or_default());
        if self.way.as_ref().is_none_or(|old| old.tier != way.tier) {
            let level = if way.tier == Tier::Unknown {
                Level::Warning
            } else {
                Level::Info
            };
            let text = format!("containers get their GPUs by {}: {}", way.tier, way.reason);
            self.tell(level, Topic::Runtime, text);
        }
        self.way = Some(way);
        self.turn += 1;
        self.host = Some(host);
        self.judge_runtime();
        self.forget_foreign();
    }

    fn judge_runtime(&mut self) {
        let installed = self
            .installed
            .as_ref()
            .and_then(|installed| installed.problem.clone());
        let restart = self.restart_problem.clone();
        let handler = self.way.as_ref().and_then(|way| way.problem(&self.waiting));
        self.set_problem(Part::Runtime, installed.or(restart).or(handler));
    }

    /// A restart of the supervisor went wrong, or didn't.
    pub(super) fn set_restart_problem(&mut self, problem: Option<Problem>) {
        self.restart_problem = problem;
        self.judge_runtime();
    }

    /// Takes in which pods can't start for want of the handler.
    pub(super) fn set_waiting(&mut self, pods: Vec<String>) {
        self.waiting = pods;
        self.judge_runtime();
    }

    /// Takes in the configuration that is in force, and why a newer one isn't.
    pub(super) fn configure(&mut self, config: Option<Arc<Chosen<Config>>>, problem: Option<Problem>) {
        self.config = config;
        self.config_problem = problem;
        self.plan();
    }

    /// Takes in what was installed.
    pub(super) fn install(&mut self, installed: Option<Installed>) {
        self.installed = installed;
        if let (Some(host), Some(installed)) = (&self.host, &self.installed) {
            self.way = Some(assess(host).since(installed.loaded));
        }
        self.judge_runtime();
    }

    /// Takes in what specifications there are.
    pub(super) fn make(&mut self, made: Option<Made>) {
        self.set_problem(Part::Specs, made.as_ref().and_then(|made| made.problem.clone()));
        self.made = made;
    }

    /// Takes in how the device plugin is.
    pub(super) fn serve(&mut self, status: Status) {
        self.set_problem(Part::Plugin, status.problem.clone());
        self.plugin = status;
    }

    /// Plans the resources anew.
    fn plan(&mut self) {
        let (Some(config), Some(known)) = (self.config.clone(), self.known.clone()) else {
            let problem = self.config_problem.clone();
            return self.set_problem(Part::Config, problem);
        };
        let config = &config.config;
        let numa = self.host.as_ref().map(|host| offer::numa(&known, host));
        match resources::plan(&known, config, &numa.unwrap_or_default()) {
            Ok(plan) => {
                let mut remarks: Vec<String> = config
                    .remarks
                    .iter()
                    .chain(&plan.remarks)
                    .map(Remark::to_string)
                    .collect();
                remarks.extend(plan.left_out.iter().map(ToString::to_string));
                remarks.extend(
                    self.choice(config)
                        .map(|choice| choice.remarks)
                        .unwrap_or_default(),
                );
                for remark in &remarks {
                    if !self.remarks.contains(remark) {
                        self.tell(Level::Warning, Topic::Plugin, remark.clone());
                    }
                }
                self.remarks = remarks;
                let topology = Topology::of(&known);
                self.plan = Some((Arc::new(plan), Arc::new(topology)));
                let problem = self.config_problem.clone();
                self.set_problem(Part::Config, problem);
            }
            // What was offered before still holds.
            Err(error) => self.set_problem(
                Part::Config,
                Some(Problem {
                    reason: "ConfigNotPossible".to_owned(),
                    message: error.to_string(),
                    hint: "change the device plugin's configuration or the MIG layout of this node"
                        .to_owned(),
                }),
            ),
        }
    }

    /// Takes in which daemons of MPS there are.
    pub(super) fn share(&mut self, shared: mps::Status) {
        self.set_problem(Part::Mps, shared.problem());
        self.shared = shared;
    }

    /// Takes in what there is of proofs.
    pub(super) fn prove(&mut self, view: Option<proof::View>) {
        self.proof = view.map(Arc::new);
    }

    /// The driver must be let go of for this reason, or may be used again.
    pub(super) fn set_release(&mut self, why: Option<String>) {
        if self.release != why {
            let text = match &why {
                Some(why) => format!("letting go of the driver: {why}"),
                None => "the driver may be used again".to_owned(),
            };
            self.tell(Level::Info, Topic::Gpus, text);
            self.release = why;
        }
    }

    /// A part of the agent has this problem from now on, or none.
    pub(super) fn set_problem(&mut self, part: Part, problem: Option<Problem>) {
        let before = self.problems.get(&part);
        if before == problem.as_ref() {
            return;
        }
        // The seconds that a call has not returned are in the message, and change all the time.
        let is_new = before.map(|before| &before.reason) != problem.as_ref().map(|problem| &problem.reason);
        if is_new && part == Part::Driver {
            match &problem {
                Some(problem) => {
                    let text = format!("{}; {}", problem.message, problem.hint);
                    self.tell(Level::Warning, Topic::Gpus, text);
                }
                None => self.tell(Level::Info, Topic::Gpus, "the driver answers again".to_owned()),
            }
        }
        match problem {
            Some(problem) => self.problems.insert(part, problem),
            None => self.problems.remove(&part),
        };
    }

    /// What is known, for everybody.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            host: self.host.clone(),
            gpus: self.gpus.clone(),
            sick: self.health.sick().clone(),
            held: self.held(),
            resources: self.resources().to_vec(),
            registered: self.plugin.registered.clone(),
            unhealthy: self.plugin.unhealthy.clone(),
            tier: self.way.as_ref().map_or(Tier::Unknown, |way| way.tier),
            problems: self.problems.clone(),
            remarks: self
                .shared
                .remark()
                .map(|remark| (Part::Mps, remark))
                .into_iter()
                .collect(),
            proof: self.proof.clone().unwrap_or_default(),
        }
    }

    fn resources(&self) -> &[Resource] {
        self.plan
            .as_ref()
            .map_or(&[], |(plan, _)| plan.resources.as_slice())
    }

    /// Who holds what, by GPU; `None` where the kubelet didn't say.
    fn held(&self) -> Option<BTreeMap<String, BTreeSet<String>>> {
        let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let devices = self.resources().iter().flat_map(|resource| &resource.devices);
        let devices: Vec<&Device> = devices.collect();
        for holding in self.plugin.held.as_ref()? {
            // Under an id that isn't offered any more it is held as well.
            let uuid = uuid_of(&holding.id);
            let device = devices
                .iter()
                .find(|device| device.uuid == uuid || device.gpu == uuid);
            if let Some(device) = device {
                held.entry(device.gpu.clone())
                    .or_default()
                    .insert(holding.holder.clone());
            }
        }
        Some(held)
    }
}
