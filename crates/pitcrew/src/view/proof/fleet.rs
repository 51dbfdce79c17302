//! Reports of several nodes against each other, in a terminal.

use std::fmt::Write as _;

use owo_colors::OwoColorize as _;
use pitcrew_core::proof::fleet::Fleet;

use super::super::table::{Column, render};
use super::super::wrap::{self, Kind};
use super::summary::coloured;
use super::{plain, short};

const WIDTH: usize = 100;

/// A comparison for people: groups and their medians, then what stands out.
pub(crate) fn summary(fleet: &Fleet, width: Option<usize>) -> String {
    let mut out = String::new();
    let nodes: std::collections::BTreeSet<&str> = fleet.members.iter().map(|member| &*member.node).collect();
    let _ = writeln!(
        out,
        "{}  {} GPUs on {} nodes; {}",
        coloured(fleet.verdict),
        fleet.members.len(),
        nodes.len(),
        match fleet.outliers.len() {
            0 => "none stands out".to_owned(),
            1 => "one figure stands out".to_owned(),
            several => format!("{several} figures stand out"),
        },
    );
    for group in &fleet.groups {
        let _ = writeln!(
            out,
            "\n{}: {} GPUs",
            plain(&group.title).bold(),
            group.members.len()
        );
        let column = |of: &dyn Fn(&pitcrew_core::proof::fleet::Measure) -> String| {
            group.measures.iter().map(of).collect::<Vec<_>>()
        };
        out.push_str(&render(
            vec![
                Column::new("MEASURE", column(&|measure| plain(&measure.title))),
                Column::new("UNIT", column(&|measure| measure.unit.to_owned())),
                Column::new("LOWEST", column(&|measure| end(measure.values.first()))).right(),
                Column::new("MEDIAN", column(&|measure| short(measure.median))).right(),
                Column::new("HIGHEST", column(&|measure| end(measure.values.last()))).right(),
                Column::new("GPUS", column(&|measure| measure.values.len().to_string()))
                    .right()
                    .expendable(1),
                Column::new(
                    "STAND OUT",
                    column(&|measure| {
                        measure
                            .values
                            .iter()
                            .filter(|value| value.outlier)
                            .count()
                            .to_string()
                    }),
                )
                .right(),
            ],
            width,
        ));
    }
    out.push_str(&findings(fleet, width.unwrap_or(WIDTH)));
    out
}

fn end(value: Option<&pitcrew_core::proof::fleet::Value>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| short(value.value))
}

fn findings(fleet: &Fleet, width: usize) -> String {
    let mut out = String::new();
    let mut say = |label: &str, text: String| {
        out.push_str(&wrap::paragraph(&format!("{label}  "), &text, width, Kind::Prose));
    };
    if !(fleet.outliers.is_empty() && fleet.drifts.is_empty()) {
        say("", String::new());
    }
    for outlier in &fleet.outliers {
        say("stands out", plain(&outlier.text));
    }
    for drift in &fleet.drifts {
        let member = &fleet.members[drift.member];
        let text = format!(
            "{}: {} is {:+.0} % since {}",
            plain(&member.place()),
            plain(&drift.measure),
            drift.off * 100.0,
            drift.since
        );
        say("slower", text);
    }
    for slot in &fleet.slots {
        let nodes: Vec<String> = slot.nodes.iter().map(|node| plain(node)).collect();
        let text = format!(
            "{} is slow on {}: look at its cooling and power rather than at the cards",
            plain(&slot.pci_address),
            nodes.join(", ")
        );
        say("slot", text);
    }
    for member in fleet.members.iter().filter(|member| member.verdict.is_failure()) {
        say(member.verdict.name(), plain(&member.place()));
    }
    for empty in &fleet.empty {
        let reason = empty
            .reason
            .as_deref()
            .map_or(String::new(), |reason| format!(": {}", plain(reason)));
        say(empty.verdict.name(), format!("{}{reason}", plain(&empty.node)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn the_slow_one_of_eight_nodes() {
        let fleet = pitcrew_core::proof::fleet::compare(&example::fleet());
        let shown = anstream::adapter::strip_str(&summary(&fleet, Some(100))).to_string();
        insta::assert_snapshot!(shown);
    }
}
