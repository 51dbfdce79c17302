//! Reports of several nodes against each other, in a terminal.

use std::fmt::Write as _;

use owo_colors::OwoColorize as _;
use pitcrew_core::proof::fleet::Fleet;

use super::super::table::{Column, render};
use super::super::wrap::{self, Kind};
use super::summary::{WIDTH, coloured};
use super::{plain, short, stands_out};

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
        stands_out::headline(fleet),
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
    let lines = stands_out::lines(fleet);
    let mut out = String::new();
    if !lines.is_empty() {
        out.push('\n');
    }
    for line in lines {
        let label = format!("{}  ", line.word);
        out.push_str(&wrap::paragraph(&label, &line.text, width, Kind::Prose));
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
