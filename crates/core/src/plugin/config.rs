//! The configuration of NVIDIA's device plugin, version 1: what it says, what holds where it says nothing.
//!
//! Source: fact sheet `devices`, section 1.1. Every field is read. Where a person is better served than by the reference:
//!
//! - Per-GPU sharing (`devices:`) and names of one's own (`resources:`, `rename:`) work; the reference reads and then
//!   drops them. One resource may be named several times, for different devices: of those entries that mean a device
//!   the first counts.
//! - Fields that nobody knows are named in [`Config::remarks`], those in other capitals are taken, as Go does, and
//!   named too.
//! - All that is wrong is told at once, each with its path and line.
//! - `mpsRoot` has a default ([`MPS_ROOT`]), which the reference lacks and then refuses to share by MPS.
//!
//! What was asked for on the command line or in the environment stands above the file: [`Config::with`].

mod devices;
mod interval;
mod names;
mod overrides;
mod problem;
mod read;
mod tree;
mod words;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use devices::{DeviceRef, Devices};
pub use interval::{Interval, ParseIntervalError};
pub(crate) use names::named;
pub use names::{DOMAIN, LONGEST_NAME, NameRule, NamingRules, Pattern, resource_name};
pub use overrides::Overrides;
pub use problem::{ConfigError, Problem, Remark};
pub use words::{
    DeviceDiscovery, DeviceIdStrategy, DeviceListStrategy, MigStrategy, ParseWordError, SharingPolicy,
};

use super::Sharing;

/// Where the Multi-Process Service keeps its pipes and its shared memory on the host, if nothing else is asked for.
pub const MPS_ROOT: &str = "/run/nvidia/mps";
/// Fewest replicas that a device can be shared into.
pub const FEWEST_REPLICAS: u32 = 2;
/// Most replicas of one device. The kubelet takes a list of devices of at most 4 MiB, which is 64 MIG devices of so many
/// replicas.
pub const MOST_REPLICAS: u32 = 1000;
/// What is added to the name of a shared resource under `renameByDefault`.
pub const SHARED_SUFFIX: &str = ".shared";

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Settings of the plugin and of labels.
    pub flags: Flags,
    /// Names of resources.
    pub names: NamingRules,
    /// Which resources are shared, and how.
    pub sharing: SharingRules,
    /// Channels between nodes.
    pub imex: Imex,
    /// What somebody should know of it, though it holds.
    pub remarks: Vec<Remark>,
}

/// Settings of the plugin and of labels: `flags`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the reference's own flags")]
pub struct Flags {
    /// How MIG devices are offered.
    pub mig_strategy: MigStrategy,
    /// Whether the reference ends where there is no driver. We wait for one, whatever this says.
    pub fail_on_init_error: bool,
    /// Directory of the Multi-Process Service on the host; `None` for [`MPS_ROOT`].
    pub mps_root: Option<PathBuf>,
    /// Root of the driver's files on the host; `None` for where they are found.
    pub driver_root: Option<PathBuf>,
    /// Root of the driver's device nodes on the host; `None` for that of its files.
    pub dev_root: Option<PathBuf>,
    /// Containers get the devices of `GDRCopy`.
    pub gdrcopy: bool,
    /// Containers get the devices of `GPUDirect` Storage.
    pub gds: bool,
    /// Containers get the devices of Mellanox's network cards.
    pub mofed: bool,
    /// Labels go to a `NodeFeature` object; `None` for what suits the cluster.
    pub use_node_feature_api: Option<bool>,
    /// How GPUs are found.
    pub device_discovery: DeviceDiscovery,
    /// Settings of the device plugin alone: `plugin`.
    pub plugin: PluginFlags,
    /// Settings of labels alone: `gfd`.
    pub gfd: GfdFlags,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            mig_strategy: MigStrategy::None,
            fail_on_init_error: true,
            mps_root: None,
            driver_root: None,
            dev_root: None,
            gdrcopy: false,
            gds: false,
            mofed: false,
            use_node_feature_api: None,
            device_discovery: DeviceDiscovery::Auto,
            plugin: PluginFlags::default(),
            gfd: GfdFlags::default(),
        }
    }
}

impl Flags {
    /// Directory of the Multi-Process Service on the host.
    pub fn mps_root(&self) -> &Path {
        self.mps_root.as_deref().unwrap_or(Path::new(MPS_ROOT))
    }

    /// Root of the driver's device nodes on the host: the driver's own root unless it is another; `None` for where they
    /// are found.
    pub fn dev_root(&self) -> Option<&Path> {
        self.dev_root.as_deref().or(self.driver_root.as_deref())
    }
}

/// Settings of the device plugin alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFlags {
    /// The answer to the kubelet holds device nodes, too.
    pub pass_device_specs: bool,
    /// How a container is told its devices, none twice; empty for what the runtime can do. The reference's default,
    /// `envvar`, works only with its own runtime.
    pub device_list_strategies: Vec<DeviceListStrategy>,
    /// How devices are named in that list. The kubelet's ids are UUIDs whatever this says: they must be the same across
    /// reboots, and indices aren't.
    pub device_id_strategy: DeviceIdStrategy,
    /// Prefix of annotations that name CDI devices.
    pub cdi_annotation_prefix: String,
    /// The program of NVIDIA's hooks, as a specification names it; `None` for our own.
    pub cdi_hook_path: Option<PathBuf>,
    /// Where the driver's root is inside of the reference's container.
    pub container_driver_root: PathBuf,
    /// Which replicas are preferred.
    pub sharing_policy: SharingPolicy,
}

