//! A small product and a short loop of each variant against the CPU's own answers, before anything is measured.
//!
//! A variant that is wrong everywhere is no fault of the GPU, but of the kernel or of the driver's compiler: the next one
//! takes its place. Wrong on a few SMs alone is a fault of the GPU, and the variant stays.

use std::time::Duration;

use pitcrew_core::proof::{Corruption, CorruptionClass};

use super::Exercise;
use super::tally::Tally;
use crate::bench::{Bench, Held, Stop};
use crate::device::{
    Choice, Choices, Fault, Format, GEMM_RECORD_BYTES, Gemm, LOOP_RECORD_BYTES, Output, Refused, Variant,
    Work,
};
use crate::kernels;
use crate::operands::mix;
use crate::progress::Progress;
use crate::verify::golden::{GemmShape, loop_hashes};
use crate::verify::loops::vote;
use crate::verify::records::{gemm_records, loop_records};
use crate::verify::tiles::mismatches;

/// Tiles down and across.
const TILES: u32 = 4;
/// Length of the sums, of a real GPU.
const K: u32 = 512;

/// The self-test of all formats that the run is going to use.
#[derive(Debug)]
pub(crate) struct SelfTest {
    formats: Vec<Format>,
    seed: u32,
}

/// What the self-test says of a variant.
enum Answer {
    /// Right where it counts.
    Fit,
    /// Wrong everywhere: not to be used.
    Unfit(&'static str),
}

impl SelfTest {
    pub(crate) fn new(formats: Vec<Format>, seed: u32) -> Self {
        Self {
            formats,
            seed: mix(seed),
        }
    }

    fn try_out(
        &self,
        bench: &mut Bench<'_>,
        format: Format,
        choice: &Choice,
        tally: &mut Tally,
    ) -> Result<Answer, Stop> {
        let held = Held::on(bench.device);
        let shape = GemmShape {
            format,
            m: choice.tile_rows * TILES,
            n: choice.tile_columns * TILES,
            k: K.min(bench.device.scale().k)
                .next_multiple_of(choice.k_step.max(1)),
            tile_rows: choice.tile_rows,
            tile_columns: choice.tile_columns,
            seed_a: self.seed,
            seed_b: !self.seed,
            weight_seed: self.seed,
        };
        let [rows, columns, depth] = [shape.m, shape.n, shape.k].map(u64::from);
        let (a, b) = (
            held.block(rows * depth * format.operand_bytes())?.all(),
            held.block(columns * depth * format.operand_bytes())?.all(),
        );
        let c = held.block(rows * columns * Output::of(format).bytes())?.all();
        let tiles = u64::from(TILES * TILES);
        let records = held.zeros(tiles * GEMM_RECORD_BYTES)?.all();
        let fill = |to, rows, seed| Work::Operands {
            to,
            format,
            rows,
            k: shape.k,
            seed,
        };
        bench.run(&[
            fill(a, shape.m, shape.seed_a),
            fill(b, shape.n, shape.seed_b),
            Work::Gemm(Gemm {
                variant: choice.variant,
                format,
                m: shape.m,
                n: shape.n,
                k: shape.k,
                a,
                b,
                c,
                records,
                weight_seed: shape.weight_seed,
                rotation: 0,
                ctas: 0,
                fault: Fault::NONE,
            }),
        ])?;
        let mismatched = mismatches(&gemm_records(&bench.read(records)?), &shape.checksums(), 0);
        let wrong = mismatched.len() as u64;
        tally.phase.verified_outputs += rows * columns / tiles * (tiles - wrong);
        if wrong * 2 > tiles {
            return Ok(Answer::Unfit("its matrix product is wrong"));
        }
        for mismatch in &mismatched {
            tally.corrupt(Corruption {
                sm: Some(mismatch.sm).filter(|sm| *sm != u32::MAX),
                ..bench.corruption(CorruptionClass::ComputeTransient)
            });
        }
        let ctas = bench.device.facts().sms.max(1);
        let records = held.zeros(LOOP_RECORD_BYTES * u64::from(ctas))?.all();
        bench.run(&[Work::MmaLoop {
            variant: choice.variant,
            format,
            rounds: 2,
            ctas,
            seed: self.seed,
            records,
            fault: Fault::NONE,
        }])?;
        let golden = loop_hashes(format, &choice.loop_shape, self.seed, 2);
        let vote = vote(&loop_records(&bench.read(records)?), &golden, ctas);
        let outputs = u64::from(choice.loop_shape.rows) * u64::from(choice.loop_shape.columns);
        if vote.all_wrong {
            return Ok(Answer::Unfit("its loop is wrong on all SMs"));
        }
        for deviation in &vote.deviations {
            tally.corrupt(Corruption {
                sm: Some(deviation.sm),
                warp: Some(deviation.warp),
                ..bench.corruption(CorruptionClass::ComputeTransient)
            });
        }
        tally.phase.verified_outputs += outputs * u64::from(ctas) - vote.deviations.len() as u64;
        Ok(Answer::Fit)
    }
}

/// What can run of those variants that were not tried yet.
fn untried(bench: &Bench<'_>, format: Format, refused: &[Refused]) -> Choices {
    let is_known = |variant: Variant| refused.iter().any(|refused| refused.variant == variant);
    let left: Vec<Variant> = kernels::variants(format)
        .iter()
        .copied()
        .filter(|&variant| !is_known(variant))
        .collect();
    bench.device.choices(format, &left)
}

impl Exercise for SelfTest {
    fn work(&mut self, bench: &mut Bench<'_>, _time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let mut refused_at_all = Vec::new();
        for &format in &self.formats {
            let mut left = bench.choices.remove(&format).unwrap_or_default();
            let (mut usable, mut refused) = (Vec::new(), std::mem::take(&mut left.refused));
            while !left.usable.is_empty() {
                let choice = left.usable.remove(0);
                (bench.tell)(Progress::Loads(format));
                match self.try_out(bench, format, &choice, tally)? {
                    Answer::Fit => {
                        usable.push(choice);
                        break;
                    }
                    Answer::Unfit(what) => refused.push(Refused {
                        variant: choice.variant,
                        reason: format!("self-test: {what}"),
                        was_wrong: true,
                    }),
                }
                if left.usable.is_empty() {
                    left = untried(bench, format, &refused);
                    refused.append(&mut left.refused);
                }
            }
            refused_at_all.extend(refused.iter().cloned());
            bench.choices.insert(format, Choices { usable, refused });
        }
        tally.refuse(&refused_at_all);
        Ok(())
    }
}
