//! What must come out, computed by the CPU while the GPU works on something else.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::bench::{Bench, Stop};

/// How often it is asked whether the CPU is done, or the run shall end.
const LOOK: Duration = Duration::from_millis(5);

/// An answer that the CPU gives for a question, asked before it is needed.
#[derive(Debug)]
pub(crate) struct Expected<Q, T> {
    known: Option<(Q, State<T>)>,
}

#[derive(Debug)]
enum State<T> {
    Coming(JoinHandle<T>),
    Here(T),
}

impl<Q: PartialEq, T: Send + 'static> Expected<Q, T> {
    pub(crate) const fn nothing() -> Self {
        Self { known: None }
    }

    /// Begins to compute the answer, where this is another question than the last one.
    pub(crate) fn ask(&mut self, question: Q, compute: impl Fn() -> T + Send + Sync + 'static) {
        if self.known.as_ref().is_some_and(|(known, _)| *known == question) {
            return;
        }
        let compute = Arc::new(compute);
        let thread = thread::Builder::new().name("expected".to_owned()).spawn({
            let compute = Arc::clone(&compute);
            move || compute()
        });
        let state = match thread {
            Ok(thread) => State::Coming(thread),
            // A system that gives no thread has to wait for it here.
            Err(_) => State::Here(compute()),
        };
        self.known = Some((question, state));
    }

    /// Waits until the answer to the last question is there; ends early where the run does.
    pub(crate) fn wait(&mut self, bench: &mut Bench<'_>) -> Result<(), Stop> {
        while let Some((_, State::Coming(thread))) = &self.known
            && !thread.is_finished()
        {
            thread::sleep(LOOK);
            bench.look_round()?;
        }
        self.known = self.known.take().map(|(question, state)| {
            let answer = match state {
                State::Here(answer) => answer,
                State::Coming(thread) => match thread.join() {
                    Ok(answer) => answer,
                    Err(panic) => std::panic::resume_unwind(panic),
                },
            };
            (question, State::Here(answer))
        });
        Ok(())
    }

    /// The answer, once it was waited for.
    pub(crate) fn answer(&self) -> Option<&T> {
        match &self.known {
            Some((_, State::Here(answer))) => Some(answer),
            _ => None,
        }
    }
}
