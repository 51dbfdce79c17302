//! A device that can work: what it is, its memory, and each kind of work that it does.
//!
//! [`Device`] is implemented by a GPU through `libcuda.so.1` and by a stand-in on the CPU. It holds no decisions: what is
//! done, for how long, and what is made of the results is said by whoever uses it.

use std::fmt;
use std::time::Duration;

use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::inventory::CudaVersion;
use pitcrew_core::pci::PciAddress;

/// Number format of operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// bfloat16, added up in f32.
    Bf16,
    /// IEEE half, added up in f32.
    Fp16,
    /// TF32: f32 of which 19 bits count, added up in f32.
    Tf32,
    /// FP8 e4m3, added up in f32.
    Fp8,
    /// Signed bytes, added up in 32-bit integers.
    Int8,
    /// IEEE single on the plain cores.
    Fp32,
    /// IEEE double.
    Fp64,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 7] = [
        Self::Bf16,
        Self::Fp16,
        Self::Tf32,
        Self::Fp8,
        Self::Int8,
        Self::Fp32,
        Self::Fp64,
    ];

    /// Bytes of one operand.
    pub const fn operand_bytes(self) -> u64 {
        match self {
            Self::Fp8 | Self::Int8 => 1,
            Self::Bf16 | Self::Fp16 => 2,
            Self::Tf32 | Self::Fp32 => 4,
            Self::Fp64 => 8,
        }
    }

    /// Format of C as it is stored.
    pub const fn output(self) -> Output {
        match self {
            Self::Bf16 | Self::Fp16 | Self::Fp8 => Output::Bf16,
            Self::Tf32 | Self::Fp32 => Output::F32,
            Self::Int8 => Output::S32,
            Self::Fp64 => Output::F64,
        }
    }

    /// Name in arguments and reports, e.g. `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Tf32 => "tf32",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
            Self::Fp32 => "fp32",
            Self::Fp64 => "fp64",
        }
    }
}

impl From<Format> for pitcrew_core::proof::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Bf16 => Self::Bf16,
            Format::Fp16 => Self::Fp16,
            Format::Tf32 => Self::Tf32,
            Format::Fp8 => Self::Fp8,
            Format::Int8 => Self::Int8,
            Format::Fp32 => Self::Fp32,
            Format::Fp64 => Self::Fp64,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Format of C in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// bfloat16, rounded to nearest even.
    Bf16,
    /// f32.
    F32,
    /// 32-bit integers.
    S32,
    /// f64.
    F64,
}

impl Output {
    /// Bytes of one value.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::S32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Instructions that a kernel multiplies matrices with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// Plain cores: FFMA, DFMA, IMAD, dp4a. Every GPU since compute capability 5.0.
    Simt,
    /// `mma.m8n8k4`, 7.0.
    M8n8k4,
    /// `mma.m16n8k8`, from 7.5 on.
    M16n8k8,
    /// `mma.m16n8k16` and its like with `cp.async`, from 8.0 on.
    M16n8k16,
    /// FP8 by `mma.m16n8k32`, 8.9 and 12.x.
    Fp8Mma,
    /// `wgmma` fed by TMA, 9.0 alone.
    Wgmma,
    /// `tcgen05`, 10.x.
    Tcgen05,
}

impl Variant {
    /// All variants, oldest first.
    pub const ALL: [Self; 7] = [
        Self::Simt,
        Self::M8n8k4,
        Self::M16n8k8,
        Self::M16n8k16,
        Self::Fp8Mma,
        Self::Wgmma,
        Self::Tcgen05,
    ];

    /// Name in arguments and reports, e.g. `m16n8k16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simt => "simt",
            Self::M8n8k4 => "m8n8k4",
            Self::M16n8k8 => "m16n8k8",
            Self::M16n8k16 => "m16n8k16",
            Self::Fp8Mma => "fp8",
            Self::Wgmma => "wgmma",
            Self::Tcgen05 => "tcgen05",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a kernel's machine code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeSource {
    /// Compiled beforehand for this architecture.
    Cubin,
    /// PTX, compiled by the driver.
    Ptx,
    /// The stand-in's: no GPU code at all.
    StandIn,
}

/// Where an accumulator of the loop lies in its tile: warp, lane and register to row and column.
pub type Placement = fn(warp: u32, lane: u32, register: u32) -> (u32, u32);

