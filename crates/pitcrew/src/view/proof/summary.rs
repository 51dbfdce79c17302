//! A report in a terminal: verdict first, then the figures, then why and what to do.

use std::fmt::Write as _;

use owo_colors::OwoColorize as _;
use pitcrew_core::proof::{Figure, Outcome, PhaseKind, Report, Sample, Skip, Thresholds, Verdict};

use super::super::table::{Column, render};
use super::super::wrap::{self, Kind};
use super::{
    compared, count, figure_of, first_figure, links, most, peers, percent, place, plain, result_of, short,
    totals, verdict_of,
};

/// Columns where nothing says how many there are: output stays readable in a log.
pub(super) const WIDTH: usize = 100;
/// Most GPUs of which every phase is shown.
const DETAILED: usize = 2;

/// A report for people.
pub(crate) fn summary(report: &Report, width: Option<usize>) -> String {
    let mut out = headline(report, width);
    if let Some(scenario) = &report.evidence.run.scenario {
        let line = format!(
            "imaginary GPUs: scenario `{}`; nothing was measured",
            plain(scenario)
        );
        let _ = writeln!(out, "{}", line.yellow());
    }
    if !report.evidence.run.injected.is_empty() {
        let planted = report.evidence.run.injected.iter().map(|fault| plain(fault));
        let line = format!("faults were planted: {}", planted.collect::<Vec<_>>().join("; "));
        let _ = writeln!(out, "{}", line.yellow());
    }
    if report.judgement.thresholds != Thresholds::default() {
        let line = "judged by thresholds that were given, not by the usual ones";
        let _ = writeln!(out, "{}", line.yellow());
    }
    if !report.evidence.devices.is_empty() {
        out.push('\n');
        out.push_str(&devices(report, width));
    }
    if report.evidence.devices.len() <= DETAILED {
        for index in 0..report.evidence.devices.len() {
            out.push('\n');
            out.push_str(&phases(report, index, width));
        }
    }
    if !report.evidence.peers.is_empty() {
        out.push('\n');
        out.push_str(&peers::table(report, width));
    }
    out.push_str(&findings(report, width.unwrap_or(WIDTH)));
    out
}

/// The verdict in its colour; the word says it all without one.
pub(super) fn coloured(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass => verdict.green().bold().to_string(),
        Verdict::Warn | Verdict::Interrupted | Verdict::ErrorSetup => verdict.yellow().bold().to_string(),
        Verdict::FailEnv | Verdict::FailPerf | Verdict::FailHardware | Verdict::FailCorruption => {
            verdict.red().bold().to_string()
        }
    }
}

fn headline(report: &Report, width: Option<usize>) -> String {
    let evidence = &report.evidence;
    let run = &evidence.run;
    let mut parts = vec![format!("{} for {:.0} s", run.profile, run.seconds)];
    if let Some(driver) = &evidence.driver.version {
        parts.push(format!("driver {}", plain(driver)));
    }
    parts.push(run.started.to_string());
    let text = format!(
        "{}: {} ({})",
        plain(&evidence.node.name),
        report.verdict.meaning(),
        parts.join(", ")
    );
    let label = format!("{}  ", report.verdict);
    let paragraph = wrap::paragraph(&label, &text, width.unwrap_or(WIDTH), Kind::Prose);
    paragraph.replacen(&label, &format!("{}  ", coloured(report.verdict)), 1)
}

fn devices(report: &Report, width: Option<usize>) -> String {
    let devices = &report.evidence.devices;
    let column = |of: &dyn Fn(usize) -> String| (0..devices.len()).map(of).collect::<Vec<_>>();
    let told = |index: usize, of: fn(&Sample) -> Option<f64>, unit: &str| {
        most(&devices[index], of).map_or_else(|| "?".to_owned(), |most| format!("{most:.0} {unit}"))
    };
    let title = |index: usize| plain(&devices[index].device.title()).replacen("GPU ", "", 1);
    render(
        vec![
            Column::new("GPU", column(&title)),
            Column::new("NAME", column(&|index| plain(&devices[index].device.name))).expendable(3),
            Column::new("VERDICT", column(&|index| verdict_of(report, index).to_string())),
            Column::new("PRODUCTS", column(&|index| rate(report, index, PhaseKind::Gemm))),
            Column::new("MEMORY", column(&|index| rate(report, index, PhaseKind::Copy))).expendable(1),
            Column::new(
                "POWER",
                column(&|index| told(index, |sample| sample.power_w, "W")),
            )
            .right()
            .expendable(4),
            Column::new(
                "HEAT",
                column(&|index| told(index, |sample| sample.temperature_c, "°C")),
            )
            .right()
            .expendable(5),
            Column::new("VERIFIED", column(&|index| count(totals(&devices[index]).1)))
                .right()
                .expendable(2),
            Column::new("WRONG", column(&|index| count(totals(&devices[index]).0))).right(),
        ],
        width,
    )
}

/// A figure with its part of what it should be: `bf16 785 TFLOP/s (99 %)`.
fn rate(report: &Report, device: usize, kind: PhaseKind) -> String {
    let figure = first_figure(report, device, kind);
    figure.map_or_else(
        || "-".to_owned(),
        |figure| {
            let format = figure.format.map_or(String::new(), |format| format!("{format} "));
            let (measured, unit) = (short(figure.measured), figure.unit);
            format!("{format}{measured} {unit}{}", of_expected(figure))
        },
    )
}

