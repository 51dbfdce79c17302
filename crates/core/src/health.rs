//! When a GPU is well: a verdict from one snapshot, with its reasons.

use std::fmt;

use serde::Serialize;

use crate::Gpu;
use crate::gpu::{GpuReadings, RecoveryAction};
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

/// What the driver wants done, and how bad that is: a GPU that it wants reset or rebooted is not to be used, one that
/// it wants drained still works.
fn wanted(action: RecoveryAction) -> Option<(Verdict, String, &'static str)> {
    let (verdict, what, advice) = match action {
        RecoveryAction::None => return None,
        RecoveryAction::GpuReset => (
            Verdict::Unhealthy,
            "a reset of the GPU",
            "Drain the GPU's pods and reset the GPU (`nvidia-smi --gpu-reset`), or reboot the node",
        ),
        RecoveryAction::NodeReboot => (
            Verdict::Unhealthy,
            "a reboot of the node",
            "Drain the node and reboot it",
        ),
        RecoveryAction::BusReset => (
            Verdict::Unhealthy,
            "a reset of the GPU's PCIe bus",
            "Drain the node and reboot it, which resets the bus too",
        ),
        RecoveryAction::SystemReboot => (
            Verdict::Unhealthy,
            "a reboot of the whole system",
            "Drain the node and reboot the system that it is part of",
        ),
        RecoveryAction::DrainP2p => (
            Verdict::Degraded,
            "an end to what uses the GPU peer to peer",
            "Drain the pods that use this GPU together with others; then look again",
        ),
        RecoveryAction::DrainAndReset => (
            Verdict::Degraded,
            "the GPU drained and reset",
            "Put nothing new on the GPU, let its pods end, then reset it (`nvidia-smi --gpu-reset`)",
        ),
        RecoveryAction::RecoverImexDomain => (
            Verdict::Degraded,
            "the IMEX domain brought back",
            "Look at `systemctl status nvidia-imex` on the nodes of the domain",
        ),
        RecoveryAction::Unknown(number) => {
            return Some((
                Verdict::Degraded,
                format!("the driver wants something done that is not in our table: recovery action {number}"),
                "Ask `nvidia-smi -q` of the driver's own version for the GPU recovery action",
            ));
        }
    };
    Some((verdict, format!("the driver wants {what}"), advice))
}

/// What is wrong with the memory.
fn memory(readings: &GpuReadings, add: &mut impl FnMut(Verdict, String, &str)) {
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

    if let Some(pages) = readings.retired_pages.value()
        && pages.pending
    {
        add(
            Verdict::Degraded,
            "a bad memory page waits to be retired".to_owned(),
            "Drain the GPU's pods and reset the GPU (or reboot the node)",
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
}

/// Judges one GPU by one snapshot.
///
/// Readings that a card doesn't support say nothing; a reading that failed makes the verdict at best
/// [`Verdict::Unknown`] if it is one of those that a verdict rests on (UUID, memory, row remapping).
pub fn assess(gpu: &Gpu) -> Health {
    let mut findings = state(gpu);
    findings.extend(past(&gpu.readings));
    findings.extend(link(&gpu.readings));
    Health::of(findings)
}

/// [`assess`] without the XIDs that were reported: how the GPU is now, not what has happened to it. For who hears of XIDs
/// one by one, and knows which of them are over.
pub fn assess_state(gpu: &Gpu) -> Health {
    let mut findings = state(gpu);
    findings.extend(link(&gpu.readings));
    Health::of(findings)
}

/// What is wrong with the GPU now.
fn state(gpu: &Gpu) -> Vec<Finding> {
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

    memory(readings, &mut add);

    if let Some((verdict, what, advice)) = readings
        .recovery_action
        .value()
        .and_then(|action| wanted(*action))
    {
        add(verdict, what, advice);
    }
    findings
}

/// What the driver has reported.
fn past(readings: &GpuReadings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let reported = readings.xids.value().map_or(&[][..], Vec::as_slice);
    for &number in reported {
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
        findings.push(Finding {
            verdict,
            what: format!("XID {number}: {what}"),
            advice: advice.to_owned(),
        });
    }
    findings
}

/// What is wrong with its way to the CPU.
fn link(readings: &GpuReadings) -> Option<Finding> {
    let (Some(width), Some(widest)) = (readings.pcie_width.value(), readings.pcie_width_max.value()) else {
        return None;
    };
    (width < widest).then(|| Finding {
        verdict: Verdict::Degraded,
        what: format!("the PCIe link runs at x{width} of x{widest}"),
        advice: "Reseat the board or its riser; a virtual machine may report a narrower link than it has"
            .to_owned(),
    })
}

impl Health {
    fn of(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.verdict);
        let verdict = findings
            .first()
            .map_or(Verdict::Healthy, |finding| finding.verdict);
        Self { verdict, findings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reading;
    use crate::gpu::RetiredPages;
    use crate::pci::{NVIDIA_VENDOR_ID, PciAddress, PciFunction};

    fn health(change: impl FnOnce(&mut GpuReadings)) -> Health {
        let mut readings = GpuReadings::none_supported();
        readings.uuid = Reading::Value("GPU-1".to_owned());
        change(&mut readings);
        let address = PciAddress {
            domain: 0,
            bus: 1,
            device: 0,
            function: 0,
        };
        let pci = PciFunction {
            address,
            vendor_id: NVIDIA_VENDOR_ID,
            device_id: 0x2330,
            subsystem_vendor_id: 0,
            subsystem_device_id: 0,
        };
        assess(&Gpu {
            index: 0,
            pci,
            readings,
        })
    }

    #[test]
    fn every_recovery_action_but_none_is_a_finding_with_its_own_advice() {
        let of = |number| {
            health(|readings| {
                readings.recovery_action = Reading::Value(RecoveryAction::from_number(number));
            })
        };
        assert_eq!(of(0).verdict, Verdict::Healthy);
        let mut advice = Vec::new();
        for number in 1..9 {
            let health = of(number);
            assert_eq!(health.findings.len(), 1, "{number}");
            advice.push(health.findings[0].advice.clone());
        }
        advice.sort();
        advice.dedup();
        assert_eq!(advice.len(), 8, "{advice:#?}");
        assert_eq!(of(1).verdict, Verdict::Unhealthy);
        assert_eq!(of(1).findings[0].what, "the driver wants a reset of the GPU");
        assert_eq!(of(2).verdict, Verdict::Unhealthy);
        assert_eq!(of(4).verdict, Verdict::Degraded);
        assert!(of(99).findings[0].what.ends_with("recovery action 99"));
    }

    #[test]
    fn a_recovery_action_that_is_not_known_says_nothing() {
        assert_eq!(health(|_| {}).verdict, Verdict::Healthy);
        let failed = health(|readings| readings.recovery_action = Reading::Failed("x".to_owned()));
        assert_eq!(failed.verdict, Verdict::Healthy);
    }

    #[test]
    fn retired_pages_matter_while_more_of_them_wait() {
        let of = |pending| {
            health(|readings| {
                readings.retired_pages = Reading::Value(RetiredPages {
                    single_bit: 2,
                    double_bit: 1,
                    pending,
                });
            })
        };
        assert_eq!(of(false).verdict, Verdict::Healthy);
        assert_eq!(of(true).verdict, Verdict::Degraded);
        assert!(of(true).findings[0].advice.contains("reset the GPU"));
    }
}
