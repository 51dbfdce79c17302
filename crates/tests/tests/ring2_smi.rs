//! The comparison with `nvidia-smi -q -x`, on a recorded card and on what must not pass.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

use std::path::Path;
use std::process::Command;

use pitcrew_tests::smi::{self, BASELINE, RECORDED, SCENARIO, differing, short, summary};
use pitcrew_tests::{Outcome, pitcrew, run};
use serde_json::{Map, Value, json};

/// What pitcrew says of a scenario.
fn report_of(scenario: &Path) -> Value {
    let mut command = Command::new(pitcrew());
    command.args(["gpus", "-o", "json", "--scenario"]).arg(scenario);
    serde_json::from_str(&run(command, "").ok()).unwrap()
}

fn recorded_xml() -> String {
    std::fs::read_to_string(RECORDED).unwrap()
}

/// `text` with one thing in it replaced, which must be there once.
#[track_caller]
fn but(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old}");
    text.replace(old, new)
}

/// Compares documents, written to files of their own; nvidia-smi's before and after pitcrew's, or one for both.
fn compare(xml: &[&str], report: &Value, more: &[&str]) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let mut command = smi::compare();
    for (number, text) in xml.iter().enumerate() {
        let file = directory.path().join(format!("{number}.xml"));
        std::fs::write(&file, text).unwrap();
        command.arg("--smi").arg(file);
    }
    let file = directory.path().join("pitcrew.json");
    std::fs::write(&file, report.to_string()).unwrap();
    command.arg("--pitcrew").arg(file).args(more);
    run(command, "")
}

fn baseline() -> Vec<String> {
    let text = std::fs::read_to_string(BASELINE).unwrap();
    let baseline: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(baseline["compared"].clone()).unwrap()
}

/// What the recorded card has not: a fan, a fabric, pages that could be retired.
fn neither_has(name: &str) -> Option<&'static str> {
    ["fan_percent", "fabric", "retired_pages"]
        .into_iter()
        .find(|reading| name.contains(reading))
}

/// The readings of a report's first GPU.
fn gpu(report: &mut Value) -> &mut Map<String, Value> {
    report["gpus"][0].as_object_mut().unwrap()
}

#[test]
fn the_recorded_card_agrees_with_nvidia_smi_on_every_field() {
    let report = report_of(Path::new(SCENARIO));
    let outcome = compare(&[&recorded_xml()], &report, &[]);
    assert_eq!(
        summary(&outcome),
        "agrees: 78 fields compared on 1 GPU (70 by value, 8 without a value on both sides), \
         and 0 of MIG devices and processes",
        "{}",
        short(&outcome)
    );
    assert_eq!(outcome.code, Some(0));
}

#[test]
fn the_baseline_names_what_is_compared_now() {
    let report = report_of(Path::new(SCENARIO));
    let directory = tempfile::tempdir().unwrap();
    let written = directory.path().join("baseline.json");
    let arguments = ["--update", "--baseline", written.to_str().unwrap()];
    compare(&[&recorded_xml()], &report, &arguments).ok();
    assert_eq!(
        std::fs::read_to_string(written).unwrap(),
        std::fs::read_to_string(BASELINE).unwrap(),
        "`python/smi_compare.py --smi {RECORDED} --pitcrew FILE --update` writes it"
    );
}

/// A value that is as wrong as it can be without being of another kind: just past the field's tolerance for a number.
fn wrong(path: &str, value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!(!value),
        Value::Number(number) => {
            let number = number.as_u64().unwrap();
            json!(number + just_past(path))
        }
        // Another id of the same form.
        Value::String(text) if text.starts_with("0x") => json!("0x1234"),
        Value::String(text) => json!(format!("{text}0")),
        other => other.clone(),
    }
}

/// How much more is too much; written here once more, so that a tolerance that grows is noticed.
fn just_past(path: &str) -> u64 {
    let of = |end: &str| path.ends_with(end);
    match path {
        _ if of("_bytes") => 2 << 20,
        "power_mw" => 13_128,
        "power_instant_mw" => 25_001,
        _ if path.starts_with("power_limit") => 11,
        // Every bit that was not set; the one that was is cleared.
        "clocks_event_reasons" => 0x1fd,
        _ if of("_max_mhz") => 1,
        _ if of("_mhz") => 16,
        _ if of("_percent") => 6,
        _ if of("_c") => 3,
        _ => 1,
    }
}

