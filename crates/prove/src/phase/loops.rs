//! The same multiplication on every SM, from shared memory.

use std::collections::BTreeSet;
use std::time::Duration;

use pitcrew_core::proof::{Corruption, CorruptionClass};

use super::tally::Tally;
use super::{Exercise, choice};
use crate::bench::{Bench, Held, Stop, batch_of};
use crate::device::{Choice, Format, LOOP_RECORD_BYTES, Work};
use crate::operands::mix;
use crate::progress::Progress;
use crate::verify::golden::loop_hashes;
use crate::verify::loops::vote;
use crate::verify::records::{LoopRecord, loop_records};

/// Launches whose records are held at once.
const SLOTS: usize = 32;
/// The first part of a phase, in which clocks settle, is verified and not measured.
pub(crate) const WARM_UP: f64 = 0.15;

#[derive(Debug)]
pub(crate) struct Loops {
    format: Format,
    /// Two sets of operands, in turn.
    seeds: [u32; 2],
    golden: [Option<Vec<u64>>; 2],
    launch: u64,
    /// SMs that were told of.
    told: BTreeSet<u32>,
}

impl Loops {
    pub(crate) fn new(format: Format, seed: u32) -> Self {
        Self {
            format,
            seeds: [mix(seed), mix(seed ^ 1)],
            golden: [None, None],
            launch: 0,
            told: BTreeSet::new(),
        }
    }
}

impl Exercise for Loops {
    fn work(&mut self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let choice = choice(bench, self.format, tally)?;
        let facts = bench.device.facts().clone();
        let scale = bench.device.scale();
        let per_sm = bench.device.loop_ctas_per_sm(choice.variant, self.format).max(1);
        let ctas = facts.sms.max(1) * per_sm;
        let held = Held::on(bench.device);
        let of_launch = LOOP_RECORD_BYTES * u64::from(ctas);
        let records = held.zeros(of_launch * SLOTS as u64)?;
        for (seed, golden) in self.seeds.iter().zip(&mut self.golden) {
            if golden.is_none() {
                *golden = Some(loop_hashes(self.format, &choice.loop_shape, *seed, scale.rounds));
            }
        }
        let start = bench.pace.elapsed();
        let warm = start + time.mul_f64(WARM_UP);
        let operations =
            choice.loop_shape.operations() * u64::from(scale.rounds) * u64::from(ctas) * scale.operations;
        let mut launches = 1;
        let mut is_warm = false;
        while bench.pace.elapsed() < start + time {
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
            if !is_warm && bench.pace.elapsed() > warm {
                is_warm = true;
                tally.forget_rates();
            }
            let sum: Duration = times.iter().sum();
            tally.rate(bench, operations * times.len() as u64, sum);
            let bytes = bench.read(records.part(0, of_launch * launches as u64))?;
            // What isn't written again must not look right.
            let blank = vec![0; bytes.len()];
            bench.device.write(records.part(0, bytes.len() as u64), &blank)?;
            let read = loop_records(&bytes);
            for of_launch in read.chunks(ctas as usize) {
                self.check(bench, of_launch, turn, &choice, facts.sms, tally);
            }
            launches = batch_of(sum / u32::try_from(times.len()).unwrap_or(1).max(1), SLOTS);
            self.launch += 1;
        }
        Ok(())
    }
}

impl Loops {
    fn check(
        &mut self,
        bench: &mut Bench<'_>,
        records: &[LoopRecord],
        turn: usize,
        choice: &Choice,
        sms: u32,
        tally: &mut Tally,
    ) {
        let golden = self.golden[turn].as_deref().unwrap_or_default();
        let vote = vote(records, golden, sms);
        let outputs = u64::from(choice.loop_shape.rows) * u64::from(choice.loop_shape.columns);
        for (cta, record) in records.iter().enumerate() {
            let sm = u32::try_from(record.sm).unwrap_or(u32::MAX);
            let is_wrong = vote.deviations.iter().any(|deviation| deviation.cta == cta);
            if !is_wrong {
                tally.phase.verified_outputs += outputs * u64::from(bench.device.scale().rounds);
            }
            if vote.ctas.contains_key(&sm) {
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
