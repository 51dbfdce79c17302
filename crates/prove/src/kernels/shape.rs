//! How the kernels of a variant are shaped: what `kernels/*.cuh` say, for those who launch them and who check them.

use crate::device::{Format, LoopShape, Output, Placement, Variant};

/// Shape of a variant's GEMM and loop for one format.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows of a tile of the GEMM.
    pub tile_rows: u32,
    /// Columns of a tile of the GEMM.
    pub tile_columns: u32,
    /// K must be a multiple.
    pub k_step: u32,
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory for one stage of the GEMM's ring; 0 where it has no ring.
    pub stage_bytes: u32,
    /// Stages of the ring: the kernel runs with any number from two up.
    pub stages: u32,
    /// Bytes of dynamic shared memory of the loop.
    pub loop_bytes: u32,
    /// The loop.
    pub loop_shape: LoopShape,
}

/// The shape of a variant for a format, as if it had that format.
pub fn shape(variant: Variant, format: Format) -> Shape {
    match variant {
        Variant::Simt => simt(format),
        Variant::M8n8k4 => mma(format, quad_pairs, 64, 2),
        Variant::M16n8k8 => mma(format, wide, 64, 2),
        Variant::M16n8k16 | Variant::Fp8Mma if format == Format::Fp64 => {
            let mut shape = mma(format, double, 128, 4);
            shape.tile_columns = 128;
            shape.stage_bytes = (128 + 128) * 128;
            shape.loop_bytes = shape.stage_bytes;
            shape.loop_shape.columns = 128;
            shape.loop_shape.registers = 64;
            shape
        }
        Variant::M16n8k16 | Variant::Fp8Mma => mma(format, wide, 128, 4),
        Variant::Wgmma => wgmma(format),
        Variant::Tcgen05 => tcgen05(format),
    }
}

/// Operands of a format in so many bytes.
fn operands_in(format: Format, bytes: u32) -> u32 {
    bytes / u32::try_from(format.operand_bytes()).unwrap_or(1)
}

fn loop_of(format: Format, rows: u32, columns: u32, bytes: u32) -> LoopShape {
    let k = operands_in(format, bytes);
    LoopShape {
        rows,
        columns,
        k,
        repeats: 1024 / k,
        warps: 8,
        registers: 128,
        place: wide,
    }
}

fn simt(format: Format) -> Shape {
    let side: u32 = if format == Format::Fp64 { 4 } else { 8 };
    let mut loop_shape = loop_of(format, 16 * side, 16 * side, 128);
    loop_shape.registers = side * side;
    loop_shape.place = if side == 4 { plain_4 } else { plain_8 };
    Shape {
        tile_rows: 16 * side,
        tile_columns: 16 * side,
        k_step: operands_in(format, 32),
        threads: 256,
        stage_bytes: 0,
        stages: 0,
        loop_bytes: 0,
        loop_shape,
    }
}

fn mma(format: Format, place: Placement, row_bytes: u32, stages: u32) -> Shape {
    let mut loop_shape = loop_of(format, 128, 256, 128);
    loop_shape.place = place;
    Shape {
        tile_rows: 128,
        tile_columns: 256,
        k_step: operands_in(format, row_bytes),
        threads: 256,
        stage_bytes: (128 + 256) * row_bytes,
        stages,
        loop_bytes: (128 + 256) * 128,
        loop_shape,
    }
}

fn wgmma(format: Format) -> Shape {
    let mut loop_shape = loop_of(format, 128, 256, 512);
    loop_shape.place = warpgroup;
    Shape {
        tile_rows: 128,
        tile_columns: 256,
        k_step: operands_in(format, 128),
        threads: 384,
        stage_bytes: (128 + 256) * 128,
        stages: 3,
        loop_bytes: 1024 + 4 * (128 + 256) * 128,
        loop_shape,
    }
}

/// Dynamic shared memory of the GEMM of `wgmma.cu` in bytes: alignment of the ring, the ring, C on its way out where it
/// has 16 bits, and barriers and weights.
pub fn wgmma_bytes(format: Format) -> u32 {
    let (stages, output) = if Output::of(format).bytes() == 2 {
        (3, 64 << 10)
    } else {
        (4, 0)
    };
    1024 + stages * (128 + 256) * 128 + output + 2048 + 256
}