/// Applies `change` to every reading of a GPU that is a value, with the path below the GPU.
fn change_values(values: &mut Map<String, Value>, above: &str, change: &dyn Fn(&str, &Value) -> Value) {
    for (name, value) in values {
        let path = format!("{above}{name}");
        match value {
            // Its address is what a GPU is found by.
            Value::Object(inner) => change_values(inner, &format!("{path}."), change),
            Value::Array(_) => {}
            value if path != "pci.address" => *value = change(&path, value),
            _ => {}
        }
    }
}

#[test]
fn every_field_fails_just_past_its_tolerance() {
    let mut report = report_of(Path::new(SCENARIO));
    change_values(gpu(&mut report), "", &wrong);
    report["driver"]["version"] = json!("580.159.03");
    report["driver"]["cuda"] = json!("13.1");
    let outcome = compare(&[&recorded_xml()], &report, &[]);
    let expected: Vec<_> = baseline()
        .into_iter()
        // The address tells the GPU; the number of GPUs is another test's.
        .filter(|name| {
            neither_has(name).is_none() && !name.contains("pci.address") && name != "gpus (how many)"
        })
        .collect();
    assert_eq!(differing(&outcome), expected);
}

#[test]
fn what_moves_may_differ_by_its_tolerance() {
    let mut report = report_of(Path::new(SCENARIO));
    change_values(gpu(&mut report), "", &|path, value| match value.as_u64() {
        Some(number) if path.ends_with("_bytes") => json!(number + (1 << 18)),
        Some(number) if just_past(path) > 1 && path != "clocks_event_reasons" => {
            json!(number + just_past(path) - 1)
        }
        _ => value.clone(),
    });
    compare(&[&recorded_xml()], &report, &[]).ok();
}

#[test]
fn a_value_that_only_one_side_has_fails() {
    let mut report = report_of(Path::new(SCENARIO));
    let readings = gpu(&mut report);
    // Everything but what tells the GPU.
    readings.retain(|name, _| {
        matches!(
            name.as_str(),
            "pci" | "index" | "unread" | "health" | "processes" | "mig_devices"
        )
    });
    let outcome = compare(&[&recorded_xml()], &report, &[]);
    let expected: Vec<_> = baseline()
        .into_iter()
        .filter(|name| name.starts_with("gpus[].") && !name.contains("pci.") && !name.contains("index"))
        .filter(|name| neither_has(name).is_none())
        .collect();
    assert_eq!(differing(&outcome), expected);

    let mut report = report_of(Path::new(SCENARIO));
    gpu(&mut report).insert("fan_percent".to_owned(), json!(0));
    let outcome = compare(&[&recorded_xml()], &report, &[]);
    assert_eq!(differing(&outcome), ["gpus[].fan_percent"]);
    assert!(summary(&outcome).starts_with("DISAGREES: 1 differ: gpus[].fan_percent; 78 fields"));
}

#[test]
fn what_neither_side_could_read_agrees_and_what_one_side_could_fails() {
    let mut report = report_of(Path::new(SCENARIO));
    gpu(&mut report).remove("memory_temperature_c");
    report["gpus"][0]["unread"] = json!([{"field": "memory_temperature_c", "reason": "Unknown Error"}]);
    let xml = recorded_xml();
    assert_eq!(
        differing(&compare(&[&xml], &report, &[])),
        ["gpus[].memory_temperature_c"]
    );
    let absent = but(&xml, "<memory_temp>53 C<", "<memory_temp>N/A<");
    assert_eq!(
        differing(&compare(&[&absent], &report, &[])),
        ["gpus[].memory_temperature_c"],
        "unread is not absent"
    );
    let unread = but(&xml, "<memory_temp>53 C<", "<memory_temp>[Unknown Error]<");
    compare(&[&unread], &report, &[]).ok();
}

