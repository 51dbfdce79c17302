use super::*;
use crate::plugin::strategy::choose;
use crate::runtime::Tier;
use pitcrew_cdi::{ContainerEdits, Device as CdiDevice, DeviceNode, Spec};
use pitcrew_core::plugin::Device;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

const GPU: &str = "GPU-753c02c9-f67c-48fb-a717-0498fa23f6de";
const OTHER: &str = "GPU-11111111-2222-3333-4444-555555555555";

fn resource(sharing: Sharing, one_per_container: bool, replicas: usize) -> Resource {
    let devices = [GPU, OTHER].into_iter().zip(0..).flat_map(|(uuid, gpu_index)| {
        let id = move |replica| match sharing {
            Sharing::None => uuid.to_owned(),
            _ => format!("{uuid}::{replica}"),
        };
        (0..replicas).map(move |replica| Device {
            id: id(replica),
            uuid: uuid.to_owned(),
            gpu: uuid.to_owned(),
            gpu_index,
            numa: Some(0),
        })
    });
    Resource {
        name: "nvidia.com/gpu".to_owned(),
        sharing,
        one_per_container,
        devices: devices.collect(),
    }
}

fn nodes() -> Arc<Nodes> {
    let node = |path: &str| DeviceNode {
        path: path.to_owned(),
        ..DeviceNode::default()
    };
    let device = |name: &str, path: &str| CdiDevice {
        name: name.to_owned(),
        container_edits: ContainerEdits {
            device_nodes: vec![node(path)],
            ..ContainerEdits::default()
        },
        ..CdiDevice::default()
    };
    let spec = Spec {
        devices: vec![device(GPU, "/dev/nvidia0"), device(OTHER, "/dev/nvidia1")],
        container_edits: ContainerEdits {
            env: vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()],
            device_nodes: vec![node("/dev/nvidiactl")],
            ..ContainerEdits::default()
        },
        ..Spec::default()
    };
    Arc::new(Nodes::of(&spec, |_, _| true))
}

