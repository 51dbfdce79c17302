//! Each kind of work, done by the CPU, and how long it would take on the card.

use std::sync::Arc;
use std::time::Duration;

use super::arithmetic::{Tile, decode, flip, strikes};
use super::memory::index;
use super::{Ailment, Fault, LOOP, StandIn, TILE, lock};
use crate::device::{
    DeviceError, Format, GEMM_RECORD_BYTES, Gemm, LOOP_RECORD_BYTES, LOOP_WARPS, MARCH_LOG_BYTES,
    MARCH_LOG_ENTRIES, Output, Pattern, RECOMPUTE_LOG_BYTES, RECOMPUTE_LOG_ENTRIES, Span, Variant, Work,
};
use crate::operands::{mix, operand};
use crate::verify::golden::{accumulator_bits, lane_hash};
use crate::verify::operand::{encode, encode_output};

/// Operands, and what they make.
#[derive(Debug)]
pub(super) struct Product {
    key: (Format, [u32; 4], Vec<u8>, Vec<u8>),
    tiles: Vec<Tile>,
    checksums: Vec<u32>,
}

impl StandIn {
    pub(super) fn do_work(&self, work: &Work) -> Result<Duration, DeviceError> {
        let rates = self.description.rates;
        let scale = self.scale;
        let moving = |bytes: u64, rate: f64| self.jitter(approximate(bytes * scale.bytes) / rate);
        Ok(match *work {
            Work::Operands {
                to,
                format,
                rows,
                k,
                seed,
            } => {
                self.operands(to, format, rows, k, seed)?;
                moving(to.bytes, rates.memory)
            }
            Work::March {
                span,
                read,
                write,
                descending: _,
                log,
            } => {
                let streams = u64::from(read.is_some()) + u64::from(write.is_some());
                self.march(span, read, write, log)?;
                moving(span.bytes * streams, rates.memory)
            }
            Work::Copy { from, to } => {
                let bytes = self.memory().read(from)?.to_vec();
                self.memory().write(to, &bytes)?;
                moving(2 * from.bytes, rates.memory)
            }
            Work::Triad { a, b, c } => {
                self.triad(a, b, c)?;
                moving(3 * a.bytes, rates.memory)
            }
            Work::ReadCached { from, passes, sum } => {
                let total = {
                    let memory = self.memory();
                    let words = memory.read(from)?.chunks_exact(8).map(word);
                    words.fold(0_u64, u64::wrapping_add).wrapping_mul(passes.into())
                };
                self.memory().write(sum, &total.to_le_bytes())?;
                moving(from.bytes * u64::from(passes), rates.cache)
            }
            Work::MmaLoop {
                variant,
                format,
                rounds,
                ctas,
                seed,
                records,
                fault,
            } => self.mma_loop(variant, format, [rounds, ctas, seed], records, fault)?,
            Work::Gemm(gemm) => self.gemm(&gemm)?,
            Work::Recompute {
                gemm,
                tile,
                avoid_sm,
                log,
                ..
            } => {
                self.recompute(&gemm, tile, avoid_sm, log)?;
                let operations = 2 * u64::from(TILE * TILE) * u64::from(gemm.k);
                self.jitter(approximate(operations * scale.operations) / rates.single)
            }
            Work::ToDevice { from, to } => {
                let mut bytes = vec![0; index(to.bytes)];
                self.read_from_host(from, &mut bytes)?;
                self.memory().write(to, &bytes)?;
                moving(to.bytes, rates.host)
            }
            Work::ToHost { from, to } => {
                let bytes = self.memory().read(from)?.to_vec();
                self.write_to_host(to, &bytes)?;
                moving(from.bytes, rates.host)
            }
            Work::ToPeer { from, to, peer } => {
                let bytes = self.memory().read(from)?.to_vec();
                lock(&*self.memory_of(peer)?).write(to, &bytes)?;
                moving(from.bytes, rates.peer.unwrap_or(rates.host))
            }
            Work::FromPeer { from, to, peer } => {
                let bytes = lock(&*self.memory_of(peer)?).read(from)?.to_vec();
                self.memory().write(to, &bytes)?;
                moving(from.bytes, rates.peer.unwrap_or(rates.host))
            }
            Work::Spin { nanoseconds } => Duration::from_nanos(nanoseconds),
        })
    }

