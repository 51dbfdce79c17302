//! Samples of long runs, put together so that a report stays a file that can be sent.

use super::Sample;

/// Most samples that a report holds of one device: an hour at 5 Hz.
const MOST: usize = 18_000;

/// Puts neighbours together until there are few enough: means of what is a rate, the highest of heat, all reasons, the least
/// of the link.
pub(super) fn thin(samples: &mut Vec<Sample>) {
    if samples.len() > MOST {
        let size = samples.len().div_ceil(MOST);
        *samples = samples.chunks(size).map(together).collect();
    }
}

fn together(samples: &[Sample]) -> Sample {
    let most = |of: fn(&Sample) -> Option<f64>| samples.iter().filter_map(of).max_by(f64::total_cmp);
    let least = |of: fn(&Sample) -> Option<u32>| samples.iter().filter_map(of).min();
    let reasons = samples.iter().filter_map(|sample| sample.reasons);
    Sample {
        at_s: samples.first().map_or(0.0, |first| first.at_s),
        clock_sm_mhz: mean_of_whole(samples, |sample| sample.clock_sm_mhz),
        clock_memory_mhz: mean_of_whole(samples, |sample| sample.clock_memory_mhz),
        power_w: mean(samples, |sample| sample.power_w),
        temperature_c: most(|sample| sample.temperature_c),
        memory_temperature_c: most(|sample| sample.memory_temperature_c),
        reasons: reasons.reduce(|all, one| all | one),
        pcie_generation: least(|sample| sample.pcie_generation),
        pcie_width: least(|sample| sample.pcie_width),
        tflops: mean(samples, |sample| sample.tflops),
    }
}

fn mean(samples: &[Sample], of: fn(&Sample) -> Option<f64>) -> Option<f64> {
    let values = samples.iter().filter_map(of);
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn mean_of_whole(samples: &[Sample], of: fn(&Sample) -> Option<u32>) -> Option<u32> {
    let values = samples.iter().filter_map(of).map(u64::from);
    let (sum, count) = values.fold((0_u64, 0_u64), |(sum, count), value| (sum + value, count + 1));
    u32::try_from(sum.checked_div(count)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(tick: u32) -> Sample {
        Sample {
            at_s: f64::from(tick),
            clock_sm_mhz: Some(1_000 + tick % 2 * 100),
            power_w: (tick % 4 != 3).then_some(300.0),
            temperature_c: Some(f64::from(tick % 7)),
            reasons: Some(if tick == 5 { 0x40 } else { 0x4 }),
            pcie_width: Some(if tick == 6 { 8 } else { 16 }),
            ..Sample::default()
        }
    }

    #[test]
    fn a_short_run_keeps_all_and_a_long_one_what_matters() {
        let mut short: Vec<Sample> = (0..300).map(sample).collect();
        thin(&mut short);
        assert_eq!(short.len(), 300);
        let mut long: Vec<Sample> = (0..180_000).map(sample).collect();
        thin(&mut long);
        assert_eq!(long.len(), MOST);
        let first = Sample {
            at_s: 0.0,
            clock_sm_mhz: Some(1_050),
            power_w: Some(300.0),
            temperature_c: Some(6.0),
            reasons: Some(0x44),
            pcie_width: Some(8),
            ..Sample::default()
        };
        assert_eq!(long[0], first);
        assert_eq!(long[1].reasons, Some(0x4));
    }
}
