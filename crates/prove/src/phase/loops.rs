//! The same multiplication on every SM, from shared memory.

use std::collections::BTreeSet;
use std::time::Duration;

use pitcrew_core::proof::{Corruption, CorruptionClass};

use super::tally::Tally;
use super::{Exercise, choice};
use crate::ahead::Expected;
use crate::bench::{Bench, Held, Stop, batch_of};
use crate::device::{Choice, Format, LOOP_RECORD_BYTES, Variant, Work};
use crate::operands::mix;
use crate::progress::Progress;
use crate::verify::golden::loop_hashes;
use crate::verify::loops::vote;
use crate::verify::records::{LoopRecord, loop_records};

/// Launches whose records are held at once.
const SLOTS: usize = 32;

#[derive(Debug)]
pub(crate) struct Loops {
    format: Format,
    /// Two sets of operands, in turn.
    seeds: [u32; 2],
    /// Hashes of each set.
    golden: [Expected<(Variant, u32), Vec<u64>>; 2],
    launch: u64,
    /// SMs that were told of.
    told: BTreeSet<u32>,
}

impl Loops {
    pub(crate) fn new(format: Format, seed: u32) -> Self {
        Self {
            format,
            seeds: [mix(seed), mix(seed ^ 1)],
            golden: [Expected::nothing(), Expected::nothing()],
            launch: 0,
            told: BTreeSet::new(),
        }
    }
}

impl Exercise for Loops {
    fn prepare(&mut self, bench: &Bench<'_>) {
        if let Some(choice) = bench.choice(self.format) {
            self.ask(&choice, bench.device.scale().rounds);
        }
    }

    fn work(&mut self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let start = bench.pace.elapsed();
        tally.warm_up(start, time);
        let choice = choice(bench, self.format, tally)?;
        let facts = bench.device.facts().clone();
        let scale = bench.device.scale();
        let per_sm = bench.device.loop_ctas_per_sm(choice.variant, self.format).max(1);
        let ctas = facts.sms.max(1) * per_sm;
        let held = Held::on(bench.device);
        let of_launch = LOOP_RECORD_BYTES * u64::from(ctas);
        let records = held.zeros(of_launch * SLOTS as u64)?;
        self.ask(&choice, scale.rounds);
        for golden in &mut self.golden {
            golden.wait(bench)?;
        }
        let operations =
            choice.loop_shape.operations() * u64::from(scale.rounds) * u64::from(ctas) * scale.operations;
        let mut launches = 1;
        loop {
            let turn = usize::from(self.launch % 2 == 1);
            let work: Vec<Work> = (0..launches as u64)
                .map(|slot| Work::MmaLoop {
                    variant: choice.variant,
                    format: self.format,
                    rounds: scale.rounds,
                    ctas,
                    seed: self.seeds[turn],
                    records: records.part(slot * of_launch, of_launch),
                    fault: bench.fault(),
                })
                .collect();
            let times = bench.run(&work)?;
            let sum: Duration = times.iter().sum();
            tally.rate(bench, operations * times.len() as u64, sum);
            let read = loop_records(&bench.take(records.part(0, of_launch * launches as u64))?);
            for of_launch in read.chunks(ctas as usize) {
                self.check(bench, of_launch, turn, &choice, facts.sms, tally);
            }
            launches = batch_of(sum / u32::try_from(times.len()).unwrap_or(1).max(1), SLOTS);
            self.launch += 1;
            if bench.pace.elapsed() >= start + time {
                return Ok(());
            }
        }
    }
}

impl Loops {
    /// Has the CPU compute the hashes.
    fn ask(&mut self, choice: &Choice, rounds: u32) {
        let (format, shape) = (self.format, choice.loop_shape);
        for (&seed, golden) in self.seeds.iter().zip(&mut self.golden) {
            golden.ask((choice.variant, rounds), move || {
                loop_hashes(format, &shape, seed, rounds)
            });
        }
    }

    fn check(
        &mut self,
        bench: &mut Bench<'_>,
        records: &[LoopRecord],
        turn: usize,
        choice: &Choice,
        sms: u32,
        tally: &mut Tally,
    ) {
        let golden = self.golden[turn].answer().map(Vec::as_slice).unwrap_or_default();
        let vote = vote(records, golden, sms);
        let outputs = u64::from(choice.loop_shape.rows) * u64::from(choice.loop_shape.columns);
        for (cta, record) in records.iter().enumerate() {
            let sm = u32::try_from(record.sm).unwrap_or(u32::MAX);
            let is_wrong = vote.deviations.iter().any(|deviation| deviation.cta == cta);
            if !is_wrong {
                tally.phase.verified_outputs += outputs * u64::from(bench.device.scale().rounds);
            }
            if vote.sms.contains(&sm) {
                tally.tile(sm, is_wrong);
                if let Some(clock) = record.clock_mhz() {
                    #[expect(clippy::cast_precision_loss, reason = "seconds in ns")]
                    tally.timed(sm, (record.end - record.start) as f64, clock);
                }
            }
        }
        for deviation in &vote.deviations {
            let class = if vote.all_wrong {
                CorruptionClass::Unknown
            } else {
                CorruptionClass::ComputeTransient
            };
            // Hashes say that bits differ, and nothing of which.
            tally.corrupt(Corruption {
                sm: Some(deviation.sm),
                warp: Some(deviation.warp),
                iteration: Some(self.launch),
                ..bench.corruption(class)
            });
        }
        if let Some(first) = vote.deviations.first()
            && self.told.len() < 4
            && self.told.insert(first.sm)
        {
            let text = if vote.all_wrong {
                format!("{} loop: all SMs agree on something wrong", self.format)
            } else {
                format!(
                    "{} loop: SM {} computes wrong, warp {} (sub-core {})",
                    self.format,
                    first.sm,
                    first.warp,
                    first.warp % 4
                )
            };
            (bench.tell)(Progress::Found(text));
        }
    }
}
