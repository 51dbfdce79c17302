//! Frames of imaginary machines, in every state that a real one can be in.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::Reading;
use pitcrew_core::ports::{GpuError, InventorySource};
use pitcrew_scenario::{Change, Machine, Scenario};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::frame::screen;
use super::{Key, Look, Paint, Pod, ProcessInfo, Settings, State, Trouble, print, render};
use crate::top::Feed;
use crate::top::demo::Demo;

const SECOND: Duration = Duration::from_secs(1);
const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];

fn settings(source: &str) -> Settings {
    Settings {
        source: source.to_owned(),
        interval: SECOND,
        paint: Paint { colour: true },
        still: false,
        hints: vec!["`pitcrew check` says why no GPU can be seen".to_owned()],
    }
}

fn machine(scenario: &str) -> Machine {
    Machine::new(Scenario::builtin(scenario).unwrap())
}

fn look(machine: &mut Machine, second: u64) -> Look {
    Look {
        taken: SECOND * u32::try_from(second).unwrap(),
        inventory: machine
            .inventory()
            .map_err(|error| Trouble::Refused(error.to_string())),
        bus_only: Vec::new(),
        processes: BTreeMap::new(),
    }
}

/// A state after this many seconds of a scenario's imaginary life.
fn lived(scenario: &str, seconds: u64) -> State {
    let mut demo = Demo::new(machine(scenario), SECOND, true);
    let mut state = State::new(settings(&format!("imaginary GPUs: {scenario}")));
    for second in 0..seconds {
        state.update(demo.look(Duration::from_secs(second), SECOND));
    }
    state
}

/// A state that has seen these looks.
fn seen(looks: impl IntoIterator<Item = Look>) -> State {
    let mut state = State::new(settings(""));
    for look in looks {
        state.update(look);
    }
    state
}

/// The frame as a terminal of this size shows it.
fn frame(state: &State, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| render(state, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        state.key(match key {
            '\n' => Key::Enter,
            '\t' => Key::Tab,
            '\u{1b}' => Key::Escape,
            key => Key::Char(key),
        });
    }
}

#[test]
fn scenarios_after_two_minutes() {
    for scenario in ["rtx3060", "h100x8", "mixed", "broken"] {
        let state = lived(scenario, 120);
        for (width, height) in SIZES {
            insta::assert_snapshot!(
                format!("{scenario}_{width}x{height}"),
                frame(&state, (width, height))
            );
        }
    }
}

#[test]
fn the_help_and_the_details() {
    for size in SIZES {
        let (width, height) = size;
        let mut state = lived("mixed", 120);
        press(&mut state, "?");
        insta::assert_snapshot!(format!("help_{width}x{height}"), frame(&state, size));
        press(&mut state, " ");
        press(&mut state, "\n");
        insta::assert_snapshot!(format!("details_mig_{width}x{height}"), frame(&state, size));
        let mut state = lived("broken", 120);
        press(&mut state, "G\n");
        insta::assert_snapshot!(format!("details_degraded_{width}x{height}"), frame(&state, size));
    }
}

#[test]
fn a_driver_that_hangs_is_one_line_and_what_was_read_before_stays() {
    let mut machine = machine("rtx3060");
    let mut state = seen((0..10).map(|second| look(&mut machine, second)));
    for second in 10..14 {
        state.update(Look {
            taken: Duration::from_secs(second),
            inventory: Err(Trouble::Silent {
                call: Some("nvmlDeviceGetPowerUsage".to_owned()),
                waited: Duration::from_secs(second - 10),
            }),
            bus_only: Vec::new(),
            processes: BTreeMap::new(),
        });
    }
    state.tick(Duration::from_secs(14));
    let told: Vec<String> = state.notices().into_iter().map(|notice| notice.text).collect();
    assert_eq!(
        told,
        ["the driver has not answered for 4 s: nvmlDeviceGetPowerUsage; showing what was read before"]
    );
    insta::assert_snapshot!("stuck_80x24", frame(&state, (80, 24)));
    state.update(look(&mut machine, 15));
    assert!(state.notices().is_empty(), "it answers again");
}

#[test]
fn a_feed_that_says_nothing_at_all_is_noticed_by_the_clock() {
    let mut machine = machine("rtx3060");
    let mut state = seen([look(&mut machine, 0)]);
    state.tick(Duration::from_secs(3));
    assert!(state.notices().is_empty());
    state.tick(Duration::from_secs(9));
    let told = state.notices();
    assert_eq!(
        told[0].text,
        "the driver has not answered for 9 s; showing what was read before"
    );
}