fn tcgen05(format: Format) -> Shape {
    let mut loop_shape = loop_of(format, 128, 256, 512);
    loop_shape.place = tensor_memory_rows;
    Shape {
        tile_rows: 128,
        tile_columns: 256,
        k_step: operands_in(format, 128),
        threads: 320,
        stage_bytes: (128 + 256) * 128,
        stages: 4,
        loop_bytes: tcgen05_bytes(),
        loop_shape,
    }
}

/// Dynamic shared memory of both kernels of `tcgen05.cuh` in bytes: alignment of the ring, the ring, and barriers,
/// checksums and weights.
pub const fn tcgen05_bytes() -> u32 {
    1024 + 4 * (128 + 256) * 128 + 96 + 16 + 2048
}

/// `Simt` of `simt.cuh`.
fn plain(side: u32, warp: u32, lane: u32, register: u32) -> (u32, u32) {
    let thread = warp * 32 + lane;
    let half = side / 2;
    let at = |place: u32, index: u32| index / half * (8 * side) + place * half + index % half;
    (at(thread / 16, register / side), at(thread % 16, register % side))
}

fn plain_4(warp: u32, lane: u32, register: u32) -> (u32, u32) {
    plain(4, warp, lane, register)
}

fn plain_8(warp: u32, lane: u32, register: u32) -> (u32, u32) {
    plain(8, warp, lane, register)
}

/// `Wide` of `mma.cuh`: tiles of 16 x 8 with four registers each, eight of them in a row of tiles.
fn wide(warp: u32, lane: u32, register: u32) -> (u32, u32) {
    let (tile, part) = (register / 4, register % 4);
    (
        warp % 2 * 64 + tile / 8 * 16 + part / 2 * 8 + lane / 4,
        warp / 2 * 64 + tile % 8 * 8 + lane % 4 * 2 + part % 2,
    )
}

/// `Double` of `mma.cuh`: tiles of 8 x 8 with two registers each.
fn double(warp: u32, lane: u32, register: u32) -> (u32, u32) {
    let (tile, part) = (register / 2, register % 2);
    (
        warp % 4 * 32 + tile / 8 * 8 + lane / 4,
        warp / 4 * 64 + tile % 8 * 8 + lane % 4 * 2 + part,
    )
}

/// `QuadPairs` of `mma.cuh`: tiles of 16 x 16 with eight registers each.
fn quad_pairs(warp: u32, lane: u32, register: u32) -> (u32, u32) {
    let (tile, part) = (register / 8, register % 8);
    let (pair, upper) = (lane / 4 % 4, lane / 16);
    (
        warp % 2 * 64 + tile / 4 * 16 + lane % 2 + part / 2 % 2 * 2 + pair % 2 * 4 + upper * 8,
        warp / 2 * 64 + tile % 4 * 16 + (lane & 2) + part % 2 + pair / 2 * 4 + part / 4 * 8,
    )
}

/// `wgmma.cu`: each warpgroup has 64 rows, each of its warps 16 of them, in groups of 8 columns with four registers.
fn warpgroup(warp: u32, lane: u32, register: u32) -> (u32, u32) {
    let (group, part) = (register / 4, register % 4);
    (
        warp / 4 * 64 + warp % 4 * 16 + part / 2 * 8 + lane / 4,
        group * 8 + lane % 4 * 2 + part % 2,
    )
}

/// `tcgen05.cuh`: each warp has the 32 rows of its place in four, a row to a lane; the first four have the left half.
fn tensor_memory_rows(warp: u32, lane: u32, register: u32) -> (u32, u32) {
    (warp % 4 * 32 + lane, warp / 4 * 128 + register)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::device::LOOP_WARPS;
    use crate::kernels::variants;

    #[test]
    fn the_accumulators_of_a_loop_cover_its_tile_once() {
        for &format in Format::ALL {
            for &variant in variants(format) {
                let shape = shape(variant, format).loop_shape;
                assert!(shape.k * shape.repeats <= 1024, "{variant} {format}");
                assert!(shape.warps as usize <= LOOP_WARPS);
                let mut places = BTreeSet::new();
                for warp in 0..shape.warps {
                    for lane in 0..32 {
                        for register in 0..shape.registers {
                            let (row, column) = (shape.place)(warp, lane, register);
                            assert!(row < shape.rows && column < shape.columns, "{variant} {format}");
                            assert!(
                                places.insert((row, column)),
                                "{variant} {format}: {row} {column} twice"
                            );
                        }
                    }
                }
                assert_eq!(
                    places.len(),
                    (shape.rows * shape.columns) as usize,
                    "{variant} {format}"
                );
            }
        }
    }
}
