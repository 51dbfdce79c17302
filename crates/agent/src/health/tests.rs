use std::time::{Duration, Instant};

use pitcrew_core::ports::{InventorySource as _, Mig as _};
use pitcrew_scenario::{Change as Act, Machine, Scenario};
use proptest::prelude::*;

use super::*;

const STEP: Duration = Duration::from_secs(5);

/// Imaginary GPUs and their health, on a clock that stands still until it is told to go on.
struct Bench {
    machine: Machine,
    events: pitcrew_scenario::EventQueue,
    health: Health,
    now: Instant,
}

impl Bench {
    fn new(scenario: &str) -> Self {
        let machine = Machine::new(Scenario::builtin(scenario).unwrap());
        let events = machine.events();
        let mut bench = Self {
            machine,
            events,
            health: Health::new(XidFilter::default(), PROBATION),
            now: Instant::now(),
        };
        bench.look();
        bench
    }

    fn look(&mut self) -> Vec<Change> {
        self.now += STEP;
        match self.machine.inventory() {
            Ok(inventory) => self.health.look(&inventory, self.now),
            Err(error) => self.health.failed(&error),
        }
    }

    /// Does something, then hears of it.
    fn act(&mut self, act: &Act) -> Vec<Change> {
        self.machine.change(act).unwrap();
        let mut changes = Vec::new();
        while let Some(event) = self.events.take() {
            changes.extend(self.health.event(&event, self.now));
        }
        changes
    }

    fn xid(&mut self, gpu: u32, xid: u32) -> Vec<Change> {
        self.act(&Act::Xid {
            gpu,
            xid,
            gpu_instance: None,
        })
    }

    fn set(&mut self, gpu: u32, field: &str, value: &str) {
        self.act(&Act::SetReading {
            gpu,
            field: field.to_owned(),
            value: serde_json::from_str::<serde_json::Value>(value)
                .ok()
                .and_then(|value| serde_json::from_value(value).ok())
                .unwrap(),
        });
    }

    fn uuid(&self, gpu: usize) -> String {
        self.machine.uuids()[gpu].clone()
    }

    fn sick(&self) -> Vec<&str> {
        self.health.sick().keys().map(String::as_str).collect()
    }

    /// Looks until nothing is sick; how long that took.
    fn until_well(&mut self, most: Duration) -> Option<Duration> {
        let start = self.now;
        while self.now - start < most {
            self.look();
            if self.health.sick().is_empty() {
                return Some(self.now - start);
            }
        }
        None
    }
}

/// Pain 15 of devices.md, section 7: why is my GPU unhealthy?
#[test]
fn an_xid_makes_its_gpu_sick_and_the_reason_names_it_in_words() {
    let mut bench = Bench::new("h100x8");
    let changes = bench.xid(3, 48);
    let [Change::Sick { uuid, reason }] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert_eq!(*uuid, bench.uuid(3));
    assert_eq!(
        reason,
        "XID 48: a double-bit memory error that ECC could not correct. Drain the GPU's pods and reset the GPU"
    );
    assert_eq!(bench.sick(), [bench.uuid(3)]);
    assert!(bench.xid(3, 13).is_empty(), "an application's own fault");
}

/// Pain 1 of devices.md, section 7: an unhealthy GPU never recovers.
#[test]
fn a_sick_gpu_comes_back_after_its_probation() {
    let mut bench = Bench::new("h100x8");
    bench.xid(0, 119);
    bench.look();
    assert!(bench.health.is_waiting());
    let took = bench.until_well(Duration::from_mins(5)).unwrap();
    assert!(took >= PROBATION && took <= PROBATION + 2 * STEP, "{took:?}");
    assert!(!bench.health.is_waiting());
}

#[test]
fn another_xid_begins_the_probation_anew() {
    let mut bench = Bench::new("h100x8");
    bench.xid(0, 119);
    for _ in 0..10 {
        bench.look();
    }
    bench.xid(0, 119);
    let took = bench.until_well(Duration::from_mins(5)).unwrap();
    assert!(took >= PROBATION, "{took:?}");
}

