//! The image, as `cargo xtask image` makes it, and the manifests as anybody applies them: from a node that knows nothing of
//! GPUs to a pod that has one, and back.
#![allow(clippy::unwrap_used, reason = "tests, and what they share")]

#[allow(dead_code, reason = "shared with the tests of the manifests")]
#[path = "ring4_deploy/cluster.rs"]
mod cluster;
#[path = "ring4_image/proof.rs"]
mod proof;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use cluster::{Deployed, NODE, agent_patch, deploy, node_field, restarts, scout_patch};
use pitcrew_tests::agent::{Gpus, gpu_pod, node_files};
use pitcrew_tests::mock::given;
use pitcrew_tests::{Namespace, kubectl, on_node, run, wait_for, xtask};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Makes the image's archive of this `pitcrew`, and gives its path.
fn make_image(dir: &Path, name: &str, pitcrew: &Path) -> PathBuf {
    let out = dir.join(format!("{name}.tar"));
    let mut image = Command::new(xtask());
    image
        .args(["image", "--plain", "--name", "pitcrew:ring4", "--out"])
        .arg(&out);
    image.arg("--pitcrew").arg(pitcrew);
    image.arg("--hook").arg(given("PITCREW_HOOK"));
    image.arg("--scout").arg(given("PITCREW_SCOUT"));
    run(image, "").ok();
    out
}

/// The image of this `pitcrew` on the node, imported as anybody does: once for all tests, as it is big.
fn import() {
    static IMPORTED: LazyLock<()> = LazyLock::new(|| {
        let dir = TempDir::new().unwrap();
        let archive = make_image(dir.path(), "image", &given("PITCREW_BIN"));
        let archive = archive.display().to_string();
        on_node(&["ctr", "images", "import", "--local", &archive], "").ok();
        let names = on_node(&["ctr", "images", "list", "-q"], "").ok();
        assert!(
            names
                .lines()
                .any(|name| name == "docker.io/library/pitcrew:ring4"),
            "{names}"
        );
    });
    LazyLock::force(&IMPORTED);
}

/// A kustomization of one's own over those of `deploy/`: another tag, and what makes imaginary GPUs seen.
fn overlay(dir: &Path, base: &str, patches: &Value) -> String {
    std::fs::create_dir_all(dir).unwrap();
    let from = dir.canonicalize().unwrap();
    let up = "../".repeat(from.components().count() - 1);
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [format!("{up}{}", base.trim_start_matches('/'))],
        "images": [{"name": "pitcrew", "newTag": "ring4"}],
        "patches": patches,
    });
    std::fs::write(dir.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    from.display().to_string()
}

