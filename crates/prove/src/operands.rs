//! Operands and weights: pure functions of a seed and a place, the same on a GPU and on the CPU.

use crate::device::Format;

/// Multiplier of rows, and of indices of weights.
pub const ROW_STEP: u32 = 0x9E37_79B1;
/// Multiplier of places along K.
pub const K_STEP: u32 = 0x85EB_CA77;

/// Spreads the bits of a number over all others: the finalizer of `MurmurHash3`, a bijection.
pub const fn mix(number: u32) -> u32 {
    let mut x = number;
    x ^= x >> 16;
    x = x.wrapping_mul(0x85EB_CA6B);
    x ^= x >> 13;
    x = x.wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

/// Largest absolute operand of a format.
///
/// 127 keeps bf16's 8 significant bits and lets a mantissa toggle. FP8 (e4m3) is held to 2, as Hopper's tensor cores add
/// up FP8 products in about 14 bits.
pub const fn operand_limit(format: Format) -> u32 {
    match format {
        Format::Fp8 => 2,
        Format::Bf16 | Format::Fp16 | Format::Tf32 | Format::Fp32 | Format::Fp64 | Format::Int8 => 127,
    }
}

/// The number at `row` and `k` of the matrix with this seed, uniform in `-limit..=limit` of the format.
///
/// In full: `h = mix(mix(seed ^ row * ROW_STEP) ^ k * K_STEP)`, then `(h >> 16) * (2 * limit + 1) >> 16` less the limit,
/// all in 32 bits. With K up to 8192 no sum of products comes near 2^24 (34 standard deviations), so that f32 holds it.
pub const fn operand(format: Format, seed: u32, row: u32, k: u32) -> i8 {
    operand_in_row(format, row_key(seed, row), k)
}

/// What all operands of one row share: `mix(seed ^ row * ROW_STEP)`.
pub const fn row_key(seed: u32, row: u32) -> u32 {
    mix(seed ^ row.wrapping_mul(ROW_STEP))
}

/// [`operand`] for a row's [`row_key`].
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "limits are at most 127"
)]
pub const fn operand_in_row(format: Format, row_key: u32, k: u32) -> i8 {
    let limit = operand_limit(format);
    let hash = mix(row_key ^ k.wrapping_mul(K_STEP));
    ((((hash >> 16) * (2 * limit + 1)) >> 16) as i32 - limit as i32) as i8
}

/// Seed of the weights of rows, beside that of columns, for one seed of a GEMM.
pub const fn row_weight_seed(seed: u32) -> u32 {
    mix(seed ^ 0x524F_5753)
}

/// Seed of the weights of columns.
pub const fn column_weight_seed(seed: u32) -> u32 {
    mix(seed ^ 0x434F_4C53)
}

/// The odd weight of row or column `index`: `mix(seed ^ index * ROW_STEP) | 1`. Odd, so that no flipped bit is lost
/// modulo 2^32.
pub const fn weight(seed: u32, index: u32) -> u32 {
    mix(seed ^ index.wrapping_mul(ROW_STEP)) | 1
}

/// The 64-bit word at `index` of the memory pattern with this seed: splitmix64 of `index ^ seed`.
pub const fn pattern_word(seed: u64, index: u64) -> u64 {
    let mut z = (index ^ seed).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_fill_their_range_evenly_and_have_no_bias() {
        for &format in Format::ALL {
            let limit = i32::try_from(operand_limit(format)).unwrap();
            let mut counts = vec![0_u32; usize::try_from(2 * limit + 1).unwrap()];
            let mut sum = 0_i64;
            for row in 0..256 {
                for k in 0..1024 {
                    let value = i32::from(operand(format, 7, row, k));
                    assert!(value.abs() <= limit, "{value}");
                    counts[usize::try_from(value + limit).unwrap()] += 1;
                    sum += i64::from(value);
                }
            }
            let even = 256.0 * 1024.0 / f64::from(2 * limit + 1);
            for count in counts {
                assert!(
                    (f64::from(count) / even - 1.0).abs() < 0.25,
                    "{format}: {count} of {even}"
                );
            }
            assert!(sum.abs() < 200_000, "{format}: {sum}");
        }
    }

    #[test]
    fn rows_and_seeds_differ() {
        let row = |seed, row| {
            (0..64)
                .map(|k| operand(Format::Bf16, seed, row, k))
                .collect::<Vec<_>>()
        };
        assert_ne!(row(1, 0), row(1, 1));
        assert_ne!(row(1, 0), row(2, 0));
    }

    #[test]
    fn values_that_a_kernel_must_give_too() {
        // Fixed points for whoever writes the same in another language.
        let first: Vec<i8> = (0..8).map(|k| operand(Format::Bf16, 0x1234_5678, 3, k)).collect();
        assert_eq!(first, [-57, -64, 106, 112, -90, -43, 37, 104]);
        assert_eq!(
            [weight(5, 0), weight(5, 1), weight(5, 2)],
            [0xCC0D_53CD, 0x74CD_84ED, 0x5655_552B]
        );
        assert_eq!(pattern_word(0, 0), 0xE220_A839_7B1D_CDAF);
    }
}
