//! The parts as tasks.

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
use crate::config::Chosen;
use crate::labels::Channels;
use crate::node::Known;
use crate::notice::{Level, Topic};
use crate::plugin::Place;
use crate::plugin::holders::{self, CHECKPOINT};
use crate::snapshot::{Problem, Snapshot};
use crate::specs::keep::{Held, Made, Order};

/// How long a part that panicked rests.
const REST: Duration = Duration::from_secs(5);

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

/// Everything that pods hold, by the kubelet's books.
async fn held(deps: Arc<Deps>) -> Held {
    let place = place(&deps);
    let socket = place.kubelet_dir.join("pod-resources/kubelet.sock");
    let checkpoint = place.kubelet_dir.join("device-plugins").join(CHECKPOINT);
    // How long this kubelet has been there isn't known here: its checkpoint counts too, which only holds on longer.
    let books = holders::read(&socket, &checkpoint, &place.node, Duration::ZERO).await;
    let names = |held: Vec<Holding>| {
        let uuids = held.iter().map(|holding| uuid_of(&holding.id).to_owned());
        uuids.collect()
    };
    books.held.map(names)
}

pub(super) async fn specs(
    deps: Arc<Deps>,
    orders: watch::Receiver<Option<Order>>,
    made: watch::Sender<Option<Made>>,
) {
    let books = {
        let deps = Arc::clone(&deps);
        move || held(Arc::clone(&deps)).boxed()
    };
    crate::specs::keep::keep(deps, orders, made, books).await;
}

pub(super) async fn object(deps: Arc<Deps>, to: watch::Sender<Known>) {
    crate::node::follow(&deps, to).await;
}

pub(super) async fn config(
    deps: Arc<Deps>,
    node: watch::Receiver<Known>,
    chosen: watch::Sender<Option<Arc<Chosen<Config>>>>,
    problem: watch::Sender<Option<Problem>>,
) {
    let settings = &deps.settings;
    let parse = |text: &str| Config::parse(text).and_then(|config| config.with(&settings.overrides));
    crate::config::keep(&deps, &settings.sources, parse, node, chosen, problem).await;
}

pub(super) async fn labels(deps: Arc<Deps>, channels: Channels, end: impl Future<Output = ()> + Send) {
    let timestamp = deps.settings.overrides.no_timestamp != Some(true);
    let sink = deps.settings.labels.clone();
    crate::labels::keep(&deps, sink, timestamp, channels, end).await;
}

pub(super) async fn status(
    deps: Arc<Deps>,
    snapshots: watch::Receiver<Snapshot>,
    wanted: watch::Sender<GpuNodeSpec>,
) {
    crate::status::keep(&deps, snapshots, wanted).await;
}
