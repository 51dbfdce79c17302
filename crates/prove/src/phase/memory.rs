//! How fast the memory is: copy, triad, and the cache.

use std::time::Duration;

use pitcrew_core::proof::{Bits, Corruption, CorruptionClass, PhaseKind};

use super::Exercise;
use super::tally::Tally;
use crate::bench::{Bench, Held, Stop, batch_of};
use crate::device::{Format, MARCH_LOG_BYTES, Pattern, Span, Work};
use crate::operands::operand;
use crate::progress::Progress;
use crate::verify::records::{march_log, word};

/// Each buffer, of the card: far more than any cache.
const BUFFER: u64 = 2 << 30;
/// Values of a triad that are compared.
const SAMPLE: u64 = 1 << 18;
/// Operands in a row of a triad's buffers.
const ROW: u32 = 1024;

/// Streams of memory.
#[derive(Debug)]
pub(crate) struct Streams {
    kind: PhaseKind,
    seed: u32,
}

impl Streams {
    pub(crate) fn new(kind: PhaseKind, seed: u32) -> Self {
        Self { kind, seed }
    }

    /// Does one work over and over; `bytes` of the device are moved each time.
    fn repeat(
        bench: &mut Bench<'_>,
        time: Duration,
        tally: &mut Tally,
        work: Work,
        bytes: u64,
    ) -> Result<(), Stop> {
        let start = bench.pace.elapsed();
        tally.warm_up(start, time);
        let mut count = 1;
        loop {
            let times = bench.run(&vec![work; count])?;
            let sum: Duration = times.iter().sum();
            tally.rate(bench, bytes * bench.device.scale().bytes * count as u64, sum);
            count = batch_of(sum / u32::try_from(count).unwrap_or(1), 4096);
            if bench.pace.elapsed() >= start + time {
                return Ok(());
            }
        }
    }

    fn copy(&self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let held = Held::on(bench.device);
        let (from, to) = (buffer(bench, &held, 2)?, buffer(bench, &held, 2)?);
        let log = held.zeros(MARCH_LOG_BYTES)?;
        let pattern = Pattern::Counter(self.seed.into());
        let march = |span, read, write| Work::March {
            span,
            read,
            write,
            descending: false,
            log: log.all(),
        };
        bench.run(&[march(from, None, Some(pattern))])?;
        Self::repeat(bench, time, tally, Work::Copy { from, to }, 2 * from.bytes)?;
        bench.run(&[march(to, Some(pattern), None)])?;
        tally.phase.verified_bytes += to.bytes * bench.device.scale().bytes;
        let log = march_log(&bench.read(log.all())?);
        for error in &log.errors {
            tally.corrupt(Corruption {
                sm: u32::try_from(error.sm).ok(),
                ..bench.wrong_word(CorruptionClass::Stored, error)
            });
        }
        tally.phase.corruption_count += log.count - log.errors.len() as u64;
        Ok(())
    }

    fn triad(&self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let held = Held::on(bench.device);
        let (a, b, c) = (
            buffer(bench, &held, 3)?,
            buffer(bench, &held, 3)?,
            buffer(bench, &held, 3)?,
        );
        let row = u64::from(ROW) * 4;
        let rows = u32::try_from(a.bytes / row).unwrap_or(u32::MAX);
        let fill = |to: Span, seed| Work::Operands {
            to: to.block.part(to.offset, u64::from(rows) * row),
            format: Format::Fp32,
            rows,
            k: ROW,
            seed,
        };
        let (seed_b, seed_c) = (self.seed, !self.seed);
        bench.run(&[fill(b, seed_b), fill(c, seed_c)])?;
        Self::repeat(bench, time, tally, Work::Triad { a, b, c }, 3 * a.bytes)?;
        let sample = a.block.part(a.offset, (SAMPLE * 4).min(u64::from(rows) * row));
        let bytes = bench.read(sample)?;
        for (place, got) in (0..).zip(bytes.chunks_exact(4)) {
            let of = |seed| f32::from(operand(Format::Fp32, seed, place / ROW, place % ROW));
            let expected = of(seed_b) + 3.0 * of(seed_c);
            if expected.to_le_bytes() != got {
                tally.corrupt(Corruption {
                    offset: Some(u64::from(place) * 4),
                    expected: Some(Bits(expected.to_bits().into())),
                    got: Some(Bits(word(got))),
                    ..bench.corruption(CorruptionClass::Unknown)
                });
            }
        }
        tally.phase.verified_bytes += sample.bytes;
        Ok(())
    }

    fn cache(&self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        const PASSES: u32 = 64;
        let l2 = bench.device.facts().l2_bytes;
        if l2 == 0 {
            return Err(Stop::Unsupported(
                "the driver does not say how large the L2 cache is".to_owned(),
            ));
        }
        let held = Held::on(bench.device);
        let from = held.block(bench.scaled(l2 / 2, 4096) / 16 * 16)?.all();
        let (sum, log) = (held.zeros(8)?, held.zeros(MARCH_LOG_BYTES)?);
        let pattern = Pattern::Counter(self.seed.into());
        bench.run(&[Work::March {
            span: from,
            read: None,
            write: Some(pattern),
            descending: false,
            log: log.all(),
        }])?;
        let work = Work::ReadCached {
            from,
            passes: PASSES,
            sum: sum.all(),
        };
        Self::repeat(bench, time, tally, work, from.bytes * u64::from(PASSES))?;
        let words = (0..from.bytes / 8).map(|index| pattern.word(index));
        let expected = words.fold(0, u64::wrapping_add).wrapping_mul(PASSES.into());
        let bytes = bench.read(sum.all())?;
        let got = word(&bytes);
        tally.phase.verified_bytes += from.bytes * u64::from(PASSES);
        if got != expected {
            (bench.tell)(Progress::Found(
                "cache: the sum of what was read is wrong".to_owned(),
            ));
            tally.corrupt(Corruption {
                expected: Some(Bits(expected)),
                got: Some(Bits(got)),
                ..bench.corruption(CorruptionClass::Unknown)
            });
        }
        Ok(())
    }
}

/// A buffer of which `count` fit, larger than the caches where there is room.
fn buffer(bench: &Bench<'_>, held: &Held<'_>, count: u64) -> Result<Span, Stop> {
    let free = bench.device.free_memory()?;
    let bytes = bench.scaled(BUFFER, 65_536).min(free / (count + 1)) / 4096 * 4096;
    Ok(held.block(bytes.max(4096))?.all())
}

impl Exercise for Streams {
    fn work(&mut self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        match self.kind {
            PhaseKind::Copy => self.copy(bench, time, tally),
            PhaseKind::Triad => self.triad(bench, time, tally),
            _ => self.cache(bench, time, tally),
        }
    }
}
