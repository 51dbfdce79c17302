//! What a container really gets.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_kubelet::device_plugin::{CdiDevice, ContainerAllocateResponse, DeviceSpec};
use pitcrew_scenario::Scenario;
use pitcrew_sim::{Given, Node};

const SPEC: &str = r#"{
  "cdiVersion": "0.5.0", "kind": "k8s.device-plugin.nvidia.com/gpu",
  "devices": [
    {"name": "GPU-a", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
    {"name": "GPU-b", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia7"}]}}
  ],
  "containerEdits": {"deviceNodes": [{"path": "/dev/nvidiactl"}]}
}"#;

fn names(of: &[&str]) -> Vec<CdiDevice> {
    let device = |name: &&str| CdiDevice {
        name: format!("k8s.device-plugin.nvidia.com/gpu={name}"),
    };
    of.iter().map(device).collect()
}

fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|&one| one.to_owned()).collect()
}

#[tokio::test]
async fn names_are_looked_up_as_a_container_runtime_does_and_what_is_missing_is_said() {
    let scenario = Scenario::builtin("rtx3060").unwrap();
    let node = Node::builder(scenario).start().await.unwrap();
    std::fs::write(node.root().join("run/cdi/plugin.json"), SPEC).unwrap();
    let look = |answer| Given::look_up(node.files(), vec!["GPU-a".to_owned()], &[answer]);

    let given = look(ContainerAllocateResponse {
        cdi_devices: names(&["GPU-a"]),
        ..Default::default()
    });
    assert_eq!(given.nodes, set(&["/dev/nvidia0", "/dev/nvidiactl"]));
    assert_eq!(given.own_nodes().collect::<Vec<_>>(), ["/dev/nvidia0"]);
    assert!(
        given.missing.is_empty() && given.unresolved.is_empty(),
        "{given:?}"
    );

    // By annotation, of a GPU whose node isn't there, and of one that no specification has.
    let text = "k8s.device-plugin.nvidia.com/gpu=GPU-b,k8s.device-plugin.nvidia.com/gpu=GPU-c";
    let given = look(ContainerAllocateResponse {
        annotations: BTreeMap::from([("cdi.k8s.io/x".to_owned(), text.to_owned())]),
        ..Default::default()
    });
    assert_eq!(given.unresolved, ["k8s.device-plugin.nvidia.com/gpu=GPU-c"]);
    assert_eq!(given.missing, ["/dev/nvidia7 is no device node"]);

    // Device nodes in the answer itself.
    let given = look(ContainerAllocateResponse {
        devices: vec![DeviceSpec {
            container_path: "/dev/nvidia0".to_owned(),
            host_path: "/dev/nvidia0".to_owned(),
            permissions: "rw".to_owned(),
        }],
        ..Default::default()
    });
    assert_eq!((given.nodes, given.missing), (set(&["/dev/nvidia0"]), Vec::new()));
}

#[tokio::test]
async fn the_nodes_that_a_mig_device_must_see_are_the_drivers_own() {
    let scenario = Scenario::builtin("mixed").unwrap();
    let node = Node::builder(scenario).start().await.unwrap();
    let gpu = node.machine().gpu(0).unwrap();
    let device = gpu.readings.mig_devices.value().unwrap()[0].uuid.clone();
    // GPU instance 0 of GPU 0: numbers 3 and 4 in the recorded list of minors.
    let expected = [
        "/dev/nvidia-caps/nvidia-cap3",
        "/dev/nvidia-caps/nvidia-cap4",
        "/dev/nvidia0",
    ];
    assert_eq!(node.nodes_of(&[device]), expected);
    let whole = node.machine().gpu(2).unwrap().uuid;
    assert_eq!(node.nodes_of(&[format!("{whole}::3")]), ["/dev/nvidia2"]);
}
