//! All GPUs of a report in one table, each a link to its part of the page.

use std::fmt::Write as _;

use pitcrew_core::proof::{Grade, PhaseKind, Report};

use super::super::{count, first_figure, links, most, percent, short, totals, verdict_of};
use super::{bars, chip, escaped};

pub(super) fn table(report: &Report) -> String {
    let devices = &report.evidence.devices;
    if devices.len() < 2 {
        return String::new();
    }
    let has_links = devices.iter().any(|device| links(device).is_some());
    let mut out = String::from(
        "<section>\n<h2>GPUs</h2>\n<div class=\"scroll\"><table>\n<tr><th>GPU</th><th>Verdict</th><th>Products</th><th>Memory</th>\
         <th>From host</th><th>Power</th><th>Heat</th>",
    );
    if has_links {
        out.push_str("<th>NVLinks</th>");
    }
    out.push_str("<th>Verified</th><th>Wrong</th></tr>\n");
    for (index, device) in devices.iter().enumerate() {
        let _ = write!(
            out,
            "<tr><td><a href=\"#gpu-{index}\">{}</a></td><td>{}</td>",
            escaped(&device.device.title()),
            chip(verdict_of(report, index)),
        );
        for kind in [PhaseKind::Gemm, PhaseKind::Copy, PhaseKind::HostToDevice] {
            out.push_str(&cell(report, index, kind));
        }
        let told = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0} {unit}"))
        };
        let _ = write!(
            out,
            "<td>{}</td><td>{}</td>",
            told(most(device, |sample| sample.power_w), "W"),
            told(most(device, |sample| sample.temperature_c), "°C"),
        );
        if has_links {
            let _ = write!(
                out,
                "<td>{}</td>",
                links(device).unwrap_or_else(|| "-".to_owned())
            );
        }
        let (wrong, outputs, _) = totals(device);
        let tone = if wrong > 0 { " class=\"bad\"" } else { "" };
        let _ = writeln!(
            out,
            "<td>{}</td><td{tone}>{}</td></tr>",
            count(outputs),
            count(wrong)
        );
    }
    out.push_str("</table></div>\n</section>\n");
    out
}

/// A figure and its part of what it should be, in the colour of its grade where that isn't good.
fn cell(report: &Report, device: usize, kind: PhaseKind) -> String {
    let Some(figure) = first_figure(report, device, kind) else {
        return "<td class=\"none\">-</td>".to_owned();
    };
    let tone = match figure.grade {
        Grade::Low | Grade::Bad => format!(" class=\"{}\"", bars::tone(figure.grade)),
        Grade::Good | Grade::Unrated => String::new(),
    };
    let part = figure.ratio.map_or(String::new(), |ratio| {
        format!(" <small>{}</small>", percent(ratio))
    });
    format!(
        "<td{tone}>{} {}{part}</td>",
        escaped(&short(figure.measured)),
        figure.unit
    )
}
