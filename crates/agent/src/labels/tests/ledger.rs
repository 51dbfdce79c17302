//! Whom a label is left to, without an API server.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::ledger::{LOSSES, Ledger, MEMORY, Plan};
use super::super::seen::Seen;

const COUNT: &str = "nvidia.com/gpu.count";
const PRODUCT: &str = "nvidia.com/gpu.product";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// An object with these labels: who wrote each, and what.
fn seen(labels: &[(&str, &str, &str)]) -> Seen {
    let mut seen = Seen::default();
    for (who, key, value) in labels {
        seen.labels.insert((*key).to_owned(), (*value).to_owned());
        if *who == "we" {
            seen.ours.insert((*key).to_owned());
        } else {
            seen.others
                .entry((*key).to_owned())
                .or_default()
                .insert((*who).to_owned());
        }
    }
    seen
}

/// What is there once a plan was carried out.
fn after(plan: &Plan) -> Seen {
    let labels: Vec<_> = plan
        .apply
        .iter()
        .map(|(key, value)| ("we", key.as_str(), value.as_str()))
        .collect();
    seen(&labels)
}

#[test]
fn what_is_as_it_should_be_is_not_written() {
    let mut ledger = Ledger::default();
    let wish = map(&[(COUNT, "1"), (PRODUCT, "Tesla-T4")]);
    let there = seen(&[
        ("we", COUNT, "1"),
        ("we", PRODUCT, "Tesla-T4"),
        ("kubelet", "os", "linux"),
    ]);
    assert!(!ledger.plan(&wish, &there, Instant::now()).write);
}

#[test]
fn labels_of_others_that_say_the_same_are_shared() {
    let mut ledger = Ledger::default();
    let plan = ledger.plan(
        &map(&[(COUNT, "1")]),
        &seen(&[("nfd-master", COUNT, "1")]),
        Instant::now(),
    );
    assert!(plan.write);
    assert!(plan.taken.is_empty() && plan.left.is_empty());
}

#[test]
fn what_a_dead_one_left_is_taken_over_once_and_what_is_no_longer_true_taken_away() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    let stale = "nvidia.com/mig-1g.5gb.count";
    let there = seen(&[
        ("nfd-master", COUNT, "4"),
        ("nfd-master", stale, "7"),
        ("nfd-master", "nvidia.com/gpu.present", "true"),
        ("nfd-master", "nvidia.com/mig.config", "all-disabled"),
    ]);
    let wish = map(&[(COUNT, "8")]);
    let plan = ledger.plan(&wish, &there, now);
    assert_eq!(plan.apply, wish);
    assert_eq!(plan.remove.iter().collect::<Vec<_>>(), [stale]);
    assert_eq!(plan.taken.get("nfd-master"), Some(&2));
    ledger.wrote(&plan);
    assert!(!ledger.plan(&wish, &after(&plan), now).write);
}

#[test]
fn a_label_that_somebody_keeps_changing_is_left_to_them_for_an_hour() {
    let mut ledger = Ledger::default();
    let wish = map(&[(COUNT, "8"), (PRODUCT, "Tesla-T4")]);
    let theirs = seen(&[("nfd-master", COUNT, "4"), ("we", PRODUCT, "Tesla-T4")]);
    let began = Instant::now();
    let mut writes = 0;
    let plan = loop {
        let plan = ledger.plan(&wish, &theirs, began);
        if plan.left.contains_key(COUNT) {
            break plan;
        }
        writes += 1;
        ledger.wrote(&plan);
    };
    // One to take it over, and one for each loss but the last.
    assert_eq!(writes, LOSSES);
    assert!(!plan.write, "nothing else is to be done");
    assert_eq!(plan.left[COUNT].says.as_deref(), Some("4"));
    assert_eq!(plan.left[COUNT].who.iter().collect::<Vec<_>>(), ["nfd-master"]);
    assert_eq!(plan.again, Some(began + MEMORY));
    // However often one looks, it is no further loss.
    for _ in 0..10 {
        assert!(!ledger.plan(&wish, &theirs, began).write);
    }
    let plan = ledger.plan(&wish, &theirs, began + MEMORY);
    assert!(plan.write && plan.left.is_empty());
}

#[test]
fn one_who_comes_round_to_our_value_has_not_won() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    let wish = map(&[(COUNT, "8")]);
    let theirs = seen(&[("gfd", COUNT, "4")]);
    for _ in 0..LOSSES {
        let plan = ledger.plan(&wish, &theirs, now);
        ledger.wrote(&plan);
    }
    assert!(ledger.plan(&wish, &theirs, now).left.contains_key(COUNT));
    let plan = ledger.plan(&wish, &seen(&[("gfd", COUNT, "8")]), now);
    assert!(plan.left.is_empty() && plan.apply.contains_key(COUNT));
}

#[test]
fn a_value_that_we_change_ourselves_is_no_loss() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    let mut there = Seen::default();
    for count in 0..20 {
        let plan = ledger.plan(&map(&[(COUNT, &count.to_string())]), &there, now);
        assert!(plan.left.is_empty() && plan.write);
        ledger.wrote(&plan);
        there = after(&plan);
    }
    let plan = ledger.plan(&BTreeMap::new(), &there, now);
    assert!(plan.write && plan.apply.is_empty() && plan.remove.is_empty());
}

#[test]
fn one_who_brings_back_what_is_not_true_is_left_alone_too() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    let theirs = seen(&[("nfd-master", COUNT, "4")]);
    let mut writes = 0;
    while ledger.plan(&BTreeMap::new(), &theirs, now).write {
        let plan = ledger.plan(&BTreeMap::new(), &theirs, now);
        ledger.wrote(&plan);
        writes += 1;
        assert!(writes <= LOSSES);
    }
    let plan = ledger.plan(&BTreeMap::new(), &theirs, now);
    assert_eq!(plan.left[COUNT].should, None);
}

proptest! {
    /// Whatever others do, and however time passes: a label is written at most so often within an hour.
    #[test]
    fn no_label_is_written_over_others_for_ever(
        steps in prop::collection::vec((0..4_u8, 0..600_u64), 1..200)
    ) {
        let mut ledger = Ledger::default();
        let wish = map(&[(COUNT, "8")]);
        let mut now = Instant::now();
        let mut there = Seen::default();
        let mut written = Vec::new();
        for (what, seconds) in steps {
            now += std::time::Duration::from_secs(seconds);
            match what {
                0 => there = seen(&[("gfd", COUNT, "4")]),
                1 => there = Seen::default(),
                2 => there = seen(&[("gfd", COUNT, "5")]),
                _ => {}
            }
            let plan = ledger.plan(&wish, &there, now);
            if plan.write {
                ledger.wrote(&plan);
                there = after(&plan);
                written.push(now);
            }
        }
        // The first write is no answer to anybody.
        for window in written.windows(LOSSES + 2) {
            prop_assert!(window[LOSSES + 1] - window[0] >= MEMORY);
        }
    }
}
