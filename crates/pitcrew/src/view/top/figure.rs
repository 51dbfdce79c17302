//! Readings as short texts: the value, `?` for one that could not be read, `-` for one that there isn't.

use std::time::Duration;

use pitcrew_core::Reading;
use pitcrew_core::gpu::GpuReadings;

/// A reading as text.
pub(crate) fn show<T: ToString>(reading: &Reading<T>) -> String {
    with(reading, ToString::to_string)
}

/// A reading as text, in words of its own.
pub(crate) fn with<T>(reading: &Reading<T>, words: impl FnOnce(&T) -> String) -> String {
    match reading {
        Reading::Value(value) => words(value),
        Reading::Failed(_) => "?".to_owned(),
        Reading::NotSupported => "-".to_owned(),
    }
}

/// Two readings of one unit, such as used and total; one sign where neither is there.
pub(crate) fn pair<T>(
    first: &Reading<T>,
    second: &Reading<T>,
    words: impl Fn(&T) -> String,
    unit: &str,
) -> String {
    match (first, second) {
        (Reading::Value(_), _) | (_, Reading::Value(_)) => {
            format!("{}/{} {unit}", with(first, &words), with(second, &words))
        }
        (Reading::NotSupported, Reading::NotSupported) => "-".to_owned(),
        (Reading::Failed(_), _) | (_, Reading::Failed(_)) => "?".to_owned(),
    }
}

/// GiB with one decimal below 100, rounded to the nearest.
pub(crate) fn gib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10 + (1 << 29)) >> 30;
    if tenths >= 1000 {
        return ((u128::from(bytes) + (1 << 29)) >> 30).to_string();
    }
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Memory of one thing: MiB below one GiB, GiB above.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1 << 30 {
        return format!("{} MiB", (bytes + (1 << 19)) >> 20);
    }
    format!("{} GiB", gib(bytes))
}

/// Watts, rounded.
pub(crate) fn watts(milliwatts: u32) -> String {
    (milliwatts.saturating_add(500) / 1000).to_string()
}

/// `42 %`.
pub(crate) fn percent(reading: &Reading<u32>) -> String {
    with(reading, |percent| format!("{percent} %"))
}

/// `51 C`.
pub(crate) fn celsius(reading: &Reading<i32>) -> String {
    with(reading, |celsius| format!("{celsius} C"))
}

/// `12.1/79.6 GiB`.
pub(crate) fn memory(readings: &GpuReadings) -> String {
    let words = |bytes: &u64| gib(*bytes);
    pair(
        &readings.memory_used_bytes,
        &readings.memory_total_bytes,
        words,
        "GiB",
    )
}

/// `412/700 W`.
pub(crate) fn power(readings: &GpuReadings) -> String {
    let words = |milliwatts: &u32| watts(*milliwatts);
    pair(&readings.power_mw, &readings.power_limit_mw, words, "W")
}

/// Why the clocks are where they are, in words.
pub(crate) fn held(readings: &GpuReadings) -> String {
    with(&readings.clocks_event_reasons, |&bits| {
        pitcrew_core::clocks::words(bits)
    })
}

/// `4 s`, `12 min`, `3 h 5 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The driver's name of a card without the maker's.
pub(crate) fn short_name(name: &str) -> &str {
    name.strip_prefix("NVIDIA ").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_never_a_number() {
        let failed = Reading::<u32>::Failed("lost".to_owned());
        assert_eq!(percent(&failed), "?");
        assert_eq!(percent(&Reading::NotSupported), "-");
        assert_eq!(
            pair(&failed, &Reading::Value(700_000), |mw| watts(*mw), "W"),
            "?/700 W"
        );
    }

    #[test]
    fn figures_are_rounded_and_short() {
        assert_eq!(gib(0), "0.0");
        assert_eq!(gib((12 << 30) - 1), "12.0");
        assert_eq!(gib(150_754_820_096), "140");
        assert_eq!(size(402_653_184), "384 MiB");
        assert_eq!(size(12_884_901_888), "12.0 GiB");
        assert_eq!(watts(112_500), "113");
        assert_eq!(duration(Duration::from_mins(185)), "3 h 5 min");
    }
}
