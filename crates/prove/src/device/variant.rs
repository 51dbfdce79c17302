//! Kernels for the same work by other instructions, and which of them a device has.

use std::fmt;

use pitcrew_core::proof::Code;

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
    /// `tcgen05` fed by TMA, 10.0 and its family. [Untested](Self::is_untested).
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

    /// True where its kernels have run on no GPU yet: they were written by the book, assembled and looked at, no more.
    /// Where they are right, the run's own self-test says so, and where they are not the next variant takes their place.
    pub const fn is_untested(self) -> bool {
        matches!(self, Self::Tcgen05)
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

impl CodeSource {
    /// As a report has it: of a stand-in there is nothing to tell.
    pub const fn told(self) -> Option<Code> {
        match self {
            Self::Cubin => Some(Code::Cubin),
            Self::Ptx => Some(Code::Ptx),
            Self::StandIn => None,
        }
    }
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
    /// Warps that hold accumulators, at most [`super::LOOP_WARPS`].
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
    /// True where it was tried and gave something wrong: the kernel, the driver's compiler or the GPU.
    pub was_wrong: bool,
}

/// Variants for one format.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// What can run, best first. Empty where the device can do the format by none of those that were asked for.
    pub usable: Vec<Choice>,
    /// What can't.
    pub refused: Vec<Refused>,
}
