//! Our labels beside those of NVIDIA's GPU Feature Discovery, which ran on the same scenarios with the mock as the
//! driver's library.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use pitcrew_core::Reading;
use pitcrew_core::labels::{CLASS, Facts, MODEL, Offer, PRESENT, labels};
use pitcrew_core::plugin::config::Config;
use pitcrew_core::ports::InventorySource as _;
use pitcrew_scenario::{Machine, Scenario};

const RECORDED: &str = include_str!("../fixtures/gpu-feature-discovery-0.20.0.txt");

/// One run: the scenario, the MIG strategy, the configuration, and the lines that were written.
type Run<'a> = (&'a str, &'a str, &'a str, Vec<&'a str>);

fn runs() -> Vec<Run<'static>> {
    let mut runs: Vec<Run> = Vec::new();
    for line in RECORDED.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            let words: Vec<&str> = title.split(' ').collect();
            runs.push((words[0], words[1], words[2], Vec::new()));
        } else if let Some((_, _, _, lines)) = runs.last_mut() {
            lines.push(line);
        }
    }
    runs
}

#[expect(clippy::unwrap_used, reason = "what is committed is there and right")]
fn ours(scenario: &str, strategy: &str, config: &str) -> BTreeMap<String, String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/sharing/{config}.yaml"));
    let text = std::fs::read_to_string(path).unwrap();
    let text = format!("{text}flags:\n  migStrategy: {strategy}\n");
    let offer = Offer::of(&Config::parse(&text).unwrap());
    let inventory = Machine::new(Scenario::builtin(scenario).unwrap())
        .inventory()
        .unwrap();
    let facts = Facts {
        inventory: Some(&inventory),
        pci: &BTreeMap::new(),
        machine: Reading::NotSupported,
        vgpus: &[],
        timestamp: None,
    };
    labels(&facts, &offer)
}

/// True for the labels that the reference has no counterpart of.
fn is_more(key: &str) -> bool {
    key == PRESENT || key == CLASS || key.starts_with(MODEL)
}

#[test]
fn labels_are_those_of_gpu_feature_discovery_in_every_mig_and_sharing_mode() {
    let mut different = String::new();
    let mut compared = 0;
    for (scenario, strategy, config, lines) in runs() {
        // Where the reference gives up, we label what there is.
        if lines.iter().any(|line| line.starts_with('!')) {
            assert!(!ours(scenario, strategy, config).is_empty());
            continue;
        }
        let theirs: BTreeMap<String, String> = lines
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let mut mine = ours(scenario, strategy, config);
        mine.retain(|key, _| !is_more(key));
        compared += theirs.len();
        for key in theirs.keys().chain(mine.keys()).collect::<BTreeSet<_>>() {
            if theirs.get(key) != mine.get(key) {
                let _ = writeln!(
                    different,
                    "{scenario} {strategy} {config}: {key}: {:?} there, {:?} here",
                    theirs.get(key),
                    mine.get(key)
                );
            }
        }
    }
    assert_eq!(different, "");
    assert!(compared > 1900, "{compared} labels were compared");
}
