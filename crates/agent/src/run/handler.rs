//! The task that looks after the runtime's handler: its `RuntimeClass`, pods that wait for it, a restart where one is wanted
//! and allowed, and old versions that nobody needs any more. Nothing waits for it.

mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_host::Host;
use tokio::sync::watch;
use tokio::time::Instant;

use super::install::Installed;
use crate::Deps;
use crate::node::{Told as Failures, why};
use crate::notice::{Level, Topic};
use crate::runtime::handler::loaded;
use crate::runtime::install::{Executor, There, Uses, collect};
use crate::runtime::restart::{Restarter, Seen, Told, trap};
use crate::runtime::{Way, assess, runtime_class};
use crate::snapshot::Problem;

/// Between two steps of a restart, or attempts at the API server.
const STEP: Duration = Duration::from_secs(10);
/// How often old versions are looked for.
const COLLECT: Duration = Duration::from_hours(1);

/// What is known of the node, and where a problem is told.
#[derive(Clone)]
pub(super) struct Channels {
    pub(super) hosts: watch::Receiver<Option<Arc<Host>>>,
    pub(super) installed: watch::Receiver<Option<Installed>>,
    pub(super) problem: watch::Sender<Option<Problem>>,
    /// Pods that can't start for want of the handler; `namespace/name`.
    pub(super) waiting: watch::Sender<Vec<String>>,
}

/// Looks after it, for ever.
pub(super) async fn keep(deps: Arc<Deps>, mut channels: Channels) {
    let mut has_class = false;
    let mut restarter: Option<Restarter> = None;
    let mut collect_at = Instant::now();
    let mut told_error = None;
    let mut looker = waiting::Looker::default();
    let mut told_waiting = Failures::default();
    loop {
        let mut look_at = None;
        let host = channels.hosts.borrow_and_update().clone();
        let home = channels
            .installed
            .borrow_and_update()
            .as_ref()
            .map(|it| it.home.clone());
        if let (Some(host), Some(home)) = (host, home) {
            if let (Some(client), false) = (deps.client.clone(), has_class) {
                match runtime_class::ensure(client, &host).await {
                    Ok(made) => {
                        has_class = true;
                        if made {
                            let text = "made the RuntimeClass `nvidia`, which this cluster lacked";
                            deps.tell(Topic::Runtime, Level::Info, text);
                        }
                    }
                    Err(error) => {
                        let text = format!(
                            "the RuntimeClass `nvidia` could not be looked for: {}",
                            why(&error)
                        );
                        if told_error.as_ref() != Some(&text) {
                            deps.tell(Topic::Runtime, Level::Warning, text.clone());
                        }
                        told_error = Some(text);
                    }
                }
            }
            let way = assess(&host).since(loaded(&*deps.host, &home));
            look_at = who_waits(&deps, &way, &mut looker, &mut told_waiting, &channels.waiting).await;
            restart(&deps, &host, &way, &home, &mut restarter, &channels.problem).await;
            if Instant::now() >= collect_at {
                collect_at = Instant::now() + COLLECT;
                let deps = Arc::clone(&deps);
                // Reads every container's bundle.
                let _ = tokio::task::spawn_blocking(move || tidy(&deps, &host)).await;
            }
        }
        let is_busy = deps.settings.consent.restart || (deps.client.is_some() && !has_class);
        tokio::select! {
            changed = channels.hosts.changed() => if changed.is_err() { return },
            changed = channels.installed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(STEP), if is_busy => {}
            () = tokio::time::sleep_until(look_at.unwrap_or(collect_at).min(collect_at)) => {}
        }
    }
}

/// Looks for pods that can't start for want of the handler, where it is time; when it is time again.
async fn who_waits(
    deps: &Deps,
    way: &Way,
    looker: &mut waiting::Looker,
    told: &mut Failures,
    to: &watch::Sender<Vec<String>>,
) -> Option<Instant> {
    let client = deps.client.clone()?;
    let Some(due) = looker.due(way) else {
        super::put(to, Vec::new());
        return None;
    };
    if due <= Instant::now() {
        match looker.look(client, &deps.settings.node).await {
            Ok(pods) => {
                told.ok();
                super::put(to, pods);
            }
            // Which pods they are is good to know, and nothing waits for it.
            Err(error) => {
                if told.failed() {
                    let text = format!(
                        "pods that wait for the runtime's handler can't be looked for: {}",
                        why(&error)
                    );
                    deps.tell(Topic::Runtime, Level::Warning, text);
                }
            }
        }
    }
    looker.due(way)
}

async fn restart(
    deps: &Deps,
    host: &Host,
    way: &Way,
    home: &std::path::Path,
    restarter: &mut Option<Restarter>,
    problem: &watch::Sender<Option<Problem>>,
) {
    let Some(client) = deps.client.clone() else { return };
    let restarter = restarter.get_or_insert_with(|| {
        let namespace = client.default_namespace().to_owned();
        Restarter::new(client, &namespace, &deps.settings.node, &deps.root, home)
    });
    let trap = if deps.settings.consent.restart {
        trap(host, &*deps.host)
    } else {
        None
    };
    let seen = Seen {
        way,
        trap: trap.as_deref(),
        consent: deps.settings.consent,
        now: Timestamp::try_from(deps.clock.now()).unwrap_or_default(),
    };
    match restarter.tick(&seen, &*deps.system).await {
        Ok(told) => {
            for told in told {
                match told {
                    Told::Info(text) => deps.tell(Topic::Runtime, Level::Info, text),
                    Told::Warning(text) => deps.tell(Topic::Runtime, Level::Warning, text),
                }
            }
        }
        Err(error) => deps.tell(Topic::Runtime, Level::Error, why(&error)),
    }
    super::put(problem, restarter.problem());
}

/// Takes away old versions of our programs that nobody names any more.
fn tidy(deps: &Deps, host: &Host) {
    let wanted = super::install::wanted(deps, crate::runtime::install::WrapperSettings::default());
    let there = There::look(&deps.root, host, &wanted);
    let uses = Uses::look(&*deps.host, host, &there.home);
    if !uses.unread.is_empty() {
        return;
    }
    let plan = collect(&there, &uses, &wanted.version);
    let paths: Vec<PathBuf> = plan.steps.iter().map(|step| step.path().to_owned()).collect();
    match Executor::new(&deps.root).run(&plan.steps) {
        Ok(()) if paths.is_empty() => {}
        Ok(()) => {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            let text = format!("took away what no container needs any more: {}", paths.join(", "));
            deps.tell(Topic::Runtime, Level::Info, text);
        }
        Err(error) => deps.tell(Topic::Runtime, Level::Warning, why(&error)),
    }
}
