//! Launches of the kernels that multiply. Structs here are those of `common.cuh` and `tma.cuh`.
#![expect(unsafe_code, reason = "the driver's functions are called here")]

use std::ffi::c_void;
use std::ptr;

use super::gpu::Gpu;
use super::launch::{Size, arguments, at_least, number, unsupported};
use super::library::Raw;
use super::modules::Function;
use crate::device::{
    Device as _, DeviceError, Format, GEMM_RECORD_BYTES, Gemm, LOOP_RECORD_BYTES, Output,
    RECOMPUTE_LOG_BYTES, Variant, Work,
};
use crate::kernels::{self, Shape};
use crate::operands::{column_weight_seed, row_weight_seed};
use crate::verify::golden::loop_seed_b;

#[repr(C)]
struct GemmArguments {
    a: u64,
    b: u64,
    c: u64,
    records: u64,
    m: u32,
    n: u32,
    k: u32,
    row_seed: u32,
    column_seed: u32,
    rotation: u32,
    fault: [u32; 3],
    stages: u32,
}

#[repr(C)]
struct LoopArguments {
    records: u64,
    rounds: u32,
    seed_a: u32,
    seed_b: u32,
    fault: [u32; 3],
}

/// A `CUtensorMap`.
#[repr(C, align(64))]
struct TensorMap([u64; 16]);

impl Gpu {
    /// Queues a loop, a GEMM, or a tile of one that is made again.
    pub(super) fn launch_matrix(&self, stream: Raw, work: &Work) -> Result<(), DeviceError> {
        let name = work.name();
        match *work {
            Work::Gemm(ref gemm) => self.gemm(stream, gemm),
            Work::MmaLoop {
                variant,
                format,
                rounds,
                ctas,
                seed,
                records,
                fault,
            } => {
                at_least(records, u64::from(ctas) * LOOP_RECORD_BYTES, "a loop")?;
                let mut job = LoopArguments {
                    records: self.address(records)?,
                    rounds,
                    seed_a: seed,
                    seed_b: loop_seed_b(seed),
                    fault: fault.words(),
                };
                let shape = kernels::shape(variant, format);
                let function = self.matrix_kernel(variant, format, "loop", "")?;
                let size = Size {
                    grid: ctas,
                    threads: shape.threads,
                    shared: shape.loop_bytes,
                };
                self.start_function(stream, name, function, &size, arguments![job])
            }
            Work::Recompute {
                ref gemm,
                tile,
                tile_rows,
                tile_columns,
                avoid_sm,
                log,
            } => {
                at_least(log, RECOMPUTE_LOG_BYTES, "a tile's log")?;
                let across = (gemm.n / tile_columns.max(1)).max(1);
                let mut job = self.gemm_arguments(gemm, 0)?;
                let avoid = if self.facts().sms > 1 { avoid_sm } else { None };
                let (mut format, mut row, mut column) = (
                    number(gemm.format),
                    tile / across * tile_rows,
                    tile % across * tile_columns,
                );
                let (mut rows, mut columns, mut avoid) = (tile_rows, tile_columns, avoid.unwrap_or(u32::MAX));
                let (mut ticket, mut log) = (self.ticket, self.address(log)?);
                self.zero(stream, name, ticket, 1)?;
                self.zero(stream, name, log, 4)?;
                self.start(
                    stream,
                    name,
                    &self.wide(256),
                    arguments![job, format, row, column, rows, columns, avoid, ticket, log],
                )
            }
            _ => Err(unsupported(format!("`{name}` multiplies nothing"))),
        }
    }

    fn matrix_kernel(
        &self,
        variant: Variant,
        format: Format,
        entry: &str,
        suffix: &str,
    ) -> Result<Function, DeviceError> {
        let module = kernels::module(variant, format, self.facts().compute_capability)
            .ok_or_else(|| unsupported(format!("{variant} has no {format}")))?;
        self.kernel(&module, &format!("{entry}_{format}{suffix}"))
            .map_err(|reason| unsupported(format!("no {variant} for {format}: {reason}")))
    }

    fn gemm_arguments(&self, gemm: &Gemm, stages: u32) -> Result<GemmArguments, DeviceError> {
        let (m, n, k) = (u64::from(gemm.m), u64::from(gemm.n), u64::from(gemm.k));
        at_least(gemm.a, m * k * gemm.format.operand_bytes(), "A")?;
        at_least(gemm.b, n * k * gemm.format.operand_bytes(), "B")?;
        at_least(gemm.c, m * n * Output::of(gemm.format).bytes(), "C")?;
        Ok(GemmArguments {
            a: self.address(gemm.a)?,
            b: self.address(gemm.b)?,
            c: self.address(gemm.c)?,
            records: self.address(gemm.records)?,
            m: gemm.m,
            n: gemm.n,
            k: gemm.k,
            row_seed: row_weight_seed(gemm.weight_seed),
            column_seed: column_weight_seed(gemm.weight_seed),
            rotation: gemm.rotation,
            fault: gemm.fault.words(),
            stages,
        })
    }

