//! Finding a card: exactly, by what the hardware says, or for people, by what they type.

use std::cmp::Reverse;

use regex_lite::RegexBuilder;

use super::{Card, all};

/// What was typed names no card, or several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No card is called so.
    #[error("no card is called `{query}`")]
    Unknown {
        /// What was typed.
        query: String,
        /// The cards with the most similar names, nearest first.
        near: Vec<String>,
    },
    /// Several cards are.
    #[error("`{query}` could be any of {} cards", candidates.len())]
    Ambiguous {
        /// What was typed.
        query: String,
        /// The cards it could be.
        candidates: Vec<String>,
    },
}

/// The card behind a PCI device id and a product name.
///
/// The id decides; where two cards share one, the name does, and without a name the first of them is taken. A card
/// with an id that we don't know is found by its name.
pub fn lookup(pci_device_id: Option<u16>, name: Option<&str>) -> Option<&'static Card> {
    let same_id: Vec<&Card> = all()
        .iter()
        .filter(|card| Some(card.pci_device_id) == pci_device_id)
        .collect();
    let by_name = |card: &Card| name.is_some_and(|name| matches(card, name));
    match same_id.as_slice() {
        [] => best_match(all().iter().filter(|card| by_name(card))),
        [card] => Some(card),
        several => several
            .iter()
            .copied()
            .find(|card| by_name(card))
            .or_else(|| several.first().copied()),
    }
}

/// Of several cards whose patterns match, the one with the longest: `RTX PRO 6000 Blackwell Server` over less.
fn best_match(cards: impl Iterator<Item = &'static Card>) -> Option<&'static Card> {
    cards.max_by_key(|card| card.name_pattern.len())
}

fn matches(card: &Card, name: &str) -> bool {
    RegexBuilder::new(&card.name_pattern)
        .build()
        .is_ok_and(|pattern| pattern.is_match(name))
}

/// The card that a person means: its name or a part of it, in any case and spacing, the driver's name for it, or its
/// PCI id as `10de:2330` or `0x2330`.
pub fn find(query: &str) -> Result<&'static Card, LookupError> {
    let wanted = plain(query);
    let by_id = pci_id(query);
    let stages: [&dyn Fn(&Card) -> bool; 5] = [
        &|card| plain(&card.name) == wanted,
        &|card| by_id == Some(card.pci_device_id),
        &|card| without_family(&plain(&card.name)) == without_family(&wanted),
        &|card| without_family(&plain(&card.name)).starts_with(without_family(&wanted)),
        &|card| {
            plain(&card.name).contains(&wanted) || query.trim().contains(' ') && matches(card, query.trim())
        },
    ];
    if !wanted.is_empty() {
        for stage in stages {
            let found: Vec<&'static Card> = all().iter().filter(|card| stage(card)).collect();
            match found.as_slice() {
                [] => {}
                [card] => return Ok(card),
                several => {
                    let candidates = several.iter().map(|card| card.name.clone()).collect();
                    return Err(LookupError::Ambiguous {
                        query: query.to_owned(),
                        candidates,
                    });
                }
            }
        }
    }
    Err(LookupError::Unknown {
        query: query.to_owned(),
        near: nearest(&wanted),
    })
}

/// Letters and digits alone, in lower case.
fn plain(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Without the words that people leave out.
fn without_family(plain: &str) -> &str {
    let mut rest = plain;
    for word in ["nvidia", "geforce", "tesla", "quadro"] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest
}

fn pci_id(query: &str) -> Option<u16> {
    let query = query.trim().to_ascii_lowercase();
    let digits = query.strip_prefix("10de:").or_else(|| query.strip_prefix("0x"))?;
    u16::from_str_radix(digits, 16).ok()
}

/// The three cards whose names share the most pairs of neighbouring characters with what was typed.
fn nearest(wanted: &str) -> Vec<String> {
    let pairs = |text: &str| -> Vec<(char, char)> { text.chars().zip(text.chars().skip(1)).collect() };
    let wanted = pairs(wanted);
    let shared = |card: &Card| {
        let name = pairs(&plain(&card.name));
        let common = wanted.iter().filter(|pair| name.contains(pair)).count();
        // Twice what is common over what there is, in thousandths: short names aren't drowned by long ones.
        2000 * common / (wanted.len() + name.len()).max(1)
    };
    let mut cards: Vec<(usize, &Card)> = all().iter().map(|card| (shared(card), card)).collect();
    cards.sort_by_key(|(score, _)| Reverse(*score));
    cards
        .iter()
        .take_while(|(score, _)| *score > 0)
        .take(3)
        .map(|(_, card)| card.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_find_cards_by_what_they_call_them() {
        for (query, name) in [
            ("rtx3060", "GeForce RTX 3060 12GB"),
            ("H100 SXM5 80GB", "H100 SXM5 80GB"),
            ("NVIDIA H100 80GB HBM3", "H100 SXM5 80GB"),
            ("10de:2330", "H100 SXM5 80GB"),
            ("0x1eb8", "Tesla T4"),
            ("t4", "Tesla T4"),
            ("a30", "A30"),
            ("NVIDIA A30", "A30"),
            ("l40s", "L40S"),
            ("rtx pro 6000 blackwell server", "RTX PRO 6000 Blackwell Server"),
        ] {
            assert_eq!(find(query).map(|card| card.name.as_str()), Ok(name), "{query}");
        }
    }

    #[test]
    fn an_ambiguous_name_lists_the_candidates() {
        let Err(LookupError::Ambiguous { candidates, .. }) = find("h100") else {
            panic!("h100 is ambiguous")
        };
        assert_eq!(candidates, ["H100 PCIe 80GB", "H100 SXM5 80GB", "H100 NVL 94GB"]);
    }

    #[test]
    fn an_unknown_name_lists_the_nearest() {
        let Err(LookupError::Unknown { near, .. }) = find("rtx 3065") else {
            panic!("there is no such card")
        };
        assert!(near.iter().any(|name| name.contains("RTX 30")), "{near:?}");
        assert!(find("").is_err());
    }

    #[test]
    fn a_shared_pci_id_is_settled_by_the_name() {
        let name = |id, name| lookup(Some(id), name).map(|card| card.name.as_str());
        assert_eq!(name(0x25b6, Some("NVIDIA A2")), Some("A2"));
        assert_eq!(name(0x25b6, Some("NVIDIA A16")), Some("A16 (per GPU)"));
        assert_eq!(name(0x1e30, Some("Quadro RTX 8000")), Some("Quadro RTX 8000"));
        assert_eq!(
            name(0xffff, Some("NVIDIA H100 80GB HBM3")),
            Some("H100 SXM5 80GB")
        );
        assert_eq!(name(0xffff, None), None);
    }

    #[test]
    fn every_pattern_is_a_regular_expression() {
        for card in all() {
            assert!(
                RegexBuilder::new(&card.name_pattern).build().is_ok(),
                "{}",
                card.name
            );
            assert_eq!(find(&card.name).map(|found| &found.name), Ok(&card.name));
        }
    }

    proptest! {
        #[test]
        fn nothing_typed_makes_it_panic(query in "\\PC*") {
            let _ = find(&query);
            let _ = lookup(None, Some(&query));
        }
    }
}