#[test]
fn a_gpu_that_falls_sick_again_waits_twice_as_long_each_time() {
    let mut bench = Bench::new("h100x8");
    let mut last = Duration::ZERO;
    for _ in 0..4 {
        bench.xid(0, 119);
        let took = bench.until_well(Duration::from_secs(4000)).unwrap();
        assert!(
            took + 2 * STEP >= last * 2 && took > last,
            "{took:?} after {last:?}"
        );
        last = took;
    }
    // A day later all is forgotten.
    bench.now += Duration::from_hours(24);
    bench.xid(0, 119);
    assert!(bench.until_well(Duration::from_secs(4000)).unwrap() <= PROBATION + 2 * STEP);
}

#[test]
fn a_gpu_does_not_come_back_while_the_driver_wants_a_reset_or_memory_waits_for_one() {
    for (field, value, after) in [
        ("recovery_action", "\"gpu-reset\"", "\"none\""),
        ("recovery_action", "\"drain-and-reset\"", "\"none\""),
        (
            "remapped_rows",
            r#"{"correctable": 0, "uncorrectable": 1, "pending": true, "failure": false}"#,
            r#"{"correctable": 0, "uncorrectable": 1, "pending": false, "failure": false}"#,
        ),
        ("ecc_uncorrected", "1", "0"),
    ] {
        let mut bench = Bench::new("h100x8");
        bench.xid(2, 94);
        bench.set(2, field, value);
        assert_eq!(bench.until_well(Duration::from_mins(30)), None, "{field} {value}");
        let reason = bench.health.sick()[&bench.uuid(2)].clone();
        assert!(
            reason.starts_with("XID 94: ") && reason.contains("; "),
            "{reason}"
        );
        bench.set(2, field, after);
        let took = bench.until_well(Duration::from_mins(5)).unwrap();
        assert!(took >= PROBATION, "{field}: {took:?}");
    }
}

#[test]
fn a_gpu_that_the_driver_wants_reset_or_drained_is_sick_without_any_xid() {
    for (value, is_sick) in [
        ("\"gpu-reset\"", true),
        ("\"node-reboot\"", true),
        ("\"drain-and-reset\"", true),
        ("\"drain-p2p\"", false),
        ("\"none\"", false),
    ] {
        let mut bench = Bench::new("h100x8");
        bench.set(1, "recovery_action", value);
        bench.look();
        assert_eq!(!bench.sick().is_empty(), is_sick, "{value}");
        if is_sick {
            let reason = &bench.health.sick()[&bench.uuid(1)];
            assert!(reason.starts_with("the driver wants"), "{reason}");
        }
    }
}

#[test]
fn a_driver_that_does_not_say_what_a_gpu_needs_has_it_wait_ten_times_as_long() {
    let mut bench = Bench::new("h100x8");
    bench.act(&Act::Unsupported {
        gpu: 0,
        field: "recovery_action".to_owned(),
    });
    bench.xid(0, 119);
    let took = bench.until_well(Duration::from_secs(4000)).unwrap();
    assert!(took >= PROBATION * 10, "{took:?}");
}

/// Pain 2 of devices.md, section 7: one lost GPU breaks allocation for all.
#[test]
fn a_lost_gpu_is_sick_alone_and_returns_when_it_answers_again() {
    let mut bench = Bench::new("h100x8");
    let uuid = bench.uuid(5);
    let changes = bench.act(&Act::FallOffBus { gpu: 5 });
    assert!(matches!(&changes[..], [Change::Sick { uuid: sick, .. }] if *sick == uuid));
    bench.look();
    assert_eq!(bench.sick(), [uuid.as_str()], "known by its place");
    assert_eq!(bench.until_well(Duration::from_mins(10)), None);
    bench.act(&Act::Return { gpu: 5 });
    bench.look();
    let took = bench.until_well(Duration::from_mins(10)).unwrap();
    assert!(took + STEP >= PROBATION, "{took:?}");
}

