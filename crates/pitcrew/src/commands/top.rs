//! `pitcrew top`: GPUs and processes, live or in one frame.

use std::time::Duration;

use pitcrew_cli::{ExitStatus, Format, GlobalArgs, TopArgs};

use super::gpus::imaginary;
use crate::error::Error;
use crate::output::Output;
use crate::top::{self, Feed};
use crate::view::top::{Paint, Settings, State, print};
use crate::{driver, exit};

pub(crate) fn run(args: TopArgs, global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let TopArgs {
        scenario,
        once,
        interval,
    } = args;
    if scenario.as_deref() == Some("list") {
        return imaginary::list(output);
    }
    if output.format() != Format::Table {
        output
            .remark("hint: `top` is for people; `pitcrew gpus -o json` gives the same figures to programs")?;
    }
    let still = once || !output.is_terminal();
    let interval = Duration::from_secs(interval.into());
    let (feed, source) = feed(scenario.as_deref(), global, interval, still)?;
    let mut state = State::new(Settings {
        source,
        interval,
        paint: Paint {
            colour: output.colour(),
        },
        still,
        hints: hints(),
    });
    if still {
        let deadline = driver::deadline(global, scenario.as_deref());
        return frame(feed, deadline, &mut state, output);
    }
    top::live(&mut state, feed, output.colour())?;
    Ok(ExitStatus::Fine)
}

/// One look, one frame.
fn frame(
    mut feed: Box<dyn Feed>,
    deadline: Duration,
    state: &mut State,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    state.update(feed.look(Duration::ZERO, deadline));
    output.text(&print(state, output.width()))?;
    if state.has_trouble() {
        return Ok(ExitStatus::CouldNotTell);
    }
    Ok(exit::status(state.verdicts()))
}

/// What can be done where there is no GPU to see.
fn hints() -> Vec<String> {
    let mut hints = vec!["`pitcrew check` says why no GPU can be seen, and what to do".to_owned()];
    if imaginary::AVAILABLE {
        hints.push(
            "`pitcrew top --scenario h100x8` shows imaginary GPUs; `--scenario list` what there is"
                .to_owned(),
        );
    }
    hints
}

/// Who looks at the GPUs, and what is said of where they come from.
fn feed(
    scenario: Option<&str>,
    global: &GlobalArgs,
    interval: Duration,
    still: bool,
) -> Result<(Box<dyn Feed>, String), Error> {
    match scenario {
        Some(name) => imaginary_feed(name, interval, still),
        None => Ok((top::machine(global, !still)?, String::new())),
    }
}

#[cfg(feature = "sim")]
fn imaginary_feed(name: &str, interval: Duration, still: bool) -> Result<(Box<dyn Feed>, String), Error> {
    let (_, scenario) = driver::imaginary::scenario(name)?;
    let source = format!("imaginary GPUs: {}", scenario.name());
    let demo = top::demo::Demo::of(scenario, interval, !still);
    // A scenario can hang as a driver does.
    Ok((Box::new(top::demo::OnThread::new(demo)?), source))
}

#[cfg(not(feature = "sim"))]
fn imaginary_feed(name: &str, _interval: Duration, _still: bool) -> Result<(Box<dyn Feed>, String), Error> {
    Err(Error::NoSimulator(name.to_owned()))
}
