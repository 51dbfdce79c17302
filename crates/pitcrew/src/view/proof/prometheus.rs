//! Prometheus metrics in the text format, as a textfile collector reads them.
//!
//! Names are those of fact sheet `prove`, section 6. A figure that was not measured has no line.

use std::fmt::Write as _;

use pitcrew_core::proof::{DeviceEvidence, Figure, PhaseKind, Report, Unit, Verdict};

use super::{plain, totals, verdict_of};

/// The metrics of a report.
pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    verdicts(report, &mut out);
    figures(report, &mut out);
    counters(report, &mut out);
    let help = "When the proof began, in seconds since 1970.";
    family(&mut out, "gpu_proof_last_run_timestamp", "gauge", help);
    let node = label("node", &report.evidence.node.name);
    line(
        &mut out,
        "gpu_proof_last_run_timestamp",
        &node,
        f64::from(report.evidence.run.started.0),
    );
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: f64) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}

/// `name="value"`, escaped as the format asks for.
fn label(name: &str, value: &str) -> String {
    let value = plain(value).replace('\\', "\\\\").replace('"', "\\\"");
    format!("{name}=\"{value}\"")
}

/// What tells a device from others.
fn labels(device: &DeviceEvidence) -> String {
    let device = &device.device;
    let mut labels = vec![
        label("gpu", &device.index.to_string()),
        label("uuid", &device.uuid),
        label("model", &device.name),
    ];
    if let Some(mig) = &device.mig {
        labels.push(label("mig_profile", &mig.profile));
    }
    labels.join(",")
}

/// One of them is 1 for each device.
fn verdicts(report: &Report, out: &mut String) {
    let name = "gpu_proof_verdict";
    family(
        out,
        name,
        "gauge",
        "Verdict of the last proof: 1 for the one that was given.",
    );
    for (index, device) in report.evidence.devices.iter().enumerate() {
        for verdict in Verdict::ALL {
            let labels = format!("{},{}", labels(device), label("verdict", verdict.name()));
            let is_given = verdict_of(report, index) == *verdict;
            line(out, name, &labels, f64::from(u8::from(is_given)));
        }
    }
    let name = "gpu_proof_run_verdict";
    family(
        out,
        name,
        "gauge",
        "Verdict of the last proof of this node: 1 for the one that was given.",
    );
    for verdict in Verdict::ALL {
        let labels = format!(
            "{},{}",
            label("node", &report.evidence.node.name),
            label("verdict", verdict.name())
        );
        line(
            out,
            name,
            &labels,
            f64::from(u8::from(report.verdict == *verdict)),
        );
    }
}

/// Name, help, which figures, and what of them.
type Pick<'a> = (
    &'a str,
    &'a str,
    &'a dyn Fn(&Figure) -> bool,
    &'a dyn Fn(&Figure) -> Option<f64>,
);

fn figures(report: &Report, out: &mut String) {
    let is_host = |figure: &Figure| {
        matches!(
            figure.phase,
            PhaseKind::HostToDevice | PhaseKind::DeviceToHost | PhaseKind::HostBothWays
        )
    };
    let measured = |figure: &Figure| Some(figure.measured);
    let families: [Pick<'_>; 5] = [
        (
            "gpu_proof_tflops",
            "Products, in TFLOP/s.",
            &|figure| figure.unit == Unit::Tflops,
            &measured,
        ),
        (
            "gpu_proof_mem_gbs",
            "Memory bandwidth, in GB/s.",
            &|figure| figure.unit == Unit::Gbs && !is_host(figure),
            &measured,
        ),
        (
            "gpu_proof_pcie_gbs",
            "Copies between host and GPU, in GB/s.",
            &is_host,
            &measured,
        ),
        (
            "gpu_proof_pipe_efficiency",
            "Part of the SMs' peak at their clock that was reached.",
            &|_| true,
            &|figure| figure.pipe_efficiency,
        ),
        (
            "gpu_proof_ratio_to_expected",
            "What was measured as a part of what a healthy card reaches.",
            &|_| true,
            &|figure| figure.ratio,
        ),
    ];
    for (name, help, wanted, value) in families {
        let lines: Vec<(String, f64)> = (report.judgement.figures.iter())
            .filter(|figure| wanted(figure))
            .filter_map(|figure| {
                let device = report.evidence.devices.get(figure.device)?;
                Some((of_figure(device, figure), value(figure)?))
            })
            .collect();
        if lines.is_empty() {
            continue;
        }
        family(out, name, "gauge", help);
        for (labels, value) in lines {
            line(out, name, &labels, value);
        }
    }
}

fn of_figure(device: &DeviceEvidence, figure: &Figure) -> String {
    let mut text = format!("{},{}", labels(device), label("phase", figure.phase.name()));
    if let Some(format) = figure.format {
        let _ = write!(text, ",{}", label("format", format.name()));
    }
    if let Some(variant) = &figure.variant {
        let _ = write!(text, ",{}", label("variant", variant));
    }
    text
}

/// A sum over a device's phases.
type Total = fn(&DeviceEvidence) -> u64;

#[expect(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers than these"
)]
fn counters(report: &Report, out: &mut String) {
    let families: [(&str, &str, Total); 3] = [
        (
            "gpu_proof_corruptions_total",
            "Wrong results and words of the last proof.",
            |device| totals(device).0,
        ),
        (
            "gpu_proof_verified_outputs_total",
            "Results that were compared in the last proof.",
            |device| totals(device).1,
        ),
        (
            "gpu_proof_verified_bytes_total",
            "Bytes that were compared in the last proof.",
            |device| totals(device).2,
        ),
    ];
    for (name, help, of) in families {
        if report.evidence.devices.is_empty() {
            return;
        }
        family(out, name, "counter", help);
        for device in &report.evidence.devices {
            line(out, name, &labels(device), of(device) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::example;
    use super::*;

    #[test]
    fn the_metrics_of_a_node() {
        insta::assert_snapshot!(text(&example::sick()));
    }

    /// The grammar of the text format 0.0.4, as far as it is used.
    fn check(text: &str) {
        let mut seen = BTreeSet::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(seen.insert(format!("family {family}")), "{family} twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(matches!(rest.split_once(' '), Some((name, "gauge" | "counter")) if name == family));
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
                let (name, labels) = series.split_once('{').unwrap();
                assert_eq!(name, family);
                let labels = labels.strip_suffix('}').unwrap();
                let mut rest = labels;
                while !rest.is_empty() {
                    let (name, after) = rest.split_once("=\"").unwrap();
                    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                    let mut end = None;
                    let mut escaped = false;
                    for (at, c) in after.char_indices() {
                        match c {
                            '"' if !escaped => {
                                end = Some(at);
                                break;
                            }
                            '\\' => escaped = !escaped,
                            _ => escaped = false,
                        }
                    }
                    rest = &after[end.unwrap() + 1..];
                    rest = rest.strip_prefix(',').unwrap_or(rest);
                }
                assert!(seen.insert(series.to_owned()), "{series} twice");
            }
        }
    }

    #[test]
    fn every_line_is_of_the_format_and_no_series_is_there_twice() {
        let mut report = example::sick();
        check(&text(&report));
        check(&text(&example::well()));
        check(&text(&example::no_driver()));
        report.evidence.devices[0].device.name = "quote \" slash \\ line\nend".to_owned();
        check(&text(&report));
    }
}
