//! `JUnit` XML: a suite for the node, a case for each phase on each GPU, so that CI shows a GPU as it shows a test.

use std::fmt::Write as _;

use pitcrew_core::proof::{DeviceEvidence, Outcome, Phase, Reason, Report, Verdict};

use super::{count, place, plain, short};

/// The document.
pub(crate) fn document(report: &Report) -> String {
    let cases = cases(report);
    let of = |kind: fn(&Status) -> bool| cases.iter().filter(|case| kind(&case.status)).count();
    let (failures, errors, skipped) = (
        of(|status| matches!(status, Status::Failure(_))),
        of(|status| matches!(status, Status::Error(_))),
        of(|status| matches!(status, Status::Skipped(_))),
    );
    let run = &report.evidence.run;
    let started = run.started.to_string();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"",
        cases.len()
    );
    let _ = writeln!(
        out,
        "<testsuites name=\"pitcrew prove\" {counts} time=\"{:.3}\">",
        run.seconds
    );
    let _ = writeln!(
        out,
        "  <testsuite name=\"{}\" {counts} skipped=\"{skipped}\" time=\"{:.3}\" timestamp=\"{}\">",
        escaped(&report.evidence.node.name),
        run.seconds,
        started.trim_end_matches('Z'),
    );
    for case in &cases {
        let _ = write!(
            out,
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
            escaped(&case.class),
            escaped(&case.name),
            case.seconds,
        );
        let element = match &case.status {
            Status::Passed => None,
            Status::Failure(why) => Some(("failure", why)),
            Status::Error(why) => Some(("error", why)),
            Status::Skipped(why) => Some(("skipped", why)),
        };
        if element.is_none() && case.output.is_empty() {
            out.push_str("/>\n");
            continue;
        }
        out.push_str(">\n");
        if let Some((element, why)) = element {
            let _ = writeln!(out, "      <{element} message=\"{}\"/>", escaped(why));
        }
        if !case.output.is_empty() {
            let _ = writeln!(out, "      <system-out>{}</system-out>", escaped(&case.output));
        }
        out.push_str("    </testcase>\n");
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

struct Case {
    class: String,
    name: String,
    seconds: f64,
    status: Status,
    /// What is worth knowing of it, warnings included.
    output: String,
}

enum Status {
    Passed,
    Failure(String),
    Error(String),
    Skipped(String),
}

fn cases(report: &Report) -> Vec<Case> {
    let mut cases = Vec::new();
    let of_run = |reason: &&Reason| reason.device.is_none();
    cases.push(case(
        "run".to_owned(),
        "run".to_owned(),
        report.evidence.run.seconds,
        report,
        of_run,
    ));
    for (index, device) in report.evidence.devices.iter().enumerate() {
        let class = class(device);
        let of_device = |reason: &&Reason| reason.device == Some(index) && reason.phase.is_none();
        cases.push(case(class.clone(), "device".to_owned(), 0.0, report, of_device));
        for phase in &device.phases {
            let title = phase.title();
            let of_phase =
                |reason: &&Reason| reason.device == Some(index) && reason.phase.as_ref() == Some(&title);
            let mut case = case(class.clone(), title.clone(), phase.seconds, report, of_phase);
            of_outcome(phase, &mut case);
            cases.push(case);
        }
    }
    for path in &report.evidence.peers {
        let name = |index: usize| place(report, Some(index)).unwrap_or_else(|| index.to_string());
        let mut of_path = Case {
            class: "peers".to_owned(),
            name: format!("{} to {}", name(path.from), name(path.to)),
            seconds: 0.0,
            status: Status::Passed,
            output: path
                .rate
                .map_or(String::new(), |rate| format!("{} {}", short(rate.p50), rate.unit)),
        };
        match &path.outcome {
            Outcome::Skipped { why, .. } => of_path.status = Status::Skipped(why.clone()),
            Outcome::Failed { why } => of_path.status = Status::Error(why.clone()),
            Outcome::Interrupted => of_path.status = Status::Skipped("interrupted".to_owned()),
            Outcome::Ran if path.corruption_count > 0 => {
                of_path.status =
                    Status::Failure(format!("{} words arrived wrong", count(path.corruption_count)));
            }
            Outcome::Ran => {}
        }
        cases.push(of_path);
    }
    cases
}

fn class(device: &DeviceEvidence) -> String {
    format!("{} {}", device.device.title(), device.device.name)
}

/// A case of the reasons that concern it: the gravest is its status, all others are output.
fn case(
    class: String,
    name: String,
    seconds: f64,
    report: &Report,
    concerns: impl Fn(&&Reason) -> bool,
) -> Case {
    let mut status = Status::Passed;
    let mut output = Vec::new();
    for reason in report.judgement.reasons.iter().filter(concerns) {
        let text = format!("{}: {}", reason.verdict, reason.text);
        match reason.verdict {
            Verdict::Pass | Verdict::Warn => output.push(text),
            _ if !matches!(status, Status::Passed) => output.push(text),
            Verdict::Interrupted => status = Status::Skipped(text),
            Verdict::ErrorSetup => status = Status::Error(text),
            _ => status = Status::Failure(text),
        }
    }
    Case {
        class,
        name,
        seconds,
        status,
        output: output.join("\n"),
    }
}

fn of_outcome(phase: &Phase, case: &mut Case) {
    if let Some(rate) = phase.rate {
        let line = format!("{} {} (median of {})", short(rate.p50), rate.unit, rate.count);
        case.output = if case.output.is_empty() {
            line
        } else {
            format!("{line}\n{}", case.output)
        };
    }
    if !matches!(case.status, Status::Passed) {
        return;
    }
    match &phase.outcome {
        Outcome::Skipped { why, .. } => case.status = Status::Skipped(why.clone()),
        Outcome::Failed { why } => case.status = Status::Error(why.clone()),
        Outcome::Interrupted => case.status = Status::Skipped("interrupted".to_owned()),
        Outcome::Ran => {}
    }
}

/// Text for an attribute or an element. XML has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if !out.is_empty() {
            out.push('\n');
        }
        for c in plain(line).chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                // Not characters of XML 1.0.
                '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
                c => out.push(c),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_node_that_is_not_well() {
        insta::assert_snapshot!(document(&example::sick()));
    }

    #[test]
    fn what_xml_can_not_hold_is_left_out() {
        assert_eq!(
            escaped("a<b>&\"c\"\u{1}\u{fffe}"),
            "a&lt;b&gt;&amp;&quot;c&quot; \u{fffd}"
        );
    }
}
