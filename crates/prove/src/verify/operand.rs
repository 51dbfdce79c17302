//! Operands as they lie in memory.

use crate::device::{Format, Output};
use crate::operands::{operand_in_row, row_key};

/// An operand in memory that is not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongOperand {
    /// Row of A, or of B as it is stored.
    pub row: u32,
    /// Place along K.
    pub k: u32,
    /// What must be there, zero-extended.
    pub expected: u64,
    /// What is there.
    pub got: u64,
}

/// An operand as the format stores it, zero-extended; its bytes are the first of the little-endian word.
pub fn encode(format: Format, operand: i8) -> u64 {
    let single = f32::from(operand).to_bits();
    match format {
        Format::Int8 => u64::from(operand.cast_unsigned()),
        Format::Bf16 => u64::from(single >> 16),
        Format::Fp16 => match operand {
            0 => 0,
            _ => u64::from(
                ((single >> 31) << 15) | (((single >> 23 & 0xFF) - 112) << 10) | (single >> 13 & 0x3FF),
            ),
        },
        Format::Fp8 => match operand {
            0 => 0,
            _ => u64::from(((single >> 31) << 7) | (((single >> 23 & 0xFF) - 120) << 3) | (single >> 20 & 7)),
        },
        Format::Tf32 | Format::Fp32 => u64::from(single),
        Format::Fp64 => f64::from(operand).to_bits(),
    }
}

/// A value of C as it is stored, zero-extended.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "sums stay below 2^24, which all but bf16 hold exactly"
)]
pub fn encode_output(output: Output, value: i64) -> u64 {
    match output {
        Output::Bf16 => {
            // To the nearest, ties to even: what is above a half of the last place carries.
            let bits = (value as f32).to_bits();
            u64::from((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
        }
        Output::F32 => u64::from((value as f32).to_bits()),
        Output::S32 => u64::from((value as i32).cast_unsigned()),
        Output::F64 => (value as f64).to_bits(),
    }
}

/// Compares rows of operands, from `first_row` on, with what they must be.
pub fn check(format: Format, seed: u32, first_row: u32, k: u32, bytes: &[u8]) -> Vec<WrongOperand> {
    let size = usize::try_from(format.operand_bytes()).unwrap_or(1);
    let mut wrong = Vec::new();
    for (row, of_row) in (first_row..).zip(bytes.chunks_exact((size * k as usize).max(1))) {
        let key = row_key(seed, row);
        for (place, bytes) in (0..k).zip(of_row.chunks_exact(size)) {
            let got = bytes
                .iter()
                .rev()
                .fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
            let expected = encode(format, operand_in_row(format, key, place));
            if got != expected {
                wrong.push(WrongOperand {
                    row,
                    k: place,
                    expected,
                    got,
                });
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_are_encoded_as_the_formats_say() {
        for (format, operand, bits) in [
            (Format::Bf16, 1, 0x3F80),
            (Format::Bf16, -127, 0xC2FE),
            (Format::Fp16, 1, 0x3C00),
            (Format::Fp16, -2, 0xC000),
            (Format::Fp16, 127, 0x57F0),
            (Format::Fp8, 1, 0x38),
            (Format::Fp8, 2, 0x40),
            (Format::Fp8, -1, 0xB8),
            (Format::Int8, -1, 0xFF),
            (Format::Tf32, 3, 0x4040_0000),
            (Format::Fp64, -1, 0xBFF0_0000_0000_0000),
            (Format::Fp16, 0, 0),
            (Format::Fp8, 0, 0),
        ] {
            assert_eq!(encode(format, operand), bits, "{format} {operand}");
        }
    }

    #[test]
    fn bf16_results_are_rounded_to_the_nearest_even() {
        for (value, bits) in [
            (256, 0x4380),
            (257, 0x4380),
            (259, 0x4382),
            (258, 0x4381),
            (-257, 0xC380),
        ] {
            assert_eq!(encode_output(Output::Bf16, value), bits, "{value}");
        }
        assert_eq!(encode_output(Output::S32, -1), 0xFFFF_FFFF);
    }
}
