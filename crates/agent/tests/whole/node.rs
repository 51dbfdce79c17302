//! The rest of a node: kubelet, API server, configuration, the agent itself.

use std::time::Duration;

use pitcrew_agent::config::Source;
use pitcrew_apiserver::{Fault, Match};
use pitcrew_kubelet::fake::Pod;

use crate::bench::{Bench, GPU};

#[tokio::test]
async fn a_kubelet_that_is_late_is_waited_for() {
    let mut bench = Bench::new("rtx3060").await;
    bench.node.kubelet().stop().await;
    bench.node.start_agent().await;
    bench
        .until("the specification is written", || bench.in_spec().len() == 1)
        .await;
    bench.node.kubelet().resume().await.unwrap();
    bench.has(GPU, 1).await;
}

#[tokio::test]
async fn gpus_are_handed_out_without_any_api_server() {
    let bench = Bench::new("rtx3060").await;
    let mut deps = bench.node.deps();
    deps.client = None;
    let agent = tokio::spawn(pitcrew_agent::run(deps, std::future::pending()));
    bench.has(GPU, 1).await;
    agent.abort();
}

#[tokio::test]
async fn a_configuration_that_is_changed_is_followed_and_a_bad_one_changes_nothing() {
    let mut bench = Bench::new("rtx3060").await;
    let file = bench.node.root().join("config.yaml");
    let sharing = |replicas: &str| {
        let text = format!(
            "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      replicas: {replicas}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    sharing("4");
    bench.node.settings_mut().sources.source = Source::Path(file.clone());
    bench.node.start_agent().await;
    bench.has(GPU, 4).await;
    sharing("six");
    bench.tells("six").await;
    bench.has(GPU, 4).await;
    sharing("6");
    bench.has(GPU, 6).await;
}

#[tokio::test]
async fn what_a_pod_was_given_is_still_in_the_specification_after_the_agent_was_killed_or_stopped() {
    let mut bench = Bench::running("h100x8", 8).await;
    let pod = Pod::new("default", "one").container("main", &[(GPU, 1)]);
    bench.node.kubelet().admit(&pod).await.unwrap();
    let before = std::fs::read_to_string(bench.spec_path()).unwrap();
    bench.node.stop_agent().await.unwrap();
    assert_eq!(std::fs::read_to_string(bench.spec_path()).unwrap(), before);
    bench.has(GPU, 0).await;
    bench.node.start_agent().await;
    bench.has(GPU, 8).await;
    bench.node.kill_agent().await;
    assert_eq!(std::fs::read_to_string(bench.spec_path()).unwrap(), before);
    bench.node.start_agent().await;
    bench.has(GPU, 8).await;
    assert_eq!(std::fs::read_to_string(bench.spec_path()).unwrap(), before);
}

#[tokio::test]
async fn a_specification_that_somebody_removes_is_written_again() {
    let bench = Bench::running("rtx3060", 1).await;
    std::fs::remove_file(bench.spec_path()).unwrap();
    bench
        .until("it is there again", || bench.in_spec().len() == 1)
        .await;
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_stops_soon_also_while_the_driver_hangs() {
    let mut bench = Bench::running("rtx3060", 1).await;
    bench.change(&pitcrew_scenario::Change::Hang {
        call: "nvmlDevice*".to_owned(),
        gpu: None,
    });
    bench.has(GPU, 0).await;
    let stopped = tokio::time::timeout(Duration::from_secs(20), bench.node.stop_agent()).await;
    stopped.unwrap().unwrap();
    assert!(!bench.node.driver().is_open());
}

/// The API server is there and refuses everything, from before the agent starts.
#[tokio::test]
async fn gpus_are_handed_out_while_the_api_server_refuses_everything() {
    let mut bench = Bench::new("h100x8").await;
    bench
        .node
        .api()
        .faults()
        .fail(Match::default(), Fault::Refused, usize::MAX);
    bench.node.start_agent().await;
    bench.has(GPU, 8).await;
    bench.change(&pitcrew_scenario::Change::FallOffBus { gpu: 0 });
    bench.has(GPU, 7).await;
    bench.node.api().faults().clear();
    bench.has_label("nvidia.com/gpu.count", "7").await;
}

/// 2 s on mock NVML is the promise; a machine that has much else to do may take longer.
#[tokio::test]
async fn devices_are_known_to_the_kubelet_soon_after_the_agents_start() {
    let mut bench = Bench::new("h100x8").await;
    let start = std::time::Instant::now();
    bench.node.start_agent().await;
    bench.has(GPU, 8).await;
    let took = start.elapsed();
    println!("figure: agent start to 8 allocatable GPUs at the fake kubelet: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_gpu_that_is_shared_through_mps_is_handed_out_once_its_daemon_answers() {
    let mut bench = Bench::new("rtx3060").await;
    let file = bench.node.root().join("config.yaml");
    let text =
        "version: v1\nsharing:\n  mps:\n    resources:\n    - name: nvidia.com/gpu\n      replicas: 4\n";
    std::fs::write(&file, text).unwrap();
    bench.node.settings_mut().sources.source = Source::Path(file.clone());
    bench.node.start_agent().await;
    bench.has(GPU, 4).await;
    assert_eq!(bench.node.system().running().len(), 1);
    bench.node.stop_agent().await.unwrap();
    assert_eq!(bench.node.system().running().len(), 1, "it outlives its agent");
    bench.node.start_agent().await;
    bench.has(GPU, 4).await;
    assert_eq!(
        bench.node.system().started().len(),
        1,
        "the next one takes it over"
    );
    std::fs::write(&file, "version: v1\n").unwrap();
    bench.has(GPU, 1).await;
    bench
        .until("no daemon", || bench.node.system().running().is_empty())
        .await;
}
