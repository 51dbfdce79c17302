//! The loop: looks, keys and signals come in, frames go out.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::Backend;

use crate::error::Error;
use crate::view::top::{Key, Look, State, render};

/// How long a look may take before it counts as unanswered.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often the view is drawn at least: it says how old things are.
const TICK: Duration = Duration::from_secs(1);

/// Looks at GPUs.
pub(crate) trait Feed: Send {
    /// One look, taken at `now` since the start. Comes back within about `deadline`, with or without an answer.
    fn look(&mut self, now: Duration, deadline: Duration) -> Look;
}

/// What can happen while the view is there.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody looked at the GPUs.
    Look(Box<Look>),
    /// A key was pressed.
    Key(Key),
    /// The terminal has another size.
    Resized,
    /// The process was asked to end.
    Signal(i32),
    /// Keys can no longer be read.
    InputFailed(std::io::Error),
    /// The thread that looks has ended in a panic, with this message.
    FeedFailed(String),
}

/// How the view ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By a key.
    Quit,
    /// By a signal.
    Signal(i32),
}

/// Runs until a key or a signal ends it. `now` is the time since the start.
pub(crate) fn watch<B: Backend>(
    terminal: &mut Terminal<B>,
    state: &mut State,
    events: &Receiver<Event>,
    now: impl Fn() -> Duration,
) -> Result<End, Error>
where
    B::Error: Send + Sync + 'static,
{
    loop {
        state.tick(now());
        terminal
            .draw(|frame| render(state, frame))
            .map_err(|error| Error::Terminal(std::io::Error::other(error)))?;
        // One event is waited for; what has come meanwhile is taken in before the next frame.
        let mut event = match events.recv_timeout(TICK) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Quit),
        };
        while let Some(happened) = event {
            match happened {
                Event::Look(look) => state.update(*look),
                Event::Key(key) => state.key(key),
                Event::Resized => terminal
                    .autoresize()
                    .map_err(|error| Error::Terminal(std::io::Error::other(error)))?,
                Event::Signal(signal) => return Ok(End::Signal(signal)),
                Event::InputFailed(error) => return Err(Error::Terminal(error)),
                Event::FeedFailed(message) => return Err(Error::FeedFailed(message)),
            }
            if state.is_over() {
                return Ok(End::Quit);
            }
            event = events.try_recv().ok();
        }
    }
}

/// Looks every `interval` and sends what was seen, until nobody listens any more.
///
/// The thread is never joined: a look that hangs must not keep the view from ending.
pub(crate) fn start_looking(
    mut feed: Box<dyn Feed>,
    interval: Duration,
    start: Instant,
    events: Sender<Event>,
) -> std::io::Result<Sender<()>> {
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::Builder::new()
        .name("top-looks".to_owned())
        .spawn(move || {
            let look_on = || {
                loop {
                    let begun = Instant::now();
                    let mut look = feed.look(start.elapsed(), DEADLINE);
                    // It may have taken its time.
                    look.taken = start.elapsed();
                    if events.send(Event::Look(Box::new(look))).is_err() {
                        return;
                    }
                    let rest = interval.saturating_sub(begun.elapsed());
                    if stopped.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look_on));
            if let Err(panic) = result {
                let _ = events.send(Event::FeedFailed(message(panic.as_ref())));
            }
        })?;
    Ok(stop)
}

/// What a panic says.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it doesn't say why".to_owned())
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use super::*;
    use crate::top::demo::Demo;
    use crate::view::top::{Paint, Settings, State};
    use pitcrew_scenario::Scenario;
    use ratatui::backend::TestBackend;

    const SECOND: Duration = Duration::from_secs(1);

    fn state() -> State {
        State::new(Settings {
            source: String::new(),
            interval: SECOND,
            paint: Paint { colour: false },
            still: false,
            hints: Vec::new(),
        })
    }

    fn demo() -> Demo {
        Demo::of(Scenario::builtin("h100x8").unwrap(), SECOND, true)
    }

    /// What a script of events ends in, and what was on the screen then.
    fn play(script: impl IntoIterator<Item = Event>) -> (Result<End, Error>, String) {
        let (events, happened) = mpsc::channel();
        for event in script {
            events.send(event).unwrap();
        }
        drop(events);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut state = state();
        let end = watch(&mut terminal, &mut state, &happened, || SECOND);
        terminal.draw(|frame| render(&state, frame)).unwrap();
        (end, terminal.backend().to_string())
    }

    #[test]
    fn looks_and_keys_change_what_is_shown_until_q() {
        let mut demo = demo();
        let mut script: Vec<Event> = (0..5)
            .map(|second| Event::Look(Box::new(demo.look(SECOND * second, SECOND))))
            .collect();
        script.extend([Key::Char('j'), Key::Enter, Key::Char('q'), Key::Char('?')].map(Event::Key));
        let (end, screen) = play(script);
        assert_eq!(end.unwrap(), End::Quit);
        assert!(screen.contains("▸ 1 H100 80GB HBM3"), "{screen}");
        assert!(
            screen.contains("Esc"),
            "details, and no help after the end: {screen}"
        );
    }

    #[test]
    fn a_signal_a_lost_keyboard_and_a_dead_thread_end_it() {
        assert_eq!(play([Event::Signal(15)]).0.unwrap(), End::Signal(15));
        assert_eq!(play([]).0.unwrap(), End::Quit, "nobody is left to send anything");
        let gone = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert!(matches!(
            play([Event::InputFailed(gone)]).0,
            Err(Error::Terminal(_))
        ));
        let died = play([Event::FeedFailed("index out of bounds".to_owned())]).0;
        assert_eq!(
            died.unwrap_err().to_string(),
            "the thread that reads the GPUs has failed: index out of bounds"
        );
    }

    #[test]
    fn the_size_can_change_at_any_moment() {
        let mut demo = demo();
        let look = demo.look(SECOND, SECOND);
        let (end, _) = play([
            Event::Resized,
            Event::Look(Box::new(look)),
            Event::Resized,
            Event::Key(Key::Interrupt),
        ]);
        assert_eq!(end.unwrap(), End::Quit);
    }

    #[test]
    fn the_thread_looks_until_it_is_told_to_stop() {
        let (events, happened) = mpsc::channel();
        let stop = start_looking(Box::new(demo()), Duration::from_millis(1), Instant::now(), events).unwrap();
        for _ in 0..3 {
            assert!(matches!(happened.recv().unwrap(), Event::Look(_)));
        }
        drop(stop);
        // The channel closes when the thread has ended.
        while happened.recv().is_ok() {}
    }

    #[test]
    fn a_panic_while_looking_is_an_event() {
        struct Broken;
        impl Feed for Broken {
            fn look(&mut self, _now: Duration, _deadline: Duration) -> Look {
                panic!("as the test wants it")
            }
        }
        let (events, happened) = mpsc::channel();
        let _stop = start_looking(Box::new(Broken), SECOND, Instant::now(), events).unwrap();
        let event = happened.recv().unwrap();
        assert!(
            matches!(&event, Event::FeedFailed(message) if message == "as the test wants it"),
            "{event:?}"
        );
    }
}
