//! The comparison with `nvidia-smi -q -x` (`python/smi_compare.py`) as tests run it.

use std::process::Command;

use crate::Outcome;

/// `nvidia-smi -q -x` of the recorded card, in the package's directory, where tests run.
pub const RECORDED: &str = "fixtures/nvidia-smi-580.159.04-h100.xml";
/// The same card as a scenario.
pub const SCENARIO: &str = "fixtures/h100-recorded.yaml";
/// What must be compared at least.
pub const BASELINE: &str = "fixtures/smi-compare-baseline.json";

/// The comparison, to which arguments are added.
pub fn compare() -> Command {
    let mut command = Command::new("python3");
    // `-B`: a checkout stays as it is.
    command.args(["-B", "python/smi_compare.py"]);
    command
}

/// The summary, which is the last line.
pub fn summary(outcome: &Outcome) -> &str {
    outcome.stdout.lines().last().unwrap_or_default()
}

/// What an assertion shows of a run: what was wrong, without the table.
pub fn short(outcome: &Outcome) -> String {
    let wrong = outcome.stdout.lines().filter(|line| line.ends_with("DIFFERS"));
    let lines: Vec<_> = wrong.chain([summary(outcome), &outcome.stderr]).collect();
    lines.join("\n")
}

/// The names of the fields that differ, as the summary lists them.
///
/// # Panics
/// Where the two did not disagree.
#[track_caller]
pub fn differing(outcome: &Outcome) -> Vec<String> {
    assert_eq!(outcome.code, Some(1), "{}", short(outcome));
    let list = summary(outcome)
        .split_once(" differ: ")
        .map_or("", |(_, rest)| rest);
    let list = list.split(';').next().unwrap_or_default();
    list.split(", ")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}
