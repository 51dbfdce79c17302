//! Looks again and again, and says what changed.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pitcrew_core::ports::HostFs;
use pitcrew_host::pci;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::labels;
use crate::server::Nodes;

/// How often the labels are compared with those of the Node, with nothing changed on the bus.
const COMPARE: Duration = Duration::from_mins(5);

/// What the scout tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The labels were set or taken away: these are ours now.
    Labelled(Vec<&'static str>),
    /// It could not do its work, and tries again.
    Trouble(String),
}

/// What ends the loop: SIGTERM and SIGINT.
///
/// The first process of a container gets no signal that it doesn't ask for, and a kubelet would wait half a minute.
#[derive(Debug)]
pub struct Stop(UnixStream);

impl Stop {
    /// From now on the signals are caught.
    ///
    /// # Errors
    /// Where they can't be.
    pub fn on_signals() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }

    /// Sleeps; true where a signal came meanwhile.
    pub fn wait(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.0.set_read_timeout(Some(left)).is_err() {
                return false;
            }
            match self.0.read(&mut [0]) {
                Ok(_) => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// What was done last.
struct Done {
    has_gpu: bool,
    at: Instant,
}

/// Looks at the PCI bus every `period`, and asks the API server where that changed, where it was not done, and every few
/// minutes, as labels may be lost with a Node that is registered anew. Ends when `wait` says so.
pub fn run(
    fs: &dyn HostFs,
    nodes: &dyn Nodes,
    period: Duration,
    mut wait: impl FnMut(Duration) -> bool,
    mut tell: impl FnMut(Notice),
) {
    let mut done: Option<Done> = None;
    let mut told = None;
    loop {
        let trouble = look(fs, nodes, &mut done, &mut tell).err();
        if trouble != told {
            trouble
                .clone()
                .into_iter()
                .for_each(|text| tell(Notice::Trouble(text)));
            told = trouble;
        }
        if wait(period) {
            return;
        }
    }
}

fn look(
    fs: &dyn HostFs,
    nodes: &dyn Nodes,
    done: &mut Option<Done>,
    tell: &mut impl FnMut(Notice),
) -> Result<(), String> {
    // A bus that can't be read says nothing: what was said before stays.
    let has_gpu = !pci::scan(fs).map_err(|error| whole(&error))?.is_empty();
    if done
        .as_ref()
        .is_some_and(|done| done.has_gpu == has_gpu && done.at.elapsed() < COMPARE)
    {
        return Ok(());
    }
    *done = None;
    let node = nodes.metadata().map_err(|error| whole(&error))?;
    if let Some(wanted) = labels::decide(has_gpu, &node) {
        nodes.apply(&wanted).map_err(|error| whole(&error))?;
        tell(Notice::Labelled(wanted.into_keys().collect()));
    }
    *done = Some(Done {
        has_gpu,
        at: Instant::now(),
    });
    Ok(())
}

/// An error and what is behind it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
