//! `pitcrew agent`: the node agent on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pitcrew_agent::config::Source;
use pitcrew_agent::health::XidFilter;
use pitcrew_agent::runtime::restart::Consent;
use pitcrew_agent::runtime::toolkit_env;
use pitcrew_agent::{Deps, Notice, Settings};
use pitcrew_cli::{AgentArgs, AgentCommand, AgentRunArgs, ExitStatus, GlobalArgs};
use pitcrew_core::ports::Clock;
use pitcrew_host::{HostRoots, Roots};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::gpus::imaginary;
use crate::error::Error;
use crate::output::Output;

mod client;
mod driver;
mod in_root;
mod overrides;
mod system;
mod tell;
mod uninstall;

/// Name of the program of hooks and wrapper.
const HOOK: &str = "pitcrew-hook";
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

fn agent(args: &AgentRunArgs, global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    if args.scenario.as_deref() == Some("list") {
        return imaginary::list(output);
    }
    // One thread answers everybody; what may wait has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::NoThread)?;
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
    let settings = settings(args, &global.root)?;
    for word in settings.xids.unknown() {
        output.remark(&format!(
            "`{word}` is neither an XID nor `all`: left out of the health checks"
        ))?;
    }
    let client = if args.no_api {
        None
    } else {
        client::find(&host, &global.root, output).await?
    };
    let deps = Deps {
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

fn settings(args: &AgentRunArgs, root: &Path) -> Result<Settings, Error> {
    let node = match &args.node {
        Some(node) => node.clone(),
        None => host_name(root)?,
    };
    let mut settings = Settings::new(node);
    settings.kubelet_dir.clone_from(&args.kubelet_dir);
    settings.cdi_dir.clone_from(&args.cdi_dir);
    if let Some(path) = &args.config {
        settings.sources.source = Source::Path(path.clone());
    }
    settings.sources.default.clone_from(&args.default_config);
    settings.overrides = overrides::of(args);
    settings.hook.binary = hook(args);
    settings.consent = Consent {
        restart: args.allow_restart,
        only_server: args.allow_restart_of_only_server,
    };
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    settings.toolkit_env = std::env::vars_os()
        .filter_map(text)
        .filter(|(name, _)| toolkit_env::is_known(name))
        .collect();
    settings.xids = XidFilter::parse(&args.disable_health_checks, &args.enable_health_checks);
    settings.probation = Duration::from_secs(args.probation.into());
    Ok(settings)
}

/// The program of hooks and wrapper: beside this one, unless another is named.
fn hook(args: &AgentRunArgs) -> PathBuf {
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.parent()?.join(HOOK))
    };
    args.hook.clone().or_else(beside).unwrap_or_else(|| HOOK.into())
}

/// The host's name as a kubelet takes it: in lower case.
///
/// A pod has a name of its own where it isn't in the host's network; the file is the host's.
pub(crate) fn host_name(root: &Path) -> Result<String, Error> {
    let path = root.join("etc/hostname");
    let of_file = std::fs::read_to_string(path).ok();
    let of_file = of_file.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let name = match of_file {
        Some(name) => name.to_owned(),
        None => rustix::system::uname()
            .nodename()
            .to_str()
            .map_err(|_| Error::NodeName)?
            .to_owned(),
    };
    Ok(name.to_lowercase())
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
