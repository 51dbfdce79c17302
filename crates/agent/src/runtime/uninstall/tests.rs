use std::fs;

use super::*;
use crate::runtime::install::tests::Node;
use crate::runtime::install::{HOOK, WrapperSettings};

const SPEC: &str = "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json";
const SOCKET: &str = "/var/lib/kubelet/device-plugins/pitcrew-gpu.sock";
const LABELS: &str = "/etc/kubernetes/node-feature-discovery/features.d/gfd";
const HOME: &str = "/var/lib/rancher/rke2/agent/pitcrew";
const WRAPPER_PATH: &str = "/usr/local/nvidia/toolkit/nvidia-container-runtime";

fn installed() -> Node {
    let node = Node::rke2();
    node.bring_up("1.0.0", usize::MAX);
    fs::write(node.at(SOCKET), "").unwrap();
    node
}

fn planned(node: &Node, wrapper_too: bool) -> Result<Plan, Refused> {
    look_and_plan(
        node.dir.path(),
        &node.fs(),
        &node.host(),
        Sites {
            cdi_dir: Path::new(SPEC).parent().unwrap().to_owned(),
            sockets: vec![SOCKET.into()],
            label_files: vec![LABELS.into()],
            wrapper_too,
        },
    )
}

#[test]
fn exactly_what_was_written_is_taken_away() {
    let untouched = Node::rke2();
    let node = installed();
    let plan = planned(&node, false).unwrap();
    assert_eq!(plan.remarks, [""; 0]);
    node.executor().run(&plan.steps).unwrap();
    let names = |node: &Node| -> Vec<String> {
        let own = node.dir.path().display().to_string();
        node.everything()
            .into_iter()
            .map(|line| line.replace(&own, ""))
            .collect()
    };
    let mut left = names(&node);
    // The directory of specifications is everybody's.
    left.retain(|line| {
        line.trim() != "/run/cdi" && line.trim() != "/var/run/cdi" && line.trim() != "/var/run"
    });
    let mut before = names(&untouched);
    before.retain(|line| {
        line.trim() != "/run/cdi" && line.trim() != "/var/run/cdi" && line.trim() != "/var/run"
    });
    assert_eq!(left, before);
    // Once more does no harm.
    node.executor().run(&plan.steps).unwrap();
}

#[test]
fn the_plugin_goes_before_specifications_and_these_before_programs() {
    let plan = planned(&installed(), false).unwrap();
    let at = |path: &str| {
        plan.steps
            .iter()
            .position(|step| step.path() == Path::new(path))
            .unwrap()
    };
    let hook = format!("{HOME}/1.0.0/{HOOK}");
    assert!(at(SOCKET) < at(SPEC) && at(SPEC) < at(WRAPPER_PATH) && at(WRAPPER_PATH) < at(&hook));
}

#[test]
fn killed_between_any_two_steps_pods_start_and_the_next_run_completes() {
    for live in [false, true] {
        let prepare = || {
            let node = installed();
            if live {
                node.restart_supervisor();
            }
            node
        };
        let steps = planned(&prepare(), false).unwrap().steps.len();
        assert!(steps >= 5, "{steps}");
        for stop in 0..=steps {
            let node = prepare();
            let plan = planned(&node, false).unwrap();
            node.executor().run(&plan.steps[..stop]).unwrap();
            node.assert_pods_start(&format!("step {stop}, handler live: {live}"));
            let again = planned(&node, false).unwrap();
            node.executor().run(&again.steps).unwrap();
            node.assert_pods_start("at the end");
            assert!(!node.at(SPEC).exists() && !node.at(SOCKET).exists());
            assert_eq!(node.at(HOME).exists(), live, "step {stop}");
        }
    }
}

#[test]
fn a_wrapper_that_the_configuration_names_stays_as_a_pass_through() {
    let node = installed();
    node.restart_supervisor();
    let plan = planned(&node, false).unwrap();
    assert!(
        plan.remarks[0].contains("`runtimeClassName: nvidia, nvidia-cdi`"),
        "{:?}",
        plan.remarks
    );
    node.executor().run(&plan.steps).unwrap();
    assert!(node.runs(Path::new(WRAPPER_PATH)));
    let settings = fs::read_to_string(node.at(&format!("{HOME}/1.0.0/{WRAPPER_SETTINGS}"))).unwrap();
    let expected = WrapperSettings {
        pass_through: true,
        ..WrapperSettings::default()
    };
    assert_eq!(settings, expected.text());
    let settings: pitcrew_hook::wrapper::Settings = serde_json::from_str(&settings).unwrap();
    assert!(settings.pass_through);
    assert!(
        !node.at(&format!("{HOME}/1.0.0/{HOOK}")).exists(),
        "the hook is gone"
    );

    // Who insists, or has made the configuration forget it, is rid of it.
    let plan = planned(&node, true).unwrap();
    node.executor().run(&plan.steps).unwrap();
    assert!(!node.at(HOME).exists() && !node.at("/usr/local/nvidia").exists());
}

#[test]
fn a_default_runtime_is_never_taken_away() {
    let node = installed();
    let config =
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'nvidia'\n";
    fs::write(
        node.at("/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
        config,
    )
    .unwrap();
    let error = planned(&node, true).unwrap_err();
    assert!(matches!(error, Refused::DefaultRuntime { .. }));
    assert!(
        error.to_string().contains("`systemctl restart rke2-agent`"),
        "{error}"
    );

    // Nor one that will be from the next start on.
    let node = installed();
    let config = node.at("/etc/rancher/rke2/config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\ndefault-runtime: nvidia\n")).unwrap();
    assert!(matches!(
        planned(&node, true),
        Err(Refused::DefaultRuntime { .. })
    ));
}

