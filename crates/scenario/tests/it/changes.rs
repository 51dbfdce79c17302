//! What happens while a program runs.

use std::sync::mpsc;
use std::time::Duration;

use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::health::{self, Verdict};
use pitcrew_core::ports::{Clock, Events, GpuError, GpuEventKind, HostFs, InventorySource, Sampling};
use pitcrew_core::{Reading, reading::Unread};
use pitcrew_scenario::{Change, Machine, Value};

use crate::{look, machine};

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_machine_can_be_sent_and_shared() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Machine>();
}

#[test]
fn every_reading_can_fail_and_is_then_absent_and_accounted_for() {
    for field in GpuReadings::FIELDS {
        let machine = machine("h100x8");
        let reason = "Unknown Error".to_owned();
        machine
            .change(&Change::Fail {
                gpu: 2,
                field: (*field).to_owned(),
                reason: reason.clone(),
            })
            .unwrap();
        let inventory = look(&machine);
        let gpu = &inventory.gpus[2];
        assert_eq!(gpu.readings.unread(), [Unread { field, reason }]);
        let json = serde_json::to_value(gpu).unwrap();
        assert!(json.get(field).is_none(), "{field} is still in the output");
        assert!(
            inventory.gpus[1].readings.unread().is_empty(),
            "{field} failed on another GPU too"
        );

        machine
            .change(&Change::Unsupported {
                gpu: 2,
                field: (*field).to_owned(),
            })
            .unwrap();
        assert!(look(&machine).gpus[2].readings.unread().is_empty());
        assert!(!look(&machine).gpus[2].readings.present().contains(field));
        machine
            .change(&Change::Restore {
                gpu: 2,
                field: (*field).to_owned(),
            })
            .unwrap();
        assert!(look(&machine).gpus[2].readings.unread().is_empty());
    }
}

#[test]
fn a_reading_that_is_set_no_longer_fails() {
    let machine = machine("t4");
    let (gpu, field) = (0, "temperature_c".to_owned());
    machine
        .change(&Change::Fail {
            gpu,
            field: field.clone(),
            reason: "x".to_owned(),
        })
        .unwrap();
    machine
        .change(&Change::SetReading {
            gpu,
            field,
            value: Value::Integer(91),
        })
        .unwrap();
    assert_eq!(look(&machine).gpus[0].readings.temperature_c, Reading::Value(91));
}

#[test]
fn changes_that_can_not_happen_say_why() {
    let machine = machine("t4");
    let says = |change: Change| machine.change(&change).unwrap_err().to_string();
    let field = "temprature_c".to_owned();
    insta::assert_snapshot!(says(Change::Unsupported { gpu: 0, field }), @"no reading is called `temprature_c`; did you mean `temperature_c`?");
    insta::assert_snapshot!(says(Change::FallOffBus { gpu: 7 }), @"there is no GPU 7: the node has 1, counted from 0");
    insta::assert_snapshot!(says(Change::Load { gpu: 0, percent: 101 }), @"`percent` must be a whole number from 0 to 100, not `101`");
    insta::assert_snapshot!(says(Change::EndProcess { gpu: 0, pid: 1 }), @"GPU 0: no process 1 holds it");
    insta::assert_snapshot!(says(Change::Hang { call: "nvmlDeviceGetNam".to_owned(), gpu: None }), @"no call matches `nvmlDeviceGetNam`; did you mean `nvmlDeviceGetName`?");
}

