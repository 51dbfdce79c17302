//! Exit codes: the same for every command.

use std::process::ExitCode;

use crate::prove::ProofExit;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// All is well.
    Fine,
    /// The command worked and found something wrong.
    Finding,
    /// It could not tell, or something broke on the way.
    CouldNotTell,
    /// The command line was wrong: nothing was done.
    Usage,
    /// A proof ended otherwise than well: its verdict.
    Proof(ProofExit),
}

impl ExitStatus {
    /// Those of every command; `prove` has more ([`ProofExit::ALL`]).
    pub const ALL: &'static [Self] = &[Self::Fine, Self::Finding, Self::CouldNotTell, Self::Usage];

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Finding => 1,
            Self::CouldNotTell => 2,
            // EX_USAGE of sysexits.h, apart from what a command can find.
            Self::Usage => 64,
            Self::Proof(exit) => exit.code(),
        }
    }

    /// What it means: the text of `docs/reference/exit-codes.md`.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Fine => "All is well.",
            Self::Finding => {
                "The command worked and found something wrong: a GPU that is degraded or unhealthy, a node that is not ready \
                 for GPU pods, a step of `pitcrew sim` that did not come true, something that an uninstall has left."
            }
            Self::CouldNotTell => {
                "pitcrew could not tell, or something broke on the way: a GPU whose health is unknown, a driver that \
                 doesn't answer, a file that only root may read, a scenario file with a mistake in it."
            }
            Self::Usage => {
                "The command line was wrong: an unknown flag, command, scenario or card, a root directory that isn't there. Nothing was \
                 done."
            }
            Self::Proof(exit) => exit.meaning(),
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