    fn operands(&self, to: Span, format: Format, rows: u32, k: u32, seed: u32) -> Result<(), DeviceError> {
        let size = index(format.operand_bytes());
        let mut bytes = Vec::with_capacity(index(to.bytes));
        for row in 0..rows {
            for place in 0..k {
                let word = encode(format, operand(format, seed, row, place)).to_le_bytes();
                bytes.extend_from_slice(&word[..size]);
            }
        }
        self.memory().write(to, &bytes)
    }

    fn march(
        &self,
        span: Span,
        read: Option<Pattern>,
        write: Option<Pattern>,
        log: Span,
    ) -> Result<(), DeviceError> {
        let pass = self.passes.get();
        self.passes.set(pass + 1);
        let misread = self
            .ailments(|ailment| match *ailment {
                Ailment::MisreadOnce { pass: at, word, bit } if at == pass => Some((word, 1_u64 << bit)),
                _ => None,
            })
            .next();
        let mut memory = self.memory();
        if let Some(pattern) = read {
            let mut errors = Vec::new();
            for (index, bytes) in (0..).zip(memory.read(span)?.chunks_exact(8)) {
                let (expected, second) = (pattern.word(index), word(bytes));
                let got = match misread {
                    Some((at, mask)) if at == index => second ^ mask,
                    _ => second,
                };
                if got != expected {
                    let sm = index % u64::from(self.description.facts.sms.max(1));
                    errors.push([index * 8, expected, got, second, sm]);
                }
            }
            if !errors.is_empty() {
                let log = log.block.part(log.offset, MARCH_LOG_BYTES);
                let mut bytes = memory.read(log)?.to_vec();
                let mut count = word(&bytes[..8]);
                for error in errors {
                    if count < MARCH_LOG_ENTRIES {
                        let at = 8 + index(count) * 40;
                        let entry: Vec<u8> = error.iter().flat_map(|word| word.to_le_bytes()).collect();
                        bytes[at..at + 40].copy_from_slice(&entry);
                    }
                    count += 1;
                }
                bytes[..8].copy_from_slice(&count.to_le_bytes());
                memory.write(log, &bytes)?;
            }
        }
        if let Some(pattern) = write {
            memory.fill(span, |index| pattern.word(index))?;
        }
        Ok(())
    }

