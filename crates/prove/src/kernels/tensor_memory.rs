//! The descriptors of `tcgen05.cuh`, field by field, and what a tensor core reads by them. No GPU that has these
//! instructions was at hand: what the kernels give them is compared here with the layouts of the PTX ISA (version 9.0,
//! "Instruction descriptor", "Shared memory descriptor" and "Swizzling modes").

use super::{shape, unpack};
use crate::device::{Format, Variant};

/// Of each format: the type of the sums (1: f32, 2: s32), that of the operands, and the instruction's kind.
const TYPES: [(Format, u32, u32, &str); 5] = [
    (Format::Bf16, 1, 1, "f16"),
    (Format::Fp16, 1, 0, "f16"),
    (Format::Tf32, 1, 2, "tf32"),
    (Format::Fp8, 1, 0, "f8f6f4"),
    (Format::Int8, 2, 1, "i8"),
];

/// An instruction descriptor taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Instruction {
    sums: u32,
    a: u32,
    b: u32,
    columns: u32,
    rows: u32,
    /// All other bits: sparsity, saturation, negation, transposition, reserved ones, shifts.
    rest: u32,
}

const fn bits(word: u64, from: u32, count: u32) -> u64 {
    word >> from & ((1 << count) - 1)
}

fn instruction(word: u32) -> Instruction {
    let field = |from: u32, count: u32| word >> from & ((1 << count) - 1);
    let known = 0b11 << 4 | 0b111 << 7 | 0b111 << 10 | 0x3F << 17 | 0x1F << 24;
    Instruction {
        sums: field(4, 2),
        a: field(7, 3),
        b: field(10, 3),
        columns: field(17, 6) * 8,
        rows: field(24, 5) * 16,
        rest: word & !known,
    }
}

/// A descriptor of a matrix in shared memory taken apart, its sizes in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Matrix {
    start: u64,
    eight_rows: u64,
    constant: u64,
    base_offset: u64,
    leading_is_absolute: bool,
    zeros: u64,
    swizzle: u64,
}

fn matrix(word: u64) -> Matrix {
    Matrix {
        start: bits(word, 0, 14) << 4,
        eight_rows: bits(word, 32, 14) << 4,
        constant: bits(word, 46, 3),
        base_offset: bits(word, 49, 3),
        leading_is_absolute: bits(word, 52, 1) == 1,
        zeros: bits(word, 53, 8) | bits(word, 14, 2) | bits(word, 30, 2),
        swizzle: bits(word, 61, 3),
    }
}

/// The statements of one entry point.
fn entry(format: Format, kind: &str) -> Vec<String> {
    let module = if format == Format::Int8 {
        "ptx/tcgen05_int8.ptx"
    } else {
        "ptx/tcgen05.ptx"
    };
    let ptx = String::from_utf8(unpack(module).unwrap()).unwrap();
    let start = ptx.find(&format!(".entry {kind}_{format}(")).unwrap();
    let end = ptx[start..].find("\n}").unwrap();
    ptx[start..start + end]
        .lines()
        .map(|line| line.trim().to_owned())
        .collect()
}

/// The constant that a register was last given before a line.
fn constant_of(lines: &[String], before: usize, register: &str) -> Option<u64> {
    lines[..before].iter().rev().find_map(|line| {
        let (operation, value) = line.strip_suffix(';')?.split_once(&format!("{register}, "))?;
        operation.starts_with("mov.").then(|| value.parse().ok())?
    })
}

/// Where a tensor core looks for 16 bytes of a row: rows of 128 bytes, eight of them to a stride, and bits 4 to 6 of the
/// address changed by bits 7 to 9 (swizzle of 128 bytes).
fn read_at(matrix: &Matrix, row: u64, byte: u64) -> u64 {
    let plain = matrix.start + row / 8 * matrix.eight_rows + row % 8 * 128 + byte;
    plain ^ (bits(plain, 7, 3) << 4)
}

#[test]
fn the_instruction_descriptors_say_what_is_multiplied() {
    for (format, sums, operands, kind) in TYPES {
        for entry_kind in ["gemm", "loop"] {
            let lines = entry(format, entry_kind);
            let mut count = 0;
            for (at, line) in lines.iter().enumerate() {
                let Some(rest) = line.strip_prefix("tcgen05.mma.") else {
                    continue;
                };
                let (modifiers, operands_of) = rest.split_once(' ').unwrap();
                assert_eq!(modifiers, format!("cta_group::1.kind::{kind}"));
                let register = operands_of.split(", ").nth(3).unwrap();
                let word = u32::try_from(constant_of(&lines, at, register).unwrap()).unwrap();
                let shape = shape(Variant::Tcgen05, format);
                assert_eq!(
                    instruction(word),
                    Instruction {
                        sums,
                        a: operands,
                        b: operands,
                        columns: shape.tile_columns,
                        rows: shape.tile_rows,
                        rest: 0,
                    },
                    "{entry_kind} {format}"
                );
                count += 1;
            }
            // 128 bytes of a fetch, 32 at a time.
            assert_eq!(count, 4, "{entry_kind} {format}");
        }
    }
}

/// The upper half of a matrix's descriptor, as `descriptor` of `tcgen05.cuh` makes it.
const UPPER: u64 = (1024 >> 4) << 32 | 1 << 46 | 2 << 61;

#[test]
fn the_matrix_descriptors_are_the_documented_ones() {
    for (format, ..) in TYPES {
        for kind in ["gemm", "loop"] {
            let lines = entry(format, kind);
            let wanted = format!("{}", UPPER | 1 << 16);
            let signed = format!("{}", (UPPER | 1 << 16).cast_signed());
            let found = lines
                .iter()
                .any(|line| line.contains(&wanted) || line.contains(&signed));
            assert!(found, "{kind} {format}: no descriptor with {wanted}");
        }
    }
    let expected = Matrix {
        start: 0x2_C000,
        eight_rows: 1024,
        constant: 0b001,
        base_offset: 0,
        leading_is_absolute: false,
        zeros: 0,
        swizzle: 2,
    };
    assert_eq!(matrix(UPPER | 1 << 16 | 0x2_C000 >> 4), expected);
}

#[test]
fn what_a_tensor_core_reads_is_what_was_laid_there() {
    // The ring may begin at any multiple of 1024; the last of its stages ends within what a descriptor can name.
    for ring in [1024_u64, 2048, 31 * 1024] {
        let mut laid = std::collections::BTreeMap::new();
        for stage in 0..4_u64 {
            for row in 0..384_u64 {
                for chunk in 0..8_u64 {
                    // `fill_ring`, and TMA with a swizzle of 128 bytes.
                    let to = ring + stage * 384 * 128 + row * 128 + ((chunk ^ (row % 8)) << 4);
                    assert_eq!(laid.insert(to, (stage, row, chunk)), None);
                }
            }
        }
        for stage in 0..4_u64 {
            let a = ring + stage * 384 * 128;
            for (start, first, rows) in [(a, 0, 128), (a + 128 * 128, 128, 256)] {
                let word = UPPER | 1 << 16 | (start & 0x3_FFFF) >> 4;
                for step in 0..4_u64 {
                    let matrix = matrix(word + 2 * step);
                    for row in 0..rows {
                        for half in 0..2_u64 {
                            let place = read_at(&matrix, row, half * 16);
                            assert_eq!(laid.get(&place), Some(&(stage, first + row, step * 2 + half)));
                        }
                    }
                }
            }
        }
    }
}
