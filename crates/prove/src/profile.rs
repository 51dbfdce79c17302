//! What each profile does, and for how long. Pure.

use std::time::Duration;

use pitcrew_core::proof::{PhaseKind, Profile};

use crate::device::Format;

/// One phase of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// What it does.
    pub kind: PhaseKind,
    /// With which numbers.
    pub format: Option<Format>,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What is done in which order and for how long. A step that comes several times is one phase of the report.
    pub schedule: Vec<(Step, Duration)>,
    /// Part of the free memory that is marched over.
    pub memory: f64,
}

impl Plan {
    /// The phases, each once, in the order of their beginning.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for (step, _) in &self.schedule {
            if !steps.contains(step) {
                steps.push(*step);
            }
        }
        steps
    }

    /// How long a step of the schedule may take at this time of the run: its part of what is left of the whole. What came
    /// before it may have taken more or less than it should have.
    pub fn time_of(&self, index: usize, elapsed: Duration) -> Duration {
        let left = self.total().saturating_sub(elapsed);
        let steps = self.schedule.get(index..).unwrap_or_default();
        let wanted: Duration = steps.iter().map(|(_, time)| *time).sum();
        let first = steps.first().map_or(Duration::ZERO, |(_, time)| *time);
        if wanted.is_zero() {
            return Duration::ZERO;
        }
        left.mul_f64(first.as_secs_f64() / wanted.as_secs_f64())
    }

    /// How long all of it takes, but for copies between GPUs.
    pub fn total(&self) -> Duration {
        self.schedule.iter().map(|(_, time)| *time).sum()
    }
}

const fn step(kind: PhaseKind, format: Option<Format>) -> Step {
    Step { kind, format }
}

/// How long a profile takes by itself.
pub const fn usual(profile: Profile) -> Duration {
    Duration::from_secs(match profile {
        Profile::Smoke => 5,
        Profile::Prove => 60,
        Profile::Burn => 15 * 60,
        Profile::Soak => 4 * 60 * 60,
    })
}

/// Time for copies between GPUs, in all.
pub const fn peers(profile: Profile) -> Duration {
    Duration::from_millis(match profile {
        Profile::Smoke => 400,
        Profile::Prove | Profile::Burn | Profile::Soak => 4000,
    })
}

/// The plan of a profile that takes `seconds`, or what is usual. `can` says which formats the GPU has.
pub fn plan(profile: Profile, seconds: Option<Duration>, can: &dyn Fn(Format) -> bool) -> Plan {
    let total = seconds.unwrap_or(usual(profile));
    let main = first_of(can, &[&[Format::Bf16, Format::Fp16, Format::Fp32]]);
    let mut parts: Vec<(Step, f64)> = Vec::new();
    let mut add = |kind, format, weight| parts.push((step(kind, format), weight));
    let main = main.first().copied();
    match profile {
        Profile::Smoke => {
            add(PhaseKind::SelfTest, None, 1.0);
            add(PhaseKind::MmaLoop, main, 1.0);
            add(PhaseKind::Gemm, main, 1.0);
            add(PhaseKind::March, None, 1.0);
            add(PhaseKind::HostToDevice, None, 0.25);
            add(PhaseKind::DeviceToHost, None, 0.25);
        }
        Profile::Prove => {
            add(PhaseKind::SelfTest, None, 1.0);
            add(PhaseKind::March, None, 10.0);
            add(PhaseKind::Copy, None, 2.0);
            add(PhaseKind::Triad, None, 2.0);
            add(PhaseKind::Cache, None, 1.0);
            add(PhaseKind::HostToDevice, None, 1.5);
            add(PhaseKind::DeviceToHost, None, 1.5);
            add(PhaseKind::HostBothWays, None, 1.0);
            for format in loops(can) {
                add(PhaseKind::MmaLoop, Some(format), 4.0);
            }
            add(PhaseKind::Gemm, main, 8.0);
            for format in [
                Format::Fp16,
                Format::Tf32,
                Format::Fp8,
                Format::Int8,
                Format::Fp64,
            ] {
                if can(format) && Some(format) != main {
                    add(PhaseKind::Gemm, Some(format), 1.6);
                }
            }
            add(PhaseKind::Power, main, 10.0);
        }
        Profile::Burn | Profile::Soak => {
            let start = plan(Profile::Prove, Some(usual(Profile::Prove).min(total)), can);
            let rest = total.saturating_sub(start.total());
            return burn(profile, start, rest, main, &loops(can));
        }
    }
    let weights: f64 = parts.iter().map(|(_, weight)| weight).sum();
    Plan {
        schedule: parts
            .into_iter()
            .map(|(step, weight)| (step, total.mul_f64(weight / weights)))
            .collect(),
        memory: if profile == Profile::Smoke { 0.1 } else { 1.0 },
    }
}

