//! Copies between stand-ins.

use std::time::Duration;

use pitcrew_core::proof::{CorruptionClass, Outcome, PeerPath, PeerRoute, Skip};
use pitcrew_prove::device::Device;
use pitcrew_prove::pace::Pace;
use pitcrew_prove::peers::{self, Peers};
use pitcrew_prove::stand_in::{Ailment, StandIn};

use crate::bed::{description, h100, near};

/// GPUs that see each other.
fn pair(bad: Option<Ailment>) -> Vec<StandIn> {
    let devices: Vec<StandIn> = (0..2)
        .map(|number| {
            let mut description = description(bad.filter(|_| number == 1).as_slice(), 5);
            description.facts.uuid = format!("GPU-{number}");
            description.rates.peer = Some(378e9);
            StandIn::new(description)
        })
        .collect();
    StandIn::connect(&devices);
    devices
}

/// Each stand-in has a time of its own: that of both together is what counts.
struct Both<'a>(&'a [StandIn]);

impl Pace for Both<'_> {
    fn elapsed(&self) -> Duration {
        self.0.iter().map(Pace::elapsed).sum()
    }
    fn rest(&self, time: Duration) {
        self.0[0].rest(time);
    }
}

fn peers_of(devices: &[StandIn]) -> Vec<PeerPath> {
    let all: Vec<&dyn Device> = devices.iter().map(|device| device as &dyn Device).collect();
    peers::run(
        &Peers {
            devices: &all,
            pace: &Both(devices),
            is_cancelled: &|| false,
            route: &|_, _| PeerRoute::NvLink,
        },
        Duration::from_secs(1),
    )
}

#[test]
fn copies_between_gpus_are_measured_and_compared_in_each_direction() {
    let paths = peers_of(&pair(None));
    let ends: Vec<_> = paths.iter().map(|path| (path.from, path.to)).collect();
    assert_eq!(ends, [(0, 1), (1, 0)]);
    for path in &paths {
        assert_eq!(path.outcome, Outcome::Ran);
        assert!(near(path.rate.unwrap().p50, 378.0), "{path:?}");
        assert!(near(path.both_ways.unwrap().p50, 378.0), "{path:?}");
        assert!(path.verified_bytes > 0 && path.corruption_count == 0);
    }
}

#[test]
fn what_arrives_wrong_at_a_peer_is_found_in_that_direction() {
    let stuck = Ailment::StuckBit {
        address: 2000,
        bit: 1,
        value: true,
    };
    let paths = peers_of(&pair(Some(stuck)));
    assert_eq!(paths[0].corruptions[0].class, CorruptionClass::Transfer);
    assert_eq!(paths[0].corruptions[0].difference().unwrap().0, 2);
}

#[test]
fn gpus_without_a_way_to_each_other_say_so() {
    let devices = [h100(&[], 1), h100(&[], 2)];
    for path in peers_of(&devices) {
        assert_eq!(path.route, PeerRoute::Host);
        assert!(matches!(
            path.outcome,
            Outcome::Skipped {
                skip: Skip::Unsupported,
                ..
            }
        ));
    }
}
