//! Which devices are shared, by how many, and how.

use super::*;

fn slices(text: &str) -> Config {
    parse(&format!("sharing: {{timeSlicing: {{resources: [{text}]}}}}"))
}

fn devices(text: &str) -> Devices {
    let config = slices(&format!("{{name: gpu, replicas: 2, devices: {text}}}"));
    config.sharing().unwrap().1.resources[0].devices.clone()
}

#[test]
fn devices_are_all_a_count_or_a_list() {
    assert_eq!(devices("all"), Devices::All);
    assert_eq!(devices("null"), Devices::All);
    assert_eq!(devices("3"), Devices::Count(3));
    let list = devices(r#"[0, "1", "0:1", GPU-b1028956-cfa2-0990-bf4a-5da9abb51763, MIG-GPU-b1/1/0]"#);
    let Devices::List(list) = list else {
        panic!("{list:?}")
    };
    let names: Vec<String> = list.iter().map(DeviceRef::to_string).collect();
    assert_eq!(
        names,
        [
            "0",
            "1",
            "0:1",
            "GPU-b1028956-cfa2-0990-bf4a-5da9abb51763",
            "MIG-GPU-b1/1/0"
        ]
    );
    assert!(matches!(list[2], DeviceRef::Mig(0, 1)));
    for wrong in [
        "0", "-1", "some", "[]", "[a]", "[-1]", "['0:']", "[GPU-]", "[0, '0']", "[1.5]", "{}", "true",
    ] {
        let text = format!(
            "sharing: {{timeSlicing: {{resources: [{{name: gpu, replicas: 2, devices: {wrong}}}]}}}}"
        );
        assert!(refused(&text).contains("devices"), "{wrong}: {}", refused(&text));
    }
}

#[test]
fn a_device_is_shared_by_two_at_least_and_a_thousand_at_most() {
    let of = |replicas: &str| {
        Config::parse(&format!(
            "sharing: {{mps: {{resources: [{{name: gpu, replicas: {replicas}}}]}}}}"
        ))
    };
    for right in ["2", "1000"] {
        assert!(of(right).is_ok(), "{right}");
    }
    for wrong in ["0", "1", "-2", "1001", "1e2", "many", "99999999999999999999"] {
        let error = of(wrong).unwrap_err().to_string();
        assert!(error.contains("sharing.mps.resources[0].replicas"), "{error}");
    }
}

#[test]
fn shared_resources_have_a_name_and_replicas_and_there_is_at_least_one() {
    let text = "
sharing:
  timeSlicing:
    resources:
      - {name: nvidia.com/gpu}
      - {replicas: 2}
      - 7
  mps:
    renameByDefault: true
";
    insta::assert_snapshot!(refused(text), @r"
    line 5: `sharing.timeSlicing.resources[0]` has no `replicas`
    line 6: `sharing.timeSlicing.resources[1]` has no `name`
    line 7: `sharing.timeSlicing.resources[2]` must be a map, not `7`
    line 8: `sharing.mps` shares nothing: it has no `resources`; name one, or leave it out
    ");
    let empty = "sharing: {timeSlicing: {resources: []}}";
    assert!(refused(empty).contains("is empty"), "{}", refused(empty));
}

#[test]
fn an_entry_below_one_that_means_all_never_counts() {
    let text = "
sharing:
  timeSlicing:
    resources:
      - {name: nvidia.com/gpu, replicas: 2}
      - {name: gpu, replicas: 4, devices: [0]}
";
    insta::assert_snapshot!(refused(text), @"line 6: `sharing.timeSlicing.resources[1]` never counts: an entry before it means all devices of `nvidia.com/gpu`; put it above that one");
}

#[test]
fn of_both_ways_to_share_mps_counts_and_that_is_told() {
    let text = "
sharing:
  timeSlicing: {resources: [{name: gpu, replicas: 2}]}
  mps: {resources: [{name: gpu, replicas: 4}]}
";
    let config = parse(text);
    let (how, shared) = config.sharing().unwrap();
    assert_eq!((how, shared.resources[0].replicas), (Sharing::Mps, 4));
    insta::assert_snapshot!(remarks(text).join("\n"), @r"
    line 3: `sharing.timeSlicing` doesn't count beside `sharing.mps`: one of the two should go
    `flags.mpsRoot` isn't set, which NVIDIA's device plugin refuses with `sharing.mps`; here it is `/run/nvidia/mps`
    ");
}

#[test]
fn mps_and_the_strategy_mixed_exclude_each_other() {
    let text = "flags: {migStrategy: mixed}\nsharing: {mps: {resources: [{name: gpu, replicas: 4}]}}";
    insta::assert_snapshot!(refused(text), @"`sharing.mps` can't be used with the MIG strategy `mixed`: MIG devices aren't shared through MPS; use `sharing.timeSlicing`, or set `flags.migStrategy` to `none`");
    // What stands above the file decides.
    let none = Overrides {
        mig_strategy: Some(MigStrategy::None),
        ..Overrides::default()
    };
    assert!(parse(text).with(&none).is_ok());
}

#[test]
fn more_than_one_replica_is_refused_by_default_for_mps_and_allowed_for_time_slices() {
    let of = |kind: &str, field: &str| {
        let text = format!("sharing: {{{kind}: {{{field}resources: [{{name: gpu, replicas: 2}}]}}}}");
        parse(&text).one_per_container()
    };
    assert!(of("mps", ""));
    assert!(of("mps", "failRequestsGreaterThanOne: null, "));
    assert!(of("mps", "failRequestsGreaterThanOne: true, "));
    assert!(!of("mps", "failRequestsGreaterThanOne: false, "));
    assert!(!of("timeSlicing", ""));
    assert!(of("timeSlicing", "failRequestsGreaterThanOne: true, "));
    assert!(!of("timeSlicing", "failRequestsGreaterThanOne: false, "));
    assert!(!Config::default().one_per_container());
}
