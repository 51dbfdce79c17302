//! The loop: every SM did the same, so the many name the few, and the CPU knows whether the many are right.

use std::collections::{BTreeMap, BTreeSet};

use super::records::LoopRecord;
use crate::device::LOOP_WARPS;

/// A warp whose hash is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deviation {
    /// CTA.
    pub cta: usize,
    /// SM that it ran on, as it says itself.
    pub sm: u32,
    /// Warp of the CTA; warps of one number modulo four share a sub-core.
    pub warp: u32,
    /// What it must be.
    pub expected: u64,
    /// What it was.
    pub got: u64,
}

/// What one launch of the loop has shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Vote {
    /// Warps that are not as the CPU knows them.
    pub deviations: Vec<Deviation>,
    /// True when the many agree with each other and not with the CPU: it is no single SM that is wrong.
    pub all_wrong: bool,
    /// SMs that took part.
    pub sms: BTreeSet<u32>,
}

/// Compares all CTAs with `golden`, one hash for each warp.
pub fn vote(records: &[LoopRecord], golden: &[u64], sms: u32) -> Vote {
    let mut found = Vote::default();
    let warps = golden.len().min(LOOP_WARPS);
    for (cta, record) in records.iter().enumerate() {
        let sm = u32::try_from(record.sm).unwrap_or(u32::MAX);
        if !is_stray(sm, sms) {
            found.sms.insert(sm);
        }
        for (warp, (&expected, &got)) in (0..).zip(golden.iter().zip(&record.hashes).take(warps)) {
            if expected != got {
                found.deviations.push(Deviation {
                    cta,
                    sm,
                    warp,
                    expected,
                    got,
                });
            }
        }
    }
    found.all_wrong = majority(records, warps).is_some_and(|most| most[..warps] != golden[..warps]);
    found
}

/// SMs are numbered without gaps on whole GPUs, and not on MIG slices: only what can be no number at all is a stray.
const fn is_stray(sm: u32, sms: u32) -> bool {
    sm >= sms.saturating_mul(16)
}

/// The hashes that more than half of the CTAs agree on.
fn majority(records: &[LoopRecord], warps: usize) -> Option<[u64; LOOP_WARPS]> {
    let mut counts: BTreeMap<&[u64], (usize, [u64; LOOP_WARPS])> = BTreeMap::new();
    for record in records {
        counts
            .entry(&record.hashes[..warps])
            .or_insert((0, record.hashes))
            .0 += 1;
    }
    let most = counts.into_values().max_by_key(|(count, _)| *count)?;
    (most.0 * 2 > records.len()).then_some(most.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sm: u64, hashes: [u64; 2]) -> LoopRecord {
        let mut all = [0; LOOP_WARPS];
        all[..2].copy_from_slice(&hashes);
        LoopRecord {
            hashes: all,
            sm,
            start: 0,
            end: 1000,
            cycles: 1980,
        }
    }

    #[test]
    fn the_sm_and_the_warp_that_differ_are_named() {
        let records: Vec<_> = (0..8)
            .map(|sm| record(sm, if sm == 5 { [1, 7] } else { [1, 2] }))
            .collect();
        let vote = vote(&records, &[1, 2], 8);
        assert!(!vote.all_wrong);
        let [one] = vote.deviations[..] else {
            panic!("{vote:?}")
        };
        assert_eq!((one.sm, one.warp, one.expected, one.got), (5, 1, 2, 7));
        assert_eq!(vote.sms.len(), 8);
    }

    #[test]
    fn all_of_them_wrong_in_the_same_way_is_seen_too() {
        let records: Vec<_> = (0..8).map(|sm| record(sm, [9, 9])).collect();
        let vote = vote(&records, &[1, 2], 8);
        assert!(vote.all_wrong);
        assert_eq!(vote.deviations.len(), 16);
    }

    #[test]
    fn a_record_that_was_never_written_is_a_deviation() {
        let vote = vote(
            &[record(0, [1, 2]), record(u64::MAX, [0, 0]), record(1, [1, 2])],
            &[1, 2],
            2,
        );
        assert_eq!(vote.sms.len(), 2, "what names no SM is nobody's");
        assert_eq!(vote.deviations.len(), 2);
    }
}
