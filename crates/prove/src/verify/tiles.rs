//! The GEMM: from tiles whose checksum is wrong to what is broken.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_core::proof::CorruptionClass;

use super::golden::GemmShape;
use super::records::{GemmRecord, RecomputeLog};

/// A tile whose checksum is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// Which GEMM of the phase.
    pub iteration: u64,
    /// The tile.
    pub tile: u32,
    /// The SM that computed it.
    pub sm: u32,
    /// What the checksum must be.
    pub expected: u32,
    /// What it was.
    pub got: u32,
}

/// Tiles of one GEMM that are wrong. A tile without a record is wrong, too.
pub fn mismatches(records: &[GemmRecord], golden: &[u32], iteration: u64) -> Vec<Mismatch> {
    const NONE: GemmRecord = GemmRecord {
        checksum: 0,
        sm: u32::MAX,
    };
    let records = records.iter().chain(std::iter::repeat(&NONE));
    (0..)
        .zip(golden.iter().zip(records))
        .filter(|(_, (expected, record))| **expected != record.checksum)
        .map(|(tile, (&expected, record))| Mismatch {
            iteration,
            tile,
            sm: record.sm,
            expected,
            got: record.checksum,
        })
        .collect()
}

/// What many mismatches have in common. The order of tiles rotates: a bad SM moves over the tiles, and bad operands
/// stay with a row or a column of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspect {
    /// All were computed by this SM.
    Sm(u32),
    /// All are in this row of tiles, by several SMs: an operand of A.
    Rows(u32),
    /// All are in this column of tiles, by several SMs: an operand of B.
    Columns(u32),
    /// All are this tile, by several SMs.
    Tile(u32),
    /// Nothing.
    Scattered,
}

/// Finds it; none without a mismatch.
pub fn suspect(mismatches: &[Mismatch], shape: &GemmShape) -> Option<Suspect> {
    let mut by_sm: BTreeMap<u32, usize> = BTreeMap::new();
    let mut rows = BTreeSet::new();
    let mut columns = BTreeSet::new();
    for mismatch in mismatches {
        *by_sm.entry(mismatch.sm).or_default() += 1;
        let (row, column) = shape.place(mismatch.tile);
        rows.insert(row);
        columns.insert(column);
    }
    let (&worst, &of_worst) = by_sm.iter().max_by_key(|(_, count)| **count)?;
    // Beside a bad SM one cosmic ray elsewhere may be.
    if of_worst * 10 >= mismatches.len() * 9 {
        return Some(Suspect::Sm(worst));
    }
    Some(match (rows.len(), columns.len()) {
        (1, 1) => Suspect::Tile(mismatches.first()?.tile),
        (1, _) => Suspect::Rows(rows.first().copied()?),
        (_, 1) => Suspect::Columns(columns.first().copied()?),
        _ => Suspect::Scattered,
    })
}

/// What a second look at a wrong tile has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondLook {
    /// The tile computed again by integers on another SM, from memory as it is.
    pub recomputed: RecomputeLog,
    /// Operands of the tile that are wrong in memory.
    pub wrong_operands: usize,
    /// The same GEMM was done again, and the same SM was wrong again.
    pub sm_wrong_again: bool,
}

/// The cause of a wrong tile.
pub fn cause(mismatch: &Mismatch, look: &SecondLook) -> CorruptionClass {
    if look.wrong_operands > 0 {
        CorruptionClass::OperandMemory
    } else if look.sm_wrong_again {
        CorruptionClass::ComputePermanent
    } else if look.recomputed.checksum == mismatch.expected {
        CorruptionClass::ComputeTransient
    } else {
        // Operands are right and integers give something else than the CPU: who recomputed is wrong as well.
        CorruptionClass::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Format;

    const SHAPE: GemmShape = GemmShape {
        format: Format::Bf16,
        m: 64,
        n: 64,
        k: 8,
        tile_rows: 8,
        tile_columns: 8,
        seed_a: 1,
        seed_b: 2,
        weight_seed: 3,
    };

    fn wrong(tile: u32, sm: u32) -> Mismatch {
        Mismatch {
            iteration: 0,
            tile,
            sm,
            expected: 0,
            got: 1,
        }
    }

    #[test]
    fn what_mismatches_have_in_common_is_found() {
        let find = |of: &[(u32, u32)]| {
            suspect(
                &of.iter().map(|&(tile, sm)| wrong(tile, sm)).collect::<Vec<_>>(),
                &SHAPE,
            )
        };
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[(3, 5), (12, 5), (60, 5)]), Some(Suspect::Sm(5)));
        assert_eq!(find(&[(8, 1), (9, 2), (15, 3)]), Some(Suspect::Rows(1)));
        assert_eq!(find(&[(1, 1), (9, 2), (17, 3)]), Some(Suspect::Columns(1)));
        assert_eq!(find(&[(9, 1), (9, 2), (9, 3)]), Some(Suspect::Tile(9)));
        assert_eq!(find(&[(1, 1), (9, 2), (20, 3)]), Some(Suspect::Scattered));
        let mut most: Vec<_> = (0..20).map(|tile| (tile, 7)).collect();
        most.push((40, 2));
        assert_eq!(find(&most), Some(Suspect::Sm(7)));
    }

    #[test]
    fn a_tile_without_a_record_is_wrong() {
        let records = [GemmRecord { checksum: 4, sm: 1 }];
        let found = mismatches(&records, &[4, 5], 0);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].tile, found[0].sm), (1, u32::MAX));
    }

    #[test]
    fn a_second_look_tells_causes_apart() {
        let look = |wrong_operands, sm_wrong_again, checksum| SecondLook {
            recomputed: RecomputeLog {
                count: 0,
                checksum,
                sm: 3,
                differences: Vec::new(),
            },
            wrong_operands,
            sm_wrong_again,
        };
        let mismatch = wrong(1, 5);
        assert_eq!(
            cause(&mismatch, &look(1, true, 1)),
            CorruptionClass::OperandMemory
        );
        assert_eq!(
            cause(&mismatch, &look(0, true, 0)),
            CorruptionClass::ComputePermanent
        );
        assert_eq!(
            cause(&mismatch, &look(0, false, 0)),
            CorruptionClass::ComputeTransient
        );
        assert_eq!(cause(&mismatch, &look(0, false, 9)), CorruptionClass::Unknown);
    }
}
