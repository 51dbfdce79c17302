//! The clap structs. Doc comments are the help text: a short first line without a period, then paragraphs.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::env;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Gets GPUs on RKE2 race-ready and proves it
#[derive(Debug, Parser)]
#[command(name = "pitcrew", version, styles = STYLES, max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Exit status: 0 fine, 1 a finding, 2 could not tell, 64 wrong usage")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Format of what is printed
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", env = env::OUTPUT, default_value_t)]
    #[arg(hide_env_values = true)]
    pub output: Format,
    /// When to use colour
    ///
    /// Colour never carries meaning: whatever it says is also there in words. With `auto`, the variable `NO_COLOR`
    /// turns it off.
    #[arg(long, global = true, value_enum, value_name = "WHEN", env = env::COLOR, default_value_t)]
    #[arg(hide_env_values = true)]
    pub color: ColorChoice,
    /// Print no remarks, only data and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Read the machine's files under this directory
    ///
    /// For a host's root that is mounted into a container, or a copy of another machine's `/sys`. Only for roots that
    /// you trust: the driver's library is loaded from there, and `check --next-boot` runs containerd from there.
    #[arg(long, global = true, value_name = "DIR", env = env::ROOT, hide_env_values = true, default_value = "/")]
    pub root: PathBuf,
    /// The driver's management library, instead of the one that is found
    ///
    /// Without it `libnvidia-ml.so.1` is looked for as the loader does, then in the driver's usual directories under
    /// `--root`. With it a scenario of the environment is not shown; `--scenario` still is.
    #[arg(long, global = true, value_name = "FILE", env = env::NVML, hide_env_values = true)]
    pub nvml: Option<PathBuf>,
    /// Width of tables, instead of the terminal's
    #[arg(long, global = true, value_name = "COLUMNS", env = env::COLUMNS, hide_env_values = true)]
    #[arg(value_parser = value_parser!(u16).range(1..))]
    pub width: Option<u16>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show this machine's GPUs and their health
    ///
    /// One line for each GPU, then what is wrong with it and what to do. A value that could not be read is shown as
    /// `?`, one that the card doesn't have as `-`; neither is ever shown as 0. In JSON and YAML such a value is left
    /// out, and `unread` says what could not be read and why.
    ///
    /// A machine without an NVIDIA GPU is shown an imaginary one instead, and told so.
    Gpus(GpusArgs),
    /// Tell whether this node is ready for GPU pods, and what to do where it isn't
    ///
    /// Looks at the PCI bus, the driver, device nodes, the distribution (RKE2, K3s, kubeadm), containerd, CDI, the
    /// kubelet and what may forbid access. A line for each check; what stands in the way comes last, with its reason
    /// and the next command for this operating system and distribution. Nothing is changed, and no API server is
    /// asked.
    ///
    /// Ends with 0 for ready, 1 for not ready, 2 where it can't be told, which without root is likely.
    Check(CheckArgs),
    /// Make, list and check CDI specifications: what gives a container its GPUs
    #[command(subcommand, arg_required_else_help = true)]
    Cdi(CdiCommand),
    /// Run this node's agent: get its GPUs into pods
    ///
    /// Finds out how a container gets a GPU on this node, writes CDI specifications, hands GPUs to the kubelet, labels the
    /// node, watches the health of its GPUs. Nothing has to be set. What happens is told on standard error, a line each;
    /// with `-o json` each is a JSON object.
    ///
    /// It ends at SIGTERM or SIGINT, and leaves everything that running pods need.
    Agent(Box<AgentArgs>),
    /// Watch this machine's GPUs, MIG devices and processes in the terminal
    ///
    /// `q` ends it. Without a terminal, or with `--once`, one frame is printed.
    Top(TopArgs),
    /// Run pitcrew on an imaginary node: no GPU, no cluster, no root
    ///
    /// The real agent works on a worker of RKE2 or K3s whose GPUs, kubelet and API server are imaginary, and what happens
    /// is told as it is seen from outside: from the first look at the node to pods that get their GPUs, a GPU that falls
    /// ill, and its return. Then GPUs are shown as by `top`, and health and metrics are served on loopback, until Ctrl-C.
    /// `kubectl` works on the imaginary API server. Nothing is left behind.
    ///
    /// Ends with 1 where something did not come true in its time.
    Sim(SimArgs),
    /// Write a completion script for a shell to standard output
    Completions(CompletionsArgs),
    /// Show the version
    Version,
}

/// Arguments of `pitcrew gpus`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct GpusArgs {
    /// Something else than the GPUs themselves.
    #[command(subcommand)]
    pub command: Option<GpusCommand>,
    /// Show imaginary GPUs: a built-in scenario, a file, or `list`
    ///
    /// A name with a path separator or ending in `.yaml` or `.yml` is a file, and so is the name of a file that
    /// exists and is not that of a built-in scenario. `list` prints the built-in scenarios.
    #[arg(long, value_name = "NAME|FILE", env = env::SCENARIO, hide_env_values = true)]
    pub scenario: Option<String>,
}

