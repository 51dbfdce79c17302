//! Why a GPU's clocks are where they are: NVML's `nvmlClocksEventReason*` bits in words.
//!
//! Source: `nvml.h` (public header of the driver's management library). Bits that are not there yet are told as a
//! number, never dropped.

/// What kind of thing holds the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing to do for the GPU.
    Idle,
    /// Somebody set it so.
    Setting,
    /// As the card is meant to work: at its power limit.
    Normal,
    /// The card protects itself: heat, or power that isn't there. It is slower than it should be.
    Brake,
}

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Its bit.
    pub bit: u64,
    /// In a few words, lower case.
    pub words: &'static str,
    /// What kind it is.
    pub hold: Hold,
}

const fn reason(bit: u64, words: &'static str, hold: Hold) -> Reason {
    Reason { bit, words, hold }
}

/// All reasons that are known, by bit.
pub const REASONS: &[Reason] = &[
    reason(0x1, "idle", Hold::Idle),
    reason(0x2, "clocks set", Hold::Setting),
    reason(0x4, "power limit", Hold::Normal),
    reason(0x8, "hw slowdown", Hold::Brake),
    reason(0x10, "sync boost", Hold::Setting),
    reason(0x20, "hot (driver)", Hold::Brake),
    reason(0x40, "hot (card)", Hold::Brake),
    reason(0x80, "power brake", Hold::Brake),
    reason(0x100, "display", Hold::Setting),
];

/// The bits of all reasons of a kind.
pub fn bits(hold: Hold) -> u64 {
    let of_kind = REASONS.iter().filter(|reason| reason.hold == hold);
    of_kind.fold(0, |bits, reason| bits | reason.bit)
}

/// The reasons in `bits`, gravest kind first; of one kind by bit.
pub fn reasons(bits: u64) -> Vec<&'static Reason> {
    let mut found: Vec<_> = REASONS.iter().filter(|reason| bits & reason.bit != 0).collect();
    found.sort_by_key(|reason| match reason.hold {
        Hold::Brake => 0,
        Hold::Normal => 1,
        Hold::Setting => 2,
        Hold::Idle => 3,
    });
    found
}

/// The reasons in words, e.g. `hot (card), power limit`; `nothing` for no bit.
pub fn words(bits: u64) -> String {
    let mut words: Vec<String> = reasons(bits)
        .iter()
        .map(|reason| reason.words.to_owned())
        .collect();
    let unknown = REASONS.iter().fold(bits, |bits, reason| bits & !reason.bit);
    if unknown != 0 {
        words.push(format!("unknown reason {unknown:#x}"));
    }
    if words.is_empty() {
        return "nothing".to_owned();
    }
    words.join(", ")
}

/// True when the card protects itself.
pub fn is_braked(bits: u64) -> bool {
    bits & self::bits(Hold::Brake) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_told_and_the_gravest_first() {
        assert_eq!(words(0), "nothing");
        assert_eq!(words(0x1), "idle");
        assert_eq!(words(0x44), "hot (card), power limit");
        assert_eq!(words(0x8000_0004), "power limit, unknown reason 0x80000000");
        assert!(is_braked(0x48) && !is_braked(0x105));
    }

    #[test]
    fn the_bits_are_single_and_in_order() {
        assert!(REASONS.windows(2).all(|pair| pair[0].bit < pair[1].bit));
        assert!(REASONS.iter().all(|reason| reason.bit.is_power_of_two()));
    }
}
