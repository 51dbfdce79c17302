//! `deploy/prove` as anybody applies it, with the image as it is: what a proof says of its set-up in a real pod. There is no
//! driver here, so that is all that it can.

use pitcrew_tests::agent::{Agent, Gpus};
use pitcrew_tests::{Outcome, kubectl, pitcrew, run, wait_for};
use serde_json::{Value, json};
use std::process::Command;
use tempfile::TempDir;

use super::{cluster, import, overlay};

const NAMESPACE: &str = "pitcrew-prove";

/// The Job of `deploy/prove`, until it is dropped.
struct Job;

impl Job {
    /// Applies it, with changes as those of JSON patches.
    #[track_caller]
    fn apply(changes: &Value) -> Self {
        // From here on the namespace goes again, also where this fails.
        let job = Self;
        let dir = TempDir::new().unwrap();
        let patches = match changes.as_array().map(Vec::len) {
            Some(0) => json!([]),
            _ => json!([{"target": {"kind": "Job"}, "patch": changes.to_string()}]),
        };
        let base = format!("{}/prove", cluster::deploy());
        let applied = overlay(dir.path(), &base, &patches);
        let applied = kubectl(&["apply", "-k", &applied], "");
        // Where the pod broke a rule of the restricted standard, this would say so.
        assert_eq!(
            (applied.code, applied.stderr.as_str()),
            (Some(0), ""),
            "{applied:#?}"
        );
        job
    }

    fn kubectl(words: &[&str]) -> Outcome {
        kubectl(&[&["-n", NAMESPACE], words].concat(), "")
    }

    /// Its pod, once the container has ended.
    #[track_caller]
    fn pod() -> Value {
        let conditions = "--for=jsonpath={.status.conditions}";
        let waited = Self::kubectl(&["wait", "job/pitcrew-prove", conditions, "--timeout=60s"]);
        let pods = Self::kubectl(&["get", "pods", "-l", "job-name=pitcrew-prove", "-o", "json"]).ok();
        assert_eq!(waited.code, Some(0), "{waited:#?}\n{pods}");
        let pods: Value = serde_json::from_str(&pods).unwrap();
        assert_eq!(
            pods["items"].as_array().unwrap().len(),
            1,
            "there is no second try"
        );
        pods["items"][0].clone()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        kubectl(
            &["delete", "namespace", NAMESPACE, "--wait=true", "--timeout=60s"],
            "",
        );
    }
}

/// Exit code and message of the pod's container.
fn ended(pod: &Value) -> (Value, String) {
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let message = ended["message"].as_str().unwrap_or_default().to_owned();
    (ended["exitCode"].clone(), message)
}

/// What `pitcrew prove show` makes of a report that comes from the log.
fn show(report: &str) -> Outcome {
    let mut show = Command::new(pitcrew());
    show.args(["prove", "show", "-"]);
    run(show, report)
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_proof_in_a_pod_without_a_gpu_ends_with_40_and_tells_the_kubelet_why() {
    import();
    let without = json!([{"op": "remove", "path": "/spec/template/spec/containers/0/resources/limits"}]);
    let _job = Job::apply(&without);
    let pod = Job::pod();
    let (code, message) = ended(&pod);
    assert_eq!(code, 40, "{message}");
    assert!(message.starts_with("ERROR_SETUP 127.0.0.1: "), "{message}");
    assert!(
        message.contains("no GPU was given to this container"),
        "{message}"
    );
    assert!(message.contains("do: request `nvidia.com/gpu`"), "{message}");
    let described = Job::kubectl(&["describe", "pods"]).ok();
    assert!(described.contains("do: request `nvidia.com/gpu`"), "{described}");
    // The log is the report and nothing besides.
    let report = Job::kubectl(&["logs", "job/pitcrew-prove"]).ok();
    let shown = show(&report);
    assert_eq!(shown.code, Some(40), "{shown:#?}\n{report}");
    assert!(shown.stdout.contains("ERROR_SETUP  127.0.0.1"), "{shown:#?}");
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_proof_of_a_gpu_whose_library_is_not_the_drivers_says_what_it_lacks() {
    import();
    let gpus = Gpus::new("rtx3060");
    let agent = Agent::start(&gpus, &[]);
    wait_for("the GPU on the node", || {
        (cluster::node_field(r".status.allocatable.nvidia\.com/gpu") == "1").then_some(())
    });
    let _job = Job::apply(&json!([]));
    let pod = Job::pod();
    let (code, message) = ended(&pod);
    assert_eq!(code, 40, "{message}\n{}", agent.log());
    // The bed's stand-in has no functions: the device files and libraries of a GPU are there, and it is said what isn't.
    assert!(
        message.contains("`libcuda.so.1` is not the driver's library: it has no `cuInit`"),
        "{message}"
    );
    assert!(message.contains("do: "), "{message}");
    drop(agent);
    drop(gpus);
}