impl Default for PluginFlags {
    fn default() -> Self {
        Self {
            pass_device_specs: false,
            device_list_strategies: Vec::new(),
            device_id_strategy: DeviceIdStrategy::Uuid,
            cdi_annotation_prefix: "cdi.k8s.io/".to_owned(),
            cdi_hook_path: None,
            container_driver_root: "/driver-root".into(),
            sharing_policy: SharingPolicy::Distributed,
        }
    }
}

/// Settings of labels alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GfdFlags {
    /// Labels are made once and left.
    pub oneshot: bool,
    /// No label says when labels were made.
    pub no_timestamp: bool,
    /// How often they are made anew.
    pub sleep_interval: Interval,
    /// The file that they are written to for Node Feature Discovery; `None` for none.
    pub output_file: Option<PathBuf>,
    /// The file that tells what machine this is.
    pub machine_type_file: PathBuf,
}

impl GfdFlags {
    /// The reference's file of labels.
    pub const OUTPUT_FILE: &str = "/etc/kubernetes/node-feature-discovery/features.d/gfd";
}

impl Default for GfdFlags {
    fn default() -> Self {
        Self {
            oneshot: false,
            no_timestamp: false,
            sleep_interval: Interval::Every(std::time::Duration::from_mins(1)),
            output_file: None,
            machine_type_file: "/sys/class/dmi/id/product_name".into(),
        }
    }
}

/// Channels between nodes: `imex`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imex {
    /// Numbers of the channels that containers get: none, or 0.
    pub channels: Vec<u32>,
    /// A node without them gets no GPUs into its pods.
    pub required: bool,
}

/// Which resources are shared: `sharing`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharingRules {
    /// Containers take turns.
    pub time_slicing: Option<Shared>,
    /// Containers run at once.
    pub mps: Option<Shared>,
}

/// Resources that are shared in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Those that no new name is given get [`SHARED_SUFFIX`].
    pub rename_by_default: bool,
    /// A container may have only one replica. `None` is yes for MPS and no for time-slicing.
    pub fail_requests_greater_than_one: Option<bool>,
    /// The resources; never empty.
    pub resources: Vec<SharedResource>,
}

/// Devices of one resource that are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedResource {
    /// Full name of the resource before it is shared.
    pub name: String,
    /// Full name that its replicas get instead.
    pub rename: Option<String>,
    /// Which of its devices.
    pub devices: Devices,
    /// How many are made of each.
    pub replicas: u32,
}

impl Shared {
    /// Full name that replicas of this resource have.
    pub fn name(&self, resource: &SharedResource) -> String {
        match &resource.rename {
            Some(name) => name.clone(),
            None if self.rename_by_default => format!("{}{SHARED_SUFFIX}", resource.name),
            None => resource.name.clone(),
        }
    }
}

impl Config {
    /// Reads a configuration, YAML or JSON. An empty text is the defaults.
    ///
    /// Fields are checked one by one. Whether they go together is checked when it is known what stands above them, by
    /// [`Config::with`], which every configuration must pass.
    ///
    /// # Errors
    /// Where it is neither, is of another version, or a field has no sense; all such fields at once.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        read::read(text)
    }

    /// Puts what was asked for otherwise above it, and checks that all goes together.
    ///
    /// # Errors
    /// Where it doesn't: see [`Config::check`].
    pub fn with(mut self, overrides: &Overrides) -> Result<Self, ConfigError> {
        overrides.apply(&mut self);
        self.check()?;
        if self.sharing().is_some_and(|(how, _)| how == Sharing::Mps) && self.flags.mps_root.is_none() {
            self.remarks.push(Remark::new(
                "flags.mpsRoot",
                format!("isn't set, which NVIDIA's device plugin refuses with `sharing.mps`; here it is `{MPS_ROOT}`"),
            ));
        }
        Ok(self)
    }

    /// Checks that all goes together.
    ///
    /// # Errors
    /// MPS with the MIG strategy `mixed`, which no daemon can serve; other channels than 0.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        if !matches!(self.imex.channels[..], [] | [0]) {
            problems.push(Problem::new(
                "imex.channelIDs",
                format!("is {:?}: only channel 0 can be asked for", self.imex.channels),
            ));
        }
        if self.flags.mig_strategy == MigStrategy::Mixed
            && self.sharing().is_some_and(|(how, _)| how == Sharing::Mps)
        {
            problems.push(Problem::new(
                "sharing.mps",
                "can't be used with the MIG strategy `mixed`: MIG devices aren't shared through MPS; \
                 use `sharing.timeSlicing`, or set `flags.migStrategy` to `none`",
            ));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    /// How devices are shared, and which; `None` where none is. MPS comes before time-slicing.
    pub fn sharing(&self) -> Option<(Sharing, &Shared)> {
        let mps = self.sharing.mps.as_ref().map(|shared| (Sharing::Mps, shared));
        let slices = self.sharing.time_slicing.as_ref();
        mps.or_else(|| slices.map(|shared| (Sharing::TimeSlicing, shared)))
    }

    /// True when a container may have only one replica.
    ///
    /// Of MPS that is so unless the opposite is said, as each client is limited to its own part: two parts are not one
    /// twice as large.
    pub fn one_per_container(&self) -> bool {
        self.sharing().is_some_and(|(how, shared)| {
            shared
                .fail_requests_greater_than_one
                .unwrap_or(how == Sharing::Mps)
        })
    }
}
