//! The task that has the program of the hooks on the node before a specification names it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use pitcrew_host::Host;
use tokio::sync::watch;

use super::eyes::Calls;
use crate::Deps;
use crate::node::why;
use crate::notice::{Level, Topic};
use crate::runtime::devices::{Prepared, prepare};
use crate::runtime::install::{Executor, There, Wanted, WrapperSettings, hook_path, plan};
use crate::runtime::toolkit_env::{Judged, Treatment, judge};
use crate::snapshot::Problem;

/// What is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Installed {
    /// The program of the hooks, as on the host; `None` where it isn't there.
    pub(super) hook: Option<PathBuf>,
    /// Our directory on the host.
    pub(super) home: PathBuf,
    /// Root of the driver's files, where the toolkit's environment names one.
    pub(super) driver_root: Option<PathBuf>,
    /// Root of the driver's device nodes, likewise.
    pub(super) dev_root: Option<PathBuf>,
    /// Why something could not be installed.
    pub(super) problem: Option<Problem>,
}

/// Prepares what is missing whenever the host has been looked at, for ever: kernel modules and device nodes, then our
/// programs. What that has made is looked at at once.
pub(super) async fn keep(
    deps: Arc<Deps>,
    mut hosts: watch::Receiver<Option<Arc<Host>>>,
    calls: Arc<Calls>,
    installed: watch::Sender<Option<Installed>>,
) {
    let mut told = BTreeSet::new();
    let mut tell = |level, remarks: Vec<String>| {
        for remark in remarks {
            if told.insert(remark.clone()) {
                deps.tell(Topic::Runtime, level, remark);
            }
        }
    };
    loop {
        let host = hosts.borrow_and_update().clone();
        if let Some(host) = host {
            let judged = judge(&deps.settings.toolkit_env, &host);
            for verdict in &judged.verdicts {
                let level = match verdict.treatment {
                    Treatment::Wrong => Level::Warning,
                    Treatment::Honoured | Treatment::NotNeeded => Level::Info,
                };
                tell(level, vec![verdict.line()]);
            }
            if judged.create_device_nodes {
                let prepared = prepare(&*deps.host, &host, &deps.root, &*deps.system).await;
                if !prepared.loaded.is_empty() || !prepared.made.is_empty() {
                    deps.tell(Topic::Runtime, Level::Info, made(&prepared));
                    calls.host.notify_one();
                    calls.gpus.notify_one();
                }
                tell(Level::Warning, prepared.remarks);
            }
            // Compares and copies programs of some MiB.
            let done = tokio::task::spawn_blocking({
                let (deps, host) = (Arc::clone(&deps), Arc::clone(&host));
                move || install(&deps, &host, &judged)
            });
            if let Ok((outcome, remarks)) = done.await {
                tell(Level::Info, remarks);
                installed.send_if_modified(|old| {
                    let differs = old.as_ref() != Some(&outcome);
                    if let (true, Some(problem)) = (differs, &outcome.problem) {
                        let text = format!("{}; {}", problem.message, problem.hint);
                        deps.tell(Topic::Runtime, Level::Error, text);
                    }
                    *old = Some(outcome);
                    differs
                });
            }
        }
        if hosts.changed().await.is_err() {
            return;
        }
    }
}

fn made(prepared: &Prepared) -> String {
    let mut parts = Vec::new();
    if !prepared.loaded.is_empty() {
        parts.push(format!("loaded {}", prepared.loaded.join(", ")));
    }
    if !prepared.made.is_empty() {
        let paths: Vec<String> = prepared
            .made
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        parts.push(format!("made {}", paths.join(", ")));
    }
    parts.join("; ")
}

/// What shall be installed.
pub(super) fn wanted(deps: &Deps, wrapper: WrapperSettings) -> Wanted {
    Wanted {
        version: deps.settings.hook.version.clone(),
        binary: deps.settings.hook.binary.clone(),
        wrapper,
    }
}

fn install(deps: &Deps, host: &Host, judged: &Judged) -> (Installed, Vec<String>) {
    let wanted = wanted(deps, judged.wrapper);
    let there = There::look(&deps.root, host, &wanted);
    let plan = plan(host, &there, &wanted);
    let path = hook_path(&there, &wanted);
    let done = Executor::new(&deps.root).run(&plan.steps);
    let problem = done.err().map(|error| Problem {
        reason: "NotInstalled".to_owned(),
        message: format!("the node's files could not be written: {}", why(&error)),
        hint: "see whether the directory can be written to and has room: `df -h`".to_owned(),
    });
    let is_there = deps.host.kind(&path).is_ok();
    let outcome = Installed {
        hook: is_there.then_some(path),
        home: there.home.clone(),
        driver_root: judged.driver_root.clone(),
        dev_root: judged.dev_root.clone(),
        problem,
    };
    (outcome, plan.remarks)
}