    fn triad(&self, a: Span, b: Span, c: Span) -> Result<(), DeviceError> {
        let mut memory = self.memory();
        let single = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap_or_default());
        let pairs = memory
            .read(b)?
            .chunks_exact(4)
            .zip(memory.read(c)?.chunks_exact(4));
        let sums = pairs.flat_map(|(b, c)| (single(b) + 3.0 * single(c)).to_le_bytes());
        let sums: Vec<u8> = sums.collect();
        memory.write(a, &sums)
    }

    fn read_from_host(&self, from: crate::device::HostBlock, bytes: &mut [u8]) -> Result<(), DeviceError> {
        crate::device::Device::read_host(self, from, 0, bytes)?;
        self.spoil_transfer(bytes);
        Ok(())
    }

    fn write_to_host(&self, to: crate::device::HostBlock, bytes: &[u8]) -> Result<(), DeviceError> {
        crate::device::Device::write_host(self, to, 0, bytes)
    }

    fn spoil_transfer(&self, bytes: &mut [u8]) {
        let bits = self.ailments(|ailment| match ailment {
            Ailment::BadTransfer { bit } => Some(*bit),
            _ => None,
        });
        for bit in bits {
            if let Some(first) = bytes.first_mut() {
                *first ^= 1 << bit;
            }
        }
    }

    /// What the SM does to one accumulator of the work that is the `turn`th.
    fn strikes_of(&self, fault: Fault, sm: u32, place: u32, turn: u64) -> Vec<u32> {
        let bad = self.ailments(|ailment| match *ailment {
            Ailment::BadSm { sm: bad, bit, every }
                if bad == sm && turn.is_multiple_of(u64::from(every.max(1))) =>
            {
                Some(bit)
            }
            _ => None,
        });
        bad.chain(strikes(fault, sm, place)).collect()
    }

    fn is_broken(&self, variant: Variant) -> bool {
        self.description
            .ailments
            .contains(&Ailment::BrokenVariant(variant))
    }

    fn mma_loop(
        &self,
        variant: Variant,
        format: Format,
        [rounds, ctas, seed]: [u32; 3],
        records: Span,
        fault: Fault,
    ) -> Result<Duration, DeviceError> {
        let turn = self.loops.get();
        self.loops.set(turn + 1);
        let sms = self.description.facts.sms.max(1);
        let values = loop_values(format, seed);
        let well: Vec<u64> = (0..LOOP.warps)
            .map(|warp| warp_hash(format, &values, warp, rounds, &[]))
            .collect();
        let operations = LOOP.operations() * u64::from(rounds) * u64::from(ctas);
        let rate = self.description.rates.of(format).unwrap_or(1.0);
        let time = self.jitter(approximate(operations * self.scale.operations) / rate);
        let start = self.elapsed.get().as_nanos();
        let mut bytes = Vec::with_capacity(index(records.bytes));
        for cta in 0..ctas {
            let sm = cta % sms;
            let mut words = [0_u64; LOOP_WARPS + 4];
            for warp in 0..LOOP.warps {
                let mut bits = self.strikes_of(fault, sm, warp, turn);
                if warp > 0 {
                    // A bad SM has one bad sub-core.
                    bits = strikes(fault, sm, warp).into_iter().collect();
                }
                if self.is_broken(variant) {
                    bits.push(20);
                }
                let at = index(u64::from(warp));
                words[at] = match bits.as_slice() {
                    [] => well[at],
                    bits => warp_hash(format, &values, warp, rounds, bits),
                };
            }
            let slow = self.ailments(|ailment| match *ailment {
                Ailment::SlowSm { sm: slow, factor } if slow == sm => Some(factor),
                _ => None,
            });
            let nanoseconds = time.mul_f64(slow.fold(1.0, f64::max)).as_nanos();
            words[LOOP_WARPS] = sm.into();
            words[LOOP_WARPS + 1] = u64::try_from(start).unwrap_or_default();
            words[LOOP_WARPS + 2] = u64::try_from(start + nanoseconds).unwrap_or_default();
            words[LOOP_WARPS + 3] = cycles(nanoseconds, self.description.rates.clock_mhz);
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        debug_assert_eq!(bytes.len() as u64, LOOP_RECORD_BYTES * u64::from(ctas));
        self.memory().write(records, &bytes)?;
        Ok(time)
    }

    /// All tiles as the operands in memory have them; computed anew when those have changed.
    fn tiles(&self, gemm: &Gemm) -> Result<Arc<Product>, DeviceError> {
        let (a, b) = {
            let memory = self.memory();
            (memory.read(gemm.a)?.to_vec(), memory.read(gemm.b)?.to_vec())
        };
        let key = (gemm.format, [gemm.m, gemm.n, gemm.k, gemm.weight_seed], a, b);
        if let Some(known) = self.product.borrow().as_ref()
            && known.key == key
        {
            return Ok(Arc::clone(known));
        }
        let count = (gemm.m / TILE) * (gemm.n / TILE);
        let tiles: Vec<Tile> = (0..count)
            .map(|tile| self.tile(gemm, tile))
            .collect::<Result<_, _>>()?;
        let product = Arc::new(Product {
            checksums: tiles.iter().map(|tile| tile.checksum(gemm.weight_seed)).collect(),
            tiles,
            key,
        });
        *self.product.borrow_mut() = Some(Arc::clone(&product));
        Ok(product)
    }

    /// A tile as the operands in memory have it.
    fn tile(&self, gemm: &Gemm, tile: u32) -> Result<Tile, DeviceError> {
        let across = gemm.n / TILE;
        let (row, column) = (tile / across * TILE, tile % across * TILE);
        let memory = self.memory();
        let size = gemm.format.operand_bytes();
        let rows = |span: Span, first: u32| -> Result<Vec<f64>, DeviceError> {
            let of_row = u64::from(gemm.k) * size;
            let part = span
                .block
                .part(span.offset + u64::from(first) * of_row, u64::from(TILE) * of_row);
            let bytes = memory.read(part)?;
            Ok(bytes
                .chunks_exact(index(size))
                .map(|bytes| decode(gemm.format, bytes))
                .collect())
        };
        let (a, b) = (rows(gemm.a, row)?, rows(gemm.b, column)?);
        let k = index(gemm.k.into());
        let mut values = Vec::with_capacity(index(u64::from(TILE * TILE)));
        for a in a.chunks_exact(k) {
            for b in b.chunks_exact(k) {
                values.push(a.iter().zip(b).map(|(a, b)| a * b).sum());
            }
        }
        Ok(Tile {
            row,
            column,
            columns: TILE,
            values,
        })
    }

    fn gemm(&self, gemm: &Gemm) -> Result<Duration, DeviceError> {
        let turn = self.gemms.get();
        self.gemms.set(turn + 1);
        self.spoil_operands(gemm)?;
        let tiles = (gemm.m / TILE) * (gemm.n / TILE);
        let sms = self.description.facts.sms.max(1);
        let mut records = Vec::with_capacity(index(GEMM_RECORD_BYTES * u64::from(tiles)));
        let product = self.tiles(gemm)?;
        let pairs = product.tiles.iter().zip(&product.checksums);
        for (number, (tile, &right)) in (0_u32..).zip(pairs) {
            let sm = (number.wrapping_add(gemm.rotation) % tiles.max(1)) % sms;
            let mut bits = self.strikes_of(gemm.fault, sm, number, turn);
            bits.extend(self.ailments(|ailment| match *ailment {
                Ailment::FlipOnce { gemm, tile, bit } if gemm == turn && tile == number => Some(bit),
                _ => None,
            }));
            let mut checksum = right;
            let is_broken = self.is_broken(gemm.variant);
            if bits.is_empty() && !is_broken {
                self.store(gemm, tile)?;
            } else {
                let mut tile = tile.clone();
                for bit in bits {
                    tile.values[0] = flip(gemm.format, tile.values[0], bit);
                }
                if is_broken {
                    tile.values.fill(1.0);
                }
                checksum = tile.checksum(gemm.weight_seed);
                self.store(gemm, &tile)?;
            }
            records.extend(checksum.to_le_bytes());
            records.extend(sm.to_le_bytes());
        }
        self.memory().write(gemm.records, &records)?;
        let rate = self.description.rates.of(gemm.format).unwrap_or(1.0);
        let operations = 2 * u64::from(gemm.m) * u64::from(gemm.n) * u64::from(gemm.k);
        Ok(self.jitter(approximate(operations * self.scale.operations) / rate))
    }

    /// Bad memory under operands shows from the moment on when they are used.
    fn spoil_operands(&self, gemm: &Gemm) -> Result<(), DeviceError> {
        if gemm.m < self.scale.edge {
            // A self-test's small ones lie elsewhere.
            return Ok(());
        }
        let bad = self.ailments(|ailment| match *ailment {
            Ailment::BadOperand { of_b, row, k, bit } => Some((of_b, row, k, bit)),
            _ => None,
        });
        for (of_b, row, k, bit) in bad {
            let span = if of_b { gemm.b } else { gemm.a };
            let place = u64::from(row) * u64::from(gemm.k) + u64::from(k);
            let at = span.offset + place * gemm.format.operand_bytes() + u64::from(bit / 8);
            let mut memory = self.memory();
            let address = span.block.id + at;
            let value = memory.read(span.block.part(at, 1))?[0] >> (bit % 8) & 1 == 0;
            let bit = u8::try_from(bit % 8).unwrap_or_default();
            memory.stick_once(super::Stuck { address, bit, value });
        }
        Ok(())
    }

    fn store(&self, gemm: &Gemm, tile: &Tile) -> Result<(), DeviceError> {
        let size = Output::of(gemm.format).bytes();
        let mut memory = self.memory();
        for (row, values) in (tile.row..).zip(tile.values.chunks_exact(index(TILE.into()))) {
            let first = u64::from(row) * u64::from(gemm.n) + u64::from(tile.column);
            let mut bytes = Vec::with_capacity(index(size * u64::from(TILE)));
            for (value, number) in values.iter().zip(first..) {
                let mut word = encode_output(Output::of(gemm.format), whole(*value)).to_le_bytes();
                for (at, bit) in self.ailments(|ailment| match *ailment {
                    Ailment::BadOutput { index, bit } => Some((index, bit)),
                    _ => None,
                }) {
                    if at == number {
                        word[0] ^= 1 << bit;
                    }
                }
                bytes.extend_from_slice(&word[..index(size)]);
            }
            let part = gemm
                .c
                .block
                .part(gemm.c.offset + first * size, bytes.len() as u64);
            memory.write(part, &bytes)?;
        }
        Ok(())
    }

    fn recompute(&self, gemm: &Gemm, number: u32, avoid: Option<u32>, log: Span) -> Result<(), DeviceError> {
        let tile = self.tile(gemm, number)?;
        let sms = self.description.facts.sms.max(1);
        let sm = (0..sms).find(|sm| Some(*sm) != avoid).unwrap_or(0);
        let size = Output::of(gemm.format).bytes();
        let mut bytes = vec![0; index(RECOMPUTE_LOG_BYTES)];
        let mut count = 0_u32;
        let mut memory = self.memory();
        for (i, value) in (0..).zip(&tile.values) {
            let (row, column) = tile.place(i);
            let at = (u64::from(row) * u64::from(gemm.n) + u64::from(column)) * size;
            let got = word(memory.read(gemm.c.block.part(gemm.c.offset + at, size))?);
            let expected = encode_output(Output::of(gemm.format), whole(*value));
            if got == expected {
                continue;
            }
            if u64::from(count) < RECOMPUTE_LOG_ENTRIES {
                let at = 16 + index(count.into()) * 24;
                let place = u64::from(row) | u64::from(column) << 32;
                for (slot, word) in bytes[at..at + 24].chunks_exact_mut(8).zip([place, expected, got]) {
                    slot.copy_from_slice(&word.to_le_bytes());
                }
            }
            count += 1;
        }
        let checksum = tile.checksum(gemm.weight_seed);
        for (slot, word) in bytes.chunks_exact_mut(4).zip([count, checksum, sm]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        memory.write(log, &bytes)
    }
}

/// The loop's tile.
fn loop_values(format: Format, seed: u32) -> Vec<i32> {
    let mut values = Vec::new();
    for row in 0..LOOP.rows {
        for column in 0..LOOP.columns {
            let products = (0..LOOP.k).map(|k| {
                i32::from(operand(format, seed, row, k)) * i32::from(operand(format, mix(seed), column, k))
            });
            let sum: i32 = products.sum();
            values.push(sum * LOOP.repeats.cast_signed());
        }
    }
    values
}

/// The hash of a warp of which lane 0's register 0 has bits flipped.
fn warp_hash(format: Format, values: &[i32], warp: u32, rounds: u32, flipped: &[u32]) -> u64 {
    let of_lane = |lane: u32| {
        let of_register = |register: u32| {
            let (row, column) = (LOOP.place)(warp, lane, register);
            let value = values[index(u64::from(row * LOOP.columns + column))];
            let bits = accumulator_bits(format, value.into());
            let flips = if (lane, register) == (0, 0) { flipped } else { &[] };
            flips.iter().fold(bits, |bits, bit| bits ^ 1 << (bit % 64))
        };
        lane_hash(
            warp,
            lane,
            rounds,
            &(0..LOOP.registers).map(of_register).collect::<Vec<_>>(),
        )
    };
    (0..32).map(of_lane).fold(0, |hash, lane| hash ^ lane)
}

/// A value as it is rounded for the encoder of outputs.
#[expect(
    clippy::cast_possible_truncation,
    reason = "saturates, as a conversion of the GPU does"
)]
fn whole(value: f64) -> i64 {
    value.round() as i64
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[expect(clippy::cast_precision_loss, reason = "times to a few figures")]
fn approximate(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "seconds of cycles are far below 2^53"
)]
fn cycles(nanoseconds: u128, clock_mhz: f64) -> u64 {
    (nanoseconds as f64 * clock_mhz / 1000.0) as u64
}
