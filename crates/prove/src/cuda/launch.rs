//! Each piece of work as launches and copies. Structs here are those of the kernels: `common.cuh`, `memory.cu`.
#![expect(unsafe_code, reason = "the driver's functions are called here")]

use std::ffi::{c_uint, c_void};
use std::ptr;

use super::gpu::{Function, Gpu};
use super::library::Raw;
use crate::device::{
    Device as _, DeviceError, Format, GEMM_RECORD_BYTES, Gemm, Pattern, Span, Variant, Work,
};
use crate::kernels::{self, MEMORY, Shape};
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

#[repr(C)]
struct MarchArguments {
    words: u64,
    count: u64,
    log: u64,
    read_seed: u64,
    write_seed: u64,
    read_kind: u32,
    write_kind: u32,
    descending: u32,
}

/// A `CUtensorMap`.
#[repr(C, align(64))]
struct TensorMap([u64; 16]);

/// Grid, threads and dynamic shared memory.
struct Size {
    grid: u32,
    threads: u32,
    shared: u32,
}

/// Pointers to arguments, as a launch takes them.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &mut [$((&raw mut $argument).cast::<c_void>()),*] };
}

fn unsupported(text: String) -> DeviceError {
    DeviceError::Unsupported(text)
}

/// In the order of `enum Format` of `common.cuh`.
const fn number(format: Format) -> u32 {
    match format {
        Format::Bf16 => 0,
        Format::Fp16 => 1,
        Format::Tf32 => 2,
        Format::Fp8 => 3,
        Format::Int8 => 4,
        Format::Fp32 => 5,
        Format::Fp64 => 6,
    }
}

const fn kind(pattern: Option<Pattern>) -> (u32, u64) {
    match pattern {
        None => (0, 0),
        Some(Pattern::Counter(seed)) => (1, seed),
        Some(Pattern::CounterComplement(seed)) => (2, seed),
        Some(Pattern::Constant(word)) => (3, word),
    }
}

/// A grid with a thread for each of so many, as far as a grid goes.
fn a_thread_for_each(count: u64) -> Size {
    let grid = count.div_ceil(1024).clamp(1, 1 << 30);
    Size {
        grid: u32::try_from(grid).unwrap_or(1 << 30),
        threads: 1024,
        shared: 0,
    }
}

fn at_least(span: Span, bytes: u64, what: &str) -> Result<(), DeviceError> {
    if span.bytes >= bytes {
        return Ok(());
    }
    Err(unsupported(format!(
        "{what} needs {bytes} bytes and has {}",
        span.bytes
    )))
}