/// All that `prove` does, once; then products and marches in turn, a minute of pulses, and in a soak memory that is left
/// alone for a while.
fn burn(profile: Profile, start: Plan, rest: Duration, main: Option<Format>, loops: &[Format]) -> Plan {
    const PRODUCTS: Duration = Duration::from_secs(40);
    const POWER: Duration = Duration::from_secs(20);
    const LOOP: Duration = Duration::from_secs(10);
    const MARCH: Duration = Duration::from_secs(20);
    const PULSE: Duration = Duration::from_mins(1);
    let fade = if profile == Profile::Soak {
        Duration::from_mins(5)
    } else {
        Duration::ZERO
    };
    let mut schedule = start.schedule;
    let mut left = rest;
    let mut add = |step: Step, time: Duration| {
        let time = time.min(left);
        if !time.is_zero() {
            schedule.push((step, time));
            left = left.saturating_sub(time);
        }
        !left.is_zero()
    };
    let mut round = 0;
    loop {
        let format = loops.get(round % loops.len().max(1)).copied();
        let mut goes_on = add(step(PhaseKind::Gemm, main), PRODUCTS)
            && add(step(PhaseKind::March, None), MARCH)
            && add(step(PhaseKind::Power, main), POWER)
            && add(step(PhaseKind::MmaLoop, format.or(main)), LOOP);
        // Once in a burn, every hour or so in a soak.
        if goes_on && round % 40 == 1 {
            goes_on = add(step(PhaseKind::Pulse, main), PULSE);
        }
        if goes_on && !fade.is_zero() && round % 40 == 2 {
            goes_on = add(step(PhaseKind::BitFade, None), fade);
        }
        if !goes_on {
            break;
        }
        round += 1;
    }
    Plan {
        schedule,
        memory: start.memory,
    }
}

/// Formats of the loops: 16 bits, 8 bits, and the plain cores.
fn loops(can: &dyn Fn(Format) -> bool) -> Vec<Format> {
    first_of(
        can,
        &[
            &[Format::Bf16, Format::Fp16],
            &[Format::Fp8, Format::Int8],
            &[Format::Fp32],
        ],
    )
}

/// Of each group the first that the GPU has.
fn first_of(can: &dyn Fn(Format) -> bool, groups: &[&[Format]]) -> Vec<Format> {
    let firsts = groups
        .iter()
        .filter_map(|group| group.iter().copied().find(|&format| can(format)));
    firsts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: Format) -> bool {
        true
    }

    #[test]
    fn a_profile_takes_as_long_as_it_says_or_as_it_is_told() {
        for &profile in Profile::ALL {
            for (seconds, total) in [(None, usual(profile)), (Some(120), Duration::from_mins(2))] {
                let plan = plan(profile, seconds.map(Duration::from_secs), &all);
                let off = plan.total().abs_diff(total);
                assert!(off < Duration::from_millis(1), "{profile}: {:?}", plan.total());
            }
        }
    }

    #[test]
    fn every_kind_of_phase_is_somewhere() {
        let steps = plan(Profile::Soak, None, &all).steps();
        for kind in [
            PhaseKind::SelfTest,
            PhaseKind::March,
            PhaseKind::BitFade,
            PhaseKind::Copy,
            PhaseKind::Triad,
            PhaseKind::Cache,
            PhaseKind::HostToDevice,
            PhaseKind::DeviceToHost,
            PhaseKind::HostBothWays,
            PhaseKind::MmaLoop,
            PhaseKind::Gemm,
            PhaseKind::Power,
            PhaseKind::Pulse,
        ] {
            assert!(steps.iter().any(|step| step.kind == kind), "{kind}");
        }
    }

    #[test]
    fn a_burn_alternates_products_and_marches() {
        let plan = plan(Profile::Burn, None, &all);
        let kinds: Vec<_> = plan.schedule.iter().map(|(step, _)| step.kind).collect();
        let marches = kinds.iter().filter(|&&kind| kind == PhaseKind::March).count();
        assert!(marches >= 8, "{marches}");
        let first = kinds.iter().rposition(|&kind| kind == PhaseKind::Power).unwrap();
        assert!(first > 10);
    }

    #[test]
    fn a_card_without_tensor_cores_is_tested_with_what_it_has() {
        let old = |format| matches!(format, Format::Fp32 | Format::Fp64 | Format::Int8);
        let steps = plan(Profile::Prove, None, &old).steps();
        assert!(steps.contains(&step(PhaseKind::Gemm, Some(Format::Fp32))));
        assert!(steps.iter().all(|step| step.format.is_none_or(old)));
    }

    #[test]
    fn steps_share_what_is_left_of_the_whole_time() {
        let plan = plan(Profile::Prove, None, &all);
        let first = plan.time_of(0, Duration::ZERO);
        let planned = plan.schedule[0].1;
        assert!(first.abs_diff(planned) < Duration::from_millis(1), "{first:?}");
        // Half of the time is gone before anything was done: each has half of its own.
        let late = plan.time_of(0, plan.total() / 2);
        assert!(late.abs_diff(planned / 2) < Duration::from_millis(1), "{late:?}");
        // The last has all that is left, and nothing where nothing is.
        let last = plan.schedule.len() - 1;
        let near_the_end = plan.total().saturating_sub(Duration::from_secs(3));
        assert_eq!(plan.time_of(last, near_the_end), Duration::from_secs(3));
        assert_eq!(plan.time_of(last, plan.total() * 2), Duration::ZERO);
        assert_eq!(plan.time_of(last + 1, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_burn_shorter_than_a_proof_is_one() {
        let short = plan(Profile::Burn, Some(Duration::from_mins(1)), &all);
        assert_eq!(short.schedule, plan(Profile::Prove, None, &all).schedule);
        let shorter = plan(Profile::Burn, Some(Duration::from_secs(30)), &all).total();
        assert!(shorter.abs_diff(Duration::from_secs(30)) < Duration::from_millis(1));
    }
}
