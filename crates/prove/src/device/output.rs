//! What results are stored as.

use pitcrew_core::proof::Format;

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
    /// What the products of a format are stored as.
    pub const fn of(format: Format) -> Self {
        match format {
            Format::Bf16 | Format::Fp16 | Format::Fp8 => Self::Bf16,
            Format::Tf32 | Format::Fp32 => Self::F32,
            Format::Int8 => Self::S32,
            Format::Fp64 => Self::F64,
        }
    }

    /// Bytes of one value.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::S32 => 4,
            Self::F64 => 8,
        }
    }
}
