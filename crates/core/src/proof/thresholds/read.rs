//! Thresholds as a person writes them: YAML, with the line and the key of what is wrong.

use serde_saphyr::Spanned;

use super::{Borders, CardFigures, Thresholds};
use crate::document::{self, Tree};
use crate::proof::Format;

/// Longest text that is read, in bytes.
pub const MAX_THRESHOLDS_BYTES: usize = 256 << 10;
/// Most cards that it tells of; the catalogue has fewer.
const MAX_CARDS: usize = 256;
/// Longest name of a card, in bytes (`NVML_DEVICE_NAME_V2_BUFFER_SIZE`).
const MAX_NAME: usize = 96;
/// More than any card reaches, in TFLOP/s or GB/s.
const MAX_FIGURE: f64 = 1e6;

/// A text that holds no thresholds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdsError {
    /// It is too long.
    #[error("{bytes} bytes are more than thresholds take (at most {MAX_THRESHOLDS_BYTES})")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is no YAML.
    #[error(transparent)]
    Syntax(#[from] document::SyntaxError),
    /// Something in it can't be.
    #[error("line {line}: `{key}` {what}")]
    Key {
        /// Line, from 1.
        line: u64,
        /// The key, with those above it: `cards[0].memory_gbs`.
        key: String,
        /// What is wrong with it.
        what: String,
    },
}

/// A value, and where it stands.
struct At<'a> {
    key: String,
    line: u64,
    tree: &'a Tree,
}

impl<'a> At<'a> {
    fn refuse<T>(&self, what: impl Into<String>) -> Result<T, ThresholdsError> {
        // What stands in a file may act on a terminal.
        let plain = |text: &str| {
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect()
        };
        Err(ThresholdsError::Key {
            line: self.line,
            key: plain(&self.key),
            what: plain(&what.into()),
        })
    }

    fn must_be<T>(&self, wanted: &str) -> Result<T, ThresholdsError> {
        self.refuse(format!("must be {wanted}, not {}", self.tree.kind()))
    }

