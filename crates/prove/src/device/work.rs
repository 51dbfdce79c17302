//! What a device can be told to do.

use pitcrew_core::proof::Format;

use super::{HostBlock, Pattern, PeerId, Span, Variant};

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
    /// Rows of C, a multiple of [`super::Choice::tile_rows`].
    pub m: u32,
    /// Columns of C, a multiple of [`super::Choice::tile_columns`].
    pub n: u32,
    /// Length of the sums, a multiple of [`super::Choice::k_step`].
    pub k: u32,
    /// `m * k` operands.
    pub a: Span,
    /// `n * k` operands.
    pub b: Span,
    /// `m * n` values of [`super::Output`].
    pub c: Span,
    /// [`super::GEMM_RECORD_BYTES`] for each tile, in the order `row of tiles * tiles in a row + column of tiles`.
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

/// One piece of work. All of a [`super::Device::run`] is done in order.
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
    /// where `write` says so. Errors are added to `log`, [`super::MARCH_LOG_BYTES`] that began as zeros.
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
        /// [`super::LOOP_RECORD_BYTES`] for each CTA.
        records: Span,
        /// A fault to plant.
        fault: Fault,
    },
    /// A matrix multiplication whose tiles are all checked.
    Gemm(Gemm),
    /// Multiplies one tile of a GEMM again, by integers on the plain cores, from A and B as they lie in memory, and
    /// compares with C as it lies there. Writes [`super::RECOMPUTE_LOG_BYTES`].
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
    /// Copies to the memory of another device that [`super::Device::reach`] was asked for.
    ToPeer {
        /// From here.
        from: Span,
        /// A span of the other device.
        to: Span,
        /// The other device.
        peer: PeerId,
    },
    /// Copies from the memory of another device that [`super::Device::reach`] was asked for.
    FromPeer {
        /// A span of the other device.
        from: Span,
        /// To here.
        to: Span,
        /// The other device.
        peer: PeerId,
    },
    /// Keeps the device busy for about this long, so that what follows is queued before it starts.
    Spin {
        /// Nanoseconds.
        nanoseconds: u64,
    },
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
            Self::FromPeer { .. } => "peer to device",
            Self::Spin { .. } => "spin",
        }
    }
}