/// What shows imaginary GPUs to scout and agent.
fn imaginary() -> Value {
    let of = |name: &str, patch: Value| json!({"target": {"kind": "DaemonSet", "name": name}, "patch": patch.to_string()});
    json!([
        of("pitcrew-scout", scout_patch()),
        of("pitcrew-agent", agent_patch())
    ])
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_same_programs_make_the_same_image_and_the_list_of_its_parts_names_them() {
    let dir = TempDir::new().unwrap();
    // Any program will do, and this one is small.
    let program = given("PITCREW_HOOK");
    let make = |name: &str| make_image(dir.path(), name, &program);
    let (one, other) = (make("one"), make("other"));
    let same = Command::new("cmp").arg(&one).arg(&other).status().unwrap();
    assert!(same.success(), "two archives of the same programs differ");
    let parts: Value =
        serde_json::from_slice(&std::fs::read(one.with_extension("cdx.json")).unwrap()).unwrap();
    assert_eq!(
        (&parts["bomFormat"], &parts["specVersion"]),
        (&json!("CycloneDX"), &json!("1.6"))
    );
    let components = parts["components"].as_array().unwrap();
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    for name in [
        "pitcrew-agent",
        "pitcrew-hook",
        "pitcrew-scout",
        "kube",
        "libc6",
        "libgcc-s1",
    ] {
        assert!(named(name).is_some(), "{name} is not in the list");
    }
    // Imaginary GPUs are in no image, and a test's tools aren't either.
    for name in ["pitcrew-scenario", "pitcrew-sim", "insta"] {
        assert!(named(name).is_none(), "{name} is in the list");
    }
    assert!(
        named("kube").unwrap()["hashes"][0]["content"]
            .as_str()
            .unwrap()
            .len()
            == 64
    );
    let without_licence = |component: &&Value| {
        component["licenses"][0]["expression"]
            .as_str()
            .is_none_or(str::is_empty)
    };
    let without: Vec<&Value> = components.iter().filter(without_licence).collect();
    assert!(without.is_empty(), "{without:#?}");
}

/// Takes the labels off the node that agents of other tests put there.
fn take_labels_off() {
    let labels: BTreeMap<String, String> =
        serde_json::from_str(&node_field(".metadata.labels")).unwrap_or_default();
    let is_of_an_agent = |key: &&String| {
        ["nvidia.com/", "pitcrew.dev/", "feature.node.kubernetes.io/"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
    };
    let off: Vec<String> = labels
        .keys()
        .filter(is_of_an_agent)
        .map(|key| format!("{key}-"))
        .collect();
    if !off.is_empty() {
        let words: Vec<&str> = ["label", "node", NODE]
            .into_iter()
            .chain(off.iter().map(String::as_str))
            .collect();
        kubectl(&words, "").ok();
    }
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn the_manifests_bring_a_pod_its_gpu_and_take_everything_away_again() {
    let dir = TempDir::new().unwrap();
    import();
    let written = [
        "/var/run/cdi",
        "/var/lib/rancher/rke2/agent/pitcrew",
        "/usr/local/nvidia",
        "/opt/pitcrew",
    ];
    let sockets = || {
        let names = on_node(&["ls", "/var/lib/kubelet/device-plugins"], "").ok();
        names.lines().filter(|name| name.contains("pitcrew")).count()
    };
    // Agents of other tests leave what they wrote, as they must where pods may hold a GPU.
    let clean = format!("rm -rf {}", written.map(|dir| format!("{dir}/*")).join(" "));
    on_node(&["sh", "-c", &clean], "").ok();
    take_labels_off();
    let gpus = Gpus::new("rtx3060");
    let before: Vec<Vec<String>> = written.iter().map(|dir| node_files(dir)).collect();
    let labels_before = node_field(".metadata.labels");
    let _deployed = Deployed::new();
    let applied = overlay(&dir.path().join("overlay"), &deploy(), &imaginary());
    let applied = kubectl(&["apply", "-k", &applied], "");
    assert_eq!(
        (applied.code, applied.stderr.as_str()),
        (Some(0), ""),
        "{applied:#?}"
    );

    // The scout finds the GPU, its label brings the agent, which makes the node ready.
    wait_for("the scout's label", || {
        (node_field(r".metadata.labels.nvidia\.com/gpu\.present") == "true").then_some(())
    });
    for part in ["scout", "agent"] {
        let name = format!("daemonset/pitcrew-{part}");
        kubectl(
            &["rollout", "status", &name, "-n", "pitcrew", "--timeout=90s"],
            "",
        )
        .ok();
    }
    let ready = [
        "wait",
        "--for=condition=Ready",
        "gpunode/127.0.0.1",
        "--timeout=60s",
    ];
    let ready = kubectl(&ready, "");
    let log = kubectl(&["logs", "-n", "pitcrew", "daemonset/pitcrew-agent"], "").stdout;
    assert_eq!(ready.code, Some(0), "{ready:#?}\n{log}");
    wait_for("the GPU on the node", || {
        let labels = node_field(r".metadata.labels.nvidia\.com/gpu\.count");
        let allocatable = node_field(r".status.allocatable.nvidia\.com/gpu");
        ((labels.as_str(), allocatable.as_str()) == ("1", "1")).then_some(())
    });
    assert_eq!((restarts("scout"), restarts("agent")), (0, 0), "{log}");

    let namespace = Namespace::new("ring4-image", &[]);
    let look = "test -c /dev/nvidia0 && echo has it; probe load libcuda.so.1";
    let pod = gpu_pod(
        "takes-1",
        &json!({"nvidia.com/gpu": 1}),
        &format!("{look}; sleep 600"),
        &json!({}),
    );
    namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
    wait_for("the pod to have its GPU", || {
        let log = namespace.kubectl(&["logs", "takes-1"], "").stdout;
        (log.contains("has it") && log.contains("libcuda.so.1: loaded")).then_some(())
    });

    // As docs/install.md says. A pod that holds a GPU is not robbed of it.
    kubectl(
        &[
            "delete",
            "daemonset",
            "pitcrew-agent",
            "-n",
            "pitcrew",
            "--cascade=foreground",
        ],
        "",
    )
    .ok();
    let uninstall = overlay(
        &dir.path().join("uninstall"),
        &format!("{}/uninstall", deploy()),
        &json!([]),
    );
    kubectl(&["apply", "-k", &uninstall], "").ok();
    wait_for("it to say who holds a GPU", || {
        let log = kubectl(
            &[
                "logs",
                "-n",
                "pitcrew",
                "daemonset/pitcrew-uninstall",
                "-c",
                "uninstall",
            ],
            "",
        );
        log.stdout.contains("ring4-image/takes-1").then_some(())
    });
    assert_ne!(
        node_files("/var/run/cdi"),
        before[0],
        "the pod's specification is still there"
    );
    namespace
        .kubectl(&["delete", "pod", "takes-1", "--wait=true"], "")
        .ok();
    // Instead of waiting until the kubelet tries again, which takes longer each time.
    let pods = [
        "delete",
        "pods",
        "-n",
        "pitcrew",
        "-l",
        "app.kubernetes.io/component=uninstall",
    ];
    kubectl(&pods, "").ok();
    let done = [
        "rollout",
        "status",
        "daemonset/pitcrew-uninstall",
        "-n",
        "pitcrew",
        "--timeout=60s",
    ];
    kubectl(&done, "").ok();
    for (dir, before) in written.iter().zip(&before) {
        assert_eq!(&node_files(dir), before, "{dir}");
    }
    assert_eq!(sockets(), 0, "a socket is left in the kubelet's directory");
    let log = [
        "logs",
        "-n",
        "pitcrew",
        "daemonset/pitcrew-uninstall",
        "-c",
        "done",
    ];
    let log = kubectl(&log, "").ok();
    assert!(!log.contains("left: "), "{log}");
    assert_eq!(kubectl(&["get", "gpunodes", "-o", "name"], "").ok(), "", "{log}");
    kubectl(&["delete", "-k", &uninstall, "--wait=true"], "").ok();
    kubectl(
        &[
            "delete",
            "-k",
            &deploy(),
            "--ignore-not-found",
            "--wait=true",
            "--timeout=60s",
        ],
        "",
    )
    .ok();
    wait_for("the node to have no GPU any more", || {
        matches!(
            node_field(r".status.allocatable.nvidia\.com/gpu").as_str(),
            "" | "0"
        )
        .then_some(())
    });
    // The scout's two stay until they are taken off: it doesn't know that it was the last.
    for label in [
        "nvidia.com/gpu.present-",
        "feature.node.kubernetes.io/pci-10de.present-",
    ] {
        kubectl(&["label", "node", NODE, label], "").ok();
    }
    assert_eq!(node_field(".metadata.labels"), labels_before);
    let conditions = node_field(".status.conditions[*].type");
    assert!(!conditions.contains("GpuHealthy"), "{conditions}");
    drop(gpus);
}
