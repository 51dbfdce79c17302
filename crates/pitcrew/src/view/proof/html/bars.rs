//! Every figure as a bar, as long as its part of what is expected: a line down the chart is what a healthy card reaches.

use std::fmt::Write as _;

use pitcrew_core::proof::{Figure, Grade, Report};

use super::super::short;
use super::escaped;
use super::svg::{Scale, px};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 200.0;
const RIGHT: f64 = 230.0;
const ROW: f64 = 30.0;
const TOP: f64 = 26.0;
/// The end of the scale, as a part of what is expected.
const MOST: f64 = 1.2;

/// What the line down the chart is called.
const GOAL: &str = "expected";

/// Class of a grade's colour.
pub(super) fn tone(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "good",
        Grade::Low => "low",
        Grade::Bad => "bad",
        Grade::Unrated => "unrated",
    }
}

pub(super) fn chart(report: &Report, device: usize) -> String {
    let figures = report
        .judgement
        .figures
        .iter()
        .filter(|figure| figure.device == device);
    let rows: Vec<Row<'_>> = figures.filter_map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let height = TOP + ROW * f64::from(u32::try_from(rows.len()).unwrap_or(u32::MAX)) + 6.0;
    let scale = Scale::new((0.0, MOST), (LEFT, WIDTH - RIGHT));
    let mut out = format!(
        "<h3>Measured against expected</h3>\n<div class=\"chart\"><svg viewBox=\"0 0 {} {}\" role=\"img\" \
         aria-label=\"Each figure as a part of what is expected\">\n",
        px(WIDTH),
        px(height),
    );
    for (part, label) in [
        (0.0, "0"),
        (0.25, "25 %"),
        (0.5, "50 %"),
        (0.75, "75 %"),
        (1.0, GOAL),
    ] {
        let x = px(scale.at(part));
        let class = if label == GOAL { "goal" } else { "grid" };
        let _ = writeln!(
            out,
            "<line class=\"{class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>\
             <text class=\"tick\" x=\"{x}\" y=\"14\" text-anchor=\"middle\">{label}</text>",
            px(TOP - 6.0),
            px(height),
        );
    }
    let mut y = TOP;
    for row in &rows {
        bar(row, y, scale, &mut out);
        y += ROW;
    }
    out.push_str("</svg></div>\n");
    out
}

/// A figure that can be drawn: what of what, and the part that it is.
struct Row<'a> {
    figure: &'a Figure,
    ratio: f64,
    told: String,
    basis: &'a str,
}

/// The rate where there is one to expect, else the efficiency of the SMs.
fn row(figure: &Figure) -> Option<Row<'_>> {
    let basis = figure.basis.as_deref().unwrap_or("estimated");
    let about = if basis.starts_with("measured") { "" } else { "≈" };
    let (ratio, told) = if let (Some(ratio), Some(expected)) = (figure.ratio, figure.expected) {
        let told = format!(
            "{} of {about}{} {}",
            brief(figure.measured),
            brief(expected),
            figure.unit
        );
        (ratio, told)
    } else {
        let (is, should) = figure.pipe_efficiency.zip(figure.pipe_efficiency_expected)?;
        let told = format!("{:.0} of ≈{:.0} % of the pipes", is * 100.0, should * 100.0);
        (is / should, told)
    };
    ratio.is_finite().then_some(Row {
        figure,
        ratio,
        told,
        basis,
    })
}

fn bar(row: &Row<'_>, y: f64, scale: Scale, out: &mut String) {
    let Row {
        figure,
        ratio,
        told,
        basis,
    } = row;
    let title = match figure.format {
        Some(format) => format!("{} {format}", figure.phase),
        None => figure.phase.to_string(),
    };
    let variant = figure
        .variant
        .as_deref()
        .map_or(String::new(), |variant| format!(" by {variant}"));
    let hint = format!("{title}{variant}: {told}; what is expected is {basis}");
    let middle = px(y + ROW / 2.0 + 4.0);
    let _ = writeln!(
        out,
        "<g><title>{}</title><text class=\"name\" x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\
         <rect class=\"track\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"14\" rx=\"3\"/>\
         <rect class=\"bar {}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"14\" rx=\"3\"/>\
         <text class=\"figure\" x=\"{}\" y=\"{middle}\">{:.0} %<tspan class=\"tick\" dx=\"8\">{}</tspan></text></g>",
        escaped(&hint),
        px(LEFT - 12.0),
        escaped(&title),
        px(scale.at(0.0)),
        px(y + 8.0),
        px(scale.at(1.0) - scale.at(0.0)),
        tone(figure.grade),
        px(scale.at(0.0)),
        px(y + 8.0),
        px((scale.at(*ratio) - scale.at(0.0)).max(1.0)),
        px(WIDTH - RIGHT + 14.0),
        (ratio * 100.0).min(9_999.0),
        escaped(told),
    );
}

/// A number that has its place, whatever a report says.
fn brief(figure: f64) -> String {
    if figure.abs() < 1e7 {
        short(figure)
    } else {
        format!("{figure:.1e}")
    }
}
