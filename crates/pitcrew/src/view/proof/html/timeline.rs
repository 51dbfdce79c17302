//! The run over time: rate, clock, power and heat below one another, phases above, and what slowed the card behind.

use std::fmt::Write as _;

use pitcrew_core::clocks::{self, Hold};
use pitcrew_core::proof::{DeviceEvidence, Phase, Report, Sample};

use super::escaped;
use super::svg::{Scale, extent, px};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 116.0;
const RIGHT: f64 = 14.0;
const PHASES: f64 = 44.0;
const PANEL: f64 = 92.0;
const GAP: f64 = 18.0;
/// Most points of a line: more than there are pixels can't be seen.
const POINTS: usize = 900;

/// Most spans of one phase that are drawn: with more of them they are pixels.
const SPANS: usize = 300;

struct Panel {
    name: &'static str,
    unit: &'static str,
    class: &'static str,
    of: fn(&Sample) -> Option<f64>,
    /// A second, thinner line.
    also: Option<fn(&Sample) -> Option<f64>>,
    /// A line across, and its name.
    limit: Option<(f64, &'static str)>,
}

pub(super) fn chart(report: &Report, index: usize) -> String {
    let device = &report.evidence.devices[index];
    // A time that no run has would make all others a single pixel.
    let longest = (report.evidence.run.seconds * 2.0).clamp(60.0, 1e7);
    let sound = |sample: &&Sample| sample.at_s.is_finite() && (0.0..=longest).contains(&sample.at_s);
    let samples: Vec<&Sample> = device.samples.iter().filter(sound).collect();
    let Some((_, last)) =
        extent(samples.iter().map(|sample| sample.at_s)).filter(|(first, last)| last > first)
    else {
        return String::new();
    };
    let end = last.max(report.evidence.run.seconds.min(longest));
    let time = Scale::new((0.0, end), (LEFT, WIDTH - RIGHT));
    let panels: Vec<Panel> = panels(device)
        .into_iter()
        .filter(|panel| samples.iter().any(|sample| (panel.of)(sample).is_some()))
        .collect();
    if panels.is_empty() {
        return String::new();
    }
    let bottom = PHASES + panels.iter().map(|_| PANEL + GAP).sum::<f64>();
    let mut out = format!(
        "<h3>Over time</h3>\n<div class=\"chart\"><svg viewBox=\"0 0 {} {}\" role=\"img\" \
         aria-label=\"Rate, clock, power and heat over the run\">\n",
        px(WIDTH),
        px(bottom + 14.0),
    );
    bands(&samples, time, bottom - GAP, &mut out);
    phases(device, time, bottom - GAP, &mut out);
    let mut top = PHASES;
    for panel in &panels {
        draw(panel, &samples, time, top, &mut out);
        top += PANEL + GAP;
    }
    for tick in time.ticks() {
        let _ = writeln!(
            out,
            "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{tick:.0} s</text>",
            px(time.at(tick)),
            px(bottom + 4.0)
        );
    }
    for xid in device.xids.iter().filter(|xid| (0.0..=end).contains(&xid.at_s)) {
        let x = px(time.at(xid.at_s));
        let _ = writeln!(
            out,
            "<line class=\"event\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/><text class=\"event\" x=\"{x}\" y=\"{}\" \
             dx=\"4\">XID {}</text>",
            px(PHASES),
            px(bottom - GAP),
            px(PHASES + 10.0),
            xid.number
        );
    }
    out.push_str("</svg></div>\n");
    out.push_str(&letters(device, time));
    out.push_str(&legend(&samples));
    out
}

fn panels(device: &DeviceEvidence) -> Vec<Panel> {
    let highest = device
        .device
        .clock_sm_max_mhz
        .map(|clock| (f64::from(clock), "highest"));
    vec![
        Panel {
            name: "Products",
            unit: "TFLOP/s",
            class: "rate",
            of: |sample| sample.tflops,
            also: None,
            limit: None,
        },
        Panel {
            name: "SM clock",
            unit: "MHz",
            class: "clock",
            of: |sample| sample.clock_sm_mhz.map(f64::from),
            also: None,
            limit: highest,
        },
        Panel {
            name: "Power",
            unit: "W",
            class: "power",
            of: |sample| sample.power_w,
            also: None,
            limit: device.device.power_limit_w.map(|limit| (limit, "limit")),
        },
        Panel {
            name: "Heat",
            unit: "°C",
            class: "heat",
            of: |sample| sample.temperature_c,
            also: Some(|sample| sample.memory_temperature_c),
            limit: None,
        },
    ]
}

/// Where something slowed the card: behind everything else.
fn bands(samples: &[&Sample], time: Scale, bottom: f64, out: &mut String) {
    for (hold, class) in [(Hold::Normal, "capped"), (Hold::Brake, "braked")] {
        let bits = clocks::bits(hold);
        let mut open: Option<(f64, f64, u64)> = None;
        let mut close = |band: Option<(f64, f64, u64)>| {
            let Some((from, to, reasons)) = band else { return };
            let (left, right) = (time.at(from), time.at(to));
            let _ = writeln!(
                out,
                "<rect class=\"band {class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}, {from:.1} to {to:.1} s</title></rect>",
                px(left),
                px(PHASES),
                px((right - left).max(1.0)),
                px(bottom - PHASES),
                escaped(&clocks::words(reasons)),
            );
        };
        for sample in samples {
            let reasons = sample.reasons.unwrap_or_default() & bits;
            open = match open {
                _ if reasons == 0 => {
                    close(open);
                    None
                }
                Some((from, _, before)) => Some((from, sample.at_s, before | reasons)),
                None => Some((sample.at_s, sample.at_s, reasons)),
            };
        }
        close(open);
    }
}

/// The phases on a strip above.
fn phases(device: &DeviceEvidence, time: Scale, bottom: f64, out: &mut String) {
    let ran = device.phases.iter().filter(|phase| phase.outcome.has_results());
    for (index, phase) in ran.enumerate() {
        for span in phase.worked().take(SPANS) {
            strip(index, phase, span, time, bottom, out);
        }
    }
}

/// One span of a phase on the strip, and a thin line down from its beginning.
fn strip(index: usize, phase: &Phase, (from, to): (f64, f64), time: Scale, bottom: f64, out: &mut String) {
    let (left, right) = (time.at(from), time.at(to));
    let class = if phase.corruption_count > 0 {
        "phase wrong"
    } else {
        "phase"
    };
    let title = escaped(&phase.title());
    let _ = write!(
        out,
        "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/><g><title>{title}, {:.1} s</title>\
         <rect class=\"{class}\" x=\"{x}\" y=\"6\" width=\"{}\" height=\"22\" rx=\"3\"/>",
        px(PHASES),
        px(bottom),
        (to - from).clamp(0.0, 1e7),
        px((right - left - 1.5).max(1.0)),
        x = px(left),
    );
    let shown = match room_for(&phase.title(), right - left) {
        Room::Name => Some(title),
        Room::Letter => letter(index).map(String::from),
        Room::None => None,
    };
    if let Some(shown) = shown {
        let _ = write!(
            out,
            "<text class=\"phase\" x=\"{}\" y=\"21\" text-anchor=\"middle\">{shown}</text>",
            px(f64::midpoint(left, right))
        );
    }
    out.push_str("</g>\n");
}

/// What a phase has room for on the strip.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Name,
    Letter,
    None,
}

