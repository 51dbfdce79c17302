//! Numbers that only a seed decides.

/// `SplitMix64`, as published by Sebastiano Vigna.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `sides`; 0 where there are none.
    pub(crate) fn below(&mut self, sides: u32) -> u32 {
        let number = self.next() % u64::from(sides.max(1));
        u32::try_from(number).unwrap_or_default()
    }
}

/// One of several, by a number that may be greater.
pub(crate) fn pick<T>(from: &[T], number: u32) -> Option<&T> {
    let count = u32::try_from(from.len()).ok().filter(|count| *count > 0)?;
    from.get(usize::try_from(number % count).ok()?)
}
