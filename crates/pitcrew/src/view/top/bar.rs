//! Bars, sparklines and charts as text. A part is 0 to 1; `None` is unknown and stays blank, so that it can't be
//! taken for 0.

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Dots of a Braille cell, from the bottom up: left column, right column.
const LEFT: [u32; 4] = [0x40, 0x04, 0x02, 0x01];
const RIGHT: [u32; 4] = [0x80, 0x20, 0x10, 0x08];

/// How many of `count` steps a part fills, rounded; at least one for anything above 0.
fn steps(part: f32, count: usize) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a bar: small, and not negative after the clamp"
    )]
    let filled = (part.clamp(0.0, 1.0) * count as f32).round() as usize;
    if part > 0.0 { filled.max(1) } else { filled }.min(count)
}

/// A bar of `width` cells: what is filled, and the rest.
pub(crate) fn bar(part: Option<f32>, width: usize) -> (String, String) {
    let Some(part) = part else {
        return (String::new(), " ".repeat(width));
    };
    let halves = steps(part, width * 2);
    let mut filled = "━".repeat(halves / 2);
    if halves % 2 == 1 {
        filled.push('╸');
    }
    (filled, "─".repeat(width - halves.div_ceil(2)))
}

/// A line of levels, one for each part.
pub(crate) fn sparkline(parts: &[Option<f32>]) -> String {
    let level = |part: &Option<f32>| match part {
        None => ' ',
        Some(part) => LEVELS[steps(*part, LEVELS.len()).saturating_sub(1)],
    };
    parts.iter().map(level).collect()
}

/// A filled curve in Braille dots, `height` lines from the top; two parts for each cell. A known part shows at least
/// its lowest dot.
pub(crate) fn curve(parts: &[Option<f32>], height: usize) -> Vec<String> {
    let dots = |part: Option<&Option<f32>>| {
        let part = part.copied().flatten();
        part.map_or(0, |part| steps(part, height * 4).max(1))
    };
    let line = |from_bottom: usize| {
        let cell = |pair: &[Option<f32>]| {
            let mut bits = 0x2800;
            for (column, masks) in [LEFT, RIGHT].iter().enumerate() {
                let lit = dots(pair.get(column)).saturating_sub(from_bottom * 4);
                bits += masks.iter().take(lit).sum::<u32>();
            }
            // A blank, because some fonts draw the dots of an empty Braille cell.
            char::from_u32(bits)
                .filter(|&cell| cell != '\u{2800}')
                .unwrap_or(' ')
        };
        parts.chunks(2).map(cell).collect()
    };
    (0..height).rev().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_always_as_wide_as_asked() {
        for width in 0..40 {
            for part in [
                None,
                Some(0.0),
                Some(0.001),
                Some(0.5),
                Some(0.999),
                Some(1.0),
                Some(7.0),
            ] {
                let (filled, rest) = bar(part, width);
                assert_eq!(filled.chars().count() + rest.chars().count(), width, "{part:?}");
            }
        }
        assert_eq!(bar(Some(0.25), 4), ("━".to_owned(), "───".to_owned()));
        assert_eq!(bar(Some(0.01), 4), ("╸".to_owned(), "───".to_owned()));
        assert_eq!(bar(None, 2), (String::new(), "  ".to_owned()));
    }

    #[test]
    fn nothing_is_not_the_same_as_unknown() {
        assert_eq!(sparkline(&[None, Some(0.0), Some(0.5), Some(1.0)]), " ▁▄█");
        assert_eq!(curve(&[None, None], 1), [" "]);
        assert_eq!(curve(&[Some(0.0), Some(0.0)], 1), ["⣀"]);
    }

    #[test]
    fn a_curve_fills_from_below() {
        assert_eq!(curve(&[Some(0.5), Some(1.0)], 2), ["⢸", "⣿"]);
    }
}