fn answers(strategies: &[Strategy]) -> Answers {
    Answers {
        strategies: strategies.to_vec(),
        nodes: nodes(),
        ..Answers::default()
    }
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

fn ask(answers: &Answers, resource: &Resource, asked: &[&str]) -> Result<Answer, Refusal> {
    answers.answer(resource, &BTreeMap::new(), &ids(asked))
}

fn whole(answers: &Answers) -> Answer {
    ask(answers, &resource(Sharing::None, false, 1), &[GPU]).unwrap()
}

fn env(answer: &Answer) -> Vec<(&str, &str)> {
    answer
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

#[test]
fn cdi_names_are_those_of_nvidias_plugin_and_nothing_else_is_in_the_answer() {
    let name = format!("k8s.device-plugin.nvidia.com/gpu={GPU}");
    let answer = whole(&answers(&[Strategy::CdiCri]));
    let expected = Answer {
        cdi_devices: vec![name.clone()],
        ..Answer::default()
    };
    assert_eq!(answer, expected);
    let answer = whole(&answers(&[Strategy::CdiAnnotations]));
    let key = "cdi.k8s.io/nvidia-device-plugin_753c02c9-f67c-48fb-a717-0498fa23f6de";
    let expected = Answer {
        annotations: BTreeMap::from([(key.to_owned(), name)]),
        ..Answer::default()
    };
    assert_eq!(answer, expected);
}

#[test]
fn the_prefix_of_annotations_can_be_another() {
    let mut answers = answers(&[Strategy::CdiAnnotations, Strategy::CdiCri]);
    answers.annotation_prefix = "example.org/".to_owned();
    let answer = whole(&answers);
    let key = answer.annotations.keys().next().unwrap();
    assert!(key.starts_with("example.org/nvidia-device-plugin_"), "{key}");
    assert_eq!(answer.cdi_devices.len(), 1);
}

#[test]
fn a_wrapper_is_asked_by_variable_or_by_mounts() {
    let answer = ask(
        &answers(&[Strategy::Envvar]),
        &resource(Sharing::None, false, 1),
        &[OTHER, GPU],
    )
    .unwrap();
    assert_eq!(
        env(&answer),
        [("NVIDIA_VISIBLE_DEVICES", format!("{OTHER},{GPU}").as_str())]
    );
    assert_eq!(answer.mounts, []);
    assert_eq!(answer.nodes, []);
    let answer = whole(&answers(&[Strategy::VolumeMounts]));
    assert_eq!(
        env(&answer),
        [("NVIDIA_VISIBLE_DEVICES", "/var/run/nvidia-container-devices")]
    );
    let mount = BindMount {
        container: format!("/var/run/nvidia-container-devices/{GPU}"),
        host: "/dev/null".to_owned(),
        read_only: false,
    };
    assert_eq!(answer.mounts, [mount]);
}

#[test]
fn indices_are_for_the_wrapper_alone() {
    let mut answers = answers(&[Strategy::CdiCri, Strategy::Envvar]);
    answers.indices = Some(BTreeMap::from([(GPU.to_owned(), "0".to_owned())]));
    let answer = whole(&answers);
    assert_eq!(env(&answer), [("NVIDIA_VISIBLE_DEVICES", "0")]);
    assert_eq!(
        answer.cdi_devices,
        [format!("k8s.device-plugin.nvidia.com/gpu={GPU}")]
    );
}

#[test]
fn device_nodes_come_with_pass_device_specs_and_not_with_cdi_alone() {
    let mut both = answers(&[Strategy::Envvar]);
    both.pass_device_specs = true;
    let inside =
        |answer: &Answer| -> Vec<String> { answer.nodes.iter().map(|node| node.container.clone()).collect() };
    assert_eq!(inside(&whole(&both)), ["/dev/nvidia0", "/dev/nvidiactl"]);
    both.strategies = vec![Strategy::CdiCri];
    assert_eq!(whole(&both).nodes, []);
    both.strategies = vec![Strategy::Envvar];
    both.nodes = Arc::default();
    let refused = ask(&both, &resource(Sharing::None, false, 1), &[GPU]);
    assert_eq!(refused, Err(Refusal::NoNodes { uuid: GPU.to_owned() }));
}

/// Pain 3 of the reference: without its runtime class NVML isn't found on K3s.
#[test]
fn pain_3_a_container_gets_nodes_and_libraries_where_the_runtime_knows_no_cdi_and_has_no_wrapper() {
    let choice = choose(Tier::Mounts, &[], Some((1, 29)));
    let answer = whole(&answers(&choice.strategies));
    let inside: Vec<&str> = answer.nodes.iter().map(|node| node.container.as_str()).collect();
    assert_eq!(inside, ["/dev/nvidia0", "/dev/nvidiactl"]);
    // A wrapper that is there all the same adds nothing.
    assert_eq!(env(&answer), [("NVIDIA_VISIBLE_DEVICES", "void")]);
    assert_eq!(answer.cdi_devices, [""; 0]);
}

#[test]
fn extras_are_named_as_nvidias_plugin_names_them() {
    let extras = Extras {
        imex_channels: vec![0],
        gds: true,
        mofed: true,
        gdrcopy: true,
    };
    let mut answers = answers(&[Strategy::Envvar, Strategy::VolumeMounts]);
    answers.extras = extras.clone();
    let answer = whole(&answers);
    assert_eq!(
        env(&answer),
        [
            ("NVIDIA_GDRCOPY", "enabled"),
            ("NVIDIA_GDS", "enabled"),
            ("NVIDIA_IMEX_CHANNELS", "0"),
            ("NVIDIA_MOFED", "enabled"),
            ("NVIDIA_VISIBLE_DEVICES", "/var/run/nvidia-container-devices"),
        ]
    );
    let last = answer.mounts.last().unwrap();
    assert_eq!(last.container, "/var/run/nvidia-container-devices/imex/0");
    answers.strategies = vec![Strategy::CdiCri];
    assert_eq!(whole(&answers).cdi_devices.len(), 1);
    answers.extra_devices = extras.names().collect();
    assert_eq!(
        whole(&answers).cdi_devices[1..],
        [
            "k8s.device-plugin.nvidia.com/imex-channel=0",
            "k8s.device-plugin.nvidia.com/gdrcopy=all",
            "k8s.device-plugin.nvidia.com/gds=all",
            "k8s.device-plugin.nvidia.com/mofed=all",
        ]
    );
}

#[test]
fn shared_devices_are_one_device_to_the_container_and_bring_what_mps_needs() {
    let shared = resource(Sharing::Mps, true, 4);
    let mut answers = answers(&[Strategy::CdiCri]);
    let refused = ask(&answers, &shared, &[&format!("{GPU}::0")]);
    assert!(matches!(refused, Err(Refusal::NoMps { .. })), "{refused:?}");
    let pipe = Shared {
        env: BTreeMap::from([(
            "CUDA_MPS_PIPE_DIRECTORY".to_owned(),
            "/mps/nvidia.com/gpu/pipe".to_owned(),
        )]),
        mounts: vec![BindMount {
            container: "/dev/shm".to_owned(),
            host: "/run/mps/shm".to_owned(),
            read_only: false,
        }],
    };
    answers.mps.insert("nvidia.com/gpu".to_owned(), pipe);
    let answer = ask(&answers, &shared, &[&format!("{GPU}::3")]).unwrap();
    assert_eq!(
        answer.cdi_devices,
        [format!("k8s.device-plugin.nvidia.com/gpu={GPU}")]
    );
    assert_eq!(
        env(&answer),
        [("CUDA_MPS_PIPE_DIRECTORY", "/mps/nvidia.com/gpu/pipe")]
    );
    assert_eq!(answer.mounts.len(), 1);
    let several = resource(Sharing::TimeSlicing, false, 4);
    let asked = [format!("{GPU}::3"), format!("{OTHER}::0"), format!("{GPU}::1")];
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    assert_eq!(ask(&answers, &several, &asked).unwrap().cdi_devices.len(), 2);
}

/// Pain 6 of the reference: what a request for more than one share means.
#[test]
fn pain_6_more_than_one_share_is_refused_in_the_references_words_where_it_is_forbidden() {
    let answers = answers(&[Strategy::CdiCri]);
    let asked = [format!("{GPU}::0"), format!("{OTHER}::0")];
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let refused = ask(&answers, &resource(Sharing::TimeSlicing, true, 2), &asked).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "invalid allocation request for \"nvidia.com/gpu\": invalid request: maximum request size for shared \
         resources is 1; found 2"
    );
    assert!(ask(&answers, &resource(Sharing::TimeSlicing, false, 2), &asked).is_ok());
    assert!(ask(&answers, &resource(Sharing::None, true, 1), &[GPU, OTHER]).is_ok());
}

#[test]
fn what_is_unknown_or_unhealthy_is_refused() {
    let answers = answers(&[Strategy::CdiCri]);
    let whole = resource(Sharing::None, false, 1);
    let refused = ask(&answers, &whole, &["GPU-9"]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "invalid allocation request for \"nvidia.com/gpu\": unknown device: GPU-9"
    );
    let unhealthy = BTreeMap::from([(GPU.to_owned(), "XID 79".to_owned())]);
    let refused = answers.answer(&whole, &unhealthy, &ids(&[GPU])).unwrap_err();
    assert!(refused.to_string().contains("XID 79"), "{refused}");
    assert!(answers.answer(&whole, &unhealthy, &ids(&[OTHER])).is_ok());
    let none = Answers::default();
    assert_eq!(ask(&none, &whole, &[GPU]), Err(Refusal::NoStrategy));
}

#[test]
fn a_mig_devices_old_name_is_no_trouble_for_an_annotation() {
    assert_eq!(
        in_annotation("MIG-GPU-753c02c9-f67c-48fb-a717-0498fa23f6de/1/0"),
        "753c02c9-f67c-48fb-a717-0498fa23f6de"
    );
    assert_eq!(in_annotation("MIG-1"), "1");
    assert_eq!(in_annotation("0:1"), "0-1");
}

proptest! {
    /// What the kubelet was told must be true after the agent was upgraded and the sharing was switched: the same
    /// device has the same name in every sharing mode, whatever else there is on the node.
    #[test]
    fn an_answer_depends_on_the_device_alone(replica in 0_usize..4, order in any::<bool>()) {
        let answers = answers(&[Strategy::CdiCri, Strategy::CdiAnnotations]);
        let mut shared = resource(Sharing::TimeSlicing, true, 4);
        if order {
            shared.devices.reverse();
        }
        let of_replica = ask(&answers, &shared, &[&format!("{GPU}::{replica}")]).unwrap();
        prop_assert_eq!(of_replica, whole(&answers));
    }

    #[test]
    fn names_of_annotations_are_valid(uuid in ".{0,80}") {
        let name = in_annotation(&uuid);
        prop_assert!(name.len() + ANNOTATION.len() <= 63);
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        prop_assert!(name.chars().all(is_allowed));
    }
}

#[test]
fn several_devices_come_with_the_nodes_of_each_and_with_everything_else_once() {
    let answers = answers(&[Strategy::Mounts]);
    let answer = ask(&answers, &resource(Sharing::None, false, 1), &[GPU, OTHER]).unwrap();
    let mut inside: Vec<&str> = answer.nodes.iter().map(|node| node.container.as_str()).collect();
    inside.sort_unstable();
    assert_eq!(inside, ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"]);
}
