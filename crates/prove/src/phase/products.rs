//! Large matrix products, every tile of which is checked.

use std::time::Duration;

use pitcrew_core::proof::{Bits, Corruption, CorruptionClass};

use super::contest::{Contest, LONG_BATCH, TRIAL};
use super::tally::Tally;
use super::{Exercise, choice};
use crate::ahead::Expected;
use crate::bench::{BATCH, Bench, Held, Stop, fill};
use crate::device::{
    Block, Choice, DeviceError, Format, GEMM_RECORD_BYTES, Gemm, Output, RECOMPUTE_LOG_BYTES, Span, Variant,
    Work,
};
use crate::inject::Inject;
use crate::operands::mix;
use crate::progress::Progress;
use crate::verify::golden::GemmShape;
use crate::verify::operand::{WrongOperand, check};
use crate::verify::records::{GemmRecord, gemm_records, recompute_log};
use crate::verify::tiles::{Mismatch, SecondLook, Suspect, cause, mismatches, suspect};

/// GEMMs whose records are held at once.
const SLOTS: usize = 256;
/// Wrong tiles that get a second look.
const MOST_LOOKS: usize = 16;
/// How far the order of tiles moves from one GEMM to the next; a prime, so that every SM meets every tile.
const STEP: u32 = 7919;
/// Each buffer of the memory traffic beside products.
const STREAM: u64 = 512 << 20;
/// One product must end long before it would be taken for one that hangs.
const LONGEST: Duration = Duration::from_secs(2);
/// Full load and none, each for so long: once a second.
const PULSE: Duration = Duration::from_millis(500);

/// How products are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One after the other.
    Steady,
    /// As much power as can be had: alone or beside memory traffic, whichever draws more.
    Power,
    /// In bursts.
    Pulse,
}

#[derive(Debug)]
pub(crate) struct Products {
    format: Format,
    mode: Mode,
    seed: u32,
    /// The checksums of the tiles.
    golden: Expected<GemmShape, Vec<u32>>,
    iteration: u64,
    /// What second looks have found.
    looked: Vec<(Mismatch, CorruptionClass, Option<WrongOperand>, bool)>,
    all: Vec<Mismatch>,
}

/// What lies in memory while products are made.
struct Set {
    gemm: Gemm,
    log: Block,
    records: Block,
    of_gemm: u64,
    shape: GemmShape,
}

impl Products {
    pub(crate) fn new(format: Format, mode: Mode, seed: u32) -> Self {
        Self {
            format,
            mode,
            seed,
            golden: Expected::nothing(),
            iteration: 0,
            looked: Vec::new(),
            all: Vec::new(),
        }
    }

    /// The largest shape up to the scale's that fits into three fifths of the free memory and ends soon.
    fn shape(&self, bench: &Bench<'_>, choice: &Choice) -> Result<GemmShape, Stop> {
        let scale = bench.device.scale();
        let free = bench.device.free_memory()?;
        let (mut edge, mut k) = (scale.edge, scale.k);
        loop {
            let shape = GemmShape {
                format: self.format,
                m: edge.next_multiple_of(choice.tile_rows.max(1)),
                n: edge.next_multiple_of(choice.tile_columns.max(1)),
                k: k.next_multiple_of(choice.k_step.max(1)),
                tile_rows: choice.tile_rows,
                tile_columns: choice.tile_columns,
                seed_a: mix(self.seed),
                seed_b: mix(self.seed ^ 1),
                weight_seed: mix(self.seed ^ 2),
            };
            let needed = bytes(&shape).iter().sum::<u64>();
            let fits = needed <= free / 5 * 3;
            if fits && longest(bench, choice.variant, &shape) <= LONGEST {
                return Ok(shape);
            }
            if edge <= choice.tile_rows.max(choice.tile_columns) {
                if fits {
                    return Ok(shape);
                }
                return Err(Stop::Device(DeviceError::OutOfMemory {
                    wanted: needed,
                    of: "the GPU",
                }));
            }
            (edge, k) = (edge / 2, (k / 2).max(1));
        }
    }

