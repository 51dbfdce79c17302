//! What other parts should make true, by what is known.

use std::path::PathBuf;
use std::sync::Arc;

use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::labels::Offer;
use pitcrew_core::plugin::config::Config;
use pitcrew_core::{Gpu, Inventory, Reading};
use pitcrew_host::Host;

use super::super::eyes::Wish;
use super::super::offer;
use super::super::parts::Shares;
use super::Node;
use crate::Deps;
use crate::labels::Outlet;
use crate::mps;
use crate::plugin::strategy::choose;
use crate::plugin::{Answers, Choice, Wanted};
use crate::runtime::Tier;
use crate::specs::keep::Order;
use crate::specs::{Basis, DriverRoots, directories_of};

impl Node {
    /// What specifications should be made of; `None` before that is known.
    pub(in crate::run) fn order(&self) -> Option<Order> {
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
            extras: self
                .config
                .as_ref()
                .map(|chosen| offer::extras(&chosen.config))
                .unwrap_or_default(),
        };
        Some(Order {
            basis,
            turn: self.turn,
            nodes: self.way.as_ref().is_some_and(|way| way.tier == Tier::Mounts)
                || flags.is_some_and(|flags| flags.plugin.pass_device_specs),
        })
    }

    /// Which daemons of MPS there should be; `None` before everything is known that they need.
    pub(in crate::run) fn shares(&self) -> Option<Shares> {
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

    /// How containers are told their devices; `None` before it is known what the runtime can do.
    pub(super) fn choice(&self, config: &Config) -> Option<Choice> {
        let (host, way) = (self.host.as_ref()?, self.way.as_ref()?);
        let asked = offer::strategies(config);
        Some(choose(way.tier, &asked, offer::kubelet(host)))
    }

    /// What the device plugin should serve; `None` before everything is known that it needs.
    pub(in crate::run) fn wanted(&self) -> Option<Wanted> {
        let (known, host) = (self.known.as_ref()?, self.host.as_ref()?);
        let config = &self.config.as_ref()?.config;
        let made = self.made.as_ref()?;
        let proof = self.proof.as_ref()?;
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
            withheld: proof.withheld.clone(),
            answers: Arc::new(answers),
            topology,
            policy: plugin.sharing_policy,
        })
    }

    /// The host's facts for who changes the host; `None` while nobody may, as the driver is somebody else's now.
    pub(in crate::run) fn host_to_change(&self) -> Option<Arc<Host>> {
        self.host.clone().filter(|_| self.release.is_none())
    }

    /// Where labels are written; `None` before the configuration is known.
    pub(in crate::run) fn outlet(&self, deps: &Deps) -> Option<Outlet> {
        let flags = &self.config.as_ref()?.config.flags;
        let namespace = deps
            .client
            .as_ref()
            .map_or("default", |client| client.default_namespace());
        Some(Outlet::of(deps.settings.labels, flags, namespace))
    }

    /// How labels tell of what is offered; `None` before the configuration is known.
    pub(in crate::run) fn labels(&self) -> Option<Offer> {
        self.config.as_ref().map(|chosen| Offer::of(&chosen.config))
    }

    /// What the eyes should do.
    pub(in crate::run) fn wish(&self) -> Wish {
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
        silent: Vec::new(),
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
