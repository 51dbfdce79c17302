//! `pitcrew sim`: the real agent on an imaginary node.

use std::sync::Arc;
use std::time::Duration;

use owo_colors::OwoColorize as _;
use pitcrew_cli::{ExitStatus, GlobalArgs, SimArgs, SimHost};
use pitcrew_core::Reading;
use pitcrew_core::ports::InventorySource as _;
use pitcrew_scenario::{Machine, Scenario};
use pitcrew_sim::pods::{NAMESPACE, Process, Processes};
use pitcrew_sim::story::{self, Story};
use pitcrew_sim::{Node, Served};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::gpus::imaginary;
use crate::driver;
use crate::error::Error;
use crate::output::Output;
use crate::top::demo::OnThread;
use crate::top::{self, End, Feed};
use crate::view;
use crate::view::top::{Look, Paint, Pod, ProcessInfo, Settings, State, Trouble};

/// Between two looks of the view that stays.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(
    args: &SimArgs,
    _global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    if args.scenario == "list" {
        return imaginary::list(output);
    }
    let (_, scenario) = driver::imaginary::scenario(&args.scenario)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::NoThread)?;
    let result = play(args, scenario, &runtime, output);
    // An imaginary driver that hangs must not keep the command from ending.
    runtime.shutdown_background();
    let (status, signal) = result?;
    if let Some(signal) = signal {
        // All is in order: the signal may do what it does to any program.
        output.finish()?;
        signal_hook::low_level::emulate_default_handler(signal).map_err(Error::Terminal)?;
    }
    Ok(status)
}

/// How it ended: with what status, or by which signal.
type Ending = (ExitStatus, Option<i32>);

/// Makes the node, tells its story, stays; the node is gone afterwards.
fn play(
    args: &SimArgs,
    scenario: Scenario,
    runtime: &Runtime,
    output: &mut Output<'_>,
) -> Result<Ending, Error> {
    let name = scenario.name().to_owned();
    let description = scenario.description().to_owned();
    let (distribution, host) = match args.host {
        SimHost::Rke2 => ("RKE2", "rke2"),
        SimHost::K3s => ("K3s", "k3s"),
    };
    let width = output.width();
    let mut node = runtime
        .block_on(Node::builder(scenario).host(host).start())
        .map_err(Error::Simulation)?;
    let served = runtime.block_on(node.serve()).map_err(Error::Loopback)?;
    output.text(&format!(
        "{} an imaginary {distribution} worker: {description}\n",
        format!("{name}:").bold()
    ))?;
    output.text(&where_it_is(&node, &served))?;

    let mut written = Ok(());
    let mut tell = |line: story::Line| {
        if written.is_ok() {
            written = output.text(&view::story::line(&line, width));
        }
    };
    let told = runtime.block_on(async {
        let story = Story::new(&mut node, story::DEADLINE, &mut tell);
        tokio::select! {
            told = story.tell() => Ok(told),
            signal = ended() => Err(signal),
        }
    });
    written?;
    let told = match told {
        Ok(told) => told,
        Err(signal) => return Ok((ExitStatus::Fine, Some(signal))),
    };
    let status = match &told {
        Ok(()) => ExitStatus::Fine,
        Err(_) => ExitStatus::Finding,
    };
    if args.once {
        return Ok((status, None));
    }
    let node = Arc::new(node);
    let living = Arc::clone(&node);
    let life = runtime.spawn(async move { living.live().await });
    let result = stay(&node, &name, runtime, output);
    life.abort();
    // The node goes with the last that holds it.
    let _ = runtime.block_on(life);
    Ok((status, result?))
}

/// Where the imaginary node can be looked at.
fn where_it_is(node: &Node, served: &Served) -> String {
    let line = |what: &str, text: String| format!("  {} {text}\n", format!("{what:<9}").dimmed());
    [
        line("files", node.root().display().to_string()),
        line("API", format!("http://{}", served.api)),
        line(
            "kubectl",
            format!("export KUBECONFIG={}", served.kubeconfig.display()),
        ),
        line(
            "served",
            format!("http://{0}/healthz and http://{0}/metrics", served.http),
        ),
    ]
    .concat()
}

/// Shows the GPUs until somebody ends it; by which signal, if by one.
fn stay(node: &Node, name: &str, runtime: &Runtime, output: &mut Output<'_>) -> Result<Option<i32>, Error> {
    if !output.is_terminal() {
        output.text("\nThe node stays up until Ctrl-C.\n")?;
        output.finish()?;
        return Ok(Some(runtime.block_on(ended())));
    }
    let mut state = State::new(Settings {
        source: format!("an imaginary node: {name}"),
        interval: INTERVAL,
        paint: Paint {
            colour: output.colour(),
        },
        still: false,
        hints: Vec::new(),
    });
    let feed = OnThread::new(NodeFeed {
        machine: node.machine().clone(),
        processes: node.processes().clone(),
    })?;
    match top::show(&mut state, Box::new(feed), output.colour())? {
        End::Quit => Ok(None),
        End::Signal(signal) => Ok(Some(signal)),
    }
}

/// Looks at the GPUs of an imaginary node, and whose processes are on them. It doesn't hold the node, as it may hang.
struct NodeFeed {
    machine: Machine,
    processes: Processes,
}

impl Feed for NodeFeed {
    fn look(&mut self, now: Duration, _deadline: Duration) -> Look {
        let info = |process: Process| {
            let info = ProcessInfo {
                // Its pod's, without the number.
                name: Reading::Value(process.pod.split('-').next().unwrap_or_default().to_owned()),
                user: Reading::NotSupported,
                pod: Reading::Value(Pod {
                    name: Some((NAMESPACE.to_owned(), process.pod)),
                    uid: String::new(),
                }),
            };
            (process.pid, info)
        };
        Look {
            taken: now,
            inventory: self
                .machine
                .inventory()
                .map_err(|error| Trouble::Refused(error.to_string())),
            bus_only: Vec::new(),
            processes: self.processes.running().into_iter().map(info).collect(),
        }
    }
}

/// The signal that asks to end.
async fn ended() -> i32 {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
            kind.as_raw_value()
        }
        // It then ends the process by itself.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        signal = wait(SignalKind::interrupt()) => signal,
        signal = wait(SignalKind::terminate()) => signal,
        signal = wait(SignalKind::hangup()) => signal,
    }
}