#[test]
fn a_driver_that_is_replaced_is_told_for_a_minute() {
    let mut machine = machine("mixed");
    let mut state = seen([look(&mut machine, 0)]);
    machine.change(&Change::UnloadDriver).unwrap();
    state.update(look(&mut machine, 1));
    insta::assert_snapshot!("unloaded_80x24", frame(&state, (80, 24)));
    let version = "595.58.03".to_owned();
    machine.change(&Change::ReplaceDriver { version }).unwrap();
    state.update(look(&mut machine, 7));
    let told = state.notices();
    assert_eq!(
        told[0].text,
        "driver 580.159.04 was replaced by 595.58.03: reloaded"
    );
    assert!(!told[0].is_bad);
    insta::assert_snapshot!("replaced_80x24", frame(&state, (80, 24)));
    state.tick(Duration::from_secs(68));
    state.update(look(&mut machine, 68));
    assert!(state.notices().is_empty());
}

#[test]
fn a_gpu_that_falls_off_the_bus_keeps_its_name_and_its_past() {
    let mut machine = machine("h100x8");
    let mut state = seen((0..20).map(|second| look(&mut machine, second)));
    machine.change(&Change::FallOffBus { gpu: 3 }).unwrap();
    for second in [20, 21, 23, 25] {
        state.update(look(&mut machine, second));
    }
    assert_eq!(
        state.notices()[0].text,
        "GPU 3 (H100 80GB HBM3) is lost: it stopped answering 5 s ago"
    );
    insta::assert_snapshot!("lost_80x24", frame(&state, (80, 24)));
    insta::assert_snapshot!("lost_200x60", frame(&state, (200, 60)));
    machine.change(&Change::Return { gpu: 3 }).unwrap();
    state.update(look(&mut machine, 30));
    assert!(state.notices().is_empty());
}

#[test]
fn a_gpu_that_the_driver_no_longer_lists_is_missed_and_welcomed_back() {
    let mut machine = machine("h100x8");
    let mut state = seen([look(&mut machine, 0)]);
    for second in [1, 12] {
        let mut without = look(&mut machine, second);
        without.inventory.as_mut().unwrap().gpus.remove(5);
        state.update(without);
    }
    assert_eq!(
        state.notices()[0].text,
        "GPU 5 (H100 80GB HBM3, 0000:c3:00.0) is gone: the driver stopped listing it 11 s ago"
    );
    insta::assert_snapshot!("gone_80x24", frame(&state, (80, 24)));
    state.update(look(&mut machine, 13));
    assert!(state.notices().is_empty());
}

#[test]
fn no_gpu_no_driver_and_no_look_yet() {
    let mut state = State::new(settings(""));
    insta::assert_snapshot!("no_look_yet_80x24", frame(&state, (80, 24)));
    state.update(Look {
        taken: SECOND,
        inventory: Err(Trouble::Refused(
            GpuError::NoDriver("libnvidia-ml.so.1 is not a library".to_owned()).to_string(),
        )),
        bus_only: Vec::new(),
        processes: BTreeMap::new(),
    });
    insta::assert_snapshot!("no_driver_80x24", frame(&state, (80, 24)));
    let mut machine = machine("rtx3060");
    let mut nothing = look(&mut machine, 2);
    nothing.inventory.as_mut().unwrap().gpus.clear();
    let state = seen([nothing]);
    insta::assert_snapshot!("no_gpu_80x24", frame(&state, (80, 24)));
}

#[test]
fn an_nvml_that_fails_every_call_shows_no_zero() {
    let mut machine = machine("rtx3060");
    for field in pitcrew_core::gpu::GpuReadings::FIELDS {
        let (field, reason) = ((*field).to_owned(), "Unknown Error".to_owned());
        machine
            .change(&Change::Fail {
                gpu: 0,
                field,
                reason,
            })
            .unwrap();
    }
    let state = seen((0..5).map(|second| look(&mut machine, second)));
    let shown = frame(&state, (80, 24));
    assert!(
        !shown.contains(" 0 ") || shown.lines().filter(|line| line.contains(" 0 ")).count() == 1,
        "{shown}"
    );
    insta::assert_snapshot!("all_failed_80x24", shown);
}

#[test]
fn sixteen_gpus_and_many_mig_devices_scroll_to_the_selected_one() {
    let mut machine = machine("h100x8");
    let mut full = look(&mut machine, 0);
    let inventory = full.inventory.as_mut().unwrap();
    let twins: Vec<_> = inventory.gpus.clone();
    for (at, mut gpu) in (8..).zip(twins) {
        gpu.index = at;
        gpu.pci.address.domain = 1;
        gpu.readings.uuid = Reading::Value(format!("GPU-{at}"));
        inventory.gpus.push(gpu);
    }
    let mut state = seen([full]);
    insta::assert_snapshot!("sixteen_first_80x24", frame(&state, (80, 24)));
    press(&mut state, "G");
    assert!(frame(&state, (80, 24)).contains("▸15 "));
    for _ in 0..20 {
        assert!(frame(&state, (80, 24)).contains('▸'));
        press(&mut state, "k");
    }

    let mut machine = self::machine("h100x8");
    let uuids = machine.uuids();
    for uuid in &uuids {
        use pitcrew_core::ports::Mig;
        machine.set_mode(uuid, true).unwrap();
        machine.reset(uuid).ok();
        for _ in 0..7 {
            machine.create(uuid, &"1g.10gb".parse().unwrap(), None).unwrap();
        }
    }
    let mut state = seen([look(&mut machine, 0)]);
    for _ in 0..5 {
        press(&mut state, "j");
    }
    insta::assert_snapshot!("mig_56_80x24", frame(&state, (80, 24)));
    insta::assert_snapshot!("mig_56_200x60", frame(&state, (200, 60)));
    for _ in 0..8 {
        assert!(frame(&state, (80, 24)).contains('▸'));
        press(&mut state, "k");
    }
}

