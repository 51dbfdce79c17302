//! Faults that are planted on purpose (`--inject`), to prove that they are found.

use std::fmt;
use std::str::FromStr;

use crate::device::Fault;

/// A fault to plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    /// A bit of an accumulator, in the loops and GEMMs: `sm=7,bit=12`, with `tile=` or `warp=` where wanted.
    Compute(Fault),
    /// A bit of a word of memory, after it was written: `memory=4096,bit=3`.
    Memory {
        /// Offset in bytes in the memory that is tested; of its word.
        offset: u64,
        /// Bit of the 64.
        bit: u32,
    },
    /// A bit of an operand in memory: `operand=a,row=5,k=17,bit=4`.
    Operand {
        /// It is B's, not A's.
        of_b: bool,
        /// Row of A, or of B as it is stored.
        row: u32,
        /// Place along K.
        k: u32,
        /// Bit of the operand.
        bit: u32,
    },
    /// A bit of C in memory, after it was written: `output=7,bit=3`, counted row by row.
    Output {
        /// Which value.
        index: u64,
        /// Bit of its lowest byte.
        bit: u32,
    },
    /// A bit of what is copied between host and device: `transfer=64,bit=0`.
    Transfer {
        /// Offset in bytes.
        offset: u64,
        /// Bit of the byte.
        bit: u32,
    },
}

/// The text is no fault to plant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no fault to plant: {why}; for example `sm=7,bit=12`, `memory=4096,bit=3`, `operand=a,row=5,k=17,bit=4`, `output=7,bit=3`, `transfer=64,bit=0`"
)]
pub struct ParseInjectError {
    text: String,
    why: String,
}

impl FromStr for Inject {
    type Err = ParseInjectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|why| ParseInjectError {
            text: text.to_owned(),
            why,
        })
    }
}

fn parse(text: &str) -> Result<Inject, String> {
    let mut pairs = Vec::new();
    for part in text.split(',') {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` has no `=`"))?;
        let (key, value) = (key.trim(), value.trim());
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(format!("`{key}` is said twice"));
        }
        pairs.push((key, value));
    }
    let find = |key: &str| {
        pairs
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| *value)
    };
    let kinds = ["memory", "operand", "output", "transfer"];
    let kind = kinds.into_iter().find(|kind| find(kind).is_some());
    let keys: &[&str] = match kind {
        Some("operand") => &["operand", "row", "k", "bit"],
        Some("memory") => &["memory", "bit"],
        Some("output") => &["output", "bit"],
        Some(_) => &["transfer", "bit"],
        None => &["sm", "tile", "warp", "bit"],
    };
    if let Some((stray, _)) = pairs.iter().find(|(key, _)| !keys.contains(key)) {
        return Err(format!("`{stray}` is not understood here"));
    }
    let optional = |key: &str, most: u64| match find(key) {
        None => Ok(None),
        Some(value) => match number(value).filter(|&value| value <= most) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("`{key}` is no number up to {most}")),
        },
    };
    let wanted = |key: &str, most: u64| optional(key, most)?.ok_or_else(|| format!("`{key}` is missing"));
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let word = u64::from(u32::MAX - 1);
    Ok(match kind {
        Some("memory") => Inject::Memory {
            offset: wanted("memory", u64::MAX)? / 8 * 8,
            bit: small(wanted("bit", 63)?),
        },
        Some("operand") => Inject::Operand {
            of_b: match find("operand") {
                Some("a") => false,
                Some("b") => true,
                _ => return Err("`operand` is `a` or `b`".to_owned()),
            },
            row: small(wanted("row", word)?),
            k: small(wanted("k", word)?),
            bit: small(wanted("bit", 63)?),
        },
        Some("output") => Inject::Output {
            index: wanted("output", u64::MAX)?,
            bit: small(wanted("bit", 7)?),
        },
        Some(_) => Inject::Transfer {
            offset: wanted("transfer", u64::MAX)?,
            bit: small(wanted("bit", 7)?),
        },
        None => {
            let place = match (optional("tile", word)?, optional("warp", word)?) {
                (Some(_), Some(_)) => return Err("`tile` and `warp` exclude each other".to_owned()),
                (tile, warp) => tile.or(warp),
            };
            Inject::Compute(Fault {
                sm: optional("sm", word)?.map(small),
                place: place.map(small),
                bit: Some(small(wanted("bit", 63)?)),
            })
        }
    })
}

/// Decimal, or hexadecimal after `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl fmt::Display for Inject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compute(fault) => {
                let mut parts = Vec::new();
                parts.extend(fault.sm.map(|sm| format!("sm={sm}")));
                parts.extend(fault.place.map(|place| format!("tile={place}")));
                parts.extend(fault.bit.map(|bit| format!("bit={bit}")));
                f.write_str(&parts.join(","))
            }
            Self::Memory { offset, bit } => write!(f, "memory={offset:#x},bit={bit}"),
            Self::Operand { of_b, row, k, bit } => {
                let matrix = if *of_b { 'b' } else { 'a' };
                write!(f, "operand={matrix},row={row},k={k},bit={bit}")
            }
            Self::Output { index, bit } => write!(f, "output={index},bit={bit}"),
            Self::Transfer { offset, bit } => write!(f, "transfer={offset:#x},bit={bit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        for text in [
            "sm=7,bit=12",
            "sm=7,tile=3,bit=12",
            "bit=0",
            "memory=0x1000,bit=3",
            "operand=b,row=5,k=17,bit=4",
            "output=7,bit=3",
            "transfer=0x40,bit=0",
        ] {
            assert_eq!(text.parse::<Inject>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (text, why) in [
            ("", "has no `=`"),
            ("sm=7", "`bit` is missing"),
            ("sm=x,bit=1", "`sm` is no number"),
            ("memory=0,bit=64", "`bit` is no number up to 63"),
            ("operand=c,row=1,k=1,bit=1", "`a` or `b`"),
            ("memory=0,sm=1,bit=2", "`sm` is not understood here"),
            ("bit=1,bit=2", "said twice"),
            ("tile=1,warp=2,bit=3", "exclude each other"),
        ] {
            let error = text.parse::<Inject>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,80}") {
            if let Ok(inject) = text.parse::<Inject>() {
                prop_assert_eq!(inject.to_string().parse::<Inject>(), Ok(inject));
            }
        }
    }
}
