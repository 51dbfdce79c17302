//! `pitcrew prove`: its commands, the views that all of them write, and its exit codes.

mod run;

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub use run::{ProveProfile, ProveRunArgs, ProveVariant};

/// Arguments of `pitcrew prove`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ProveArgs {
    /// What to do; a proof without one.
    #[command(subcommand)]
    pub command: Option<ProveCommand>,
    /// How a proof runs.
    #[command(flatten)]
    pub run: ProveRunArgs,
}

/// Commands of `pitcrew prove`.
#[derive(Debug, Subcommand)]
pub enum ProveCommand {
    /// Show a report again, or in another format
    ///
    /// Ends as the run that it tells of.
    Show(ProveShowArgs),
    /// Compare the reports of several nodes, and find the slow GPU
    ///
    /// GPUs of one kind, memory, power limit, MIG profile, branch of the driver and kernels are held against each other:
    /// one that is further from their median than chance explains, and by more than 7 %, is named.
    ///
    /// Ends with 1 where one is, or where a report is no pass.
    Merge(ProveMergeArgs),
}

/// Arguments of `pitcrew prove show`.
#[derive(Debug, Args)]
pub struct ProveShowArgs {
    /// A report, as `pitcrew prove -o json` has written it; `-` is standard input
    #[arg(value_name = "REPORT")]
    pub report: PathBuf,
    /// A warning ends with 10 instead of 0
    #[arg(long)]
    pub strict: bool,
    /// Judge the evidence anew, by these borders and figures of cards
    #[arg(long, value_name = "FILE")]
    pub thresholds: Option<PathBuf>,
    /// Ways to write it.
    #[command(flatten)]
    pub views: ProveViewArgs,
}

/// Arguments of `pitcrew prove merge`.
#[derive(Debug, Args)]
pub struct ProveMergeArgs {
    /// Reports, as `pitcrew prove -o json` has written them
    #[arg(value_name = "REPORT", required = true)]
    pub reports: Vec<PathBuf>,
    /// Write a page for a browser to this file: one file, nothing is loaded
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Files to write a report to, beside what is printed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Reports")]
pub struct ProveViewArgs {
    /// Write a page for a browser to this file: one file, nothing is loaded
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write `JUnit` XML to this file: a suite for the node, a case for each phase on each GPU
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write Prometheus metrics to this file, as a textfile collector reads them
    #[arg(long, value_name = "FILE")]
    pub prometheus: Option<PathBuf>,
    /// Write what matters, in at most 4096 bytes, to this file: `kubectl describe pod` shows `/dev/termination-log`
    #[arg(long, value_name = "FILE")]
    pub termination_log: Option<PathBuf>,
    /// Hand the report to this node's agent, which says `Proven` by it; as root
    #[arg(long)]
    pub hand_over: bool,
}

/// How a proof ended, for the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofExit {
    /// `WARN` with `--strict`.
    StrictWarn,
    /// `FAIL_CORRUPTION`.
    Corruption,
    /// `FAIL_HARDWARE`.
    Hardware,
    /// `FAIL_PERF`.
    Perf,
    /// `FAIL_ENV`.
    Env,
    /// `ERROR_SETUP`.
    Setup,
    /// `INTERRUPTED`.
    Interrupted,
}

impl ProofExit {
    /// All of them, by code.
    pub const ALL: &'static [Self] = &[
        Self::StrictWarn,
        Self::Corruption,
        Self::Hardware,
        Self::Perf,
        Self::Env,
        Self::Setup,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::StrictWarn => 10,
            Self::Corruption => 20,
            Self::Hardware => 21,
            Self::Perf => 30,
            Self::Env => 31,
            Self::Setup => 40,
            Self::Interrupted => 50,
        }
    }

    /// What it means: the text of `docs/reference/exit-codes.md`.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::StrictWarn => {
                "`pitcrew prove --strict`: every result was right, and something deserves attention (`WARN`)."
            }
            Self::Corruption => {
                "`pitcrew prove`: results were wrong (`FAIL_CORRUPTION`). It outranks all others."
            }
            Self::Hardware => {
                "`pitcrew prove`: the GPU itself reports a fault (`FAIL_HARDWARE`): uncorrected memory errors, an XID, a lost GPU."
            }
            Self::Perf => {
                "`pitcrew prove`: the GPU is slower than it must be, and nothing around it explains that (`FAIL_PERF`)."
            }
            Self::Env => {
                "`pitcrew prove`: the GPU is well and its surroundings are not (`FAIL_ENV`): heat, power, PCIe slot."
            }
            Self::Setup => {
                "`pitcrew prove`: the GPU could not be tested (`ERROR_SETUP`). Nothing is said about it."
            }
            Self::Interrupted => {
                "`pitcrew prove`: ended before its time; what was tested until then was right (`INTERRUPTED`)."
            }
        }
    }
}
