//! Keeps the daemons running that should.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::daemon::{Ground, Running};
use super::next::next;
use super::{Daemon, Place, Policy, Status, Wanted, container, problems};
use crate::Deps;
use crate::notice::Level;
use crate::snapshot::Problem;

/// The first pause after a daemon ended or didn't start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A daemon that ran as long as this is one that runs: its end starts the pauses anew.
const STEADY: Duration = Duration::from_mins(1);

/// What one daemon's task tells.
enum Report {
    /// It answers; what isn't right all the same, and what is to know of it.
    Ready {
        problem: Option<Problem>,
        remark: Option<Problem>,
    },
    /// It doesn't.
    Failed(Problem),
    /// It is being stopped.
    Down,
    /// Its task is over.
    Over,
}

/// One daemon's task.
struct Keeper {
    /// What it runs, or tries to.
    daemon: Daemon,
    wish: watch::Sender<Option<Daemon>>,
}

/// Runs the daemons that are wanted, and says which are ready, until `stop`. `None` is for a wish that isn't known yet.
///
/// What runs then runs on, as pods may use it: the next agent takes it over, or ends it where it isn't wanted and no pod
/// holds it, and so does [`uninstall`](super::uninstall). The same where this future is dropped.
pub async fn run(
    deps: Arc<Deps>,
    mut wanted: watch::Receiver<Option<Wanted>>,
    status: watch::Sender<Status>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let place = {
            let known = wanted.wait_for(Option::is_some);
            let known = tokio::select! {
                () = &mut stop => return,
                known = known => known,
            };
            match known.as_deref() {
                Ok(Some(wanted)) => wanted.place.clone(),
                _ => return,
            }
        };
        // With another place everything is another: all daemons there end first.
        let ground = Ground::new(&deps, place.clone());
        let mut floor = Floor::new(ground, place, status.clone());
        if !floor.keep(&mut wanted, &mut stop).await {
            status.send_replace(Status::default());
            return;
        }
        floor.clear().await;
    }
}

/// All daemons of one place.
struct Floor {
    ground: Ground,
    place: Place,
    status: watch::Sender<Status>,
    keepers: BTreeMap<String, Keeper>,
    tasks: JoinSet<()>,
    report: mpsc::UnboundedSender<(String, Report)>,
    reports: mpsc::UnboundedReceiver<(String, Report)>,
    /// Daemons of an agent before us, until the first wish.
    left: BTreeMap<String, Daemon>,
    /// What is wrong with what is wanted.
    wrong: BTreeMap<String, Problem>,
    /// What is wrong with what runs.
    failed: BTreeMap<String, Problem>,
    /// What is to know of what runs.
    remarks: BTreeMap<String, Problem>,
    /// True until modes were given back that an agent before us left.
    is_new: bool,
}

impl Floor {
    fn new(ground: Ground, place: Place, status: watch::Sender<Status>) -> Self {
        let (report, reports) = mpsc::unbounded_channel();
        Self {
            left: ground.disk.daemons(),
            ground,
            place,
            status,
            keepers: BTreeMap::new(),
            tasks: JoinSet::new(),
            report,
            reports,
            wrong: BTreeMap::new(),
            failed: BTreeMap::new(),
            remarks: BTreeMap::new(),
            is_new: true,
        }
    }

