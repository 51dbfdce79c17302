//! Numbers and places in a drawing.

/// A line of numbers onto a line of pixels, held inside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// First and last number.
    from: (f64, f64),
    /// First and last pixel.
    to: (f64, f64),
}

impl Scale {
    pub(super) fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        let is_sound = from.0.is_finite() && from.1.is_finite() && from.1 > from.0;
        let from = if is_sound { from } else { (0.0, 1.0) };
        Self { from, to }
    }

    /// The pixel of a number; of one outside, the nearest end.
    pub(super) fn at(self, value: f64) -> f64 {
        let part = ((value - self.from.0) / (self.from.1 - self.from.0)).clamp(0.0, 1.0);
        let part = if part.is_nan() { 0.0 } else { part };
        self.to.0 + part * (self.to.1 - self.to.0)
    }

    /// Three to seven round numbers inside it.
    pub(super) fn ticks(self) -> Vec<f64> {
        let (first, last) = self.from;
        let step = round_step((last - first) / 4.0);
        let mut ticks = Vec::new();
        let mut tick = (first / step).ceil() * step;
        while tick <= last + step * 1e-6 && ticks.len() < 12 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, not below `rough`.
fn round_step(rough: f64) -> f64 {
    if !rough.is_finite() || rough <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| step * power >= rough * 0.999);
    step.unwrap_or(10.0) * power
}

/// The lowest and highest of some numbers, with a little room; none for no number.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    (low <= high).then_some((low, high))
}

/// A number of pixels, as short as can be.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_holds_what_is_outside() {
        let scale = Scale::new((0.0, 10.0), (100.0, 200.0));
        for (value, pixel) in [(-5.0, 100.0), (5.0, 150.0), (1e300, 200.0), (f64::NAN, 100.0)] {
            assert!((scale.at(value) - pixel).abs() < 1e-9, "{value}");
        }
        assert!((Scale::new((5.0, 5.0), (0.0, 1.0)).at(9.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            Scale::new((0.0, 61.4), (0.0, 1.0)).ticks(),
            [0.0, 20.0, 40.0, 60.0]
        );
        assert_eq!(
            Scale::new((0.0, 785.0), (0.0, 1.0)).ticks(),
            [0.0, 200.0, 400.0, 600.0]
        );
        assert!(Scale::new((0.0, f64::MAX), (0.0, 1.0)).ticks().len() < 13);
    }
}