fn room_for(title: &str, width: f64) -> Room {
    // Six pixels for a letter.
    let wanted = f64::from(u32::try_from(title.chars().count()).unwrap_or(u32::MAX)) * 5.6 + 6.0;
    match width {
        width if width >= wanted => Room::Name,
        width if width >= 12.0 => Room::Letter,
        _ => Room::None,
    }
}

/// A letter for a phase whose name has no room.
fn letter(index: usize) -> Option<char> {
    let letter = u8::try_from(index)
        .ok()
        .and_then(|index| b'a'.checked_add(index))?;
    letter.is_ascii_lowercase().then(|| char::from(letter))
}

/// What the letters stand for.
fn letters(device: &DeviceEvidence, time: Scale) -> String {
    let ran = device.phases.iter().filter(|phase| phase.outcome.has_results());
    let named: Vec<String> = ran
        .enumerate()
        .filter_map(|(index, phase)| {
            let is_letter =
                |(from, to)| room_for(&phase.title(), time.at(to) - time.at(from)) == Room::Letter;
            let letter = letter(index).filter(|_| phase.worked().take(SPANS).any(is_letter))?;
            Some(format!("<b>{letter}</b> {}", escaped(&phase.title())))
        })
        .collect();
    if named.is_empty() {
        return String::new();
    }
    format!("<p class=\"legend\">{}</p>\n", named.join(" · "))
}