/// Arguments of `pitcrew check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Check an imaginary node: a built-in scenario, a file, or `list`
    ///
    /// Its GPUs are put into an RKE2 worker. With `--root` the files are those under that directory, and only the
    /// driver's answers are the scenario's.
    #[arg(long, value_name = "NAME|FILE", env = env::SCENARIO, hide_env_values = true)]
    pub scenario: Option<String>,
    /// Would RKE2 or K3s come back after their next start?
    ///
    /// Renders the container runtime's configuration as they will at their next start (template, drop-ins, runtimes
    /// that they detect), has the node's own containerd read it, and says what differs from now.
    #[arg(long, conflicts_with = "to")]
    pub next_boot: bool,
    /// What would an upgrade change on this node, e.g. `rke2=1.36.2,driver=595.58`
    ///
    /// Names are `rke2`, `k3s` and `driver`.
    #[arg(long, value_name = "NAME=VERSION,...", value_delimiter = ',')]
    pub to: Vec<String>,
}

/// Commands of `pitcrew cdi`.
#[derive(Debug, Subcommand)]
pub enum CdiCommand {
    /// Describe this machine's GPUs for container runtimes
    ///
    /// What is looked for and where is as in NVIDIA's container toolkit. The specification is printed, as YAML unless
    /// JSON is asked for, or written with `--output-dir`.
    Generate(CdiGenerateArgs),
    /// List the devices that a container can ask for
    ///
    /// The directories are read as containerd reads them: what lies in the later one counts, and two files of one
    /// directory that have a device in common take it from one another.
    List(CdiListArgs),
    /// Tell whether container runtimes take specifications
    Validate(CdiValidateArgs),
}

/// Arguments of `pitcrew cdi generate`.
#[derive(Debug, Args)]
pub struct CdiGenerateArgs {
    /// Describe an imaginary node: a built-in scenario, a file, or `list`
    ///
    /// With `--root` the files are those under that directory, and only the driver's answers are the scenario's.
    #[arg(long, value_name = "NAME|FILE", env = env::SCENARIO, hide_env_values = true)]
    pub scenario: Option<String>,
    /// Describe one device that has all of the driver's nodes, for what manages GPUs
    #[arg(long)]
    pub management: bool,
    /// Vendor and class of the devices
    ///
    /// `nvidia.com/gpu` if not given, or `management.nvidia.com/gpu` with `--management`.
    #[arg(long, value_name = "VENDOR/CLASS")]
    pub kind: Option<String>,
    /// How the devices are called; may be repeated
    #[arg(
        long = "name",
        value_enum,
        value_name = "NAMING",
        conflicts_with = "management"
    )]
    #[arg(default_values = ["index", "uuid"])]
    pub names: Vec<CdiNaming>,
    /// Leave out the device `all`
    #[arg(long, conflicts_with = "management")]
    pub no_all: bool,
    /// Write the file into this directory, in the place of an older one
    ///
    /// Container runtimes look into `/etc/cdi` and `/var/run/cdi`. The file is named after the kind, and nobody ever
    /// reads half of it.
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Where the node has the root of the driver's libraries and programs
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub driver_root: PathBuf,
    /// Where the node has the root of the driver's device nodes
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub dev_root: PathBuf,
    /// Where the driver's libraries are under its root, instead of looking for them; may be repeated
    #[arg(long = "library-dir", value_name = "DIR")]
    pub library_dirs: Vec<PathBuf>,
    /// The program on the node that prepares a container: links, the loader's cache
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/nvidia-cdi-hook")]
    pub hook: PathBuf,
    /// The node's `ldconfig`, instead of the one that the hook finds
    #[arg(long, value_name = "FILE")]
    pub ldconfig: Option<PathBuf>,
}

/// Arguments of `pitcrew cdi list`.
#[derive(Debug, Args)]
pub struct CdiListArgs {
    /// Directories under `--root`, the later with more priority
    #[arg(value_name = "DIR", default_values = ["/etc/cdi", "/var/run/cdi"])]
    pub dirs: Vec<PathBuf>,
}

/// Arguments of `pitcrew cdi validate`.
#[derive(Debug, Args)]
pub struct CdiValidateArgs {
    /// Files, or directories of them
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,
}