    fn set_up(&mut self, bench: &mut Bench<'_>, held: &Held<'_>, choice: &Choice) -> Result<Set, Stop> {
        let shape = self.shape(bench, choice)?;
        self.golden.ask(shape, move || shape.checksums());
        let [a, b, c] = bytes(&shape);
        let (down, across) = shape.grid();
        let of_gemm = u64::from(down) * u64::from(across) * GEMM_RECORD_BYTES;
        let gemm = Gemm {
            variant: choice.variant,
            format: self.format,
            m: shape.m,
            n: shape.n,
            k: shape.k,
            a: held.block(a)?.all(),
            b: held.block(b)?.all(),
            c: held.block(c)?.all(),
            records: Block { id: 0, bytes: 0 }.all(),
            weight_seed: shape.weight_seed,
            rotation: 0,
            ctas: 0,
            fault: bench.fault(),
        };
        let records = held.zeros(of_gemm * SLOTS as u64)?;
        let operands = |to: Span, rows, seed| Work::Operands {
            to,
            format: self.format,
            rows,
            k: shape.k,
            seed,
        };
        bench.run(&[
            operands(gemm.a, shape.m, shape.seed_a),
            operands(gemm.b, shape.n, shape.seed_b),
        ])?;
        for inject in bench.inject {
            if let Inject::Operand { of_b, row, k, bit } = *inject {
                let place =
                    (u64::from(row) * u64::from(shape.k) + u64::from(k)) * self.format.operand_bytes();
                let span = if of_b { gemm.b } else { gemm.a };
                bench.flip(span, place + u64::from(bit / 8), bit)?;
            }
        }
        self.golden.wait(bench)?;
        Ok(Set {
            gemm,
            log: held.zeros(RECOMPUTE_LOG_BYTES)?,
            records,
            of_gemm,
            shape,
        })
    }

    /// A GEMM whose records go to a slot.
    fn gemm(&self, set: &Set, slot: usize) -> Gemm {
        let iteration = self.iteration + slot as u64;
        Gemm {
            records: set.records.part(slot as u64 * set.of_gemm, set.of_gemm),
            rotation: u32::try_from(iteration % u64::from(u32::MAX))
                .unwrap_or_default()
                .wrapping_mul(STEP),
            ..set.gemm
        }
    }

    /// Records of the first slots, one GEMM after the other.
    fn take_records(bench: &Bench<'_>, set: &Set, slots: usize) -> Result<Vec<GemmRecord>, Stop> {
        let span = set.records.part(0, set.of_gemm * slots as u64);
        Ok(gemm_records(&bench.take(span)?))
    }

    /// The checksums that must come out.
    fn golden(&self) -> &[u32] {
        self.golden.answer().map(Vec::as_slice).unwrap_or_default()
    }

    /// Checks what a batch has written, and looks again at what is wrong.
    fn check(
        &mut self,
        bench: &mut Bench<'_>,
        set: &Set,
        slots: usize,
        tally: &mut Tally,
    ) -> Result<(), Stop> {
        let golden = self.golden();
        let of_tile = u64::from(set.shape.tile_rows) * u64::from(set.shape.tile_columns);
        let mut wrong = Vec::new();
        let records = Self::take_records(bench, set, slots)?;
        for (slot, records) in records.chunks(golden.len().max(1)).enumerate() {
            let found = mismatches(records, golden, self.iteration + slot as u64);
            tally.tiles(records.iter().map(|record| record.sm));
            tally.wrong_tiles(found.iter().map(|mismatch| mismatch.sm));
            tally.phase.verified_outputs += of_tile * (golden.len() - found.len()) as u64;
            wrong.extend(found.into_iter().map(|mismatch| (mismatch, slot)));
        }
        for (mismatch, slot) in wrong {
            let corruption = match self.known(&set.shape, &mismatch) {
                Some(class) => Corruption {
                    tile: Some(mismatch.tile),
                    sm: Some(mismatch.sm),
                    ..bench.corruption(class)
                },
                None if self.looked.len() < MOST_LOOKS => self.look_again(bench, set, &mismatch, slot)?,
                None => Corruption {
                    tile: Some(mismatch.tile),
                    sm: Some(mismatch.sm),
                    ..bench.corruption(CorruptionClass::Unknown)
                },
            };
            tally.corrupt(Corruption {
                iteration: Some(mismatch.iteration),
                ..corruption
            });
            if self.all.len() < 10_000 {
                self.all.push(mismatch);
            }
        }
        Ok(())
    }

    /// The class of a wrong tile that follows from an earlier second look.
    fn known(&self, shape: &GemmShape, mismatch: &Mismatch) -> Option<CorruptionClass> {
        let (row, column) = shape.place(mismatch.tile);
        self.looked.iter().find_map(|(seen, class, operand, of_b)| {
            let (seen_row, seen_column) = shape.place(seen.tile);
            match class {
                CorruptionClass::ComputePermanent if seen.sm == mismatch.sm => Some(*class),
                CorruptionClass::OperandMemory if operand.is_some() => {
                    let is_same = if *of_b {
                        seen_column == column
                    } else {
                        seen_row == row
                    };
                    is_same.then_some(*class)
                }
                _ => None,
            }
        })
    }

