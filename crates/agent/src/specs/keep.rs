//! The task that keeps specifications true.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pitcrew_cdi::Spec;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Basis, Draft, Error, Step, carry_out};
use crate::Deps;
use crate::notice::{Level, Topic};
use crate::plugin::{Ledger, Nodes};
use crate::runtime::mounts::Answer;
use crate::snapshot::Problem;

/// When it is looked again whether a driver that is away is back.
const SOON: Duration = Duration::from_secs(5);
/// When a name that a pod holds is looked at again.
const AGAIN: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// What specifications are made of.
    pub(crate) basis: Basis,
    /// Another number where files of the host may have changed.
    pub(crate) turn: u64,
    /// True where device nodes and mounts are wanted of each device.
    pub(crate) nodes: bool,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Made {
    /// The device plugin's specification, as it is written; `None` where there is none.
    pub(crate) spec: Option<Arc<Spec>>,
    /// Device nodes and mounts of each device whose files are all there; none unless they are wanted.
    pub(crate) nodes: Arc<Nodes>,
    /// Why one can't be made or written.
    pub(crate) problem: Option<Problem>,
}

impl Made {
    /// Names of its devices.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let devices = self.spec.iter().flat_map(|spec| &spec.devices);
        devices.map(|device| device.name.clone()).collect()
    }
}

/// UUIDs and ids that pods hold; `None` where that can't be told.
pub(crate) type Held = Option<BTreeSet<String>>;

/// Keeps the files as they should be, for ever.
///
/// Before a name goes, the device plugin is kept from answering with it, and then `held` asks the kubelet who holds it:
/// in this order, or a pod that comes in between is left with a name of nothing. While a driver is away that was there,
/// nothing is written or removed: pods that were given its devices start again when it is back.
pub(crate) async fn keep(
    deps: Arc<Deps>,
    mut orders: watch::Receiver<Option<Order>>,
    made: watch::Sender<Option<Made>>,
    ledger: Arc<Ledger>,
    held: impl Fn() -> BoxFuture<'static, Held>,
) {
    let mut remarks = Vec::new();
    let mut away = Away::default();
    loop {
        let order = orders.borrow_and_update().clone();
        let mut waits = None;
        if let Some(order) = order {
            let kept = once(&deps, &order, &mut away, &ledger, &held).await;
            let (outcome, told) = match kept {
                Ok(kept) => {
                    waits = kept.waits;
                    (kept.made, kept.remarks)
                }
                Err(error) => (failed(&made, &error), Vec::new()),
            };
            for remark in told.iter().filter(|remark| !remarks.contains(*remark)) {
                deps.tell(Topic::Cdi, Level::Warning, format!("left out: {remark}"));
            }
            remarks = told;
            tell_problem(&deps, &made, &outcome);
            made.send_if_modified(|old| {
                let differs = old.as_ref() != Some(&outcome);
                *old = Some(outcome);
                differs
            });
        }
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(waits.unwrap_or(AGAIN)), if waits.is_some() => {}
        }
    }
}

fn tell_problem(deps: &Deps, made: &watch::Sender<Option<Made>>, outcome: &Made) {
    let before = made.borrow().as_ref().and_then(|made| made.problem.clone());
    if let Some(problem) = &outcome.problem
        && before.as_ref() != Some(problem)
    {
        let text = format!("{}; {}", problem.message, problem.hint);
        deps.tell(Topic::Cdi, Level::Error, text);
    }
}

/// What was there stays where nothing new could be written.
fn failed(made: &watch::Sender<Option<Made>>, error: &Error) -> Made {
    Made {
        problem: Some(Problem {
            reason: "CdiNotWritten".to_owned(),
            message: error.to_string(),
            hint: "look whether the directory is writable and has room: `df -h /var/run`".to_owned(),
        }),
        ..made.borrow().clone().unwrap_or_default()
    }
}

struct Kept {
    made: Made,
    remarks: Vec<String>,
    /// When to look again, where something stays for the time being.
    waits: Option<Duration>,
}

/// Since when nothing could be made.
#[derive(Debug, Default)]
struct Away(Option<Instant>);

impl Away {
    /// How long to wait before the files go: nothing where they may go now.
    fn left(&mut self, is_away: bool, longest: Duration) -> Option<Duration> {
        if !is_away {
            self.0 = None;
            return None;
        }
        let since = *self.0.get_or_insert_with(Instant::now);
        longest
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }
}

async fn once(
    deps: &Arc<Deps>,
    order: &Order,
    away: &mut Away,
    ledger: &Ledger,
    held: &impl Fn() -> BoxFuture<'static, Held>,
) -> Result<Kept, Error> {
    let basis = &order.basis;
    let draft = blocking({
        let (deps, basis) = (Arc::clone(deps), basis.clone());
        move || Draft::new(&*deps.host, &basis)
    })
    .await?;
    let remarks = draft.remarks().to_vec();
    let problem = draft.problem().cloned();
    let is_new = away.0.is_none();
    if let Some(left) = away.left(draft.is_driver_away(), deps.settings.pace.driver_away) {
        if is_new {
            let text = format!(
                "the driver's files are not there: for {} s nothing of it is written or removed in `{}`",
                left.as_secs(),
                basis.dir.display()
            );
            deps.tell(Topic::Cdi, Level::Info, text);
        }
        let made = Made {
            problem,
            ..Made::default()
        };
        return Ok(Kept {
            made,
            remarks,
            waits: Some(left.min(SOON)),
        });
    }
    let dropped: BTreeSet<String> = draft.dropped().into_iter().map(str::to_owned).collect();
    let lately = ledger.withdraw(dropped.iter().map(String::as_str));
    let holders = if dropped.is_empty() {
        Some(BTreeSet::new())
    } else {
        held().await
    };
    let is_held =
        |name: &str| lately.contains(name) || holders.as_ref().is_none_or(|held| held.contains(name));
    let waits = (!draft.needed(is_held).is_empty()).then_some(AGAIN);
    let (steps, spec) = draft.settle(is_held);
    for step in &steps {
        blocking({
            let (deps, dir, step) = (Arc::clone(deps), basis.dir.clone(), step.clone());
            move || carry_out(&deps.root, &dir, &step)
        })
        .await?;
        deps.tell(Topic::Cdi, Level::Info, told(step));
    }
    let names = spec.iter().flat_map(|spec| &spec.devices);
    ledger.restore(names.map(|device| device.name.as_str()));
    let spec = spec.map(Arc::new);
    let nodes = match spec.clone().filter(|_| order.nodes) {
        Some(spec) => {
            let deps = Arc::clone(deps);
            let is_there = move |_: &str, answer: &Answer| answer.missing(&*deps.host).is_empty();
            blocking(move || Ok(Nodes::of(&spec, is_there))).await?
        }
        None => Nodes::default(),
    };
    Ok(Kept {
        made: Made {
            spec,
            nodes: Arc::new(nodes),
            problem,
        },
        remarks,
        waits,
    })
}

fn told(step: &Step) -> String {
    match step {
        Step::Write(spec) => {
            let names: Vec<&str> = spec.devices.iter().map(|device| device.name.as_str()).collect();
            format!("wrote the specification of {}: {}", spec.kind, names.join(", "))
        }
        Step::Remove(path) => format!(
            "removed `{}`: what it describes isn't there any more",
            path.display()
        ),
    }
}

/// Reads and writes many files: not on the thread that answers the kubelet.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|ended| {
        Err(Error::File {
            path: "/".into(),
            source: std::io::Error::other(ended),
        })
    })
}
