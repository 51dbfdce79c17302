//! The agent on a real node: real kubelet, containerd, runc and scheduler, imaginary GPUs.
#![expect(clippy::print_stdout, reason = "figures and seeds, with --nocapture")]

use std::time::{Duration, Instant};

use pitcrew_tests::agent::{Agent, Gpus, NODE, PodResources, gpu_pod, node_files};
use pitcrew_tests::{Namespace, kubectl, on_node, wait_for};
use serde_json::json;

/// Names the device nodes that the container sees, then loads what the driver injected.
const LOOK: &str =
    "ls -d /dev/nvidia* /dev/nvidia-caps/* 2>/dev/null; probe load libcuda.so.1 libnvidia-ml.so.1";

const CONTROL: [&str; 4] = [
    "/dev/nvidia-modeset",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidiactl",
];

/// The device nodes in a log of [`LOOK`], but for the control nodes, which must all be there.
#[track_caller]
fn gpu_nodes(log: &str) -> Vec<String> {
    for node in CONTROL {
        assert!(log.lines().any(|line| line == node), "{node} is missing:\n{log}");
    }
    log.lines()
        .filter(|line| line.starts_with("/dev/") && !CONTROL.contains(line) && *line != "/dev/nvidia-caps")
        .map(str::to_owned)
        .collect()
}

