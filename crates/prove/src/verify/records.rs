//! The records that kernels write, from bytes. Total: whatever a broken GPU leaves in memory is read without a panic.

use pitcrew_core::proof::{Bits, Corruption};

use crate::device::{
    GEMM_RECORD_BYTES, LOOP_RECORD_BYTES, LOOP_WARPS, MARCH_LOG_ENTRIES, RECOMPUTE_LOG_ENTRIES,
};

/// What one CTA of a loop wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopRecord {
    /// Hash of each warp.
    pub hashes: [u64; LOOP_WARPS],
    /// The SM that it ran on.
    pub sm: u64,
    /// Start by the global timer, in ns.
    pub start: u64,
    /// End by the global timer, in ns.
    pub end: u64,
    /// Cycles of the SM's clock between them.
    pub cycles: u64,
}

impl LoopRecord {
    /// Mean clock of the SM in MHz; none where the timer stood still.
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of nanoseconds and cycles are far below 2^53"
    )]
    pub fn clock_mhz(&self) -> Option<f64> {
        let nanoseconds = self.end.checked_sub(self.start).filter(|&ns| ns > 0)?;
        Some(self.cycles as f64 * 1000.0 / nanoseconds as f64)
    }
}

/// What is written for one tile of a GEMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmRecord {
    /// Checksum of the tile.
    pub checksum: u32,
    /// The SM that it ran on.
    pub sm: u32,
}

/// One wrong word of a march.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarchError {
    /// Offset in bytes from the start of the span.
    pub offset: u64,
    /// What must be there.
    pub expected: u64,
    /// What was read.
    pub got: u64,
    /// What was read again, past the caches.
    pub second: u64,
    /// The SM that read it.
    pub sm: u64,
}

impl MarchError {
    /// A corruption with what this says of it.
    pub(crate) fn told_in(&self, corruption: &Corruption) -> Corruption {
        Corruption {
            offset: Some(self.offset),
            expected: Some(Bits(self.expected)),
            got: Some(Bits(self.got)),
            second_read: Some(Bits(self.second)),
            ..*corruption
        }
    }
}

/// The log of marches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MarchLog {
    /// Wrong words, all of them.
    pub count: u64,
    /// The first of them that the log had room for.
    pub errors: Vec<MarchError>,
}

/// One value of a recomputed tile that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Row in the whole C.
    pub row: u32,
    /// Column in the whole C.
    pub column: u32,
    /// What must be stored there.
    pub expected: u64,
    /// What is stored there.
    pub got: u64,
}

/// The log of a recomputed tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecomputeLog {
    /// Differences, all of them.
    pub count: u32,
    /// Checksum of the recomputed tile.
    pub checksum: u32,
    /// The SM that recomputed it.
    pub sm: u32,
    /// The first differences.
    pub differences: Vec<Difference>,
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(word)
}

fn halves(word: u64) -> (u32, u32) {
    let low = u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default();
    let high = u32::try_from(word >> 32).unwrap_or_default();
    (low, high)
}

fn chunks(bytes: &[u8], size: u64) -> std::slice::ChunksExact<'_, u8> {
    bytes.chunks_exact(usize::try_from(size).unwrap_or(usize::MAX))
}

/// All records of a loop, in the order of the CTAs.
pub fn loop_records(bytes: &[u8]) -> Vec<LoopRecord> {
    chunks(bytes, LOOP_RECORD_BYTES)
        .map(|record| {
            let mut words = words(record);
            let mut next = || words.next().unwrap_or_default();
            LoopRecord {
                hashes: std::array::from_fn(|_| next()),
                sm: next(),
                start: next(),
                end: next(),
                cycles: next(),
            }
        })
        .collect()
}

/// The number that up to eight bytes are, little end first.
pub fn word(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().take(8).rev();
    bytes.fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// All records of a GEMM, in the order of the tiles.
pub fn gemm_records(bytes: &[u8]) -> Vec<GemmRecord> {
    chunks(bytes, GEMM_RECORD_BYTES)
        .flat_map(words)
        .map(|word| {
            let (checksum, sm) = halves(word);
            GemmRecord { checksum, sm }
        })
        .collect()
}

/// The log of marches. Entries that nobody has finished are left out, as far as the count tells.
pub fn march_log(bytes: &[u8]) -> MarchLog {
    let count = words(bytes).next().unwrap_or_default();
    let entries = usize::try_from(count.min(MARCH_LOG_ENTRIES)).unwrap_or_default();
    let errors = chunks(bytes.get(8..).unwrap_or_default(), 40)
        .take(entries)
        .map(|entry| {
            let mut words = words(entry);
            let mut next = || words.next().unwrap_or_default();
            MarchError {
                offset: next(),
                expected: next(),
                got: next(),
                second: next(),
                sm: next(),
            }
        });
    MarchLog {
        count,
        errors: errors.collect(),
    }
}

/// The log of a recomputed tile.
pub fn recompute_log(bytes: &[u8]) -> RecomputeLog {
    let mut head = words(bytes);
    let (count, checksum) = halves(head.next().unwrap_or_default());
    let (sm, _) = halves(head.next().unwrap_or_default());
    let entries = usize::try_from(u64::from(count).min(RECOMPUTE_LOG_ENTRIES)).unwrap_or_default();
    let differences = chunks(bytes.get(16..).unwrap_or_default(), 24)
        .take(entries)
        .map(|entry| {
            let mut words = words(entry);
            let mut next = || words.next().unwrap_or_default();
            let (row, column) = halves(next());
            Difference {
                row,
                column,
                expected: next(),
                got: next(),
            }
        });
    RecomputeLog {
        count,
        checksum,
        sm,
        differences: differences.collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let bytes: Vec<u8> = (0_u64..20).flat_map(u64::to_le_bytes).collect();
        let [record] = loop_records(&bytes)[..] else {
            panic!()
        };
        assert_eq!(record.hashes, std::array::from_fn(|i| i as u64));
        assert_eq!(
            (record.sm, record.start, record.end, record.cycles),
            (16, 17, 18, 19)
        );
        assert_eq!(record.clock_mhz(), Some(19_000.0));
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(gemm_records(&bytes), [GemmRecord { checksum: 1, sm: 2 }]);
    }

    proptest! {
        #[test]
        fn whatever_is_in_memory_is_read(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = loop_records(&bytes);
            let _ = gemm_records(&bytes);
            prop_assert!(march_log(&bytes).errors.len() as u64 <= MARCH_LOG_ENTRIES);
            prop_assert!(recompute_log(&bytes).differences.len() as u64 <= RECOMPUTE_LOG_ENTRIES);
        }
    }
}