    /// Computes the tile again by integers on another SM, looks at its operands, and does the same GEMM again.
    fn look_again(
        &mut self,
        bench: &mut Bench<'_>,
        set: &Set,
        mismatch: &Mismatch,
        slot: usize,
    ) -> Result<Corruption, Stop> {
        let shape = &set.shape;
        let gemm = Gemm {
            fault: bench.fault(),
            ..self.gemm(set, slot)
        };
        // C holds what the last GEMM of the batch has written; it is this one's only once it was done again.
        bench.run(&[Work::Gemm(gemm)])?;
        let first = gemm_records(&bench.read(gemm.records)?);
        bench.run(&[Work::Recompute {
            gemm,
            tile: mismatch.tile,
            tile_rows: shape.tile_rows,
            tile_columns: shape.tile_columns,
            avoid_sm: Some(mismatch.sm),
            log: set.log.all(),
        }])?;
        let recomputed = recompute_log(&bench.read(set.log.all())?);
        bench.run(&[Work::Gemm(gemm)])?;
        let second = gemm_records(&bench.read(gemm.records)?);
        bench.device.write(
            gemm.records,
            &vec![0; usize::try_from(set.of_gemm).unwrap_or_default()],
        )?;
        let golden = self.golden();
        let again = [first, second]
            .iter()
            .flat_map(|records| mismatches(records, golden, 0))
            .any(|wrong| wrong.sm == mismatch.sm);
        let (row, column) = shape.place(mismatch.tile);
        let of_a = self.wrong_operands(
            bench,
            gemm.a,
            shape.seed_a,
            row * shape.tile_rows,
            shape.tile_rows,
            shape,
        )?;
        let of_b = self.wrong_operands(
            bench,
            gemm.b,
            shape.seed_b,
            column * shape.tile_columns,
            shape.tile_columns,
            shape,
        )?;
        let look = SecondLook {
            wrong_operands: of_a.len() + of_b.len(),
            sm_wrong_again: again,
            recomputed,
        };
        let class = cause(mismatch, &look);
        let is_b = of_a.is_empty();
        let operand = of_a.first().or(of_b.first()).copied();
        let mut corruption = Corruption {
            tile: Some(mismatch.tile),
            sm: Some(mismatch.sm),
            ..bench.corruption(class)
        };
        if let Some(operand) = operand {
            let line = Some(u64::from(operand.row));
            (corruption.row, corruption.column) = if is_b { (None, line) } else { (line, None) };
            let place = u64::from(operand.row) * u64::from(shape.k) + u64::from(operand.k);
            corruption.offset = Some(place * self.format.operand_bytes());
            corruption.expected = Some(Bits(operand.expected));
            corruption.got = Some(Bits(operand.got));
        } else if let Some(difference) = look.recomputed.differences.first() {
            corruption.row = Some(difference.row.into());
            corruption.column = Some(difference.column.into());
            corruption.expected = Some(Bits(difference.expected));
            corruption.got = Some(Bits(difference.got));
        }
        let text = told(self.format, mismatch, &corruption, is_b);
        (bench.tell)(Progress::Found(text));
        self.looked.push((*mismatch, class, operand, is_b));
        Ok(corruption)
    }

    /// Operands of some rows that are wrong in memory.
    fn wrong_operands(
        &self,
        bench: &Bench<'_>,
        span: Span,
        seed: u32,
        first: u32,
        rows: u32,
        shape: &GemmShape,
    ) -> Result<Vec<WrongOperand>, Stop> {
        let of_row = u64::from(shape.k) * self.format.operand_bytes();
        let part = span
            .block
            .part(span.offset + u64::from(first) * of_row, u64::from(rows) * of_row);
        Ok(check(self.format, seed, first, shape.k, &bench.read(part)?))
    }