/// Shape of a shared-memory-resident loop: one tile of `rows` x `columns` for each CTA, made by `warps` warps.
#[derive(Debug, Clone, Copy)]
pub struct LoopShape {
    /// Rows of the tile, operands `operand(seed_a, row, k)`.
    pub rows: u32,
    /// Columns of the tile, operands `operand(seed_b, column, k)`.
    pub columns: u32,
    /// K of the operands in shared memory.
    pub k: u32,
    /// How often the operands in shared memory are gone over in one round, all added up; `k * repeats <= 1024`.
    pub repeats: u32,
    /// Warps that hold accumulators, at most [`LOOP_WARPS`].
    pub warps: u32,
    /// Accumulators of one lane.
    pub registers: u32,
    /// Which accumulator is where.
    pub place: Placement,
}

impl LoopShape {
    /// Multiplications and additions of one CTA in one round.
    pub fn operations(&self) -> u64 {
        2 * u64::from(self.rows) * u64::from(self.columns) * u64::from(self.k) * u64::from(self.repeats)
    }
}

/// A variant that can run here, for one format.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Its instructions.
    pub variant: Variant,
    /// Where the code came from.
    pub source: CodeSource,
    /// Rows of a tile of the GEMM; M must be a multiple.
    pub tile_rows: u32,
    /// Columns of a tile of the GEMM; N must be a multiple.
    pub tile_columns: u32,
    /// K must be a multiple.
    pub k_step: u32,
    /// Its loop in shared memory.
    pub loop_shape: LoopShape,
}

/// A variant that can't run here, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its instructions.
    pub variant: Variant,
    /// Why, in words: the architecture, the driver's age, what the driver's compiler said, a wrong self-test.
    pub reason: String,
}

/// How the reason of a variant begins that ran and was wrong.
pub const SELF_TEST_FAILED: &str = "its self-test failed";

impl Refused {
    /// True where it ran and gave something wrong: the kernel, the driver's compiler or the GPU.
    pub fn was_wrong(&self) -> bool {
        self.reason.starts_with(SELF_TEST_FAILED)
    }
}

/// Variants for one format.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// What can run, best first. Empty where the device can't do the format at all.
    pub usable: Vec<Choice>,
    /// What can't.
    pub refused: Vec<Refused>,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceFacts {
    /// Product name.
    pub name: String,
    /// `GPU-...`, or `MIG-...` for a slice, as NVML writes it.
    pub uuid: String,
    /// Where the GPU is on the PCI bus.
    pub pci: Option<PciAddress>,
    /// Compute capability.
    pub compute_capability: ComputeCapability,
    /// SMs that work can run on: of a MIG slice its own.
    pub sms: u32,
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// L2 cache in bytes.
    pub l2_bytes: u64,
    /// Highest SM clock in MHz.
    pub sm_clock_mhz: u32,
    /// Highest memory clock in MHz.
    pub memory_clock_mhz: u32,
    /// CUDA version of the driver.
    pub cuda: CudaVersion,
}

