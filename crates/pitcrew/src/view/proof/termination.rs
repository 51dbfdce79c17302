//! What `kubectl describe pod` shows of a container that has ended.

use pitcrew_core::proof::{Report, Verdict};

use super::{place, plain};

/// What the kubelet reads of a container's termination message, in bytes.
const LIMIT: usize = 4096;

/// The verdict, why, and what to do, in no more bytes than the kubelet reads.
pub(crate) fn message(report: &Report) -> String {
    let node = plain(&report.evidence.node.name);
    let mut lines = vec![format!("{} {node}: {}", report.verdict, report.verdict.meaning())];
    if let Some(scenario) = &report.evidence.run.scenario {
        lines.push(format!("imaginary GPUs: {}", plain(scenario)));
    }
    for reason in report
        .judgement
        .reasons
        .iter()
        .filter(|reason| reason.verdict != Verdict::Pass)
    {
        let at = place(report, reason.device).map_or(String::new(), |place| format!("{place}: "));
        lines.push(format!("{} {at}{}", reason.verdict, plain(&reason.text)));
    }
    lines.extend(
        report
            .judgement
            .actions
            .iter()
            .map(|action| format!("do: {}", plain(action))),
    );
    limited(&lines)
}

/// As many whole lines as fit; then how many are left out.
fn limited(lines: &[String]) -> String {
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let rest = format!("and {} lines more in the report\n", lines.len() - index);
        let is_last = index + 1 == lines.len();
        let room = LIMIT - out.len() - if is_last { 0 } else { rest.len() + 1 };
        if line.len() < room {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        if index == 0 {
            // One line alone is longer than all: its beginning.
            let mut end = room.saturating_sub(1).min(line.len());
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            out.push_str(&line[..end]);
            out.push('\n');
            continue;
        }
        if out.len() + rest.len() <= LIMIT {
            out.push_str(&rest);
        }
        break;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn verdict_first_then_why_then_what_to_do() {
        insta::assert_snapshot!(message(&example::sick()));
    }

    #[test]
    fn it_is_never_longer_than_what_is_read() {
        let mut report = example::sick();
        for length in [0, 1, 100, 4_000, 4_090, 4_096, 5_000, 100_000] {
            let long = "ä".repeat(length / 2);
            report.judgement.reasons[0].text.clone_from(&long);
            report.evidence.node.name = "n".to_owned();
            assert!(message(&report).len() <= LIMIT, "{length}");
            report.evidence.node.name = long;
            let message = message(&report);
            assert!(
                message.len() <= LIMIT && message.starts_with("FAIL_CORRUPTION"),
                "{length}"
            );
        }
        let many = vec!["x".repeat(90); 1_000];
        let text = limited(&many);
        assert!(
            text.len() <= LIMIT && text.ends_with("lines more in the report\n"),
            "{text}"
        );
    }
}