    /// What was right in the registers must be right in memory, too: some tiles of the last C, by integers.
    fn sweep(
        &mut self,
        bench: &mut Bench<'_>,
        set: &Set,
        time: Duration,
        tally: &mut Tally,
    ) -> Result<(), Stop> {
        let golden = self.golden();
        let gemm = self.gemm(set, 0);
        let wrong: Vec<u32> = {
            bench.run(&[Work::Gemm(gemm)])?;
            let found = gemm_records(&bench.read(gemm.records)?);
            mismatches(&found, golden, 0)
                .iter()
                .map(|mismatch| mismatch.tile)
                .collect()
        };
        let mut tiles: Vec<u32> = Vec::new();
        for inject in bench.inject {
            if let Inject::Output { index, bit } = *inject {
                bench.flip(gemm.c, index * Output::of(self.format).bytes(), bit)?;
                let (row, column) = (index / u64::from(gemm.n), index % u64::from(gemm.n));
                let across = u64::from(set.shape.grid().1);
                let number = row / u64::from(set.shape.tile_rows) * across
                    + column / u64::from(set.shape.tile_columns);
                tiles.extend(
                    u32::try_from(number)
                        .ok()
                        .filter(|&tile| (tile as usize) < golden.len()),
                );
            }
        }
        let count = u32::try_from(golden.len()).unwrap_or(u32::MAX);
        let offset = u32::try_from(self.iteration % u64::from(count.max(1))).unwrap_or_default();
        tiles.extend((0..count).map(|tile| (tile + offset) % count));
        let end = bench.pace.elapsed() + time;
        for (done, tile) in tiles.into_iter().enumerate() {
            if done >= 8 && bench.pace.elapsed() >= end {
                break;
            }
            if wrong.contains(&tile) {
                continue;
            }
            bench.run(&[Work::Recompute {
                gemm,
                tile,
                tile_rows: set.shape.tile_rows,
                tile_columns: set.shape.tile_columns,
                avoid_sm: None,
                log: set.log.all(),
            }])?;
            let log = recompute_log(&bench.read(set.log.all())?);
            tally.phase.verified_bytes += u64::from(set.shape.tile_rows)
                * u64::from(set.shape.tile_columns)
                * Output::of(self.format).bytes();
            if log.count == 0 && golden.get(tile as usize) == Some(&log.checksum) {
                continue;
            }
            let class = if golden.get(tile as usize) == Some(&log.checksum) {
                CorruptionClass::OutputMemory
            } else {
                CorruptionClass::Unknown
            };
            let mut corruption = Corruption {
                tile: Some(tile),
                ..bench.corruption(class)
            };
            if let Some(difference) = log.differences.first() {
                let place = u64::from(difference.row) * u64::from(gemm.n) + u64::from(difference.column);
                corruption.row = Some(difference.row.into());
                corruption.column = Some(difference.column.into());
                corruption.offset = Some(place * Output::of(self.format).bytes());
                corruption.expected = Some(Bits(difference.expected));
                corruption.got = Some(Bits(difference.got));
            }
            (bench.tell)(Progress::Found(format!(
                "{} GEMM: tile {tile} was right in the registers and is wrong in memory",
                self.format
            )));
            tally.corrupt(corruption);
        }
        Ok(())
    }

    /// Buffers of memory traffic, and how long one triad over them takes.
    fn stream(bench: &mut Bench<'_>, held: &Held<'_>) -> Result<(Work, Duration), Stop> {
        let least = bench.device.facts().l2_bytes / bench.device.scale().bytes * 4;
        let bytes = (bench.device.free_memory()? / 8)
            .min(bench.scaled(STREAM, 16))
            .max(least)
            / 16
            * 16;
        let buffer = || -> Result<Span, DeviceError> { Ok(held.block(bytes.max(16))?.all()) };
        let (a, b, c) = (buffer()?, buffer()?, buffer()?);
        let rows = u32::try_from(b.bytes / 16).unwrap_or(u32::MAX);
        let operands = |to, seed| Work::Operands {
            to,
            format: Format::Fp32,
            rows,
            k: 4,
            seed,
        };
        let triad = Work::Triad { a, b, c };
        bench.run(&[operands(b, 1), operands(c, 2)])?;
        let times = bench.run(&[triad, triad])?;
        Ok((triad, times.last().copied().unwrap_or_default()))
    }
}

impl Exercise for Products {
    fn prepare(&mut self, bench: &Bench<'_>) {
        if let Some(choice) = bench.choice(self.format)
            && let Ok(shape) = self.shape(bench, &choice)
        {
            self.golden.ask(shape, move || shape.checksums());
        }
    }