/// How devices are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CdiNaming {
    /// `0`, and `0:1` for a MIG device
    Index,
    /// `gpu0`, and `mig0:1` for a MIG device
    TypeIndex,
    /// `GPU-...`, and `MIG-...` for a MIG device
    Uuid,
}

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
    /// Take away what the agent has written on this node
    ///
    /// Refused while containers need it. Stop the agent first: `kubectl -n pitcrew delete daemonset pitcrew-agent`.
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
    #[arg(long = "config", value_name = "FILE|DIR", env = env::CONFIG_FILE, hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Which of several configurations counts for a node without the label `nvidia.com/device-plugin.config`
    #[arg(long, value_name = "NAME", env = env::DEFAULT_CONFIG, hide_env_values = true)]
    pub default_config: Option<String>,
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
    /// Where the Multi-Process Service has its pipes and shared memory on the node
    #[arg(long, value_name = "DIR", env = env::MPS_ROOT, hide_env_values = true)]
    pub mps_root: Option<PathBuf>,
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
    /// Labels go to a `NodeFeature` object, for Node Feature Discovery, instead of to the Node
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::USE_NODE_FEATURE_API, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub use_node_feature_api: Option<bool>,
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
    /// Give containerd the runtime handler `nvidia`, on nodes without RKE2 or K3s
    ///
    /// By a drop-in, and a line in its configuration where that imports none; with containerd 1.7 by tables in its
    /// configuration. Only pods with `runtimeClassName: nvidia` need the handler, and only from containerd's next start on.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(env = env::CONFIGURE_CONTAINERD, hide_env_values = true, action = clap::ArgAction::Set)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    pub configure_containerd: bool,
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
    /// Ask no API server: no labels, no status
    #[arg(long)]
    pub no_api: bool,
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
    /// Take away the runtime wrapper, too, although containerd's configuration names it
    ///
    /// Pods with `runtimeClassName: nvidia` then don't start on this node, GPU or not, until its supervisor was restarted.
    #[arg(long)]
    pub wrapper_too: bool,
    /// Stay until told to end, when all is done: what a `DaemonSet` asks of its pods
    #[arg(long)]
    pub stay: bool,
    /// The node's name, as the API server has it
    ///
    /// The host's name if not given.
    #[arg(long, value_name = "NAME", env = env::NODE_NAME, hide_env_values = true)]
    pub node: Option<String>,
    /// Ask no API server: the Node keeps the labels and the condition that the agent gave it
    #[arg(long)]
    pub no_api: bool,
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

/// Arguments of `pitcrew top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Watch imaginary GPUs: a built-in scenario, a file, or `list`
    #[arg(long, value_name = "NAME|FILE", env = env::SCENARIO, hide_env_values = true)]
    pub scenario: Option<String>,
    /// Print one frame and end
    #[arg(long)]
    pub once: bool,
    /// Seconds between two looks at the GPUs
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = value_parser!(u16).range(1..=3600))]
    pub interval: u16,
}

/// Arguments of `pitcrew sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// The GPUs: a built-in scenario, a file, or `list`
    #[arg(long, value_name = "NAME|FILE", env = env::SCENARIO, hide_env_values = true, default_value = "rtx3060")]
    pub scenario: String,
    /// What the node runs
    #[arg(long, value_enum, value_name = "DISTRIBUTION", default_value_t)]
    pub host: SimHost,
    /// End when the story has been told
    #[arg(long)]
    pub once: bool,
}

/// What an imaginary node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SimHost {
    /// RKE2 1.36, an agent on Ubuntu 24.04
    #[default]
    Rke2,
    /// K3s 1.33, a server on Debian 12
    K3s,
}

/// Commands of `pitcrew gpus`.
#[derive(Debug, Subcommand)]
pub enum GpusCommand {
    /// Show the hardware chart, or one card in full
    ///
    /// Figures of every card that pitcrew knows. Expected figures are what a healthy card reaches, with the basis of
    /// each number. One card in full adds MIG profiles with the places they can take, the driver branches that support
    /// it, and what each way of sharing it isolates.
    Catalog(CatalogArgs),
}

/// Arguments of `pitcrew gpus catalog`.
#[derive(Debug, Args)]
pub struct CatalogArgs {
    /// Name of a card, or enough of it to tell which
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only cards of this class
    #[arg(long, value_enum, value_name = "CLASS", conflicts_with = "name")]
    pub class: Option<Class>,
    /// Only cards of this architecture
    #[arg(
        long,
        value_enum,
        value_name = "ARCH",
        ignore_case = true,
        conflicts_with = "name"
    )]
    pub arch: Option<Architecture>,
}

/// Arguments of `pitcrew completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Format of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table for people
    #[default]
    Table,
    /// JSON, for `jq` and programs
    Json,
    /// YAML
    Yaml,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Class of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Class {
    /// GeForce
    Consumer,
    /// RTX and Quadro
    Workstation,
    /// What was called Tesla
    Datacentre,
}

/// Architecture of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// Compute capability 5.x
    Maxwell,
    /// Compute capability 6.x
    Pascal,
    /// Compute capability 7.0
    Volta,
    /// Compute capability 7.5
    Turing,
    /// Compute capability 8.0 and 8.6
    Ampere,
    /// Compute capability 8.9
    Ada,
    /// Compute capability 9.0
    Hopper,
    /// Compute capability 10.x and 12.x
    Blackwell,
}

/// A shell that completions can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Elvish
    Elvish,
    /// fish
    Fish,
    /// PowerShell
    #[value(name = "powershell")]
    PowerShell,
    /// Zsh
    Zsh,
}
