//! What `Allocate` answers for devices. Pure, and quick: everything that has to be looked up was looked up before.
//!
//! The kubelet keeps an answer as long as the pod lives, and starts the container anew with it. So an answer names
//! only what stays when the agent is upgraded, the sharing changes, or NVIDIA's plugin was here before: devices by
//! UUID, never by their place in a list; CDI names of the kind that NVIDIA's plugin uses too; the driver's own files;
//! and the directories of the Multi-Process Service, which keep their paths. What goes with the driver is another
//! matter: no container can use the libraries of a driver that was replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pitcrew_cdi::Spec;
use pitcrew_cdi::generate::Extra;
use pitcrew_core::plugin::{Resource, Sharing, uuid_of};

use super::strategy::Strategy;
use crate::runtime::mounts::{self, BindMount, DeviceFile, NoSuchDevice};

/// Names in the kubelet's answers, as NVIDIA's device plugin has them.
const VENDOR: &str = "k8s.device-plugin.nvidia.com";
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";
const VOLUME_MOUNTS: &str = "/var/run/nvidia-container-devices";
const ANNOTATION: &str = "nvidia-device-plugin_";
/// Prefix of annotations that runtimes read as requests for CDI devices.
pub const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";
/// Longest part of a UUID in an annotation: what is behind the slash has at most 63 characters.
const MOST_OF_UUID: usize = 36;

/// What a container gets for its devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<BindMount>,
    /// Device nodes.
    pub nodes: Vec<DeviceFile>,
    /// Annotations of the container.
    pub annotations: BTreeMap<String, String>,
    /// Names of CDI devices.
    pub cdi_devices: Vec<String>,
}

/// What containers get besides their GPUs, if the configuration says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// Channels of IMEX.
    pub imex_channels: Vec<u32>,
    /// `GPUDirect` Storage.
    pub gds: bool,
    /// The network drivers of `MOFED`.
    pub mofed: bool,
    /// `GDRCopy`.
    pub gdrcopy: bool,
}

/// What containers get with a device that is shared through the Multi-Process Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<BindMount>,
}

/// Everything that answers are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// How devices are named; empty where nothing can be handed out. See [`super::strategy::choose`].
    pub strategies: Vec<Strategy>,
    /// Device nodes besides the names, for strategies that have a wrapper add them (`passDeviceSpecs`).
    pub pass_device_specs: bool,
    /// By-index names for the wrapper, by UUID, where the configuration asks for them (`deviceIDStrategy`). CDI names
    /// and everything else are UUIDs all the same, as an index changes with the hardware.
    pub indices: Option<BTreeMap<String, String>>,
    /// Prefix of annotations with CDI names; [`ANNOTATION_PREFIX`] where it is empty.
    pub annotation_prefix: String,
    /// Besides GPUs.
    pub extras: Extras,
    /// Full names of CDI devices that there are besides GPUs. An extra that isn't among them is not asked for by CDI, as
    /// a container that names a missing device doesn't start.
    pub extra_devices: BTreeSet<String>,
    /// What the Multi-Process Service adds, by name of the resource. A resource that is shared through it and isn't
    /// here has no daemon that runs: nothing of it is handed out.
    pub mps: BTreeMap<String, Shared>,
    /// Devices that the written CDI specification has, by UUID, where a strategy names CDI devices; `None` where that
    /// isn't known, and every device is believed to be there.
    pub in_spec: Option<BTreeSet<String>>,
    /// Device nodes and mounts, where [`Strategy::Mounts`] or `pass_device_specs` need them.
    pub nodes: Arc<Nodes>,
}

/// Device nodes and mounts of each device, made beforehand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes(BTreeMap<String, mounts::Answer>);

impl Nodes {
    /// Those of all devices of a specification whose devices are called by UUID. `usable` judges each: a device with a
    /// file that isn't on the host must be left out, see [`mounts::Answer::missing`].
    pub fn of(spec: &Spec, usable: impl Fn(&str, &mounts::Answer) -> bool) -> Self {
        let names = spec.devices.iter().map(|device| device.name.as_str());
        let answers = names.filter_map(|name| {
            let answer: Result<_, NoSuchDevice> = mounts::answer(spec, &[name]);
            Some((name.to_owned(), answer.ok()?))
        });
        Self(answers.filter(|(name, answer)| usable(name, answer)).collect())
    }

    /// What a container gets with these devices together; `None` where one isn't known.
    fn together(&self, uuids: &[&str]) -> Option<mounts::Answer> {
        let mut all = mounts::Answer::default();
        for uuid in uuids {
            let one = self.0.get(*uuid)?;
            if all == mounts::Answer::default() {
                all = one.clone();
                continue;
            }
            add_missing(&mut all.devices, &one.devices);
            add_missing(&mut all.mounts, &one.mounts);
            all.env.extend(one.env.clone());
        }
        Some(all)
    }
}

fn add_missing<T: Ord + Clone>(all: &mut Vec<T>, more: &[T]) {
    let known: BTreeSet<&T> = all.iter().collect();
    let missing: Vec<T> = more
        .iter()
        .filter(|item| !known.contains(item))
        .cloned()
        .collect();
    all.extend(missing);
}

