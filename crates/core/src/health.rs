//! When a GPU is well: a verdict from one snapshot, with its reasons.

use std::fmt;

use serde::Serialize;

use crate::Gpu;
use crate::xid::{self, Severity};

/// The verdict on one GPU, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Must not be used: lost, broken memory, or an error that needs a reset.
    Unhealthy,
    /// Works, and needs somebody's attention soon.
    Degraded,
    /// Could not be judged: what the verdict needs was not readable.
    Unknown,
    /// Nothing is wrong with what was read.
    Healthy,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unhealthy => "unhealthy",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
        })
    }
}

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is by itself.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// The health of one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The worst of the findings.
    pub verdict: Verdict,
    /// Everything that is wrong, worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Judges one GPU by one snapshot.
///
/// Readings that a card doesn't support say nothing; a reading that failed makes the verdict at best
/// [`Verdict::Unknown`] if it is one of those that a verdict rests on (UUID, memory, row remapping).
pub fn assess(gpu: &Gpu) -> Health {
    let readings = &gpu.readings;
    let mut findings = Vec::new();
    let mut add = |verdict, what: String, advice: &str| {
        findings.push(Finding {
            verdict,
            what,
            advice: advice.to_owned(),
        });
    };

    if let Some(reason) = readings.uuid.failure() {
        if readings.present().is_empty() {
            add(
                Verdict::Unhealthy,
                format!("the driver cannot reach the GPU: {reason}"),
                "Drain the node and reboot it; if the GPU is lost again, reseat or replace the board",
            );
        } else {
            add(
                Verdict::Unknown,
                format!("its UUID could not be read: {reason}"),
                "Look at `dmesg | grep NVRM`",
            );
        }
    } else if let Some(reason) = readings.memory_total_bytes.failure() {
        add(
            Verdict::Unknown,
            format!("its memory could not be read: {reason}"),
            "Look at `dmesg | grep NVRM`",
        );
    }

    if let Some(rows) = readings.remapped_rows.value() {
        if rows.failure {
            add(
                Verdict::Unhealthy,
                "a memory row could not be remapped: no spare row is left".to_owned(),
                "Replace the board",
            );
        }
        if rows.pending {
            add(
                Verdict::Degraded,
                "a bad memory row waits to be remapped".to_owned(),
                "Drain the GPU's pods and reset the GPU (or reboot the node)",
            );
        }
    } else if let Some(reason) = readings.remapped_rows.failure()
        && !readings.uuid.is_absent()
    {
        add(
            Verdict::Unknown,
            format!("row remapping could not be read: {reason}"),
            "Look at `dmesg | grep NVRM`",
        );
    }

    if let Some(&errors) = readings.ecc_uncorrected.value()
        && errors > 0
    {
        add(
            Verdict::Degraded,
            format!(
                "{errors} uncorrected memory error{} since the driver was loaded",
                plural(errors)
            ),
            "Drain the GPU's pods and reset the GPU; if they come back, replace the board",
        );
    }

    if let Some(xids) = readings.xids.value() {
        for &number in xids {
            let known = xid::lookup(number);
            let verdict = match known.map(|xid| xid.severity) {
                // The application's own fault: nothing is wrong with the card.
                Some(Severity::Application) => continue,
                Some(Severity::Gpu | Severity::Hardware) => Verdict::Unhealthy,
                Some(Severity::Contained) | None => Verdict::Degraded,
            };
            let (what, advice) = known.map_or(
                ("not in our table", "Look it up in NVIDIA's XID catalogue"),
                |xid| (xid.name, xid.action.advice()),
            );
            add(verdict, format!("XID {number}: {what}"), advice);
        }
    }

    if let (Some(width), Some(widest)) = (readings.pcie_width.value(), readings.pcie_width_max.value())
        && width < widest
    {
        add(
            Verdict::Degraded,
            format!("the PCIe link runs at x{width} of x{widest}"),
            "Reseat the board or its riser; a virtual machine may report a narrower link than it has",
        );
    }

    findings.sort_by_key(|finding| finding.verdict);
    let verdict = findings
        .first()
        .map_or(Verdict::Healthy, |finding| finding.verdict);
    Health { verdict, findings }
}
