//! What must come out, computed by the CPU from the definition of the operands alone.

use std::num::NonZero;
use std::thread;

use crate::device::{Format, LoopShape};
use crate::operands::{
    column_weight_seed, mix, operand_in_row, pattern_word, row_key, row_weight_seed, weight,
};

/// What the checksums of a GEMM follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmShape {
    /// Format, which says how large operands are.
    pub format: Format,
    /// Rows of C.
    pub m: u32,
    /// Columns of C.
    pub n: u32,
    /// Length of the sums.
    pub k: u32,
    /// Rows of a tile.
    pub tile_rows: u32,
    /// Columns of a tile.
    pub tile_columns: u32,
    /// Seed of A's operands.
    pub seed_a: u32,
    /// Seed of B's operands.
    pub seed_b: u32,
    /// Seed of the weights.
    pub weight_seed: u32,
}

impl GemmShape {
    /// Tiles in one column of tiles, and in one row.
    pub const fn grid(&self) -> (u32, u32) {
        (
            self.m.div_ceil(self.tile_rows),
            self.n.div_ceil(self.tile_columns),
        )
    }

    /// Row and column of a tile in the grid of tiles.
    pub const fn place(&self, tile: u32) -> (u32, u32) {
        let across = self.grid().1;
        (tile / across, tile % across)
    }

    /// All values of C, row by row: each operand is made once.
    pub fn values(&self) -> Vec<i64> {
        let operands = |seed, rows| -> Vec<Vec<i32>> {
            let of_row = |row| {
                let key = row_key(seed, row);
                let operand = |k| i32::from(operand_in_row(self.format, key, k));
                (0..self.k).map(operand).collect()
            };
            (0..rows).map(of_row).collect()
        };
        let (a, b) = (operands(self.seed_a, self.m), operands(self.seed_b, self.n));
        let product = |a: &[i32], b: &[i32]| a.iter().zip(b).map(|(a, b)| i64::from(a * b)).sum();
        a.iter()
            .flat_map(|a| b.iter().map(move |b| product(a, b)))
            .collect()
    }

