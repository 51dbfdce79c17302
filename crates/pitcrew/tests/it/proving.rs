//! `pitcrew prove` on imaginary GPUs, and on a machine without one.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{pitcrew, run, stdout, transcript};

fn prove(args: &[&str]) -> (i32, Value) {
    let all: Vec<&str> = ["prove", "-o", "json"]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    let output = run(pitcrew(&all));
    let report = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| {
        let transcript = transcript(&output);
        Value::String(transcript)
    });
    (output.status.code().unwrap(), report)
}

fn phase<'a>(report: &'a Value, kind: &str) -> &'a Value {
    let phases = report["evidence"]["devices"][0]["phases"].as_array().unwrap();
    phases.iter().find(|phase| phase["kind"] == kind).unwrap()
}

#[test]
fn an_imaginary_gpu_passes_and_every_view_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (html, junit, prometheus) = (file("report.html"), file("junit.xml"), file("gpu.prom"));
    let (code, report) = prove(&[
        "--scenario=rtx3060",
        "--profile=smoke",
        "--html",
        &html,
        "--junit",
        &junit,
        "--prometheus",
        &prometheus,
    ]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["evidence"]["run"]["scenario"], "rtx3060");
    assert_eq!(phase(&report, "gemm")["outcome"], "ran");
    assert!(phase(&report, "gemm")["verified_outputs"].as_u64().unwrap() > 0);
    assert!(
        !report["evidence"]["devices"][0]["samples"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(std::fs::read_to_string(html).unwrap().contains("<svg"));
    assert!(std::fs::read_to_string(junit).unwrap().contains("<testsuite"));
    assert!(
        std::fs::read_to_string(prometheus)
            .unwrap()
            .contains("gpu_proof_verdict")
    );
}

#[test]
fn a_fault_that_is_planted_fails_with_its_place_and_code() {
    let (code, report) = prove(&[
        "--scenario=h100x8",
        "--gpu=3",
        "--profile=smoke",
        "--inject=sm=7,bit=12",
    ]);
    assert_eq!(
        (code, &report["verdict"]),
        (20, &Value::from("FAIL_CORRUPTION")),
        "{report:#}"
    );
    assert_eq!(report["evidence"]["devices"].as_array().unwrap().len(), 1);
    assert_eq!(report["evidence"]["devices"][0]["device"]["index"], 3);
    for kind in ["gemm", "mma-loop"] {
        let corruptions = phase(&report, kind)["corruptions"].as_array().unwrap();
        assert!(
            corruptions.iter().all(|corruption| corruption["sm"] == 7),
            "{kind}"
        );
    }
}

#[test]
fn a_gpu_that_somebody_computes_on_is_left_alone_unless_told_to_share() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("busy.yaml");
    let text = "description: One that is busy\ndriver: {version: 580.95.05, cuda: \"13.0\"}\ngpus:\n  - card: L40S\n    processes: [{pid: 4242, kind: compute}]\n";
    std::fs::write(&file, text).unwrap();
    let scenario = format!("--scenario={}", file.display());
    let (code, report) = prove(&[&scenario, "--profile=smoke"]);
    assert_eq!(code, 40, "{report:#}");
    let error = &report["evidence"]["devices"][0]["setup_error"];
    assert_eq!(error["code"], "in-use");
    assert!(
        error["message"].as_str().unwrap().contains("process 4242"),
        "{error}"
    );
    let (code, report) = prove(&[&scenario, "--profile=smoke", "--share"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["verdict"], "WARN");
}

#[test]
fn names_and_faults_that_mean_nothing_are_mistakes_of_the_command_line() {
    for (args, text) in [
        (["--scenario=rtx3060", "--gpu=7"], "there is no GPU `7` here"),
        (["--scenario=rtx3060", "--inject=sm=7"], "`bit` is missing"),
    ] {
        let all: Vec<&str> = ["prove"].into_iter().chain(args).collect();
        let output = run(pitcrew(&all));
        let transcript = transcript(&output);
        assert_eq!(output.status.code(), Some(64), "{transcript}");
        assert!(transcript.contains(text), "{transcript}");
    }
}

#[test]
fn a_machine_without_a_driver_is_told_in_one_line_what_it_lacks_and_quickly() {
    let start = Instant::now();
    let (code, report) = prove(&["--profile=smoke"]);
    assert!(start.elapsed() < Duration::from_secs(10));
    if report["evidence"]["devices"]
        .as_array()
        .is_some_and(|all| !all.is_empty())
    {
        // There is a GPU here after all.
        return;
    }
    assert_eq!(
        (code, &report["verdict"]),
        (40, &Value::from("ERROR_SETUP")),
        "{report:#}"
    );
    let error = &report["evidence"]["setup_error"];
    assert_eq!(error["message"].as_str().unwrap().lines().count(), 1);
    assert!(error["fix"].is_string(), "{error}");
}

#[test]
fn a_proof_that_is_stopped_ends_soon_with_what_it_has() {
    let mut command = pitcrew(&[
        "prove",
        "-o",
        "json",
        "--scenario=h100x8",
        "--gpu=0",
        "--profile=soak",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A soak takes minutes even on a stand-in; how far it has come does not matter.
    std::thread::sleep(Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_child(&child);
    let start = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status.code(), &report["verdict"]),
        (Some(50), &Value::from("INTERRUPTED")),
        "{text}"
    );
}

#[test]
fn a_report_says_where_it_was_made_and_with_which_kernels_and_nothing_secret() {
    let mut command = pitcrew(&["prove", "-o", "json", "--scenario=rtx3060", "--profile=smoke"]);
    command
        .env("POD_NAME", "prove-x7k2p")
        .env("POD_NAMESPACE", "gpu-tests")
        .env("NODE_NAME", "gpu-1")
        .env("NVIDIA_VISIBLE_DEVICES", "all")
        .env("CUDA_VISIBLE_DEVICES", "0")
        .env("NVIDIA_API_KEY", "nvapi-secret");
    let text = stdout(&run(command));
    let report: Value = serde_json::from_str(&text).unwrap();
    let node = &report["evidence"]["node"];
    assert_eq!(node["name"], "gpu-1");
    assert_eq!(node["pod"], "gpu-tests/prove-x7k2p");
    assert_eq!(node["environment"]["CUDA_VISIBLE_DEVICES"], "0");
    assert_eq!(node["environment"]["NVIDIA_VISIBLE_DEVICES"], "all");
    assert!(!text.contains("nvapi-secret"));
    assert_eq!(
        report["evidence"]["tool"]["kernels"],
        pitcrew_prove::kernels::digest()
    );
}

#[test]
fn the_nvlinks_of_an_imaginary_gpu_are_told_one_by_one_and_those_of_another_are_not_there() {
    let (_, report) = prove(&["--scenario=h100x8", "--gpu=0", "--profile=smoke"]);
    let device = &report["evidence"]["devices"][0];
    for counters in ["before", "after"] {
        let links = device[counters]["nvlinks"].as_array().unwrap();
        assert_eq!(links.len(), 18);
        for link in links {
            assert_eq!(
                (&link["up"], &link["speed_mbs"], &link["replays"]),
                (&Value::from(true), &Value::from(26_562), &Value::from(0))
            );
        }
        assert_eq!(device[counters]["nvlink_errors"], 0);
    }
    let (_, report) = prove(&["--scenario=rtx3060", "--profile=smoke"]);
    let before = &report["evidence"]["devices"][0]["before"];
    assert!(before.get("nvlinks").is_none() && before.get("nvlink_errors").is_none());
}

#[test]
fn a_link_that_is_down_or_slow_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("links.yaml");
    let text = "description: One link is missing and one slow\n\
        driver: {version: 580.95.05, cuda: \"13.0\"}\n\
        links: {nvswitch: 17}\n\
        gpus:\n  - card: H100 SXM5 80GB\n    count: 2\n    fields: {NVML_FI_DEV_NVLINK_SPEED_MBPS_L3: 13281}\n";
    std::fs::write(&file, text).unwrap();
    let scenario = format!("--scenario={}", file.display());
    let (code, report) = prove(&[&scenario, "--gpu=0", "--profile=smoke"]);
    assert_eq!(code, 0, "{report:#}");
    let reasons = report["judgement"]["reasons"].as_array().unwrap();
    let texts: Vec<&str> = reasons
        .iter()
        .filter(|reason| reason["code"] == "nv-link")
        .map(|reason| reason["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            "17 of 18 NVLinks are up; down: NVLink 17",
            "NVLink 3 runs at 13281 MB/s, and 26562 are usual"
        ]
    );
}
