//! The task that has the program of the hooks on the node before a specification names it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pitcrew_host::Host;
use tokio::sync::watch;

use super::eyes::Calls;
use crate::Deps;
use crate::node::why;
use crate::notice::{Level, Topic};
use crate::runtime::devices::{Prepared, prepare};
use crate::runtime::handler::{self, Loaded, Record, loaded};
use crate::runtime::install::{Executor, StepError, There, Wanted, WrapperSettings, hook_path, plan};
use crate::runtime::toolkit_env::{Judged, Treatment, judge};
use crate::snapshot::Problem;

/// How long it may take to see that containerd was restarted.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// How often containerd's configuration is read anew, where somebody changes it while we do.
const TRIES: u32 = 3;

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
    /// Whether containerd has read its configuration since the agent has changed it.
    pub(super) loaded: Loaded,
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
    let mut is_waiting = false;
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
            if let Ok((mut outcome, remarks)) = done.await {
                tell(Level::Info, remarks);
                if deps.settings.configure_containerd && outcome.problem.is_none() {
                    match configure(&deps, &host, &outcome.home).await {
                        Ok(written) if written.is_empty() => {}
                        Ok(written) => {
                            deps.tell(Topic::Runtime, Level::Info, told_written(&written));
                            calls.host.notify_one();
                        }
                        Err(why) => tell(Level::Warning, vec![why]),
                    }
                }
                outcome.loaded = loaded(&*deps.host, &outcome.home);
                is_waiting = outcome.loaded == Loaded::NotYet;
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
        tokio::select! {
            changed = hosts.changed() => if changed.is_err() { return },
            // Nothing of the host's facts tells that containerd was restarted.
            () = tokio::time::sleep(LOOK_AGAIN), if is_waiting => {}
        }
    }
}

/// Gives containerd the handler; the files that were written for it. Where somebody changes them meanwhile it is looked
/// again.
async fn configure(deps: &Arc<Deps>, host: &Arc<Host>, home: &Path) -> Result<Vec<PathBuf>, String> {
    let mut tries = 1;
    loop {
        match configure_once(deps, host, home).await? {
            Err(error) if error.is_changed() && tries < TRIES => tries += 1,
            done => return done.map_err(|error| why(&error)),
        }
    }
}

/// As above, once: the outer error says why nothing was tried.
async fn configure_once(
    deps: &Arc<Deps>,
    host: &Arc<Host>,
    home: &Path,
) -> Result<Result<Vec<PathBuf>, StepError>, String> {
    let binary = handler::binary(home);
    let change = handler::plan(&*deps.host, host, &binary).map_err(|error| error.to_string())?;
    let Some(change) = change else {
        return Ok(Ok(Vec::new()));
    };
    let rehearsed = handler::rehearse(&change, &deps.root, &*deps.system).await;
    rehearsed.map_err(|error| error.to_string())?;
    let (home, deps, host) = (home.to_owned(), Arc::clone(deps), Arc::clone(host));
    let carry_out = move || {
        let wanted = wanted(&deps, WrapperSettings::default());
        let there = There::look(&deps.root, &host, &wanted);
        let record = Record::now(&*deps.host, &host);
        let steps = handler::steps(&*deps.host, &there.manifest, &home, &change, &record);
        Executor::new(&deps.root).run(&steps)?;
        Ok(change.edits.into_iter().map(|edit| edit.path).collect())
    };
    let done = tokio::task::spawn_blocking(carry_out).await;
    done.map_err(|error| error.to_string())
}

fn told_written(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    format!(
        "containerd's configuration has the handler `nvidia` now ({}), which becomes live at its next start",
        paths.join(", ")
    )
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
        handler: deps.settings.configure_containerd,
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
        loaded: Loaded::Yes,
        problem,
    };
    (outcome, plan.remarks)
}
