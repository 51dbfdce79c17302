//! A whole proof of one GPU: the plan, phase by phase, until its end or until it is stopped.

use std::cell::RefCell;
use std::time::Duration;

use pitcrew_core::proof::{
    Counters, Outcome, Phase, PhaseKind, Profile, Sample, SetupError, SetupErrorCode, Skip, XidEvent,
};

use crate::bench::{Bench, Stop};
use crate::device::{Choices, Device, DeviceError, Format, Refused, Variant};
use crate::inject::Inject;
use crate::operands::mix;
use crate::pace::Pace;
use crate::phase::tally::Tally;
use crate::phase::{Exercise, exercise};
use crate::profile::{Plan, Step, plan};
use crate::progress::Progress;
use crate::telemetry::Watch;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much is tested.
    pub profile: Profile,
    /// For how long, where it is not the profile's own time.
    pub time: Option<Duration>,
    /// Only this variant, where the GPU has it.
    pub variant: Option<Variant>,
    /// Faults to plant.
    pub inject: Vec<Inject>,
    /// Seed of operands and patterns.
    pub seed: u32,
}

/// What a proof has seen of one GPU: part of its `DeviceEvidence`.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    /// All phases of the plan, in their order, those that did not run too.
    pub phases: Vec<Phase>,
    /// Counters before.
    pub before: Counters,
    /// Counters after.
    pub after: Counters,
    /// XIDs meanwhile.
    pub xids: Vec<XidEvent>,
    /// What the driver said meanwhile.
    pub samples: Vec<Sample>,
    /// Why the GPU could not be used any more, where that was so.
    pub setup_error: Option<SetupError>,
    /// It was stopped by whoever runs it.
    pub is_interrupted: bool,
}

/// Where a proof runs and who is told of it.
pub struct Place<'a> {
    /// The GPU.
    pub device: &'a dyn Device,
    /// Its time.
    pub pace: &'a dyn Pace,
    /// Who watches it.
    pub watch: &'a mut dyn Watch,
    /// True from when on the run shall end; asked several times a second.
    pub is_cancelled: &'a dyn Fn() -> bool,
    /// Is told what goes on.
    pub tell: &'a mut dyn FnMut(Progress),
}

/// Proves one GPU. Ends within a second after it was cancelled, with what was seen until then.
pub fn run(place: Place<'_>, options: &Options) -> Outcomes {
    let Place {
        device,
        pace,
        watch,
        is_cancelled,
        tell,
    } = place;
    // A self-test takes a second for each format: only those that the plan asks for.
    let choices: RefCell<Vec<(Format, Choices)>> = RefCell::default();
    let can = |format| {
        let mut choices = choices.borrow_mut();
        if !choices.iter().any(|(known, _)| *known == format) {
            choices.push((format, only(device.choices(format), options.variant)));
        }
        let known = choices.iter().find(|(known, _)| *known == format);
        known.is_some_and(|(_, choices)| !choices.usable.is_empty())
    };
    let plan = plan(options.profile, options.time, &can);
    let choices = choices.into_inner();
    let mut bench = Bench {
        device,
        pace,
        is_cancelled,
        watch,
        tell,
        inject: &options.inject,
        memory: plan.memory,
        choices,
        samples: Vec::new(),
        xids: Vec::new(),
        tflops: None,
        elsewhere: (0, 0),
    };
    let before = bench.watch.counters();
    let steps = plan.steps();
    let mut tallies: Vec<Tally> = steps.iter().copied().map(Tally::new).collect();
    let end = follow(&mut bench, &plan, options.seed, &mut tallies);
    // What happened in the last batch counts, too.
    let _ = bench.look_round();
    let after = bench.watch.counters();
    let setup_error = match &end {
        Some(Stop::Device(error)) => Some(explain(error)),
        _ => None,
    };
    let mut phases: Vec<Phase> = tallies
        .into_iter()
        .map(|tally| tally.finish(&bench.samples))
        .collect();
    add_what_is_not_there(&mut phases, options.profile, &bench.choices);
    Outcomes {
        phases,
        before,
        after,
        xids: bench.xids,
        samples: bench.samples,
        setup_error,
        is_interrupted: end == Some(Stop::Cancelled),
    }
}

/// Of the variants only one, where somebody wants that.
fn only(choices: Choices, wanted: Option<Variant>) -> Choices {
    let Some(wanted) = wanted else { return choices };
    let (usable, others): (Vec<_>, Vec<_>) = choices
        .usable
        .into_iter()
        .partition(|choice| choice.variant == wanted);
    let mut refused = choices.refused;
    refused.extend(others.into_iter().map(|choice| Refused {
        variant: choice.variant,
        reason: format!("only {wanted} was asked for"),
        was_wrong: false,
    }));
    Choices { usable, refused }
}

