//! Patterns over the memory: written everywhere, read, turned over, read again from the end.

use std::time::Duration;

use pitcrew_core::proof::{Corruption, CorruptionClass, Coverage};

use super::Exercise;
use super::tally::Tally;
use crate::bench::{Bench, Held, Stop};
use crate::device::{Block, DeviceError, MARCH_LOG_BYTES, Pattern, Span, Work};
use crate::inject::Inject;
use crate::progress::Progress;
use crate::verify::march::{analyse, is_transient};
use crate::verify::records::march_log;

/// Memory of the card that is left to the driver and to others.
const RESERVE: u64 = 512 << 20;
/// Blocks of the card smaller than this are not worth asking for.
const SMALLEST: u64 = 64 << 20;
/// Bytes of the card that one piece of work goes over: a slow card must not be busy with it for a second.
const PIECE: u64 = 8 << 30;

/// Patterns, one after the other over all of the memory.
#[derive(Debug)]
pub(crate) struct March {
    seed: u32,
    pass: u64,
}

impl March {
    pub(crate) fn new(seed: u32) -> Self {
        Self { seed, pass: 0 }
    }

    /// Addresses mostly, as they find bad address lines too; in between what stresses single lanes.
    fn pattern(&self) -> Pattern {
        let number = self.pass / 4;
        match self.pass % 4 {
            1 => Pattern::Constant(1_u64.rotate_left(u32::try_from(number * 5 % 64).unwrap_or_default())),
            3 => Pattern::Constant(match number % 3 {
                0 => 0x5555_5555_5555_5555,
                1 => 0,
                _ => 0x0F0F_0F0F_0F0F_0F0F,
            }),
            _ => Pattern::Counter((u64::from(self.seed) << 32) + self.pass),
        }
    }
}

/// Memory that is tested, and the log.
struct Ground {
    pieces: Vec<Span>,
    log: Block,
    bytes: u64,
    free: u64,
}