/// Why a request is refused. The kubelet shows the text in the pod's status. What NVIDIA's plugin refuses too is said
/// in its words, which people look for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The resource has no such device (any more).
    #[error("invalid allocation request for {resource:?}: unknown device: {id}")]
    Unknown {
        /// The resource.
        resource: String,
        /// Id that was asked for.
        id: String,
    },
    /// A container may have only one.
    #[error(
        "invalid allocation request for {resource:?}: invalid request: maximum request size for shared resources is 1; \
         found {found}"
    )]
    TooMany {
        /// The resource.
        resource: String,
        /// How many were asked for.
        found: usize,
    },
    /// The device must not be used now.
    #[error("invalid allocation request for {resource:?}: device {id} is unhealthy: {why}")]
    Unhealthy {
        /// The resource.
        resource: String,
        /// Id that was asked for.
        id: String,
        /// Why.
        why: String,
    },
    /// The device isn't among the prepared ones: it is in no specification, or something of it isn't on the host.
    #[error("not all device nodes and files of {uuid} are there: `pitcrew cdi generate` says why")]
    NoNodes {
        /// UUID of the device.
        uuid: String,
    },
    /// No daemon of the Multi-Process Service runs for the resource.
    #[error("the Multi-Process Service of {resource} doesn't run: `kubectl describe node` says why")]
    NoMps {
        /// The resource.
        resource: String,
    },
    /// It isn't known how a container gets a GPU here.
    #[error(
        "it is not known yet how a container gets a GPU on this node: the container runtime was not found"
    )]
    NoStrategy,
}

impl Answers {
    /// The answer for these ids of a resource, or why there is none. `unhealthy` has the reason for each id that must
    /// not be used.
    pub fn answer(
        &self,
        resource: &Resource,
        unhealthy: &BTreeMap<String, String>,
        ids: &[String],
    ) -> Result<Answer, Refusal> {
        check(resource, unhealthy, ids)?;
        if self.strategies.is_empty() {
            return Err(Refusal::NoStrategy);
        }
        // Replicas of one device are one device.
        let mut uuids: Vec<&str> = Vec::new();
        for id in ids {
            let uuid = uuid_of(id);
            if !uuids.contains(&uuid) {
                uuids.push(uuid);
            }
        }
        let mut answer = Answer::default();
        self.name_cdi_devices(&mut answer, &uuids);
        if self.strategies.contains(&Strategy::Mounts) {
            let edits = self.nodes.together(&uuids).ok_or_else(|| no_nodes(&uuids))?;
            answer.nodes = edits.devices;
            answer.mounts = edits.mounts;
            answer.env = edits.env;
        }
        self.ask_the_wrapper(&mut answer, &uuids)?;
        if resource.sharing == Sharing::Mps {
            let shared = self.mps.get(&resource.name).ok_or_else(|| Refusal::NoMps {
                resource: resource.name.clone(),
            })?;
            answer.env.extend(shared.env.clone());
            answer.mounts.extend(shared.mounts.iter().cloned());
        }
        Ok(answer)
    }

    /// Why a device can't be handed out, whatever its health: a container that got it would not start. It must be
    /// unhealthy to the kubelet, which otherwise kills pod after pod.
    pub fn obstacle(&self, resource: &Resource, uuid: &str) -> Option<String> {
        let cdi = self.strategies.iter().any(|strategy| strategy.is_cdi());
        let needs_nodes = self.strategies.contains(&Strategy::Mounts);
        if self.strategies.is_empty() {
            Some(Refusal::NoStrategy.to_string())
        } else if resource.sharing == Sharing::Mps && !self.mps.contains_key(&resource.name) {
            Some("the daemon of the Multi-Process Service doesn't run".to_owned())
        } else if cdi && self.in_spec.as_ref().is_some_and(|names| !names.contains(uuid)) {
            Some("it is in no CDI specification; `pitcrew cdi generate` says why".to_owned())
        } else if needs_nodes && !self.nodes.0.contains_key(uuid) {
            Some(
                "not all of its device nodes and files are there; `pitcrew cdi generate` says why".to_owned(),
            )
        } else {
            None
        }
    }

    fn name_cdi_devices(&self, answer: &mut Answer, uuids: &[&str]) {
        if !self.strategies.iter().any(|strategy| strategy.is_cdi()) {
            return;
        }
        let mut names: Vec<String> = uuids.iter().map(|uuid| format!("{VENDOR}/gpu={uuid}")).collect();
        let extras = self
            .extras
            .names()
            .filter(|name| self.extra_devices.contains(name));
        names.extend(extras);
        if self.strategies.contains(&Strategy::CdiAnnotations) {
            let prefix = match self.annotation_prefix.as_str() {
                "" => ANNOTATION_PREFIX,
                prefix => prefix,
            };
            // The key must be another one for each resource of a container. The first device is in one of them only.
            let first = uuids.first().map_or_else(String::new, |uuid| in_annotation(uuid));
            let key = format!("{prefix}{ANNOTATION}{first}");
            answer.annotations.insert(key, names.join(","));
        }
        if self.strategies.contains(&Strategy::CdiCri) {
            answer.cdi_devices = names;
        }
    }

