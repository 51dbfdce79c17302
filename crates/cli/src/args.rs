//! The clap structs. Doc comments are the help text: a short first line without a period, then paragraphs.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::env;
use crate::prove::ProveArgs;

mod agent;
mod cdi;
mod gpus;

pub use agent::{
    AgentArgs, AgentCommand, AgentInRootArgs, AgentRunArgs, AgentUninstallArgs, ConfigFallback,
    ConfigMapName, DeviceDiscovery, DeviceIds, DeviceLists, LabelSink, MigStrategy, MpsComputeMode,
    SharedAllocation,
};
pub use cdi::{CdiCommand, CdiGenerateArgs, CdiListArgs, CdiNaming, CdiValidateArgs};
pub use gpus::{Architecture, CatalogArgs, Class, GpusArgs, GpusCommand};

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
    /// Take GPUs to their limit, check every result to the bit, and say PASS or FAIL
    ///
    /// A minute for each GPU, all at once: memory, bandwidth, copies, matrix products, power. Needs the driver's
    /// `libcuda.so.1` alone. A GPU that another process holds is left alone, unless with `--share`.
    ///
    /// Ends with 0 for `PASS` and `WARN`, and with a code of its own for each other verdict: `FAIL_CORRUPTION`,
    /// `FAIL_HARDWARE`, `FAIL_PERF`, `FAIL_ENV`, `ERROR_SETUP`, `INTERRUPTED`.
    Prove(Box<ProveArgs>),
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
