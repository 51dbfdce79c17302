//! What a phase has seen so far.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::proof::{
    Corruption, CorruptionClass, Outcome, Phase, PhaseKind, Rate, Refused, Sample, Skip, SmResult, Unit,
};

use crate::bench::{Bench, MOST_CORRUPTIONS};
use crate::device;
use crate::profile::Step;
use crate::progress::Progress;

/// The first part of a phase, in which clocks settle, is verified and not measured.
const WARM_UP: f64 = 0.15;

/// What one SM did.
#[derive(Debug, Clone, Copy, Default)]
struct OfSm {
    tiles: u64,
    wrong: u64,
    clock_sum: f64,
    time_sum: f64,
    timed: u64,
}

/// What a phase has seen so far.
#[derive(Debug)]
pub(crate) struct Tally {
    /// What the report will say of it.
    pub(crate) phase: Phase,
    unit: Unit,
    rates: Vec<f64>,
    /// Rates of warm-ups: they count only where there are no others.
    cold: Vec<f64>,
    warm_from: Duration,
    sms: BTreeMap<u32, OfSm>,
}

impl Tally {
    /// Of a phase that has not begun.
    pub(crate) fn new(step: Step) -> Self {
        let outcome = Outcome::Skipped {
            skip: Skip::NotTested,
            why: "the run ended before it".to_owned(),
        };
        Self {
            phase: Phase::new(step.kind, step.format, outcome),
            unit: match step.kind {
                PhaseKind::MmaLoop | PhaseKind::Gemm | PhaseKind::Power | PhaseKind::Pulse => Unit::Tflops,
                _ => Unit::Gbs,
            },
            rates: Vec::new(),
            cold: Vec::new(),
            warm_from: Duration::ZERO,
            sms: BTreeMap::new(),
        }
    }

