//! Which report counts, and what it says of each GPU. Pure.

use std::collections::BTreeSet;

use pitcrew_core::proof::{Report, Thresholds, Timestamp, Verdict, judge};

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
    // Actions name the GPUs that they are about, as a report may be of many.
    let title = device.device.title();
    let names = |action: &&String| {
        let at = action.find(&title);
        at.is_some_and(|at| !action[at + title.len()..].starts_with(|next: char| next.is_ascii_digit()))
    };
    let actions = &judgement.actions;
    let action = actions.iter().find(names).or(actions.first());
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
