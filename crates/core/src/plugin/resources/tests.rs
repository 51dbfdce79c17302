//! What nodes offer.

use proptest::prelude::*;

use super::*;
use crate::gpu::GpuReadings;
use crate::plugin::testing::{config, cut, gpu, lost, node, planned, shown};

fn refused(inventory: &Inventory, text: &str) -> String {
    plan(inventory, &config(text), &BTreeMap::new())
        .unwrap_err()
        .to_string()
}

fn left_out(plan: &Plan) -> String {
    let lines: Vec<String> = plan.left_out.iter().map(LeftOut::to_string).collect();
    lines.join("\n")
}

fn remarks(plan: &Plan) -> String {
    let lines: Vec<String> = plan.remarks.iter().map(Remark::to_string).collect();
    lines.join("\n")
}

const MIXED: &str = "flags: {migStrategy: mixed}\n";
const SINGLE: &str = "flags: {migStrategy: single}\n";

#[test]
fn every_gpu_is_one_device_of_nvidia_com_gpu() {
    let numa = BTreeMap::from([("GPU-1".to_owned(), 1)]);
    let plan = plan(&node(vec![gpu(0), gpu(1)]), &Config::default(), &numa).unwrap();
    assert_eq!(shown(&plan), "nvidia.com/gpu: GPU-0 GPU-1\n");
    let device = &plan.resource("nvidia.com/gpu").unwrap().devices[1];
    assert_eq!(
        *device,
        Device {
            id: "GPU-1".to_owned(),
            uuid: "GPU-1".to_owned(),
            gpu: "GPU-1".to_owned(),
            gpu_index: 1,
            numa: Some(1),
        }
    );
    assert_eq!(plan.resources[0].devices[0].numa, None);
    assert_eq!((plan.left_out.len(), plan.remarks.len()), (0, 0));
}

#[test]
fn a_node_without_gpus_offers_nothing() {
    assert_eq!(planned(&node(Vec::new()), ""), Plan::default());
}

/// Pain #2 of the fact sheet `devices`, section 7 (#2038): one lost GPU breaks allocation for all.
#[test]
fn a_gpu_that_is_lost_or_bound_to_another_driver_is_left_out_and_the_others_are_offered() {
    let mut passed = gpu(2);
    passed.readings = GpuReadings::all_failed("bound to vfio-pci, for a virtual machine");
    let mut mute = gpu(3);
    mute.readings.uuid = Reading::NotSupported;
    let mut empty = gpu(4);
    empty.readings.uuid = Reading::Value(String::new());
    let inventory = node(vec![gpu(0), lost(1), passed, mute, empty]);
    for strategy in ["", MIXED, SINGLE] {
        let plan = planned(&inventory, strategy);
        assert_eq!(shown(&plan), "nvidia.com/gpu: GPU-0\n", "{strategy}");
        assert_eq!(
            left_out(&plan),
            "GPU 1 at 0000:02:00.0 is not offered: GPU is lost\n\
             GPU 2 at 0000:03:00.0 is not offered: bound to vfio-pci, for a virtual machine\n\
             GPU 3 at 0000:04:00.0 is not offered: the driver doesn't tell its UUID\n\
             GPU 4 at 0000:05:00.0 is not offered: its UUID is empty"
        );
    }
}

/// #990: duplicate devices make the kubelet refuse the whole list.
#[test]
fn of_gpus_with_the_same_uuid_the_first_is_offered() {
    let mut twin = gpu(1);
    twin.readings.uuid = Reading::Value("GPU-0".to_owned());
    let plan = planned(&node(vec![gpu(0), twin]), "");
    assert_eq!(shown(&plan), "nvidia.com/gpu: GPU-0\n");
    assert_eq!(
        left_out(&plan),
        "GPU 1 at 0000:02:00.0 (GPU-0) is not offered: another GPU has the same UUID"
    );
}

#[test]
fn without_a_strategy_a_gpu_in_mig_mode_is_offered_as_a_whole_and_that_is_told() {
    let plan = planned(&node(vec![gpu(0), cut(1, &["1g.5gb"])]), "");
    assert_eq!(shown(&plan), "nvidia.com/gpu: GPU-0 GPU-1\n");
    insta::assert_snapshot!(remarks(&plan), @"`GPU 1 (GPU-1)` is in MIG mode and offered as a whole, as the MIG strategy `none` asks: CUDA can't run on it so; set `flags.migStrategy` to `single` or `mixed`, or turn MIG off");
}

