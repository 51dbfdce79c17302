//! Reports of several nodes as one page: a strip for each quantity with a dot for each GPU.

use std::fmt::Write as _;

use pitcrew_core::proof::fleet::{Fleet, Group, Measure};

use super::super::{short, stands_out};
use super::svg::{Scale, extent, px};
use super::{capital, chip, document, escaped, tone};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 240.0;
const RIGHT: f64 = 120.0;
const ROW: f64 = 46.0;
const TOP: f64 = 28.0;

/// The page of a comparison.
pub(crate) fn fleet_page(fleet: &Fleet) -> String {
    let nodes: std::collections::BTreeSet<&str> = fleet.members.iter().map(|member| &*member.node).collect();
    let mut body = format!(
        "<header class=\"hero {}\">\n<p class=\"eyebrow\">pitcrew prove merge</p>\n<div class=\"verdict\">{}</div>\n\
         <h1>{} GPUs on {} nodes</h1>\n<p class=\"lead\">{}.</p>\n</header>\n",
        tone(fleet.verdict),
        fleet.verdict.name().replace('_', " "),
        fleet.members.len(),
        nodes.len(),
        capital(&stands_out::headline(fleet)),
    );
    body.push_str(&findings(fleet));
    for group in &fleet.groups {
        body.push_str(&section(fleet, group));
    }
    body.push_str(&members(fleet));
    document(&format!("{} GPUs compared", fleet.members.len()), &body)
}

fn findings(fleet: &Fleet) -> String {
    let lines = stands_out::lines(fleet);
    if lines.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section>\n<h2>What stands out</h2>\n<ul class=\"reasons\">\n");
    for line in lines {
        let _ = writeln!(
            out,
            "<li class=\"{}\"><span class=\"word\">{}</span>{}</li>",
            tone(line.verdict),
            line.word,
            escaped(&line.text)
        );
    }
    out.push_str("</ul>\n</section>\n");
    out
}

fn section(fleet: &Fleet, group: &Group) -> String {
    let measures: Vec<&Measure> = group
        .measures
        .iter()
        .filter(|measure| measure.median > 0.0)
        .collect();
    let rows = f64::from(u32::try_from(measures.len()).unwrap_or(u32::MAX));
    let height = TOP + ROW * rows + 6.0;
    let mut out = format!(
        "<section>\n<h2>{}</h2>\n<p class=\"muted\">{} GPUs. Each dot is one of them, as a part of the median; the box is half of them.</p>\n\
         <div class=\"chart\"><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Each GPU against the median\">\n",
        escaped(&group.title),
        group.members.len(),
        px(WIDTH),
        px(height),
    );
    let offs = measures
        .iter()
        .flat_map(|measure| &measure.values)
        .map(|value| value.off.clamp(-0.6, 0.6));
    let (low, high) = extent(offs).unwrap_or((-0.1, 0.1));
    let reach = low.abs().max(high.abs()).max(0.08) * 1.1;
    let scale = Scale::new((-reach, reach), (LEFT, WIDTH - RIGHT));
    for tick in scale.ticks() {
        let x = px(scale.at(tick));
        let is_median = tick.abs() < 1e-9;
        let label = if is_median {
            "median".to_owned()
        } else {
            format!("{:+.0} %", tick * 100.0)
        };
        let class = if is_median { "goal" } else { "grid" };
        let _ = writeln!(
            out,
            "<line class=\"{class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/><text class=\"tick\" x=\"{x}\" y=\"14\" \
             text-anchor=\"middle\">{label}</text>",
            px(TOP - 8.0),
            px(height),
        );
    }
    let mut y = TOP;
    for measure in measures {
        strip(fleet, measure, y, scale, &mut out);
        y += ROW;
    }
    out.push_str("</svg></div>\n</section>\n");
    out
}

fn strip(fleet: &Fleet, measure: &Measure, y: f64, scale: Scale, out: &mut String) {
    let middle = y + ROW / 2.0;
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><text class=\"figure\" x=\"{}\" y=\"{}\">{}\
         <tspan class=\"tick\" dx=\"6\">{}</tspan></text>",
        px(LEFT - 14.0),
        px(middle + 4.0),
        escaped(&measure.title),
        px(WIDTH - RIGHT + 12.0),
        px(middle + 4.0),
        escaped(&short(measure.median)),
        measure.unit,
    );
    let quarter = |part: usize| {
        measure
            .values
            .get(measure.values.len() * part / 4)
            .map(|value| value.off)
    };
    if let (Some(low), Some(high), true) = (quarter(1), quarter(3), measure.values.len() >= 4) {
        let (left, right) = (scale.at(low), scale.at(high));
        let _ = writeln!(
            out,
            "<rect class=\"box\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"20\" rx=\"4\"/>",
            px(left),
            px(middle - 10.0),
            px((right - left).max(2.0)),
        );
    }
    for (index, value) in measure.values.iter().enumerate() {
        // A little up and down, so that equals can be told apart.
        let shift = [0.0, -5.0, 5.0, -2.5, 2.5][index % 5];
        let place = fleet.members[value.member].place();
        let class = if value.outlier { "dot out" } else { "dot" };
        let hint = format!(
            "{place}: {} {} ({:+.1} %)",
            short(value.value),
            measure.unit,
            value.off * 100.0
        );
        let _ = writeln!(
            out,
            "<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"{}\"><title>{}</title></circle>",
            px(scale.at(value.off)),
            px(middle + shift),
            if value.outlier { 6 } else { 4 },
            escaped(&hint),
        );
        if value.outlier {
            let _ = writeln!(
                out,
                "<text class=\"out\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                px(scale.at(value.off)),
                px(middle - 12.0),
                escaped(&place),
            );
        }
    }
}

fn members(fleet: &Fleet) -> String {
    let mut out = String::from(
        "<section>\n<details open><summary>GPUs</summary>\n<div class=\"scroll\"><table>\n<tr><th>Node</th><th>GPU</th><th>Name</th>\
         <th>UUID</th><th>PCI</th><th>Tested</th><th>Verdict</th></tr>\n",
    );
    for member in &fleet.members {
        let shared = if member.shared {
            " (shared, not compared)"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td><code>{}</code></td><td><code>{}</code></td><td>{}</td><td>{}{shared}</td></tr>",
            escaped(&member.node),
            escaped(&member.title),
            escaped(&member.name),
            escaped(&member.uuid),
            escaped(member.pci_address.as_deref().unwrap_or("-")),
            member.started,
            chip(member.verdict),
        );
    }
    out.push_str("</table></div></details>\n</section>\n");
    out
}
