//! `pitcrew cdi`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::env;

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