#[test]
fn a_pod_that_runs_with_our_hook_forbids_it_and_one_of_our_wrapper_keeps_that() {
    let node = installed();
    let hook = format!("{HOME}/1.0.0/{HOOK}");
    node.start("train", Some(Path::new(&hook)), "/usr/bin/runc");
    let error = planned(&node, true).unwrap_err();
    assert_eq!(error, Refused::InUse(vec!["ml/train".to_owned()]));
    node.end("train");
    node.start("web", None, WRAPPER_PATH);
    let plan = planned(&node, true).unwrap();
    assert!(plan.remarks[0].contains("ml/web"), "{:?}", plan.remarks);
    node.executor().run(&plan.steps).unwrap();
    assert!(
        node.runs(Path::new(WRAPPER_PATH)),
        "without it the container can't be ended"
    );
    node.end("web");
    node.executor().run(&planned(&node, true).unwrap().steps).unwrap();
    assert!(!node.at(HOME).exists());
}

#[test]
fn what_others_made_stays() {
    let node = installed();
    let other = "{\"cdiVersion\":\"0.5.0\",\"kind\":\"x.y/z\",\"devices\":[{\"name\":\"a\",\"containerEdits\":{\"env\":[\"A=1\"]}}]}";
    fs::write(node.at("/etc/cdi/other.json"), other).unwrap();
    fs::write(node.at("/usr/local/nvidia/toolkit/theirs"), "x").unwrap();
    node.executor().run(&planned(&node, true).unwrap().steps).unwrap();
    assert!(node.at("/etc/cdi/other.json").exists());
    assert!(node.at("/usr/local/nvidia/toolkit/theirs").exists());
    assert!(!node.at(WRAPPER_PATH).exists());
}

#[test]
fn a_specification_of_somebody_else_that_names_our_hook_keeps_it() {
    let node = installed();
    let hook = format!("{HOME}/1.0.0/{HOOK}");
    let text = format!(
        "{{\"cdiVersion\":\"0.5.0\",\"kind\":\"x.y/z\",\"devices\":[{{\"name\":\"a\",\"containerEdits\":{{\"hooks\":[\
         {{\"hookName\":\"createContainer\",\"path\":\"{hook}\"}}]}}}}]}}"
    );
    fs::write(node.at("/etc/cdi/mine.json"), text).unwrap();
    let plan = planned(&node, true).unwrap();
    assert!(
        plan.remarks
            .iter()
            .any(|remark| remark.contains("`/etc/cdi/mine.json` is not of the agent")),
        "{:?}",
        plan.remarks
    );
    node.executor().run(&plan.steps).unwrap();
    assert!(node.runs(Path::new(&hook)));
}

#[test]
fn marker_files_and_labels_for_others_go_where_we_wrote_them_and_before_specifications() {
    let node = installed();
    let markers = node.at("/run/nvidia/validations");
    fs::create_dir_all(&markers).unwrap();
    let ours = "# written by pitcrew, removed when it is no longer true\n";
    fs::write(
        markers.join("driver-ready"),
        format!("{ours}IS_HOST_DRIVER=true\n"),
    )
    .unwrap();
    fs::write(markers.join("toolkit-ready"), ours).unwrap();
    fs::write(markers.join("plugin-ready"), "").unwrap();
    fs::create_dir_all(node.at(LABELS).parent().unwrap()).unwrap();
    fs::write(
        node.at(LABELS),
        "nvidia.com/gpu.count=1\npitcrew.dev/gpu.class=datacentre\n",
    )
    .unwrap();
    let plan = planned(&node, false).unwrap();
    let at = |path: &str| {
        plan.steps
            .iter()
            .position(|step| step.path() == Path::new(path))
            .unwrap()
    };
    assert!(at(SOCKET) < at("/run/nvidia/validations/driver-ready"));
    assert!(at(LABELS) < at(SPEC));
    node.executor().run(&plan.steps).unwrap();
    let left: Vec<_> = fs::read_dir(&markers)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["plugin-ready"], "which is somebody else's");
    assert!(!node.at(LABELS).exists());
    // GPU Feature Discovery's own.
    fs::write(node.at(LABELS), "nvidia.com/gpu.count=1\n").unwrap();
    let plan = planned(&node, false).unwrap();
    node.executor().run(&plan.steps).unwrap();
    assert!(node.at(LABELS).exists());
}

#[test]
fn what_describes_something_besides_gpus_goes_before_what_tells_that_it_is_ours() {
    const GDS: &str = "/var/run/cdi/k8s.device-plugin.nvidia.com-gds.json";
    let text = "{\"cdiVersion\":\"0.3.0\",\"kind\":\"k8s.device-plugin.nvidia.com/gds\",\"devices\":[{\"name\":\"all\",\
                \"containerEdits\":{\"deviceNodes\":[{\"path\":\"/dev/nvidia-fs0\"}]}}]}";
    let node = installed();
    fs::write(node.at(GDS), text).unwrap();
    let plan = planned(&node, false).unwrap();
    let at = |path: &str| plan.steps.iter().position(|step| step.path() == Path::new(path));
    assert!(at(GDS).unwrap() < at(SPEC).unwrap(), "{:?}", plan.steps);
    // NVIDIA's plugin writes the same file, and then that of the GPUs too.
    fs::remove_file(node.at(SPEC)).unwrap();
    let plan = planned(&node, false).unwrap();
    assert!(plan.steps.iter().all(|step| step.path() != Path::new(GDS)));
}
