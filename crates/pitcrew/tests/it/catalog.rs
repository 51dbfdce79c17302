//! `pitcrew gpus catalog`.

use crate::program::{pitcrew, run, stdout, transcript_of};

#[test]
fn the_chart() {
    insta::assert_snapshot!("chart_wide", transcript_of(&["gpus", "catalog"]));
    insta::assert_snapshot!("chart_80", transcript_of(&["gpus", "catalog", "--width", "80"]));
}

#[test]
fn the_chart_can_be_narrowed() {
    let filtered = transcript_of(&[
        "gpus",
        "catalog",
        "--arch",
        "hopper",
        "--class",
        "datacentre",
        "--width",
        "120",
    ]);
    insta::assert_snapshot!("chart_hopper", filtered);
    insta::assert_snapshot!(
        "chart_none",
        transcript_of(&["gpus", "catalog", "--arch", "hopper", "--class", "consumer"])
    );
}

#[test]
fn one_card_in_full() {
    for (snapshot, card) in [
        ("card_h100", "H100 SXM5 80GB"),
        ("card_rtx3060", "GeForce RTX 3060 12GB"),
        ("card_a30", "A30"),
        ("card_v100", "Tesla V100 SXM2 32GB"),
        ("card_rtxpro6000", "RTX PRO 6000 Blackwell Server"),
    ] {
        insta::assert_snapshot!(snapshot, transcript_of(&["gpus", "catalog", card]));
    }
}

#[test]
fn every_card_can_be_shown_in_every_format() {
    let chart = stdout(&run(pitcrew(&["gpus", "catalog", "-o", "json"])));
    let chart: serde_json::Value = serde_json::from_str(&chart).unwrap();
    assert_eq!(chart["schema"], "pitcrew.dev/catalog/v1alpha1");
    let cards = chart["cards"].as_array().unwrap();
    assert!(cards.len() > 50);
    for card in cards {
        let name = card["name"].as_str().unwrap();
        let text = run(pitcrew(&["gpus", "catalog", name]));
        assert_eq!(
            text.status.code(),
            Some(0),
            "{name}: {}",
            String::from_utf8_lossy(&text.stderr)
        );
        assert!(stdout(&text).starts_with(name), "{name}");
        let json: serde_json::Value =
            serde_json::from_str(&stdout(&run(pitcrew(&["gpus", "catalog", name, "-o", "json"])))).unwrap();
        assert_eq!(json["card"]["name"], name);
        let yaml: serde_json::Value =
            serde_saphyr::from_str(&stdout(&run(pitcrew(&["gpus", "catalog", name, "-o", "yaml"])))).unwrap();
        assert_eq!(json, yaml, "{name}");
    }
}

#[test]
fn every_class_and_architecture_can_be_filtered_for() {
    let chart = stdout(&run(pitcrew(&["gpus", "catalog", "-o", "json"])));
    let chart: serde_json::Value = serde_json::from_str(&chart).unwrap();
    let cards = chart["cards"].as_array().unwrap();
    for (flag, key) in [("--class", "class"), ("--arch", "architecture")] {
        let mut values: Vec<&str> = cards.iter().map(|card| card[key].as_str().unwrap()).collect();
        values.sort_unstable();
        values.dedup();
        let mut found = 0;
        for value in values {
            let filtered = stdout(&run(pitcrew(&["gpus", "catalog", flag, value, "-o", "json"])));
            let filtered: serde_json::Value = serde_json::from_str(&filtered).unwrap();
            found += filtered["cards"].as_array().unwrap().len();
        }
        assert_eq!(found, cards.len(), "{flag}");
    }
}