    /// The checksum of every tile, in the order of the records of a GEMM.
    ///
    /// The sum over a tile of `w(i) * v(j) * C(i, j)` is that over k of `sum of w(i) A(i, k)` times `sum of v(j) B(j,
    /// k)`: the effort of the operands, not of the products. Uses the cores that there are.
    pub fn checksums(&self) -> Vec<u32> {
        let (down, across) = self.grid();
        let rows = self.weighted(
            down,
            self.tile_rows,
            self.m,
            self.seed_a,
            row_weight_seed(self.weight_seed),
        );
        let columns = self.weighted(
            across,
            self.tile_columns,
            self.n,
            self.seed_b,
            column_weight_seed(self.weight_seed),
        );
        let mut sums = Vec::with_capacity(rows.len() * columns.len());
        for row in &rows {
            for column in &columns {
                let products = row.iter().zip(column);
                sums.push(products.fold(0_u32, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b))));
            }
        }
        sums
    }

    /// For each group of `height` rows of one operand the weighted sums along K.
    fn weighted(&self, groups: u32, height: u32, rows: u32, seed: u32, weight_seed: u32) -> Vec<Vec<u32>> {
        let one = |group: u32| {
            let mut sums = vec![0_u32; self.k as usize];
            for row in group * height..((group + 1) * height).min(rows) {
                let (key, weight) = (row_key(seed, row), weight(weight_seed, row));
                for (k, sum) in (0_u32..).zip(&mut sums) {
                    let operand = i32::from(operand_in_row(self.format, key, k)).cast_unsigned();
                    *sum = sum.wrapping_add(weight.wrapping_mul(operand));
                }
            }
            sums
        };
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let share = (groups as usize).div_ceil(cores).max(1);
        let all: Vec<u32> = (0..groups).collect();
        if u64::from(rows) * u64::from(self.k) < 1 << 20 {
            return all.into_iter().map(one).collect();
        }
        thread::scope(|scope| {
            let one = &one;
            let parts: Vec<_> = all
                .chunks(share)
                .map(|part| scope.spawn(move || part.iter().map(|&group| one(group)).collect::<Vec<_>>()))
                .collect();
            parts
                .into_iter()
                .flat_map(|part| match part.join() {
                    Ok(sums) => sums,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        })
    }
}

/// The seed of B's operands in a loop whose A has this seed.
pub const fn loop_seed_b(seed: u32) -> u32 {
    mix(seed)
}

/// The hash of every warp after a loop's rounds.
pub fn loop_hashes(format: Format, shape: &LoopShape, seed: u32, rounds: u32) -> Vec<u64> {
    let gemm = GemmShape {
        format,
        m: shape.rows,
        n: shape.columns,
        k: shape.k,
        tile_rows: shape.rows,
        tile_columns: shape.columns,
        seed_a: seed,
        seed_b: loop_seed_b(seed),
        weight_seed: 0,
    };
    let values = gemm.values();
    (0..shape.warps)
        .map(|warp| {
            (0..32)
                .map(|lane| {
                    let bits: Vec<u64> = (0..shape.registers)
                        .map(|register| {
                            let (row, column) = (shape.place)(warp, lane, register);
                            let value = values[(row * shape.columns + column) as usize];
                            accumulator_bits(format, value * i64::from(shape.repeats))
                        })
                        .collect();
                    lane_hash(warp, lane, rounds, &bits)
                })
                .fold(0, |hash, lane| hash ^ lane)
        })
        .collect()
}

/// The hash of one lane whose accumulators hold `bits` at the end of every round.
pub fn lane_hash(warp: u32, lane: u32, rounds: u32, bits: &[u64]) -> u64 {
    let mut hash = pattern_word(0, u64::from(warp * 32 + lane));
    for _ in 0..rounds {
        for bits in bits {
            hash = (hash ^ bits).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }
    hash
}

/// An integer as an accumulator of the format holds it, zero-extended.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "sums stay below 2^24, which every accumulator holds exactly"
)]
pub fn accumulator_bits(format: Format, value: i64) -> u64 {
    match format {
        Format::Int8 => u64::from((value as i32).cast_unsigned()),
        Format::Fp64 => (value as f64).to_bits(),
        Format::Bf16 | Format::Fp16 | Format::Tf32 | Format::Fp8 | Format::Fp32 => {
            u64::from((value as f32).to_bits())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(format: Format) -> GemmShape {
        GemmShape {
            format,
            m: 48,
            n: 32,
            k: 40,
            tile_rows: 16,
            tile_columns: 8,
            seed_a: 11,
            seed_b: 12,
            weight_seed: 13,
        }
    }

    /// The definition, product by product.
    fn plainly(shape: &GemmShape, tile: u32, flip: Option<(u32, u32, i64)>) -> u32 {
        let (down, across) = shape.place(tile);
        let mut sum = 0_u32;
        for row in down * shape.tile_rows..(down + 1) * shape.tile_rows {
            for column in across * shape.tile_columns..(across + 1) * shape.tile_columns {
                let mut value = value(shape, row, column);
                if let Some((r, c, mask)) = flip
                    && (r, c) == (row, column)
                {
                    value ^= mask;
                }
                let weights = weight(row_weight_seed(shape.weight_seed), row)
                    .wrapping_mul(weight(column_weight_seed(shape.weight_seed), column));
                let value = i32::try_from(value).unwrap().cast_unsigned();
                sum = sum.wrapping_add(weights.wrapping_mul(value));
            }
        }
        sum
    }

    /// One value of C, by the book.
    fn value(shape: &GemmShape, row: u32, column: u32) -> i64 {
        let (a, b) = (row_key(shape.seed_a, row), row_key(shape.seed_b, column));
        (0..shape.k)
            .map(|k| {
                i64::from(operand_in_row(shape.format, a, k)) * i64::from(operand_in_row(shape.format, b, k))
            })
            .sum()
    }

    #[test]
    fn all_values_are_those_of_each_place() {
        for &format in Format::ALL {
            let shape = shape(format);
            let places = (0..shape.m).flat_map(|row| (0..shape.n).map(move |column| (row, column)));
            let each: Vec<i64> = places.map(|(row, column)| value(&shape, row, column)).collect();
            assert_eq!(shape.values(), each, "{format}");
        }
    }

    #[test]
    fn checksums_are_those_of_the_definition() {
        for &format in Format::ALL {
            let shape = shape(format);
            let sums = shape.checksums();
            assert_eq!(sums.len(), 12);
            for (tile, sum) in (0..).zip(sums) {
                assert_eq!(sum, plainly(&shape, tile, None), "{format} tile {tile}");
            }
        }
    }

    #[test]
    fn large_ones_are_computed_by_several_cores_and_are_the_same() {
        let mut shape = shape(Format::Bf16);
        (shape.m, shape.k) = (1024, 1040);
        let sums = shape.checksums();
        for tile in [0, 100, 255] {
            assert_eq!(sums[tile as usize], plainly(&shape, tile, None));
        }
    }

    #[test]
    fn every_single_flipped_bit_changes_the_checksum() {
        let shape = shape(Format::Bf16);
        let sums = shape.checksums();
        for bit in 0..24 {
            for (row, column) in [(0, 0), (15, 7), (3, 5)] {
                assert_ne!(sums[0], plainly(&shape, 0, Some((row, column, 1 << bit))));
            }
        }
    }
}
