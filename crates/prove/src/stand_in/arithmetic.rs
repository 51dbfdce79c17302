//! The stand-in's arithmetic: what a kernel does with operands, accumulators and checksums, in plain loops.

use crate::device::{Fault, Format};
use crate::operands::{column_weight_seed, row_weight_seed, weight};

/// An operand from its bytes in memory, also one that a bad bit has made of it.
pub(super) fn decode(format: Format, bytes: &[u8]) -> f64 {
    let word = bytes
        .iter()
        .rev()
        .fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
    let [low, high, third, fourth, ..] = word.to_le_bytes();
    let half = u16::from_le_bytes([low, high]);
    match format {
        Format::Int8 => f64::from(low.cast_signed()),
        Format::Bf16 => f64::from(f32::from_bits(u32::from(half) << 16)),
        Format::Fp16 => small_float(u32::from(half), 5, 10),
        Format::Fp8 => small_float(u32::from(low), 4, 3),
        Format::Tf32 | Format::Fp32 => {
            f64::from(f32::from_bits(u32::from_le_bytes([low, high, third, fourth])))
        }
        Format::Fp64 => f64::from_bits(word),
    }
}

/// A float of few bits. Infinities and NaN are large numbers here, as e4m3 has them.
fn small_float(bits: u32, exponent_bits: u32, mantissa_bits: u32) -> f64 {
    let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    let exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    let offset = (1 << (exponent_bits - 1)) - 1;
    let magnitude = if exponent == 0 {
        mantissa * 2_f64.powi(1 - offset)
    } else {
        (1.0 + mantissa) * 2_f64.powi(exponent.cast_signed() - offset)
    };
    if bits >> (mantissa_bits + exponent_bits) & 1 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

/// An accumulator with one bit flipped.
#[expect(clippy::cast_possible_truncation, reason = "accumulators are f32 or s32")]
pub(super) fn flip(format: Format, value: f64, bit: u32) -> f64 {
    match format {
        Format::Fp64 => f64::from_bits(value.to_bits() ^ 1 << (bit % 64)),
        Format::Int8 => f64::from(value as i32 ^ 1 << (bit % 32)),
        _ => f64::from(f32::from_bits((value as f32).to_bits() ^ 1 << (bit % 32))),
    }
}

/// The accumulator as a 32-bit integer; what is none spoils the checksum.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    reason = "modulo 2^32 is what is wanted; integers are exact"
)]
fn integer(value: f64) -> u32 {
    let rounded = value.round();
    let low = rounded as i64 as u32;
    if rounded == value {
        low
    } else {
        low.wrapping_add(1)
    }
}

/// A tile: where it begins in C, and its values row by row.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    pub(super) row: u32,
    pub(super) column: u32,
    pub(super) columns: u32,
    pub(super) values: Vec<f64>,
}

impl Tile {
    /// Row and column in C of a value.
    pub(super) fn place(&self, index: u32) -> (u32, u32) {
        (
            self.row + index / self.columns,
            self.column + index % self.columns,
        )
    }

    pub(super) fn checksum(&self, weight_seed: u32) -> u32 {
        let (rows, columns) = (row_weight_seed(weight_seed), column_weight_seed(weight_seed));
        (0..).zip(&self.values).fold(0, |sum: u32, (index, &value)| {
            let (row, column) = self.place(index);
            let weights = weight(rows, row).wrapping_mul(weight(columns, column));
            sum.wrapping_add(weights.wrapping_mul(integer(value)))
        })
    }
}

/// Where a planted fault strikes, its bit.
pub(super) fn strikes(fault: Fault, sm: u32, place: u32) -> Option<u32> {
    let here = fault.sm.is_none_or(|wanted| wanted == sm) && fault.place.is_none_or(|wanted| wanted == place);
    fault.bit.filter(|_| here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::operand::encode;

    #[test]
    fn operands_are_read_as_they_are_written() {
        for &format in Format::ALL {
            let limit = i8::try_from(crate::operands::operand_limit(format)).unwrap();
            for operand in -limit..=limit {
                let bytes = encode(format, operand).to_le_bytes();
                let size = usize::try_from(format.operand_bytes()).unwrap();
                let read = decode(format, &bytes[..size]);
                assert!(
                    (read - f64::from(operand)).abs() < f64::EPSILON,
                    "{format} {operand}: {read}"
                );
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_another_value_that_spoils_the_checksum() {
        let tile = |value| Tile {
            row: 8,
            column: 16,
            columns: 2,
            values: vec![1.0, value, 3.0, 4.0],
        };
        let right = tile(1000.0).checksum(5);
        for bit in 0..32 {
            let wrong = flip(Format::Bf16, 1000.0, bit);
            assert_ne!(tile(wrong).checksum(5), right, "bit {bit}: {wrong}");
        }
    }
}
