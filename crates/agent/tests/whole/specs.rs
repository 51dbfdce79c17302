//! CDI specifications, while somebody is being given what they describe.

use std::time::Duration;

use pitcrew_core::plugin::config::MigStrategy;
use pitcrew_core::ports::Mig as _;
use pitcrew_kubelet::device_plugin::{AllocateRequest, ContainerAllocateRequest, DevicePluginClient};
use pitcrew_scenario::Change;

use crate::bench::{Bench, GPU};

/// Has a device answered as the kubelet does, which doesn't write it down.
async fn allocate(bench: &Bench, id: &str) -> Result<(), tonic::Status> {
    let socket = bench.node.kubelet().plugin(GPU).unwrap();
    let channel = pitcrew_kubelet::connect(&socket, Duration::from_secs(20))
        .await
        .unwrap();
    let request = AllocateRequest {
        container_requests: vec![ContainerAllocateRequest {
            device_ids: vec![id.to_owned()],
        }],
    };
    let answer = DevicePluginClient::new(channel).allocate(request).await;
    answer.map(|_| ())
}

/// What chaos found: between the answer and the kubelet's note of it nobody but the device plugin knows the holder.
#[tokio::test]
async fn a_name_that_was_just_answered_stays_though_the_kubelet_does_not_know_its_holder_yet() {
    let mut bench = Bench::new("h100x8").await;
    bench.node.settings_mut().overrides.mig_strategy = Some(MigStrategy::Mixed);
    bench.node.start_agent().await;
    bench.has(GPU, 8).await;
    let mut machine = bench.node.machine().clone();
    let uuid = machine.uuids()[0].clone();
    allocate(&bench, &uuid).await.unwrap();
    machine.set_mode(&uuid, true).unwrap();
    let device = machine.create(&uuid, &"3g.40gb".parse().unwrap(), None).unwrap();
    bench
        .until("the new device is in the specification", || {
            bench.in_spec().contains(&device.uuid)
        })
        .await;
    assert!(bench.in_spec().contains(&uuid), "{:?}", bench.in_spec());
    // Nobody was given this one.
    let other = machine.uuids()[1].clone();
    machine.set_mode(&other, true).unwrap();
    bench
        .until("its name goes", || !bench.in_spec().contains(&other))
        .await;
    assert!(allocate(&bench, &other).await.is_err());
}

#[tokio::test]
async fn specifications_stay_while_a_driver_is_replaced_and_go_when_it_stays_away() {
    let bench = Bench::running("rtx3060", 1).await;
    let before = bench.in_spec();
    bench.change(&Change::UnloadDriver);
    bench.tells("nothing of it is written or removed").await;
    assert_eq!(bench.in_spec(), before);
    assert!(
        allocate(&bench, &before[0]).await.is_err(),
        "and nobody is given it"
    );
    bench.change(&Change::ReplaceDriver {
        version: "590.48.01".to_owned(),
    });
    bench.has(GPU, 1).await;
    assert!(!bench.told().contains("removed `"), "{}", bench.told());
    bench.change(&Change::UnloadDriver);
    bench
        .until("the specification goes", || !bench.spec_path().exists())
        .await;
}
