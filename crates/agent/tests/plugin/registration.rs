//! Resources get to the kubelet and stay there.

use std::collections::BTreeSet;

use pitcrew_agent::plugin::{Answers, Wanted};
use pitcrew_core::plugin::Sharing;
use pitcrew_kubelet::fake::Kubelet;

use crate::node::{Node, SOON, mig, pod, resource, wanted, whole};

#[tokio::test]
async fn resources_are_with_the_kubelet_within_two_seconds() {
    let (node, kubelet) = Node::with_kubelet().await;
    let begin = std::time::Instant::now();
    node.plugins.update(wanted([whole(8), mig(0, 7)]));
    kubelet.wait_for("nvidia.com/gpu", 8, SOON).await.unwrap();
    kubelet.wait_for("nvidia.com/mig-1g.10gb", 7, SOON).await.unwrap();
    assert!(begin.elapsed().as_secs() < 2, "{:?}", begin.elapsed());
    let status = node
        .until("both registered", |status| status.registered.len() == 2)
        .await;
    assert_eq!(status.problem, None);
    let near: Vec<Vec<i64>> = kubelet
        .devices("nvidia.com/gpu")
        .into_iter()
        .map(|device| device.numa)
        .collect();
    assert_eq!(near[0], [0]);
    assert_eq!(near[7], [1]);
}

#[tokio::test]
async fn eight_gpus_of_ten_shares_are_eighty_devices() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins
        .update(wanted([resource("nvidia.com/gpu", 8, Sharing::TimeSlicing, 10)]));
    kubelet.wait_for("nvidia.com/gpu", 80, SOON).await.unwrap();
    for at in 0..80 {
        let started = kubelet
            .admit(&pod(&format!("pod-{at}"), "nvidia.com/gpu", 1))
            .await
            .unwrap();
        assert_eq!(started.len(), 1);
    }
    assert!(
        kubelet
            .admit(&pod("one-more", "nvidia.com/gpu", 1))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_kubelet_that_comes_late_is_waited_for() {
    let mut node = Node::new();
    node.plugins.update(wanted([whole(2)]));
    node.until_problem("NoKubelet").await;
    let kubelet = Kubelet::start(node.dir.path()).await.unwrap();
    kubelet.wait_for("nvidia.com/gpu", 2, SOON).await.unwrap();
    node.until("no problem", |status| status.problem.is_none()).await;
    assert!(
        node.told()
            .iter()
            .any(|text| text.contains("waiting for the kubelet"))
    );
}

#[tokio::test]
async fn a_kubelet_that_starts_again_gets_everything_again() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(4), mig(4, 2)]));
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
    let before = kubelet.admit(&pod("train", "nvidia.com/gpu", 2)).await.unwrap();
    for _ in 0..3 {
        kubelet.restart().await.unwrap();
        kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
        kubelet.wait_for("nvidia.com/mig-1g.10gb", 2, SOON).await.unwrap();
        // A container that starts again in an old pod has what it had.
        let again = kubelet
            .restart_container("default", "train", "main")
            .await
            .unwrap();
        assert_eq!(again, before["main"]);
        assert!(
            kubelet
                .admit(&pod("too-much", "nvidia.com/gpu", 3))
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_kubelet_that_stays_away_for_a_while_is_waited_for() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(4)]));
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
    kubelet.stop().await;
    node.until("nothing registered", |status| status.registered.is_empty())
        .await;
    kubelet.resume().await.unwrap();
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
    node.until("registered", |status| status.registered.len() == 1)
        .await;
}

#[tokio::test]
async fn a_socket_that_somebody_deletes_is_made_again() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(2)]));
    kubelet.wait_for("nvidia.com/gpu", 2, SOON).await.unwrap();
    let socket = node.sockets().join("pitcrew-gpu.sock");
    for _ in 0..3 {
        std::fs::remove_file(&socket).unwrap();
        // The fake says when its own state changes, and it does when it is registered with again.
        let is_back = |kubelet: &Kubelet| socket.exists() && kubelet.plugin("nvidia.com/gpu").is_some();
        kubelet.wait_until("the socket", SOON, is_back).await.unwrap();
        kubelet.wait_for("nvidia.com/gpu", 2, SOON).await.unwrap();
    }
}

