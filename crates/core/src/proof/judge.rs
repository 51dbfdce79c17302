//! From evidence to a verdict: pure, and the same for a run that just ended and one that somebody else did.
//!
//! Two factors tell a broken GPU from a hot or power-capped one: `pipe_efficiency`, the part of the SMs' peak at the clock
//! that they had, which no limit of power changes; and the clock itself with NVML's reason for it. A figure that rests on
//! an estimate warns and never fails.

mod actions;
mod corruption;
mod environment;
mod figures;
mod hardware;
mod nvlinks;

use std::collections::BTreeSet;

use super::samples;
use super::thresholds::Thresholds;
use super::{
    DeviceEvidence, Evidence, Judgement, Outcome, Phase, PhaseKind, Profile, Reason, ReasonCode, Report,
    SCHEMA, SetupError, SetupErrorCode, Skip, Verdict,
};

/// The report of what was seen. Of very long runs neighbouring samples are put together, once they are judged.
pub fn judge(mut evidence: Evidence, thresholds: &Thresholds) -> Report {
    let mut found = Found::default();
    whole_run(&evidence, &mut found);
    for (index, device) in evidence.devices.iter().enumerate() {
        found.device = Some(index);
        setup(device.setup_error.as_ref(), &mut found);
        corruption::of_device(device, &mut found);
        hardware::of_device(device, evidence.run.share, thresholds, &mut found);
        nvlinks::of_device(device, evidence.run.seconds, thresholds, &mut found);
        environment::of_device(device, &mut found);
        figures::of_device(index, device, thresholds, &mut found);
        completeness(device, &evidence, &mut found);
    }
    found.device = None;
    corruption::of_peers(&evidence, &mut found);
    figures::of_peers(&evidence, thresholds, &mut found);
    completeness_of_peers(&evidence, &mut found);
    for device in &mut evidence.devices {
        samples::thin(&mut device.samples);
    }
    found
        .reasons
        .sort_by_key(|reason| std::cmp::Reverse(reason.verdict));
    let verdicts = (0..evidence.devices.len())
        .map(|index| found.verdict_of(index))
        .collect();
    let verdict = found.reasons.iter().map(|reason| reason.verdict).max();
    Report {
        schema: SCHEMA.to_owned(),
        verdict: verdict.unwrap_or(Verdict::Pass),
        judgement: Judgement {
            verdicts,
            actions: actions::of(&evidence, &found.reasons),
            reasons: found.reasons,
            figures: found.figures,
            thresholds: thresholds.clone(),
        },
        evidence,
    }
}

/// What was found so far, and of which device and phase the next finding is.
#[derive(Default)]
struct Found {
    device: Option<usize>,
    phase: Option<String>,
    reasons: Vec<Reason>,
    figures: Vec<super::Figure>,
}

impl Found {
    fn add(&mut self, verdict: Verdict, code: ReasonCode, text: impl Into<String>) {
        self.reasons.push(Reason {
            verdict,
            code,
            device: self.device,
            phase: self.phase.clone(),
            text: text.into(),
        });
    }

    /// A run that was cut short concerns every device, and a link that failed the device that it is told of.
    fn verdict_of(&self, device: usize) -> Verdict {
        let concerns =
            |reason: &&Reason| reason.device == Some(device) || reason.code == ReasonCode::Interrupted;
        let verdicts = self.reasons.iter().filter(concerns).map(|reason| reason.verdict);
        verdicts.max().unwrap_or(Verdict::Pass)
    }
}

fn whole_run(evidence: &Evidence, found: &mut Found) {
    setup(evidence.setup_error.as_ref(), found);
    if let Some(why) = &evidence.run.interrupted {
        found.add(Verdict::Interrupted, ReasonCode::Interrupted, why.clone());
    }
    if evidence.devices.is_empty() && evidence.setup_error.is_none() && evidence.run.interrupted.is_none() {
        let text = "no GPU was tested";
        found.add(Verdict::ErrorSetup, ReasonCode::NothingVerified, text);
    }
}

fn setup(error: Option<&SetupError>, found: &mut Found) {
    let Some(error) = error else { return };
    match error.code {
        SetupErrorCode::GpuLost | SetupErrorCode::Hang => {
            found.add(Verdict::FailHardware, ReasonCode::Lost, error.message.clone());
        }
        _ => found.add(Verdict::ErrorSetup, ReasonCode::Setup, error.message.clone()),
    }
}