    fn work(&mut self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let start = bench.pace.elapsed();
        tally.warm_up(start, time);
        let choice = choice(bench, self.format, tally)?;
        let held = Held::on(bench.device);
        let set = self.set_up(bench, &held, &choice)?;
        let mut contest = match self.mode {
            Mode::Power => {
                let (triad, of_triad) = Self::stream(bench, &held)?;
                let begin = bench.pace.elapsed();
                let contest = Contest::new(triad, of_triad, begin, TRIAL.min(time / 5));
                // What is measured is the program that has won.
                tally.warm_until(contest.end());
                Some(contest)
            }
            Mode::Steady | Mode::Pulse => None,
        };
        let batch = match self.mode {
            Mode::Power => LONG_BATCH,
            Mode::Steady | Mode::Pulse => BATCH,
        };
        tally.phase.n = Some(set.shape.m.into());
        let operations = operations(&set.shape) * bench.device.scale().operations;
        let sweep = time.mul_f64(0.1);
        let end = start + time.saturating_sub(sweep);
        let mut count = 1;
        let mut burst = start;
        loop {
            let work: Vec<Work> = (0..count).map(|slot| Work::Gemm(self.gemm(&set, slot))).collect();
            let now = bench.pace.elapsed();
            let beside = contest
                .as_mut()
                .filter(|contest| contest.is_beside(now, &bench.samples));
            let times = match beside {
                None => bench.run(&work)?,
                Some(contest) => {
                    let [times, beside] = bench.run_beside(&work, &contest.work())?;
                    contest.balance(&times, &beside);
                    times
                }
            };
            let sum: Duration = times.iter().sum();
            tally.rate(bench, operations * times.len() as u64, sum);
            self.check(bench, &set, count, tally)?;
            self.iteration += count as u64;
            count = fill(batch, sum / u32::try_from(count).unwrap_or(1), SLOTS);
            if bench.pace.elapsed() >= end {
                break;
            }
            if self.mode == Mode::Pulse && bench.pace.elapsed() >= burst + PULSE {
                bench.tflops = None;
                bench.rest(PULSE)?;
                burst = bench.pace.elapsed();
            }
        }
        if self.mode == Mode::Steady {
            self.sweep(bench, &set, sweep, tally)?;
        }
        if self.all.len() > 1
            && let Some(suspect) = suspect(&self.all, &set.shape)
        {
            (bench.tell)(Progress::Found(format!(
                "{} GEMM: {}",
                self.format,
                words(suspect, self.all.len())
            )));
        }
        Ok(())
    }
}

/// How long one product takes on the slowest GPU that has so many SMs at their clock.
#[expect(clippy::cast_precision_loss, reason = "an upper limit, to one figure")]
fn longest(bench: &Bench<'_>, variant: Variant, shape: &GemmShape) -> Duration {
    // Operations of an SM in a clock: cards for graphics have two units for FP64, and 64 for FP32 at least.
    let per_clock = match (variant, shape.format) {
        (Variant::Simt, Format::Fp64) => 4.0,
        _ => 64.0,
    };
    let facts = bench.device.facts();
    let per_second = f64::from(facts.sms.max(1)) * f64::from(facts.sm_clock_mhz.max(500)) * 1e6 * per_clock;
    let operations = operations(shape) * bench.device.scale().operations;
    Duration::try_from_secs_f64(operations as f64 / per_second).unwrap_or(Duration::MAX)
}

/// Multiplications and additions of one product.
fn operations(shape: &GemmShape) -> u64 {
    2 * u64::from(shape.m) * u64::from(shape.n) * u64::from(shape.k)
}

/// Bytes of A, B and C.
fn bytes(shape: &GemmShape) -> [u64; 3] {
    let [m, n, k] = [shape.m, shape.n, shape.k].map(u64::from);
    let operand = shape.format.operand_bytes();
    [
        m * k * operand,
        n * k * operand,
        m * n * Output::of(shape.format).bytes(),
    ]
}

fn told(format: Format, mismatch: &Mismatch, corruption: &Corruption, is_b: bool) -> String {
    let what = corruption.class.words();
    match corruption.class {
        CorruptionClass::OperandMemory => {
            let matrix = if is_b { "B" } else { "A" };
            let row = corruption.row.or(corruption.column).unwrap_or_default();
            format!(
                "{format} GEMM: {what}: row {row} of {matrix}, offset {:#x}",
                corruption.offset.unwrap_or_default()
            )
        }
        _ => format!(
            "{format} GEMM: tile {} on SM {}: {what}",
            mismatch.tile, mismatch.sm
        ),
    }
}

fn words(suspect: Suspect, count: usize) -> String {
    match suspect {
        Suspect::Sm(sm) => format!("{count} wrong tiles, all but a few of them from SM {sm}"),
        Suspect::Rows(row) => format!("{count} wrong tiles, all in row {row} of tiles: an operand of A"),
        Suspect::Columns(column) => {
            format!("{count} wrong tiles, all in column {column} of tiles: an operand of B")
        }
        Suspect::Tile(tile) => format!("tile {tile} was wrong {count} times, on several SMs"),
        Suspect::Scattered => format!("{count} wrong tiles that have nothing in common"),
    }
}
