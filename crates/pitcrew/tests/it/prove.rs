//! `pitcrew prove show` and `merge`: reports that are there already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::program::{pitcrew, run, stdout, transcript};

fn report(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/reports/{name}.json"))
}

fn prove(args: &[&str]) -> std::process::Output {
    run(pitcrew(&[&["prove"], args].concat()))
}

fn code(args: &[&str]) -> i32 {
    prove(args).status.code().unwrap()
}

#[test]
fn a_report_is_shown_and_ends_as_its_run() {
    let shown = |name: &str| {
        transcript(&prove(&[
            "show",
            report(name).to_str().unwrap(),
            "--width",
            "100",
        ]))
    };
    insta::assert_snapshot!("prove_show_well", shown("well"));
    insta::assert_snapshot!("prove_show_sick", shown("sick"));
    insta::assert_snapshot!("prove_show_no_driver", shown("no-driver"));
}

#[test]
fn the_verdict_is_the_exit_code_and_a_warning_only_where_it_is_asked_for() {
    assert_eq!(code(&["show", report("well").to_str().unwrap(), "--strict"]), 0);
    assert_eq!(code(&["show", report("sick").to_str().unwrap()]), 20);
    assert_eq!(code(&["show", report("no-driver").to_str().unwrap()]), 40);
    let dir = tempfile::tempdir().unwrap();
    let warned = dir.path().join("warned.json");
    let text = fs::read_to_string(report("well")).unwrap();
    fs::write(
        &warned,
        text.replacen("\"verdict\": \"PASS\"", "\"verdict\": \"WARN\"", 1),
    )
    .unwrap();
    let warned = warned.to_str().unwrap();
    assert_eq!(code(&["show", warned]), 0);
    assert_eq!(code(&["show", warned, "--strict"]), 10);
}

#[test]
fn what_is_written_as_json_is_the_report_again() {
    let path = report("sick");
    let written = stdout(&prove(&["show", path.to_str().unwrap(), "-o", "json"]));
    let before: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let after: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(before, after);
    // From standard input too.
    let mut command = pitcrew(&["prove", "show", "-", "-o", "json"]);
    command.stdin(Stdio::from(fs::File::open(&path).unwrap()));
    assert_eq!(stdout(&run(command)), written);
}

#[test]
fn every_view_goes_to_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let source = report("sick");
    let args = [
        "show",
        source.to_str().unwrap(),
        "--html",
        &at("report.html"),
        "--junit",
        &at("junit.xml"),
        "--prometheus",
        &at("prove.prom"),
        "--termination-log",
        &at("log"),
    ];
    // Twice: what is there is replaced.
    for _ in 0..2 {
        assert_eq!(code(&args), 20);
    }
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(read("report.html").starts_with("<!doctype html>") && read("report.html").ends_with("</html>\n"));
    assert!(read("junit.xml").contains("<failure message=\"FAIL_CORRUPTION"));
    assert!(read("prove.prom").contains("gpu_proof_corruptions_total"));
    assert!(read("log").starts_with("FAIL_CORRUPTION gpu-2: ") && read("log").len() <= 4096);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        4,
        "no temporary file is left"
    );
}

