//! The sharing changes while pods hold GPUs: nothing is handed out twice, and everything comes back.

use std::fs;

use pitcrew_core::plugin::{Resource, Sharing};
use pitcrew_kubelet::fake::{Kubelet, Options};

use crate::node::{Node, SOON, double_booked, mig, pod, resource, wanted, whole};

const GPU: &str = "nvidia.com/gpu";
const SHARED: &str = "nvidia.com/gpu.shared";

fn shares(name: &str) -> Resource {
    resource(name, 2, Sharing::TimeSlicing, 4)
}

#[tokio::test]
async fn shares_of_a_gpu_that_a_pod_holds_whole_wait_for_it() {
    for name in [GPU, SHARED] {
        let (mut node, kubelet) = Node::with_kubelet().await;
        node.plugins.update(wanted([whole(2)]));
        kubelet.wait_for(GPU, 2, SOON).await.unwrap();
        let before = kubelet.admit(&pod("train", GPU, 1)).await.unwrap();
        node.plugins.update(wanted([shares(name)]));
        // Those of the free GPU, and no more.
        kubelet.wait_for(name, 4, SOON).await.unwrap();
        node.until_held_back(4, "default/train").await;
        for at in 0..4 {
            kubelet
                .admit(&pod(&format!("share-{at}"), name, 1))
                .await
                .unwrap();
        }
        assert!(kubelet.admit(&pod("share-4", name, 1)).await.is_err());
        assert_eq!(double_booked(&kubelet), [""; 0]);
        // A container of the old pod that starts again has what it had.
        let again = kubelet
            .restart_container("default", "train", "main")
            .await
            .unwrap();
        assert_eq!(again, before["main"]);
        assert!(kubelet.remove_pod("default", "train"));
        kubelet.wait_for(name, 8, SOON).await.unwrap();
        kubelet.admit(&pod("share-4", name, 1)).await.unwrap();
        assert_eq!(double_booked(&kubelet), [""; 0]);
        assert!(node.told().iter().any(|text| text.contains("healthy again")));
    }
}

#[tokio::test]
async fn a_gpu_of_which_shares_are_held_is_given_away_whole_when_the_last_is_back() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([shares(SHARED)]));
    kubelet.wait_for(SHARED, 8, SOON).await.unwrap();
    for at in 0..3 {
        kubelet
            .admit(&pod(&format!("share-{at}"), SHARED, 1))
            .await
            .unwrap();
    }
    let gpus: std::collections::BTreeSet<String> = kubelet
        .held()
        .into_iter()
        .map(|held| held.id.split("::").next().unwrap().to_owned())
        .collect();
    node.plugins.update(wanted([whole(2)]));
    kubelet.wait_for(GPU, 2 - gpus.len(), SOON).await.unwrap();
    for at in 0..3 {
        assert_eq!(double_booked(&kubelet), [""; 0]);
        assert!(kubelet.remove_pod("default", &format!("share-{at}")));
    }
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
}

#[tokio::test]
async fn the_agent_may_be_killed_while_the_sharing_changes() {
    let (mut node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(2)]));
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
    kubelet.admit(&pod("train", GPU, 1)).await.unwrap();
    // It knows nothing of its past, but what the kubelet tells.
    node.restart_agent();
    node.plugins.update(wanted([shares(GPU)]));
    kubelet.wait_for(GPU, 4, SOON).await.unwrap();
    node.until_held_back(4, "default/train").await;
    kubelet.restart().await.unwrap();
    kubelet.wait_for(GPU, 4, SOON).await.unwrap();
    node.until_held_back(4, "default/train").await;
    kubelet.remove_pod("default", "train");
    kubelet.wait_for(GPU, 8, SOON).await.unwrap();
}

#[tokio::test]
async fn mig_devices_of_a_gpu_that_a_pod_holds_wait_for_it() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(1)]));
    kubelet.wait_for(GPU, 1, SOON).await.unwrap();
    kubelet.admit(&pod("train", GPU, 1)).await.unwrap();
    node.plugins.update(wanted([mig(0, 7)]));
    node.until_held_back(7, "default/train").await;
    kubelet.wait_for("nvidia.com/mig-1g.10gb", 0, SOON).await.unwrap();
    kubelet.remove_pod("default", "train");
    kubelet.wait_for("nvidia.com/mig-1g.10gb", 7, SOON).await.unwrap();
}

#[tokio::test]
async fn while_nobody_says_who_holds_what_everything_may_be_held() {
    let mut node = Node::new();
    let options = Options {
        pod_resources: false,
        ..Options::default()
    };
    let kubelet = Kubelet::with(node.dir.path(), options).await.unwrap();
    node.plugins.update(wanted([whole(2)]));
    let status = node.until_problem("HoldersUnknown").await;
    assert_eq!(status.held_back[GPU].len(), 2);
    assert_eq!(kubelet.allocatable(GPU).unwrap_or_default(), 0);
    // The kubelet's own checkpoint is as good.
    let checkpoint = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u","ResourceName":"nvidia.com/gpu",
        "DeviceIDs":{"-1":["GPU-0"]}}],"RegisteredDevices":{}},"Checksum":0}"#;
    fs::write(node.sockets().join("kubelet_internal_checkpoint"), checkpoint).unwrap();
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
    node.plugins.update(wanted([shares(GPU)]));
    kubelet.wait_for(GPU, 4, SOON).await.unwrap();
    assert!(node.told().iter().any(|text| text.contains("held by pod u")));
}

#[tokio::test]
async fn what_was_just_handed_out_counts_before_the_kubelet_has_written_it_down() {
    use pitcrew_kubelet::device_plugin::{AllocateRequest, ContainerAllocateRequest, DevicePluginClient};
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(2)]));
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
    // As the kubelet does, which has not got the answer yet.
    let socket = node.sockets().join("pitcrew-gpu.sock");
    let channel = pitcrew_kubelet::connect(&socket, SOON).await.unwrap();
    let request = AllocateRequest {
        container_requests: vec![ContainerAllocateRequest {
            device_ids: vec!["GPU-0".to_owned()],
        }],
    };
    DevicePluginClient::new(channel).allocate(request).await.unwrap();
    node.plugins.update(wanted([shares(GPU)]));
    kubelet.wait_for(GPU, 4, SOON).await.unwrap();
    node.until_held_back(4, "being started").await;
    // The kubelet has given it up.
    kubelet.wait_for(GPU, 8, SOON * 3).await.unwrap();
}

#[tokio::test]
async fn who_holds_what_is_known_soon_after_it_was_handed_out() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(2)]));
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
    kubelet.admit(&pod("train", GPU, 2)).await.unwrap();
    let held_by_train = |status: &pitcrew_agent::plugin::Status| {
        let held = status.held.as_deref().unwrap_or_default();
        held.len() == 2 && held.iter().all(|holding| holding.holder == "default/train")
    };
    node.until("the pod among the holders", held_by_train).await;
}
