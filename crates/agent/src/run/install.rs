//! The task that has the program of the hooks on the node before a specification names it.

use std::path::PathBuf;
use std::sync::Arc;

use pitcrew_host::Host;
use tokio::sync::watch;

use crate::Deps;
use crate::node::why;
use crate::notice::{Level, Topic};
use crate::runtime::install::{Executor, There, Wanted, WrapperSettings, hook_path, plan};
use crate::snapshot::Problem;

/// What is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Installed {
    /// The program of the hooks, as on the host; `None` where it isn't there.
    pub(super) hook: Option<PathBuf>,
    /// Why something could not be installed.
    pub(super) problem: Option<Problem>,
}

/// Installs what is missing whenever the host has been looked at, for ever.
pub(super) async fn keep(
    deps: Arc<Deps>,
    mut hosts: watch::Receiver<Option<Arc<Host>>>,
    installed: watch::Sender<Option<Installed>>,
) {
    let mut told: Vec<String> = Vec::new();
    loop {
        let host = hosts.borrow_and_update().clone();
        if let Some(host) = host {
            // Compares and copies programs of some MiB.
            let done = tokio::task::spawn_blocking({
                let deps = Arc::clone(&deps);
                move || install(&deps, &host)
            });
            if let Ok((outcome, remarks)) = done.await {
                for remark in remarks.iter().filter(|remark| !told.contains(remark)) {
                    deps.tell(Topic::Runtime, Level::Info, remark.clone());
                }
                told = remarks;
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

fn install(deps: &Deps, host: &Host) -> (Installed, Vec<String>) {
    let wanted = Wanted {
        version: deps.settings.hook.version.clone(),
        binary: deps.settings.hook.binary.clone(),
        wrapper: WrapperSettings::default(),
    };
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
        problem,
    };
    (outcome, plan.remarks)
}
