//! `pitcrew gpus` on imaginary machines.
#![cfg(feature = "sim")]

use crate::program::{pitcrew, run, stdout, transcript_of};

/// The built-in scenarios, as the program lists them.
fn scenarios() -> Vec<String> {
    let list = stdout(&run(pitcrew(&["gpus", "--scenario", "list", "-o", "json"])));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let names = list["scenarios"].as_array().unwrap().iter();
    names
        .map(|scenario| scenario["name"].as_str().unwrap().to_owned())
        .collect()
}

fn at(scenario: &str, width: &str) -> String {
    transcript_of(&["gpus", "--scenario", scenario, "--width", width])
}

#[test]
fn every_built_in_scenario_as_a_table() {
    let names = scenarios();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        insta::assert_snapshot!(format!("table_120_{name}"), at(&name, "120"));
    }
}

#[test]
fn a_narrow_terminal_shows_what_matters_most() {
    for name in ["rtx3060", "h100x8", "mixed", "broken"] {
        let shown = at(name, "80");
        let table = shown
            .lines()
            .skip_while(|line| !line.starts_with("GPU "))
            .take_while(|line| !line.is_empty());
        for line in table {
            assert!(line.chars().count() <= 80, "{line}");
        }
        insta::assert_snapshot!(format!("table_80_{name}"), shown);
    }
}

#[test]
fn a_pipe_and_a_wide_terminal_get_the_whole_uuid_and_a_narrow_one_its_beginning() {
    let whole = |text: &str| {
        text.split_whitespace()
            .any(|word| word.starts_with("GPU-") && word.len() == 40)
    };
    assert!(whole(&stdout(&run(pitcrew(&["gpus", "--scenario", "rtx3060"])))));
    assert!(whole(&at("rtx3060", "160")));
    assert!(!whole(&at("rtx3060", "159")));
    assert!(
        at("rtx3060", "130")
            .split_whitespace()
            .any(|word| word.starts_with("GPU-") && word.ends_with('…'))
    );
    insta::assert_snapshot!(
        "table_pipe_h100x8",
        transcript_of(&["gpus", "--scenario", "h100x8"])
    );
}

#[test]
fn documents_for_programs() {
    for name in ["rtx3060", "broken"] {
        insta::assert_snapshot!(
            format!("json_{name}"),
            transcript_of(&["gpus", "--scenario", name, "-o", "json"])
        );
    }
    insta::assert_snapshot!(
        "yaml_t4",
        transcript_of(&["gpus", "--scenario", "t4", "-o", "yaml"])
    );
}

#[test]
fn json_and_yaml_hold_the_same() {
    for name in scenarios() {
        let json = stdout(&run(pitcrew(&["gpus", "--scenario", &name, "-o", "json"])));
        let yaml = stdout(&run(pitcrew(&["gpus", "--scenario", &name, "-o", "yaml"])));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let yaml: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(json, yaml, "{name}");
        assert_eq!(json["source"], serde_json::json!({ "scenario": name }));
        assert_eq!(json["schema"], "pitcrew.dev/gpus/v1alpha1");
    }
}

#[test]
fn the_list_of_scenarios() {
    insta::assert_snapshot!(
        "list",
        transcript_of(&["gpus", "--scenario", "list", "--width", "100"])
    );
}

#[test]
fn the_exit_code_says_what_was_found() {
    let code = |name: &str| run(pitcrew(&["gpus", "--scenario", name])).status.code();
    assert_eq!(code("rtx3060"), Some(0));
    assert_eq!(code("broken"), Some(1));
}

#[test]
fn a_scenario_can_come_from_the_environment_and_the_flag_wins() {
    let mut command = pitcrew(&["gpus", "-o", "json"]);
    command.env("PITCREW_SCENARIO", "t4");
    assert!(stdout(&run(command)).contains("\"scenario\": \"t4\""));
    let mut command = pitcrew(&["gpus", "-o", "json", "--scenario", "l40s"]);
    command.env("PITCREW_SCENARIO", "t4");
    assert!(stdout(&run(command)).contains("\"scenario\": \"l40s\""));
    let mut command = pitcrew(&["gpus", "catalog", "GeForce RTX 3060 12GB"]);
    command.env("PITCREW_SCENARIO", "t4");
    assert_eq!(
        run(command).status.code(),
        Some(0),
        "the chart doesn't mind a scenario in the environment"
    );
}

#[test]
fn quiet_leaves_data_and_takes_remarks() {
    let loud = run(pitcrew(&["gpus", "--scenario", "broken"]));
    let quiet = run(pitcrew(&["gpus", "--scenario", "broken", "-q"]));
    assert_eq!(loud.stdout, quiet.stdout);
    assert!(!loud.stderr.is_empty() && quiet.stderr.is_empty());
    assert_eq!(loud.status.code(), quiet.status.code());
}