#[test]
fn a_gpu_that_is_gone_from_the_drivers_list_is_sick_until_it_is_forgotten() {
    let mut bench = Bench::new("h100x8");
    let mut inventory = bench.machine.inventory().unwrap();
    let gone = inventory.gpus.remove(7);
    let uuid = gone.readings.uuid.value().unwrap().clone();
    bench.health.look(&inventory, bench.now);
    assert_eq!(bench.sick(), [uuid.as_str()]);
    assert_eq!(bench.health.forget(&uuid), []);
    assert!(bench.sick().is_empty());
}

/// Pain 14 of devices.md, section 7: health checks silently off. What can't be asked is sick, and says why.
#[test]
fn a_driver_that_does_not_answer_makes_all_sick_and_none_when_it_answers_again() {
    let mut bench = Bench::new("h100x8");
    bench.act(&Act::BreakDriver {
        reason: "Unknown Error".to_owned(),
    });
    assert_eq!(bench.look().len(), 8);
    assert!(
        bench
            .health
            .sick()
            .values()
            .all(|reason| reason.contains("Unknown Error"))
    );
    assert!(bench.health.is_waiting());
    bench.act(&Act::ReplaceDriver {
        version: "590.48.01".to_owned(),
    });
    assert_eq!(bench.look().len(), 8);
    assert!(bench.sick().is_empty(), "without probation");
}

#[test]
fn a_call_that_hangs_makes_only_its_gpu_sick_where_the_driver_can_tell_which() {
    let mut bench = Bench::new("h100x8");
    let uuid = bench.uuid(4);
    bench.health.failed(&GpuError::Silent {
        gpu: uuid.clone(),
        reason: "`nvmlDeviceGetName` has not returned for 10 s".to_owned(),
    });
    assert_eq!(bench.sick(), [uuid.as_str()]);
    assert_eq!(
        bench.health.sick()[&uuid],
        "the GPU does not answer: `nvmlDeviceGetName` has not returned for 10 s"
    );
    bench.xid(1, 48);
    assert_eq!(bench.sick().len(), 2, "the others are watched all the time");
    bench.look();
    assert_eq!(bench.sick(), [bench.uuid(1)]);
}

#[test]
fn a_gpu_that_a_look_found_silent_is_sick_for_one_reason_and_well_without_probation() {
    let mut bench = Bench::new("h100x8");
    let uuid = bench.uuid(4);
    bench.xid(1, 119);
    let hang = Act::Hang {
        call: "nvmlDeviceGetName".to_owned(),
        gpu: Some(4),
    };
    bench.machine.change(&hang).unwrap();
    let beside = bench.machine.inventory_beside_hangs().unwrap();
    assert_eq!(beside.silence(4), Some("`nvmlDeviceGetName` did not return"));
    let changes = bench.health.look(&beside, bench.now);
    let silent = "the GPU does not answer: `nvmlDeviceGetName` did not return".to_owned();
    let sick = Change::Sick {
        uuid: uuid.clone(),
        reason: silent.clone(),
    };
    assert_eq!(changes, [sick]);
    assert_eq!(bench.health.look(&beside, bench.now), [], "it is told once");
    assert_eq!(bench.sick().len(), 2);
    assert!(bench.health.is_waiting());
    bench.machine.change(&Act::Release).unwrap();
    assert!(bench.look().contains(&Change::Well { uuid }));
}

#[test]
fn a_look_that_failed_in_between_begins_the_probation_anew() {
    let mut bench = Bench::new("h100x8");
    bench.xid(0, 119);
    for _ in 0..11 {
        bench.look();
    }
    bench
        .health
        .failed(&GpuError::DriverFailed("no answer".to_owned()));
    let took = bench.until_well(Duration::from_mins(10)).unwrap();
    assert!(took >= PROBATION, "{took:?}");
}

