//! A whole proof of one GPU: the plan, phase by phase, until its end or until it is stopped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::proof::{
    Counters, Outcome, Phase, PhaseKind, Profile, Sample, SetupError, SetupErrorCode, Skip, XidEvent,
};

use crate::bench::{self, Bench, Stop};
use crate::device::{Choices, Device, DeviceError, Format, Variant};
use crate::inject::Inject;
use crate::lane::Lane;
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
    /// The way to the host, of all GPUs of the run.
    pub lane: &'a Lane,
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
        lane,
        watch,
        is_cancelled,
        tell,
    } = place;
    // Loading and testing kernels takes time: only those that the plan asks for.
    let choices: RefCell<BTreeMap<Format, Choices>> = RefCell::default();
    let teller = RefCell::new(&mut *tell);
    let can = |format| {
        let mut choices = choices.borrow_mut();
        if is_cancelled() {
            return false;
        }
        let known = choices.entry(format).or_insert_with(|| {
            (teller.borrow_mut())(Progress::Loads(format));
            bench::choices(device, format, options.variant)
        });
        !known.usable.is_empty()
    };
    let plan = plan(options.profile, options.time, &can);
    let choices = choices.into_inner();
    let mut bench = Bench {
        device,
        pace,
        lane,
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
    // What happened in the last batch counts, too; but all is done, and it is too late to cancel it.
    let end = end.or_else(|| match bench.look_round() {
        Err(stop @ Stop::Device(_)) => Some(stop),
        _ => None,
    });
    let after = bench.watch.counters();
    let setup_error = match &end {
        Some(Stop::Device(error)) => Some(explain(error, bench.xids.last())),
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
    let place = |step: &Step| steps.iter().position(|known| known == step);
    for (index, (step, _)) in plan.schedule.iter().enumerate() {
        if let Err(stop) = bench.look_round() {
            return Some(ended(stop, tallies));
        }
        let Some(at) = place(step) else { continue };
        let others = tallies.iter().enumerate().filter(|(other, _)| *other != at);
        bench.elsewhere = others.fold((0, 0), |(outputs, wrong), (_, tally)| {
            (
                outputs + tally.phase.verified_outputs,
                wrong + tally.phase.corruption_count,
            )
        });
        let tally = &mut tallies[at];
        // What could not be done once is not tried again and again.
        if matches!(tally.phase.outcome, Outcome::Failed { .. }) || is_given_up(tally) {
            continue;
        }
        let time = plan.time_of(index, bench.pace.elapsed());
        (bench.tell)(Progress::Began { step: *step });
        let start = bench.now();
        let is_first = tally.phase.spans.is_empty();
        if is_first {
            tally.phase.start_s = start;
        }
        // What comes next needs answers of the CPU, which has nothing else to do now.
        let next = plan.schedule.get(index + 1).and_then(|(step, _)| place(step));
        if let Some(next) = next.filter(|&next| next != at) {
            exercises[next].prepare(bench);
        }
        let (tally, exercise) = (&mut tallies[at], &mut exercises[at]);
        let result = exercise.work(bench, time, tally);
        bench.tflops = None;
        let end = bench.now();
        tally.phase.spans.push((start, end));
        tally.phase.seconds += end - start;
        tally.phase.outcome = outcome(&result);
        (bench.tell)(Progress::Ended(tally.phase.outcome.clone()));
        match result {
            Err(Stop::Cancelled) => return Some(Stop::Cancelled),
            Err(Stop::Device(error)) if ends_the_run(&error) => {
                return Some(ended(Stop::Device(error), tallies));
            }
            Ok(()) | Err(Stop::Device(_) | Stop::Unsupported(_)) => {}
        }
    }
    None
}

/// Says of what was not reached why it was not.
fn ended(stop: Stop, tallies: &mut [Tally]) -> Stop {
    if let Stop::Device(error) = &stop {
        for tally in tallies.iter_mut().filter(|tally| tally.phase.spans.is_empty()) {
            tally.phase.outcome = Outcome::Skipped {
                skip: Skip::NotTested,
                why: format!("not reached: {error}"),
            };
        }
    }
    stop
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

fn outcome(result: &Result<(), Stop>) -> Outcome {
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
            why: error.to_string(),
        },
    }
}

/// Why the GPU can't be used any more, and what to do.
fn explain(error: &DeviceError, last: Option<&XidEvent>) -> SetupError {
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
        // These kernels were right on this GPU a moment ago.
        DeviceError::Stopped { .. } => (
            SetupErrorCode::GpuLost,
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
        message: match last {
            Some(XidEvent { number, .. }) => format!("{error}; the last XID was {number}"),
            None => error.to_string(),
        },
        fix: (!fix.is_empty()).then(|| fix.to_owned()),
        cuda_error: None,
    }
}

/// A format that this GPU or these kernels don't have is told, so that it isn't taken for tested.
fn add_what_is_not_there(phases: &mut Vec<Phase>, profile: Profile, choices: &BTreeMap<Format, Choices>) {
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
