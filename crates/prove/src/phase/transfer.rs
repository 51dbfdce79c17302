//! Between host and GPU, from pinned memory by the copy engines, with a comparison of what arrived.

use std::time::Duration;

use pitcrew_core::proof::{Bits, Corruption, CorruptionClass, PhaseKind};

use super::Exercise;
use super::tally::Tally;
use crate::bench::{Bench, Held, Stop, batch_of, gated};
use crate::device::{HostBlock, MARCH_LOG_BYTES, Pattern, Span, Work};
use crate::inject::Inject;
use crate::progress::Progress;
use crate::verify::records::{march_log, word};

/// Each buffer, of the card's host: two of them are half of what a run may pin.
const BUFFER: u64 = 64 << 20;

/// Copies in one direction, or both.
#[derive(Debug)]
pub(crate) struct Transfer {
    kind: PhaseKind,
    seed: u32,
}

impl Transfer {
    pub(crate) fn new(kind: PhaseKind, seed: u32) -> Self {
        Self { kind, seed }
    }
}

/// Buffers of a transfer.
struct Set {
    /// Host memory that is sent.
    out: HostBlock,
    /// Host memory that is received.
    back: HostBlock,
    /// Device memory that is received.
    to: Span,
    /// Device memory that is sent.
    from: Span,
    log: Span,
    pattern: Pattern,
    /// The pattern as bytes.
    bytes: Vec<u8>,
}

impl Set {
    fn new(bench: &mut Bench<'_>, held: &Held<'_>, seed: u32) -> Result<Self, Stop> {
        let size = bench.scaled(BUFFER, 4096) / 4096 * 4096;
        let pattern = Pattern::Counter(seed.into());
        let bytes: Vec<u8> = (0..size / 8)
            .flat_map(|index| pattern.word(index).to_le_bytes())
            .collect();
        let set = Self {
            out: held.host(size)?,
            back: held.host(size)?,
            to: held.block(size)?.all(),
            from: held.block(size)?.all(),
            log: held.zeros(MARCH_LOG_BYTES)?.all(),
            pattern,
            bytes,
        };
        bench.device.write_host(set.out, 0, &set.bytes)?;
        let fill = set.march(set.from, None, Some(pattern));
        bench.run(&[fill])?;
        Ok(set)
    }

    fn march(&self, span: Span, read: Option<Pattern>, write: Option<Pattern>) -> Work {
        Work::March {
            span,
            read,
            write,
            descending: false,
            log: self.log,
        }
    }

    /// What the device has received, by the device itself.
    fn check_device(&self, bench: &mut Bench<'_>, tally: &mut Tally) -> Result<(), Stop> {
        for inject in bench.inject {
            if let Inject::Transfer { offset, bit } = *inject {
                bench.flip(self.to, offset, bit)?;
            }
        }
        bench.run(&[self.march(self.to, Some(self.pattern), None)])?;
        let log = march_log(&bench.take(self.log)?);
        tally.phase.verified_bytes += self.to.bytes * bench.device.scale().bytes;
        for error in &log.errors {
            tally.corrupt(bench.wrong_word(CorruptionClass::Transfer, error));
        }
        tally.phase.corruption_count += log.count - log.errors.len() as u64;
        if log.count > 0 {
            (bench.tell)(Progress::Found(format!(
                "host to device: {} words arrived otherwise than they were sent",
                log.count
            )));
        }
        Ok(())
    }

    /// What the host has received.
    fn check_host(&self, bench: &mut Bench<'_>, tally: &mut Tally) -> Result<(), Stop> {
        let mut received = vec![0; self.bytes.len()];
        bench.device.read_host(self.back, 0, &mut received)?;
        for inject in bench.inject {
            if let Inject::Transfer { offset, bit } = *inject
                && let Some(byte) = usize::try_from(offset).ok().and_then(|at| received.get_mut(at))
            {
                *byte ^= 1 << (bit % 8);
            }
        }
        tally.phase.verified_bytes += received.len() as u64 * bench.device.scale().bytes;
        let before = tally.phase.corruption_count;
        if received != self.bytes {
            let pairs = self.bytes.chunks_exact(8).zip(received.chunks_exact(8));
            for (place, (expected, got)) in (0_u64..).zip(pairs).filter(|(_, (sent, got))| sent != got) {
                tally.corrupt(Corruption {
                    offset: Some(place * 8),
                    expected: Some(Bits(word(expected))),
                    got: Some(Bits(word(got))),
                    ..bench.corruption(CorruptionClass::Transfer)
                });
            }
            (bench.tell)(Progress::Found(format!(
                "device to host: {} words arrived otherwise than they were sent",
                tally.phase.corruption_count - before
            )));
        }
        // What isn't received again must not look right.
        bench.device.write_host(self.back, 0, &vec![0; received.len()])?;
        Ok(())
    }
}

impl Exercise for Transfer {
    fn work(&mut self, bench: &mut Bench<'_>, time: Duration, tally: &mut Tally) -> Result<(), Stop> {
        let end = bench.pace.elapsed() + time;
        let held = Held::on(bench.device);
        let set = Set::new(bench, &held, self.seed)?;
        let down = Work::ToDevice {
            from: set.out,
            to: set.to,
        };
        let up = Work::ToHost {
            from: set.from,
            to: set.back,
        };
        let bytes = set.to.bytes * bench.device.scale().bytes;
        let mut count = 1;
        loop {
            let moved = bytes * count as u64;
            let sum = |times: &[Duration]| times.iter().skip(1).sum::<Duration>();
            let took = match self.kind {
                PhaseKind::HostToDevice => {
                    let took = sum(&bench.in_lane(|bench| bench.run(&gated(down, count)))?);
                    tally.rate(bench, moved, took);
                    took
                }
                PhaseKind::DeviceToHost => {
                    let took = sum(&bench.in_lane(|bench| bench.run(&gated(up, count)))?);
                    tally.rate(bench, moved, took);
                    took
                }
                _ => {
                    let [first, second] =
                        bench.in_lane(|bench| bench.run_beside(&gated(down, count), &gated(up, count)))?;
                    let took = sum(&first).max(sum(&second));
                    tally.rate(bench, 2 * moved, took);
                    took
                }
            };
            count = batch_of(took / u32::try_from(count).unwrap_or(1), 1024);
            if bench.pace.elapsed() >= end {
                break;
            }
        }
        if self.kind != PhaseKind::DeviceToHost {
            set.check_device(bench, tally)?;
        }
        if self.kind != PhaseKind::HostToDevice {
            set.check_host(bench, tally)?;
        }
        Ok(())
    }
}
