//! The march: from wrong words to what is broken in the memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::records::MarchError;

/// What wrong words have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// Wrong words that were looked at.
    pub words: usize,
    /// Of those, how many a second read past the caches found right: read wrong, not stored wrong.
    pub read_right_again: usize,
    /// For each of the 64 bit lanes how often it was wrong.
    pub lanes: [u32; 64],
    /// The one bit that was wrong always, and what it is stuck at.
    pub stuck: Option<(u32, bool)>,
    /// Lowest and highest offset in bytes.
    pub range: (u64, u64),
    /// Different offsets.
    pub places: usize,
    /// Distance in bytes of which all distances between wrong words are multiples, where there are three at least and it
    /// is more than a word: the same column or channel of the memory.
    pub stride: Option<u64>,
    /// The SM that read all of them, where several words were wrong: then it is the SM rather than the memory.
    pub only_sm: Option<u64>,
}

/// True when the second read was right.
pub const fn is_transient(error: &MarchError) -> bool {
    error.second == error.expected
}

/// Looks at wrong words; none where there are none.
pub fn analyse(errors: &[MarchError]) -> Option<Analysis> {
    let first = errors.first()?;
    let mut lanes = [0_u32; 64];
    let mut offsets: Vec<u64> = Vec::with_capacity(errors.len());
    let mut by_sm: BTreeMap<u64, usize> = BTreeMap::new();
    for error in errors {
        let wrong = error.expected ^ error.got;
        for (bit, count) in (0..64).zip(&mut lanes) {
            *count += u32::from(wrong >> bit & 1 == 1);
        }
        offsets.push(error.offset);
        *by_sm.entry(error.sm).or_default() += 1;
    }
    offsets.sort_unstable();
    offsets.dedup();
    let difference = first.expected ^ first.got;
    let same_bit = difference.is_power_of_two()
        && errors.iter().all(|error| {
            error.expected ^ error.got == difference && error.got & difference == first.got & difference
        });
    let distances = offsets.windows(2).map(|pair| pair[1] - pair[0]);
    let stride = distances.fold(0, greatest_common_divisor);
    Some(Analysis {
        words: errors.len(),
        read_right_again: errors.iter().filter(|error| is_transient(error)).count(),
        lanes,
        stuck: same_bit.then(|| (difference.trailing_zeros(), first.got & difference != 0)),
        range: (
            offsets.first().copied().unwrap_or_default(),
            offsets.last().copied().unwrap_or_default(),
        ),
        places: offsets.len(),
        stride: (offsets.len() >= 3 && stride > 8).then_some(stride),
        only_sm: (offsets.len() >= 8 && by_sm.len() == 1).then_some(first.sm),
    })
}

const fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Analysis {
    /// In one line, lower case, without a period.
    pub fn words(&self) -> String {
        let mut text = match self.places {
            1 => format!("one word at offset {:#x}", self.range.0),
            places => format!(
                "{places} words between offsets {:#x} and {:#x}",
                self.range.0, self.range.1
            ),
        };
        if let Some((bit, value)) = self.stuck {
            let _ = write!(text, ", bit {bit} stuck at {}", u8::from(value));
        } else {
            let lanes = self.lanes.iter().filter(|&&count| count > 0).count();
            let _ = write!(text, ", {lanes} of 64 bit lanes");
        }
        if let Some(stride) = self.stride {
            let _ = write!(text, ", always {stride} bytes or a multiple apart");
        }
        if let Some(sm) = self.only_sm {
            let _ = write!(text, ", all read by SM {sm}");
        }
        if self.read_right_again == self.words {
            text.push_str(", right when read again");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(offset: u64, expected: u64, got: u64, second: u64, sm: u64) -> MarchError {
        MarchError {
            offset,
            expected,
            got,
            second,
            sm,
        }
    }

    #[test]
    fn a_stuck_bit_is_told_with_its_place_and_value() {
        let errors = [error(0x1000, 0, 4, 4, 1), error(0x1000, 3, 7, 7, 9)];
        let found = analyse(&errors).unwrap();
        assert_eq!(found.stuck, Some((2, true)));
        assert_eq!(found.words(), "one word at offset 0x1000, bit 2 stuck at 1");
    }

    #[test]
    fn a_bad_channel_shows_as_a_stride_and_one_lane_of_both_values() {
        let errors: Vec<_> = [0, 1, 3, 4, 7, 12]
            .map(|i| error(512 + i * 4096, i << 8, i << 8 ^ 16, i << 8 ^ 16, i))
            .to_vec();
        let found = analyse(&errors).unwrap();
        assert_eq!(found.stride, Some(4096));
        assert_eq!(found.lanes[4], 6);
    }

    #[test]
    fn what_reads_right_again_was_not_stored_wrong() {
        let found = analyse(&[error(8, 1, 0, 1, 0)]).unwrap();
        assert_eq!(found.read_right_again, 1);
        assert!(found.words().ends_with("right when read again"));
    }

    #[test]
    fn errors_that_one_sm_alone_reads_are_the_sms() {
        let errors: Vec<_> = (0..20).map(|i| error(i * 72, 0, 1 << (i % 5), 0, 6)).collect();
        assert_eq!(analyse(&errors).unwrap().only_sm, Some(6));
        assert_eq!(analyse(&[]), None);
    }
}
