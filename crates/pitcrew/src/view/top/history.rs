//! What was read of a GPU in the last minutes.

use std::collections::VecDeque;

use pitcrew_core::gpu::GpuReadings;

/// Looks that are remembered: ten minutes of one a second.
const DEPTH: usize = 600;

/// A kind of figure that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Utilisation of the SMs.
    Busy,
    /// Memory in use.
    Memory,
    /// Power drawn.
    Power,
    /// Temperature.
    Temperature,
}

/// One look: parts of what is possible, 0 to 1; `None` where nothing could be read.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    busy: Option<f32>,
    memory: Option<f32>,
    power: Option<f32>,
    temperature: Option<f32>,
}

/// What was read of one GPU, oldest first. A look that failed leaves a gap: unknown is not zero.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
    /// Looks so far, also those that are forgotten: where the pieces of a chart begin doesn't move with each look.
    looks: usize,
}

/// The temperature at the top of a chart, in degrees Celsius: no GPU is meant to run hotter.
const HOTTEST_C: f32 = 100.0;

/// `part` of `whole`; nothing where the whole is 0.
pub(crate) fn share(part: u64, whole: u64) -> Option<f32> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a part for a bar of at most a few hundred dots"
    )]
    let share = (whole > 0).then(|| (part as f64 / whole as f64) as f32);
    share.map(|share| share.clamp(0.0, 1.0))
}

/// How much of what is possible a reading is.
pub(crate) fn part(readings: &GpuReadings, kind: Kind) -> Option<f32> {
    Sample::of(readings).get(kind)
}

impl Sample {
    fn of(readings: &GpuReadings) -> Self {
        let pair = |part: Option<u64>, whole: Option<u64>| share(part?, whole?);
        let wide = |reading: Option<&u32>| reading.copied().map(u64::from);
        Self {
            busy: pair(wide(readings.utilization_gpu_percent.value()), Some(100)),
            memory: pair(
                readings.memory_used_bytes.value().copied(),
                readings.memory_total_bytes.value().copied(),
            ),
            power: pair(
                wide(readings.power_mw.value()),
                wide(readings.power_limit_mw.value()),
            ),
            temperature: readings.temperature_c.value().map(|&celsius| {
                #[expect(clippy::cast_precision_loss, reason = "temperatures are small numbers")]
                let celsius = celsius as f32;
                (celsius / HOTTEST_C).clamp(0.0, 1.0)
            }),
        }
    }

    fn get(&self, kind: Kind) -> Option<f32> {
        match kind {
            Kind::Busy => self.busy,
            Kind::Memory => self.memory,
            Kind::Power => self.power,
            Kind::Temperature => self.temperature,
        }
    }
}

impl History {
    /// Remembers a look.
    pub(crate) fn push(&mut self, readings: &GpuReadings) {
        self.add(Sample::of(readings));
    }

    /// Remembers that nothing could be read.
    pub(crate) fn gap(&mut self) {
        self.add(Sample::default());
    }

    fn add(&mut self, sample: Sample) {
        if self.samples.len() == DEPTH {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.looks += 1;
    }

    /// Looks that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// The last `count` pieces of `each` looks, oldest first, as the mean of what is known in each.
    pub(crate) fn pieces(&self, kind: Kind, count: usize, each: usize) -> Vec<Option<f32>> {
        let each = each.max(1);
        // The newest piece may be incomplete.
        let newest = (self.looks.max(1) - 1) % each + 1;
        let values = self.last(kind, (count.max(1) - 1) * each + newest);
        let mean = |piece: &[Option<f32>]| {
            let known = piece.iter().flatten();
            #[expect(clippy::cast_precision_loss, reason = "a piece has a few looks")]
            let number = known.clone().count() as f32;
            (number > 0.0).then(|| known.sum::<f32>() / number)
        };
        values.chunks(each).map(mean).collect()
    }

    /// The last `count` values of a kind, oldest first; gaps, too, for the time before the first look.
    pub(crate) fn last(&self, kind: Kind, count: usize) -> Vec<Option<f32>> {
        let missing = count.saturating_sub(self.samples.len());
        let skipped = self.samples.len().saturating_sub(count);
        let values = self.samples.iter().skip(skipped).map(|sample| sample.get(kind));
        std::iter::repeat_n(None, missing).chain(values).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_core::Reading;

    fn busy(percent: u32) -> GpuReadings {
        let mut readings = GpuReadings::none_supported();
        readings.utilization_gpu_percent = Reading::Value(percent);
        readings
    }

    #[test]
    fn what_could_not_be_read_is_a_gap_and_not_zero() {
        let mut history = History::default();
        history.push(&busy(0));
        history.gap();
        history.push(&busy(100));
        assert_eq!(history.last(Kind::Busy, 4), [None, Some(0.0), None, Some(1.0)]);
        assert_eq!(history.last(Kind::Power, 2), [None, None]);
    }

    #[test]
    fn pieces_are_means_of_what_is_known_and_stay_where_they_are() {
        let mut history = History::default();
        for percent in [0, 100, 40, 60] {
            history.push(&busy(percent));
        }
        assert_eq!(history.pieces(Kind::Busy, 3, 2), [None, Some(0.5), Some(0.5)]);
        history.gap();
        assert_eq!(history.pieces(Kind::Busy, 3, 2), [Some(0.5), Some(0.5), None]);
        history.push(&busy(80));
        assert_eq!(
            history.pieces(Kind::Busy, 3, 2),
            [Some(0.5), Some(0.5), Some(0.8)]
        );
        assert_eq!(history.pieces(Kind::Busy, 2, 1), [None, Some(0.8)]);
        assert_eq!(History::default().pieces(Kind::Busy, 2, 3), [None, None]);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut history = History::default();
        for percent in (0..=100).cycle().take(DEPTH + 50) {
            history.push(&busy(percent));
        }
        assert_eq!(
            history.last(Kind::Busy, DEPTH * 2).iter().flatten().count(),
            DEPTH
        );
    }
}