    fn gemm(&self, stream: Raw, gemm: &Gemm) -> Result<(), DeviceError> {
        let name = Work::Gemm(*gemm).name();
        let shape = kernels::shape(gemm.variant, gemm.format);
        if !gemm.m.is_multiple_of(shape.tile_rows)
            || !gemm.n.is_multiple_of(shape.tile_columns)
            || !gemm.k.is_multiple_of(shape.k_step)
        {
            return Err(unsupported(format!(
                "{} for {} makes tiles of {} x {} with K in steps of {}, not {} x {} x {}",
                gemm.variant,
                gemm.format,
                shape.tile_rows,
                shape.tile_columns,
                shape.k_step,
                gemm.m,
                gemm.n,
                gemm.k
            )));
        }
        let tiles = gemm.m / shape.tile_rows * (gemm.n / shape.tile_columns);
        at_least(gemm.records, u64::from(tiles) * GEMM_RECORD_BYTES, "records")?;
        let stages = self.stages(&shape);
        let mut job = self.gemm_arguments(gemm, stages)?;
        match gemm.variant {
            Variant::Wgmma => return self.wgmma(stream, gemm, &shape, &mut job, tiles),
            Variant::Tcgen05 => return self.tcgen05(stream, gemm, &shape, &mut job, tiles),
            _ => {}
        }
        let size = Size {
            grid: if gemm.ctas == 0 {
                tiles
            } else {
                tiles.min(gemm.ctas)
            },
            threads: shape.threads,
            shared: shape.stage_bytes * stages,
        };
        let function = self.matrix_kernel(gemm.variant, gemm.format, "gemm", "")?;
        self.start_function(stream, name, function, &size, arguments![job])
    }

    /// Stages of a ring that a block has room for.
    fn stages(&self, shape: &Shape) -> u32 {
        // What is not the ring's, and what the driver keeps of each block.
        let room = self.shared[1].saturating_sub(1024);
        shape.stages.min(room / shape.stage_bytes.max(1)).max(2)
    }

    fn wgmma(
        &self,
        stream: Raw,
        gemm: &Gemm,
        shape: &Shape,
        job: &mut GemmArguments,
        tiles: u32,
    ) -> Result<(), DeviceError> {
        let most = self.staying_ctas(gemm);
        let pairs = (gemm.m / shape.tile_rows).is_multiple_of(2) && most >= 2;
        let (suffix, grid) = if pairs {
            ("", most.min(tiles) / 2 * 2)
        } else {
            ("_alone", most.min(tiles))
        };
        let [mut a, mut b] = self.operand_maps(gemm, job)?;
        let c_bytes = u64::from(gemm.n) * Output::of(gemm.format).bytes();
        let mut c = self.tensor_map(job.c, c_bytes, gemm.m, 64)?;
        let size = Size {
            grid,
            threads: shape.threads,
            shared: kernels::wgmma_bytes(gemm.format),
        };
        let function = self.matrix_kernel(gemm.variant, gemm.format, "gemm", suffix)?;
        self.start_function(stream, "gemm", function, &size, arguments![*job, a, b, c])
    }

    fn tcgen05(
        &self,
        stream: Raw,
        gemm: &Gemm,
        shape: &Shape,
        job: &mut GemmArguments,
        tiles: u32,
    ) -> Result<(), DeviceError> {
        let most = self.staying_ctas(gemm);
        let [mut a, mut b] = self.operand_maps(gemm, job)?;
        let size = Size {
            grid: most.min(tiles),
            threads: shape.threads,
            shared: kernels::tcgen05_bytes(),
        };
        let function = self.matrix_kernel(gemm.variant, gemm.format, "gemm", "")?;
        self.start_function(stream, "gemm", function, &size, arguments![*job, a, b])
    }

    /// How many CTAs of a GEMM stay for all of its tiles: as many as were asked for, or one for each SM.
    fn staying_ctas(&self, gemm: &Gemm) -> u32 {
        if gemm.ctas == 0 {
            self.facts().sms
        } else {
            gemm.ctas
        }
    }

    /// Maps of A and B.
    fn operand_maps(&self, gemm: &Gemm, job: &GemmArguments) -> Result<[TensorMap; 2], DeviceError> {
        let row_bytes = u64::from(gemm.k) * gemm.format.operand_bytes();
        Ok([
            self.tensor_map(job.a, row_bytes, gemm.m, 128)?,
            self.tensor_map(job.b, row_bytes, gemm.n, 128)?,
        ])
    }

    /// A map of a matrix of `rows` rows of `row_bytes`, read in boxes of `box_rows` rows of 128 bytes, swizzled.
    fn tensor_map(
        &self,
        address: u64,
        row_bytes: u64,
        rows: u32,
        box_rows: u32,
    ) -> Result<TensorMap, DeviceError> {
        let Some(encode) = self.library.functions.tensor_map else {
            return Err(unsupported("the driver has no tensor maps".to_owned()));
        };
        let mut map = TensorMap([0; 16]);
        let sizes = [row_bytes, u64::from(rows)];
        let strides = [row_bytes];
        let boxes = [128, box_rows];
        let steps = [1, 1];
        // SAFETY: the map has 128 bytes aligned to 64; all arrays have what a rank of 2 needs. Numbers of `cuda.h`: bytes
        // (0), no interleaving (0), swizzle of 128 bytes (3), promotion to 256 bytes in L2 (3), zeros outside (0).
        let code = unsafe {
            encode(
                (&raw mut map).cast(),
                0,
                2,
                ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or_default()),
                sizes.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                0,
                3,
                3,
                0,
            )
        };
        self.check("tensor map", code)?;
        Ok(map)
    }

    /// CTAs of a loop that fit on one SM.
    pub(super) fn occupancy(&self, variant: Variant, format: Format) -> Option<u32> {
        let shape = kernels::shape(variant, format);
        let function = self.matrix_kernel(variant, format, "loop", "").ok()?;
        let functions = &self.library.functions;
        let mut ctas = 0;
        // SAFETY: the function is a loaded module's; one integer is written.
        let code = unsafe {
            (functions.func_set_attribute)(function.raw, 8, i32::try_from(shape.loop_bytes).ok()?);
            (functions.occupancy)(
                &raw mut ctas,
                function.raw,
                i32::try_from(shape.threads).ok()?,
                shape.loop_bytes as usize,
            )
        };
        (code == 0).then(|| u32::try_from(ctas).ok()).flatten()
    }
}
