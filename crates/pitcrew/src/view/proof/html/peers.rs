//! Ways between host and GPUs, and between GPUs, as a matrix.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pitcrew_core::proof::{Outcome, PeerPath, PeerRoute, PhaseKind, Report};

use super::super::peers::way;
use super::super::short;
use super::escaped;

pub(super) fn section(report: &Report) -> String {
    let devices = &report.evidence.devices;
    if report.evidence.peers.is_empty() || devices.is_empty() {
        return String::new();
    }
    let paths: BTreeMap<(usize, usize), &PeerPath> = report
        .evidence
        .peers
        .iter()
        .map(|path| ((path.from, path.to), path))
        .collect();
    let fastest = paths
        .values()
        .filter_map(|path| Some(path.rate?.p50))
        .fold(0.0, f64::max);
    let mut out = String::from(
        "<section>\n<h2>Between GPUs and host</h2>\n<p class=\"muted\">GB/s from the row to the column; below it the same while the other way is busy too. Everything that was copied was compared.</p>\n\
         <div class=\"scroll\"><table class=\"matrix\">\n<tr><th></th><th>host</th>",
    );
    for device in devices {
        let _ = write!(out, "<th>{}</th>", escaped(&device.device.title()));
    }
    out.push_str("</tr>\n<tr><th>host</th><td></td>");
    for index in 0..devices.len() {
        out.push_str(&of_host(report, index, PhaseKind::HostToDevice));
    }
    out.push_str("</tr>\n");
    for (from, device) in devices.iter().enumerate() {
        let _ = write!(out, "<tr><th>{}</th>", escaped(&device.device.title()));
        out.push_str(&of_host(report, from, PhaseKind::DeviceToHost));
        for to in 0..devices.len() {
            out.push_str(&cell(paths.get(&(from, to)).copied(), fastest));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n</section>\n");
    out
}

fn of_host(report: &Report, device: usize, kind: PhaseKind) -> String {
    let mut phases = report.evidence.devices[device].phases.iter();
    let rate = phases
        .find(|phase| phase.kind == kind)
        .and_then(|phase| phase.rate);
    rate.map_or_else(
        || "<td class=\"none\">-</td>".to_owned(),
        |rate| format!("<td class=\"host\">{}<small>PCIe</small></td>", short(rate.p50)),
    )
}

fn cell(path: Option<&PeerPath>, fastest: f64) -> String {
    let Some(path) = path else {
        return "<td class=\"none\"></td>".to_owned();
    };
    let way = match path.route {
        PeerRoute::Unknown => "",
        route => way(route),
    };
    if path.corruption_count > 0 {
        return format!(
            "<td class=\"bad\">{} wrong<small>{way}</small></td>",
            path.corruption_count
        );
    }
    match (&path.outcome, path.rate) {
        (Outcome::Ran | Outcome::Interrupted, Some(rate)) => {
            // Four steps of the fastest way that there is.
            let part = if fastest > 0.0 { rate.p50 / fastest } else { 0.0 };
            let step = match part {
                part if part >= 0.9 => 4,
                part if part >= 0.6 => 3,
                part if part >= 0.3 => 2,
                _ => 1,
            };
            let both_ways = path.both_ways.map_or(String::new(), |rate| {
                format!("<small>{} both ways</small>", short(rate.p50))
            });
            format!(
                "<td class=\"m{step}\">{}{both_ways}<small>{way}</small></td>",
                short(rate.p50)
            )
        }
        (outcome, _) => format!(
            "<td class=\"none\"><small>{}</small></td>",
            escaped(outcome.why().unwrap_or("-"))
        ),
    }
}
