//! The manifests of host roots, shared with the tests of the binary: where they are, what is expected of each, and how
//! a report is written down.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use pitcrew_scenario::{HostRoot, Machine, Scenario};
use serde_json::Value;

/// The directory of this file.
fn directory() -> PathBuf {
    // From `crates/check` and from `crates/pitcrew` alike.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../check/tests")
}

/// Where the snapshots of reports are.
pub(crate) fn snapshots() -> PathBuf {
    directory().join("snapshots")
}

/// Names of all manifests, sorted.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory().join("roots"))
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let is_manifest = path.extension().is_some_and(|ending| ending == "yaml");
            is_manifest.then(|| path.file_stem().unwrap().to_str().unwrap().to_owned())
        })
        .collect();
    names.sort();
    names
}

fn text(name: &str) -> Option<String> {
    let own = directory().join("roots").join(format!("{name}.yaml"));
    fs::read_to_string(own).ok()
}

/// The node of a manifest, which may be like another one or like a root that comes with the program.
pub(crate) fn root(name: &str) -> HostRoot {
    let find = |like: &str| text(like).or_else(|| HostRoot::builtin_text(like).map(str::to_owned));
    HostRoot::parse(&text(name).unwrap(), name, &find).unwrap()
}

/// What the command line calls the GPUs of a manifest: its scenario, or a file where the driver says something else.
pub(crate) fn scenario(name: &str) -> String {
    let own = directory().join("scenarios").join(format!("{name}.yaml"));
    if own.exists() {
        return own.to_str().unwrap().to_owned();
    }
    let scenario = |text: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix("scenario: ").map(str::to_owned))
    };
    let mut text = text(name).unwrap();
    loop {
        if let Some(found) = scenario(&text) {
            return found;
        }
        let like = text.lines().find_map(|line| line.strip_prefix("like: "));
        text = self::text(like.expect("a manifest has a scenario, or is like one")).unwrap();
    }
}

/// The machine that answers for the driver, on the node's own driver version.
#[allow(dead_code, reason = "the binary brings its own")]
pub(crate) fn machine(name: &str, root: &HostRoot) -> Machine {
    let scenario = scenario(name);
    if Path::new(&scenario).is_file() {
        return Machine::new(Scenario::load(Path::new(&scenario)).unwrap());
    }
    root.machine().unwrap().clone()
}

/// What was expected from the facts before any code was run: outcome, tier, handler, then what deserves attention.
pub(crate) fn expected(name: &str) -> String {
    fs::read_to_string(directory().join("roots").join(format!("{name}.expected"))).unwrap()
}

/// The same, as a report says it.
pub(crate) fn verdicts(report: &Value) -> String {
    let mut text = String::new();
    for place in ["/outcome", "/path/tier", "/path/handler"] {
        let _ = writeln!(text, "{}", report.pointer(place).unwrap().as_str().unwrap());
    }
    let mut lines: Vec<String> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| ["failure", "warning", "unknown"].contains(&it["verdict"].as_str().unwrap()))
        .map(|it| {
            format!(
                "{} {}",
                it["verdict"].as_str().unwrap(),
                it["id"].as_str().unwrap()
            )
        })
        .collect();
    lines.sort();
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// A report with all its words, one thing on a line.
pub(crate) fn transcript(report: &Value) -> String {
    let mut text = format!(
        "{}\ntier {}: {}\nhandler {}\n",
        report["outcome"].as_str().unwrap(),
        report["path"]["tier"].as_str().unwrap(),
        report["path"]["reason"].as_str().unwrap(),
        report["path"]["handler"].as_str().unwrap(),
    );
    for finding in report["findings"].as_array().unwrap() {
        let part = |name: &str| finding[name].as_str();
        let _ = writeln!(
            text,
            "\n{} {}: {}",
            part("verdict").unwrap(),
            part("id").unwrap(),
            part("found").unwrap()
        );
        for name in ["why", "next", "care"] {
            if let Some(words) = part(name) {
                let _ = writeln!(text, "  {name}: {words}");
            }
        }
    }
    text
}
