//! Errors of the commands, how they are told, and what is hinted at.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use owo_colors::OwoColorize;
use pitcrew_cdi::generate::GenerateError;
use pitcrew_cdi::write::WriteError;
use pitcrew_cli::ExitStatus;
use pitcrew_core::plugin::config::ParseIntervalError;
use pitcrew_core::ports::GpuError;

use crate::output::Output;

/// What a person can do about an error.
pub(crate) trait Hint: std::error::Error {
    /// One line each, without a period; empty where we don't know.
    fn hints(&self) -> Vec<String>;
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An interval of proofs that is none.
    #[error("`{0}` is no interval of proofs")]
    ProofInterval(String),
    /// A report can't be handed to the agent.
    #[error(
        "the report can't be handed to this node's agent, in `{}`",
        pitcrew_agent::proof::DIR
    )]
    HandOver(#[source] io::Error),
    #[cfg(feature = "sim")]
    #[error("there is no scenario `{name}`")]
    UnknownScenario { name: String, near: Vec<String> },
    #[cfg(feature = "sim")]
    #[error(transparent)]
    Scenario(pitcrew_scenario::ScenarioError),
    #[cfg(feature = "sim")]
    #[error("the imaginary node can't be made")]
    Simulation(#[source] pitcrew_sim::Error),
    #[cfg(feature = "sim")]
    #[error("nothing can be served on loopback")]
    Loopback(#[source] io::Error),
    #[cfg(not(feature = "sim"))]
    #[error("this build of pitcrew has no imaginary GPUs: the scenario `{0}` can't be shown")]
    NoSimulator(String),
    #[error("no card in the chart is called `{name}`")]
    UnknownCard { name: String, near: Vec<String> },
    #[error("`{name}` can mean {} cards", .candidates.len())]
    AmbiguousCard { name: String, candidates: Vec<String> },
    #[error("the GPUs can't be read")]
    Gpus(#[from] GpuError),
    #[error("no thread can be started to ask the driver")]
    NoThread(#[source] io::Error),
    #[error("`{}` can't be taken as the root directory", .path.display())]
    Root { path: PathBuf, source: io::Error },
    #[error("`{}` can't be read", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is not a PCI device: `{}` holds `{text}`", .path.display(), .file)]
    NotPci {
        path: PathBuf,
        file: &'static str,
        text: String,
    },
    #[error(transparent)]
    Target(pitcrew_check::upgrade::TargetError),
    #[error(transparent)]
    CdiKind(pitcrew_cdi::spec::NameError),
    #[error("the GPUs can't be described for container runtimes")]
    CdiGenerate(#[from] GenerateError),
    #[error("the specification was not written")]
    CdiWrite(#[from] WriteError),
    #[error("`{}` can't be read", .path.display())]
    CdiRead { path: PathBuf, source: io::Error },
    #[error("`{}` has devices of the same names: with both files no container could get any of them", .other.display())]
    CdiConflict { other: PathBuf },
    #[error(transparent)]
    Inject(pitcrew_prove::inject::ParseInjectError),
    #[error("there is no GPU `{name}` here")]
    NoSuchGpu { name: String, known: Vec<String> },
    #[error("signals can't be listened to")]
    Signals(#[source] io::Error),
    #[error("`{}` is no report of `pitcrew prove`", .path.display())]
    NotReport {
        path: PathBuf,
        source: pitcrew_core::proof::ReadError,
    },
    #[error("`{}` holds no thresholds", .path.display())]
    NotThresholds {
        path: PathBuf,
        source: pitcrew_core::proof::ThresholdsError,
    },
    #[error("`{}` can't be written", .path.display())]
    WriteFile { path: PathBuf, source: io::Error },
    #[error("the output can't be written")]
    Write(#[source] io::Error),
    #[error("the terminal can't be used for a live view")]
    Terminal(#[source] io::Error),
    #[error("the thread that reads the GPUs has failed: {0}")]
    FeedFailed(String),
    #[error("the output can't be encoded: {0}")]
    Encode(String),
    #[error("the name of this machine is no text")]
    NodeName,
    #[error("`--sleep-interval` {0}")]
    SleepInterval(ParseIntervalError),
    #[error("`{program}` can't be run in another root")]
    InRoot { program: String, source: io::Error },
    #[error("nothing was taken away: {0}")]
    Uninstall(#[from] pitcrew_agent::runtime::uninstall::Refused),
    #[error("nothing was taken away: {0}")]
    UninstallMps(#[from] pitcrew_agent::mps::Refused),
    #[error(transparent)]
    UninstallStep(#[from] pitcrew_agent::runtime::install::StepError),
    #[error(transparent)]
    Agent(#[from] pitcrew_agent::run::Error),
}

impl Error {
    /// The exit status that the error ends in.
    pub(crate) fn status(&self) -> ExitStatus {
        match self {
            Self::UnknownCard { .. }
            | Self::AmbiguousCard { .. }
            | Self::Root { .. }
            | Self::Target(_)
            | Self::NodeName
            | Self::SleepInterval(_)
            | Self::ProofInterval(_)
            | Self::Inject(_)
            | Self::NotThresholds { .. }
            | Self::NoSuchGpu { .. }
            | Self::CdiKind(_) => ExitStatus::Usage,
            #[cfg(feature = "sim")]
            Self::UnknownScenario { .. } => ExitStatus::Usage,
            #[cfg(not(feature = "sim"))]
            Self::NoSimulator(_) => ExitStatus::Usage,
            #[cfg(feature = "sim")]
            Self::Scenario(_) | Self::Simulation(_) | Self::Loopback(_) => ExitStatus::CouldNotTell,
            Self::Gpus(_)
            | Self::NoThread(_)
            | Self::Read { .. }
            | Self::NotPci { .. }
            | Self::Signals(_)
            | Self::HandOver(_)
            | Self::NotReport { .. }
            | Self::WriteFile { .. }
            | Self::Write(_)
            | Self::Terminal(_)
            | Self::FeedFailed(_)
            | Self::CdiGenerate(_)
            | Self::CdiWrite(_)
            | Self::CdiRead { .. }
            | Self::CdiConflict { .. }
            | Self::InRoot { .. }
            | Self::Agent(_)
            | Self::Uninstall(_)
            | Self::UninstallMps(_)
            | Self::UninstallStep(_)
            | Self::Encode(_) => ExitStatus::CouldNotTell,
        }
    }
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        let owned = |hints: &[&str]| hints.iter().map(|&hint| hint.to_owned()).collect();
        match self {
            #[cfg(feature = "sim")]
            Self::UnknownScenario { near, .. } => {
                let list = "`pitcrew gpus --scenario list` shows what there is; a file is given with a `/` in it or as `*.yaml`";
                did_you_mean(near).into_iter().chain([list.to_owned()]).collect()
            }
            Self::UnknownCard { near, .. } => {
                let chart = "`pitcrew gpus catalog` shows every card in the chart".to_owned();
                did_you_mean(near).into_iter().chain([chart]).collect()
            }
            Self::AmbiguousCard { candidates, .. } => {
                vec![format!("say which: {}", listed(candidates))]
            }
            #[cfg(feature = "sim")]
            Self::Scenario(_) => owned(&[
                "`docs/scenarios.md` says what a scenario file holds; `--scenario list` shows those built in",
            ]),
            #[cfg(feature = "sim")]
            Self::Simulation(_) => owned(&[
                "the node's files are laid out in the directory for temporary files: is there space, and may you write there?",
            ]),
            #[cfg(feature = "sim")]
            Self::Loopback(_) => Vec::new(),
            #[cfg(not(feature = "sim"))]
            Self::NoSimulator(_) => {
                owned(&["use a binary that was built with the default features, or unset `PITCREW_SCENARIO`"])
            }
            Self::Gpus(GpuError::NoDriver(_)) => owned(&[
                "`pitcrew check` says what this machine lacks; `--nvml` names a library that is somewhere else",
            ]),
            Self::Gpus(_) => owned(&["look at `dmesg | grep -e NVRM -e nvidia`"]),
            Self::Root { .. } => owned(&[
                "`--root` names the directory that holds a node's `etc`, `proc`, `sys` and `dev`, e.g. `--root /host`",
            ]),
            Self::Read { .. } | Self::NotPci { .. } => {
                owned(&["`--root` names the directory that holds `sys`"])
            }
            Self::NoSuchGpu { known, .. } if known.is_empty() => {
                owned(&["`pitcrew check` says what this machine lacks"])
            }
            Self::NoSuchGpu { known, .. } => vec![format!("there are {}", known.join(", "))],
            Self::NotReport { .. } => owned(&["reports are written by `pitcrew prove -o json`"]),
            Self::NotThresholds { .. } => {
                owned(&["`docs/prove.md` shows a file; what it doesn't say is as usual"])
            }
            Self::Target(_) => owned(&["for example `pitcrew check --to rke2=1.36.2,driver=595.58`"]),
            Self::Terminal(_) => owned(&["`pitcrew top --once` prints one frame and needs no terminal"]),
            Self::FeedFailed(_) => {
                owned(&["this is a mistake in pitcrew: please report it with this message"])
            }
            Self::CdiKind(_) => owned(&["for example `--kind nvidia.com/gpu`"]),
            Self::CdiGenerate(GenerateError::NoLibraries { .. }) => owned(&[
                "`--driver-root` names the root of a driver that is not installed on the node itself, such as `/run/nvidia/driver`",
                "`--library-dir` names the directory of `libcuda.so.*` where it is none of the usual ones",
            ]),
            Self::CdiGenerate(GenerateError::NoDevices(_)) => {
                owned(&["`pitcrew check` says what this machine lacks"])
            }
            Self::CdiWrite(WriteError::File { .. }) => {
                owned(&["directories of container runtimes are root's: try it with `sudo`"])
            }
            Self::CdiConflict { other } => vec![format!(
                "stop who writes `{0}`, remove it, and try again; or give the devices another `--kind`",
                other.display()
            )],
            Self::ProofInterval(_) => owned(&["give hours or days, such as `12h` or `7d`"]),
            Self::HandOver(_) => owned(&["only root may write there: try it with `sudo`"]),
            Self::NodeName => owned(&["`--node` names the node, as `kubectl get nodes` does"]),
            Self::CdiRead { .. }
            | Self::InRoot { .. }
            | Self::Agent(_)
            | Self::SleepInterval(_)
            | Self::Uninstall(_)
            | Self::UninstallMps(_)
            | Self::UninstallStep(_)
            | Self::CdiWrite(_)
            | Self::NoThread(_)
            | Self::Inject(_)
            | Self::Signals(_)
            | Self::WriteFile { .. }
            | Self::Write(_)
            | Self::Encode(_) => Vec::new(),
        }
    }
}

fn did_you_mean(near: &[String]) -> Option<String> {
    (!near.is_empty()).then(|| format!("did you mean {}?", listed(near)))
}

/// `a`, `b` or `c`.
fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}

/// Tells an error, what caused it, and after a blank line what can be done.
pub(crate) fn report<E: Hint>(output: &mut Output<'_>, error: &E) -> io::Result<()> {
    let mut text = format!("{} {error}\n", "error:".red().bold());
    let mut cause = error.source();
    while let Some(error) = cause {
        // A message of several lines, such as a mistake shown in its file, stays readable.
        let message = error.to_string().trim_end().replace('\n', "\n    ");
        let _ = writeln!(text, "  {} {message}", "caused by:".red().bold());
        cause = error.source();
    }
    let hints = error.hints();
    if !hints.is_empty() {
        text.push('\n');
    }
    for hint in hints {
        let _ = writeln!(text, "{} {hint}", "hint:".cyan().bold());
    }
    output.complaint(&text)
}
