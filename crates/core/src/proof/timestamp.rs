//! Seconds since 1970, written as people read them.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds since 1970 in UTC, leap seconds left out. In text it is `2026-11-25T17:04:05Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u32);

impl Timestamp {
    /// The second of a moment; before 1970 and after 2106 the nearest that there is.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// Year, month and day of a day since 1970: counted in years that begin in March, so that the leap day is the last.
fn date(days: u32) -> (u32, u32, u32) {
    // 719,468 days lie between the first of March of year 0 and 1970; 146,097 in 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, wrap) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year + era * 400 + wrap, month, day)
}

/// Days since 1970 of a date; the inverse of [`date`].
fn days(year: u32, month: u32, day: u32) -> Option<u32> {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let (era, year) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    (era * 146_097 + year * 365 + year / 4 - year / 100 + of_year).checked_sub(719_468)
}

/// The text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time such as `2026-11-25T17:04:05Z`")]
pub struct ParseTimestampError(String);

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
            let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
            let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
            if !(1..=12).contains(&month)
                || !(1..=31).contains(&day)
                || hour > 23
                || minute > 59
                || second > 59
                || year > 2106
            {
                return None;
            }
            let day = days(year, month, day)?;
            let seconds = u64::from(day) * 86_400 + u64::from(hour * 3_600 + minute * 60 + second);
            let found = Self(u32::try_from(seconds).ok()?);
            // A thirty-first of June would be another day.
            (found.to_string() == text).then_some(found)
        };
        parse().ok_or_else(|| ParseTimestampError(text.to_owned()))
    }
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[u32; 3]> {
    let mut parts = text.split(separator);
    let mut found = [0; 3];
    for (number, width) in found.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments_are_written_right() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (u32::MAX, "2106-02-07T06:28:15Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(seconds)));
        }
    }

    #[test]
    fn a_day_that_is_not_in_the_calendar_is_refused() {
        for text in [
            "2025-02-29T00:00:00Z",
            "2025-06-31T00:00:00Z",
            "2025-00-10T00:00:00Z",
            "2025-06-00T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2025-06-01T24:00:00Z",
            "2025-06-01 10:00:00Z",
            "",
            "Z",
            "2025-06-01T10:00:00",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds: u32) {
            let time = Timestamp(seconds);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
