//! Which report counts, and what it says of each GPU. Pure.

use std::collections::BTreeSet;

use pitcrew_core::proof::{DeviceEvidence, Report, Thresholds, Timestamp, Verdict, judge};

use super::Proof;

/// Clocks of one machine differ by no more, in seconds.
const CLOCKS: u32 = 60;

/// What a report must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Name of the node.
    pub node: String,
    /// True where the node's GPUs are imaginary.
    pub imaginary: bool,
    /// UUIDs of its GPUs and MIG devices.
    pub devices: BTreeSet<String>,
    /// The time.
    pub now: Timestamp,
}

/// What was taken from a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// By UUID of the GPU or MIG device; those of this node alone.
    pub proofs: Vec<(String, Proof)>,
    /// The verdict that was written in it and the one that follows from its evidence, where they differ.
    pub differs: Option<(Verdict, Verdict)>,
}

/// Why a report counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is of another node.
    #[error(
        "it is of the node `{found}`, and this is `{expected}`; `pitcrew prove --node {expected}` names it right"
    )]
    Node {
        /// The node in it.
        found: String,
        /// This one.
        expected: String,
    },
    /// Its GPUs are imaginary, and those of this node are not.
    #[error("its GPUs are imaginary (scenario `{0}`), and those of this node are real")]
    Imaginary(String),
    /// Its GPUs are real, and those of this node are not.
    #[error("its GPUs are real, and those of this node are imaginary")]
    Real,
    /// Faults were planted.
    #[error("faults were planted in it ({}), so that it says nothing of the GPUs", .0.join(" "))]
    Planted(Vec<String>),
    /// It begins later than now.
    #[error("it began at {0}, which is in the future; set the clock of the machine that made it")]
    Future(Timestamp),
    /// No GPU was tested.
    #[error("no GPU was tested: {0}")]
    NothingTested(String),
    /// Its GPUs are none of this node's.
    #[error("it is of {}, which this node has not", .0.join(", "))]
    OtherGpus(Vec<String>),
    /// Judging it failed.
    #[error("it could not be judged, which is a mistake of pitcrew")]
    Mistake,
}

impl Refused {
    /// True where it never counts here. GPUs come back, and clocks are set.
    pub(super) fn is_for_good(&self) -> bool {
        match self {
            Self::Node { .. }
            | Self::Imaginary(_)
            | Self::Real
            | Self::Planted(_)
            | Self::NothingTested(_) => true,
            Self::Future(_) | Self::OtherGpus(_) | Self::Mistake => false,
        }
    }
}

/// Judges a report anew and takes what it says of this node's GPUs.
///
/// # Errors
/// Where it is not a report of this node's GPUs as they are.
pub fn take(report: Report, expected: &Expected) -> Result<Taken, Refused> {
    let evidence = &report.evidence;
    if evidence.node.name != expected.node {
        return Err(Refused::Node {
            found: evidence.node.name.chars().take(253).collect(),
            expected: expected.node.clone(),
        });
    }
    match (&evidence.run.scenario, expected.imaginary) {
        (Some(scenario), false) => return Err(Refused::Imaginary(scenario.chars().take(100).collect())),
        (None, true) => return Err(Refused::Real),
        _ => {}
    }
    if !evidence.run.injected.is_empty() {
        return Err(Refused::Planted(
            evidence.run.injected.iter().take(8).cloned().collect(),
        ));
    }
    if evidence.run.started.0 > expected.now.0.saturating_add(CLOCKS) {
        return Err(Refused::Future(evidence.run.started));
    }
    if evidence.devices.is_empty() {
        let why = evidence.setup_error.as_ref().map(|error| match &error.fix {
            Some(fix) => format!("{}; {fix}", error.message),
            None => error.message.clone(),
        });
        let why = why.or_else(|| evidence.run.interrupted.clone());
        return Err(Refused::NothingTested(
            why.unwrap_or_else(|| "it names none".to_owned()),
        ));
    }
    let written = report.verdict;
    let report = judge(report.evidence, &Thresholds::default());
    let devices = report.evidence.devices.iter().enumerate();
    let proofs: Vec<(String, Proof)> = devices
        .filter(|(_, device)| expected.devices.contains(&device.device.uuid))
        .map(|(index, device)| (device.device.uuid.clone(), proof(&report, index)))
        .collect();
    if proofs.is_empty() {
        let devices = report.evidence.devices.iter();
        return Err(Refused::OtherGpus(
            devices.take(8).map(|device| device.device.uuid.clone()).collect(),
        ));
    }
    Ok(Taken {
        proofs,
        differs: (written != report.verdict).then_some((written, report.verdict)),
    })
}

fn proof(report: &Report, index: usize) -> Proof {
    let (evidence, judgement) = (&report.evidence, &report.judgement);
    let verdict = judgement
        .verdicts
        .get(index)
        .copied()
        .unwrap_or(Verdict::ErrorSetup);
    let speaks = judgement.reasons.iter().find(|reason| {
        reason.verdict == verdict && verdict != Verdict::Pass && reason.device.is_none_or(|of| of == index)
    });
    let device = &evidence.devices[index];
    let verified = device.phases.iter().fold(0_u64, |sum, phase| {
        sum.saturating_add(phase.verified_outputs)
            .saturating_add(phase.verified_bytes)
    });
    let (all, actions) = (&evidence.devices, &judgement.actions);
    let own = actions.iter().find(|action| is_about(action, device, all));
    let action = own.or_else(|| {
        // What another one's trouble asks for is no advice for this one.
        let is_general = |action: &&String| !all.iter().any(|device| is_about(action, device, all));
        actions.iter().find(is_general)
    });
    Proof {
        verdict,
        profile: evidence.run.profile,
        started: evidence.run.started,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates"
        )]
        seconds: evidence.run.seconds as u32,
        verified,
        driver: evidence.driver.version.clone(),
        reason: speaks.map(|reason| reason.text.clone()),
        action: action.filter(|_| verdict != Verdict::Pass).cloned(),
    }
}

/// True where an action is about a device of the report. By UUID, where it names one: two MIG devices may have one title.
fn is_about(action: &str, device: &DeviceEvidence, all: &[DeviceEvidence]) -> bool {
    let names_uuid = |of: &DeviceEvidence| contains_whole(action, &of.device.uuid);
    if all.iter().any(names_uuid) {
        return names_uuid(device);
    }
    let fix = device.setup_error.as_ref().and_then(|error| error.fix.as_deref());
    let address = device.device.pci_address.as_deref();
    fix == Some(action)
        || contains_whole(action, &device.device.title())
        || contains_whole(action, &format!("nvidia-smi -i {}", device.device.index))
        || address.is_some_and(|address| contains_whole(action, address))
}

/// True where a name is in a text and not merely the beginning or the end of another: `GPU 1` is not in `GPU 10`, nor in
/// `GPU 1 MIG 1g.10gb`.
pub(super) fn contains_whole(text: &str, name: &str) -> bool {
    let goes_on = |letter: char| letter.is_alphanumeric() || "-+_".contains(letter);
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + name.len()..]);
            !before.ends_with(goes_on) && !after.starts_with(goes_on) && !after.starts_with(" MIG ")
        })
}
