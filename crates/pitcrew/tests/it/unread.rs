//! Unknown is not zero: each reading is made to fail, and must be absent from every output.

use std::fs;
use std::path::Path;

use pitcrew_core::gpu::GpuReadings;
use serde_json::Value;

use crate::program::{pitcrew, run, stdout};

/// One A100 with MIG on, so that every field means something; `extra` is added to it.
fn write(dir: &Path, extra: &str) -> String {
    let file = dir.join("one.yaml");
    let text = format!(
        "description: one reading fails\ndriver: {{ version: 580.159.04, cuda: \"13.0\" }}\ngpus:\n  \
         - card: A100 SXM4 80GB\n    mig: {{ enabled: true, devices: [3g.40gb] }}\n{extra}"
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn failing(dir: &Path, field: &str) -> String {
    write(
        dir,
        &format!("    fail: {{ {field}: \"{field} was refused\" }}\n"),
    )
}

fn shown(file: &str, format: &str) -> String {
    stdout(&run(pitcrew(&["gpus", "--scenario", file, "-o", format])))
}

/// Cells of the first GPU's row.
fn cells(table: &str) -> Vec<String> {
    let row = table
        .lines()
        .skip_while(|line| !line.starts_with("GPU "))
        .nth(1)
        .unwrap();
    row.split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .map(str::to_owned)
        .collect()
}

fn assert_absent(document: &Value, field: &str) {
    let gpu = &document["gpus"][0];
    assert!(gpu["index"].is_u64(), "{document}");
    assert_eq!(gpu.get(field), None, "{field} must not be there at all");
    let unread = serde_json::json!([{ "field": field, "reason": format!("{field} was refused") }]);
    assert_eq!(gpu["unread"], unread, "{field}");
}

#[test]
fn every_reading_that_fails_is_absent_from_json_and_yaml_and_listed_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    for field in GpuReadings::FIELDS {
        let file = failing(dir.path(), field);
        assert_absent(&serde_json::from_str(&shown(&file, "json")).unwrap(), field);
        assert_absent(&serde_saphyr::from_str(&shown(&file, "yaml")).unwrap(), field);
    }
}

#[test]
fn every_reading_that_fails_is_a_question_mark_in_the_table_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let good = cells(&shown(&write(dir.path(), ""), "table"));
    assert!(!good.iter().any(|cell| cell.contains('?')), "{good:?}");
    let mut in_table = Vec::new();
    for field in GpuReadings::FIELDS {
        let file = failing(dir.path(), field);
        let output = run(pitcrew(&["gpus", "--scenario", &file]));
        let bad = cells(&stdout(&output));
        assert_eq!(bad.len(), good.len(), "{field}: {bad:?}");
        for (bad, good) in bad.iter().zip(&good) {
            if bad != good {
                assert!(
                    bad.contains('?') || bad == "unknown",
                    "{field} turned `{good}` into `{bad}`"
                );
                in_table.push(*field);
            }
        }
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.starts_with("1 value could not be read"),
            "{field}: {stderr}"
        );
    }
    in_table.dedup();
    let expected = [
        "name",
        "uuid",
        "memory_total_bytes",
        "memory_used_bytes",
        "temperature_c",
        "power_mw",
        "power_limit_mw",
        "remapped_rows",
        "mig_mode",
        "mig_devices",
    ];
    assert_eq!(in_table, expected);
}

#[test]
fn what_a_card_does_not_have_is_a_dash_and_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        dir.path(),
        "    unsupported: [power_mw, power_limit_mw, temperature_c]\n",
    );
    let output = run(pitcrew(&["gpus", "--scenario", &file]));
    assert_eq!(
        cells(&stdout(&output)).iter().filter(|cell| *cell == "-").count(),
        2
    );
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let document: Value = serde_json::from_str(&shown(&file, "json")).unwrap();
    assert_eq!(document["gpus"][0].get("power_mw"), None);
    assert_eq!(document["gpus"][0]["unread"], serde_json::json!([]));
}
