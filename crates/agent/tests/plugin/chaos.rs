//! Everything at once, by seed: pods come and go, the sharing changes, kubelet and agent are killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pitcrew_core::plugin::{Resource, Sharing};
use pitcrew_kubelet::fake::{Kubelet, Started};

use crate::node::{Node, SOON, double_booked, mig, pod, resource, wanted, whole};

const GPU: &str = "nvidia.com/gpu";
const SHARED: &str = "nvidia.com/gpu.shared";

/// Small numbers that are the same for the same seed.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }
}

/// How the node of three GPUs may be configured.
fn layout(number: u64) -> Vec<Resource> {
    match number {
        0 => vec![whole(3)],
        1 => vec![resource(GPU, 3, Sharing::TimeSlicing, 4)],
        2 => vec![resource(SHARED, 3, Sharing::TimeSlicing, 4)],
        3 => vec![resource(GPU, 3, Sharing::Mps, 4)],
        _ => vec![whole(2), mig(3, 7)],
    }
}

async fn storm(seed: u64, length: Duration) {
    let mut random = Seeded(seed);
    let (mut node, kubelet) = Node::with_kubelet().await;
    let mut now = 0;
    node.plugins.update(wanted(layout(now)));
    let mut pods: BTreeMap<String, Started> = BTreeMap::new();
    let end = Instant::now() + length;
    let (mut number, mut admitted) = (0, 0);
    while Instant::now() < end {
        match random.below(40) {
            0..16 => {
                number += 1;
                let name = format!("pod-{number}");
                let there = layout(now);
                let from = &there[usize::try_from(random.below(2)).unwrap() % there.len()].name;
                if let Ok(mut started) = kubelet.admit(&pod(&name, from, 1)).await {
                    admitted += 1;
                    pods.insert(name, started.remove("main").unwrap());
                }
            }
            16..28 => {
                let at = usize::try_from(random.below(8)).unwrap();
                if let Some(name) = pods.keys().nth(at).cloned() {
                    pods.remove(&name);
                    assert!(kubelet.remove_pod("default", &name), "seed {seed}");
                }
            }
            28..30 => {
                now = random.below(5);
                node.plugins.update(wanted(layout(now)));
            }
            30 => kubelet.restart().await.unwrap(),
            31 => {
                node.restart_agent();
                node.plugins.update(wanted(layout(now)));
            }
            32 => {
                let _ = std::fs::remove_file(node.sockets().join("pitcrew-gpu.sock"));
            }
            33..35 => {
                let mut sick = wanted(layout(now));
                sick.sick.insert("GPU-1".to_owned(), "XID 79".to_owned());
                node.plugins.update(sick);
            }
            _ => tokio::time::sleep(Duration::from_millis(random.below(100))).await,
        }
        assert_eq!(double_booked(&kubelet), [""; 0], "seed {seed}");
        for (name, before) in &pods {
            let again = kubelet.restart_container("default", name, "main").await;
            assert_eq!(again.as_ref(), Ok(before), "seed {seed}: {name}");
        }
    }
    settle(&node, &kubelet, &pods, seed).await;
    println!("seed {seed}: {admitted} of {number} pods were admitted");
    assert!(
        admitted > 10,
        "seed {seed}: only {admitted} of {number} pods were admitted"
    );
}

/// The capacity comes back.
async fn settle(node: &Node, kubelet: &Kubelet, pods: &BTreeMap<String, Started>, seed: u64) {
    for name in pods.keys() {
        assert!(kubelet.remove_pod("default", name), "seed {seed}");
    }
    node.plugins.update(wanted(layout(0)));
    let all = kubelet.wait_for(GPU, 3, SOON * 3).await;
    assert_eq!(all, Ok(()), "seed {seed}");
    assert!(
        kubelet.admit(&pod("all", GPU, 3)).await.is_ok(),
        "seed {seed}: three GPUs in one pod"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_gpu_is_handed_out_twice_whatever_is_killed_and_switched() {
    for seed in 1..=2 {
        storm(seed, Duration::from_secs(4)).await;
    }
}

/// The long run: `cargo test -p pitcrew-agent --test plugin chaos -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes"]
async fn no_gpu_is_handed_out_twice_for_ten_minutes() {
    let end = Instant::now() + Duration::from_mins(10);
    let mut seed = 100;
    while Instant::now() < end {
        storm(seed, Duration::from_secs(20)).await;
        seed += 1;
    }
}