#[test]
fn what_the_recorded_card_has_not_is_compared_where_there_is_some() {
    let fabric = |state: &str, rest: [&str; 3]| {
        format!(
            "<fabric><state>{state}</state><status>{}</status><cliqueId>{}</cliqueId>\
             <clusterUuid>{}</clusterUuid>",
            rest[0], rest[1], rest[2]
        )
    };
    let xml = recorded_xml();
    let (before, rest) = xml.split_once("<fabric>").unwrap();
    let (_, after) = rest.split_once("</clusterUuid>").unwrap();
    let uuid = "00000000-0000-0000-0000-000000000000";
    let with = |fabric: &str| {
        let xml = format!("{before}{fabric}{after}");
        let (before, rest) = xml.split_once("<retired_pages>").unwrap();
        let (_, after) = rest.split_once("</retired_pages>").unwrap();
        let pages = "<multiple_single_bit_retirement><retired_count>2</retired_count>\
             </multiple_single_bit_retirement><double_bit_retirement><retired_count>1</retired_count>\
             </double_bit_retirement><pending_blacklist>N/A</pending_blacklist>\
             <pending_retirement>Yes</pending_retirement>";
        format!("{before}<retired_pages>{pages}</retired_pages>{after}")
    };
    let registered = with(&fabric("Completed", ["Success", "0", uuid]));
    let mut report = report_of(Path::new(SCENARIO));
    gpu(&mut report).insert(
        "fabric".to_owned(),
        json!({"state": "completed", "status": "Success", "clique": 0, "cluster_uuid": uuid}),
    );
    gpu(&mut report).insert(
        "retired_pages".to_owned(),
        json!({"single_bit": 2, "double_bit": 1, "pending": true}),
    );
    let outcome = compare(&[&registered], &report, &[]);
    assert!(
        summary(&outcome).starts_with("agrees: 78 fields compared on 1 GPU (77 by value, 1 without"),
        "{}",
        short(&outcome)
    );

    let begun = with(&fabric("In Progress", ["N/A"; 3]));
    assert_eq!(
        differing(&compare(&[&begun], &report, &[])),
        [
            "gpus[].fabric.state",
            "gpus[].fabric.status",
            "gpus[].fabric.clique",
            "gpus[].fabric.cluster_uuid"
        ]
    );
    gpu(&mut report).insert("fabric".to_owned(), json!({"state": "in-progress"}));
    compare(&[&begun], &report, &[]).ok();

    let to_reset = but(
        &begun,
        "<gpu_recovery_action>None<",
        "<gpu_recovery_action>Reset<",
    );
    assert_eq!(
        differing(&compare(&[&to_reset], &report, &[])),
        ["gpus[].recovery_action"]
    );
    gpu(&mut report).insert("recovery_action".to_owned(), json!("gpu-reset"));
    compare(&[&to_reset], &report, &[]).ok();
}

#[test]
fn a_text_that_stands_for_none_is_no_text() {
    let mut report = report_of(Path::new(SCENARIO));
    let xml = but(&recorded_xml(), "<serial>1650000000001<", "<serial>N/A<");
    assert_eq!(differing(&compare(&[&xml], &report, &[])), ["gpus[].serial"]);
    gpu(&mut report).remove("serial");
    compare(&[&xml], &report, &[]).ok();
}

#[test]
fn a_unit_or_word_that_is_not_known_fails() {
    let report = report_of(Path::new(SCENARIO));
    let xml = recorded_xml();
    let fahrenheit = but(&xml, "<gpu_temp>52 C<", "<gpu_temp>52 F<");
    assert_eq!(
        differing(&compare(&[&fahrenheit], &report, &[])),
        ["gpus[].temperature_c"]
    );
    let word = but(&xml, "<compute_mode>Default<", "<compute_mode>Exclusive_Thread<");
    let outcome = compare(&[&word], &report, &[]);
    assert_eq!(differing(&outcome), ["gpus[].compute_mode"]);
    assert!(
        outcome
            .stdout
            .contains("can't be read: `Exclusive_Thread` is none of"),
        "{}",
        short(&outcome)
    );
}