    /// Each entry of a map, none twice.
    fn entries(&self) -> Result<Vec<(&'a str, At<'a>)>, ThresholdsError> {
        let Tree::Map(entries) = self.tree else {
            return self.must_be("a map");
        };
        let mut seen: Vec<(&str, At<'_>)> = Vec::new();
        for (key, value) in entries {
            let name = key.value.as_str();
            let above = if self.key.is_empty() { "" } else { "." };
            let at = At {
                key: format!("{}{above}{name}", self.key),
                line: key.referenced.line(),
                tree: &value.value,
            };
            if seen.iter().any(|(known, _)| *known == name) {
                return at.refuse("is there twice");
            }
            seen.push((name, at));
        }
        Ok(seen)
    }

    fn items(&self, most: usize) -> Result<Vec<At<'a>>, ThresholdsError> {
        let Tree::List(items) = self.tree else {
            return self.must_be("a list");
        };
        if items.len() > most {
            return self.refuse(format!("has {} entries, and may have {most}", items.len()));
        }
        let item = |(index, item): (usize, &'a Spanned<Tree>)| At {
            key: format!("{}[{index}]", self.key),
            line: item.referenced.line(),
            tree: &item.value,
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    fn unknown<T>(&self, known: &[&str]) -> Result<T, ThresholdsError> {
        self.refuse(format!("is not known here; known are {}", known.join(", ")))
    }

    fn number(&self, wanted: &str, is_good: impl Fn(f64) -> bool) -> Result<f64, ThresholdsError> {
        let number = match self.tree {
            #[expect(clippy::cast_precision_loss, reason = "what is so large is refused")]
            Tree::Int(number) => *number as f64,
            Tree::Float(number) => *number,
            _ => return self.must_be(wanted),
        };
        if is_good(number) {
            Ok(number)
        } else {
            self.must_be(wanted)
        }
    }

    /// A part of what should be.
    fn part(&self) -> Result<f64, ThresholdsError> {
        self.number("a number above 0 and at most 1", |number| {
            number > 0.0 && number <= 1.0
        })
    }

    /// A rate that a card reaches.
    fn figure(&self) -> Result<f64, ThresholdsError> {
        self.number("a number above 0 and at most 1000000", |number| {
            number > 0.0 && number <= MAX_FIGURE
        })
    }

    fn count(&self) -> Result<u64, ThresholdsError> {
        let wanted = "a whole number from 0 to 4294967295";
        match self.tree {
            Tree::Int(number) => match u32::try_from(*number) {
                Ok(number) => Ok(number.into()),
                Err(_) => self.must_be(wanted),
            },
            _ => self.must_be(wanted),
        }
    }

    fn borders(&self, usual: Borders) -> Result<Borders, ThresholdsError> {
        let mut borders = usual;
        for (name, at) in self.entries()? {
            match name {
                "warn" => borders.warn = at.part()?,
                "fail" => borders.fail = at.part()?,
                _ => return at.unknown(&["warn", "fail"]),
            }
        }
        if borders.fail > borders.warn {
            return self.refuse(format!(
                "fails below {} and warns only below {}",
                borders.fail, borders.warn
            ));
        }
        Ok(borders)
    }

    fn name(&self) -> Result<String, ThresholdsError> {
        match self.tree {
            Tree::Text(name) if is_name(name) => Ok(name.clone()),
            _ => self.must_be("the name of a card, such as `NVIDIA L40S`"),
        }
    }

    /// `0x2330`: a number in YAML 1.2 and a text in quotes.
    fn pci_id(&self) -> Result<u16, ThresholdsError> {
        let id = match self.tree {
            Tree::Int(number) => u16::try_from(*number).ok(),
            Tree::Text(text) => text
                .strip_prefix("0x")
                .and_then(|hex| u16::from_str_radix(hex, 16).ok()),
            _ => None,
        };
        match id {
            Some(id) => Ok(id),
            None => self.must_be("a PCI device id such as `0x2330`"),
        }
    }

    fn card(&self) -> Result<CardFigures, ThresholdsError> {
        const KNOWN: [&str; 6] = [
            "name",
            "pci_device_id",
            "products_tflops",
            "memory_gbs",
            "pcie_gbs",
            "nvlink_gbs",
        ];
        let mut card = CardFigures::default();
        for (name, at) in self.entries()? {
            match name {
                "name" => card.name = Some(at.name()?),
                "pci_device_id" => card.pci_device_id = Some(at.pci_id()?),
                "memory_gbs" => card.memory_gbs = Some(at.figure()?),
                "pcie_gbs" => card.pcie_gbs = Some(at.figure()?),
                "nvlink_gbs" => card.nvlink_gbs = Some(at.figure()?),
                "products_tflops" => {
                    for (format, at) in at.entries()? {
                        let Ok(format) = format.parse::<Format>() else {
                            let known: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
                            return at.unknown(&known);
                        };
                        card.products_tflops.insert(format, at.figure()?);
                    }
                }
                _ => return at.unknown(&KNOWN),
            }
        }
        if card.name.is_none() && card.pci_device_id.is_none() {
            return self.refuse("says of no card what it reaches: give it `name` or `pci_device_id`");
        }
        Ok(card)
    }
}

/// A product name: nothing that a terminal would act on.
fn is_name(name: &str) -> bool {
    let is_inside = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    !name.trim().is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_inside)
}

/// The thresholds of a text. What it doesn't tell is as usual; an empty one changes nothing.
///
/// # Errors
/// Where it is too long, no YAML, has a key that isn't known or is there twice, or a value that can't be.
pub fn parse_thresholds(text: &str) -> Result<Thresholds, ThresholdsError> {
    const KNOWN: [&str; 9] = [
        "pipe_efficiency",
        "tensor",
        "memory",
        "pcie",
        "nvlink",
        "sm",
        "pcie_replays",
        "nvlink_crc",
        "cards",
    ];
    if text.len() > MAX_THRESHOLDS_BYTES {
        return Err(ThresholdsError::TooLong { bytes: text.len() });
    }
    let tree = document::parse(text)?;
    let mut thresholds = Thresholds::default();
    let top = At {
        key: String::new(),
        line: tree.referenced.line(),
        tree: &tree.value,
    };
    if matches!(top.tree, Tree::Null) {
        return Ok(thresholds);
    }
    let Tree::Map(_) = top.tree else {
        let (line, column) = (tree.referenced.line(), tree.referenced.column());
        let what = format!("thresholds are a map, not {}", top.tree.kind());
        return Err(document::SyntaxError { line, column, what }.into());
    };
    for (name, at) in top.entries()? {
        match name {
            "pipe_efficiency" => thresholds.pipe_efficiency = at.borders(thresholds.pipe_efficiency)?,
            "tensor" => thresholds.tensor = at.borders(thresholds.tensor)?,
            "memory" => thresholds.memory = at.borders(thresholds.memory)?,
            "pcie" => thresholds.pcie = at.borders(thresholds.pcie)?,
            "nvlink" => thresholds.nvlink = at.borders(thresholds.nvlink)?,
            "sm" => thresholds.sm = at.part()?,
            "pcie_replays" => thresholds.pcie_replays = at.count()?,
            "nvlink_crc" => thresholds.nvlink_crc = at.count()?,
            "cards" => {
                for card in at.items(MAX_CARDS)? {
                    thresholds.cards.push(card.card()?);
                }
            }
            _ => return at.unknown(&KNOWN),
        }
    }
    Ok(thresholds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: &str = "\
tensor: {warn: 0.95, fail: 0.9}
pipe_efficiency: {warn: 0.85}
sm: 0.8
pcie_replays: 0
nvlink_crc: 10
cards:
  - name: NVIDIA L40S
    products_tflops: {bf16: 240, fp8: 460.5}
    memory_gbs: 715
  - pci_device_id: 0x2330
    pcie_gbs: 50
    nvlink_gbs: 370
";

    #[test]
    fn what_is_told_counts_and_the_rest_is_as_usual() {
        let read = parse_thresholds(ALL).unwrap();
        let usual = Thresholds::default();
        assert_eq!(
            read.tensor,
            Borders {
                warn: 0.95,
                fail: 0.9
            }
        );
        assert_eq!(
            read.pipe_efficiency,
            Borders {
                warn: 0.85,
                fail: 0.8
            }
        );
        assert_eq!((read.pcie_replays, read.nvlink_crc), (0, 10));
        assert_eq!(read.memory, usual.memory);
        assert!((read.cards[0].products_tflops[&Format::Fp8] - 460.5).abs() < 1e-9);
        assert_eq!(read.cards[1].pci_device_id, Some(0x2330));
        for nothing in ["", "# thresholds\n", "---\n", "{}"] {
            assert_eq!(parse_thresholds(nothing), Ok(usual.clone()), "{nothing:?}");
        }
    }

    #[test]
    fn what_a_report_tells_of_its_thresholds_can_be_given_again() {
        let read = parse_thresholds(ALL).unwrap();
        let written = serde_json::to_string_pretty(&read).unwrap();
        assert_eq!(parse_thresholds(&written), Ok(read.clone()));
        assert_eq!(serde_json::from_str::<Thresholds>(&written).unwrap(), read);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_key() {
        for (text, refused) in [
            (
                "sm: 0.9\ntensr: {warn: 0.9}\n",
                "line 2: `tensr` is not known here; known are pipe_efficiency, tensor, memory, pcie, nvlink, sm, \
                 pcie_replays, nvlink_crc, cards",
            ),
            (
                "tensor:\n  warn: 1.2\n",
                "line 2: `tensor.warn` must be a number above 0 and at most 1, not `1.2`",
            ),
            (
                "memory: {warn: 0.5}\n",
                "line 1: `memory` fails below 0.8 and warns only below 0.5",
            ),
            (
                "sm:\n",
                "line 1: `sm` must be a number above 0 and at most 1, not nothing",
            ),
            (
                "pcie_replays: -1\n",
                "line 1: `pcie_replays` must be a whole number from 0 to 4294967295, not `-1`",
            ),
            (
                "cards:\n  - memory_gbs: 700\n",
                "line 2: `cards[0]` says of no card what it reaches: give it `name` or `pci_device_id`",
            ),
            (
                "cards:\n  - name: X\n    products_tflops: {bf17: 1}\n",
                "line 3: `cards[0].products_tflops.bf17` is not known here; known are bf16, fp16, tf32, fp32, fp64, int8, fp8",
            ),
            (
                "cards:\n  - name: X\n    memory_gbs: 1e9\n",
                "line 3: `cards[0].memory_gbs` must be a number above 0 and at most 1000000, not `1000000000`",
            ),
            (
                "cards:\n  - name: \"a\\e[31m\"\n",
                "line 2: `cards[0].name` must be the name of a card, such as `NVIDIA L40S`, not `a [31m`",
            ),
            (
                "cards:\n  - pci_device_id: 0x12345\n",
                "line 2: `cards[0].pci_device_id` must be a PCI device id such as `0x2330`, not `74565`",
            ),
            ("- 1\n", "line 1, column 1: thresholds are a map, not a list"),
        ] {
            assert_eq!(parse_thresholds(text).unwrap_err().to_string(), refused, "{text}");
        }
        for text in [
            "sm: .nan\n",
            "sm: 0.9\nsm: 0.8\n",
            "a: [",
            "\u{1}",
            &"x".repeat(MAX_THRESHOLDS_BYTES + 1),
        ] {
            assert!(parse_thresholds(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_thresholds_or_refused(text in ".{0,200}", warn: f64) {
            let _ = parse_thresholds(&text);
            if let Ok(read) = parse_thresholds(&format!("tensor: {{warn: {warn:?}}}")) {
                prop_assert!(read.tensor.fail <= read.tensor.warn && read.tensor.warn <= 1.0);
            }
        }
    }
}