/// Goes through the schedule. Returns why it ended early, if it did.
fn follow(bench: &mut Bench<'_>, plan: &Plan, seed: u32, tallies: &mut [Tally]) -> Option<Stop> {
    let steps = plan.steps();
    let mut formats: Vec<Format> = steps.iter().filter_map(|step| step.format).collect();
    formats.sort_unstable();
    formats.dedup();
    let mut exercises: Vec<Box<dyn Exercise>> = (0_u32..)
        .zip(&steps)
        .map(|(number, step)| exercise(*step, mix(seed ^ number << 16), &formats))
        .collect();
    for (index, (step, time)) in plan.schedule.iter().enumerate() {
        let Some(at) = steps.iter().position(|known| known == step) else {
            continue;
        };
        let others = tallies.iter().enumerate().filter(|(other, _)| *other != at);
        bench.elsewhere = others.fold((0, 0), |(outputs, wrong), (_, tally)| {
            (
                outputs + tally.phase.verified_outputs,
                wrong + tally.phase.corruption_count,
            )
        });
        let (tally, exercise) = (&mut tallies[at], &mut exercises[at]);
        // What could not be done once is not tried again and again.
        if matches!(tally.phase.outcome, Outcome::Failed { .. }) || is_given_up(tally) {
            continue;
        }
        (bench.tell)(Progress::Began {
            step: *step,
            time: *time,
            index,
            of: plan.schedule.len(),
        });
        let start = bench.now();
        let is_first = tally.phase.spans.is_empty();
        if is_first {
            tally.phase.start_s = start;
        }
        let result = exercise.work(bench, *time, tally);
        bench.tflops = None;
        let end = bench.now();
        tally.phase.spans.push((start, end));
        tally.phase.seconds += end - start;
        tally.phase.outcome = outcome(&result, *step);
        (bench.tell)(Progress::Ended {
            step: *step,
            outcome: tally.phase.outcome.clone(),
        });
        match result {
            Err(Stop::Cancelled) => return Some(Stop::Cancelled),
            Err(Stop::Device(error)) if ends_the_run(&error) => {
                let why = format!("not reached: {error}");
                for tally in tallies.iter_mut().filter(|tally| tally.phase.spans.is_empty()) {
                    tally.phase.outcome = Outcome::Skipped {
                        skip: Skip::NotTested,
                        why: why.clone(),
                    };
                }
                return Some(Stop::Device(error));
            }
            Ok(()) | Err(Stop::Device(_) | Stop::Unsupported(_)) => {}
        }
    }
    None
}

/// True for a phase that was tried and can't be done here.
fn is_given_up(tally: &Tally) -> bool {
    !tally.phase.spans.is_empty() && matches!(tally.phase.outcome, Outcome::Skipped { .. })
}

/// After these nothing more can be had of the device in this process.
const fn ends_the_run(error: &DeviceError) -> bool {
    matches!(
        error,
        DeviceError::Lost(_) | DeviceError::Hang { .. } | DeviceError::Stopped { .. }
    )
}

fn outcome(result: &Result<(), Stop>, step: Step) -> Outcome {
    match result {
        Ok(()) => Outcome::Ran,
        Err(Stop::Cancelled) => Outcome::Interrupted,
        Err(Stop::Unsupported(why)) => Outcome::Skipped {
            skip: Skip::Unsupported,
            why: why.clone(),
        },
        Err(Stop::Device(error @ DeviceError::OutOfMemory { .. })) => Outcome::Skipped {
            skip: Skip::NotTested,
            why: error.to_string(),
        },
        Err(Stop::Device(error)) => Outcome::Failed {
            why: format!("{}: {error}", step.kind),
        },
    }
}

/// Why the GPU can't be used any more, and what to do.
fn explain(error: &DeviceError) -> SetupError {
    let (code, fix) = match error {
        DeviceError::Lost(_) => (
            SetupErrorCode::GpuLost,
            "reset or replace the GPU: `dmesg | grep -i xid` tells how it went",
        ),
        DeviceError::Hang { .. } => (
            SetupErrorCode::Hang,
            "reset the GPU, and run it again: `dmesg | grep -i xid` tells whether the driver saw it",
        ),
        DeviceError::OutOfMemory { .. } => (
            SetupErrorCode::OutOfMemory,
            "end what holds its memory: `nvidia-smi` lists the processes",
        ),
        DeviceError::Stopped { .. } => (
            SetupErrorCode::Other,
            "run it again: if it happens again, reset the GPU and look at `dmesg | grep -i xid`",
        ),
        DeviceError::Untested(_) => (
            SetupErrorCode::Other,
            "leave them out with `--variant m16n8k16`: it is most likely their fault and not the GPU's",
        ),
        DeviceError::Unsupported(_) => (SetupErrorCode::Other, ""),
    };
    SetupError {
        code,
        message: error.to_string(),
        fix: (!fix.is_empty()).then(|| fix.to_owned()),
        cuda_error: None,
    }
}

/// A format that this GPU or these kernels don't have is told, so that it isn't taken for tested.
fn add_what_is_not_there(phases: &mut Vec<Phase>, profile: Profile, choices: &[(Format, Choices)]) {
    // What was wrong there is never taken for something that this GPU lacks.
    for (format, choices) in choices {
        for refused in choices.refused.iter().filter(|refused| refused.was_wrong) {
            let skip = Outcome::Skipped {
                skip: Skip::NotTested,
                why: format!("{}: {}", refused.variant, refused.reason),
            };
            phases.push(Phase::new(PhaseKind::SelfTest, Some(*format), skip));
        }
    }
    if profile == Profile::Smoke {
        return;
    }
    for (format, choices) in choices {
        let is_there = phases
            .iter()
            .any(|phase| phase.kind == PhaseKind::Gemm && phase.format == Some(*format));
        if is_there {
            continue;
        }
        let reasons: Vec<&str> = choices.refused.iter().map(|refused| &*refused.reason).collect();
        let (skip, why) = if choices.usable.is_empty() {
            let why = match reasons.as_slice() {
                [] => format!("no kernel for {format}"),
                reasons => reasons.join("; "),
            };
            (Skip::Unsupported, why)
        } else {
            (Skip::NotAsked, "not in this profile".to_owned())
        };
        phases.push(Phase::new(
            PhaseKind::Gemm,
            Some(*format),
            Outcome::Skipped { skip, why },
        ));
    }
}
