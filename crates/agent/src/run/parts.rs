//! The parts as tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use pitcrew_api::GpuNodeSpec;
use pitcrew_core::plugin::config::Config;
use pitcrew_core::plugin::holders::Holding;
use pitcrew_core::plugin::uuid_of;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Deps;
use crate::labels::{Channels, Outlet, Sink};
use crate::mps;
use crate::node::Known;
use crate::notice::{Level, Topic};
use crate::plugin::holders;
use crate::plugin::{Ledger, Place};
use crate::proof;
use crate::snapshot::{Problem, Snapshot};
use crate::specs::keep::{Held, Made, Order};

/// How long a part that panicked rests.
const REST: Duration = Duration::from_secs(5);
/// How long the Node may be unknown before labels are written elsewhere all the same.
const PATIENCE: Duration = Duration::from_secs(15);
/// When a GPU that a pod holds through MPS is looked at again.
const AGAIN: Duration = Duration::from_secs(10);

/// Runs a part until it ends; one that panics is told of, rests, and begins anew.
pub(super) fn part<F: Future<Output = ()> + Send + 'static>(
    parts: &mut JoinSet<()>,
    deps: &Arc<Deps>,
    topic: Topic,
    make: impl Fn(Arc<Deps>) -> F + Send + 'static,
) {
    let deps = Arc::clone(deps);
    parts.spawn(async move {
        loop {
            // Dropped with this future, and the task with it.
            let mut task = JoinSet::new();
            task.spawn(make(Arc::clone(&deps)));
            match task.join_next().await {
                Some(Err(error)) if error.is_panic() => {
                    let text = "a mistake of pitcrew ended this part of it; it begins anew. Please report it with the \
                                message of the panic";
                    deps.tell(topic, Level::Error, text);
                    tokio::time::sleep(REST).await;
                }
                _ => return,
            }
        }
    });
}

/// Where the device plugin works.
pub(super) fn place(deps: &Deps) -> Place {
    let on_host = &deps.settings.kubelet_dir;
    Place {
        kubelet_dir: deps.root.join(on_host.strip_prefix("/").unwrap_or(on_host)),
        kubelet_dir_on_host: on_host.clone(),
        node: deps.settings.node.clone(),
    }
}

/// The kubelet's books; `None` where they can't be read.
async fn books(deps: &Deps) -> Option<Vec<Holding>> {
    let place = place(deps);
    let socket = holders::socket(&place.kubelet_dir);
    let checkpoint = holders::checkpoint(&place.kubelet_dir);
    // How long this kubelet has been there isn't known here: its checkpoint counts too, which only holds on longer.
    holders::read(&socket, &checkpoint, &place.node, Duration::ZERO)
        .await
        .held
}

/// Everything that pods hold.
async fn held(deps: Arc<Deps>) -> Held {
    let held = books(&deps).await?;
    Some(
        held.iter()
            .map(|holding| uuid_of(&holding.id).to_owned())
            .collect(),
    )
}

/// Which daemons of MPS there should be, before it is known who holds what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shares {
    pub(super) daemons: BTreeMap<String, Result<mps::Daemon, Problem>>,
    pub(super) place: mps::Place,
}

/// Runs the daemons of MPS. Before one of them would go, the kubelet is asked who holds its GPUs.
pub(super) async fn mps(
    deps: Arc<Deps>,
    mut shares: watch::Receiver<Option<Shares>>,
    status: watch::Sender<mps::Status>,
    end: impl Future<Output = ()> + Send,
) {
    let (wanted, wish) = watch::channel(None);
    let ask = async {
        // UUIDs of GPUs that a daemon has been wanted for.
        let mut served: BTreeSet<String> = BTreeSet::new();
        let mut is_first = true;
        loop {
            let now = shares.borrow_and_update().clone();
            let mut waits = false;
            if let Some(Shares { daemons, place }) = now {
                if std::mem::take(&mut is_first) {
                    served = mps::left(&deps.root, &place);
                }
                let gpus = |daemon: &mps::Daemon| {
                    let uuids = daemon.gpus.iter().map(|part| part.uuid.clone());
                    uuids.collect::<Vec<_>>()
                };
                let needed: BTreeSet<String> = daemons.values().flatten().flat_map(gpus).collect();
                let held = if served.is_empty() {
                    BTreeSet::new()
                } else {
                    match books(&deps).await {
                        Some(held) => held
                            .iter()
                            .filter(|holding| is_by_mps(&holding.id))
                            .map(|holding| uuid_of(&holding.id).to_owned())
                            .collect(),
                        None => served.clone(),
                    }
                };
                served.retain(|uuid| held.contains(uuid));
                served.extend(needed);
                waits = !held.is_empty();
                super::put(&wanted, Some(mps::Wanted { daemons, held, place }));
            }
            tokio::select! {
                changed = shares.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN), if waits => {}
            }
        }
    };
    tokio::select! {
        () = mps::run(Arc::clone(&deps), wish, status, end) => {}
        () = ask => {}
    }
}