#[test]
fn mixed_names_each_profile_as_the_reference_does() {
    let profiles = [
        "1g.5gb",
        "1g.5gb+me",
        "1g.24gb+gfx",
        "1g.24gb-me",
        "2g.48gb+me.all",
        "1c.3g.20gb",
        "7g.40gb",
    ];
    let plan = planned(&node(vec![gpu(0), cut(1, &profiles), cut(2, &["1g.5gb"])]), MIXED);
    insta::assert_snapshot!(shown(&plan), @r"
    nvidia.com/gpu: GPU-0
    nvidia.com/mig-1g.5gb: MIG-1-0 MIG-2-0
    nvidia.com/mig-1g.5gb.me: MIG-1-1
    nvidia.com/mig-1g.24gb.gfx: MIG-1-2
    nvidia.com/mig-1g.24gb-me: MIG-1-3
    nvidia.com/mig-2g.48gb.me.all: MIG-1-4
    nvidia.com/mig-7g.40gb: MIG-1-6
    ");
    assert_eq!(
        left_out(&plan),
        "GPU 1 at 0000:02:00.0 (MIG-1-5) is not offered: 1c.3g.20gb is a part of a GPU instance, and only whole \
         ones are offered"
    );
    let device = &plan.resource("nvidia.com/mig-1g.5gb").unwrap().devices[1];
    assert_eq!((device.gpu.as_str(), device.gpu_index), ("GPU-2", 2));
}

#[test]
fn mixed_only_remarks_a_gpu_in_mig_mode_without_devices() {
    let plan = planned(&node(vec![cut(0, &[]), gpu(1)]), MIXED);
    assert_eq!(shown(&plan), "nvidia.com/gpu: GPU-1\n");
    assert!(
        remarks(&plan).contains("`GPU 0 (GPU-0)` is in MIG mode and has no MIG device"),
        "{}",
        remarks(&plan)
    );
}

#[test]
fn single_offers_mig_devices_as_gpus() {
    let plan = planned(
        &node(vec![cut(0, &["1g.5gb", "1g.5gb"]), cut(1, &["1g.5gb"])]),
        SINGLE,
    );
    assert_eq!(shown(&plan), "nvidia.com/gpu: MIG-0-0 MIG-0-1 MIG-1-0\n");
    // Without MIG it is as `none`.
    assert_eq!(
        shown(&planned(&node(vec![gpu(0), gpu(1)]), SINGLE)),
        "nvidia.com/gpu: GPU-0 GPU-1\n"
    );
}

#[test]
fn single_refuses_what_isn_t_alike_and_names_the_gpus() {
    insta::assert_snapshot!(refused(&node(vec![gpu(0), cut(1, &["1g.5gb"]), gpu(2)]), SINGLE), @"all GPUs of a node must be alike under the MIG strategy `single`: MIG is on on GPU 1 (GPU-1), and off on GPU 0 (GPU-0), GPU 2 (GPU-2); set it alike, or use `mixed`");
    insta::assert_snapshot!(refused(&node(vec![cut(0, &["1g.5gb"]), cut(1, &[]), cut(2, &["1c.3g.20gb"])]), SINGLE), @"no MIG devices are configured on GPU 1 (GPU-1), GPU 2 (GPU-2), which the MIG strategy `single` asks for; create them (label `nvidia.com/mig.config`), or turn MIG off");
    insta::assert_snapshot!(refused(&node(vec![cut(0, &["1g.5gb", "2g.10gb"]), cut(1, &["1g.5gb", "1g.5gb"])]), SINGLE), @"all MIG devices must be of one profile under the MIG strategy `single`: there are 1g.5gb on GPU 0 (GPU-0), GPU 1 (GPU-1); 2g.10gb on GPU 0 (GPU-0); cut all GPUs up alike, or use `mixed`");
}

#[test]
fn a_gpu_whose_mig_mode_can_t_be_read_is_left_out_where_that_matters() {
    let mut unclear = gpu(1);
    unclear.readings.mig_mode = Reading::Failed("timeout".to_owned());
    let mut unread = cut(2, &[]);
    unread.readings.mig_devices = Reading::Failed("timeout".to_owned());
    let inventory = node(vec![gpu(0), unclear, unread]);
    assert_eq!(
        shown(&planned(&inventory, "")),
        "nvidia.com/gpu: GPU-0 GPU-1 GPU-2\n"
    );
    for strategy in [MIXED, SINGLE] {
        let plan = planned(&inventory, strategy);
        assert_eq!(shown(&plan), "nvidia.com/gpu: GPU-0\n");
        assert_eq!(
            left_out(&plan),
            "GPU 1 at 0000:02:00.0 (GPU-1) is not offered: whether it is in MIG mode can't be read: timeout\n\
             GPU 2 at 0000:03:00.0 (GPU-2) is not offered: its MIG devices can't be read: timeout"
        );
    }
}

#[test]
fn time_slices_are_numbered_as_the_reference_numbers_them() {
    let text = "sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}";
    let plan = planned(&node(vec![gpu(0), gpu(1)]), text);
    assert_eq!(
        shown(&plan),
        "nvidia.com/gpu (time-slicing): GPU-0::0 GPU-0::1 GPU-1::0 GPU-1::1\n"
    );
    let resource = &plan.resources[0];
    assert_eq!((resource.replicas("GPU-1"), resource.replicas("GPU-2")), (2, 0));
    assert!(!resource.one_per_container);
    assert!(
        resource
            .devices
            .iter()
            .all(|device| crate::plugin::uuid_of(&device.id) == device.uuid)
    );
}

#[test]
fn shared_resources_are_renamed_as_asked() {
    let inventory = node(vec![gpu(0), cut(1, &["1g.5gb"])]);
    let text = format!(
        "{MIXED}sharing: {{timeSlicing: {{renameByDefault: true, failRequestsGreaterThanOne: true, resources: [\
         {{name: gpu, replicas: 2}}, {{name: mig-1g.5gb, rename: mig-shared, replicas: 3}}]}}}}"
    );
    let plan = planned(&inventory, &text);
    insta::assert_snapshot!(shown(&plan), @r"
    nvidia.com/gpu.shared (time-slicing): GPU-0::0 GPU-0::1
    nvidia.com/mig-shared (time-slicing): MIG-1-0::0 MIG-1-0::1 MIG-1-0::2
    ");
    assert!(plan.resources.iter().all(|resource| resource.one_per_container));
}

/// Pain #7 of the fact sheet `devices`, section 7 (#628 #491 #404 #1786): the reference reads `devices` and drops it.
#[test]
fn each_gpu_has_its_own_replicas() {
    let text = "
sharing:
  timeSlicing:
    resources:
      - {name: nvidia.com/gpu, devices: [0, GPU-2], replicas: 3}
      - {name: nvidia.com/gpu, devices: 1, replicas: 2}
      - {name: nvidia.com/gpu, devices: [3], rename: gpu-small, replicas: 4}
";
    let inventory = node((0..5).map(gpu).collect());
    let plan = planned(&inventory, text);
    insta::assert_snapshot!(shown(&plan), @r"
    nvidia.com/gpu (time-slicing): GPU-0::0 GPU-0::1 GPU-0::2 GPU-1::0 GPU-1::1 GPU-2::0 GPU-2::1 GPU-2::2 GPU-4
    nvidia.com/gpu-small (time-slicing): GPU-3::0 GPU-3::1 GPU-3::2 GPU-3::3
    ");
    // An entry for all others below.
    let rest = format!("{text}      - {{name: nvidia.com/gpu, replicas: 2, rename: gpu-rest}}\n");
    assert!(
        shown(&planned(&inventory, &rest))
            .ends_with("nvidia.com/gpu-rest (time-slicing): GPU-4::0 GPU-4::1\n")
    );
}

/// Pain #7 as well, for MIG devices.
#[test]
fn each_mig_device_has_its_own_replicas() {
    let inventory = node(vec![
        cut(0, &["1g.5gb", "1g.5gb", "2g.10gb"]),
        cut(1, &["1g.5gb"]),
        cut(2, &["1g.5gb"]),
    ]);
    let text = format!(
        "{MIXED}sharing: {{timeSlicing: {{resources: [\
         {{name: mig-1g.5gb, devices: ['0:1', MIG-1-0, GPU-2], replicas: 2}}, {{name: mig-3g.20gb, replicas: 2}}]}}}}"
    );
    let plan = planned(&inventory, &text);
    insta::assert_snapshot!(shown(&plan), @r"
    nvidia.com/mig-1g.5gb (time-slicing): MIG-0-0 MIG-0-1::0 MIG-0-1::1 MIG-1-0::0 MIG-1-0::1 MIG-2-0::0 MIG-2-0::1
    nvidia.com/mig-2g.10gb: MIG-0-2
    ");
    assert_eq!(
        remarks(&plan),
        "`sharing.timeSlicing.resources[1]` shares `nvidia.com/mig-3g.20gb`, which this node doesn't have"
    );
}

#[test]
fn devices_that_a_node_lacks_are_remarked() {
    let text = "sharing: {timeSlicing: {resources: [{name: gpu, devices: [0, 7, GPU-x], replicas: 2}]}}";
    let plan = planned(&node(vec![gpu(0)]), text);
    assert_eq!(shown(&plan), "nvidia.com/gpu (time-slicing): GPU-0::0 GPU-0::1\n");
    assert_eq!(
        remarks(&plan),
        "`sharing.timeSlicing.resources[0]` names 7, GPU-x, which `nvidia.com/gpu` has not on this node"
    );
}

/// Pain #7 as well (#404 #1786): resources are named by model.
#[test]
fn gpus_and_mig_devices_are_named_by_pattern() {
    let mut t4 = gpu(1);
    t4.readings.name = Reading::Value("Tesla T4".to_owned());
    let mut nameless = gpu(2);
    nameless.readings.name = Reading::Failed("timeout".to_owned());
    let inventory = node(vec![
        gpu(0),
        t4,
        nameless,
        cut(3, &["1g.5gb", "2g.10gb", "3g.20gb"]),
    ]);
    let text = format!(
        "{MIXED}resources:\n  gpus: [{{pattern: '*A100*', name: a100}}, {{pattern: '*H100*', name: h100}}]\n  \
         mig: [{{pattern: '1g.*', name: mig-small}}, {{pattern: '2g.10gb', name: mig-small}}]\n\
         sharing: {{timeSlicing: {{resources: [{{name: a100, replicas: 2}}]}}}}"
    );
    let plan = planned(&inventory, &text);
    insta::assert_snapshot!(shown(&plan), @r"
    nvidia.com/a100 (time-slicing): GPU-0::0 GPU-0::1
    nvidia.com/gpu: GPU-1 GPU-2
    nvidia.com/mig-small: MIG-3-0 MIG-3-1
    nvidia.com/mig-3g.20gb: MIG-3-2
    ");
    assert_eq!(
        remarks(&plan),
        "`resources.gpus[1].pattern` is `*H100*`, which fits nothing on this node: there is NVIDIA A100-SXM4-40GB, \
         Tesla T4"
    );
    let single = format!("{SINGLE}resources: {{mig: [{{pattern: '*', name: slice}}]}}");
    let plan = planned(&node(vec![cut(0, &["1g.5gb"])]), &single);
    assert_eq!(shown(&plan), "nvidia.com/slice: MIG-0-0\n");
}

#[test]
fn clients_of_mps_are_told_apart_by_their_part() {
    let text = "sharing: {mps: {renameByDefault: true, resources: [{name: gpu, devices: [1], replicas: 2}]}}";
    let plan = planned(&node(vec![gpu(0), gpu(1)]), text);
    insta::assert_snapshot!(shown(&plan), @r"
    nvidia.com/gpu: GPU-0
    nvidia.com/gpu.shared (mps): GPU-1::0-of-2 GPU-1::1-of-2
    ");
    assert!(!plan.resources[0].one_per_container);
    assert!(plan.resources[1].one_per_container);
}

#[test]
fn a_resource_that_is_shared_by_mps_is_so_as_a_whole() {
    let text = "sharing: {mps: {resources: [{name: gpu, devices: [1], replicas: 2}]}}";
    let plan = planned(&node(vec![gpu(0), gpu(1)]), text);
    assert_eq!(
        shown(&plan),
        "nvidia.com/gpu (mps): GPU-0::0-of-1 GPU-1::0-of-2 GPU-1::1-of-2\n"
    );
    assert!(
        remarks(&plan).contains("`GPU 0 (GPU-0)` goes through MPS as a whole"),
        "{}",
        remarks(&plan)
    );
}

#[test]
fn mps_is_refused_for_mig_devices_and_for_more_clients_than_a_gpu_takes() {
    let of =
        |replicas: u32| format!("sharing: {{mps: {{resources: [{{name: gpu, replicas: {replicas}}}]}}}}");
    let single = format!("{SINGLE}{}", of(2));
    insta::assert_snapshot!(refused(&node(vec![cut(0, &["1g.5gb"])]), &single), @"`nvidia.com/gpu` can't be shared through MPS: MIG-0-0 on GPU 0 (GPU-0) is a MIG device; use `sharing.timeSlicing`");
    let mut volta = gpu(0);
    volta.readings.compute_capability = Reading::Value(ComputeCapability { major: 7, minor: 0 });
    insta::assert_snapshot!(refused(&node(vec![volta.clone()]), &of(17)), @"GPU 0 (GPU-0) can't be shared by 17 clients of MPS: at most 16 are possible; lower `replicas`");
    assert_eq!(
        planned(&node(vec![volta]), &of(16)).resources[0].devices.len(),
        16
    );
    assert_eq!(
        planned(&node(vec![gpu(0)]), &of(48)).resources[0].devices.len(),
        48
    );
    assert!(refused(&node(vec![gpu(0)]), &of(49)).contains("at most 48"));
}

#[test]
fn a_configuration_that_was_not_checked_is_refused_here() {
    let text = "flags: {migStrategy: mixed}\nsharing: {mps: {resources: [{name: gpu, replicas: 2}]}}";
    let unchecked = Config::parse(text).unwrap();
    assert!(matches!(
        plan(&node(vec![gpu(0)]), &unchecked, &BTreeMap::new()),
        Err(PlanError::Config(_))
    ));
}

use crate::catalog::ComputeCapability;

fn any_gpu(index: u8) -> impl Strategy<Value = Gpu> {
    let profiles = prop::sample::subsequence(
        vec!["1g.5gb", "1g.5gb+me", "1c.2g.10gb", "2g.10gb", "3g.20gb"],
        0..4,
    );
    prop_oneof![
        4 => Just(gpu(index)),
        1 => Just(lost(index)),
        3 => profiles.prop_map(move |profiles| cut(index, &profiles)),
    ]
}

fn any_node() -> impl Strategy<Value = Inventory> {
    (any_gpu(0), any_gpu(1), any_gpu(2), any_gpu(3)).prop_map(|(a, b, c, d)| node(vec![a, b, c, d]))
}

pub(in crate::plugin) fn any_config() -> impl Strategy<Value = String> {
    let devices = prop::sample::select(vec!["all", "1", "2", "[0]", "[1, '3:0']", "[GPU-2, MIG-3-0]"]);
    let name = prop::sample::select(vec!["gpu", "mig-1g.5gb", "mig-2g.10gb", "a100"]);
    let rename = prop::sample::select(vec!["", "rename: other, ", "rename: gpu, "]);
    let entry = (name, rename, devices, 2_u32..5).prop_map(|(name, rename, devices, replicas)| {
        format!("{{name: {name}, {rename}devices: {devices}, replicas: {replicas}}}")
    });
    let sharing = (
        prop::sample::select(vec!["timeSlicing", "mps"]),
        any::<bool>(),
        prop::collection::vec(entry, 1..4),
    )
        .prop_map(|(kind, rename, entries)| {
            format!(
                "sharing: {{{kind}: {{renameByDefault: {rename}, resources: [{}]}}}}\n",
                entries.join(", ")
            )
        });
    let names = prop::sample::select(vec!["", "resources: {gpus: [{pattern: '*A100*', name: a100}]}\n"]);
    let strategy = prop::sample::select(vec!["none", "single", "mixed"]);
    (strategy, names, prop::option::of(sharing)).prop_map(|(strategy, names, sharing)| {
        format!(
            "flags: {{migStrategy: {strategy}}}\n{names}{}",
            sharing.unwrap_or_default()
        )
    })
}

proptest! {
    #[test]
    fn every_device_is_in_one_resource_once_and_no_gpu_is_offered_both_whole_and_cut_up(
        inventory in any_node(),
        text in any_config(),
    ) {
        let Ok(config) = Config::parse(&text) else { return Ok(()) };
        let numa = BTreeMap::from([("GPU-1".to_owned(), 1)]);
        let Ok(plan) = plan(&inventory, &config, &numa) else { return Ok(()) };
        let mut ids = BTreeSet::new();
        let mut resource_of = BTreeMap::new();
        for resource in &plan.resources {
            prop_assert!(!resource.devices.is_empty());
            prop_assert!(resource.name.len() <= 63 && resource.name.starts_with("nvidia.com/"));
            for device in &resource.devices {
                prop_assert!(ids.insert(&device.id), "{} twice", device.id);
                prop_assert_eq!(crate::plugin::uuid_of(&device.id), &device.uuid);
                let first = resource_of.entry(&device.uuid).or_insert(&resource.name);
                prop_assert_eq!(*first, &resource.name);
                prop_assert_eq!(device.numa, (device.gpu == "GPU-1").then_some(1));
                let shared = resource.replicas(&device.uuid) > 1;
                prop_assert!(!shared || resource.sharing != Sharing::None);
                prop_assert_eq!(crate::plugin::is_replica(&device.id), shared || resource.sharing == Sharing::Mps);
            }
        }
        for gpu in &inventory.gpus {
            let Some(uuid) = gpu.readings.uuid.value() else {
                prop_assert!(plan.left_out.iter().any(|left| left.gpu_index == gpu.index));
                continue;
            };
            let cut_up = resource_of.keys().any(|device| plan.mig_parents.get(*device) == Some(uuid));
            prop_assert!(!(cut_up && resource_of.contains_key(uuid)));
        }
    }
}
