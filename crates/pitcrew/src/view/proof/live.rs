//! One line that says what a proof does at this moment.

use pitcrew_core::proof::{Sample, Unit};

use super::{count, plain, short};

/// Blocks of the bar.
const BAR: usize = 16;

/// What a proof does at this moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    /// The device, e.g. `GPU 0`.
    pub(crate) device: String,
    /// The phase, e.g. `gemm bf16`.
    pub(crate) phase: String,
    /// What runs, e.g. `wgmma`.
    pub(crate) variant: Option<String>,
    /// Seconds since the run began.
    pub(crate) elapsed_s: f64,
    /// Seconds that it will take in all.
    pub(crate) total_s: f64,
    /// How fast the phase is.
    pub(crate) rate: Option<(f64, Unit)>,
    /// How fast it should be, in the same unit.
    pub(crate) expected: Option<f64>,
    /// What the driver said last.
    pub(crate) sample: Option<Sample>,
    /// Results that were compared so far, on this device.
    pub(crate) verified_outputs: u64,
    /// Results and words that were wrong so far.
    pub(crate) corruption_count: u64,
}

/// The line, no longer than `width` columns; what matters least is left out first.
pub(crate) fn line(live: &Live, width: usize) -> String {
    let mut parts = vec![
        // Order of the line; the number is how much each part can be missed.
        (0, format!("{:>3.0}/{:.0} s", live.elapsed_s, live.total_s)),
        (4, bar(live)),
        (0, format!("{} {}", plain(&live.device), plain(&live.phase))),
    ];
    if let Some(variant) = &live.variant {
        parts.push((6, format!("({})", plain(variant))));
    }
    if let Some((rate, unit)) = live.rate {
        let rate = match live.expected.filter(|expected| *expected > 0.0) {
            Some(expected) => {
                format!(
                    "{} of {} {unit} ({:.0} %)",
                    short(rate),
                    short(expected),
                    rate / expected * 100.0
                )
            }
            None => format!("{} {unit}", short(rate)),
        };
        parts.push((1, rate));
    }
    let sample = live.sample.unwrap_or_default();
    if let Some(clock) = sample.clock_sm_mhz {
        parts.push((5, format!("{clock} MHz")));
    }
    if let Some(power) = sample.power_w {
        parts.push((3, format!("{power:.0} W")));
    }
    if let Some(temperature) = sample.temperature_c {
        parts.push((3, format!("{temperature:.0} °C")));
    }
    if live.corruption_count > 0 {
        parts.push((0, format!("{} WRONG", count(live.corruption_count))));
    } else if live.verified_outputs > 0 {
        parts.push((2, format!("{} verified", count(live.verified_outputs))));
    }
    let length = |parts: &[(u8, String)]| {
        parts
            .iter()
            .map(|(_, part)| part.chars().count() + 2)
            .sum::<usize>()
    };
    while length(&parts) > width + 2 {
        let least = parts.iter().enumerate().max_by_key(|(_, (order, _))| *order);
        match least {
            Some((index, (order, _))) if *order > 0 => drop(parts.remove(index)),
            _ => break,
        }
    }
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    parts.join("  ").chars().take(width).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of sixteen, held between none and all"
)]
fn bar(live: &Live) -> String {
    let part = if live.total_s > 0.0 {
        live.elapsed_s / live.total_s
    } else {
        0.0
    };
    let filled = (part.clamp(0.0, 1.0) * 16.0).round() as usize;
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live {
            device: "GPU 0".to_owned(),
            phase: "gemm bf16".to_owned(),
            variant: Some("wgmma".to_owned()),
            elapsed_s: 41.0,
            total_s: 60.0,
            rate: Some((781.4, Unit::Tflops)),
            expected: Some(785.0),
            sample: Some(Sample {
                clock_sm_mhz: Some(1560),
                power_w: Some(698.2),
                temperature_c: Some(64.0),
                ..Sample::default()
            }),
            verified_outputs: 12_000_000_000_000,
            corruption_count: 0,
        }
    }

    #[test]
    fn all_of_it_in_a_wide_terminal() {
        assert_eq!(
            line(&live(), 200),
            " 41/60 s  ███████████░░░░░  GPU 0 gemm bf16  (wgmma)  781 of 785 TFLOP/s (100 %)  1560 MHz  698 W  64 °C  1.2e13 verified"
        );
    }

    #[test]
    fn a_narrow_terminal_keeps_what_matters() {
        assert_eq!(
            line(&live(), 60),
            " 41/60 s  GPU 0 gemm bf16  781 of 785 TFLOP/s (100 %)"
        );
        let wrong = Live {
            corruption_count: 3,
            ..live()
        };
        assert_eq!(line(&wrong, 40), " 41/60 s  GPU 0 gemm bf16  3 WRONG");
        for width in 0..200 {
            assert!(line(&wrong, width).chars().count() <= width);
        }
    }
}