impl Gpu {
    /// Queues one piece of work.
    pub(super) fn launch(&self, stream: Raw, work: &Work) -> Result<(), DeviceError> {
        let name = work.name();
        match *work {
            Work::Operands {
                to,
                format,
                rows,
                k,
                seed,
            } => {
                at_least(
                    to,
                    u64::from(rows) * u64::from(k) * format.operand_bytes(),
                    "a matrix",
                )?;
                let (mut to, mut format, mut rows, mut k, mut seed) =
                    (self.address(to)?, number(format), rows, k, seed);
                self.start(
                    stream,
                    name,
                    &self.wide(256),
                    arguments![to, format, rows, k, seed],
                )
            }
            Work::March {
                span,
                read,
                write,
                descending,
                log,
            } => {
                let ((read_kind, read_seed), (write_kind, write_seed)) = (kind(read), kind(write));
                let mut job = MarchArguments {
                    words: self.address(span)?,
                    count: span.bytes / 8,
                    log: self.address(log)?,
                    read_seed,
                    write_seed,
                    read_kind,
                    write_kind,
                    descending: u32::from(descending),
                };
                let size = a_thread_for_each(span.bytes / 16);
                self.start(stream, name, &size, arguments![job])
            }
            Work::Copy { from, to } => {
                at_least(to, from.bytes, "a copy")?;
                let (mut to, mut source, mut chunks) =
                    (self.address(to)?, self.address(from)?, from.bytes / 16);
                let size = a_thread_for_each(chunks);
                self.start(stream, name, &size, arguments![to, source, chunks])
            }
            Work::Triad { a, b, c } => {
                at_least(b, a.bytes, "a triad")?;
                at_least(c, a.bytes, "a triad")?;
                let (mut to, mut b, mut c, mut chunks) =
                    (self.address(a)?, self.address(b)?, self.address(c)?, a.bytes / 16);
                let size = a_thread_for_each(chunks);
                self.start(stream, name, &size, arguments![to, b, c, chunks])
            }
            Work::ReadCached { from, passes, sum } => {
                at_least(sum, 8, "a sum")?;
                let (mut source, mut chunks, mut passes, mut sum) =
                    (self.address(from)?, from.bytes / 16, passes, self.address(sum)?);
                self.zero(stream, name, sum, 2)?;
                self.start(
                    stream,
                    name,
                    &self.wide(512),
                    arguments![source, chunks, passes, sum],
                )
            }
            Work::MmaLoop {
                variant,
                format,
                rounds,
                ctas,
                seed,
                records,
                fault,
            } => {
                at_least(
                    records,
                    u64::from(ctas) * crate::device::LOOP_RECORD_BYTES,
                    "a loop",
                )?;
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
            Work::Gemm(ref gemm) => self.gemm(stream, gemm),
            Work::Recompute {
                ref gemm,
                tile,
                tile_rows,
                tile_columns,
                avoid_sm,
                log,
            } => {
                at_least(log, crate::device::RECOMPUTE_LOG_BYTES, "a tile's log")?;
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
            Work::ToDevice { from, to } => {
                let source = self.host_address(from, to.bytes)?;
                let to_address = self.address(to)?;
                let bytes = usize::try_from(to.bytes).unwrap_or(usize::MAX);
                // SAFETY: both are that long, and pinned memory is not given back while work is under way.
                let code = unsafe {
                    (self.library.functions.copy_to_device)(to_address, source.cast(), bytes, stream)
                };
                self.check(name, code)
            }
            Work::ToHost { from, to } => {
                let target = self.host_address(to, from.bytes)?;
                let from_address = self.address(from)?;
                let bytes = usize::try_from(from.bytes).unwrap_or(usize::MAX);
                // SAFETY: as above.
                let code = unsafe {
                    (self.library.functions.copy_to_host)(target.cast(), from_address, bytes, stream)
                };
                self.check(name, code)
            }
            Work::ToPeer { from, to, peer } => {
                at_least(to, from.bytes, "a copy")?;
                let (own, other) = self.peer(peer)?;
                let from_address = self.address(from)?;
                let bytes = usize::try_from(from.bytes).unwrap_or(usize::MAX);
                // SAFETY: both contexts are retained; what lies where on the other GPU its owner says.
                let code = unsafe {
                    (self.library.functions.copy_to_peer)(
                        to.block.id + to.offset,
                        other,
                        from_address,
                        own,
                        bytes,
                        stream,
                    )
                };
                self.check(name, code)
            }
            Work::Spin { mut nanoseconds } => {
                let size = Size {
                    grid: 1,
                    threads: 1,
                    shared: 0,
                };
                self.start(stream, name, &size, arguments![nanoseconds])
            }
        }
    }

    /// Enough CTAs of so many threads to fill every SM.
    fn wide(&self, threads: u32) -> Size {
        Size {
            grid: self.facts().sms * (2048 / threads),
            threads,
            shared: 0,
        }
    }

    fn zero(&self, stream: Raw, work: &'static str, address: u64, words: usize) -> Result<(), DeviceError> {
        // SAFETY: the address is in a block of this context and has so many words: the caller looked.
        let code = unsafe { (self.library.functions.set_words)(address, 0, words, stream) };
        self.check(work, code)
    }

    /// A kernel of `memory.cu`.
    fn start(
        &self,
        stream: Raw,
        name: &'static str,
        size: &Size,
        arguments: &mut [*mut c_void],
    ) -> Result<(), DeviceError> {
        let function = self
            .kernel(&MEMORY, name)
            .map_err(|reason| unsupported(format!("no kernel for `{name}`: {reason}")))?;
        self.start_function(stream, name, function, size, arguments)
    }

    fn start_function(
        &self,
        stream: Raw,
        work: &'static str,
        function: Function,
        size: &Size,
        arguments: &mut [*mut c_void],
    ) -> Result<(), DeviceError> {
        let functions = &self.library.functions;
        if size.shared > 0 {
            // `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`; drivers before CUDA 9 don't know it, and what fits
            // without it is launched all the same.
            let bytes = i32::try_from(size.shared).unwrap_or(i32::MAX);
            // SAFETY: the function is a loaded module's.
            let code = unsafe { (functions.func_set_attribute)(function.raw, 8, bytes) };
            if size.shared > 48 << 10 {
                self.check(work, code)?;
            }
        }
        // SAFETY: the arguments are those of the kernel of that name, and live until the launch has copied them.
        let code = unsafe {
            (functions.launch_kernel)(
                function.raw,
                size.grid as c_uint,
                1,
                1,
                size.threads as c_uint,
                1,
                1,
                size.shared as c_uint,
                stream,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        self.check(work, code)
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
        at_least(gemm.c, m * n * gemm.format.output().bytes(), "C")?;
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
        if gemm.m % shape.tile_rows != 0 || gemm.n % shape.tile_columns != 0 || gemm.k % shape.k_step != 0 {
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
        if gemm.variant == Variant::Wgmma {
            return self.wgmma(stream, gemm, &shape, &mut job, tiles);
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
        let most = if gemm.ctas == 0 {
            self.facts().sms
        } else {
            gemm.ctas
        };
        let pairs = gemm.m / shape.tile_rows % 2 == 0 && most >= 2;
        let (suffix, grid) = if pairs {
            ("", most.min(tiles) / 2 * 2)
        } else {
            ("_alone", most.min(tiles))
        };
        let bytes = gemm.format.operand_bytes();
        let row_bytes = u64::from(gemm.k) * bytes;
        let mut a = self.tensor_map(job.a, row_bytes, gemm.m, 128)?;
        let mut b = self.tensor_map(job.b, row_bytes, gemm.n, 128)?;
        let c_bytes = u64::from(gemm.n) * gemm.format.output().bytes();
        let mut c = self.tensor_map(job.c, c_bytes, gemm.m, 64)?;
        let size = Size {
            grid,
            threads: shape.threads,
            shared: kernels::wgmma_bytes(gemm.format),
        };
        let function = self.matrix_kernel(gemm.variant, gemm.format, "gemm", suffix)?;
        self.start_function(stream, "gemm", function, &size, arguments![*job, a, b, c])
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
