//! Memory of a device and of its host, and what it is filled with.

/// A piece of device memory. It is the device's that gave it, and goes back by [`super::Device::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// The device's own number for it: its address on a GPU.
    pub id: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Pinned memory of the host, from [`super::Device::allocate_host`].
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
