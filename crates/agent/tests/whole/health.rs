//! Sick GPUs, as the kubelet sees them.

use pitcrew_core::ports::Mig as _;
use pitcrew_scenario::Change;

use crate::bench::{Bench, GPU};

fn xid(gpu: u32, xid: u32) -> Change {
    Change::Xid {
        gpu,
        xid,
        gpu_instance: None,
    }
}

/// Pains 1 and 15 of devices.md, section 7.
#[tokio::test]
async fn a_gpu_with_a_critical_xid_is_unhealthy_with_its_reason_and_comes_back() {
    let bench = Bench::running("h100x8", 8).await;
    bench.change(&xid(2, 13));
    bench.change(&xid(3, 119));
    bench.has(GPU, 7).await;
    let uuid = bench.node.machine().uuids()[3].clone();
    bench
        .tells(&format!(
            "{uuid} is sick: XID 119: the GPU's system processor (GSP)"
        ))
        .await;
    bench.has(GPU, 8).await;
    bench.tells(&format!("{uuid} is well again")).await;
    assert!(!bench.told().contains("XID 13"));
}

#[tokio::test]
async fn all_replicas_of_a_sick_gpu_are_unhealthy() {
    let mut bench = Bench::new("h100x8").await;
    let file = bench.node.root().join("config.yaml");
    let text = "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      replicas: 4\n";
    std::fs::write(&file, text).unwrap();
    bench.node.settings_mut().sources.source = pitcrew_agent::config::Source::Path(file);
    bench.node.start_agent().await;
    bench.has(GPU, 32).await;
    bench.change(&Change::SetReading {
        gpu: 0,
        field: "recovery_action".to_owned(),
        value: serde_json::from_value(serde_json::json!("gpu-reset")).unwrap(),
    });
    bench.has(GPU, 28).await;
    let uuid = bench.node.machine().uuids()[0].clone();
    let sick = bench.unhealthy(GPU);
    assert!(
        sick.len() == 4 && sick.iter().all(|id| id.starts_with(&uuid)),
        "{sick:?}"
    );
}

/// Pain 2 of devices.md, section 7: one lost GPU breaks allocation for all.
#[tokio::test]
async fn a_lost_gpu_stays_listed_as_unhealthy_and_the_others_are_handed_out() {
    let bench = Bench::running("h100x8", 8).await;
    bench.change(&Change::FallOffBus { gpu: 5 });
    bench.has(GPU, 7).await;
    let uuid = bench.node.machine().uuids()[5].clone();
    bench
        .until("it is looked at", || bench.told().contains("is sick"))
        .await;
    tokio::time::sleep(crate::bench::PACE.look * 3).await;
    assert_eq!(bench.unhealthy(GPU), [uuid]);
    let pod = pitcrew_kubelet::fake::Pod::new("default", "seven").container("main", &[(GPU, 7)]);
    bench.node.kubelet().admit(&pod).await.unwrap();
    bench.change(&Change::Return { gpu: 5 });
    bench
        .until("it is healthy again", || bench.unhealthy(GPU).is_empty())
        .await;
}

#[tokio::test]
async fn a_mig_layout_that_is_changed_under_us_is_followed() {
    let mut bench = Bench::new("h100x8").await;
    bench.node.settings_mut().overrides.mig_strategy = Some(pitcrew_core::plugin::config::MigStrategy::Mixed);
    bench.node.start_agent().await;
    bench.has(GPU, 8).await;
    let mut machine = bench.node.machine().clone();
    let uuid = machine.uuids()[0].clone();
    machine.set_mode(&uuid, true).unwrap();
    let profile = "3g.40gb".parse().unwrap();
    let device = machine.create(&uuid, &profile, None).unwrap();
    bench.has(GPU, 7).await;
    bench.has("nvidia.com/mig-3g.40gb", 1).await;
    assert!(bench.in_spec().contains(&device.uuid));
    machine.destroy(&uuid, device.gpu_instance).unwrap();
    machine.set_mode(&uuid, false).unwrap();
    bench.has(GPU, 8).await;
    bench
        .until("nothing is left of it", || {
            !bench.in_spec().contains(&device.uuid)
        })
        .await;
}
