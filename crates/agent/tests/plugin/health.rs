//! Sick GPUs go, and come back.

use std::collections::BTreeMap;

use pitcrew_agent::plugin::Wanted;
use pitcrew_core::plugin::{Resource, Sharing};

use crate::node::{Node, SOON, mig, pod, resource, wanted, whole};

fn sick(mut wanted: Wanted, gpu: &str, why: &str) -> Wanted {
    wanted.sick = BTreeMap::from([(gpu.to_owned(), why.to_owned())]);
    wanted
}

/// Pain 1 of the reference: an unhealthy GPU never recovers.
#[tokio::test]
async fn pain_1_a_gpu_that_recovers_is_handed_out_again() {
    let (mut node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(2)]));
    kubelet.wait_for("nvidia.com/gpu", 2, SOON).await.unwrap();
    for _ in 0..3 {
        node.plugins
            .update(sick(wanted([whole(2)]), "GPU-1", "XID 79: fallen off the bus"));
        kubelet.wait_for("nvidia.com/gpu", 1, SOON).await.unwrap();
        assert!(kubelet.admit(&pod("two", "nvidia.com/gpu", 2)).await.is_err());
        node.plugins.update(wanted([whole(2)]));
        kubelet.wait_for("nvidia.com/gpu", 2, SOON).await.unwrap();
    }
    kubelet.admit(&pod("two", "nvidia.com/gpu", 2)).await.unwrap();
    let told = node.told();
    // The reason is told with it: pain 15.
    assert!(
        told.iter()
            .any(|text| text.contains("GPU-1") && text.contains("XID 79"))
    );
    assert!(told.iter().any(|text| text.contains("GPU-1 is healthy again")));
}

/// Pain 2 of the reference: one lost GPU breaks allocation for all others.
#[tokio::test]
async fn pain_2_a_lost_gpu_takes_no_other_with_it() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins
        .update(sick(wanted([whole(8)]), "GPU-3", "lost: off the bus"));
    kubelet.wait_for("nvidia.com/gpu", 7, SOON).await.unwrap();
    kubelet.admit(&pod("seven", "nvidia.com/gpu", 7)).await.unwrap();
    let held = kubelet.held();
    assert_eq!(held.len(), 7);
    assert!(held.iter().all(|held| held.id != "GPU-3"));
}

/// Pain 14 of the reference: health checks are silently off. What is sick is seen in every form.
#[tokio::test]
async fn pain_14_all_shares_and_mig_devices_of_a_sick_gpu_are_unhealthy() {
    let (node, kubelet) = Node::with_kubelet().await;
    let resources = || {
        let shares = resource("nvidia.com/gpu", 2, Sharing::TimeSlicing, 4);
        wanted([shares, mig(2, 3), mig_of_another()])
    };
    node.plugins.update(resources());
    kubelet.wait_for("nvidia.com/gpu", 8, SOON).await.unwrap();
    node.plugins.update(sick(resources(), "GPU-1", "XID 48"));
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
    node.plugins.update(sick(resources(), "GPU-2", "XID 48"));
    kubelet.wait_for("nvidia.com/mig-1g.10gb", 0, SOON).await.unwrap();
    kubelet.wait_for("nvidia.com/gpu", 8, SOON).await.unwrap();
    assert_eq!(kubelet.allocatable("nvidia.com/mig-2g.20gb"), Some(1));
}

fn mig_of_another() -> Resource {
    let mut other = mig(3, 1);
    "nvidia.com/mig-2g.20gb".clone_into(&mut other.name);
    other
}
