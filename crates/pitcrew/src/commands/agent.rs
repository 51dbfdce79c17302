//! `pitcrew agent`: the node agent on this machine.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pitcrew_agent::{Deps, Notice};
use pitcrew_cli::{AgentArgs, AgentCommand, AgentRunArgs, ExitStatus, GlobalArgs};
use pitcrew_core::ports::Clock;
use pitcrew_host::{HostRoots, Roots};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::gpus::imaginary;
use crate::error::Error;
use crate::output::Output;

mod client;
mod driver;
mod in_root;
mod overrides;
mod prover;
mod service;
mod settings;
mod system;
mod tell;
mod uninstall;

pub(crate) use settings::host_name;

/// How long tasks may take to end after they were told to; a call that hangs would keep the process for ever.
const FAREWELL: Duration = Duration::from_secs(2);

pub(crate) fn run(
    args: AgentArgs,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    match args.command {
        None => agent(&args.run, global, output),
        Some(AgentCommand::Run(run)) => agent(&run, global, output),
        Some(AgentCommand::Uninstall(args)) => uninstall::run(&args, global, output),
        Some(AgentCommand::InRoot(args)) => Err(in_root::run(&args)),
    }
}

/// A library that was named is asked also where the environment names a scenario.
pub(crate) fn without_scenario(args: &mut AgentArgs) {
    args.run.scenario = None;
    if let Some(AgentCommand::Run(run)) = &mut args.command {
        run.scenario = None;
    }
}

/// The machine's clock.
struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// What waits for others on the calling thread.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::NoThread)
}

fn agent(args: &AgentRunArgs, global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    if args.scenario.as_deref() == Some("list") {
        return imaginary::list(output);
    }
    // One thread answers everybody; what may wait has threads of its own.
    let runtime = runtime()?;
    let result = runtime.block_on(serve(args, global, output));
    runtime.shutdown_timeout(FAREWELL);
    result
}

async fn serve(
    args: &AgentRunArgs,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    let host = HostRoots::new(Roots::under(&global.root));
    let (notices, told) = mpsc::unbounded_channel();
    let client = if args.no_api {
        None
    } else {
        client::find(&host, &global.root, output).await?
    };
    let namespace = client
        .as_ref()
        .map_or("default", |client| client.default_namespace());
    let settings = settings::of(args, &global.root, namespace)?;
    for word in settings.xids.unknown() {
        output.remark(&format!(
            "`{word}` is neither an XID nor `all`: left out of the health checks"
        ))?;
    }
    for remark in overrides::remarks(args) {
        output.remark(&remark)?;
    }
    let prover = prover::Processes::new(global, args.scenario.as_deref(), &settings);
    let deps = Deps {
        prover: Arc::new(prover),
        driver: Arc::new(driver::AgentDriver::open(global, args.scenario.as_deref())?),
        host: Arc::new(host),
        root: global.root.clone(),
        system: Arc::new(system::Host::new(&global.root)),
        client,
        clock: Arc::new(WallClock),
        notices,
        settings,
    };
    let shutdown = asked_to_end()?;
    let agent = pitcrew_agent::run(deps, shutdown);
    // The agent's end drops its sender, and that ends the telling.
    let (ended, written) = tokio::join!(agent, write(told, output));
    written?;
    ended?;
    Ok(ExitStatus::Fine)
}

/// Ready when the process is asked to end.
fn asked_to_end() -> Result<impl Future<Output = ()> + Send, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::NoThread)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::NoThread)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn write(mut told: UnboundedReceiver<Notice>, output: &mut Output<'_>) -> Result<(), Error> {
    while let Some(notice) = told.recv().await {
        let line = tell::line(&notice, output.format());
        output.notice(&line).map_err(Error::Write)?;
    }
    Ok(())
}