/// A piece of device memory. It is the device's that gave it, and goes back by [`Device::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// The device's own number for it: its address on a GPU.
    pub id: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Pinned memory of the host, from [`Device::allocate_host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostBlock {
    /// The device's own number for it: its address in this process.
    pub id: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The block.
    pub block: Block,
    /// First byte of it.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl Block {
    /// The whole block.
    pub const fn all(self) -> Span {
        Span {
            block: self,
            offset: 0,
            bytes: self.bytes,
        }
    }

    /// `bytes` from `offset` on. What lies behind the end is refused by the device.
    pub const fn part(self, offset: u64, bytes: u64) -> Span {
        Span {
            block: self,
            offset,
            bytes,
        }
    }
}

/// What 64-bit words of memory are filled with; the index counts words from the start of the span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// [`crate::operands::pattern_word`] of the seed and the index.
    Counter(u64),
    /// Its complement.
    CounterComplement(u64),
    /// The same word everywhere.
    Constant(u64),
}

impl Pattern {
    /// The word at an index.
    pub const fn word(self, index: u64) -> u64 {
        match self {
            Self::Counter(seed) => crate::operands::pattern_word(seed, index),
            Self::CounterComplement(seed) => !crate::operands::pattern_word(seed, index),
            Self::Constant(word) => word,
        }
    }

    /// The pattern with every bit turned.
    #[must_use]
    pub const fn complement(self) -> Self {
        match self {
            Self::Counter(seed) => Self::CounterComplement(seed),
            Self::CounterComplement(seed) => Self::Counter(seed),
            Self::Constant(word) => Self::Constant(!word),
        }
    }
}

/// A fault that a kernel plants by itself, to prove that it is found: one bit of one accumulator is flipped.
///
/// A kernel gets three u32: SM, tile or warp, bit, with `u32::MAX` for what is not said; without a bit there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fault {
    /// Only on this SM (`%smid`).
    pub sm: Option<u32>,
    /// Only in this tile of a GEMM, or this warp of a loop.
    pub place: Option<u32>,
    /// Which bit of the accumulator (that of lane 0, register 0) is flipped; nothing is without it.
    pub bit: Option<u32>,
}

impl Fault {
    /// No fault.
    pub const NONE: Self = Self {
        sm: None,
        place: None,
        bit: None,
    };

    /// As a kernel gets it.
    pub fn words(self) -> [u32; 3] {
        [self.sm, self.place, self.bit].map(|word| word.unwrap_or(u32::MAX))
    }
}

/// A GEMM: C = A * B^T, where A is M x K and B is stored as N x K, both row by row in memory without gaps.
#[derive(Debug, Clone, Copy)]
pub struct Gemm {
    /// Instructions.
    pub variant: Variant,
    /// Format of the operands.
    pub format: Format,
    /// Rows of C, a multiple of [`Choice::tile_rows`].
    pub m: u32,
    /// Columns of C, a multiple of [`Choice::tile_columns`].
    pub n: u32,
    /// Length of the sums, a multiple of [`Choice::k_step`].
    pub k: u32,
    /// `m * k` operands.
    pub a: Span,
    /// `n * k` operands.
    pub b: Span,
    /// `m * n` values of [`Format::output`].
    pub c: Span,
    /// [`GEMM_RECORD_BYTES`] for each tile, in the order `row of tiles * tiles in a row + column of tiles`.
    pub records: Span,
    /// Seed of the weights of the checksums.
    pub weight_seed: u32,
    /// The tiles go to the SMs in an order that is shifted by this: another SM for each tile, the same tiles.
    pub rotation: u32,
    /// Most CTAs that run at once, so that other work has SMs; 0 for as many as there are SMs.
    pub ctas: u32,
    /// A fault to plant.
    pub fault: Fault,
}

/// One piece of work. All of a [`Device::run`] is done in order.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Fills `to` with `rows` x `k` operands of a format.
    Operands {
        /// Where.
        to: Span,
        /// Format.
        format: Format,
        /// Rows.
        rows: u32,
        /// Operands in a row.
        k: u32,
        /// Seed, see [`crate::operands::operand`].
        seed: u32,
    },
    /// One pass over memory, word by word (64 bits): reads and compares where `read` says what must be there, then writes
    /// where `write` says so. Errors are added to `log`, [`MARCH_LOG_BYTES`] that began as zeros.
    March {
        /// The memory; a multiple of 16 bytes.
        span: Span,
        /// What must be there.
        read: Option<Pattern>,
        /// What is written.
        write: Option<Pattern>,
        /// From the end to the start.
        descending: bool,
        /// The log.
        log: Span,
    },
    /// Copies device memory by a kernel, 16 bytes at a time. Both of one length.
    Copy {
        /// From here.
        from: Span,
        /// To here.
        to: Span,
    },
    /// `a = b + 3 * c` in f32. All of one length.
    Triad {
        /// Result.
        a: Span,
        /// First operand.
        b: Span,
        /// Second operand, times 3.
        c: Span,
    },
    /// Reads a span that fits into L2 several times over, past L1. The sum modulo 2^64 of its 64-bit words, over all
    /// passes, is written to `sum` (8 bytes).
    ReadCached {
        /// What is read.
        from: Span,
        /// How often.
        passes: u32,
        /// Where the sum goes.
        sum: Span,
    },
    /// The same multiplication on every SM, from shared memory alone.
    ///
    /// In a round the accumulators start at zero, the tile's operands are multiplied and added up `repeats` times, and
    /// each lane folds its accumulators, in the order of their registers, into a hash that goes on over the rounds:
    /// `h = (h ^ bits) * 0x9E3779B97F4A7C15`, from `h = pattern_word(0, warp * 32 + lane)`; `bits` are the
    /// accumulator's own (f32, s32 or f64), zero-extended. The hash of a warp is the xor of its 32 lanes.
    MmaLoop {
        /// Instructions.
        variant: Variant,
        /// Format.
        format: Format,
        /// Rounds.
        rounds: u32,
        /// CTAs: SMs times what fits on one, so that each SM has one at least.
        ctas: u32,
        /// Seed of A's operands; B's is `mix` of it.
        seed: u32,
        /// [`LOOP_RECORD_BYTES`] for each CTA.
        records: Span,
        /// A fault to plant.
        fault: Fault,
    },
    /// A matrix multiplication whose tiles are all checked.
    Gemm(Gemm),
    /// Multiplies one tile of a GEMM again, by integers on the plain cores, from A and B as they lie in memory, and
    /// compares with C as it lies there. Writes [`RECOMPUTE_LOG_BYTES`].
    Recompute {
        /// The GEMM: its shape, memory and weights.
        gemm: Gemm,
        /// Which tile.
        tile: u32,
        /// Rows of a tile.
        tile_rows: u32,
        /// Columns of a tile.
        tile_columns: u32,
        /// Not on this SM, where there is another.
        avoid_sm: Option<u32>,
        /// The log.
        log: Span,
    },
    /// Copies pinned host memory to the device by a copy engine.
    ToDevice {
        /// From here.
        from: HostBlock,
        /// To here; no longer than the host's block.
        to: Span,
    },
    /// Copies device memory to pinned host memory by a copy engine.
    ToHost {
        /// From here; no longer than the host's block.
        from: Span,
        /// To here.
        to: HostBlock,
    },
    /// Copies to the memory of another device that [`Device::reach`] was asked for.
    ToPeer {
        /// From here.
        from: Span,
        /// A span of the other device.
        to: Span,
        /// UUID of the other device.
        peer: PeerId,
    },
    /// Keeps the device busy for about this long, so that what follows is queued before it starts.
    Spin {
        /// Nanoseconds.
        nanoseconds: u64,
    },
}

/// A peer, as [`Device::reach`] numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId(pub u32);

/// Warps that a record of the loop has room for.
pub const LOOP_WARPS: usize = 16;

/// Bytes of a record of the loop: [`LOOP_WARPS`] hashes (u64, zero where there is no warp), then `%smid`, start and end
/// by `%globaltimer` in ns, and the difference of `%clock64`, u64 each. Little endian, as all records.
pub const LOOP_RECORD_BYTES: u64 = (LOOP_WARPS as u64 + 4) * 8;

/// Bytes of a record of a GEMM: checksum (u32), `%smid` (u32).
///
/// The checksum of a tile is the sum of `weight(row_weight_seed, i) * weight(column_weight_seed, j) * C(i, j)` modulo
/// 2^32 over its rows i and columns j of the whole C, taken from the accumulators before they are stored. What is no
/// integer must spoil the checksum: such a value counts as itself rounded, plus one.
pub const GEMM_RECORD_BYTES: u64 = 8;

/// Errors that a march's log has room for.
pub const MARCH_LOG_ENTRIES: u64 = 1000;

/// Bytes of a march's log: the count of wrong words (u64), then entries in any order: offset in bytes from the start of
/// the span, expected, got, second read past the caches, `%smid`, u64 each. The count goes on when the room is full.
pub const MARCH_LOG_BYTES: u64 = 8 + MARCH_LOG_ENTRIES * 40;

/// Differences that a recomputed tile's log has room for.
pub const RECOMPUTE_LOG_ENTRIES: u64 = 256;

/// Bytes of a recomputed tile's log: count of differences (u32), checksum of the recomputed tile (u32), `%smid` (u32), 0
/// (u32), then entries in any order: row and column in the whole C (u32 each), expected and got as they are stored,
/// zero-extended (u64 each).
pub const RECOMPUTE_LOG_BYTES: u64 = 16 + RECOMPUTE_LOG_ENTRIES * 24;

/// Something went wrong with a device as a whole. Wrong results are no error: they are what is looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not enough memory.
    #[error("out of memory: {wanted} bytes of {of} were not to be had; another process holds them")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Whose memory: `the GPU` or `the host`.
        of: &'static str,
    },
    /// It doesn't answer any more.
    #[error("the GPU is lost: {0}")]
    Lost(String),
    /// Work did not end.
    #[error("the GPU hangs: `{work}` did not end within {seconds} s")]
    Hang {
        /// Which work.
        work: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A kernel was stopped by the hardware or the driver: illegal access, ECC error and the like.
    #[error("the GPU stopped `{work}`: {reason}")]
    Stopped {
        /// Which work.
        work: &'static str,
        /// The driver's words.
        reason: String,
    },
    /// This device can't do that.
    #[error("{0}")]
    Unsupported(String),
}

impl Work {
    /// Name of the work, e.g. `gemm`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Operands { .. } => "operands",
            Self::March { .. } => "march",
            Self::Copy { .. } => "copy",
            Self::Triad { .. } => "triad",
            Self::ReadCached { .. } => "read_cached",
            Self::MmaLoop { .. } => "mma_loop",
            Self::Gemm(_) => "gemm",
            Self::Recompute { .. } => "recompute",
            Self::ToDevice { .. } => "host to device",
            Self::ToHost { .. } => "device to host",
            Self::ToPeer { .. } => "device to peer",
            Self::Spin { .. } => "spin",
        }
    }
}

/// How much smaller than the GPU that it stands for a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Each byte stands for that many.
    pub bytes: u64,
    /// Each operation stands for that many.
    pub operations: u64,
    /// Edge of the matrices of a GEMM.
    pub edge: u32,
    /// K of a GEMM.
    pub k: u32,
    /// Rounds of a loop in one launch.
    pub rounds: u32,
}

impl Scale {
    /// Of a real GPU.
    pub const REAL: Self = Self {
        bytes: 1,
        operations: 1,
        edge: 8192,
        k: 8192,
        rounds: 1024,
    };
}

/// A device that can work. One thread uses it at a time; several devices work side by side.
pub trait Device {
    /// What it is.
    fn facts(&self) -> &DeviceFacts;

    /// Free and all device memory in bytes, as the driver says now.
    fn free_memory(&self) -> Result<u64, DeviceError>;

    /// Device memory, aligned to 1 KiB at least, of unknown content.
    fn allocate(&self, bytes: u64) -> Result<Block, DeviceError>;

    /// Gives a block back.
    fn release(&self, block: Block) -> Result<(), DeviceError>;

    /// Pinned host memory.
    fn allocate_host(&self, bytes: u64) -> Result<HostBlock, DeviceError>;

    /// Gives it back.
    fn release_host(&self, block: HostBlock) -> Result<(), DeviceError>;

    /// Writes to pinned host memory; no device is involved.
    fn write_host(&self, block: HostBlock, offset: u64, data: &[u8]) -> Result<(), DeviceError>;

    /// Reads from pinned host memory.
    fn read_host(&self, block: HostBlock, offset: u64, data: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies to the start of a span, after all work before it.
    fn write(&self, to: Span, data: &[u8]) -> Result<(), DeviceError>;

    /// Copies from the start of a span, after all work before it.
    fn read(&self, from: Span, data: &mut [u8]) -> Result<(), DeviceError>;

    /// Which variants can run for a format, best first, each after a self-test of one tile, and why others can't.
    fn choices(&self, format: Format) -> Choices;

    /// CTAs of a loop that fit on one SM at once, for [`Work::MmaLoop`].
    fn loop_ctas_per_sm(&self, variant: Variant, format: Format) -> u32;

    /// Does all work in order and tells how long each took on the device.
    fn run(&self, work: &[Work]) -> Result<Vec<Duration>, DeviceError>;

    /// Does two lists at the same time, each in its order; both begin together. Times of both.
    fn run_beside(&self, first: &[Work], second: &[Work]) -> Result<[Vec<Duration>; 2], DeviceError>;

    /// How much smaller than a real GPU this is.
    fn scale(&self) -> Scale {
        Scale::REAL
    }

    /// Opens the way to another device's memory, and numbers it. `Unsupported` with the reason where there is none.
    fn reach(&self, peer: &DeviceFacts) -> Result<PeerId, DeviceError>;
}
