//! `pitcrew top`: one frame through the real binary, and the live view in a real pseudo-terminal.
#![cfg(feature = "sim")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::driver::{library, machine};
use crate::program::{pitcrew, run, stdout, transcript_of};

/// Nothing here takes longer, but where something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn one_frame_of_a_scenario() {
    for scenario in ["rtx3060", "h100x8", "mixed", "broken"] {
        let args = ["top", "--once", "--scenario", scenario, "--width", "80"];
        insta::assert_snapshot!(format!("top_once_{scenario}"), transcript_of(&args));
    }
    let args = ["top", "--scenario", "mixed", "--width", "160"];
    insta::assert_snapshot!("top_once_wide", transcript_of(&args));
}

#[test]
fn colours_only_where_they_are_asked_for() {
    let shown = |args: &[&str]| {
        let mut all = vec!["top", "--scenario", "broken", "--width", "80"];
        all.extend(args);
        stdout(&run(pitcrew(&all)))
    };
    let (plain, coloured) = (shown(&[]), shown(&["--color", "always"]));
    assert!(!plain.contains('\u{1b}') && coloured.contains("\u{1b}[0;1;31m"));
    assert_eq!(plain, shown(&["--color", "never"]));
}

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    insta::assert_snapshot!("top_no_gpu", transcript_of(&["top", "--once"]));
}

/// A program in a pseudo-terminal.
struct Session {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    /// The program's end of the terminal, kept open to look at its mode.
    terminal: OwnedFd,
}

impl Session {
    fn start(args: &[&str]) -> Self {
        Self::start_on(pitcrew(args))
    }

    fn start_on(mut command: Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        tcsetwinsize(&controller, size(100)).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .open(path.to_str().unwrap())
        };
        let terminal: OwnedFd = open().unwrap().into();
        command
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(open().unwrap()))
            .stdout(Stdio::from(open().unwrap()))
            .stderr(Stdio::from(open().unwrap()));
        let child = command.spawn().unwrap();
        let keyboard = File::from(controller);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            screen,
            seen: String::new(),
            terminal,
        }
    }

    /// Waits until this has been written.
    fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            let rest = end.saturating_duration_since(Instant::now());
            let bytes = self.screen.recv_timeout(rest).unwrap_or_default();
            assert!(!bytes.is_empty(), "`{text}` never came: {:?}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes);
        }
    }

    /// Waits until the whole screen, drawn anew in another size, shows this.
    fn wait_to_show(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        let mut columns = 100;
        loop {
            columns = if columns == 100 { 120 } else { 100 };
            tcsetwinsize(&self.keyboard, size(columns)).unwrap();
            kill_process(Pid::from_child(&self.child), Signal::WINCH).unwrap();
            self.seen.clear();
            while let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(300)) {
                self.seen += &String::from_utf8_lossy(&bytes);
            }
            let shown = words(&self.seen);
            if shown.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "`{text}` never came: {shown}");
        }
    }

    /// True while the driver's library is mapped or open.
    fn holds_driver(&self) -> bool {
        let proc = format!("/proc/{}", self.child.id());
        let maps = std::fs::read_to_string(format!("{proc}/maps")).unwrap();
        let open = std::fs::read_dir(format!("{proc}/fd")).unwrap().flatten();
        let mut open = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        maps.contains("libnvidia-ml") || open.any(|path| path.to_string_lossy().contains("libnvidia-ml"))
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn mode(&self) -> Termios {
        tcgetattr(&self.terminal).unwrap()
    }

    fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it doesn't end: {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Where a test failed it may still be running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: 30,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// What is on the screen, with each escape sequence as a blank: blanks themselves are mostly jumped over.
fn words(screen: &str) -> String {
    let mut text = String::new();
    let mut rest = screen;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        text += before;
        text.push(' ');
        rest = after.trim_start_matches(|char: char| !char.is_ascii_alphabetic());
        rest = rest.get(1..).unwrap_or_default();
    }
    text += rest;
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const LEFT_ALTERNATE_SCREEN: &str = "\u{1b}[?1049l";
const CURSOR_SHOWN: &str = "\u{1b}[?25h";

/// What makes a terminal usable by a shell.
fn modes(
    termios: &Termios,
) -> (
    LocalModes,
    rustix::termios::InputModes,
    rustix::termios::OutputModes,
) {
    (termios.local_modes, termios.input_modes, termios.output_modes)
}

#[test]
fn q_ends_the_live_view_and_the_terminal_is_as_it_was() {
    let mut session = Session::start(&["top", "--scenario", "mixed"]);
    // The child may have begun: a new terminal of the same kind is in the same mode.
    let before = modes(&Session::start(&["version"]).mode());
    session.wait_for("healthy");
    assert!(!session.mode().local_modes.contains(LocalModes::ICANON));
    session.press("?");
    session.wait_for("Keys");
    session.press("q");
    assert_eq!(session.end().code(), Some(0));
    session.wait_for(LEFT_ALTERNATE_SCREEN);
    session.wait_for(CURSOR_SHOWN);
    assert_eq!(modes(&session.mode()), before);
}

#[test]
fn a_signal_ends_it_as_a_signal_does_and_the_terminal_is_as_it_was() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let mut session = Session::start(&["top", "--scenario", "rtx3060"]);
        let before = modes(&Session::start(&["version"]).mode());
        session.wait_for("healthy");
        let pid = Pid::from_child(&session.child);
        kill_process(pid, signal).unwrap();
        let status = session.end();
        assert_eq!(status.signal(), Some(number), "{status}");
        session.wait_for(LEFT_ALTERNATE_SCREEN);
        assert_eq!(modes(&session.mode()), before);
    }
}