/// Is as much tested as was asked for? What is not must never look as if it had passed.
fn completeness(device: &DeviceEvidence, evidence: &Evidence, found: &mut Found) {
    for phase in &device.phases {
        let title = phase.title();
        found.phase = Some(title.clone());
        match &phase.outcome {
            Outcome::Failed { why } => {
                let text = format!("{title} could not end: {why}");
                found.add(Verdict::ErrorSetup, ReasonCode::PhaseFailed, text);
            }
            Outcome::Skipped {
                skip: Skip::NotTested,
                why,
            } => {
                let phases = device.phases.iter();
                let alike: Vec<&Phase> = phases
                    .filter(|other| why_not_tested(&other.outcome) == Some(why))
                    .collect();
                // Once for all of them, at the first.
                if alike.first().is_some_and(|first| std::ptr::eq(*first, phase)) {
                    let titles: Vec<String> = alike.into_iter().map(Phase::title).collect();
                    found.add(Verdict::Warn, ReasonCode::NotTested, not_tested(&titles, why));
                }
            }
            Outcome::Ran if !has_verified(phase) => {
                let text = format!("{title} ran and verified nothing");
                found.add(Verdict::Warn, ReasonCode::NotTested, text);
            }
            Outcome::Ran | Outcome::Skipped { .. } | Outcome::Interrupted => {}
        }
    }
    found.phase = None;
    if device.setup_error.is_some() || evidence.run.interrupted.is_some() {
        return;
    }
    let verified = device
        .phases
        .iter()
        .any(|phase| phase.verified_outputs > 0 || phase.verified_bytes > 0);
    if !verified {
        let text = "no result was verified, so nothing is proved";
        found.add(Verdict::ErrorSetup, ReasonCode::NothingVerified, text);
        return;
    }
    for kind in wanted(evidence.run.profile) {
        if !device.phases.iter().any(|phase| phase.kind == *kind) {
            let text = format!("{kind} was not tested: the report says nothing of it");
            found.add(Verdict::Warn, ReasonCode::NotTested, text);
        }
    }
}

/// What a device of the report is called.
fn title_of(evidence: &Evidence, index: usize) -> String {
    let device = evidence.devices.get(index);
    device.map_or_else(|| format!("device {index}"), |device| device.device.title())
}

/// Copies between GPUs that did not end, or that nobody compared.
fn completeness_of_peers(evidence: &Evidence, found: &mut Found) {
    for index in 0..evidence.devices.len() {
        let failed = evidence.peers.iter().filter_map(|path| match &path.outcome {
            Outcome::Failed { why } if path.from == index => Some((path.to, why)),
            Outcome::Failed { why } if path.to == index => Some((path.from, why)),
            _ => None,
        });
        let failed: Vec<(usize, &String)> = failed.collect();
        let Some((_, why)) = failed.first() else { continue };
        let others: BTreeSet<usize> = failed.iter().map(|(other, _)| *other).collect();
        let others: Vec<String> = others
            .into_iter()
            .map(|other| title_of(evidence, other))
            .collect();
        found.device = Some(index);
        let text = format!("copies from or to {} could not end: {why}", others.join(", "));
        found.add(Verdict::ErrorSetup, ReasonCode::PhaseFailed, text);
    }
    found.device = None;
    for path in &evidence.peers {
        let [from, to] = [path.from, path.to].map(|index| title_of(evidence, index));
        let title = format!("the copy from {from} to {to}");
        match &path.outcome {
            Outcome::Skipped {
                skip: Skip::NotTested,
                why,
            } => found.add(Verdict::Warn, ReasonCode::NotTested, not_tested(&[title], why)),
            Outcome::Ran if path.verified_bytes == 0 => {
                let text = format!("{title} ran and nothing was compared");
                found.add(Verdict::Warn, ReasonCode::NotTested, text);
            }
            // Those that failed were told of with their GPUs.
            Outcome::Ran | Outcome::Failed { .. } | Outcome::Skipped { .. } | Outcome::Interrupted => {}
        }
    }
}

/// Why something that should be tested was not.
fn why_not_tested(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Skipped {
            skip: Skip::NotTested,
            why,
        } => Some(why),
        _ => None,
    }
}

/// What was not tested for one reason: a few by name.
fn not_tested(titles: &[String], why: &str) -> String {
    const NAMED: usize = 4;
    // The name of a fifth is no longer than that there is one more.
    let most = if titles.len() == NAMED + 1 {
        NAMED + 1
    } else {
        NAMED
    };
    let verb = if titles.len() == 1 { "was" } else { "were" };
    format!("{} {verb} not tested: {why}", some(titles, most))
}

/// `a, b`, or `a, b and 12 more`: `most` by name.
fn some(names: &[String], most: usize) -> String {
    let told = names.get(..most).unwrap_or(names).join(", ");
    match names.len().saturating_sub(most) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

/// Phases that verify, and did.
fn has_verified(phase: &Phase) -> bool {
    match phase.kind {
        PhaseKind::SelfTest | PhaseKind::MmaLoop | PhaseKind::Gemm | PhaseKind::Power | PhaseKind::Pulse => {
            phase.verified_outputs > 0
        }
        PhaseKind::March | PhaseKind::BitFade => phase.verified_bytes > 0,
        // They are measured only; what they move is guarded by the march.
        PhaseKind::HostToDevice
        | PhaseKind::DeviceToHost
        | PhaseKind::HostBothWays
        | PhaseKind::Copy
        | PhaseKind::Triad
        | PhaseKind::Cache => true,
    }
}

/// Phases without which a profile is not complete; each is there at least as skipped.
fn wanted(profile: Profile) -> &'static [PhaseKind] {
    match profile {
        Profile::Smoke => &[PhaseKind::March, PhaseKind::MmaLoop, PhaseKind::Gemm],
        Profile::Prove | Profile::Burn | Profile::Soak => &[
            PhaseKind::March,
            PhaseKind::Copy,
            PhaseKind::HostToDevice,
            PhaseKind::DeviceToHost,
            PhaseKind::MmaLoop,
            PhaseKind::Gemm,
            PhaseKind::Power,
        ],
    }
}

#[cfg(test)]
mod tests;
