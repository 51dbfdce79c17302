//! Keys and values are what Kubernetes takes, whatever is read.

use proptest::prelude::*;

use super::*;

#[test]
fn a_long_name_is_cut_and_what_follows_it_is_kept() {
    let name = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition (Engineering Sample, Rev. B)";
    let gpus = inventory(vec![cut(gpu(0, name, (12, 0), 96), &["1g.24gb"])]);
    let labels = labels_of(&gpus, &offer(MigStrategy::Single));
    let product = get(&labels, "nvidia.com/gpu.product").unwrap();
    assert!(product.ends_with("-MIG-1g.24gb"), "{product}");
    assert!(value::is_valid(product) && product.len() <= 63, "{product}");
}

#[test]
fn values_are_made_valid() {
    assert_eq!(value::valid("X11DPi-N(T)").as_deref(), Some("X11DPi-NT"));
    assert_eq!(value::valid("").as_deref(), Some(""));
    assert_eq!(value::valid("(?)"), None);
    assert_eq!(value::words("  System  Product Name "), "System-Product-Name");
    assert_eq!(value::words("-_.x._-"), "x");
    assert_eq!(value::product("ü", "-MIG-INVALID"), "MIG-INVALID");
    assert!(!value::is_valid("-a") && !value::is_valid("a b") && !value::is_valid(&"a".repeat(64)));
}

#[test]
fn labels_of_others_are_not_ours() {
    for key in [
        PRESENT,
        "nvidia.com/gpu.deploy.driver",
        "nvidia.com/gpu.workload.config",
        "nvidia.com/gpu-driver-upgrade-state",
        "nvidia.com/device-plugin.config",
        "nvidia.com/mig.config",
        "nvidia.com/mig.config.state",
        "nvidia.com/vgpu.config",
        "feature.node.kubernetes.io/pci-10de.present",
        "pitcrew.dev/other",
    ] {
        assert!(!is_ours(key), "{key}");
    }
}

/// Kubernetes' rule for keys: a prefix that is a DNS name, and a name as a value, but not empty.
fn is_key(key: &str) -> bool {
    key.split_once('/').is_some_and(|(prefix, name)| {
        let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        prefix.chars().all(dns) && !name.is_empty() && value::is_valid(name)
    })
}

prop_compose! {
    fn any_gpu()(name in prop::option::of("\\PC{0,90}"), mig in prop::option::of(any::<bool>()),
        profiles in prop::collection::vec("[1-4]g\\.[1-9][0-9]{0,2}gb(\\+me|\\+gfx|-me|\\+me\\.all)?", 0..4),
        major in any::<u32>(), memory in prop::option::of(any::<u64>()), uuid in "\\PC{0,70}")
        -> Gpu
    {
        let profiles: Vec<&str> = profiles.iter().map(String::as_str).collect();
        let mut gpu = cut(a100(0), &profiles);
        gpu.readings.name = name.map_or(Reading::NotSupported, Reading::Value);
        gpu.readings.mig_mode = mig.map_or(Reading::NotSupported, mode);
        gpu.readings.memory_total_bytes = memory.map_or(Reading::Failed(String::new()), Reading::Value);
        gpu.readings.compute_capability = Reading::Value(ComputeCapability { major, minor: 0 });
        gpu.readings.fabric = Reading::Value(Fabric {
            state: FabricState::Completed,
            status: Some(Fabric::SUCCESS.to_owned()),
            clique: Some(major),
            cluster_uuid: Some(uuid),
        });
        gpu
    }
}

proptest! {
    #[test]
    fn every_label_is_a_valid_one_whatever_the_inventory_says(
        gpus in prop::collection::vec(any_gpu(), 0..5), machine in "\\PC{0,90}", version in "[0-9.\\PC]{0,70}",
        vgpu in "\\PC{0,70}", mig in 0..3, replicas in any::<u32>(), name in "(nvidia.com/)?(gpu|mig-1g\\.5gb)",
    ) {
        let mut inventory = inventory(gpus);
        inventory.driver.version = Reading::Value(version);
        let strategy = [MigStrategy::None, MigStrategy::Single, MigStrategy::Mixed];
        let mut offer = shared(Sharing::TimeSlicing, &name, replicas, replicas % 2 == 0);
        offer.mig = strategy[usize::try_from(mig).unwrap()];
        let vgpus = [VgpuHost { version: Some(vgpu.clone()), branch: Some(vgpu) }];
        let facts = Facts {
            inventory: Some(&inventory),
            pci: &BTreeMap::new(),
            machine: Reading::Value(&machine),
            vgpus: &vgpus,
            timestamp: Some(u64::from(replicas)),
        };
        for (key, value) in labels(&facts, &offer) {
            prop_assert!(is_key(&key), "{key}");
            prop_assert!(is_ours(&key) != (key == PRESENT), "{key}");
            prop_assert!(value::is_valid(&value), "{key}={value}");
        }
    }

    #[test]
    fn any_text_becomes_a_valid_value_and_a_valid_one_stays_itself(text in "\\PC{0,100}", plain in "([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?") {
        prop_assert!(value::is_valid(&value::words(&text)));
        prop_assert!(value::valid(&text).is_none_or(|value| value::is_valid(&value)));
        prop_assert!(value::is_valid(&value::product(&text, "-MIG-1g.5gb-SHARED")));
        prop_assert_eq!(value::valid(&plain), Some(plain));
    }
}