    /// True when another place is wanted, false when all should end.
    async fn keep(
        &mut self,
        wanted: &mut watch::Receiver<Option<Wanted>>,
        stop: &mut (impl Future<Output = ()> + Unpin),
    ) -> bool {
        loop {
            let now = wanted.borrow_and_update().clone();
            if let Some(now) = now {
                if now.place != self.place {
                    return true;
                }
                self.wish(&now).await;
            }
            loop {
                tokio::select! {
                    () = &mut *stop => return false,
                    changed = wanted.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return false,
                    },
                    Some((resource, report)) = self.reports.recv() => self.note(resource, report).await,
                    Some(_) = self.tasks.join_next() => {}
                }
            }
        }
    }

    /// Brings about what is wanted.
    async fn wish(&mut self, wanted: &Wanted) {
        let mut resources: BTreeSet<String> = wanted.daemons.keys().cloned().collect();
        resources.extend(self.keepers.keys().cloned());
        resources.extend(self.left.keys().cloned());
        self.wrong.clear();
        for resource in resources {
            let asked = wanted.daemons.get(&resource);
            if let Some(Err(problem)) = asked {
                self.wrong.insert(resource.clone(), problem.clone());
            }
            let asked = asked.and_then(|asked| asked.as_ref().ok());
            let left = self.left.remove(&resource);
            let current = self.keepers.get(&resource).map(|keeper| keeper.daemon.clone());
            let next = next(current.as_ref().or(left.as_ref()), asked, &wanted.held);
            if next.waits {
                self.wrong.insert(resource.clone(), problems::waits(&resource));
            }
            match next.daemon {
                Some(daemon) => self.set(daemon),
                None => self.unset(&resource),
            }
            if let Some(left) = left
                && !self.keepers.contains_key(&resource)
            {
                self.ground.stop(&left, None).await;
            }
        }
        if std::mem::take(&mut self.is_new) {
            self.give_back_free().await;
        }
        self.say();
    }

    /// Gives back the modes of GPUs that no daemon has.
    async fn give_back_free(&self) {
        let parts = self.keepers.values().flat_map(|keeper| &keeper.daemon.gpus);
        let taken: BTreeSet<&str> = parts.map(|part| part.uuid.as_str()).collect();
        self.ground.give_back_modes(|uuid| !taken.contains(uuid)).await;
    }

    fn set(&mut self, daemon: Daemon) {
        if let Some(keeper) = self.keepers.get_mut(&daemon.resource) {
            keeper.daemon = daemon.clone();
            keeper.wish.send_if_modified(|wish| {
                let differs = wish.as_ref() != Some(&daemon);
                *wish = Some(daemon);
                differs
            });
            return;
        }
        let (wish, wishes) = watch::channel(Some(daemon.clone()));
        let resource = daemon.resource.clone();
        let keep = keep(self.ground.clone(), resource.clone(), wishes, self.report.clone());
        self.tasks.spawn(keep);
        self.keepers.insert(resource, Keeper { daemon, wish });
    }

    fn unset(&mut self, resource: &str) {
        if let Some(keeper) = self.keepers.get(resource) {
            keeper.wish.send_if_modified(|wish| wish.take().is_some());
        }
    }

    async fn note(&mut self, resource: String, report: Report) {
        let is_ready = matches!(report, Report::Ready { .. });
        self.remarks.remove(&resource);
        match report {
            Report::Ready { problem, remark } => {
                self.failed.remove(&resource);
                self.failed
                    .extend(problem.map(|problem| (resource.clone(), problem)));
                self.remarks
                    .extend(remark.map(|remark| (resource.clone(), remark)));
            }
            Report::Failed(problem) => {
                self.failed.insert(resource.clone(), problem);
            }
            Report::Down => {
                self.failed.remove(&resource);
            }
            Report::Over => {
                self.failed.remove(&resource);
                let keeper = self.keepers.remove(&resource);
                // It may be wished again since its task saw that it wasn't.
                let again = keeper.and_then(|keeper| keeper.wish.borrow().clone());
                match again {
                    Some(daemon) => self.set(daemon),
                    None => self.give_back_free().await,
                }
            }
        }
        let shared = container(&self.place, &resource);
        self.status.send_if_modified(|status| {
            if is_ready {
                status.ready.insert(resource, shared).is_none()
            } else {
                status.ready.remove(&resource).is_some()
            }
        });
        self.say();
    }

    /// Says what is wrong.
    fn say(&self) {
        let mut problems = self.failed.clone();
        problems.extend(self.wrong.clone());
        self.status.send_if_modified(|status| {
            let differs = status.problems != problems || status.remarks != self.remarks;
            status.problems = problems;
            status.remarks.clone_from(&self.remarks);
            differs
        });
    }

    /// Ends everything, and waits for it.
    async fn clear(&mut self) {
        for resource in self.keepers.keys().cloned().collect::<Vec<_>>() {
            self.unset(&resource);
        }
        while self.tasks.join_next().await.is_some() {}
        self.ground.give_back_modes(|_| true).await;
        self.status.send_replace(Status::default());
    }
}

/// Runs one resource's daemon as it is wished, until none is.
async fn keep(
    ground: Ground,
    resource: String,
    mut wishes: watch::Receiver<Option<Daemon>>,
    report: mpsc::UnboundedSender<(String, Report)>,
) {
    let mut pause = FIRST_PAUSE;
    let mut told = None;
    // A daemon that failed, of which something may be left.
    let mut failed: Option<Daemon> = None;
    loop {
        let wish = wishes.borrow_and_update().clone();
        if failed != wish {
            (told, pause) = (None, FIRST_PAUSE);
            if let Some(failed) = failed.take() {
                let _ = report.send((resource.clone(), Report::Down));
                ground.stop(&failed, None).await;
            }
        }
        let Some(daemon) = wish else {
            break;
        };
        let begun = Instant::now();
        let ended = match ground.start(&daemon).await {
            Ok(running) => serve(&ground, &daemon, running, &mut wishes, &report).await,
            Err(problem) => Some(problem),
        };
        let Some(problem) = ended else {
            // Another one is wished, or none.
            failed = None;
            continue;
        };
        if begun.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        if told.as_ref() != Some(&problem) {
            let text = format!("{resource}: {}; {}", problem.message, problem.hint);
            ground.tell(Level::Error, text);
            told = Some(problem.clone());
        }
        let _ = report.send((resource.clone(), Report::Failed(problem)));
        failed = Some(daemon);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = wishes.changed() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let _ = report.send((resource, Report::Over));
}

/// Watches a daemon that runs. What was wrong where it ended by itself; nothing where it was stopped.
async fn serve(
    ground: &Ground,
    daemon: &Daemon,
    mut running: Running,
    wishes: &mut watch::Receiver<Option<Daemon>>,
    report: &mpsc::UnboundedSender<(String, Report)>,
) -> Option<Problem> {
    let name = &daemon.resource;
    let text = format!(
        "{name}: the daemon of MPS runs for {} GPUs; each client has {} % of the threads, and pods of another user wait \
         until those of one are gone",
        daemon.gpus.len(),
        daemon.active_thread_percentage
    );
    ground.tell(Level::Info, text);
    let asked_for = ground.policy == Policy::Leave;
    let level = if asked_for { Level::Info } else { Level::Warning };
    let problem = running.problem.iter().map(|problem| (Level::Warning, problem));
    for (level, problem) in problem.chain(running.remark.iter().map(|remark| (level, remark))) {
        ground.tell(level, format!("{name}: {}; {}", problem.message, problem.hint));
    }
    let ready = Report::Ready {
        problem: running.problem.clone(),
        remark: running.remark.clone(),
    };
    let _ = report.send((name.clone(), ready));
    let ended = tokio::select! {
        problem = ground.ended(daemon, &mut running) => Some(problem),
        _ = wishes.wait_for(|wish| wish.as_ref() != Some(daemon)) => None,
    };
    if ended.is_none() {
        // Nothing is handed out while it ends.
        let _ = report.send((name.clone(), Report::Down));
        ground.stop(daemon, Some(running)).await;
        ground.tell(Level::Info, format!("{name}: the daemon of MPS was stopped"));
    }
    ended
}
