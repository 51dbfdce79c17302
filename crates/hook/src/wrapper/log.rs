//! The log of an OCI runtime: lines as runc writes them, from which containerd takes the reason of a failure.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Invocation;

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Warning,
    Error,
}

/// Appends to the log that the command line names, if it names one; there is nowhere to say that it can't be written.
pub(super) fn write(invocation: &Invocation, level: Level, message: &str) {
    let Some(path) = &invocation.log else { return };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
        let _ = file.write_all(line(level, message, now, invocation.json).as_bytes());
    }
}

fn line(level: Level, message: &str, now: u64, json: bool) -> String {
    let level = match level {
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let time = rfc3339(now);
    if json {
        format!(
            "{}\n",
            serde_json::json!({"level": level, "msg": message, "time": time})
        )
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}\n")
    }
}

/// Seconds since 1970 as a date, in UTC. Years begin in March here, so that a leap day is a year's last.
fn rfc3339(seconds: u64) -> String {
    let days = seconds / 86400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(rfc3339(1_798_761_599), "2026-12-31T23:59:59Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn lines_are_those_of_runc() {
        let json: serde_json::Value =
            serde_json::from_str(&line(Level::Error, "a \"b\"\nc", 0, true)).unwrap();
        assert_eq!(json["level"], "error");
        assert_eq!(json["msg"], "a \"b\"\nc");
        let text = line(Level::Warning, "a \"b\"\nc", 0, false);
        assert_eq!(
            text,
            "time=\"1970-01-01T00:00:00Z\" level=warning msg=\"a \\\"b\\\"\\nc\"\n"
        );
    }
}