    fn ask_the_wrapper(&self, answer: &mut Answer, uuids: &[&str]) -> Result<(), Refusal> {
        let wrapper = [Strategy::Envvar, Strategy::VolumeMounts];
        if !self.strategies.iter().any(|strategy| wrapper.contains(strategy)) {
            return Ok(());
        }
        let ids: Vec<&str> = uuids
            .iter()
            .map(|&uuid| {
                let index = self.indices.as_ref().and_then(|indices| indices.get(uuid));
                index.map_or(uuid, String::as_str)
            })
            .collect();
        let channels: Vec<String> = self.extras.imex_channels.iter().map(u32::to_string).collect();
        if self.strategies.contains(&Strategy::Envvar) {
            answer.env.insert(VISIBLE_DEVICES.to_owned(), ids.join(","));
            if !channels.is_empty() {
                answer
                    .env
                    .insert("NVIDIA_IMEX_CHANNELS".to_owned(), channels.join(","));
            }
        }
        if self.strategies.contains(&Strategy::VolumeMounts) {
            answer
                .env
                .insert(VISIBLE_DEVICES.to_owned(), VOLUME_MOUNTS.to_owned());
            let names = ids.iter().map(|&id| id.to_owned());
            let names = names.chain(channels.iter().map(|channel| format!("imex/{channel}")));
            answer.mounts.extend(names.map(|name| BindMount {
                container: format!("{VOLUME_MOUNTS}/{name}"),
                host: "/dev/null".to_owned(),
                read_only: false,
            }));
        }
        if self.pass_device_specs {
            let edits = self.nodes.together(uuids).ok_or_else(|| no_nodes(uuids))?;
            // The driver's alone, without those for drawing, and no more than NVIDIA's plugin allows.
            let nodes = edits.devices.into_iter();
            let nodes = nodes.filter(|node| node.container.starts_with("/dev/nvidia"));
            answer.nodes = nodes
                .map(|node| DeviceFile {
                    permissions: "rw".to_owned(),
                    ..node
                })
                .collect();
        }
        for (on, name) in [
            (self.extras.gdrcopy, "NVIDIA_GDRCOPY"),
            (self.extras.gds, "NVIDIA_GDS"),
            (self.extras.mofed, "NVIDIA_MOFED"),
        ] {
            if on {
                answer.env.insert(name.to_owned(), "enabled".to_owned());
            }
        }
        Ok(())
    }
}

impl Extras {
    /// Full names of their CDI devices, as NVIDIA's plugin has them.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let channels = self.imex_channels.iter();
        let channels = channels.map(|channel| format!("{}={channel}", Self::kind(Extra::ImexChannel)));
        let others = [Extra::Gdrcopy, Extra::Gds, Extra::Mofed].into_iter();
        let others = others.filter(|what| self.has(*what));
        channels.chain(others.map(|what| format!("{}=all", Self::kind(what))))
    }

    /// True where it is asked for.
    pub fn has(&self, what: Extra) -> bool {
        match what {
            Extra::Gds => self.gds,
            Extra::Mofed => self.mofed,
            Extra::Gdrcopy => self.gdrcopy,
            Extra::ImexChannel => !self.imex_channels.is_empty(),
        }
    }

    /// True where this channel is asked for, by its number.
    pub fn has_channel(&self, name: &str) -> bool {
        self.imex_channels
            .iter()
            .any(|channel| channel.to_string() == name)
    }

    /// The kind of its CDI devices, as in NVIDIA's plugin.
    pub fn kind(what: Extra) -> String {
        format!("{VENDOR}/{}", what.class())
    }
}

/// Refuses what can't be handed out.
fn check(resource: &Resource, unhealthy: &BTreeMap<String, String>, ids: &[String]) -> Result<(), Refusal> {
    for id in ids {
        if !resource.devices.iter().any(|device| device.id == *id) {
            return Err(Refusal::Unknown {
                resource: resource.name.clone(),
                id: id.clone(),
            });
        }
    }
    if resource.sharing != Sharing::None && resource.one_per_container && ids.len() > 1 {
        return Err(Refusal::TooMany {
            resource: resource.name.clone(),
            found: ids.len(),
        });
    }
    for id in ids {
        if let Some(why) = unhealthy.get(id) {
            return Err(Refusal::Unhealthy {
                resource: resource.name.clone(),
                id: id.clone(),
                why: why.clone(),
            });
        }
    }
    Ok(())
}

fn no_nodes(uuids: &[&str]) -> Refusal {
    Refusal::NoNodes {
        uuid: uuids.join(", "),
    }
}

/// What is left of a UUID in the name of an annotation: no prefix, nothing that such a name can't hold.
fn in_annotation(uuid: &str) -> String {
    let bare = uuid.strip_prefix("MIG-").unwrap_or(uuid);
    let bare = bare.strip_prefix("GPU-").unwrap_or(bare);
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = bare.chars().map(allowed).take(MOST_OF_UUID).collect();
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests;
