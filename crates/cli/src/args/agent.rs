//! `pitcrew agent`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, value_parser};

use crate::env;
use crate::prove::ProveProfile;

/// Arguments of `pitcrew agent`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AgentArgs {
    /// Something else than to run.
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// How to run.
    #[command(flatten)]
    pub run: AgentRunArgs,
}

/// Commands of `pitcrew agent`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Run the agent, as without a command
    Run(Box<AgentRunArgs>),
    /// Take away what the agent has written on this node, and of it at the API server
    ///
    /// Refused while containers need it. Stop the agent first: `kubectl -n pitcrew delete daemonset pitcrew-agent`. What
    /// others have written stays; so does what the credentials at hand don't allow to be taken away, which is told with
    /// the command that does.
    Uninstall(AgentUninstallArgs),
    /// Run a program with another directory as its root, as the agent does with programs of the node
    #[command(hide = true)]
    InRoot(AgentInRootArgs),
}

/// How the agent runs.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags, each by itself")]
pub struct AgentRunArgs {
    /// Have it run with imaginary GPUs: a built-in scenario, a file, or `list`
    ///
    /// Everything else is real: sockets, files and the API server.
    #[arg(long, value_name = "NAME|FILE", env = env::SCENARIO, hide_env_values = true)]
    pub scenario: Option<String>,
    /// The node's name, as the API server has it
    ///
    /// The host's name if not given.
    #[arg(long, value_name = "NAME", env = env::NODE_NAME, hide_env_values = true)]
    pub node: Option<String>,
    /// The kubelet's directory on the node
    #[arg(long, value_name = "DIR", env = env::KUBELET_DIR, hide_env_values = true)]
    #[arg(default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// Where on the node CDI specifications are written
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    pub cdi_dir: PathBuf,
    /// A configuration of NVIDIA's device plugin: a file of version v1, or a directory of them
    ///
    /// Of `--config-map`, `--config-dir` and this one, the first that is given counts.
    #[arg(long = "config", value_name = "FILE|DIR", env = env::CONFIG_FILE, hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// A directory of configurations, each named as its file, such as a mounted `ConfigMap`
    #[arg(long, value_name = "DIR", env = env::CONFIG_FILE_SRCDIR, hide_env_values = true)]
    pub config_dir: Option<PathBuf>,
    /// A `ConfigMap` of configurations, which is read through the API server
    ///
    /// Without a namespace it is in that of the agent's own pod.
    #[arg(long, value_name = "[NAMESPACE/]NAME", env = env::CONFIG_MAP, hide_env_values = true)]
    #[arg(value_parser = ConfigMapName::parse)]
    pub config_map: Option<ConfigMapName>,
    /// Which of several configurations counts for a node without the label `nvidia.com/device-plugin.config`
    #[arg(long, value_name = "NAME", env = env::DEFAULT_CONFIG, hide_env_values = true)]
    pub default_config: Option<String>,
    /// What to take of several configurations where neither the node nor a default names one, in this order
    #[arg(long, value_enum, value_name = "FALLBACK,...", value_delimiter = ',')]
    #[arg(env = env::FALLBACK_STRATEGIES, hide_env_values = true, default_values = ["named", "single", "empty"])]
    pub fallback_strategies: Vec<ConfigFallback>,
    /// The static program of CDI hooks and runtime wrapper, which is installed on the node
    ///
    /// `pitcrew-hook` beside this program if not given.
    #[arg(long, value_name = "FILE")]
    pub hook: Option<PathBuf>,
    /// How MIG devices are offered
    ///
    /// This and what follows stand above the configuration.
    #[arg(long, value_enum, value_name = "STRATEGY", env = env::MIG_STRATEGY, hide_env_values = true)]
    pub mig_strategy: Option<MigStrategy>,
    /// Accepted for NVIDIA's device plugin, which ends where there is no driver. This waits for one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::FAIL_ON_INIT_ERROR, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub fail_on_init_error: Option<bool>,
    /// Device nodes in the answer to the kubelet, beside names for a wrapper of the runtime
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::PASS_DEVICE_SPECS, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub pass_device_specs: Option<bool>,
    /// How a container is told its devices, with commas between them; what the runtime can't do is left out
    #[arg(long, value_enum, value_name = "STRATEGY,...", value_delimiter = ',')]
    #[arg(env = env::DEVICE_LIST_STRATEGY, hide_env_values = true)]
    pub device_list_strategy: Vec<DeviceLists>,
    /// How devices are named for a wrapper of the runtime
    #[arg(long, value_enum, value_name = "STRATEGY", env = env::DEVICE_ID_STRATEGY, hide_env_values = true)]
    pub device_id_strategy: Option<DeviceIds>,
    /// Prefix of annotations that name CDI devices
    #[arg(long, value_name = "PREFIX", env = env::CDI_ANNOTATION_PREFIX, hide_env_values = true)]
    pub cdi_annotation_prefix: Option<String>,
    /// Which replicas of shared devices are preferred
    #[arg(long, value_enum, value_name = "POLICY", env = env::SHARED_DEVICES_ALLOCATION_POLICY)]
    #[arg(hide_env_values = true)]
    pub shared_devices_allocation_policy: Option<SharedAllocation>,
    /// Where the node has the root of the driver's libraries and programs, instead of looking for it
    #[arg(long, value_name = "DIR", env = env::NVIDIA_DRIVER_ROOT, hide_env_values = true)]
    pub driver_root: Option<PathBuf>,
    /// Where the node has the root of the driver's device nodes, instead of looking for it
    #[arg(long, value_name = "DIR", env = env::NVIDIA_DEV_ROOT, hide_env_values = true)]
    pub dev_root: Option<PathBuf>,
    /// How GPUs are found. Accepted for NVIDIA's device plugin: only `nvml` and `auto` find any here
    #[arg(long, value_enum, value_name = "STRATEGY", env = env::DEVICE_DISCOVERY_STRATEGY, hide_env_values = true)]
    pub device_discovery_strategy: Option<DeviceDiscovery>,
    /// Accepted for NVIDIA's device plugin, and without effect: the hooks are pitcrew's own, see `--hook`
    #[arg(long, value_name = "FILE", env = env::NVIDIA_CDI_HOOK_PATH, hide_env_values = true)]
    #[arg(alias = "nvidia-ctk-path")]
    pub nvidia_cdi_hook_path: Option<PathBuf>,
    /// Accepted for NVIDIA's device plugin, and without effect: the driver's root is read below `--root`
    #[arg(long, value_name = "DIR", env = env::DRIVER_ROOT_CTR_PATH, hide_env_values = true)]
    #[arg(alias = "container-driver-root")]
    pub driver_root_ctr_path: Option<PathBuf>,
    /// Where the Multi-Process Service has its pipes and shared memory on the node
    #[arg(long, value_name = "DIR", env = env::MPS_ROOT, hide_env_values = true)]
    pub mps_root: Option<PathBuf>,
    /// Give containerd the runtime handler `nvidia`, on nodes without RKE2 or K3s
    ///
    /// By a drop-in, and a line in its configuration where that imports none; with containerd 1.7 by tables in its
    /// configuration. Only pods with `runtimeClassName: nvidia` need the handler, and only from containerd's next start on.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::CONFIGURE_CONTAINERD, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub configure_containerd: bool,
    /// The compute mode of GPUs that are shared through the Multi-Process Service
    ///
    /// Without it they are made exclusive where the node allows that. Where it doesn't they are shared in the mode that they
    /// have: a process that is no client then can use such a GPU as well, which the node's status says.
    #[arg(long, value_enum, value_name = "MODE", env = env::MPS_COMPUTE_MODE, hide_env_values = true)]
    pub mps_compute_mode: Option<MpsComputeMode>,
    /// Containers get the devices of `GDRCopy`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::GDRCOPY_ENABLED, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub gdrcopy_enabled: Option<bool>,
    /// Containers get the devices of `GPUDirect` Storage
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::GDS_ENABLED, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub gds_enabled: Option<bool>,
    /// Containers get the devices of Mellanox's network cards
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::MOFED_ENABLED, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub mofed_enabled: Option<bool>,
    /// Channels of IMEX that containers get, with commas between them; only 0 can be asked for
    #[arg(long, value_name = "CHANNELS", value_delimiter = ',', env = env::IMEX_CHANNEL_IDS, hide_env_values = true)]
    pub imex_channel_ids: Vec<u32>,
    /// Accepted for NVIDIA's device plugin: whether a node has its channels of IMEX is not looked at yet
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::IMEX_REQUIRED, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub imex_required: Option<bool>,
    /// Where labels are written, whatever the configuration says
    ///
    /// Without it, `useNodeFeatureAPI` and `gfd.outputFile` of the configuration decide, or the flags and variables that
    /// stand above them, as with GPU Feature Discovery; where these say nothing, labels go to the Node.
    #[arg(long, value_enum, value_name = "SINK", env = env::LABEL_SINK, hide_env_values = true)]
    pub label_sink: Option<LabelSink>,
    /// Labels go to a `NodeFeature` object, for Node Feature Discovery, instead of to the Node
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::USE_NODE_FEATURE_API, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub use_node_feature_api: Option<bool>,
    /// The file that labels are written to for Node Feature Discovery, on the node
    #[arg(long, value_name = "FILE", env = env::GFD_OUTPUT_FILE, hide_env_values = true, alias = "output-path")]
    pub output_file: Option<PathBuf>,
    /// The file of labels stays when the agent ends
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::GFD_ONESHOT, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub oneshot: Option<bool>,
    /// Accepted for GPU Feature Discovery: labels are made anew when something changes. `infinite` is `--oneshot`
    #[arg(long, value_name = "INTERVAL", env = env::GFD_SLEEP_INTERVAL, hide_env_values = true)]
    pub sleep_interval: Option<String>,
    /// Accepted for GPU Feature Discovery, and without effect: the machine's name is read below `--root`
    #[arg(long, value_name = "FILE", env = env::GFD_MACHINE_TYPE_FILE, hide_env_values = true)]
    pub machine_type_file: Option<PathBuf>,
    /// No label says when labels were made
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::GFD_NO_TIMESTAMP, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub no_timestamp: Option<bool>,
    /// Restart RKE2 or K3s on this node where a runtime handler needs it
    ///
    /// One node of the cluster at a time, servers last and while all others are ready, after a rehearsal of the next
    /// start. Only pods with `runtimeClassName: nvidia` need the handler.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::ALLOW_RESTART, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub allow_restart: bool,
    /// Restart also the only server of a cluster, which has no API server meanwhile
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::ALLOW_RESTART_OF_ONLY_SERVER, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub allow_restart_of_only_server: bool,
    /// XIDs that don't make a GPU sick, with commas between them, or `all`
    ///
    /// Those that are an application's own fault never do.
    #[arg(long, value_name = "XIDS", env = env::DP_DISABLE_HEALTHCHECKS, hide_env_values = true)]
    #[arg(default_value = "")]
    pub disable_health_checks: String,
    /// XIDs that make a GPU sick whatever else is said, with commas between them, or `all`
    #[arg(long, value_name = "XIDS", env = env::DP_ENABLE_HEALTHCHECKS, hide_env_values = true)]
    #[arg(default_value = "")]
    pub enable_health_checks: String,
    /// Seconds that a sick GPU must be well before it is handed out again
    #[arg(long, value_name = "SECONDS", env = env::PROBATION, hide_env_values = true)]
    #[arg(default_value = "60", value_parser = value_parser!(u32).range(1..=86400))]
    pub probation: u32,
    /// Seconds between two looks at all GPUs while nothing happens; what tells of itself is heard at once
    #[arg(long, value_name = "SECONDS", env = env::LOOK_INTERVAL, hide_env_values = true)]
    #[arg(default_value = "60", value_parser = value_parser!(u32).range(1..=3600))]
    pub look_interval: u32,
    /// Key of the taint that is taken off the node when it is ready; empty to touch none
    ///
    /// Whoever sets the node up puts it there, as with `node-taint` of RKE2 and K3s. The admission policy of the manifests
    /// allows keys of `pitcrew.dev/` alone.
    #[arg(long, value_name = "KEY", env = env::STARTUP_TAINT, hide_env_values = true)]
    #[arg(default_value = "pitcrew.dev/not-ready")]
    pub startup_taint: String,
    /// How much a proof of GPUs tests
    ///
    /// This and what follows of proofs is the default of this node: `spec.proof` of its `GpuNode` stands above it.
    #[arg(long, value_enum, value_name = "PROFILE", env = env::PROOF_PROFILE, hide_env_values = true)]
    #[arg(default_value_t)]
    pub proof_profile: ProveProfile,
    /// Prove each GPU that no proof holds for: a new one, and all after a boot or a change of the driver
    ///
    /// Never one that a pod holds.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::PROOF_WHEN_UNPROVEN, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub proof_when_unproven: bool,
    /// Prove each GPU again when its last proof is so old, in hours or days: `12h`, `7d`
    #[arg(long, value_name = "INTERVAL", env = env::PROOF_EVERY, hide_env_values = true)]
    pub proof_every: Option<String>,
    /// Hand a GPU to pods only while a proof of it holds
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::PROOF_GATES_READINESS, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub proof_gates_readiness: bool,
    /// Ask no API server: no labels, no status
    #[arg(long)]
    pub no_api: bool,
}

