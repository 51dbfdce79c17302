//! What to do about the reasons: a sentence for each kind of trouble, naming the GPUs.

use crate::proof::{CorruptionClass, Evidence, Reason, ReasonCode, SetupErrorCode, Verdict};
use crate::xid;

const COMPARE: &str =
    "Compare with other nodes by `pitcrew prove merge`: is it this GPU, or all of its kind?";

/// Actions, the most urgent first; `reasons` are gravest first.
pub(super) fn of(evidence: &Evidence, reasons: &[Reason]) -> Vec<String> {
    let mut actions: Vec<String> = Vec::new();
    if !evidence.run.injected.is_empty() && reasons.iter().any(|reason| reason.code == ReasonCode::Corruption)
    {
        actions.push("Nothing: the faults were planted (`--inject`), and they were found".to_owned());
        return actions;
    }
    for reason in reasons {
        let Some(action) = action(evidence, reason) else {
            continue;
        };
        if !actions.contains(&action) {
            actions.push(action);
        }
    }
    // What only tells more comes after what mends something.
    actions.sort_by_key(|action| action == COMPARE);
    actions
}

fn action(evidence: &Evidence, reason: &Reason) -> Option<String> {
    let device = reason.device.and_then(|index| evidence.devices.get(index));
    let gpu = device.map_or_else(|| "the GPU".to_owned(), |device| device.device.title());
    // A lost GPU has neither.
    let which = device.map_or_else(String::new, |device| {
        let serial = device
            .device
            .serial
            .iter()
            .map(|serial| format!("serial {serial}"));
        let uuid = Some(device.device.uuid.clone()).filter(|uuid| !uuid.is_empty());
        let known: Vec<String> = uuid.into_iter().chain(serial).collect();
        if known.is_empty() {
            String::new()
        } else {
            format!(" ({})", known.join(", "))
        }
    });
    let error = device
        .map_or(&evidence.setup_error, |device| &device.setup_error)
        .as_ref();
    Some(match reason.code {
        ReasonCode::Corruption => {
            let phases = device.into_iter().flat_map(|device| &device.phases);
            let transient = phases.flat_map(|phase| &phase.corruptions).all(|found| {
                matches!(
                    found.class,
                    CorruptionClass::ComputeTransient | CorruptionClass::ReadTransient
                )
            });
            if transient {
                format!(
                    "Take {gpu}{which} out of service and run `pitcrew prove --profile burn`: one wrong result is one too many, and the next run tells how often"
                )
            } else {
                format!("Take {gpu}{which} out of service now and have it replaced, with this report")
            }
        }
        ReasonCode::EccUncorrected | ReasonCode::RemapPending => {
            format!("Drain {gpu} and reset it (`nvidia-smi --gpu-reset`), then prove it again")
        }
        ReasonCode::RemapFailed => format!("Have {gpu}{which} replaced: its spare memory rows are used up"),
        ReasonCode::Lost => {
            // What hangs is not lost yet.
            let hang = error.filter(|error| error.code == SetupErrorCode::Hang);
            hang.and_then(|error| error.fix.clone()).unwrap_or_else(|| {
                format!(
                    "Reboot the node; if {gpu} goes again, check power and seating, then replace it{which}"
                )
            })
        }
        ReasonCode::Xid => {
            let number = reason
                .text
                .strip_prefix("XID ")?
                .split(':')
                .next()?
                .parse()
                .ok()?;
            format!("{} ({gpu})", xid::lookup(number)?.action.advice())
        }
        ReasonCode::OwnXid => "Report this as a mistake in pitcrew, with the report".to_owned(),
        ReasonCode::EccCorrected => {
            format!("Watch {gpu}: corrected errors that go on growing precede uncorrected ones")
        }
        ReasonCode::PipeEfficiency | ReasonCode::BelowExpected if reason.verdict >= Verdict::FailPerf => {
            format!(
                "Run it again on an idle node, and compare with others by `pitcrew prove merge`; have {gpu}{which} looked at if it stays slow"
            )
        }
        ReasonCode::PipeEfficiency | ReasonCode::BelowExpected | ReasonCode::SlowSm => COMPARE.to_owned(),
        ReasonCode::Thermal => format!("Check fans, airflow and the room's temperature at {gpu}"),
        ReasonCode::PowerBrake => {
            "Check power supplies and their cables: the card was told to slow down".to_owned()
        }
        ReasonCode::PowerLimit => format!(
            "If the limit isn't meant: `nvidia-smi -i {} -pl` sets it",
            device?.device.index
        ),
        ReasonCode::PcieLink => {
            let at = device?
                .device
                .pci_address
                .as_deref()
                .unwrap_or("an unknown address");
            format!("Reseat the card or riser at {at}, and check the slot's setting in the firmware")
        }
        ReasonCode::PcieReplays => format!("Reseat {gpu} or its riser: the PCIe signal is poor"),
        ReasonCode::NvLink => "Look at `nvidia-smi nvlink -e` and the Fabric Manager's log".to_owned(),
        ReasonCode::Setup => error?.fix.clone()?,
        ReasonCode::Interrupted => "Run it again, to its end".to_owned(),
        ReasonCode::Shared => "Prove the GPU when nothing else runs on it".to_owned(),
        ReasonCode::EccOff if reason.verdict == Verdict::Warn => {
            format!(
                "If it isn't meant: `nvidia-smi -i {} -e 1` and a reboot turn ECC on",
                device?.device.index
            )
        }
        ReasonCode::NotTested
        | ReasonCode::PhaseFailed
        | ReasonCode::NothingVerified
        | ReasonCode::EccOff => return None,
    })
}
