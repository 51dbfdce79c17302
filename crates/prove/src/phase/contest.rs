//! Which program draws most.

use std::time::Duration;

use pitcrew_core::proof::Sample;

use super::tally::mean;
use crate::bench::fill;
use crate::device::Work;

/// In the power phase a batch takes so long: the pauses between batches, in which the CPU compares, cost power.
pub(super) const LONG_BATCH: Duration = Duration::from_millis(300);
/// How long each program is tried in the power phase before the one that draws more goes on.
pub(super) const TRIAL: Duration = Duration::from_millis(1500);
/// Triads that are queued at once.
const MOST_TRIADS: usize = 4096;

/// Which of two programs draws more: products alone, or beside memory traffic. Some cards reach their limit by the one,
/// some by the other.
#[derive(Debug)]
pub(super) struct Contest {
    triad: Work,
    /// Triads beside one batch of products.
    count: usize,
    begin: Duration,
    each: Duration,
}

impl Contest {
    pub(super) fn new(triad: Work, of_triad: Duration, begin: Duration, each: Duration) -> Self {
        Self {
            triad,
            count: fill(LONG_BATCH, of_triad * 2, MOST_TRIADS),
            begin,
            each,
        }
    }

    /// When it is decided.
    pub(super) fn end(&self) -> Duration {
        self.begin + self.each * 2
    }

    /// True where memory traffic runs beside the products: on trial, or as it draws more.
    pub(super) fn is_beside(&self, now: Duration, samples: &[Sample]) -> bool {
        let middle = self.begin + self.each;
        if now < middle {
            return false;
        }
        if now < self.end() {
            return true;
        }
        // The first third of each is left out, as readings come late.
        let draw = |from: Duration| {
            let span = (from + self.each / 3).as_secs_f64()..=(from + self.each).as_secs_f64();
            let during = samples.iter().filter(|sample| span.contains(&sample.at_s));
            mean(during.filter_map(|sample| sample.power_w))
        };
        draw(middle) > draw(self.begin)
    }

    pub(super) fn work(&self) -> Vec<Work> {
        vec![self.triad; self.count]
    }

    /// Has both lists end at the same time, so that neither is alone at the end.
    pub(super) fn balance(&mut self, products: &[Duration], triads: &[Duration]) {
        let [products, triads] = [products, triads].map(|times| times.iter().sum::<Duration>());
        let each = triads / u32::try_from(self.count).unwrap_or(1).max(1);
        self.count = fill(products, each, MOST_TRIADS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Five samples a second, of which those of the first second draw `alone`, and of the next `beside`.
    fn samples(alone: Option<f64>, beside: Option<f64>) -> Vec<Sample> {
        let sample = |number: u8| Sample {
            at_s: f64::from(number) / 5.0 + 0.1,
            power_w: if number < 5 { alone } else { beside },
            ..Sample::default()
        };
        (0..10).map(sample).collect()
    }

    fn contest() -> Contest {
        Contest::new(
            Work::Spin { nanoseconds: 1 },
            Duration::from_millis(1),
            Duration::ZERO,
            SECOND,
        )
    }

    #[test]
    fn each_has_its_trial_and_the_one_that_draws_more_goes_on() {
        let contest = contest();
        for (alone, beside, goes_on) in [
            (Some(690.0), Some(650.0), false),
            (Some(310.0), Some(350.0), true),
            (None, None, false),
        ] {
            let samples = samples(alone, beside);
            assert!(!contest.is_beside(SECOND / 2, &samples));
            assert!(contest.is_beside(SECOND * 3 / 2, &samples));
            assert_eq!(
                contest.is_beside(SECOND * 3, &samples),
                goes_on,
                "{alone:?} {beside:?}"
            );
        }
    }

    #[test]
    fn what_runs_beside_the_products_ends_with_them() {
        let mut contest = contest();
        contest.balance(&[Duration::from_millis(300)], &[Duration::from_millis(600)]);
        let first = contest.work().len();
        contest.balance(&[Duration::from_millis(300)], &[Duration::from_millis(300)]);
        assert_eq!((first, contest.work().len()), (75, 75));
    }
}