/// Where a `ConfigMap` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapName {
    /// Its namespace; `None` for that of the agent's own pod.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ConfigMapName {
    fn parse(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace == Some("") {
            return Err("neither a name nor a namespace and a name with a slash between them".to_owned());
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

/// What to take of several configurations where none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigFallback {
    /// The one that is called `default`, if there is one
    Named,
    /// The only one, if there is one only
    Single,
    /// None: the defaults
    Empty,
}

/// Where labels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LabelSink {
    /// To the Node
    Node,
    /// To a `NodeFeature` object in the agent's namespace
    NodeFeature,
    /// To the file of `--output-file`, or that of GPU Feature Discovery
    File,
}

/// How GPUs are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceDiscovery {
    /// By what there is
    Auto,
    /// By the driver's management library
    Nvml,
    /// On Tegra, which isn't supported
    Tegra,
    /// GPUs for virtual machines, which are not handed out
    Vfio,
}

/// How MIG devices are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigStrategy {
    /// Whole GPUs only
    None,
    /// MIG devices of one profile, as GPUs
    Single,
    /// GPUs, and MIG devices under names of their own
    Mixed,
}

/// How a container is told its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceLists {
    /// In `NVIDIA_VISIBLE_DEVICES`
    Envvar,
    /// As mounts of `/dev/null`
    VolumeMounts,
    /// As CDI devices, in an annotation
    CdiAnnotations,
    /// As CDI devices, in a field of their own
    CdiCri,
}

