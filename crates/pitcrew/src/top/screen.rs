//! The terminal: taken over at the start, given back on every way out.

use std::sync::mpsc;
use std::time::Instant;

use super::watch::{End, Feed, start_looking, watch};
use super::{input, watch};
use crate::error::Error;
use crate::view::top::State;

/// The terminal in raw mode and on its second screen; dropping it gives it back.
struct Screen {
    terminal: ratatui::DefaultTerminal,
}

impl Screen {
    fn open() -> Result<Self, Error> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                // Half of it may have been done.
                let _ = ratatui::try_restore();
                Err(Error::Terminal(error))
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Shows the view until it is ended. A signal that ended it ends the process afterwards, as if it hadn't been caught.
pub(crate) fn live(state: &mut State, feed: Box<dyn Feed>, colour: bool) -> Result<(), Error> {
    match show(state, feed, colour)? {
        End::Quit => Ok(()),
        End::Signal(signal) => {
            signal_hook::low_level::emulate_default_handler(signal).map_err(Error::Terminal)
        }
    }
}

/// Shows the view until it is ended. Who has nothing to put in order uses [`live`].
pub(crate) fn show(state: &mut State, feed: Box<dyn Feed>, colour: bool) -> Result<End, Error> {
    // What was decided about colour holds also where `NO_COLOR` is set and `--color` overrules it.
    crossterm::style::force_color_output(colour);
    let start = Instant::now();
    let (events, happened) = mpsc::channel::<watch::Event>();
    // Before the terminal is taken over: a signal between the two would leave it as it is.
    input::start_catching(events.clone()).map_err(Error::Terminal)?;
    let end = {
        let mut screen = Screen::open()?;
        silence_other_threads();
        input::start_reading(events.clone()).map_err(Error::Terminal)?;
        let _stop = start_looking(feed, state.settings.interval, start, events).map_err(Error::Terminal)?;
        let end = watch(&mut screen.terminal, state, &happened, || start.elapsed())?;
        drop(screen);
        // Whatever comes now finds the terminal as it was, and nobody who would take it from the signal's own effect.
        let late = happened.try_iter().find_map(|event| match event {
            watch::Event::Signal(signal) => Some(End::Signal(signal)),
            _ => None,
        });
        drop(happened);
        late.unwrap_or(end)
    };
    Ok(end)
}

/// A panic of this thread gives the terminal back and is told, as ratatui's hook does it. One of another thread must
/// not: the view goes on. It is told by whoever waits for that thread.
fn silence_other_threads() {
    let of_ratatui = std::panic::take_hook();
    let drawing = std::thread::current().id();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == drawing {
            of_ratatui(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};
    use std::fs::File;
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    /// Run by the test below in a terminal of its own.
    #[test]
    #[ignore = "takes the terminal over and dies"]
    fn dies_while_drawing() {
        let _screen = Screen::open().unwrap();
        silence_other_threads();
        std::thread::spawn(|| panic!("of no interest"))
            .join()
            .unwrap_err();
        panic!("as the test wants it");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_told_on_the_first_screen() {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .open(path.to_str().unwrap())
                .unwrap()
        };
        let terminal = open();
        let before = tcgetattr(&terminal).unwrap();
        assert!(before.local_modes.contains(LocalModes::ICANON));
        let status = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "top::screen::tests::dies_while_drawing",
                "--ignored",
                "--nocapture",
            ])
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .status()
            .unwrap();
        assert!(!status.success());
        let after = tcgetattr(&terminal).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.output_modes, before.output_modes);
        // All of it is in the terminal's buffer: it is less than a page.
        let mut buffer = [0; 4096];
        let mut written = String::new();
        let mut screen = File::from(controller);
        while !written.contains("FAILED") {
            let count = screen.read(&mut buffer).unwrap();
            written += &String::from_utf8_lossy(&buffer[..count]);
        }
        let (drawn, told) = written.split_once("\u{1b}[?1049l").unwrap();
        assert!(drawn.contains("\u{1b}[?1049h") && !drawn.contains("as the test wants it"));
        assert!(told.contains("as the test wants it"), "{written}");
        assert!(!written.contains("of no interest"), "{written}");
    }
}