#[test]
fn a_driver_that_hangs_from_the_start_is_told_and_q_still_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stuck.yaml");
    let text = "description: stuck\ndriver: {version: 580.159.04, cuda: \"13.0\", open_kernel_modules: true}\n\
                hang: [nvmlDeviceGetPowerUsage]\ngpus: [{card: Tesla T4}]\n";
    std::fs::write(&file, text).unwrap();
    let mut session = Session::start(&["top", "--scenario", file.to_str().unwrap()]);
    // Only cells that change are drawn: words are what can be waited for.
    session.wait_for("answered");
    session.press("q");
    assert_eq!(session.end().code(), Some(0));
}

/// `pitcrew top` on a machine with two GPUs and this library.
fn on_driver(dir: &std::path::Path, macros: &[&str]) -> Session {
    machine(dir);
    let mut command = pitcrew(&["top"]);
    command
        .env("PITCREW_ROOT", dir)
        .env("PITCREW_NVML", library(dir, macros));
    Session::start_on(command)
}

#[test]
fn a_driver_that_is_taken_away_and_replaced_is_let_go_of_and_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = on_driver(dir.path(), &[]);
    session.wait_to_show("driver 580.159.04");
    assert!(session.holds_driver());
    std::fs::remove_file(dir.path().join("libnvidia-ml.so.1")).unwrap();
    session.wait_to_show("showing what was read");
    assert!(!session.holds_driver(), "every descriptor is given back");
    library(dir.path(), &["VERSION=\"595.58.03\""]);
    session.wait_to_show("driver 580.159.04 was replaced by 595.58.03: reloaded");
    assert!(session.holds_driver());
    session.press("q");
    assert_eq!(session.end().code(), Some(0));
}

#[test]
fn a_broken_driver_is_one_line() {
    for (macros, line) in [
        (&["HANGS"][..], "the driver has not answered for"),
        (&["NOT_NVML"], "is not NVIDIA's management library"),
        (&["FAILS=18"], "the NVIDIA driver does not answer"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut session = on_driver(dir.path(), macros);
        session.wait_to_show(line);
        session.press("q");
        assert_eq!(session.end().code(), Some(0));
    }
}
