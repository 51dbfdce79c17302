//! Tables of the page: phases, wrong results, counters, and what the run took place in.

use std::fmt::Write as _;

use pitcrew_core::proof::{Corruption, Counters, DeviceEvidence, Grade, Outcome, Report};

use super::super::{bytes, count, figure_of, result_of, short};
use super::{bars, escaped, with_code};

/// Most wrong results that are listed; all of them are in the report itself.
const LISTED: usize = 100;

fn cell(text: Option<String>) -> String {
    text.map_or_else(
        || "<td class=\"none\">-</td>".to_owned(),
        |text| format!("<td>{}</td>", escaped(&text)),
    )
}

pub(super) fn phases(report: &Report, index: usize) -> String {
    let device = &report.evidence.devices[index];
    let mut out = String::from(
        "<details open><summary>Phases</summary>\n<div class=\"scroll\"><table>\n<tr><th>Phase</th><th>Kernels</th><th>Measured</th>\
         <th>p5 to p95</th><th>Expected</th><th>Pipe</th><th>Clock</th><th>Verified</th><th>Result</th></tr>\n",
    );
    for phase in &device.phases {
        let figure = figure_of(report, index, phase);
        let percent = |part: Option<f64>| part.map(|part| format!("{:.0} %", part * 100.0));
        let tone = match (&phase.outcome, figure) {
            _ if phase.corruption_count > 0 => "bad",
            (Outcome::Failed { .. }, _) => "bad",
            (Outcome::Skipped { .. }, _) => "unrated",
            (_, Some(figure)) if figure.grade != Grade::Unrated => bars::tone(figure.grade),
            _ => "",
        };
        let verified = match (phase.verified_outputs, phase.verified_bytes) {
            (0, 0) => None,
            (0, of_memory) => Some(bytes(of_memory)),
            (outputs, _) => Some(count(outputs)),
        };
        let _ = writeln!(
            out,
            "<tr><td>{}</td>{}{}{}{}{}{}{}<td class=\"{tone}\">{}</td></tr>",
            escaped(&phase.title()),
            cell(phase.kernels()),
            cell(
                phase
                    .rate
                    .map(|rate| format!("{} {}", short(rate.p50), rate.unit))
            ),
            cell(
                phase
                    .rate
                    .map(|rate| format!("{} to {}", short(rate.p5), short(rate.p95)))
            ),
            cell(figure.and_then(|figure| figure.expected).map(short)),
            cell(percent(figure.and_then(|figure| figure.pipe_efficiency))),
            cell(phase.sm_clock_mhz.map(|clock| format!("{clock:.0} MHz"))),
            cell(verified),
            with_code(&result_of(report, index, phase)),
        );
    }
    out.push_str("</table></div></details>\n");
    for phase in device.phases.iter().filter(|phase| !phase.refused.is_empty()) {
        let refused: Vec<String> = phase
            .refused
            .iter()
            .map(|refused| format!("{} ({})", refused.variant, refused.why))
            .collect();
        let _ = writeln!(
            out,
            "<p class=\"muted\">{}: not used: {}</p>",
            escaped(&phase.title()),
            escaped(&refused.join("; "))
        );
    }
    out
}

pub(super) fn corruptions(device: &DeviceEvidence) -> String {
    let found: Vec<(String, &Corruption)> = (device.phases.iter())
        .flat_map(|phase| {
            phase
                .corruptions
                .iter()
                .map(|corruption| (phase.title(), corruption))
        })
        .collect();
    if found.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<h3>What was wrong</h3>\n<div class=\"scroll\"><table>\n<tr><th>At</th><th>Phase</th><th>Kind</th><th>SM</th><th>Place</th>\
         <th>Expected</th><th>Got</th><th>Bits</th><th>Heat</th></tr>\n",
    );
    for (title, corruption) in found.iter().take(LISTED) {
        let _ = writeln!(
            out,
            "<tr><td>{:.1} s</td><td>{}</td><td>{}</td>{}{}{}{}{}{}</tr>",
            corruption.at_s.clamp(-1e9, 1e9),
            escaped(title),
            corruption.class.words(),
            cell(corruption.sm.map(|sm| sm.to_string())),
            cell(place(corruption)),
            cell(corruption.expected.map(|bits| bits.to_string())),
            cell(corruption.got.map(|bits| bits.to_string())),
            cell(corruption.difference().map(|bits| bits.to_string())),
            cell(corruption.temperature_c.map(|heat| format!("{heat:.0} °C"))),
        );
    }
    out.push_str("</table></div>\n");
    if found.len() > LISTED {
        let _ = writeln!(
            out,
            "<p class=\"muted\">{} more are in the report.</p>",
            found.len() - LISTED
        );
    }
    out
}

