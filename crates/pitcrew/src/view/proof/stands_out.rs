//! What stands out in a comparison of nodes, one line for each thing: the same in a terminal and on a page.

use std::collections::BTreeMap;

use pitcrew_core::proof::Verdict;
use pitcrew_core::proof::fleet::{Fleet, Outlier};

use super::plain;

/// Most figures of one GPU that a line names.
const NAMED: usize = 3;

/// One thing.
pub(super) struct Line {
    /// What it is, in a word or two.
    pub(super) word: &'static str,
    /// How grave it is.
    pub(super) verdict: Verdict,
    /// It, in a sentence.
    pub(super) text: String,
}

/// `none stands out`, or how many GPUs do.
pub(super) fn headline(fleet: &Fleet) -> String {
    match by_member(fleet).len() {
        0 => "none stands out from its equals".to_owned(),
        1 => "one GPU stands out from its equals".to_owned(),
        several => format!("{several} GPUs stand out from their equals"),
    }
}

/// All of them, the gravest kind first.
pub(super) fn lines(fleet: &Fleet) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |word, verdict, text: String| lines.push(Line { word, verdict, text });
    for (member, outliers) in by_member(fleet) {
        let text = match outliers.as_slice() {
            [one] => plain(&one.text),
            several => together(&fleet.members[member].place(), several),
        };
        add("stands out", Verdict::FailPerf, text);
    }
    for drift in &fleet.drifts {
        let text = format!(
            "{}: {} is {:+.0} % since {}",
            plain(&fleet.members[drift.member].place()),
            plain(&drift.measure),
            drift.off * 100.0,
            drift.since
        );
        add("slower", Verdict::Warn, text);
    }
    for slot in &fleet.slots {
        let nodes: Vec<String> = slot.nodes.iter().map(|node| plain(node)).collect();
        let text = format!(
            "{} is slow on {}: look at its cooling and power rather than at the cards",
            plain(&slot.pci_address),
            nodes.join(", ")
        );
        add("slot", Verdict::Warn, text);
    }
    for member in fleet.members.iter().filter(|member| member.verdict.is_failure()) {
        add(member.verdict.name(), member.verdict, plain(&member.place()));
    }
    for empty in &fleet.empty {
        let reason = empty.reason.as_deref();
        let reason = reason.map_or(String::new(), |reason| format!(": {}", plain(reason)));
        let text = format!("{}{reason}", plain(&empty.node));
        add(empty.verdict.name(), empty.verdict, text);
    }
    lines
}

fn by_member(fleet: &Fleet) -> BTreeMap<usize, Vec<&Outlier>> {
    let mut members = BTreeMap::<usize, Vec<&Outlier>>::new();
    for outlier in &fleet.outliers {
        members.entry(outlier.member).or_default().push(outlier);
    }
    members
}

/// A GPU that is slow is so in most of its figures; the first are those that are furthest off.
fn together(place: &str, outliers: &[&Outlier]) -> String {
    let named: Vec<String> = outliers
        .iter()
        .take(NAMED)
        .map(|outlier| format!("{} {:+.0} %", plain(&outlier.measure), outlier.off * 100.0))
        .collect();
    let more = match outliers.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{}: {}{more}, from the median of its equals",
        plain(place),
        named.join(", ")
    )
}