#[test]
fn processes_have_names_and_pods_and_are_sorted() {
    let mut machine = machine("mixed");
    let mut all = look(&mut machine, 0);
    let info = |name: &str, pod: Reading<Pod>| ProcessInfo {
        name: Reading::Value(name.to_owned()),
        user: Reading::Value("1000".to_owned()),
        pod,
    };
    let pod = |namespace: &str, name: &str| {
        Reading::Value(Pod {
            name: Some((namespace.to_owned(), name.to_owned())),
            uid: "8c7d".to_owned(),
        })
    };
    all.processes = BTreeMap::from([
        (
            4711,
            info("python3", pod("research", "train-llama-0-abcdefghij-klmno")),
        ),
        (4712, info("画像生成サーバー\u{1b}[2J", pod("art", "sd-0"))),
        (1201, info("Xorg", Reading::NotSupported)),
    ]);
    let mut state = seen([all]);
    let pids = |state: &State| {
        let processes = state.processes();
        processes.iter().map(|process| process.pid).collect::<Vec<_>>()
    };
    assert_eq!(pids(&state), [4712, 4711, 1201], "by memory");
    insta::assert_snapshot!("pods_80x24", frame(&state, (80, 24)));
    press(&mut state, "s");
    assert_eq!(pids(&state), [4711, 4712, 1201], "by GPU");
    press(&mut state, "s");
    assert_eq!(pids(&state), [1201, 4711, 4712], "by pid");
    press(&mut state, "s");
    assert_eq!(pids(&state), [4712, 4711, 1201], "by pod, those without last");
    press(&mut state, "\tj\n");
    assert!(
        frame(&state, (80, 24)).contains("▸ 0 A100"),
        "details of the GPU of the selected process"
    );
}

#[test]
fn keys_that_end_it() {
    let over = |keys: &str| {
        let mut state = lived("rtx3060", 2);
        press(&mut state, keys);
        state.is_over()
    };
    assert!(over("q") && over("?q") && over("\nq") && over("\u{1b}"));
    assert!(
        !over("?\u{1b}") && !over("\n\u{1b}"),
        "Escape goes back before it ends"
    );
    let mut state = lived("rtx3060", 2);
    state.key(Key::Interrupt);
    assert!(state.is_over());
}

#[test]
fn a_pause_holds_the_figures_and_loses_nothing() {
    let mut demo = Demo::new(machine("h100x8"), SECOND, true);
    let mut state = State::new(settings(""));
    let mut live = |state: &mut State, from: u64, to: u64| {
        for second in from..to {
            state.update(demo.look(Duration::from_secs(second), SECOND));
        }
    };
    live(&mut state, 0, 40);
    press(&mut state, "p");
    let held = state.model().inventory.clone();
    live(&mut state, 40, 100);
    assert_eq!(state.model().inventory, held);
    assert!(frame(&state, (80, 24)).contains("paused for 60 s"));
    press(&mut state, "p");
    assert_ne!(state.model().inventory, held);
    let gpu = &state.model().gpus()[1];
    assert_eq!(state.model().history(gpu).unwrap().len(), 100);
}

#[test]
fn no_size_is_too_small_and_nothing_sticks_out() {
    let mut states = Vec::new();
    for scenario in ["rtx3060", "h100x8", "mixed", "broken"] {
        for keys in ["", "?", "\n", "G\n"] {
            let mut state = lived(scenario, 30);
            press(&mut state, keys);
            states.push(state);
        }
    }
    for state in &states {
        for (width, height) in [(1, 1), (2, 40), (20, 5), (40, 10), (79, 23), (300, 100)] {
            let _ = frame(state, (width, height));
        }
        for width in (80..240).step_by(7) {
            for line in screen(state, width, 40) {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn what_colour_says_is_there_in_words() {
    let state = lived("broken", 60);
    let mut plain = lived("broken", 60);
    plain.settings.paint = Paint { colour: false };
    for size in SIZES {
        assert_eq!(frame(&state, size), frame(&plain, size));
    }
    assert!(print(&state, Some(80)).contains("\u{1b}[0;1;31m"));
    let without = print(&plain, Some(80));
    let coloured = (30..38).any(|code| without.contains(&format!(";{code}m")));
    assert!(!coloured, "{without}");
    for verdict in ["healthy", "degraded", "unhealthy"] {
        assert!(without.contains(verdict));
    }
}
