//! GPUs that are cut up, under each strategy.

use super::*;

#[test]
fn without_a_strategy_a_gpu_that_is_cut_up_is_there_and_is_not_offered() {
    let labels = labels_of(
        &inventory(vec![cut(a100(0), &["1g.5gb"])]),
        &offer(MigStrategy::None),
    );
    for (key, value) in [
        ("product", "NVIDIA-A100-SXM4-40GB"),
        ("count", "1"),
        ("replicas", "0"),
        ("sharing-strategy", "none"),
        ("memory", "40960"),
    ] {
        assert_eq!(
            get(&labels, &format!("nvidia.com/gpu.{key}")),
            Some(value),
            "{key}"
        );
    }
    assert_eq!(get(&labels, "nvidia.com/mig.capable"), Some("true"));
    assert_eq!(get(&labels, "nvidia.com/mig.strategy"), None);
    // One of its model that isn't speaks for both.
    let gpus = inventory(vec![cut(a100(0), &["1g.5gb"]), a100(1)]);
    let labels = labels_of(&gpus, &offer(MigStrategy::None));
    assert_eq!(get(&labels, "nvidia.com/gpu.count"), Some("2"));
    assert_eq!(get(&labels, "nvidia.com/gpu.replicas"), Some("1"));
}

#[test]
fn strategy_single_without_mig_is_as_none_but_for_its_name() {
    let gpus = inventory(vec![a100(0), a100(1)]);
    let mut expected = labels_of(&gpus, &offer(MigStrategy::None));
    expected.insert("nvidia.com/mig.strategy".to_owned(), "single".to_owned());
    assert_eq!(labels_of(&gpus, &offer(MigStrategy::Single)), expected);
}

#[test]
fn strategy_single_says_of_gpus_what_mig_devices_are() {
    let gpus = inventory(vec![
        cut(a100(0), &["1g.5gb", "1g.5gb"]),
        cut(a100(1), &["1g.5gb"]),
    ]);
    let labels = labels_of(&gpus, &offer(MigStrategy::Single));
    assert_eq!(
        under(&labels, "nvidia.com/gpu."),
        [
            "compute.major=8",
            "compute.minor=0",
            "count=3",
            "engines.copy=1",
            "engines.decoder=0",
            "engines.encoder=0",
            "engines.jpeg=0",
            "engines.ofa=0",
            "family=ampere",
            "machine=PowerEdge-R760",
            "memory=4864",
            "mode=compute",
            "multiprocessors=14",
            "present=true",
            "product=NVIDIA-A100-SXM4-40GB-MIG-1g.5gb",
            "replicas=1",
            "sharing-strategy=none",
            "slices.ci=1",
            "slices.gi=1",
        ]
    );
    assert_eq!(get(&labels, "nvidia.com/mig.strategy"), Some("single"));
    let mut shared = shared(Sharing::TimeSlicing, GPU, 3, false);
    shared.mig = MigStrategy::Single;
    let labels = labels_of(&gpus, &shared);
    let product = "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED";
    assert_eq!(get(&labels, "nvidia.com/gpu.product"), Some(product));
    assert_eq!(get(&labels, "nvidia.com/gpu.replicas"), Some("3"));
}

#[test]
fn strategy_single_calls_what_it_can_not_offer_invalid() {
    let cases = [
        (
            vec![cut(a100(0), &["1g.5gb"]), cut(a100(1), &[])],
            "one has no devices",
        ),
        (vec![cut(a100(0), &["1g.5gb"]), a100(1)], "one is not cut up"),
        (
            vec![cut(a100(0), &["1g.5gb", "2g.10gb"])],
            "there are two profiles",
        ),
    ];
    for (gpus, why) in cases {
        let gpus = inventory(gpus);
        let labels = labels_of(&gpus, &offer(MigStrategy::Single));
        for (key, value) in [
            ("product", "NVIDIA-A100-SXM4-40GB-MIG-INVALID"),
            ("count", "0"),
            ("replicas", "0"),
            ("memory", "0"),
            ("sharing-strategy", ""),
        ] {
            assert_eq!(
                get(&labels, &format!("nvidia.com/gpu.{key}")),
                Some(value),
                "{why}"
            );
        }
        assert_eq!(get(&labels, "nvidia.com/gpu.multiprocessors"), None);
    }
}

#[test]
fn strategy_mixed_has_labels_for_each_profile_beside_those_of_the_gpus() {
    let gpus = inventory(vec![
        cut(a100(0), &["1g.5gb", "1g.5gb", "1g.5gb+me", "1c.3g.20gb"]),
        cut(a100(1), &[]),
        a100(2),
    ]);
    let mut offer = shared(Sharing::TimeSlicing, "nvidia.com/mig-1g.5gb", 2, false);
    offer.mig = MigStrategy::Mixed;
    let labels = labels_of(&gpus, &offer);
    assert_eq!(get(&labels, "nvidia.com/gpu.count"), Some("3"));
    assert_eq!(
        get(&labels, "nvidia.com/gpu.product"),
        Some("NVIDIA-A100-SXM4-40GB")
    );
    assert_eq!(get(&labels, "nvidia.com/mig.strategy"), Some("mixed"));
    assert_eq!(
        under(&labels, "nvidia.com/mig-1g.5gb."),
        [
            "count=2",
            "engines.copy=1",
            "engines.decoder=0",
            "engines.encoder=0",
            "engines.jpeg=0",
            "engines.ofa=0",
            "me.count=1",
            "me.engines.copy=1",
            "me.engines.decoder=0",
            "me.engines.encoder=0",
            "me.engines.jpeg=0",
            "me.engines.ofa=0",
            "me.memory=4864",
            "me.multiprocessors=14",
            "me.product=NVIDIA-A100-SXM4-40GB-MIG-1g.5gb.me",
            "me.replicas=1",
            "me.sharing-strategy=none",
            "me.slices.ci=1",
            "me.slices.gi=1",
            "memory=4864",
            "multiprocessors=14",
            "product=NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED",
            "replicas=2",
            "sharing-strategy=time-slicing",
            "slices.ci=1",
            "slices.gi=1",
        ]
    );
    assert_eq!(
        under(&labels, "nvidia.com/mig-1c.3g.20gb.slices."),
        ["ci=1", "gi=3"]
    );
}

#[test]
fn mig_devices_that_can_not_be_read_are_neither_counted_nor_called_invalid() {
    let mut unread = cut(a100(1), &["1g.5gb"]);
    unread.readings.mig_devices = Reading::Failed("Unknown Error".to_owned());
    let gpus = inventory(vec![cut(a100(0), &["1g.5gb"]), unread]);
    let labels = labels_of(&gpus, &offer(MigStrategy::Single));
    for key in ["product", "count", "replicas", "memory", "sharing-strategy"] {
        assert_eq!(get(&labels, &format!("nvidia.com/gpu.{key}")), None, "{key}");
    }
    assert_eq!(get(&labels, "nvidia.com/gpu.family"), Some("ampere"));
    let labels = labels_of(&gpus, &offer(MigStrategy::Mixed));
    assert!(under(&labels, "nvidia.com/mig-").is_empty());
    assert_eq!(get(&labels, "nvidia.com/gpu.count"), Some("2"));
}