/// True for the id of a share of MPS: `UUID::N-of-M`.
fn is_by_mps(id: &str) -> bool {
    id.split_once("::")
        .is_some_and(|(_, replica)| replica.contains("-of-"))
}

pub(super) async fn specs(
    deps: Arc<Deps>,
    orders: watch::Receiver<Option<Order>>,
    made: watch::Sender<Option<Made>>,
    ledger: Arc<Ledger>,
) {
    let books = {
        let deps = Arc::clone(&deps);
        move || held(Arc::clone(&deps)).boxed()
    };
    crate::specs::keep::keep(deps, orders, made, ledger, books).await;
}

/// Has GPUs proved, and takes up reports.
pub(super) async fn proofs(
    deps: Arc<Deps>,
    channels: proof::keep::Channels,
    ledger: Arc<Ledger>,
    end: impl Future<Output = ()> + Send,
) {
    let books: proof::keep::Books = Arc::new({
        let deps = Arc::clone(&deps);
        move || {
            let place = place(&deps);
            async move { holders::of(&place.kubelet_dir, &place.node).await.held }.boxed()
        }
    });
    proof::keep::keep(deps, channels, ledger, books, end).await;
}

pub(super) async fn object(deps: Arc<Deps>, to: watch::Sender<Known>) {
    crate::node::follow(&deps, to).await;
}

pub(super) async fn config(deps: Arc<Deps>, channels: crate::config::Channels<Config>) {
    let settings = &deps.settings;
    let parse = |text: &str| Config::parse(text).and_then(|config| config.with(&settings.overrides));
    crate::config::keep(&deps, &settings.sources, parse, channels).await;
}

/// Keeps labels where they should be. Where that is another place from now on, ours go from the old one; those on the Node
/// also where an agent before us has left them.
pub(super) async fn labels(
    deps: Arc<Deps>,
    mut outlets: watch::Receiver<Option<Outlet>>,
    mut channels: Channels,
    end: impl Future<Output = ()> + Send + Clone,
) {
    let mut before: Option<Sink> = None;
    loop {
        let Some(Outlet { sink, timestamp }) = outlets.borrow_and_update().clone() else {
            tokio::select! {
                changed = outlets.changed() => if changed.is_err() { return },
                () = end.clone() => return,
            }
            continue;
        };
        let old = match before.replace(sink.clone()) {
            Some(old) => Some(old),
            None if sink != Sink::Node && deps.client.is_some() => {
                tokio::select! {
                    known = channels.node.wait_for(Option::is_some) => {
                        let has_ours = known.is_ok_and(|node| {
                            node.as_deref().is_some_and(crate::labels::has_ours)
                        });
                        has_ours.then_some(Sink::Node)
                    }
                    // Where to write doesn't depend on it.
                    () = tokio::time::sleep(PATIENCE) => None,
                    () = end.clone() => return,
                }
            }
            None => None,
        };
        if let Some(old) = old.filter(|old| *old != sink) {
            crate::labels::leave(&deps, &old).await;
            channels.problem.send_replace(None);
        }
        let moves = {
            let (sink, mut outlets) = (sink.clone(), outlets.clone());
            async move {
                let is_other = |outlet: &Option<Outlet>| {
                    outlet
                        .as_ref()
                        .is_some_and(|outlet| outlet.sink != sink || outlet.timestamp != timestamp)
                };
                if outlets.wait_for(is_other).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let stop = {
            let end = end.clone();
            async move {
                tokio::select! {
                    () = end => {}
                    () = moves => {}
                }
            }
        };
        crate::labels::keep(&deps, sink, timestamp, channels.clone(), stop).await;
        if end.clone().now_or_never().is_some() {
            return;
        }
    }
}

pub(super) async fn status(
    deps: Arc<Deps>,
    snapshots: watch::Receiver<Snapshot>,
    wanted: watch::Sender<Option<GpuNodeSpec>>,
) {
    crate::status::keep(&deps, snapshots, wanted).await;
}
