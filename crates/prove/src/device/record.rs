//! How kernels write down what they found, byte by byte.

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