/// Waits until the scheduler may use so many of a resource.
fn wait_for_node(resource: &str, count: usize) {
    let path = format!(
        "jsonpath={{.status.allocatable.{}}}",
        resource.replace('.', "\\.")
    );
    wait_for(&format!("{count} of {resource} on the node"), || {
        let found = kubectl(&["get", "node", NODE, "-o", &path], "").ok();
        (found == count.to_string()).then_some(())
    });
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn pods_see_exactly_the_gpus_that_they_asked_for_and_nothing_is_left_afterwards() {
    let gpus = Gpus::new("h100x8");
    let kubelet = PodResources::new();
    let agent = Agent::start(&gpus, &[]);
    let took = kubelet.wait("nvidia.com/gpu", 8, agent.started, &agent);
    println!(
        "8 GPUs known to the kubelet {} ms after the agent's start",
        took.as_millis()
    );
    wait_for_node("nvidia.com/gpu", 8);

    let namespace = Namespace::new("ring4-agent-gpus", &[]);
    for count in [1, 2, 8] {
        let name = format!("takes-{count}");
        let pod = gpu_pod(&name, &json!({"nvidia.com/gpu": count}), LOOK, &json!({}));
        namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
        let (phase, log) = namespace.ended(&name);
        assert_eq!(phase, "Succeeded", "{log}\n{}", agent.log());
        let nodes = gpu_nodes(&log);
        assert_eq!(nodes.len(), count, "{log}");
        assert!(
            nodes
                .iter()
                .all(|node| node.trim_start_matches("/dev/nvidia").parse::<u32>().is_ok()),
            "{nodes:?}"
        );
        assert!(
            log.contains("libcuda.so.1: loaded") && log.contains("libnvidia-ml.so.1: loaded"),
            "{log}"
        );
        namespace
            .kubectl(&["delete", "pod", &name, "--wait=true"], "")
            .ok();
    }
    wait_for("the devices to be free again", || {
        let held = kubelet.held()?;
        held.iter()
            .all(|(pod, ..)| !pod.starts_with("ring4-agent-gpus/"))
            .then_some(())
    });

    // A pod that names a GPU by environment, without asking for the resource, has none.
    let env = json!({"containers": [{"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}]});
    let script = "ls -d /dev/nvidia*; ls /usr/lib/x86_64-linux-gnu | grep -c nvidia; true";
    let pod = gpu_pod("names-all", &json!({}), script, &env);
    namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
    let (phase, log) = namespace.ended("names-all");
    assert_eq!(phase, "Succeeded", "{log}");
    assert!(!log.contains("/dev/nvidia0") && log.contains("\n0\n"), "{log}");
    drop(namespace);

    agent.end("TERM");
    let uninstalled = on_node(
        &[
            &pitcrew_tests::pitcrew().display().to_string(),
            "agent",
            "uninstall",
        ],
        "",
    );
    assert_eq!(uninstalled.code, Some(0), "{uninstalled:#?}");
    for dir in [
        "/var/run/cdi",
        "/var/lib/rancher/rke2/agent/pitcrew",
        "/usr/local/nvidia",
    ] {
        assert_eq!(node_files(dir), Vec::<String>::new(), "{dir}");
    }
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_restricted_pod_has_its_gpu() {
    let gpus = Gpus::new("rtx3060");
    let kubelet = PodResources::new();
    let agent = Agent::start(&gpus, &[]);
    kubelet.wait("nvidia.com/gpu", 1, agent.started, &agent);
    wait_for_node("nvidia.com/gpu", 1);
    let namespace = Namespace::new(
        "ring4-agent-restricted",
        &["pod-security.kubernetes.io/enforce=restricted"],
    );
    let security = json!({
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        }}],
    });
    let script =
        format!("id -u; touch /x 2>&1; test -r /dev/nvidia0 -a -w /dev/nvidia0 && echo usable; {LOOK}");
    let pod = gpu_pod("restricted", &json!({"nvidia.com/gpu": 1}), &script, &security);
    namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
    let (phase, log) = namespace.ended("restricted");
    assert_eq!(phase, "Succeeded", "{log}");
    assert_eq!(gpu_nodes(&log), ["/dev/nvidia0"]);
    assert!(
        log.starts_with("65532\n") && log.contains("Read-only file system"),
        "{log}"
    );
    assert!(
        log.contains("usable") && log.contains("libcuda.so.1: loaded"),
        "{log}"
    );
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_mig_slice_has_its_own_capability_nodes_and_no_others() {
    let gpus = Gpus::new("mixed");
    let kubelet = PodResources::new();
    let agent = Agent::start(&gpus, &["--mig-strategy", "mixed"]);
    kubelet.wait("nvidia.com/mig-1g.5gb", 2, agent.started, &agent);
    kubelet.wait("nvidia.com/gpu", 3, agent.started, &agent);
    wait_for_node("nvidia.com/mig-1g.5gb", 2);
    let namespace = Namespace::new("ring4-agent-mig", &[]);
    let pod = gpu_pod("slice", &json!({"nvidia.com/mig-1g.5gb": 1}), LOOK, &json!({}));
    namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
    let (phase, log) = namespace.ended("slice");
    assert_eq!(phase, "Succeeded", "{log}");
    let nodes = gpu_nodes(&log);
    assert_eq!(nodes.len(), 3, "{log}");
    assert!(nodes.contains(&"/dev/nvidia0".to_owned()), "{nodes:?}");
    assert_eq!(
        nodes
            .iter()
            .filter(|node| node.starts_with("/dev/nvidia-caps/nvidia-cap"))
            .count(),
        2,
        "{nodes:?}"
    );
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn sharing_is_switched_while_a_pod_runs_and_its_gpu_is_not_given_twice() {
    let gpus = Gpus::new("rtx3060");
    let kubelet = PodResources::new();
    let config = "/etc/pitcrew-sharing.yaml";
    let write = |text: &str| {
        on_node(
            &[
                "sh",
                "-c",
                &format!("cat > {config}.new && mv {config}.new {config}"),
            ],
            text,
        )
        .ok();
    };
    write("version: v1\n");
    let agent = Agent::start(&gpus, &["--config", config]);
    kubelet.wait("nvidia.com/gpu", 1, agent.started, &agent);
    wait_for_node("nvidia.com/gpu", 1);
    let namespace = Namespace::new("ring4-agent-sharing", &[]);
    let held = gpu_pod(
        "whole",
        &json!({"nvidia.com/gpu": 1}),
        "while ! test -e /tmp/stop; do sleep 0.2; done; exit 1",
        &json!({"restartPolicy": "Always"}),
    );
    namespace.kubectl(&["apply", "-f", "-"], &held).ok();
    namespace
        .kubectl(
            &["wait", "--for=condition=Ready", "pod/whole", "--timeout=60s"],
            "",
        )
        .ok();

    // The whole GPU is held, so that none of its slices may be given.
    write(
        "version: v1\nsharing:\n  timeSlicing:\n    renameByDefault: true\n    resources:\n    - {name: nvidia.com/gpu, replicas: 4}\n",
    );
    wait_for("the agent to have read the new configuration", || {
        (on_node(&["ls", "/var/lib/kubelet/device-plugins"], "")
            .ok()
            .contains("shared"))
        .then_some(())
    });
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        assert_eq!(kubelet.allocatable("nvidia.com/gpu.shared"), Vec::<String>::new());
        std::thread::sleep(Duration::from_millis(100));
    }

    // Its container is started anew, by an agent that was replaced meanwhile.
    agent.end("KILL");
    let agent = Agent::start(&gpus, &["--config", config]);
    namespace
        .kubectl(&["exec", "whole", "--", "touch", "/tmp/stop"], "")
        .ok();
    wait_for("the container to be started anew", || {
        let path =
            "jsonpath={.status.containerStatuses[0].restartCount}/{.status.containerStatuses[0].ready}";
        let status = namespace.kubectl(&["get", "pod", "whole", "-o", path], "").ok();
        status
            .ends_with("true")
            .then_some(())
            .filter(|()| !status.starts_with("0/"))
    });
    let inside = namespace
        .kubectl(&["exec", "whole", "--", "sh", "-c", LOOK], "")
        .ok();
    assert_eq!(gpu_nodes(&inside), ["/dev/nvidia0"]);

    namespace
        .kubectl(&["delete", "pod", "whole", "--wait=true"], "")
        .ok();
    kubelet.wait("nvidia.com/gpu.shared", 4, Instant::now(), &agent);
    wait_for_node("nvidia.com/gpu.shared", 4);
    let pod = gpu_pod("slice", &json!({"nvidia.com/gpu.shared": 1}), LOOK, &json!({}));
    namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
    let (phase, log) = namespace.ended("slice");
    assert_eq!(phase, "Succeeded", "{log}");
    assert_eq!(gpu_nodes(&log), ["/dev/nvidia0"]);
}

/// 12 s: a call is held to hang after 10 s.
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn a_gpu_at_which_a_call_of_the_driver_hangs_is_held_back_alone_until_the_call_returns() {
    let gpus = Gpus::new("h100x8");
    let kubelet = PodResources::new();
    let agent = Agent::start(&gpus, &[]);
    let all = kubelet.wait("nvidia.com/gpu", 8, agent.started, &agent);
    println!("8 GPUs known to the kubelet after {} ms", all.as_millis());
    wait_for_node("nvidia.com/gpu", 8);
    let hang = json!({"hang": {"call": "nvmlDeviceGetPowerUsage", "gpu": 3}});
    gpus.change(&hang);
    // What a program did wrong has the GPUs looked at, and says nothing against any.
    gpus.change(&json!({"xid": {"gpu": 0, "xid": 13}}));
    let begun = Instant::now();
    let told = "the GPU does not answer: `nvmlDeviceGetPowerUsage` did not return within 10 s";
    wait_for("the agent to tell of it", || {
        agent.log().contains(told).then_some(())
    });
    println!(
        "told {:.1} s after the call began to hang",
        begun.elapsed().as_secs_f32()
    );
    wait_for_node("nvidia.com/gpu", 7);
    let namespace = Namespace::new("ring4-agent-silent", &[]);
    let pod = gpu_pod("takes-7", &json!({"nvidia.com/gpu": 7}), LOOK, &json!({}));
    namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
    let (phase, log) = namespace.ended("takes-7");
    assert_eq!(phase, "Succeeded", "{log}\n{}", agent.log());
    let nodes = gpu_nodes(&log);
    assert_eq!(nodes.len(), 7, "{log}");
    assert!(!nodes.contains(&"/dev/nvidia3".to_owned()), "{log}");
    let released = Instant::now();
    gpus.change(&json!("release"));
    wait_for_node("nvidia.com/gpu", 8);
    println!(
        "allocatable again {:.1} s after the call returned",
        released.elapsed().as_secs_f32()
    );
    assert!(agent.log().contains("is well again"), "{}", agent.log());
    drop(namespace);
    agent.end("TERM");
}
