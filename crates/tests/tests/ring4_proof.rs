//! Proofs by the agent on a real node: real kubelet, API server and scheduler, stand-ins of GPUs on the CPU.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use pitcrew_tests::agent::{Agent, Gpus, NODE, PodResources, gpu_pod, node_files};
use pitcrew_tests::mock::given;
use pitcrew_tests::{Namespace, kubectl, on_node, pitcrew, wait_for};
use serde_json::{Value, json};

const GPU: &str = "nvidia.com/gpu";

/// An agent whose GPUs are the scenario's own, not those of a library: what it starts proves the same.
fn agent(gpus: &Gpus) -> Agent {
    let (program, hook) = (pitcrew(), given("PITCREW_HOOK"));
    let words: [&OsStr; 8] = [
        "-u".as_ref(),
        "PITCREW_NVML".as_ref(),
        program.as_os_str(),
        "agent".as_ref(),
        "--hook".as_ref(),
        hook.as_os_str(),
        "--scenario".as_ref(),
        "h100x8".as_ref(),
    ];
    Agent::start_any(Path::new("/usr/bin/env"), gpus, &words)
}

fn gpu_node() -> Value {
    let answer = kubectl(&["get", "gpunode", NODE, "-o", "json"], "").stdout;
    serde_json::from_str(&answer).unwrap_or_default()
}

fn proven(object: &Value) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let mut found = conditions
        .into_iter()
        .flatten()
        .filter(|it| it["type"] == "Proven");
    found.next().cloned().unwrap_or_default()
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_request_proves_what_no_pod_holds_leaves_pods_alone_and_follows_when_they_are_gone() {
    let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    kubectl(&["apply", "-f", &crds.display().to_string()], "").ok();
    let gpus = Gpus::new("h100x8");
    let kubelet = PodResources::new();
    let agent = agent(&gpus);
    kubelet.wait(GPU, 8, agent.started, &agent);

    let namespace = Namespace::new("ring4-proof", &[]);
    let pod = gpu_pod("train", &json!({GPU: 2}), "sleep 600", &json!({}));
    wait_for("the pod to be admitted", || {
        namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
        let phase = namespace.kubectl(&["get", "pod", "train", "-o", "jsonpath={.status.phase}"], "");
        (phase.stdout == "Running").then_some(())
    });
    // The kubelet tells of each NUMA node by itself.
    let held: Vec<String> = wait_for("the kubelet to tell of it", || {
        let held = kubelet.held()?.into_iter();
        let ours = held.filter(|(pod, ..)| pod == "ring4-proof/train");
        let ids: Vec<String> = ours.flat_map(|(.., ids)| ids).collect();
        (!ids.is_empty()).then_some(ids)
    });
    assert_eq!(held.len(), 2);

    wait_for("the GpuNode", || {
        (proven(&gpu_node())["reason"] == "NotProven").then_some(())
    });
    let patch = json!({"spec": {"proof": {"request": "now", "profile": "smoke"}}}).to_string();
    kubectl(&["patch", "gpunode", NODE, "--type=merge", "-p", &patch], "").ok();
    let object = wait_for("six of eight GPUs to be proven", || {
        let object = gpu_node();
        let gpus = object["status"]["gpus"].as_array()?;
        let proven = gpus
            .iter()
            .filter(|gpu| gpu["proof"]["verdict"].is_string())
            .count();
        (proven == 6).then_some(object)
    });
    for gpu in object["status"]["gpus"].as_array().unwrap() {
        let is_held = held.iter().any(|id| gpu["uuid"] == **id);
        assert_eq!(gpu["proof"].is_null(), is_held, "{gpu}\n{}", agent.log());
        assert!(is_held || gpu["proof"]["verified"].as_i64() > Some(0), "{gpu}");
    }
    let waits = wait_for("the other two to wait", || {
        let condition = proven(&gpu_node());
        (condition["reason"] == "Waiting").then_some(condition)
    });
    assert!(
        waits["message"]
            .as_str()
            .unwrap()
            .contains("ring4-proof/train holds it"),
        "{waits}"
    );
    let pod = [
        "get",
        "pod",
        "train",
        "-o",
        "jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}",
    ];
    assert_eq!(namespace.kubectl(&pod, "").stdout, "Running 0");

    // By hand it is no different.
    let program = pitcrew().display().to_string();
    let by_hand = [
        "env",
        "-u",
        "PITCREW_NVML",
        &program,
        "prove",
        "--scenario",
        "h100x8",
        "--gpu",
        &held[0],
    ];
    let refused = on_node(&by_hand, "");
    assert_eq!(refused.code, Some(40), "{refused:#?}");
    assert!(
        refused.stdout.contains("the pod `ring4-proof/train` holds"),
        "{refused:#?}"
    );

    namespace
        .kubectl(&["delete", "pod", "train", "--wait=true"], "")
        .ok();
    let object = wait_for("all to be proven", || {
        let object = gpu_node();
        (proven(&object)["status"] == "True").then_some(object)
    });
    wait_for("the request to be answered", || {
        (gpu_node()["status"]["proofRequest"] == "now").then_some(())
    });
    assert_eq!(object["status"]["gpus"].as_array().unwrap().len(), 8);
    kubelet.wait(GPU, 8, std::time::Instant::now(), &agent);

    drop(namespace);
    agent.end("TERM");
    let uninstalled = on_node(&[&program, "agent", "uninstall"], "");
    assert_eq!(uninstalled.code, Some(0), "{uninstalled:#?}");
    assert_eq!(node_files("/var/lib/pitcrew"), Vec::<String>::new());
}
