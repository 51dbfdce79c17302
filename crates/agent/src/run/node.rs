//! What the main loop knows of its node, and what it makes of it. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::labels::Offer;
use pitcrew_core::plugin::config::{Config, Remark};
use pitcrew_core::plugin::preference::Topology;
use pitcrew_core::plugin::resources::{self, Plan};
use pitcrew_core::plugin::{Device, Resource, uuid_of};
use pitcrew_core::ports::GpuError;
use pitcrew_core::{Gpu, Inventory, Reading};
use pitcrew_host::Host;

use super::eyes::{Seen, Wish};
use super::install::Installed;
use super::offer;
use super::parts::Shares;
use crate::config::Chosen;
use crate::health::{Change, Health};
use crate::mps;
use crate::notice::{Level, Notice, Topic};
use crate::plugin::strategy::choose;
use crate::plugin::{Answers, Choice, Status, Wanted};
use crate::runtime::{Tier, Way, assess};
use crate::settings::Settings;
use crate::snapshot::{Part, Problem, Snapshot};
use crate::specs::keep::{Made, Order};
use crate::specs::{Basis, DriverRoots, directories_of};

#[cfg(test)]
mod tests;

/// The driver that hands a GPU to containers.
const OURS: &str = "nvidia";

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
    made: Option<Made>,
    plugin: Status,
    shared: mps::Status,
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
            made: None,
            plugin: Status::default(),
            shared: mps::Status::default(),
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
            Seen::Released { why, is_free } => {
                let changes = self.health.released(&why);
                self.set_problem(Part::Driver, Some(released_problem(&why, is_free)));
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
        let handler = self.way.as_ref().and_then(|way| way.problem(&[]));
        self.set_problem(Part::Runtime, installed.or(restart).or(handler));
    }

    /// A restart of the supervisor went wrong, or didn't.
    pub(super) fn set_restart_problem(&mut self, problem: Option<Problem>) {
        self.restart_problem = problem;
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

    /// What specifications should be made of; `None` before that is known.
    pub(super) fn order(&self) -> Option<Order> {
        let (known, host) = (self.known.as_ref()?, self.host.as_ref()?);
        let installed = self.installed.as_ref()?;
        let hook = installed.hook.clone()?;
        let flags = self.config.as_ref().map(|chosen| &chosen.config.flags);
        let found = DriverRoots::find(host);
        let asked = flags
            .and_then(|flags| flags.driver_root.clone())
            .or_else(|| installed.driver_root.clone());
        let dev_asked = flags
            .and_then(|flags| flags.dev_root().map(ToOwned::to_owned))
            .or_else(|| installed.dev_root.clone());
        let basis = Basis {
            gpus: Arc::new(shape(known)),
            driver: DriverRoots {
                libraries: asked.unwrap_or(found.libraries),
                devices: dev_asked.unwrap_or(found.devices),
            },
            hook,
            dirs: directories_of(host, &self.cdi_dir),
            dir: self.cdi_dir.clone(),
        };
        Some(Order {
            basis,
            turn: self.turn,
            nodes: self.way.as_ref().is_some_and(|way| way.tier == Tier::Mounts)
                || flags.is_some_and(|flags| flags.plugin.pass_device_specs),
        })
    }

    /// Which daemons of MPS there should be; `None` before everything is known that they need.
    pub(super) fn shares(&self) -> Option<Shares> {
        let (order, known) = (self.order()?, self.known.as_ref()?);
        let (plan, _) = self.plan.as_ref()?;
        let flags = &self.config.as_ref()?.config.flags;
        let host = self.host.as_ref()?;
        Some(Shares {
            daemons: mps::plan(&plan.resources, known),
            place: mps::Place {
                root: flags.mps_root().to_owned(),
                driver_root: order.basis.driver.libraries,
                selinux: host.security.selinux.value().is_some(),
            },
        })
    }

    /// Takes in which daemons of MPS there are.
    pub(super) fn share(&mut self, shared: mps::Status) {
        self.set_problem(Part::Mps, shared.problem());
        self.shared = shared;
    }

    /// How containers are told their devices; `None` before it is known what the runtime can do.
    fn choice(&self, config: &Config) -> Option<Choice> {
        let (host, way) = (self.host.as_ref()?, self.way.as_ref()?);
        let asked = offer::strategies(config);
        Some(choose(way.tier, &asked, offer::kubelet(host)))
    }

    /// What the device plugin should serve; `None` before everything is known that it needs.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let (known, host) = (self.known.as_ref()?, self.host.as_ref()?);
        let config = &self.config.as_ref()?.config;
        let made = self.made.as_ref()?;
        let plugin = &config.flags.plugin;
        let choice = self.choice(config)?;
        let answers = Answers {
            strategies: choice.strategies,
            pass_device_specs: plugin.pass_device_specs,
            indices: offer::indices(config, known),
            annotation_prefix: plugin.cdi_annotation_prefix.clone(),
            extras: offer::extras(config),
            extra_devices: offer::cdi_devices(host),
            mps: self.shared.ready.clone(),
            in_spec: Some(made.names()),
            nodes: Arc::clone(&made.nodes),
        };
        let (plan, topology) = self.plan.clone()?;
        Some(Wanted {
            plan,
            sick: self.health.sick().clone(),
            answers: Arc::new(answers),
            topology,
            policy: plugin.sharing_policy,
        })
    }

    /// The host's facts for who changes the host; `None` while nobody may, as the driver is somebody else's now.
    pub(super) fn host_to_change(&self) -> Option<Arc<Host>> {
        self.host.clone().filter(|_| self.release.is_none())
    }

    /// How labels tell of what is offered; `None` before the configuration is known.
    pub(super) fn labels(&self) -> Option<Offer> {
        self.config.as_ref().map(|chosen| Offer::of(&chosen.config))
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

    /// What the eyes should do.
    pub(super) fn wish(&self) -> Wish {
        let missing = !matches!(self.gpus, Some(Ok(_)));
        Wish {
            release: self.release.clone(),
            closely: missing || self.health.is_waiting(),
            files: self
                .host
                .as_ref()
                .map(|host| telling_files(host))
                .unwrap_or_default(),
        }
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
            tier: self.way.as_ref().map_or(Tier::Unknown, |way| way.tier),
            problems: self.problems.clone(),
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

    /// The GPUs of a look, and in the place of each that doesn't answer what it was before: it is still there, and its
    /// devices are sick and not gone. Not so one that is somebody else's now.
    fn remember(&self, inventory: &Arc<Inventory>) -> Arc<Inventory> {
        let answers = |gpu: &Gpu| gpu.readings.uuid.value().is_some();
        let Some(before) = &self.known else {
            return Arc::clone(inventory);
        };
        let lost: Vec<&Gpu> = before
            .gpus
            .iter()
            .filter(|old| {
                let now = inventory
                    .gpus
                    .iter()
                    .find(|gpu| gpu.pci.address == old.pci.address);
                let elsewhere = inventory
                    .gpus
                    .iter()
                    .any(|gpu| answers(gpu) && gpu.readings.uuid == old.readings.uuid);
                answers(old) && !now.is_some_and(answers) && !elsewhere && !self.is_foreign(old)
            })
            .collect();
        if lost.is_empty() {
            return Arc::clone(inventory);
        }
        let mut known = Inventory::clone(inventory);
        known
            .gpus
            .retain(|gpu| !lost.iter().any(|old| old.pci.address == gpu.pci.address));
        known.gpus.extend(lost.into_iter().cloned());
        known.gpus.sort_by_key(|gpu| gpu.index);
        Arc::new(known)
    }

    /// True for a GPU that another driver holds, such as `vfio-pci` for a virtual machine.
    fn is_foreign(&self, gpu: &Gpu) -> bool {
        let on_bus = self.host.as_ref().and_then(|host| host.gpus.value());
        on_bus.is_some_and(|on_bus| {
            on_bus
                .iter()
                .find(|found| found.function.address == gpu.pci.address)
                .and_then(|found| found.driver.value())
                .is_some_and(|driver| driver != OURS)
        })
    }

    /// Forgets GPUs that have become somebody else's.
    fn forget_foreign(&mut self) {
        let Some(known) = &self.known else { return };
        let (gone, kept): (Vec<Gpu>, Vec<Gpu>) =
            known.gpus.iter().cloned().partition(|gpu| self.is_foreign(gpu));
        if gone.is_empty() {
            return;
        }
        let inventory = Inventory {
            gpus: kept,
            ..Inventory::clone(known)
        };
        self.known = Some(Arc::new(inventory));
        for gpu in gone {
            if let Some(uuid) = gpu.readings.uuid.value() {
                let text = format!("GPU {uuid} was given to another driver: it is not handed out any more");
                self.tell(Level::Warning, Topic::Gpus, text);
                let changes = self.health.forget(uuid);
                self.tell_health(changes);
            }
        }
    }

    fn tell(&mut self, level: Level, topic: Topic, text: String) {
        self.notices.push(Notice { topic, level, text });
    }

    fn tell_health(&mut self, changes: Vec<Change>) {
        // What is the driver's is told once, not for each GPU.
        if matches!(self.gpus, Some(Err(_))) || self.release.is_some() {
            return;
        }
        for change in changes {
            match change {
                Change::Sick { uuid, reason } => {
                    self.tell(Level::Error, Topic::Health, format!("{uuid} is sick: {reason}"));
                }
                Change::Well { uuid } => {
                    self.tell(Level::Info, Topic::Health, format!("{uuid} is well again"));
                }
            }
        }
    }

    /// Tells what GPUs there are where that is news.
    fn tell_gpus(&mut self, inventory: &Inventory) {
        let before = match &self.gpus {
            Some(Ok(before)) => Some(names(before)),
            _ => None,
        };
        let now = names(inventory);
        if before.as_ref() != Some(&now) {
            let version = inventory
                .driver
                .version
                .value()
                .map_or("of unknown version", String::as_str);
            let gpus = if now.is_empty() {
                "none".to_owned()
            } else {
                now.join(", ")
            };
            self.tell(Level::Info, Topic::Gpus, format!("driver {version}: {gpus}"));
        }
    }
}

/// GPUs without what changes all the time: what specifications are made of.
fn shape(inventory: &Inventory) -> Inventory {
    let of_gpu = |gpu: &Gpu| {
        let mut readings = GpuReadings::none_supported();
        readings.uuid.clone_from(&gpu.readings.uuid);
        readings.minor.clone_from(&gpu.readings.minor);
        readings.mig_mode.clone_from(&gpu.readings.mig_mode);
        readings.mig_devices.clone_from(&gpu.readings.mig_devices);
        if let Reading::Value(devices) = &mut readings.mig_devices {
            for device in devices {
                device.memory_used_bytes = Reading::NotSupported;
            }
        }
        Gpu {
            index: gpu.index,
            pci: gpu.pci,
            readings,
        }
    };
    Inventory {
        driver: inventory.driver.clone(),
        gpus: inventory.gpus.iter().map(of_gpu).collect(),
        links: Vec::new(),
    }
}

/// What GPUs there are, for people.
fn names(inventory: &Inventory) -> Vec<String> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for gpu in &inventory.gpus {
        let GpuReadings {
            name, mig_devices, ..
        } = &gpu.readings;
        let mut name = match name {
            Reading::Value(name) => name.clone(),
            Reading::NotSupported => "a GPU without a name".to_owned(),
            Reading::Failed(why) => format!("a GPU that can't be read ({why})"),
        };
        if let Some(devices) = mig_devices.value().filter(|devices| !devices.is_empty()) {
            let profiles: Vec<String> = devices.iter().map(|device| device.profile.to_string()).collect();
            name = format!("{name} cut into {}", profiles.join(" "));
        }
        match counts.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => counts.push((name, 1)),
        }
    }
    let told = |(name, count): (String, usize)| {
        if count > 1 {
            format!("{count} x {name}")
        } else {
            name
        }
    };
    counts.into_iter().map(told).collect()
}