fn of_expected(figure: &Figure) -> String {
    figure
        .ratio
        .map_or(String::new(), |ratio| format!(" ({})", percent(ratio)))
}

fn phases(report: &Report, index: usize, width: Option<usize>) -> String {
    let device = &report.evidence.devices[index];
    let phases = &device.phases;
    if phases.is_empty() {
        return String::new();
    }
    let figures: Vec<Option<&Figure>> = phases
        .iter()
        .map(|phase| figure_of(report, index, phase))
        .collect();
    let column = |of: &dyn Fn(usize) -> String| (0..phases.len()).map(of).collect::<Vec<_>>();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let verified = |row: usize| or_dash(compared(&phases[row]));
    let part = |part: Option<f64>| or_dash(part.map(percent));
    let table = render(
        vec![
            Column::new("PHASE", column(&|row| phases[row].title())),
            Column::new(
                "KERNELS",
                column(&|row| or_dash(phases[row].kernels().as_deref().map(plain))),
            )
            .expendable(3),
            Column::new(
                "MEASURED",
                column(&|row| {
                    or_dash(
                        phases[row]
                            .rate
                            .map(|rate| format!("{} {}", short(rate.p50), rate.unit)),
                    )
                }),
            )
            .right(),
            Column::new(
                "EXPECTED",
                column(&|row| or_dash(figures[row].and_then(|figure| figure.expected).map(short))),
            )
            .right(),
            Column::new(
                "OF IT",
                column(&|row| part(figures[row].and_then(|figure| figure.ratio))),
            )
            .right(),
            Column::new(
                "PIPE",
                column(&|row| part(figures[row].and_then(|figure| figure.pipe_efficiency))),
            )
            .right()
            .expendable(2),
            Column::new("VERIFIED", column(&verified)).right().expendable(1),
            Column::new("RESULT", column(&|row| result_of(report, index, &phases[row]))),
        ],
        width,
    );
    let links = links(device).map_or(String::new(), |links| format!("  NVLinks {links}"));
    format!("{}{links}\n{table}", plain(&device.device.title()).bold())
}

/// Why, and what to do; and what was not tested, so that nobody takes it for tested.
fn findings(report: &Report, width: usize) -> String {
    let mut out = String::new();
    if !report.judgement.reasons.is_empty() {
        out.push('\n');
    }
    for reason in &report.judgement.reasons {
        let word = if reason.verdict == Verdict::Pass {
            "note".to_owned()
        } else {
            reason.verdict.to_string()
        };
        let at = place(report, reason.device).map_or(String::new(), |place| format!("{place}: "));
        let label = format!("{word}  ");
        let paragraph = wrap::paragraph(
            &label,
            &format!("{at}{}", plain(&reason.text)),
            width,
            Kind::Prose,
        );
        let painted = if reason.verdict == Verdict::Pass {
            word.cyan().to_string()
        } else {
            coloured(reason.verdict)
        };
        out.push_str(&paragraph.replacen(&word, &painted, 1));
    }
    if !report.judgement.actions.is_empty() {
        out.push('\n');
    }
    for action in &report.judgement.actions {
        let paragraph = wrap::paragraph("do: ", &plain(action), width, Kind::Prose);
        out.push_str(&paragraph.replacen("do:", &"do:".cyan().bold().to_string(), 1));
    }
    let untested = untested(report);
    if !untested.is_empty() {
        out.push('\n');
        let text = untested.join(", ");
        out.push_str(&wrap::paragraph("not tested: ", &text, width, Kind::Prose));
    }
    out
}

/// Titles of phases that did not run on some GPU, each once, and behind those that have it in common the reason.
fn untested(report: &Report) -> Vec<String> {
    let mut found: Vec<(&str, Vec<String>)> = Vec::new();
    for phase in report.evidence.devices.iter().flat_map(|device| &device.phases) {
        if let Outcome::Skipped { skip, why } = &phase.outcome {
            let asked = if *skip == Skip::NotAsked {
                "not asked for"
            } else {
                why
            };
            let at = found
                .iter()
                .position(|(why, _)| *why == asked)
                .unwrap_or(found.len());
            if at == found.len() {
                found.push((asked, Vec::new()));
            }
            let titles = &mut found[at].1;
            let title = phase.title();
            if !titles.contains(&title) {
                titles.push(title);
            }
        }
    }
    let told = found.into_iter();
    told.map(|(why, titles)| format!("{} ({})", titles.join(", "), plain(why)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn shown(report: &Report, width: Option<usize>) -> String {
        anstream::adapter::strip_str(&summary(report, width)).to_string()
    }

    #[test]
    fn a_node_that_is_well() {
        insta::assert_snapshot!(shown(&example::well(), Some(120)));
    }

    #[test]
    fn a_node_that_is_not() {
        insta::assert_snapshot!(shown(&example::sick(), Some(100)));
    }

    /// No line is wider than what it is for, whatever a node has.
    #[test]
    fn eight_gpus_on_eighty_columns() {
        let shown = shown(&example::eight(), Some(80));
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_machine_without_a_driver() {
        insta::assert_snapshot!(shown(&example::no_driver(), Some(80)));
    }
}