fn draw(panel: &Panel, samples: &[&Sample], time: Scale, top: f64, out: &mut String) {
    let values = || {
        samples
            .iter()
            .flat_map(|sample| [(panel.of)(sample), panel.also.and_then(|of| of(sample))])
            .flatten()
    };
    let sane = values()
        .filter(|value| (-1e6..1e6).contains(value))
        .chain(panel.limit.map(|(limit, _)| limit));
    let Some((_, high)) = extent(sane) else { return };
    let scale = Scale::new((0.0, high.max(1.0) * 1.08), (top + PANEL, top));
    let _ = writeln!(
        out,
        "<text class=\"panel\" x=\"0\" y=\"{}\">{}</text><text class=\"tick\" x=\"0\" y=\"{}\">{}</text>",
        px(top + 12.0),
        panel.name,
        px(top + 26.0),
        panel.unit
    );
    for tick in scale.ticks() {
        let y = px(scale.at(tick));
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"tick\" x=\"{}\" y=\"{y}\" dy=\"4\" \
             text-anchor=\"end\">{tick:.0}</text>",
            px(LEFT),
            px(WIDTH - RIGHT),
            px(LEFT - 8.0),
        );
    }
    if let Some((limit, name)) = panel.limit {
        let y = scale.at(limit);
        let _ = writeln!(
            out,
            "<line class=\"limit\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"tick\" x=\"{}\" y=\"{}\" \
             text-anchor=\"end\">{name} {limit:.0}</text>",
            px(LEFT),
            px(WIDTH - RIGHT),
            px(WIDTH - RIGHT),
            px(y - 4.0),
            y = px(y),
        );
    }
    if let Some(also) = panel.also {
        path(
            samples,
            also,
            time,
            scale,
            &format!("line {} also", panel.class),
            out,
        );
    }
    path(
        samples,
        panel.of,
        time,
        scale,
        &format!("line {}", panel.class),
        out,
    );
}

/// A line through the samples, broken where there is no value.
fn path(
    samples: &[&Sample],
    of: fn(&Sample) -> Option<f64>,
    time: Scale,
    scale: Scale,
    class: &str,
    out: &mut String,
) {
    let stride = samples.len().div_ceil(POINTS).max(1);
    let mut d = String::new();
    let mut pen_down = false;
    for sample in samples.iter().step_by(stride) {
        let Some(value) = of(sample).filter(|value| value.is_finite()) else {
            pen_down = false;
            continue;
        };
        let command = if pen_down { 'L' } else { 'M' };
        let _ = write!(d, "{command}{} {}", px(time.at(sample.at_s)), px(scale.at(value)));
        pen_down = true;
    }
    let _ = writeln!(out, "<path class=\"{class}\" d=\"{d}\"/>");
}

fn legend(samples: &[&Sample]) -> String {
    let has = |hold| {
        let bits = clocks::bits(hold);
        samples
            .iter()
            .any(|sample| sample.reasons.is_some_and(|reasons| reasons & bits != 0))
    };
    let mut out = String::from("<p class=\"legend\">");
    if has(Hold::Normal) {
        out.push_str("<span class=\"key capped\"></span>at its power limit, as cards work ");
    }
    if has(Hold::Brake) {
        out.push_str("<span class=\"key braked\"></span>slowed down by heat or the power supply ");
    }
    if samples.iter().any(|sample| sample.memory_temperature_c.is_some()) {
        out.push_str("<span class=\"key also\"></span>heat of the memory");
    }
    out.push_str("</p>\n");
    out
}
