//! `pitcrew agent uninstall`: takes away what the agent has written on this node.

use std::path::{Path, PathBuf};

use pitcrew_agent::plugin::is_our_socket;
use pitcrew_agent::runtime::install::{Executor, Step};
use pitcrew_agent::runtime::uninstall::look_and_plan;
use pitcrew_agent::{labels, status};
use pitcrew_cli::{AgentUninstallArgs, ExitStatus, GlobalArgs};
use pitcrew_core::ports::HostFs as _;
use pitcrew_host::{Host, HostRoots, Roots};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Error;
use crate::output::Output;

pub(super) fn run(
    args: &AgentUninstallArgs,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    let fs = HostRoots::new(Roots::under(&global.root));
    let host = Host::gather(&fs);
    let plugins = args.kubelet_dir.join("device-plugins");
    let there: Vec<PathBuf> = fs
        .list(&plugins)
        .unwrap_or_default()
        .iter()
        .filter(|name| is_our_socket(name))
        .map(|name| plugins.join(name))
        .collect();
    let plan = look_and_plan(&global.root, &fs, &host, &args.cdi_dir, there, args.wrapper_too)?;
    let executor = Executor::new(&global.root);
    for step in &plan.steps {
        if !args.dry_run {
            executor.step(step)?;
        }
        output.remark(&told(step, args.dry_run))?;
    }
    if plan.steps.is_empty() {
        output.remark("nothing of the agent is on this node")?;
    }
    for remark in &plan.remarks {
        output.remark(&format!("left: {remark}"))?;
    }
    if !args.no_api {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::NoThread)?;
        runtime.block_on(off_the_node(args, global, &fs, output))?;
    }
    if args.stay {
        output.remark("done; staying until told to end")?;
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Error::NoThread)?;
        let _ = signals.forever().next();
    }
    Ok(ExitStatus::Fine)
}

/// What is on the Node object: labels, and the condition, which would be true for ever.
async fn off_the_node(
    args: &AgentUninstallArgs,
    global: &GlobalArgs,
    fs: &HostRoots,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let node = match &args.node {
        Some(node) => node.clone(),
        None => super::host_name(&global.root)?,
    };
    let Some(client) = super::client::find(fs, &global.root, output).await? else {
        return Ok(());
    };
    let verb = if args.dry_run { "would take" } else { "took" };
    if !args.dry_run {
        labels::remove(client.clone(), &node, None).await?;
        status::remove(client, &node).await?;
    }
    output.remark(&format!("{verb} the agent's labels and its condition off the node {node}"))?;
    Ok(())
}

fn told(step: &Step, is_only_said: bool) -> String {
    let of = |done: &str, would: &str, path: &Path| {
        let verb = if is_only_said { would } else { done };
        format!("{verb} `{}`", path.display())
    };
    match step {
        Step::Remove { path } | Step::RemoveDir { path } => of("removed", "would remove", path),
        step => of("wrote", "would write", step.path()),
    }
}
