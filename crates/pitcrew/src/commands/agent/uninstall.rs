//! `pitcrew agent uninstall`: takes away what the agent has written on this node.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pitcrew_agent::mps::{Place, Removal};
use pitcrew_agent::plugin::is_our_socket;
use pitcrew_agent::runtime::install::{Executor, Step};
use pitcrew_agent::runtime::uninstall::{Sites, cluster, look_and_plan};
use pitcrew_cli::{AgentUninstallArgs, ExitStatus, GlobalArgs};
use pitcrew_core::plugin::config::GfdFlags;
use pitcrew_core::ports::HostFs as _;
use pitcrew_host::{Host, HostRoots, Roots};

use super::{client, settings, system};
use crate::error::Error;
use crate::output::Output;

/// Where a driver container has its root on the node.
const DRIVER_CONTAINER: &str = "/run/nvidia/driver";

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::NoThread)?;
    // Before anything goes: it refuses where programs use it.
    let mps = runtime.block_on(mps(&args.mps_root, &global.root, Arc::clone(&fs)))?;
    let executor = Executor::new(&global.root);
    for step in &plan.steps {
        if !args.dry_run {
            executor.step(step)?;
        }
        output.remark(&told(step, args.dry_run))?;
    }
    let things = mps.things();
    let mut left = plan.remarks;
    if !args.dry_run {
        left.extend(runtime.block_on(mps.run()));
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for thing in &things {
        output.remark(&format!("{verb} {thing}"))?;
    }
    if plan.steps.is_empty() && things.is_empty() {
        output.remark("nothing of the agent is on this node")?;
    }
    for remark in &left {
        output.remark(&format!("left: {remark}"))?;
    }
    if !args.no_api {
        runtime.block_on(at_the_api_server(args, global, &fs, output))?;
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
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let client = match client::look(fs, &global.root).await {
        Ok(client) => client,
        Err(why) => {
            let text =
                "left: what the agent wrote at the API server, labels and GpuNode, as none is known here";
            return output.remark(&format!("{text}: {why}"));
        }
    };
    let node = match &args.node {
        Some(node) => node.clone(),
        None => settings::host_name(&global.root)?,
    };
    let report = cluster::take_away(&client, &node, &args.namespace, args.dry_run).await;
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for what in &report.taken {
        output.remark(&format!("{verb} {what}"))?;
    }
    for what in &report.left {
        output.remark(&format!("left: {what}"))?;
    }
    Ok(())
}

/// What the Multi-Process Service has on the node.
async fn mps(mps_root: &Path, root: &Path, fs: Arc<HostRoots>) -> Result<Removal, Error> {
    // Of which driver its programs were is not written down; what it needs them for works with either's.
    let has_program = |dir: &&str| {
        let program = Path::new(dir).join("usr/bin/nvidia-cuda-mps-control");
        fs.kind(&program).is_ok()
    };
    let driver_root = ["/", DRIVER_CONTAINER].into_iter().find(has_program);
    let place = Place {
        root: mps_root.to_owned(),
        driver_root: driver_root.unwrap_or("/").into(),
        selinux: false,
    };
    let system = Arc::new(system::Host::new(root));
    Ok(Removal::look(system, fs, root, &place).await?)
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
