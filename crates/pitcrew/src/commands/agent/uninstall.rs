//! `pitcrew agent uninstall`: takes away what the agent has written on this node.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pitcrew_agent::mps::{Place, Removal};
use pitcrew_agent::plugin::is_our_socket;
use pitcrew_agent::runtime::install::{Executor, Step};
use pitcrew_agent::runtime::uninstall::{Sites, cluster, look_and_plan};
use pitcrew_agent::specs::DriverRoots;
use pitcrew_cli::{AgentUninstallArgs, ExitStatus, GlobalArgs};
use pitcrew_core::plugin::config::GfdFlags;
use pitcrew_core::ports::HostFs as _;
use pitcrew_host::{Host, HostRoots, Roots};

use super::{client, settings, system};
use crate::error::Error;
use crate::output::Output;

pub(super) fn run(
    args: &AgentUninstallArgs,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    let fs = Arc::new(HostRoots::new(Roots::under(&global.root)));
    let host = Host::gather(&*fs);
    let plugins = args.kubelet_dir.join("device-plugins");
    let there: Vec<PathBuf> = fs
        .list(&plugins)
        .unwrap_or_default()
        .iter()
        .filter(|name| is_our_socket(name))
        .map(|name| plugins.join(name))
        .collect();
    let asked = args.output_file.iter().cloned();
    let sites = Sites {
        cdi_dir: args.cdi_dir.clone(),
        sockets: there,
        label_files: asked.chain([GfdFlags::OUTPUT_FILE.into()]).collect(),
        wrapper_too: args.wrapper_too,
    };
    let plan = look_and_plan(&global.root, &*fs, &host, sites)?;
    let runtime = super::runtime()?;
    // Before anything goes: it refuses where programs use it.
    let mps = runtime.block_on(mps(args, &global.root, &host, &fs))?;
    let executor = Executor::new(&global.root);
    for step in &plan.steps {
        if !args.dry_run {
            executor.step(step)?;
        }
        output.remark(&told(step, args.dry_run))?;
    }
    let things = mps.things();
    let mut left = if args.dry_run {
        Vec::new()
    } else {
        runtime.block_on(mps.run())
    };
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for thing in &things {
        output.remark(&format!("{verb} {thing}"))?;
    }
    if plan.steps.is_empty() && things.is_empty() {
        output.remark("nothing of the agent is on this node")?;
    }
    let mut stays = plan.remarks;
    if !args.no_api {
        let report = runtime.block_on(at_the_api_server(args, global, &fs))?;
        for what in &report.taken {
            output.remark(&format!("{verb} {what}"))?;
        }
        left.extend(report.left);
        stays.extend(report.stays);
    }
    for remark in &stays {
        output.remark(&format!("stays: {remark}"))?;
    }
    for remark in &left {
        output.remark(&format!("left: {remark}"))?;
    }
    if !left.is_empty() && !args.dry_run {
        return Ok(ExitStatus::Finding);
    }
    if args.stay {
        output.remark("done; staying until told to end")?;
        runtime.block_on(async {
            super::asked_to_end()?.await;
            Ok::<_, Error>(())
        })?;
    }
    Ok(ExitStatus::Fine)
}

/// What was written there, as far as the credentials at hand allow it.
async fn at_the_api_server(
    args: &AgentUninstallArgs,
    global: &GlobalArgs,
    fs: &HostRoots,
) -> Result<cluster::Report, Error> {
    let client = match client::look(fs, &global.root).await {
        Ok(client) => client,
        Err(why) => {
            let text = "what the agent wrote at the API server, labels and GpuNode, as none is known here";
            return Ok(cluster::Report {
                left: vec![format!("{text}: {why}; `--no-api` leaves it out")],
                ..cluster::Report::default()
            });
        }
    };
    let node = match &args.node {
        Some(node) => node.clone(),
        None => settings::host_name(&global.root)?,
    };
    Ok(cluster::take_away(&client, &node, &args.namespace, args.dry_run).await)
}

/// What the Multi-Process Service has on the node.
async fn mps(
    args: &AgentUninstallArgs,
    root: &Path,
    host: &Host,
    fs: &Arc<HostRoots>,
) -> Result<Removal, Error> {
    let place = Place {
        root: args.mps_root.clone(),
        // As the agent that started its programs has found it.
        driver_root: DriverRoots::find(host).libraries,
        selinux: false,
    };
    let system = Arc::new(system::Host::new(root));
    let fs = Arc::clone(fs);
    Ok(Removal::look(system, fs, root, &place, args.mps_too).await?)
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
