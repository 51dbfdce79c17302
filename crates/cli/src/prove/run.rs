//! Arguments of a proof itself.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};

use super::ProveViewArgs;
use crate::env;

/// How a proof runs.
#[derive(Debug, Args)]
pub struct ProveRunArgs {
    /// Which GPUs or MIG devices: number, UUID or its beginning; all by default
    #[arg(long = "gpu", value_name = "INDEX|UUID", value_delimiter = ',')]
    pub gpus: Vec<String>,
    /// How much is tested
    #[arg(long, value_enum, value_name = "PROFILE", default_value_t)]
    pub profile: ProveProfile,
    /// How long it takes, instead of the profile's own time
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..=604_800))]
    pub seconds: Option<u32>,
    /// Run these kernels instead of the best ones that the GPU has
    #[arg(long, value_enum, value_name = "VARIANT")]
    pub variant: Option<ProveVariant>,
    /// Have the driver compile the kernels from PTX, also where there is machine code for the GPU
    ///
    /// It takes some seconds more, and shows that a GPU works for which there is none.
    #[arg(long, env = env::CUDA_FORCE_PTX_JIT, hide_env_values = true)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub ptx: bool,
    /// Test GPUs too that other processes or pods hold
    ///
    /// What they reach then says nothing about them, and the report says so.
    #[arg(long)]
    pub share: bool,
    /// A warning ends with 10 instead of 0
    #[arg(long)]
    pub strict: bool,
    /// Borders of what is a warning and a failure, and what cards reach, in YAML
    ///
    /// What the file doesn't say is as usual. See `docs/prove.md`, "Thresholds".
    #[arg(long, value_name = "FILE")]
    pub thresholds: Option<PathBuf>,
    /// Plant a fault on purpose, to see it found
    ///
    /// `sm=7,bit=12`, `memory=4096,bit=3`, `operand=a,row=5,k=17,bit=4`, `output=7,bit=3` or `transfer=64,bit=0`; may be
    /// given several times. The proof must fail.
    #[arg(long, value_name = "FAULT")]
    pub inject: Vec<String>,
    /// Prove imaginary GPUs: a built-in scenario, a file, or `list`
    ///
    /// They work on the CPU, on little, and as fast as it can; their figures are imaginary too.
    #[arg(long, value_name = "NAME|FILE", env = env::SCENARIO, hide_env_values = true)]
    pub scenario: Option<String>,
    /// Name of this node in the report; that of the machine by default
    #[arg(long, value_name = "NAME", env = env::NODE_NAME, hide_env_values = true)]
    pub node: Option<String>,
    /// Name of the pod that this runs in, for the report
    ///
    /// Meant for the downward API (`metadata.name`): a host name is not always that of the pod.
    #[arg(long, value_name = "NAME", env = env::POD_NAME, hide_env_values = true)]
    pub pod_name: Option<String>,
    /// Namespace of that pod; that of its service account by default
    #[arg(long, value_name = "NAME", env = env::POD_NAMESPACE, hide_env_values = true)]
    pub pod_namespace: Option<String>,
    /// The kubelet's directory on the node, whose socket says which GPUs pods hold
    #[arg(long, value_name = "DIR", env = env::KUBELET_DIR, hide_env_values = true)]
    #[arg(default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// Ways to write the report.
    #[command(flatten)]
    pub views: ProveViewArgs,
}

/// How much is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProveProfile {
    /// Five seconds: does it compute at all
    Smoke,
    /// A minute: every phase
    #[default]
    Prove,
    /// A quarter of an hour at the limit
    Burn,
    /// Hours
    Soak,
}

/// Kernels, by the instructions that they multiply with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProveVariant {
    /// Plain cores
    Simt,
    /// Tensor cores of Volta
    M8n8k4,
    /// Tensor cores of Turing
    M16n8k8,
    /// Tensor cores of Ampere and later
    M16n8k16,
    /// FP8 of Ada and Blackwell without TMEM
    Fp8,
    /// Tensor cores of Hopper, fed by TMA
    Wgmma,
    /// Tensor cores of Blackwell with TMEM
    Tcgen05,
}