impl Ground {
    fn take(bench: &Bench<'_>, held: &Held<'_>) -> Result<Self, Stop> {
        let log = held.zeros(MARCH_LOG_BYTES)?;
        let free = bench.device.free_memory()?;
        let reserve = bench.scaled(RESERVE, 1024).min(free / 20);
        let smallest = bench.scaled(SMALLEST, 4096);
        let piece = bench.scaled(PIECE, 4096) / 16 * 16;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a part of the memory, roughly"
        )]
        let part = ((free - reserve) as f64 * bench.memory) as u64;
        // A part of little memory is no less than what is worth testing.
        let mut left = part.max(smallest.min(free - reserve)) / 4096 * 4096;
        let mut pieces = Vec::new();
        let mut ask = left;
        // One block where the driver has one; else what it has, in halves.
        while left >= smallest && ask >= smallest {
            match held.block(ask) {
                Ok(block) => {
                    let mut at = 0;
                    while at < block.bytes {
                        let bytes = piece.min(block.bytes - at);
                        pieces.push(block.part(at, bytes));
                        at += bytes;
                    }
                    left -= ask;
                    ask = ask.min(left);
                }
                Err(DeviceError::OutOfMemory { .. }) => ask = ask / 2 / 4096 * 4096,
                Err(error) => return Err(error.into()),
            }
        }
        let bytes = pieces.iter().map(|span| span.bytes).sum();
        if bytes == 0 {
            return Err(Stop::Device(DeviceError::OutOfMemory {
                wanted: smallest,
                of: "the GPU",
            }));
        }
        Ok(Self {
            pieces,
            log,
            bytes,
            free,
        })
    }

    /// One pass over all pieces.
    fn pass(
        &self,
        bench: &mut Bench<'_>,
        tally: &mut Tally,
        read: Option<Pattern>,
        write: Option<Pattern>,
        descending: bool,
    ) -> Result<(), Stop> {
        let mut order: Vec<(u64, Span)> = Vec::new();
        let mut base = 0;
        for &span in &self.pieces {
            order.push((base, span));
            base += span.bytes;
        }
        if descending {
            order.reverse();
        }
        for (base, span) in order {
            let work = Work::March {
                span,
                read,
                write,
                descending,
                log: self.log.all(),
            };
            let times = bench.run(&[work])?;
            let streams = u64::from(read.is_some()) + u64::from(write.is_some());
            let moved = span.bytes * streams * bench.device.scale().bytes;
            tally.rate(bench, moved, times.iter().sum());
            if read.is_some() {
                tally.phase.verified_bytes += span.bytes * bench.device.scale().bytes;
                self.look(bench, tally, base)?;
            }
        }
        Ok(())
    }

    /// Takes what the log has, and empties it.
    fn look(&self, bench: &mut Bench<'_>, tally: &mut Tally, base: u64) -> Result<(), Stop> {
        let mut count = [0; 8];
        bench.device.read(self.log.part(0, 8), &mut count)?;
        if count == [0; 8] {
            return Ok(());
        }
        let log = march_log(&bench.take(self.log.all())?);
        for error in &log.errors {
            let class = if is_transient(error) {
                CorruptionClass::ReadTransient
            } else {
                CorruptionClass::Stored
            };
            tally.corrupt(Corruption {
                offset: Some(base + error.offset),
                sm: u32::try_from(error.sm).ok(),
                iteration: Some(tally.phase.coverage.map_or(0, |coverage| coverage.passes)),
                ..bench.wrong_word(class, error)
            });
        }
        // What had no room counts, too.
        tally.phase.corruption_count += log.count - log.errors.len() as u64;
        if let Some(found) = analyse(&log.errors) {
            (bench.tell)(Progress::Found(format!("memory: {}", found.words())));
        }
        Ok(())
    }

    /// Plants what was asked for.
    fn inject(&self, bench: &Bench<'_>) -> Result<(), Stop> {
        for inject in bench.inject {
            let Inject::Memory { offset, bit } = *inject else {
                continue;
            };
            let mut base = 0;
            for &span in &self.pieces {
                if offset >= base && offset < base + span.bytes {
                    bench.flip(span, offset - base + u64::from(bit / 8), bit)?;
                }
                base += span.bytes;
            }
        }
        Ok(())
    }

    /// One more time all of it was tested.
    fn passed(&self, bench: &Bench<'_>, tally: &mut Tally) {
        let scale = bench.device.scale().bytes;
        let passes = tally.phase.coverage.map_or(0, |coverage| coverage.passes);
        let tested = tally.phase.coverage.map_or(0, |coverage| coverage.tested_bytes);
        tally.phase.coverage = Some(Coverage {
            tested_bytes: tested.max(self.bytes * scale),
            free_bytes: self.free * scale,
            passes: passes + 1,
        });
    }
}

impl Exercise for March {
    fn work(&mut self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let end = bench.pace.elapsed() + time;
        let held = Held::on(bench.device);
        let ground = Ground::take(bench, &held)?;
        loop {
            let start = bench.pace.elapsed();
            let pattern = self.pattern();
            let turned = pattern.complement();
            // All of the memory lies between a write and its read: far more than the caches hold.
            ground.pass(bench, tally, None, Some(pattern), false)?;
            ground.inject(bench)?;
            ground.pass(bench, tally, Some(pattern), Some(turned), false)?;
            ground.pass(bench, tally, Some(turned), None, true)?;
            self.pass += 1;
            ground.passed(bench, tally);
            // Another one would end as near to the end as this one does, or farther from it.
            let now = bench.pace.elapsed();
            if now + now.saturating_sub(start) / 2 >= end {
                return Ok(());
            }
        }
    }
}

/// Patterns that are left alone for a while.
#[derive(Debug)]
pub(crate) struct BitFade {
    seed: u32,
}

impl BitFade {
    pub(crate) fn new(seed: u32) -> Self {
        Self { seed }
    }
}

impl Exercise for BitFade {
    fn work(&mut self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let held = Held::on(bench.device);
        let ground = Ground::take(bench, &held)?;
        for pattern in [
            Pattern::Counter(self.seed.into()),
            Pattern::CounterComplement(self.seed.into()),
        ] {
            ground.pass(bench, tally, None, Some(pattern), false)?;
            ground.inject(bench)?;
            bench.rest(time / 2)?;
            ground.pass(bench, tally, Some(pattern), None, false)?;
            ground.passed(bench, tally);
        }
        Ok(())
    }
}