#[test]
fn a_driver_that_is_let_go_of_has_no_gpu_that_can_be_used() {
    let mut bench = Bench::new("h100x8");
    assert_eq!(bench.health.released("it is being replaced").len(), 8);
    assert_eq!(bench.look().len(), 8);
    assert!(bench.sick().is_empty());
}

/// A GPU with two MIG devices, in GPU instances of their own.
fn cut() -> (Bench, Vec<pitcrew_core::gpu::MigDevice>) {
    let mut bench = Bench::new("h100x8");
    let uuid = bench.uuid(0);
    let profile: pitcrew_core::mig::Profile = "3g.40gb".parse().unwrap();
    bench.machine.set_mode(&uuid, true).unwrap();
    let devices = (0..2)
        .map(|_| bench.machine.create(&uuid, &profile, None).unwrap())
        .collect();
    bench.look();
    (bench, devices)
}

fn in_instance(xid: u32, instance: u32) -> Act {
    Act::Xid {
        gpu: 0,
        xid,
        gpu_instance: Some(instance),
    }
}

#[test]
fn a_contained_fault_in_a_gpu_instance_leaves_the_other_mig_devices_well() {
    let (mut bench, devices) = cut();
    let first = &devices[0];
    bench.act(&in_instance(94, first.gpu_instance));
    assert_eq!(bench.sick(), [first.uuid.as_str()]);
    bench.look();
    assert!(bench.until_well(Duration::from_mins(5)).is_some());
}

#[test]
fn an_uncontained_fault_in_a_gpu_instance_is_the_whole_gpus() {
    let (mut bench, devices) = cut();
    bench.act(&in_instance(95, devices[0].gpu_instance));
    assert_eq!(bench.sick(), [bench.uuid(0)]);
}

#[test]
fn a_fault_in_an_instance_that_nobody_knows_is_the_whole_gpus() {
    let (mut bench, _) = cut();
    bench.act(&in_instance(94, 77));
    assert_eq!(bench.sick(), [bench.uuid(0)]);
}

#[test]
fn a_gpu_instance_that_is_destroyed_takes_its_fault_along() {
    let (mut bench, devices) = cut();
    bench.act(&in_instance(94, devices[0].gpu_instance));
    let uuid = bench.uuid(0);
    bench.machine.destroy(&uuid, devices[0].gpu_instance).unwrap();
    bench.look();
    assert!(bench.sick().is_empty());
    assert!(!bench.health.is_waiting());
}

proptest! {
    /// Whatever happens in whatever order, what is told adds up to what is so; and once nothing happens any more,
    /// all is well again.
    #[test]
    fn changes_add_up_and_everything_ends_well(steps in prop::collection::vec((0_u32..4, 0_u8..8), 0..60)) {
        let mut bench = Bench::new("h100x8");
        let mut told: BTreeMap<String, String> = bench.health.sick().clone();
        for (gpu, what) in steps {
            let changes = match what {
                0 => bench.xid(gpu, 48),
                1 => bench.xid(gpu, 31),
                // One that is lost already can't be lost again.
                2 => {
                    let _ = bench.machine.change(&Act::FallOffBus { gpu });
                    Vec::new()
                }
                3 => {
                    let _ = bench.machine.change(&Act::Return { gpu });
                    Vec::new()
                }
                4 => bench.health.failed(&GpuError::DriverFailed("no answer".to_owned())),
                5 => bench.health.failed(&GpuError::Silent { gpu: bench.uuid(1), reason: "x".to_owned() }),
                6 => bench.health.released("x"),
                _ => bench.look(),
            };
            for change in changes {
                match change {
                    Change::Sick { uuid, reason } => { told.insert(uuid, reason); }
                    Change::Well { uuid } => { prop_assert!(told.remove(&uuid).is_some()); }
                }
            }
            prop_assert_eq!(&told, bench.health.sick());
        }
        for gpu in 0..4 {
            let _ = bench.machine.change(&Act::Return { gpu });
        }
        prop_assert!(bench.until_well(LONGEST * 2).is_some(), "{:?}", bench.health.sick());
    }
}