#[test]
fn a_file_that_can_not_be_written_is_named() {
    let output = prove(&[
        "show",
        report("well").to_str().unwrap(),
        "--html",
        "/nowhere/report.html",
        "--quiet",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("`/nowhere/report.html` can't be written"),
        "{error}"
    );
}

#[test]
fn what_is_no_report_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |text: &[u8]| {
        let path = dir.path().join("report.json");
        fs::write(&path, text).unwrap();
        let output = prove(&["show", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr)
            .unwrap()
            .replace(&dir.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!("prove_not_json", refused(b"{\n  \"schema\": oops\n}"));
    insta::assert_snapshot!(
        "prove_other_schema",
        refused(b"{\"schema\": \"pitcrew.dev/check/v1alpha1\"}")
    );
    assert!(refused(b"ab\n\xff\xfe").contains("line 2, column 0: it is no text in UTF-8"));
    let missing = prove(&["show", "/nowhere.json"]);
    assert_eq!(missing.status.code(), Some(2));
}

/// Four nodes like the one that is well; one of them has a GPU that is a fifth slower in all products.
fn fleet(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(report("well")).unwrap();
    (0..4)
        .map(|node| {
            let mut report: Value = serde_json::from_str(&text).unwrap();
            report["evidence"]["node"]["name"] = format!("gpu-{node}").into();
            for (index, device) in report["evidence"]["devices"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .enumerate()
            {
                device["device"]["uuid"] = format!("GPU-{node}-{index}").into();
                for phase in device["phases"].as_array_mut().unwrap() {
                    if node == 2 && index == 0 && phase["kind"] == "gemm" {
                        let rate = &mut phase["rate"]["p50"];
                        *rate = (rate.as_f64().unwrap() * 0.8).into();
                    }
                }
            }
            let path = dir.join(format!("gpu-{node}.json"));
            fs::write(&path, report.to_string()).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn the_slow_gpu_of_several_nodes_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let reports = fleet(dir.path());
    let mut args = vec!["merge"];
    args.extend(reports.iter().map(String::as_str));
    let page = dir.path().join("fleet.html");
    args.extend(["--html", page.to_str().unwrap(), "--width", "110"]);
    insta::assert_snapshot!("prove_merge", transcript(&prove(&args)));
    assert!(fs::read_to_string(&page).unwrap().contains("gpu-2 GPU 0"));
    args.extend(["-o", "json"]);
    let fleet: Value = serde_json::from_str(&stdout(&prove(&args))).unwrap();
    assert_eq!(fleet["schema"], "pitcrew.dev/proof-fleet/v1");
    let outliers = fleet["outliers"].as_array().unwrap();
    assert!(!outliers.is_empty());
    for outlier in outliers {
        let member = usize::try_from(outlier["member"].as_u64().unwrap()).unwrap();
        assert_eq!(fleet["members"][member]["uuid"], "GPU-2-0");
    }
}

#[test]
fn equals_that_are_well_are_fine_and_a_sick_one_is_a_finding() {
    let well = report("well");
    assert_eq!(code(&["merge", well.to_str().unwrap()]), 0);
    assert_eq!(
        code(&["merge", well.to_str().unwrap(), report("sick").to_str().unwrap()]),
        1
    );
}

#[test]
fn a_report_is_judged_anew_by_other_thresholds_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("thresholds.yaml");
    let path = file.to_str().unwrap();
    let well = report("well");
    let well = well.to_str().unwrap();
    fs::write(
        &file,
        "cards:\n  - name: NVIDIA H100 80GB HBM3\n    memory_gbs: 6000\n",
    )
    .unwrap();
    let args = ["show", well, "--thresholds", path, "-o", "json"];
    assert_eq!(code(&["show", well]), 0);
    assert_eq!(code(&args), 30);
    let judged: Value = serde_json::from_str(&stdout(&prove(&args))).unwrap();
    assert_eq!(
        judged["judgement"]["thresholds"]["cards"][0]["memory_gbs"],
        6000.0
    );
    let figures = judged["judgement"]["figures"].as_array().unwrap();
    let copy = figures.iter().find(|figure| figure["phase"] == "copy").unwrap();
    assert_eq!(copy["basis"], "measured, by the thresholds that were given");
    // And back to the usual ones.
    fs::write(dir.path().join("judged.json"), judged.to_string()).unwrap();
    fs::write(&file, "").unwrap();
    let again = dir.path().join("judged.json");
    assert_eq!(code(&["show", again.to_str().unwrap(), "--thresholds", path]), 0);
}

#[test]
fn thresholds_that_can_not_be_are_a_mistake_of_the_command_line_with_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("thresholds.yaml");
    fs::write(&file, "sm: 0.9\ntensor:\n  warn: 12\n").unwrap();
    let path = file.to_str().unwrap();
    let well = report("well");
    for args in [
        &["show", well.to_str().unwrap(), "--thresholds", path][..],
        // Before anything is tested.
        &["--scenario=h100x8", "--thresholds", path],
    ] {
        let output = prove(args);
        assert_eq!(output.status.code(), Some(64));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains("line 3: `tensor.warn` must be a number above 0 and at most 1, not `12`"),
            "{error}"
        );
    }
    assert_eq!(
        code(&["show", well.to_str().unwrap(), "--thresholds", "/nowhere.yaml"]),
        2
    );
}

/// Recorded on two H100 SXM of a virtual machine, before links were read one by one; thinned out.
#[test]
fn a_report_of_two_real_gpus_is_judged_by_what_is_known_now() {
    let dir = tempfile::tempdir().unwrap();
    let usual = dir.path().join("usual.yaml");
    fs::write(&usual, "").unwrap();
    let source = report("two-h100");
    let args = [
        "show",
        source.to_str().unwrap(),
        "--thresholds",
        usual.to_str().unwrap(),
    ];
    let judged: Value =
        serde_json::from_str(&stdout(&prove(&[&args[..], &["-o", "json"]].concat()))).unwrap();
    let figures = judged["judgement"]["figures"].as_array().unwrap();
    let products = figures.iter().filter(|figure| figure["unit"] == "TFLOP/s");
    for figure in products.filter(|figure| figure["phase"] != "power") {
        assert_eq!(figure["grade"], "good", "{figure:#}");
    }
    insta::assert_snapshot!(
        "prove_show_two_h100",
        transcript(&prove(&[&args[..], &["--width", "80"]].concat()))
    );
}
