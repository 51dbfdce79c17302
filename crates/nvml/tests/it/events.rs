//! Events, and what becomes of them when a GPU is lost.

use std::time::Duration;

use pitcrew_core::Reading;
use pitcrew_core::ports::{Events, GpuError, GpuEvent, GpuEventKind, InventorySource};
use pitcrew_nvml::Nvml;

use crate::library::build;

const GPU0: &str = "GPU-00000000-0000-4000-8000-000000000000";
const GPU1: &str = "GPU-00000000-0000-4000-8000-000000000001";

#[test]
fn xids_come_with_their_instances_and_are_remembered() {
    let built = build(&[]);
    let mut nvml = Nvml::load(Some(&built.file), &[]).unwrap();
    let xids = |nvml: &mut Nvml| nvml.inventory().unwrap().gpus.remove(0).readings.xids;
    assert_eq!(
        xids(&mut nvml),
        Reading::NotSupported,
        "NVML has no memory of them"
    );

    let mut events = nvml.events().unwrap();
    assert_eq!(events.gpus().collect::<Vec<_>>(), [GPU0, GPU1]);
    assert_eq!(xids(&mut nvml), Reading::Value(Vec::new()));
    let event = |xid, gpu_instance, compute_instance| GpuEvent {
        uuid: GPU0.to_owned(),
        kind: GpuEventKind::Xid(xid),
        gpu_instance,
        compute_instance,
    };
    let mut next = || events.wait(Duration::ZERO).unwrap();
    assert_eq!(next(), Some(event(79, None, None)));
    assert_eq!(next(), Some(event(43, Some(3), Some(0))));
    assert_eq!(next(), None, "a timeout is no error");
    assert_eq!(xids(&mut nvml), Reading::Value(vec![79, 43]));
    drop(events);
    assert_eq!(
        xids(&mut nvml),
        Reading::NotSupported,
        "since nobody listens, no XID is no news"
    );
}

#[test]
fn a_lost_gpu_is_named_once_and_the_others_go_on() {
    let built = build(&["LOST"]);
    let nvml = Nvml::load(Some(&built.file), &[]).unwrap();
    let mut events = nvml.events().unwrap();
    assert_eq!(
        events.wait(Duration::ZERO),
        Err(GpuError::GpuLost(GPU1.to_owned()))
    );
    assert_eq!(events.gpus().collect::<Vec<_>>(), [GPU0]);
    let event = events.wait(Duration::ZERO).unwrap().unwrap();
    assert_eq!(event.kind, GpuEventKind::Xid(79));
}

#[test]
fn a_driver_that_names_no_lost_gpu_is_told_as_broken() {
    let built = build(&["STORM"]);
    let nvml = Nvml::load(Some(&built.file), &[]).unwrap();
    let mut events = nvml.events().unwrap();
    assert!(matches!(
        events.wait(Duration::ZERO),
        Err(GpuError::DriverFailed(_))
    ));
}