#[test]
fn changes_can_be_written_down() {
    let change = Change::Xid {
        gpu: 3,
        xid: 79,
        gpu_instance: None,
    };
    let text = serde_json::to_string(&change).unwrap();
    insta::assert_snapshot!(text, @r#"{"xid":{"gpu":3,"xid":79,"gpu_instance":null}}"#);
    assert_eq!(
        serde_json::from_str::<Change>(r#"{"xid": {"gpu": 3, "xid": 79}}"#).unwrap(),
        change
    );
    assert_eq!(
        serde_json::from_str::<Change>(r#""release""#).unwrap(),
        Change::Release
    );
}

#[test]
fn an_xid_reaches_every_subscriber_and_the_next_snapshot() {
    let machine = machine("a100x8");
    let (mut one, mut two) = (machine.events(), machine.events());
    machine
        .change(&Change::Xid {
            gpu: 0,
            xid: 48,
            gpu_instance: Some(1),
        })
        .unwrap();
    let mut late = machine.events();
    for queue in [&mut one, &mut two] {
        let event = queue.wait(LONG).unwrap().unwrap();
        assert_eq!(event.kind, GpuEventKind::Xid(48));
        assert_eq!(
            (event.uuid, event.gpu_instance),
            (machine.uuids()[0].clone(), Some(1))
        );
        assert_eq!(queue.wait(Duration::ZERO).unwrap(), None);
    }
    assert_eq!(late.wait(SOON).unwrap(), None);
    assert_eq!(look(&machine).gpus[0].readings.xids, Reading::Value(vec![48]));
}

#[test]
fn a_task_that_waits_for_events_is_woken_and_waits_while_there_is_no_driver() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    #[derive(Default)]
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    let machine = machine("t4");
    let mut queue = machine.events();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut poll = || queue.poll(&mut Context::from_waker(&waker));
    let xid = Change::Xid {
        gpu: 0,
        xid: 31,
        gpu_instance: None,
    };
    assert!(poll().is_pending());
    let version = "580.159.04".to_owned();
    for change in [Change::UnloadDriver, xid, Change::ReplaceDriver { version }] {
        machine.change(&change).unwrap();
        if matches!(change, Change::ReplaceDriver { .. }) {
            assert!(matches!(poll(), Poll::Ready(event) if event.kind == GpuEventKind::Xid(31)));
        } else {
            assert!(poll().is_pending());
        }
    }
    assert_eq!(woken.0.load(Ordering::SeqCst), 3, "every change wakes it once");
    assert!(poll().is_pending());
}

#[test]
fn who_waits_for_events_is_woken() {
    let machine = machine("t4");
    let mut queue = machine.events();
    let waiting = std::thread::spawn(move || queue.wait(LONG));
    std::thread::sleep(SOON);
    machine
        .change(&Change::Xid {
            gpu: 0,
            xid: 31,
            gpu_instance: None,
        })
        .unwrap();
    assert_eq!(
        waiting.join().unwrap().unwrap().unwrap().kind,
        GpuEventKind::Xid(31)
    );
}

#[test]
fn a_hanging_call_blocks_until_it_is_released() {
    let machine = machine("h100x8");
    machine
        .change(&Change::Hang {
            call: "nvmlDeviceGetPower*".to_owned(),
            gpu: Some(5),
        })
        .unwrap();
    let (done, answer) = mpsc::channel();
    let mut asker = machine.clone();
    let asking =
        std::thread::spawn(move || done.send(asker.inventory().map(|inventory| inventory.gpus.len())));
    assert!(
        answer.recv_timeout(SOON).is_err(),
        "a hanging driver must not answer"
    );
    // Other calls on other GPUs go on, and so do the host's files.
    let (uuid, mut other) = (machine.uuids()[0].clone(), machine.clone());
    assert!(other.fields(&uuid, &["NVML_FI_DEV_MEMORY_TEMP"]).is_ok());
    assert!(machine.list(std::path::Path::new("/dev")).is_ok());
    machine.change(&Change::Release).unwrap();
    assert_eq!(answer.recv_timeout(LONG).unwrap(), Ok(8));
    asking.join().unwrap().unwrap();
}

#[test]
fn a_gpu_that_falls_off_the_bus_leaves_only_its_pci_function() {
    let mut machine = machine("h100x8");
    let mut queue = machine.events();
    let before = look(&machine);
    let uuid = machine.uuids()[4].clone();
    machine.change(&Change::FallOffBus { gpu: 4 }).unwrap();
    let inventory = look(&machine);
    let gpu = &inventory.gpus[4];
    assert_eq!(gpu.readings.unread().len(), GpuReadings::FIELDS.len());
    assert!(gpu.readings.present().is_empty());
    assert_eq!(gpu.pci, before.gpus[4].pci);
    assert_eq!(health::assess(gpu).verdict, Verdict::Unhealthy);
    assert_eq!(queue.wait(LONG).unwrap().unwrap().kind, GpuEventKind::Xid(79));
    assert_eq!(machine.fields(&uuid, &[]), Err(GpuError::GpuLost(uuid.clone())));
    assert_eq!(inventory.gpus[3], before.gpus[3]);

    machine.change(&Change::Return { gpu: 4 }).unwrap();
    assert_eq!(look(&machine), before);
}

#[test]
fn load_moves_what_it_moves_on_a_real_card() {
    let mut machine = machine("h100x8");
    let idle = look(&machine).gpus[1].readings.clone();
    let mut power = 0;
    for percent in [0, 25, 50, 100] {
        machine.change(&Change::Load { gpu: 1, percent }).unwrap();
        let readings = look(&machine).gpus[1].readings.clone();
        let now = *readings.power_mw.value().unwrap();
        assert!(now > power, "more load draws more power");
        power = now;
        assert_eq!(readings.utilization_gpu_percent, Reading::Value(percent));
    }
    let busy = look(&machine).gpus[1].readings.clone();
    assert_eq!(busy.power_mw, busy.power_limit_mw);
    assert_eq!(busy.temperature_c, Reading::Value(78));
    assert_eq!(busy.clocks_event_reasons, Reading::Value(4));
    machine.advance(Duration::from_secs(10));
    let energy = look(&machine).gpus[1].readings.energy_mj.clone();
    assert_eq!(energy, idle.energy_mj.map(|energy| energy + 7_000_000));
    let uuid = machine.uuids()[1].clone();
    assert_eq!(machine.profiling(&uuid, &[1]).unwrap(), [Reading::Value(100.0)]);
    machine.change(&Change::Load { gpu: 1, percent: 0 }).unwrap();
    assert_eq!(look(&machine).gpus[1].readings.power_mw, idle.power_mw);
}

#[test]
fn a_process_takes_memory_and_gives_it_back() {
    let machine = machine("h100x8");
    let before = look(&machine);
    let start = Change::StartProcess {
        gpu: 0,
        pid: 42,
        memory_bytes: Some(1 << 30),
        gpu_instance: None,
        compute_instance: None,
    };
    machine.change(&start).unwrap();
    assert!(machine.change(&start).is_err(), "a process starts once");
    let readings = look(&machine).gpus[0].readings.clone();
    assert_eq!(readings.memory_used_bytes, Reading::Value(1 << 30));
    assert_eq!(
        readings.memory_free_bytes,
        Reading::Value(85_017_493_504 - (1 << 30))
    );
    let uuid = machine.uuids()[0].clone();
    assert!(matches!(machine.reset(&uuid), Err(GpuError::InUse { .. })));
    machine.change(&Change::EndProcess { gpu: 0, pid: 42 }).unwrap();
    assert_eq!(look(&machine), before);
}

#[test]
fn a_reset_remaps_rows_and_forgets_errors() {
    let machine = machine("broken");
    let uuid = machine.uuids()[3].clone();
    assert_eq!(health::assess(&look(&machine).gpus[3]).verdict, Verdict::Degraded);
    machine.reset(&uuid).unwrap();
    let readings = look(&machine).gpus[3].readings.clone();
    let rows = *readings.remapped_rows.value().unwrap();
    assert_eq!((rows.pending, rows.uncorrectable), (false, 1));
    assert_eq!(
        (readings.xids, readings.ecc_uncorrected),
        (Reading::Value(vec![]), Reading::Value(0))
    );
    assert_eq!(
        machine.reset(&machine.uuids()[2]),
        Err(GpuError::GpuLost(machine.uuids()[2].clone()))
    );
}

#[test]
fn the_driver_can_break_go_and_come_back_in_another_version() {
    let mut machine = machine("rtx3060");
    let version = std::path::Path::new("/sys/module/nvidia/version");
    machine
        .change(&Change::BreakDriver {
            reason: "Driver/library version mismatch".to_owned(),
        })
        .unwrap();
    assert!(matches!(machine.inventory(), Err(GpuError::DriverFailed(_))));
    machine.change(&Change::UnloadDriver).unwrap();
    assert!(matches!(machine.inventory(), Err(GpuError::NoDriver(_))));
    assert!(machine.read(version).is_err());
    assert_eq!(
        machine
            .list(std::path::Path::new("/sys/bus/pci/devices"))
            .unwrap(),
        ["0000:01:00.0"]
    );
    machine
        .change(&Change::ReplaceDriver {
            version: "595.10".to_owned(),
        })
        .unwrap();
    assert_eq!(
        machine.inventory().unwrap().driver.version,
        Reading::Value("595.10".to_owned())
    );
    assert_eq!(machine.read(version).unwrap(), b"595.10\n");
}

#[test]
fn the_clock_is_set_by_hand() {
    let machine = machine("t4");
    let start = machine.now();
    machine.advance(Duration::from_mins(1));
    assert_eq!(machine.now(), start + Duration::from_mins(1));
    machine.set_now(start);
    assert_eq!(machine.now(), start);
}

#[test]
fn a_reset_does_what_waits_for_one() {
    let machine = machine("h100x8");
    let set = |field: &str, value: Value| {
        let field = field.to_owned();
        machine
            .change(&Change::SetReading { gpu: 0, field, value })
            .unwrap();
    };
    set("ecc_pending", Value::Bool(false));
    set("recovery_action", Value::Text("gpu-reset".to_owned()));
    set(
        "retired_pages",
        serde_json::from_str(r#"{"single_bit": 1, "double_bit": 2, "pending": true}"#).unwrap(),
    );
    let before = look(&machine).gpus[0].clone();
    assert_eq!(before.readings.ecc, Reading::Value(true));
    assert_eq!(health::assess(&before).verdict, Verdict::Unhealthy);
    machine.reset(&machine.uuids()[0]).unwrap();
    let after = look(&machine).gpus[0].clone();
    assert_eq!(after.readings.ecc, Reading::Value(false));
    assert_eq!(
        after.readings.retired_pages.value().map(|pages| pages.pending),
        Some(false)
    );
    assert_eq!(health::assess(&after).verdict, Verdict::Healthy);
}

#[test]
fn firmware_follows_a_driver_that_is_replaced_unless_it_was_another_one() {
    let machine = machine("h100x8");
    let firmware = || {
        let gpus = look(&machine).gpus;
        [0, 1].map(|at| gpus[at].readings.gsp_firmware.value().cloned().unwrap())
    };
    machine
        .change(&Change::SetReading {
            gpu: 1,
            field: "gsp_firmware".to_owned(),
            value: Value::Text("570.1".to_owned()),
        })
        .unwrap();
    assert_eq!(firmware(), ["580.159.04", "570.1"]);
    machine
        .change(&Change::ReplaceDriver {
            version: "595.10".to_owned(),
        })
        .unwrap();
    assert_eq!(firmware(), ["595.10", "570.1"]);
}
