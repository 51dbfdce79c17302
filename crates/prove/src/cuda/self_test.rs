//! Before a variant is used: a few of its tiles and a few rounds of its loop against the CPU.

use super::gpu::Gpu;
use crate::device::{
    Choice, Device as _, DeviceError, Fault, Format, GEMM_RECORD_BYTES, Gemm, LOOP_RECORD_BYTES, Output,
    Variant, Work,
};
use crate::verify::golden::{GemmShape, loop_hashes};
use crate::verify::operand::encode_output;
use crate::verify::records::{gemm_records, loop_records, word};

const SEED_A: u32 = 0x5E1F_0001;
const SEED_B: u32 = 0x5E1F_0002;
const WEIGHTS: u32 = 0x5E1F_0003;
const ROUNDS: u32 = 3;

/// Why a variant is not to be used.
pub(super) enum Unfit {
    /// It could not run.
    Device(DeviceError),
    /// It gave this.
    Wrong(String),
}

impl From<DeviceError> for Unfit {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// Ok where all that the variant gave is right; else what was wrong.
pub(super) fn run(gpu: &Gpu, format: Format, choice: &Choice) -> Result<(), Unfit> {
    let mut blocks = Vec::new();
    let mut allocate = |bytes| {
        let block = gpu.allocate(bytes)?;
        blocks.push(block);
        Ok::<_, DeviceError>(block)
    };
    // Two rows of tiles, and three where an odd number is another kernel's.
    let rows: &[u32] = if choice.variant == Variant::Wgmma {
        &[2, 3]
    } else {
        &[2]
    };
    let tested = rows
        .iter()
        .try_for_each(|&rows| tiles(gpu, format, choice, rows, &mut allocate))
        .and_then(|()| rounds(gpu, format, choice, &mut allocate));
    for block in blocks {
        // After a kernel that was stopped nothing can be given back.
        let _ = gpu.release(block);
    }
    tested
}

type Allocate<'a> = dyn FnMut(u64) -> Result<crate::device::Block, DeviceError> + 'a;

fn tiles(
    gpu: &Gpu,
    format: Format,
    choice: &Choice,
    down: u32,
    allocate: &mut Allocate,
) -> Result<(), Unfit> {
    // More steps along K than a ring has stages, an odd number of them, and two tiles or more each way.
    let shape = GemmShape {
        format,
        m: down * choice.tile_rows,
        n: 2 * choice.tile_columns,
        k: 9 * choice.k_step,
        tile_rows: choice.tile_rows,
        tile_columns: choice.tile_columns,
        seed_a: SEED_A,
        seed_b: SEED_B,
        weight_seed: WEIGHTS,
    };
    let bytes = format.operand_bytes();
    let values = u64::from(shape.m) * u64::from(shape.n);
    let a = allocate(u64::from(shape.m) * u64::from(shape.k) * bytes)?;
    let b = allocate(u64::from(shape.n) * u64::from(shape.k) * bytes)?;
    let c = allocate(values * Output::of(format).bytes())?;
    let tiles = u64::from(2 * down);
    let records = allocate(tiles * GEMM_RECORD_BYTES)?;
    let operands = |to, rows, seed| Work::Operands {
        to,
        format,
        rows,
        k: shape.k,
        seed,
    };
    gpu.run(&[
        operands(a.all(), shape.m, SEED_A),
        operands(b.all(), shape.n, SEED_B),
        Work::Gemm(Gemm {
            variant: choice.variant,
            format,
            m: shape.m,
            n: shape.n,
            k: shape.k,
            a: a.all(),
            b: b.all(),
            c: c.all(),
            records: records.all(),
            weight_seed: WEIGHTS,
            rotation: 1,
            // Each goes over several tiles.
            ctas: 2,
            fault: Fault::NONE,
        }),
    ])?;
    let stored_bytes = usize::try_from(Output::of(format).bytes()).unwrap_or(1);
    let mut stored = vec![0; usize::try_from(values).unwrap_or_default() * stored_bytes];
    gpu.read(c.all(), &mut stored)?;
    let places = (0..shape.m).flat_map(|row| (0..shape.n).map(move |column| (row, column)));
    let wrong = places
        .zip(shape.values())
        .zip(stored.chunks_exact(stored_bytes))
        .filter_map(|(((row, column), value), got)| {
            let got = word(got);
            let expected = encode_output(Output::of(format), value);
            (got != expected).then_some((row, column, expected, got))
        })
        .collect::<Vec<_>>();
    if let Some((row, column, expected, got)) = wrong.first() {
        return Err(Unfit::Wrong(format!(
            "{} of {values} values of C were wrong, the first in row {row}, column {column}: \
             {got:#x} for {expected:#x}",
            wrong.len()
        )));
    }
    let mut read = vec![0; usize::try_from(tiles * GEMM_RECORD_BYTES).unwrap_or_default()];
    gpu.read(records.all(), &mut read)?;
    let got: Vec<u32> = gemm_records(&read).iter().map(|record| record.checksum).collect();
    let expected = shape.checksums();
    if got != expected {
        return Err(Unfit::Wrong(format!(
            "C was right, its checksums were {got:x?} for {expected:x?}"
        )));
    }
    Ok(())
}

fn rounds(gpu: &Gpu, format: Format, choice: &Choice, allocate: &mut Allocate) -> Result<(), Unfit> {
    let records = allocate(2 * LOOP_RECORD_BYTES)?;
    gpu.run(&[Work::MmaLoop {
        variant: choice.variant,
        format,
        rounds: ROUNDS,
        ctas: 2,
        seed: SEED_A,
        records: records.all(),
        fault: Fault::NONE,
    }])?;
    let mut read = vec![0; 2 * usize::try_from(LOOP_RECORD_BYTES).unwrap_or_default()];
    gpu.read(records.all(), &mut read)?;
    let expected = loop_hashes(format, &choice.loop_shape, SEED_A, ROUNDS);
    for record in loop_records(&read) {
        let got = record.hashes.get(..expected.len()).unwrap_or_default();
        if got != expected {
            return Err(Unfit::Wrong(format!(
                "a loop's hashes were {got:x?} for {expected:x?}"
            )));
        }
    }
    Ok(())
}
