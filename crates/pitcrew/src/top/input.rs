//! Keys and signals, as events.

use std::sync::mpsc::Sender;

use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::watch::Event;
use crate::view::top::Key;

/// Reads keys for as long as somebody listens.
pub(super) fn start_reading(events: Sender<Event>) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("top-keys".to_owned())
        .spawn(move || {
            loop {
                let event = match crossterm::event::read() {
                    Ok(Input::Key(key)) => match translate(key) {
                        Some(key) => Event::Key(key),
                        None => continue,
                    },
                    Ok(Input::Resize(..)) => Event::Resized,
                    Ok(_) => continue,
                    Err(error) => {
                        let _ = events.send(Event::InputFailed(error));
                        return;
                    }
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        })
        .map(drop)
}

/// Waits for the signals that ask to end. From then on they end the process by themselves only once nobody listens any
/// more: what is left to do after the view may hang.
pub(super) fn start_catching(events: Sender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::Builder::new()
        .name("top-signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if events.send(Event::Signal(signal)).is_err() {
                    // It fails only for signals that can't end a process.
                    let _ = emulate_default_handler(signal);
                }
            }
        })
        .map(drop)
}

/// The key as the view knows it.
fn translate(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c' | 'd') if control => Key::Interrupt,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(char) => Key::Char(char),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Tab => Key::Tab,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run by the test below as a process of its own.
    #[test]
    #[ignore = "dies of a signal"]
    fn is_signalled_after_the_view() {
        let (events, happened) = std::sync::mpsc::channel();
        start_catching(events).unwrap();
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert!(matches!(happened.recv(), Ok(Event::Signal(SIGINT))));
        drop(happened);
        signal_hook::low_level::raise(SIGINT).unwrap();
        std::thread::sleep(std::time::Duration::from_mins(1));
    }

    #[test]
    fn a_signal_after_the_view_ends_the_process() {
        use std::os::unix::process::ExitStatusExt as _;
        let mut this = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "top::input::tests::is_signalled_after_the_view";
        let outcome = this.args(["--exact", name, "--ignored"]).output().unwrap();
        assert_eq!(outcome.status.signal(), Some(SIGINT), "{outcome:?}");
    }

    #[test]
    fn control_c_ends_and_a_released_key_is_nothing() {
        let press = |code, modifiers| translate(KeyEvent::new(code, modifiers));
        assert_eq!(
            press(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Key::Interrupt)
        );
        assert_eq!(
            press(KeyCode::Char('c'), KeyModifiers::NONE),
            Some(Key::Char('c'))
        );
        assert_eq!(press(KeyCode::Char('s'), KeyModifiers::CONTROL), None);
        assert_eq!(press(KeyCode::F(5), KeyModifiers::NONE), None);
        let mut released = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(translate(released), None);
    }
}
