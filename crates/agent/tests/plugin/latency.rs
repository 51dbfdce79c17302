//! How long the kubelet waits for an answer: 8 GPUs of 10 shares, over the real socket. The budget is a
//! millisecond in 99 of 100 calls; figures are printed, and judged by a person on a quiet machine.

use std::time::{Duration, Instant};

use pitcrew_core::plugin::Sharing;
use pitcrew_kubelet::device_plugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, DevicePluginClient,
    PreferredAllocationRequest,
};

use crate::node::{Node, SOON, resource, wanted};

const CALLS: usize = 2000;

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)];
    println!(
        "{what}: p50 {:?}, p99 {:?}, p99.9 {:?}, most {:?} of {} calls",
        at(500),
        at(990),
        at(999),
        times[times.len() - 1],
        times.len()
    );
}

/// `cargo test --release -p pitcrew-agent --test plugin latency -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn how_long_answers_take() {
    let (node, kubelet) = Node::with_kubelet().await;
    let shares = resource("nvidia.com/gpu", 8, Sharing::TimeSlicing, 10);
    let ids: Vec<String> = shares.devices.iter().map(|device| device.id.clone()).collect();
    node.plugins.update(wanted([shares]));
    kubelet.wait_for("nvidia.com/gpu", 80, SOON).await.unwrap();
    let socket = node.sockets().join("pitcrew-gpu.sock");
    let channel = pitcrew_kubelet::connect(&socket, SOON).await.unwrap();
    let mut client = DevicePluginClient::new(channel);
    let mut allocate = Vec::with_capacity(CALLS);
    let mut prefer = Vec::with_capacity(CALLS);
    for call in 0..CALLS {
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest {
                device_ids: vec![ids[call % ids.len()].clone()],
            }],
        };
        let begin = Instant::now();
        client.allocate(request).await.unwrap();
        allocate.push(begin.elapsed());
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_ids: ids.clone(),
                must_include_device_ids: Vec::new(),
                allocation_size: i32::try_from(call % 8 + 1).unwrap(),
            }],
        };
        let begin = Instant::now();
        client.get_preferred_allocation(request).await.unwrap();
        prefer.push(begin.elapsed());
    }
    print("Allocate", allocate);
    print("GetPreferredAllocation", prefer);
}