#[test]
fn a_field_that_no_list_names_fails() {
    let report = report_of(Path::new(SCENARIO));
    let xml = recorded_xml();
    let more = but(
        &xml,
        "<fan_speed>",
        "<coolant><level>3 %</level></coolant><fan_speed>",
    );
    let outcome = compare(&[&more], &report, &[]);
    assert!(
        summary(&outcome).starts_with(
            "DISAGREES: unlisted field of nvidia-smi: gpu/coolant/level (`3 %`); 78 fields compared"
        ),
        "{}",
        short(&outcome)
    );
    assert_eq!(outcome.code, Some(1));

    // A known name at another place is another field.
    let moved = but(
        &xml,
        "<fan_speed>",
        "<clocks_too><sm_clock/></clocks_too><fan_speed>",
    );
    let outcome = compare(&[&moved], &report, &[]);
    assert!(
        summary(&outcome).contains("unlisted field of nvidia-smi: gpu/clocks_too/sm_clock"),
        "{}",
        short(&outcome)
    );

    let mut report = report;
    gpu(&mut report).insert("coolant".to_owned(), json!({"level_percent": 3}));
    let outcome = compare(&[&xml], &report, &[]);
    assert!(
        summary(&outcome).starts_with("DISAGREES: unlisted field of pitcrew: gpus[].coolant.level_percent;"),
        "{}",
        short(&outcome)
    );
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn a_clock_event_reason_without_a_name_fails() {
    let mut report = report_of(Path::new(SCENARIO));
    gpu(&mut report).insert("clocks_event_reasons".to_owned(), json!(0x1001));
    let outcome = compare(&[&recorded_xml()], &report, &[]);
    assert_eq!(
        differing(&outcome),
        ["gpus[].clocks_event_reasons (bits without a name)"]
    );
}

#[test]
fn comparing_less_than_the_baseline_fails() {
    let report = report_of(Path::new(SCENARIO));
    let xml = recorded_xml();
    // A driver that no longer writes one of the fields.
    let less = but(&xml, "<compute_mode>Default</compute_mode>", "");
    let outcome = compare(&[&less], &report, &[]);
    assert!(
        summary(&outcome).starts_with(
            "DISAGREES: compares 77 fields, fewer than the baseline's 78; no longer compared: gpus[].compute_mode;"
        ),
        "{}", short(&outcome)
    );
    assert_eq!(outcome.code, Some(1));

    // A table from which a field of MIG devices was taken.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("baseline.json");
    let mut baseline: Value = serde_json::from_str(&std::fs::read_to_string(BASELINE).unwrap()).unwrap();
    let when_there = baseline["compared_when_there"].as_array_mut().unwrap();
    when_there.push(json!("gpus[].mig_devices[].colour"));
    std::fs::write(&path, baseline.to_string()).unwrap();
    let outcome = compare(&[&xml], &report, &["--baseline", path.to_str().unwrap()]);
    assert!(
        summary(&outcome).contains("no longer in the table: gpus[].mig_devices[].colour"),
        "{}",
        short(&outcome)
    );

    let outcome = compare(&[&xml], &report, &["--baseline", "nonexistent.json"]);
    assert_eq!(outcome.code, Some(2), "{}", short(&outcome));
}

#[test]
fn what_moves_lies_between_before_and_after_and_what_stands_still_does_not_move() {
    let report = report_of(Path::new(SCENARIO));
    let after = recorded_xml();
    // The SM clock falls from 1980 to 345 MHz, and pitcrew saw 405 on the way.
    let clock = "<sm_clock>405 MHz<";
    let before = but(&after, clock, "<sm_clock>1980 MHz<");
    let low = but(&after, clock, "<sm_clock>345 MHz<");
    compare(&[&before, &low], &report, &[]).ok();
    let high = but(&after, clock, "<sm_clock>1500 MHz<");
    assert_eq!(
        differing(&compare(&[&before, &high], &report, &[])),
        ["gpus[].clock_sm_mhz"]
    );
    // Busy before, idle after.
    let busy = but(&after, "gpu_idle>Active<", "gpu_idle>Not Active<");
    compare(&[&busy, &after], &report, &[]).ok();

    let limit = "<current_power_limit>700.00 W<";
    let before = but(&after, limit, "<current_power_limit>600.00 W<");
    assert_eq!(
        differing(&compare(&[&before, &after], &report, &[])),
        ["gpus[].power_limit_mw"]
    );
}

#[test]
fn another_gpu_or_one_too_few_fails() {
    let mut report = report_of(Path::new(SCENARIO));
    report["gpus"][0]["pci"]["address"] = json!("0000:00:07.0");
    let outcome = compare(&[&recorded_xml()], &report, &[]);
    assert!(differing(&outcome).contains(&"gpus[]".to_owned()));
    report["gpus"] = json!([]);
    let outcome = compare(&[&recorded_xml()], &report, &[]);
    assert_eq!(differing(&outcome), ["gpus (how many)", "gpus[]"]);
}

/// The scenario with two of the recorded card, from its own text: one with MIG, both with processes.
fn two_cards() -> (String, String) {
    let scenario = std::fs::read_to_string(SCENARIO).unwrap();
    let (head, card) = scenario.split_once("  - card: ").unwrap();
    let first = format!(
        "  - card: {card}    mig: {{enabled: true, devices: [3g.40gb@4, 1g.10gb]}}\n    \
         processes: [{{pid: 4711, memory_bytes: 1073741824, gpu_instance: 0}}]\n"
    );
    let unknown = "unsupported: [fan_percent]";
    let first = but(
        &first,
        unknown,
        "unsupported: [fan_percent, utilization_gpu_percent, utilization_memory_percent]",
    );
    let first = but(&first, "      utilization_gpu_percent: 0\n", "");
    let first = but(&first, "      utilization_memory_percent: 0\n", "");
    let second = but(&format!("  - card: {card}"), "0000:00:06.0", "0000:00:07.0");
    let second = but(&second, "555555555555", "666666666666");
    let second = format!(
        "{second}    processes: [{{pid: 4712, memory_bytes: 536870912, kind: mps}}, {{pid: 4713, kind: graphics}}]\n"
    );

    let xml = recorded_xml();
    let start = xml.find("\t<gpu id").unwrap();
    let end = xml.find("</nvidia_smi_log>").unwrap();
    let (head_xml, gpu) = (&xml[..start], &xml[start..end]);
    let mig = |index: u32, instance: u32, multiprocessors: u32, mib: u32, used: u32| {
        // As recorded of an H100: an engine of each kind for a slice, but for encoders and optical flow.
        let slices = if mib > 20_000 { 3 } else { 1 };
        format!(
            "<mig_device><index>{index}</index><gpu_instance_id>{instance}</gpu_instance_id>\
             <compute_instance_id>0</compute_instance_id><device_attributes><shared>\
             <multiprocessor_count>{multiprocessors}</multiprocessor_count>\
             <copy_engine_count>{slices}</copy_engine_count><encoder_count>0</encoder_count>\
             <decoder_count>{slices}</decoder_count><ofa_count>0</ofa_count><jpg_count>{slices}</jpg_count>\
             </shared></device_attributes><fb_memory_usage><total>{mib} MiB</total><used>{used} MiB</used>\
             </fb_memory_usage></mig_device>"
        )
    };
    let process = |instance: &str, pid: u32, kind: &str, memory: &str| {
        // Each GPU instance here has one compute instance, which is number 0.
        format!(
            "<process_info><gpu_instance_id>{instance}</gpu_instance_id>\
             <compute_instance_id>{instance}</compute_instance_id>\
             <pid>{pid}</pid><type>{kind}</type><process_name>train</process_name>\
             <used_memory>{memory}</used_memory></process_info>"
        )
    };
    let devices = format!("{}{}", mig(0, 0, 60, 40448, 1024), mig(1, 1, 16, 9984, 0));
    let first_xml = but(
        gpu,
        "<mig_devices>\n\t\t\tNone\n",
        &format!("<mig_devices>{devices}"),
    );
    let first_xml = but(
        &first_xml,
        "_mig>Disabled</current_mig>",
        "_mig>Enabled</current_mig>",
    );
    let first_xml = but(
        &first_xml,
        "_mig>Disabled</pending_mig>",
        "_mig>Enabled</pending_mig>",
    );
    let used = "<used>0 MiB</used>\n\t\t\t<free>81079 MiB<";
    let first_xml = but(&first_xml, used, "<used>1024 MiB</used><free>80055 MiB<");
    let first_xml = but(&first_xml, "<gpu_util>0 %<", "<gpu_util>N/A<");
    let first_xml = but(&first_xml, "<memory_util>0 %<", "<memory_util>N/A<");
    let first_xml = but(
        &first_xml,
        "<processes>\n",
        &format!("<processes>{}", process("0", 4711, "C", "1024 MiB")),
    );
    let second_xml = gpu.replace("00000000:00:06.0", "00000000:00:07.0");
    let second_xml = but(&second_xml, used, "<used>512 MiB</used><free>80567 MiB<");
    let second_xml = but(&second_xml, "<pci_device>06<", "<pci_device>07<");
    let second_xml = but(&second_xml, "555555555555", "666666666666");
    let second_xml = but(&second_xml, "<minor_number>0<", "<minor_number>1<");
    let second_xml = but(
        &second_xml,
        "<processes>\n",
        &format!(
            "<processes>{}{}",
            process("N/A", 4712, "M+C", "512 MiB"),
            process("N/A", 4713, "G", "N/A")
        ),
    );
    let head_xml = but(head_xml, "<attached_gpus>1<", "<attached_gpus>2<");
    (
        format!("{head}{first}{second}"),
        format!("{head_xml}{first_xml}{second_xml}</nvidia_smi_log>"),
    )
}

#[test]
fn mig_devices_and_processes_of_several_gpus_are_compared() {
    let (scenario, xml) = two_cards();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("two.yaml");
    std::fs::write(&file, scenario).unwrap();
    let report = report_of(&file);
    let outcome = compare(&[&xml], &report, &[]);
    assert_eq!(
        summary(&outcome),
        "agrees: 78 fields compared on 2 GPUs (70 by value, 8 without a value on both sides), \
         and 15 of MIG devices and processes",
        "{}",
        short(&outcome)
    );

    let wrong = |old: &str, new: &str| differing(&compare(&[&but(&xml, old, new)], &report, &[]));
    assert_eq!(
        wrong("<multiprocessor_count>60<", "<multiprocessor_count>64<"),
        ["gpus[].mig_devices[].multiprocessors"]
    );
    assert_eq!(
        wrong("<total>9984 MiB<", "<total>9856 MiB<"),
        ["gpus[].mig_devices[].memory_total_bytes"]
    );
    assert_eq!(
        wrong(
            "<index>1</index><gpu_instance_id>1<",
            "<index>1</index><gpu_instance_id>2<"
        ),
        [
            "gpus[].mig_devices[].gpu_instance",
            "gpus[].mig_devices[].compute_instance"
        ]
    );
    assert_eq!(
        wrong("<pid>4712<", "<pid>4714<"),
        [
            "gpus[].processes[].pid",
            "gpus[].processes[].gpu_instance",
            "gpus[].processes[].compute_instance"
        ]
    );
    assert_eq!(
        wrong("<used>1024 MiB</used></fb", "<used>1000 MiB</used></fb"),
        ["gpus[].mig_devices[].memory_used_bytes"]
    );
    assert_eq!(wrong("<type>G<", "<type>C+G<"), ["gpus[].processes[].kind"]);
    assert_eq!(
        wrong("<used_memory>512 MiB<", "<used_memory>612 MiB<"),
        ["gpus[].processes[].memory_bytes"]
    );

    // A process that has ended since, and one that pitcrew saw and nvidia-smi did not.
    let ended = but(&xml, "<pid>4713<", "<pid>4715<");
    let outcome = compare(&[&xml, &ended], &report, &[]);
    assert_eq!(outcome.code, Some(0), "{}", short(&outcome));
    let outcome = compare(&[&ended, &ended], &report, &[]);
    assert_eq!(differing(&outcome).len(), 3, "{}", short(&outcome));
}
