//! Times between two turns, as Go writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A time between two turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// So long.
    Every(Duration),
    /// There is no second turn.
    Infinite,
}

/// A text that is no [`Interval`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is `{0}`, which is no time such as `60s`, `1m30s` or `infinite`")]
pub struct ParseIntervalError(String);

/// Units of time in nanoseconds, those first that others begin with.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// One number and its unit, in nanoseconds, and what comes after.
fn part(text: &str) -> Option<(u128, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(end);
    let (unit, nanos) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u128 = match whole {
        "" => 0,
        digits => digits.parse::<u64>().ok()?.into(),
    };
    let mut sum = whole * u128::from(*nanos);
    let mut scale = u128::from(*nanos);
    for digit in fraction.bytes() {
        scale /= 10;
        sum += u128::from(digit - b'0') * scale;
    }
    Some((sum, &rest[unit.len()..]))
}

impl Interval {
    /// From nanoseconds, as Go counts a time that has no unit.
    pub fn from_nanos(nanos: u64) -> Self {
        Self::Every(Duration::from_nanos(nanos))
    }
}

impl FromStr for Interval {
    type Err = ParseIntervalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseIntervalError(text.to_owned());
        if text == "infinite" {
            return Ok(Self::Infinite);
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self::from_nanos(0));
        }
        let mut nanos = 0_u128;
        loop {
            let (more, after) = part(rest).ok_or_else(wrong)?;
            nanos = nanos.saturating_add(more);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        // Go's own limit is 2^63 nanoseconds, 292 years.
        let nanos = i64::try_from(nanos)
            .ok()
            .and_then(|nanos| u64::try_from(nanos).ok());
        nanos.map(Self::from_nanos).ok_or_else(wrong)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infinite => f.write_str("infinite"),
            Self::Every(time) if time.subsec_nanos() == 0 => write!(f, "{}s", time.as_secs()),
            Self::Every(time) => write!(f, "{}ns", time.as_nanos()),
        }
    }
}