fn of_node(host: &Host) -> String {
    let os = host.system.os.value().map(|os| os.pretty_name.clone());
    let os = os.unwrap_or_else(|| "an unknown operating system".to_owned());
    match host.distribution.value() {
        Some(found) => {
            let version = found.version.value().map(|version| format!(" {version}"));
            format!("{:?}{} on {os}", found.kind, version.unwrap_or_default())
        }
        None => format!("no known Kubernetes distribution, on {os}"),
    }
}

/// Files of the host whose change means that its facts are others.
fn telling_files(host: &Host) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(containerd) = host.containerd.value() {
        files.push(containerd.config_path.clone());
        files.extend(containerd.drop_ins.iter().map(|drop_in| drop_in.path.clone()));
        files.extend(containerd.templates.iter().map(|template| template.path.clone()));
    }
    for libraries in &host.driver.libraries {
        for name in ["libcuda.so.1", "libnvidia-ml.so.1"] {
            files.push(libraries.directory.join(name));
        }
    }
    files
}

fn driver_problem(error: &GpuError) -> Problem {
    let (reason, hint) = match error {
        GpuError::NoDriver(_) => ("DriverNotFound", "`pitcrew check` on the node says what it lacks"),
        GpuError::Silent { .. } => (
            "GpuSilent",
            "look at `dmesg | grep -e NVRM -e nvidia`; drain the node and reboot it",
        ),
        GpuError::GpuLost(_) => (
            "GpuLost",
            "drain the node and reboot it; if the GPU is lost again, reseat or replace the board",
        ),
        _ => (
            "DriverFailed",
            "look at `dmesg | grep -e NVRM -e nvidia`; where the driver was replaced, reboot the node",
        ),
    };
    Problem {
        reason: reason.to_owned(),
        message: error.to_string(),
        hint: hint.to_owned(),
    }
}

fn released_problem(why: &str, is_free: bool) -> Problem {
    if is_free {
        return Problem {
            reason: "Paused".to_owned(),
            message: format!("the driver was let go of: {why}"),
            hint: "nothing to do: its GPUs come back when the label is taken away".to_owned(),
        };
    }
    Problem {
        reason: "DriverHeld".to_owned(),
        message: format!("the driver could not be let go of, as a call of it has not returned: {why}"),
        hint: "end the agent's pod, or reboot the node".to_owned(),
    }
}
