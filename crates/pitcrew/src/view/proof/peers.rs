//! Copies between GPUs in a terminal: line by line for two GPUs, a matrix for more, and a sentence for very many.

use std::collections::BTreeMap;

use pitcrew_core::proof::{Outcome, PeerPath, PeerRoute, Rate, Report};

use super::super::table::{Column, render};
use super::super::wrap::{self, Kind};
use super::summary::WIDTH;
use super::{bytes, place, short, trouble};

/// Most GPUs that a matrix has columns for on eighty.
const COLUMNS: usize = 10;

/// The way, as a person calls it.
pub(super) fn way(route: PeerRoute) -> &'static str {
    match route {
        PeerRoute::NvLink => "NVLink",
        PeerRoute::Pcie => "PCIe",
        PeerRoute::Host => "by host",
        PeerRoute::Unknown => "not known",
    }
}

pub(super) fn table(report: &Report, width: Option<usize>) -> String {
    let paths = &report.evidence.peers;
    if paths.len() <= 2 {
        return line_by_line(report, &paths.iter().collect::<Vec<_>>(), width);
    }
    let mut out = if report.evidence.devices.len() <= COLUMNS {
        matrix(report, width)
    } else {
        sentences(paths, width)
    };
    let odd: Vec<&PeerPath> = paths.iter().filter(|path| !is_well(path)).collect();
    if !odd.is_empty() {
        out.push('\n');
        out.push_str(&line_by_line(report, &odd, width));
    }
    out
}

fn is_well(path: &PeerPath) -> bool {
    path.outcome == Outcome::Ran && path.corruption_count == 0
}

fn result(path: &PeerPath) -> String {
    trouble(&path.outcome, path.corruption_count).unwrap_or_else(|| "ok".to_owned())
}

fn line_by_line(report: &Report, paths: &[&PeerPath], width: Option<usize>) -> String {
    let column = |of: &dyn Fn(&PeerPath) -> String| paths.iter().map(|path| of(path)).collect::<Vec<_>>();
    let name = |index: usize| place(report, Some(index)).unwrap_or_else(|| index.to_string());
    let rate = |rate: Option<Rate>| rate.map_or_else(|| "-".to_owned(), |rate| short(rate.p50));
    render(
        vec![
            Column::new("FROM", column(&|path| name(path.from))),
            Column::new("TO", column(&|path| name(path.to))),
            Column::new("WAY", column(&|path| way(path.route).to_owned())),
            Column::new("GB/s", column(&|path| rate(path.rate))).right(),
            Column::new("BOTH WAYS", column(&|path| rate(path.both_ways)))
                .right()
                .expendable(1),
            Column::new("VERIFIED", column(&|path| bytes(path.verified_bytes)))
                .right()
                .expendable(2),
            Column::new("RESULT", column(&result)),
        ],
        width,
    )
}

/// GB/s from the row to the column.
fn matrix(report: &Report, width: Option<usize>) -> String {
    const HEADINGS: [&str; COLUMNS] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let devices = report.evidence.devices.len();
    let paths: BTreeMap<(usize, usize), &PeerPath> = (report
        .evidence
        .peers
        .iter()
        .map(|path| ((path.from, path.to), path)))
    .collect();
    let cell = |from: usize, to: usize| match paths.get(&(from, to)) {
        None => "-".to_owned(),
        Some(path) if path.corruption_count > 0 => "WRONG".to_owned(),
        Some(path) => path.rate.map_or_else(|| "-".to_owned(), |rate| short(rate.p50)),
    };
    let mut columns = vec![Column::new(
        "GB/s TO",
        (0..devices).map(|from| format!("from {from}")),
    )];
    for (to, heading) in HEADINGS.into_iter().enumerate().take(devices) {
        columns.push(Column::new(heading, (0..devices).map(|from| cell(from, to))).right());
    }
    let mut out = render(columns, width);
    out.push_str(&sentences(&report.evidence.peers, width));
    out
}

/// For each way how many copies there were, and how fast.
fn sentences(paths: &[PeerPath], width: Option<usize>) -> String {
    let mut by_way = BTreeMap::<&str, Vec<&PeerPath>>::new();
    for path in paths {
        by_way.entry(way(path.route)).or_default().push(path);
    }
    let width = width.unwrap_or(WIDTH);
    let mut out = String::new();
    for (way, paths) in by_way {
        let both = |of: fn(&PeerPath) -> Option<Rate>| range(paths.iter().filter_map(|path| of(path)));
        let one_way = both(|path| path.rate).unwrap_or_else(|| "not measured".to_owned());
        let both_ways = both(|path| path.both_ways);
        let both_ways = both_ways.map_or(String::new(), |range| format!(", {range} with both ways busy"));
        let total = paths
            .iter()
            .fold(0_u64, |sum, path| sum.saturating_add(path.verified_bytes));
        let text = format!(
            "{} ways, {one_way}{both_ways}; {} compared",
            paths.len(),
            bytes(total)
        );
        out.push_str(&wrap::paragraph(&format!("{way}: "), &text, width, Kind::Prose));
    }
    out
}

/// `370 to 378 GB/s`.
fn range(rates: impl Iterator<Item = Rate>) -> Option<String> {
    let mut rates: Vec<Rate> = rates.collect();
    rates.sort_by(|a, b| a.p50.total_cmp(&b.p50));
    let (first, last) = (rates.first()?, rates.last()?);
    Some(format!(
        "{} to {} {}",
        short(first.p50),
        short(last.p50),
        first.unit
    ))
}
