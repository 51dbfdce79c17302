//! The verdict on a run, its reasons and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Format, PhaseKind, Thresholds, Unit};

/// How a proof ended. The order is that of gravity: the gravest decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// Every result was right, every figure is where it should be, and all that should be tested was.
    Pass,
    /// Every result was right; something deserves attention.
    Warn,
    /// It was ended before its time. What was tested until then was right.
    Interrupted,
    /// It could not be tested. Nothing is said about the hardware.
    ErrorSetup,
    /// The GPU is well and its surroundings are not: heat, power, the PCIe slot.
    FailEnv,
    /// The GPU is slower than it must be, and nothing around it explains that.
    FailPerf,
    /// The GPU itself reports a fault: uncorrected memory errors, an XID, a lost GPU.
    FailHardware,
    /// A result was wrong. Outranks all: such a GPU destroys work and says nothing.
    FailCorruption,
}

impl Verdict {
    /// All of them, from the best to the gravest.
    pub const ALL: &'static [Self] = &[
        Self::Pass,
        Self::Warn,
        Self::Interrupted,
        Self::ErrorSetup,
        Self::FailEnv,
        Self::FailPerf,
        Self::FailHardware,
        Self::FailCorruption,
    ];

    /// Its name, as in reports: `FAIL_CORRUPTION`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Interrupted => "INTERRUPTED",
            Self::ErrorSetup => "ERROR_SETUP",
            Self::FailEnv => "FAIL_ENV",
            Self::FailPerf => "FAIL_PERF",
            Self::FailHardware => "FAIL_HARDWARE",
            Self::FailCorruption => "FAIL_CORRUPTION",
        }
    }

    /// What it means, in one sentence without a period.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Pass => "every result was right, every figure is where it should be",
            Self::Warn => "every result was right; something deserves attention",
            Self::Interrupted => "ended before its time; what was tested until then was right",
            Self::ErrorSetup => "could not be tested; nothing is said about the hardware",
            Self::FailEnv => "the GPU is well and its surroundings are not: heat, power or PCIe slot",
            Self::FailPerf => "slower than it must be, and nothing around it explains that",
            Self::FailHardware => "the GPU itself reports a fault",
            Self::FailCorruption => "results were wrong",
        }
    }

    /// True for the four verdicts against the GPU or its surroundings.
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::FailEnv | Self::FailPerf | Self::FailHardware | Self::FailCorruption
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What follows from the evidence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The verdict on each device, in their order.
    pub verdicts: Vec<Verdict>,
    /// Why, gravest first.
    pub reasons: Vec<Reason>,
    /// What to do, the most urgent first; one sentence each.
    pub actions: Vec<String>,
    /// Every figure that was measured, against what it should be.
    pub figures: Vec<Figure>,
    /// By which borders, and by whose figures of cards; absent in reports of a time when there were only the usual ones.
    #[serde(default)]
    pub thresholds: Thresholds,
}

/// One thing that speaks against a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The verdict that it leads to by itself.
    pub verdict: Verdict,
    /// Which rule.
    pub code: ReasonCode,
    /// Index of the device in the evidence; absent for what concerns the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<usize>,
    /// Title of the phase ([`Phase::title`](super::Phase::title)); absent for what no single phase has shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What happened, with figures; lower case, no period.
    pub text: String,
}

/// Rules that can speak against a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonCode {
    /// Results or memory were wrong.
    Corruption,
    /// Uncorrected memory errors.
    EccUncorrected,
    /// Corrected memory errors.
    EccCorrected,
    /// An XID that tells of broken hardware or a GPU in trouble.
    Xid,
    /// An XID that tells of a mistake in this program.
    OwnXid,
    /// A remap of memory rows, or a page to retire, waits for a reset.
    RemapPending,
    /// No spare row was left.
    RemapFailed,
    /// The GPU went away, or a phase never ended.
    Lost,
    /// The kernels did not keep the SMs busy: chip or kernels.
    PipeEfficiency,
    /// A figure is below what the card should reach.
    BelowExpected,
    /// One SM is much slower than the others.
    SlowSm,
    /// The card slowed down from heat.
    Thermal,
    /// The power supply told the card to slow down.
    PowerBrake,
    /// The power limit is below what the card starts with.
    PowerLimit,
    /// The PCIe link has fewer lanes or a lower generation than it could.
    PcieLink,
    /// PCIe packets had to be sent again.
    PcieReplays,
    /// NVLinks are down or had errors.
    NvLink,
    /// A phase that should have run did not.
    NotTested,
    /// A phase began and could not end.
    PhaseFailed,
    /// No result was verified at all.
    NothingVerified,
    /// The GPU could not be used.
    Setup,
    /// The run was cut short.
    Interrupted,
    /// Others used the GPU too.
    Shared,
    /// ECC is off: only the memory test guards against wrong memory.
    EccOff,
}

/// One figure against what it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Index of the device.
    pub device: usize,
    /// The phase that measured it.
    pub phase: PhaseKind,
    /// Its number format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What is counted.
    pub unit: Unit,
    /// What was measured: the median.
    pub measured: f64,
    /// What a healthy card reaches; absent for a card that isn't in the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<f64>,
    /// What `expected` rests on: `measured`, `estimated` or `computed`, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
    /// `measured` as a part of `expected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What part of its SMs' peak at the clock that they had was reached: the health of chip and kernels, whatever the
    /// power limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipe_efficiency: Option<f64>,
    /// The same for a healthy chip with these kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipe_efficiency_expected: Option<f64>,
    /// The clock that the SMs had as a part of their highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ratio: Option<f64>,
    /// How it is judged.
    pub grade: Grade,
}

/// How one figure is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// There is nothing to hold it against.
    Unrated,
    /// As it should be.
    Good,
    /// Lower than it should be.
    Low,
    /// Much too low.
    Bad,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corruption_outranks_all_and_every_failure_outranks_a_warning() {
        assert_eq!(Verdict::ALL.iter().max(), Some(&Verdict::FailCorruption));
        assert!(Verdict::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for verdict in Verdict::ALL {
            assert_eq!(verdict.is_failure(), *verdict > Verdict::ErrorSetup);
        }
    }

    #[test]
    fn the_names_are_those_of_the_document() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_string(verdict).unwrap(), format!("\"{verdict}\""));
        }
    }
}