fn place(corruption: &Corruption) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(corruption.tile.map(|tile| format!("tile {tile}")));
    parts.extend(
        corruption
            .row
            .zip(corruption.column)
            .map(|(row, column)| format!("row {row}, column {column}")),
    );
    parts.extend(corruption.warp.map(|warp| format!("warp {warp}")));
    parts.extend(corruption.offset.map(|offset| format!("offset {offset:#x}")));
    (!parts.is_empty()).then(|| parts.join(", "))
}

pub(super) fn counters(device: &DeviceEvidence) -> String {
    type Pick = fn(&Counters) -> Option<String>;
    let rows: [(&str, Pick); 11] = [
        ("Corrected memory errors", |counters| {
            counters.ecc_corrected.map(count)
        }),
        ("Uncorrected memory errors", |counters| {
            counters.ecc_uncorrected.map(count)
        }),
        ("Rows remapped after corrected errors", |counters| {
            counters.remapped_correctable.map(count)
        }),
        ("Rows remapped after uncorrected errors", |counters| {
            counters.remapped_uncorrectable.map(count)
        }),
        ("A remap waits for a reset", |counters| {
            counters.remap_pending.map(yes)
        }),
        ("A remap failed", |counters| counters.remap_failed.map(yes)),
        ("Pages given up", |counters| counters.retired_pages.map(count)),
        ("A page waits for a reboot", |counters| {
            counters.retire_pending.map(yes)
        }),
        ("PCIe packets sent again", |counters| {
            counters.pcie_replays.map(count)
        }),
        ("Errors on NVLinks", |counters| counters.nvlink_errors.map(count)),
        ("NVLinks that are up", |counters| {
            counters.nvlinks_active.map(|links| links.to_string())
        }),
    ];
    let mut body = String::new();
    for (name, of) in rows {
        let (before, after) = (of(&device.before), of(&device.after));
        if before.is_none() && after.is_none() {
            continue;
        }
        let tone = if before == after { "" } else { " class=\"low\"" };
        let _ = writeln!(
            body,
            "<tr{tone}><td>{name}</td>{}{}</tr>",
            cell(before),
            cell(after)
        );
    }
    let mut out = String::new();
    if !body.is_empty() {
        let _ = write!(
            out,
            "<details><summary>Counters before and after</summary>\n<div class=\"scroll\"><table>\n<tr><th></th><th>Before</th><th>After</th></tr>\n\
             {body}</table></div></details>\n"
        );
    }
    for unread in &device.unread {
        let _ = writeln!(
            out,
            "<p class=\"muted\">{} could not be read: {}</p>",
            escaped(&unread.field),
            escaped(&unread.reason)
        );
    }
    out
}

fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

/// With what and where.
pub(super) fn surroundings(report: &Report) -> String {
    let evidence = &report.evidence;
    let mut rows: Vec<(String, String)> = vec![("Schema".to_owned(), report.schema.clone())];
    rows.extend(
        evidence
            .tool
            .kernels
            .clone()
            .map(|kernels| ("Kernels (SHA-256)".to_owned(), kernels)),
    );
    rows.extend(
        evidence
            .node
            .kernel
            .clone()
            .map(|kernel| ("Linux".to_owned(), kernel)),
    );
    rows.extend(evidence.node.environment.clone());
    let mut out =
        String::from("<footer>\n<details><summary>Surroundings</summary>\n<div class=\"scroll\"><table>\n");
    for (name, value) in rows {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td><code>{}</code></td></tr>",
            escaped(&name),
            escaped(&value)
        );
    }
    out.push_str("</table></div></details>\n</footer>\n");
    out
}