    /// Work of so much took so long on the device: bytes, or operations.
    pub(crate) fn rate(&mut self, bench: &mut Bench<'_>, work: u64, time: Duration) {
        if time.is_zero() {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "rates to a few figures")]
        let per_second = work as f64 / time.as_secs_f64();
        let rate = match self.unit {
            Unit::Tflops => per_second / 1e12,
            Unit::Gbs => per_second / 1e9,
        };
        if self.unit == Unit::Tflops {
            bench.tflops = Some(rate);
        }
        let is_warm = bench.pace.elapsed() > self.warm_from;
        let rates = if is_warm { &mut self.rates } else { &mut self.cold };
        rates.push(rate);
        (bench.tell)(Progress::Rate {
            rate,
            unit: self.unit,
        });
        (bench.tell)(Progress::Checked {
            verified_outputs: bench.elsewhere.0 + self.phase.verified_outputs,
            corruption_count: bench.elsewhere.1 + self.phase.corruption_count,
        });
    }

    /// The first part of a span of this length, which begins now, is a warm-up.
    pub(crate) fn warm_up(&mut self, now: Duration, span: Duration) {
        self.warm_from = now + span.mul_f64(WARM_UP);
    }

    /// What is measured before then is a warm-up.
    pub(crate) fn warm_until(&mut self, time: Duration) {
        self.warm_from = time;
    }

    /// SMs have computed tiles, each a tile for each time that it is named.
    pub(crate) fn tiles(&mut self, sms: impl Iterator<Item = u32>) {
        // There are a few SMs and many tiles: one look-up for each SM that there can be.
        let mut few = [0_u64; 256];
        for sm in sms {
            match few.get_mut(sm as usize) {
                Some(count) => *count += 1,
                None => self.sms.entry(sm).or_default().tiles += 1,
            }
        }
        for (sm, count) in (0..).zip(few).filter(|(_, count)| *count > 0) {
            self.sms.entry(sm).or_default().tiles += count;
        }
    }

    /// Of these SMs a tile each was wrong.
    pub(crate) fn wrong_tiles(&mut self, sms: impl Iterator<Item = u32>) {
        for sm in sms {
            self.sms.entry(sm).or_default().wrong += 1;
        }
    }

    /// An SM has computed a tile.
    pub(crate) fn tile(&mut self, sm: u32, is_wrong: bool) {
        let of = self.sms.entry(sm).or_default();
        of.tiles += 1;
        of.wrong += u64::from(is_wrong);
    }

    /// An SM needed so many nanoseconds for what all SMs did, at this clock.
    pub(crate) fn timed(&mut self, sm: u32, nanoseconds: f64, clock_mhz: f64) {
        let of = self.sms.entry(sm).or_default();
        of.time_sum += nanoseconds;
        of.clock_sum += clock_mhz;
        of.timed += 1;
    }

    /// Something was wrong. The first thousand are kept.
    pub(crate) fn corrupt(&mut self, corruption: Corruption) {
        self.phase.corruption_count += 1;
        if self.phase.corruptions.len() < MOST_CORRUPTIONS {
            self.phase.corruptions.push(corruption);
        }
    }

    /// Wrong again and again on one SM is another fault than wrong once.
    pub(crate) fn settle_compute_faults(&mut self) {
        let mut times: BTreeMap<u32, u64> = BTreeMap::new();
        for corruption in &self.phase.corruptions {
            if let Some(sm) = corruption.sm {
                *times.entry(sm).or_default() += 1;
            }
        }
        for corruption in &mut self.phase.corruptions {
            let again = corruption.sm.is_some_and(|sm| times[&sm] > 1);
            if corruption.class == CorruptionClass::ComputeTransient && again {
                corruption.class = CorruptionClass::ComputePermanent;
            }
        }
    }

    /// Variants that are better and could not be used.
    pub(crate) fn refuse(&mut self, refused: &[device::Refused]) {
        self.phase.refused = refused
            .iter()
            .map(|refused| Refused {
                variant: refused.variant.name().to_owned(),
                why: refused.reason.clone(),
            })
            .collect();
    }

    /// The phase as it goes into the report.
    pub(crate) fn finish(mut self, samples: &[Sample]) -> Phase {
        self.settle_compute_faults();
        let rates = if self.rates.is_empty() {
            self.cold
        } else {
            self.rates
        };
        self.phase.rate = Rate::of(self.unit, rates);
        let during: Vec<&Sample> = samples
            .iter()
            .filter(|sample| {
                self.phase
                    .spans
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(&sample.at_s))
            })
            .collect();
        self.phase.power_w = mean(during.iter().filter_map(|sample| sample.power_w));
        let timed: Vec<(u32, f64, f64)> = self
            .sms
            .iter()
            .filter(|(_, of)| of.timed > 0)
            .map(|(sm, of)| {
                let timed = approximate(of.timed);
                (*sm, of.time_sum / timed, of.clock_sum / timed)
            })
            .collect();
        let of_sms = mean(timed.iter().map(|(_, _, clock)| *clock));
        let clocks = during
            .iter()
            .filter_map(|sample| sample.clock_sm_mhz)
            .map(f64::from);
        self.phase.sm_clock_mhz = of_sms.or_else(|| mean(clocks));
        let median = median(timed.iter().map(|(_, time, _)| *time).collect());
        self.phase.sms = self
            .sms
            .iter()
            .map(|(&sm, of)| {
                let timed = timed.iter().find(|(number, ..)| *number == sm);
                SmResult {
                    sm,
                    tiles: of.tiles,
                    wrong: of.wrong,
                    clock_mhz: timed.map(|(_, _, clock)| *clock),
                    relative_speed: timed
                        .zip(median)
                        .filter(|((_, time, _), _)| *time > 0.0)
                        .map(|((_, time, _), median)| median / time),
                }
            })
            .collect();
        // One span is all of the time from its start on.
        if self.phase.spans.len() == 1 {
            self.phase.spans.clear();
        }
        self.phase
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
fn approximate(count: u64) -> f64 {
    count as f64
}

/// None of none.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / approximate(count))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
