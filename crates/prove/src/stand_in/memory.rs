//! The stand-in's memory: one piece, so that a bad bit is always in the same place.

use crate::device::{Block, DeviceError, Span};

/// A bit that always reads the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stuck {
    /// Byte.
    pub(super) address: u64,
    /// Bit of the byte.
    pub(super) bit: u8,
    /// What it reads as.
    pub(super) value: bool,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    bytes: Vec<u8>,
    /// First byte and length of what is given away, by address.
    given: Vec<(u64, u64)>,
    stuck: Vec<Stuck>,
}

/// Everything begins at a multiple of it, as [`crate::device::Device::allocate`] says.
const ALIGNMENT: u64 = 1024;

impl Memory {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            bytes: vec![0xA5; index(bytes)],
            given: Vec::new(),
            stuck: Vec::new(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn free(&self) -> u64 {
        let given: u64 = self.given.iter().map(|(_, bytes)| bytes).sum();
        self.size() - given
    }

    pub(super) fn stick(&mut self, stuck: Stuck) {
        self.stuck.push(stuck);
        self.settle();
    }

    /// As [`Self::stick`], but for a bit that is stuck already.
    pub(super) fn stick_once(&mut self, stuck: Stuck) {
        let is_known = |known: &Stuck| (known.address, known.bit) == (stuck.address, stuck.bit);
        if !self.stuck.iter().any(is_known) {
            self.stick(stuck);
        }
    }

    /// Whatever was written, stuck bits have their value.
    fn settle(&mut self) {
        for stuck in &self.stuck {
            if let Some(byte) = self.bytes.get_mut(index(stuck.address)) {
                let mask = 1 << stuck.bit;
                *byte = if stuck.value { *byte | mask } else { *byte & !mask };
            }
        }
    }

    /// The first gap that is large enough.
    pub(super) fn allocate(&mut self, bytes: u64) -> Result<Block, DeviceError> {
        let wanted = bytes.max(1).next_multiple_of(ALIGNMENT);
        let mut start = 0;
        let mut at = self.given.len();
        for (i, &(address, length)) in self.given.iter().enumerate() {
            if address - start >= wanted {
                at = i;
                break;
            }
            start = address + length;
        }
        if self.size().saturating_sub(start) < wanted {
            return Err(DeviceError::OutOfMemory {
                wanted: bytes,
                of: "the GPU",
            });
        }
        self.given.insert(at, (start, wanted));
        Ok(Block { id: start, bytes })
    }

    pub(super) fn release(&mut self, block: Block) -> Result<(), DeviceError> {
        let before = self.given.len();
        self.given.retain(|&(address, _)| address != block.id);
        if self.given.len() == before {
            return Err(DeviceError::Unsupported(
                "this block was never given away".to_owned(),
            ));
        }
        Ok(())
    }

    fn range(&self, span: Span) -> Result<std::ops::Range<usize>, DeviceError> {
        let ends = span.offset.checked_add(span.bytes);
        let is_given = self.given.iter().any(|&(address, _)| address == span.block.id);
        match ends {
            Some(end) if end <= span.block.bytes && is_given => {
                let start = index(span.block.id + span.offset);
                Ok(start..start + index(span.bytes))
            }
            _ => Err(DeviceError::Stopped {
                work: "memory",
                reason: "an illegal memory access was encountered".to_owned(),
            }),
        }
    }

    pub(super) fn read(&self, span: Span) -> Result<&[u8], DeviceError> {
        let range = self.range(span)?;
        Ok(&self.bytes[range])
    }

    /// Writes 64-bit words, each by its index.
    pub(super) fn fill(&mut self, span: Span, word: impl Fn(u64) -> u64) -> Result<(), DeviceError> {
        let range = self.range(span)?;
        for (index, bytes) in (0..).zip(self.bytes[range].chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word(index).to_le_bytes());
        }
        self.settle();
        Ok(())
    }

    pub(super) fn write(&mut self, span: Span, data: &[u8]) -> Result<(), DeviceError> {
        let span = Span {
            bytes: data.len() as u64,
            ..span
        };
        let range = self.range(span)?;
        self.bytes[range].copy_from_slice(data);
        self.settle();
        Ok(())
    }
}

/// The stand-in is small.
pub(super) fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_used_again_and_never_twice() {
        let mut memory = Memory::new(8192);
        let a = memory.allocate(1000).unwrap();
        let b = memory.allocate(3000).unwrap();
        let c = memory.allocate(4000).unwrap();
        assert_eq!((a.id, b.id, c.id), (0, 1024, 4096));
        assert!(matches!(memory.allocate(1), Err(DeviceError::OutOfMemory { .. })));
        memory.release(b).unwrap();
        assert_eq!(memory.allocate(2000).unwrap().id, 1024);
        assert_eq!(memory.allocate(1000).unwrap().id, 3072);
    }

    #[test]
    fn a_stuck_bit_stays_whatever_is_written() {
        let mut memory = Memory::new(4096);
        let block = memory.allocate(4096).unwrap();
        memory.stick(Stuck {
            address: 100,
            bit: 3,
            value: true,
        });
        memory.write(block.all(), &[0; 4096]).unwrap();
        let read = memory.read(block.all()).unwrap();
        assert_eq!(read.iter().filter(|&&byte| byte != 0).count(), 1);
        assert_eq!(read[100], 8);
    }

    #[test]
    fn what_lies_behind_the_end_is_refused() {
        let mut memory = Memory::new(4096);
        let block = memory.allocate(100).unwrap();
        assert!(memory.read(block.part(50, 51)).is_err());
        assert!(memory.read(block.part(u64::MAX, 2)).is_err());
    }
}
