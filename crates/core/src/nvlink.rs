//! `NVLinks` of a GPU, one by one: up or down, how fast, and what went wrong on them.

use serde::Serialize;

use crate::catalog::{Architecture, Card};
use crate::reading::Reading;

/// One `NVLink`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NvLink {
    /// Its number on this GPU.
    pub index: u32,
    /// True when it is up.
    pub is_up: bool,
    /// What it was trained to, one way, in MB/s.
    pub speed_mbs: Reading<u64>,
    /// Flits that arrived with a wrong checksum.
    pub crc_flit: Reading<u64>,
    /// Data that arrived with a wrong checksum.
    pub crc_data: Reading<u64>,
    /// Packets sent again.
    pub replays: Reading<u64>,
    /// Times that it was brought up anew.
    pub recoveries: Reading<u64>,
}

impl NvLink {
    /// One of which only is known whether it is up.
    pub fn new(index: u32, is_up: bool) -> Self {
        Self {
            index,
            is_up,
            speed_mbs: Reading::NotSupported,
            crc_flit: Reading::NotSupported,
            crc_data: Reading::NotSupported,
            replays: Reading::NotSupported,
            recoveries: Reading::NotSupported,
        }
    }
}

/// Links that a GPU of this architecture has, wired or not.
pub fn made(architecture: Architecture) -> u32 {
    match architecture {
        Architecture::Hopper | Architecture::Blackwell => 18,
        Architecture::Ampere => 12,
        Architecture::Volta => 6,
        Architecture::Maxwell | Architecture::Pascal | Architecture::Turing | Architecture::Ada => 0,
    }
}

/// What one link of this architecture is trained to, one way, in MB/s, as the driver tells it; none where it differs from
/// card to card. Source: fact sheet `prove`, section 1.5.
pub fn speed_mbs(architecture: Architecture) -> Option<u64> {
    match architecture {
        Architecture::Hopper => Some(26_562),
        Architecture::Blackwell => Some(53_125),
        _ => None,
    }
}

/// Links that a card has wired: its rate in the datasheet by that of one link, both ways. None for a card without, or
/// whose links are others.
pub fn wired(card: &Card) -> Option<u32> {
    let of_one = match (card.architecture, card.compute_capability.minor) {
        (Architecture::Volta | Architecture::Hopper, _) | (Architecture::Ampere, 0) => 50,
        (Architecture::Blackwell, _) if card.compute_capability.major == 10 => 100,
        _ => return None,
    };
    Some(card.nvlink_gbs / of_one).filter(|links| *links > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    #[test]
    fn the_links_of_known_cards() {
        let of = |query: &str| wired(catalog::find(query).unwrap());
        assert_eq!(of("H100 SXM5"), Some(18));
        assert_eq!(of("A100 SXM4 80GB"), Some(12));
        assert_eq!(of("V100 SXM2 32GB"), Some(6));
        assert_eq!(of("L40S"), None);
        for card in catalog::all() {
            if let Some(links) = wired(card) {
                assert!(links <= made(card.architecture), "{}: {links}", card.name);
            }
        }
    }
}