#[tokio::test]
async fn a_resource_that_is_gone_has_no_devices_left_and_the_others_stay_connected() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(4), mig(4, 2)]));
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
    kubelet.wait_for("nvidia.com/mig-1g.10gb", 2, SOON).await.unwrap();
    node.plugins.update(wanted([whole(4)]));
    kubelet
        .wait_until("no MIG device", SOON, |kubelet| {
            kubelet
                .capacity()
                .get("nvidia.com/mig-1g.10gb")
                .is_none_or(|&(capacity, _)| capacity == 0)
        })
        .await
        .unwrap();
    let status = node
        .until("one registered", |status| status.registered.len() == 1)
        .await;
    assert_eq!(status.registered, BTreeSet::from(["nvidia.com/gpu".to_owned()]));
    assert_eq!(kubelet.allocatable("nvidia.com/gpu"), Some(4));
    let left = || std::fs::read_dir(node.sockets()).unwrap().flatten();
    let ours = left().filter(|entry| entry.file_name().to_string_lossy().starts_with("pitcrew-mig"));
    assert_eq!(ours.count(), 0);
}

#[tokio::test]
async fn an_update_that_changes_nothing_does_nothing() {
    let (mut node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(4)]));
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
    node.until("registered", |status| status.registered.len() == 1)
        .await;
    node.told();
    for _ in 0..10 {
        node.plugins.update(wanted([whole(4)]));
    }
    // What is new goes through the stream of the same registration.
    node.plugins.update(wanted([whole(5)]));
    kubelet.wait_for("nvidia.com/gpu", 5, SOON).await.unwrap();
    let told = node.told();
    assert!(!told.iter().any(|text| text.contains("registered")), "{told:?}");
}

#[tokio::test]
async fn an_agent_that_is_killed_takes_its_place_again() {
    let (mut node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(4)]));
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
    let before = kubelet.admit(&pod("train", "nvidia.com/gpu", 3)).await.unwrap();
    for _ in 0..3 {
        node.restart_agent();
        node.plugins.update(wanted([whole(4)]));
        node.until("registered", |status| {
            status.registered.len() == 1 && status.held_back.is_empty()
        })
        .await;
        kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
        let again = kubelet
            .restart_container("default", "train", "main")
            .await
            .unwrap();
        assert_eq!(again, before["main"]);
    }
    assert!(kubelet.admit(&pod("two", "nvidia.com/gpu", 2)).await.is_err());
    kubelet.admit(&pod("one", "nvidia.com/gpu", 1)).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_ends_leaves_no_socket_and_its_devices_unhealthy() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(4)]));
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
    let sockets = node.sockets();
    let Node {
        plugins, dir: _dir, ..
    } = node;
    plugins.stop().await;
    kubelet.wait_for("nvidia.com/gpu", 0, SOON).await.unwrap();
    // Capacity stays: it comes back in a moment.
    assert_eq!(kubelet.capacity()["nvidia.com/gpu"], (4, 0));
    assert!(!sockets.join("pitcrew-gpu.sock").exists());
}

#[tokio::test]
async fn nothing_is_offered_before_it_is_known_how_a_container_gets_it() {
    let (node, kubelet) = Node::with_kubelet().await;
    let unknown = Wanted {
        answers: Answers::default().into(),
        ..wanted([whole(4)])
    };
    node.plugins.update(unknown);
    node.until_problem("RuntimeUnknown").await;
    assert_eq!(kubelet.registered(), [""; 0]);
    node.plugins.update(wanted([whole(4)]));
    kubelet.wait_for("nvidia.com/gpu", 4, SOON).await.unwrap();
}

#[tokio::test]
async fn a_resource_may_go_and_come_again_at_once() {
    let (mut node, kubelet) = Node::with_kubelet().await;
    for _ in 0..3 {
        node.plugins.update(wanted([whole(4), mig(4, 2)]));
        kubelet.wait_for("nvidia.com/mig-1g.10gb", 2, SOON).await.unwrap();
        node.plugins.update(wanted([whole(4)]));
        node.until("held as before", |status| status.problem.is_none())
            .await;
    }
    node.plugins.update(wanted([whole(4), mig(4, 2)]));
    kubelet.wait_for("nvidia.com/mig-1g.10gb", 2, SOON).await.unwrap();
    let told = node.told();
    assert!(
        !told.iter().any(|text| text.contains("another process")),
        "{told:?}"
    );
}
