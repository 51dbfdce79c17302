//! The SMs of a GPU as a map, for each format of the loop that does the same work on all of them.

use std::fmt::Write as _;

use pitcrew_core::proof::{DeviceEvidence, Phase, PhaseKind, SmResult};

use super::escaped;
use super::svg::px;

const COLUMNS: u32 = 22;
const CELL: f64 = 20.0;

pub(super) fn maps(device: &DeviceEvidence) -> String {
    let loops = device
        .phases
        .iter()
        .filter(|phase| phase.kind == PhaseKind::MmaLoop && !phase.sms.is_empty());
    let wrong = |phase: &&Phase| phase.kind != PhaseKind::MmaLoop && phase.sms.iter().any(|sm| sm.wrong > 0);
    let shown: Vec<&Phase> = loops.chain(device.phases.iter().filter(wrong)).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut out = String::from("<h3>Every SM</h3>\n<div class=\"maps\">\n");
    for phase in shown {
        map(phase, &mut out);
    }
    out.push_str("</div>\n<p class=\"legend\"><span class=\"key s5\"></span>as fast as the median <span class=\"key s2\"></span>slower \
                  <span class=\"key wrong\"></span>computed wrong; each cell says more when it is pointed at</p>\n");
    out
}

fn map(phase: &Phase, out: &mut String) {
    let count = u32::try_from(phase.sms.len()).unwrap_or(u32::MAX);
    let rows = count.div_ceil(COLUMNS);
    let _ = writeln!(
        out,
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Speed of each SM\">",
        escaped(&phase.title()),
        px(f64::from(COLUMNS) * CELL),
        px(f64::from(rows) * CELL),
    );
    for (sm, place) in phase.sms.iter().zip(0_u32..) {
        let x = f64::from(place % COLUMNS) * CELL;
        let y = f64::from(place / COLUMNS) * CELL;
        let _ = writeln!(
            out,
            "<rect class=\"sm {}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\"><title>{}</title></rect>",
            class(sm),
            px(x + 1.0),
            px(y + 1.0),
            px(CELL - 2.0),
            px(CELL - 2.0),
            escaped(&hint(sm)),
        );
        if sm.wrong > 0 {
            let _ = writeln!(
                out,
                "<text class=\"sm\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                px(x + CELL / 2.0),
                px(y + CELL / 2.0 + 3.5),
                sm.sm
            );
        }
    }
    out.push_str("</svg></figure>\n");
}

/// Steps of speed: five is as fast as the others, one is much slower.
fn class(sm: &SmResult) -> &'static str {
    match sm.relative_speed {
        _ if sm.wrong > 0 => "wrong",
        None => "s0",
        Some(speed) if speed >= 1.004 => "s6",
        Some(speed) if speed >= 0.996 => "s5",
        Some(speed) if speed >= 0.98 => "s4",
        Some(speed) if speed >= 0.95 => "s3",
        Some(speed) if speed >= 0.90 => "s2",
        Some(_) => "s1",
    }
}

fn hint(sm: &SmResult) -> String {
    let mut parts = vec![format!("SM {}: {} tiles", sm.sm, sm.tiles)];
    parts.extend(
        sm.relative_speed
            .map(|speed| format!("{:.1} % of the median speed", speed * 100.0)),
    );
    parts.extend(sm.clock_mhz.map(|clock| format!("{clock:.0} MHz")));
    if sm.wrong > 0 {
        parts.push(format!("{} wrong", sm.wrong));
    }
    parts.join(", ")
}