/// What is done to the compute mode of GPUs that are shared through the Multi-Process Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MpsComputeMode {
    /// `EXCLUSIVE_PROCESS`: without it nothing is shared
    Exclusive,
    /// The mode that it has is left alone
    Leave,
}

/// How devices are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceIds {
    /// By UUID
    Uuid,
    /// By place in the driver's order
    Index,
}

/// Which replicas are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SharedAllocation {
    /// Of the GPU with the fewest that are in use
    Distributed,
    /// Of the GPU with the most that are in use
    Packed,
}

/// Arguments of `pitcrew agent uninstall`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags, each by itself")]
pub struct AgentUninstallArgs {
    /// The kubelet's directory on the node
    #[arg(long, value_name = "DIR", env = env::KUBELET_DIR, hide_env_values = true)]
    #[arg(default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// Where on the node CDI specifications were written
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    pub cdi_dir: PathBuf,
    /// The node's name, as the API server has it
    ///
    /// The host's name if not given.
    #[arg(long, value_name = "NAME", env = env::NODE_NAME, hide_env_values = true)]
    pub node: Option<String>,
    /// The file that labels were written to for Node Feature Discovery
    #[arg(long, value_name = "FILE", env = env::GFD_OUTPUT_FILE, hide_env_values = true)]
    pub output_file: Option<PathBuf>,
    /// The namespace that the agent ran in, for a `NodeFeature` that it wrote
    #[arg(long, value_name = "NAMESPACE", default_value = "pitcrew")]
    pub namespace: String,
    /// Leave alone what the agent wrote at the API server
    #[arg(long)]
    pub no_api: bool,
    /// Where the Multi-Process Service has its pipes on the node
    #[arg(long, value_name = "DIR", env = env::MPS_ROOT, hide_env_values = true)]
    #[arg(default_value = "/run/nvidia/mps")]
    pub mps_root: PathBuf,
    /// Stay until told to end, when all is done: what a `DaemonSet` asks of its pods
    #[arg(long)]
    pub stay: bool,
    /// Take away the runtime wrapper, too, although containerd's configuration names it
    ///
    /// Pods with `runtimeClassName: nvidia` then don't start on this node, GPU or not, until its supervisor was restarted.
    #[arg(long)]
    pub wrapper_too: bool,
    /// End daemons of MPS, too, that don't answer, although pods have a share of their GPUs
    ///
    /// Programs that run through them fail.
    #[arg(long)]
    pub mps_too: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `pitcrew agent in-root`.
#[derive(Debug, Args)]
pub struct AgentInRootArgs {
    /// The directory
    pub root: PathBuf,
    /// The program, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<std::ffi::OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_map_is_a_name_or_a_namespace_and_a_name() {
        let parse = |text| ConfigMapName::parse(text).map(|found| (found.namespace, found.name));
        assert_eq!(parse("plugin"), Ok((None, "plugin".to_owned())));
        assert_eq!(
            parse("gpu/plugin"),
            Ok((Some("gpu".to_owned()), "plugin".to_owned()))
        );
        for wrong in ["", "/", "gpu/", "/plugin", "a/b/c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
