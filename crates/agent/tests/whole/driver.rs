//! A driver that is late, vanishes, is replaced, hangs, or is wanted by somebody else.

use std::time::{Duration, Instant};

use pitcrew_agent::deps::Driver as _;
use pitcrew_scenario::Change;

use crate::bench::{Bench, GPU, LONG};

/// Pain 13 of devices.md, section 7: what starts before the driver stays wrong.
#[tokio::test]
async fn a_driver_that_is_late_is_waited_for() {
    let mut bench = Bench::new("h100x8").await;
    bench.change(&Change::UnloadDriver);
    bench.node.start_agent().await;
    bench.tells("pitcrew check").await;
    assert_eq!(bench.node.kubelet().allocatable(GPU).unwrap_or(0), 0);
    bench.change(&Change::ReplaceDriver {
        version: "580.159.04".to_owned(),
    });
    bench.has(GPU, 8).await;
    assert!(bench.node.agent_runs());
}

#[tokio::test]
async fn a_driver_that_vanishes_and_returns_as_another_one_is_survived() {
    let bench = Bench::running("h100x8", 8).await;
    let before = std::fs::read_to_string(bench.spec_path()).unwrap();
    bench.change(&Change::UnloadDriver);
    bench.has(GPU, 0).await;
    assert_eq!(
        bench.node.kubelet().capacity()[GPU].0,
        8,
        "they are this node's all the same"
    );
    bench.change(&Change::ReplaceDriver {
        version: "590.48.01".to_owned(),
    });
    bench.has(GPU, 8).await;
    bench
        .until("the specification names the new driver's files", || {
            let now = std::fs::read_to_string(bench.spec_path()).unwrap_or_default();
            now != before && now.contains("590.48.01") && !now.contains("580.159.04")
        })
        .await;
    assert!(bench.node.agent_runs());
}

#[tokio::test]
async fn a_call_that_never_returns_makes_devices_unhealthy_and_stops_nothing_else() {
    let bench = Bench::running("h100x8", 8).await;
    bench.change(&Change::Hang {
        call: "nvmlDevice*".to_owned(),
        gpu: None,
    });
    bench.has(GPU, 0).await;
    // Labels, configuration and the kubelet go on.
    bench.node.kubelet().restart().await.unwrap();
    bench
        .until("it has registered again", || {
            bench
                .node
                .kubelet()
                .capacity()
                .get(GPU)
                .is_some_and(|(all, _)| *all == 8)
        })
        .await;
    bench.change(&Change::Release);
    bench.has(GPU, 8).await;
}

#[tokio::test]
async fn a_label_that_pauses_has_the_driver_let_go_of_within_five_seconds() {
    let bench = Bench::running("h100x8", 8).await;
    assert!(bench.node.driver().is_open());
    let key = "nvidia.com/gpu.deploy.device-plugin";
    let start = Instant::now();
    bench.label(key, Some("paused-for-driver-upgrade")).await;
    bench
        .until("the driver is let go of", || !bench.node.driver().is_open())
        .await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    bench.has(GPU, 0).await;
    bench.tells("paused-for-driver-upgrade").await;
    // Nothing of ours opens it again while that lasts.
    let modules = bench.node.system().modules().len();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!bench.node.driver().is_open());
    }
    assert_eq!(bench.node.system().modules().len(), modules);
    bench.label(key, Some("true")).await;
    bench.has(GPU, 8).await;
}

#[tokio::test]
async fn a_driver_that_hangs_when_it_is_to_be_let_go_of_is_let_go_of_all_the_same() {
    let bench = Bench::running("h100x8", 8).await;
    bench.change(&Change::Hang {
        call: "nvmlDevice*".to_owned(),
        gpu: None,
    });
    bench.has(GPU, 0).await;
    bench
        .label("nvidia.com/gpu.deploy.dcgm", Some("paused-for-mig-change"))
        .await;
    let released = bench.until("it is let go of", || !bench.node.driver().is_open());
    tokio::time::timeout(LONG, released).await.unwrap();
    bench.node.driver().release().await.unwrap();
}

#[tokio::test]
async fn a_call_that_never_returns_makes_its_own_gpu_unhealthy_and_no_other() {
    let bench = Bench::running("h100x8", 8).await;
    let uuid = bench.node.machine().uuids()[3].clone();
    bench.change(&Change::Hang {
        call: "nvmlDeviceGetName".to_owned(),
        gpu: Some(3),
    });
    bench.has(GPU, 7).await;
    assert_eq!(bench.unhealthy(GPU), [uuid.as_str()]);
    bench
        .tells(&format!(
            "{uuid} is sick: the GPU does not answer: `nvmlDeviceGetName` did not return"
        ))
        .await;
    let pod = pitcrew_kubelet::fake::Pod::new("default", "seven").container("main", &[(GPU, 7)]);
    bench.node.kubelet().admit(&pod).await.unwrap();
    bench.change(&Change::Release);
    bench
        .until("it is healthy again", || bench.unhealthy(GPU).is_empty())
        .await;
    bench.tells(&format!("{uuid} is well again")).await;
}
