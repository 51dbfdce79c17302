//! The main loop.
//!
//! It looks at the driver and the host, makes one [`Snapshot`](crate::snapshot::Snapshot) of what they say, and sends it
//! to the parts: specifications, device plugin, labels, status. Each part is a task of its own, and none waits for
//! another: an API server that is away, a kubelet that is late, or a driver's call that never returns stops only what
//! needs it. A part that panics is told of and started again.
//!
//! The order that matters is kept by what each part is given: the program of the hooks is installed before a
//! specification names it, and a specification is written before the device plugin offers what is in it. Nothing on that
//! way waits for the API server, unless the configuration is to come from there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use kube::ResourceExt as _;
use pitcrew_api::GpuNodeSpec;
use pitcrew_core::labels::Offer;
use pitcrew_core::plugin::config::Config;
use pitcrew_core::plugin::holders::Holding;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::Deps;
use crate::config::{self, Chosen};
use crate::labels;
use crate::node::Known;
use crate::notice::{Level, Topic};
use crate::plugin::holders::{self, CHECKPOINT};
use crate::plugin::{Place, Plugins};
use crate::snapshot::{Part, Problem};
use crate::specs;
use crate::status;

mod eyes;
mod glance;
mod install;
mod node;
mod offer;
mod pause;

use eyes::Calls;
use node::Node;

/// Things seen that wait for the main loop.
const WAITING: usize = 64;
/// How long a part that panicked rests.
const REST: Duration = Duration::from_secs(5);
/// How long parts may take to end.
const END: Duration = Duration::from_secs(3);

/// Runs the agent until `shutdown` is ready.
///
/// What was installed or handed out stays: pods that run need it, and the next agent finds it.
///
/// # Errors
/// Where it can't even begin; what fails later is told and tried again.
pub async fn run(deps: Deps, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let deps = Arc::new(deps);
    let (mut main, parts) = Main::start(&deps);
    tokio::select! {
        () = shutdown => {}
        () = main.run(&deps) => {}
    }
    main.end(&deps, parts).await;
    Ok(())
}

/// The main loop's ends of all channels.
struct Main {
    node: Node,
    sights: mpsc::Receiver<eyes::Seen>,
    wish: watch::Sender<eyes::Wish>,
    snapshots: watch::Sender<crate::snapshot::Snapshot>,
    hosts: watch::Sender<Option<Arc<pitcrew_host::Host>>>,
    installed: watch::Receiver<Option<install::Installed>>,
    orders: watch::Sender<Option<specs::keep::Order>>,
    made: watch::Receiver<Option<specs::keep::Made>>,
    config: watch::Receiver<Option<Arc<Chosen<Config>>>>,
    config_problem: watch::Receiver<Option<Problem>>,
    object: watch::Receiver<Known>,
    offers: watch::Sender<Option<Offer>>,
    label_problem: watch::Receiver<Option<Problem>>,
    plugins: Plugins,
    labels_end: Option<oneshot::Sender<()>>,
}

impl Main {
    /// Starts all parts.
    fn start(deps: &Arc<Deps>) -> (Self, JoinSet<()>) {
        let mut parts = JoinSet::new();
        let node = Node::new(&deps.settings);
        let calls = Arc::new(Calls::default());
        let (wish, wishes) = watch::channel(node.wish());
        let (snapshots, snapshot) = watch::channel(node.snapshot());
        let (seen, sights) = mpsc::channel(WAITING);
        let (hosts, host) = watch::channel(None);
        let (install, installed) = watch::channel(None);
        let (orders, order) = watch::channel(None);
        let (drafted, made) = watch::channel(None);
        let (choose, config) = watch::channel(None);
        let (config_trouble, config_problem) = watch::channel(None);
        let (follow, object) = watch::channel(None);
        let (offers, offer) = watch::channel(None);
        let (label_trouble, label_problem) = watch::channel(None);
        let (wanted, _) = watch::channel(GpuNodeSpec::default());
        let (labels_end, end) = oneshot::channel();
        let end = end.map(|_| ()).shared();

        part(&mut parts, deps, Topic::Gpus, {
            let (wishes, calls, seen) = (wishes.clone(), Arc::clone(&calls), seen.clone());
            move |deps| eyes::gpus(deps, wishes.clone(), Arc::clone(&calls), seen.clone())
        });
        part(&mut parts, deps, Topic::Node, {
            let calls = Arc::clone(&calls);
            move |deps| eyes::host(deps, wishes.clone(), Arc::clone(&calls), seen.clone())
        });
        part(&mut parts, deps, Topic::Runtime, move |deps| {
            install::keep(deps, host.clone(), Arc::clone(&calls), install.clone())
        });
        part(&mut parts, deps, Topic::Cdi, move |deps| {
            let books = {
                let deps = Arc::clone(&deps);
                move || held(Arc::clone(&deps)).boxed()
            };
            specs::keep::keep(deps, order.clone(), drafted.clone(), books)
        });
        part(&mut parts, deps, Topic::Node, move |deps| {
            let follow = follow.clone();
            async move { crate::node::follow(&deps, follow).await }
        });
        part(&mut parts, deps, Topic::Plugin, {
            let object = object.clone();
            move |deps| {
                let (object, choose, trouble) = (object.clone(), choose.clone(), config_trouble.clone());
                async move {
                    let overrides = &deps.settings.overrides;
                    let parse = |text: &str| Config::parse(text).and_then(|config| config.with(overrides));
                    config::keep(&deps, &deps.settings.sources, parse, object, choose, trouble).await;
                }
            }
        });
        part(&mut parts, deps, Topic::Labels, {
            let (snapshot, object) = (snapshot.clone(), object.clone());
            move |deps| {
                let channels = labels::Channels {
                    snapshot: snapshot.clone(),
                    offer: offer.clone(),
                    node: object.clone(),
                    problem: label_trouble.clone(),
                };
                let (sink, end) = (deps.settings.labels.clone(), end.clone());
                let timestamp = deps.settings.overrides.no_timestamp != Some(true);
                async move { labels::keep(&deps, sink, timestamp, channels, end).await }
            }
        });
        part(&mut parts, deps, Topic::Status, move |deps| {
            let (snapshot, wanted) = (snapshot.clone(), wanted.clone());
            async move { status::keep(&deps, snapshot, wanted).await }
        });
        let plugins = Plugins::start(place(deps), deps.notices.clone());
        let main = Self {
            node,
            sights,
            wish,
            snapshots,
            hosts,
            installed,
            orders,
            made,
            config,
            config_problem,
            object,
            offers,
            label_problem,
            plugins,
            labels_end: Some(labels_end),
        };
        (main, parts)
    }

    /// Takes in what is told, and tells what follows, for ever.
    async fn run(&mut self, deps: &Deps) {
        let mut status = self.plugins.status();
        loop {
            tokio::select! {
                sight = self.sights.recv() => match sight {
                    Some(sight) => self.node.see(sight, Instant::now()),
                    None => return,
                },
                Ok(()) = self.installed.changed() => {
                    self.node.install(self.installed.borrow_and_update().clone());
                }
                Ok(()) = self.made.changed() => self.node.make(self.made.borrow_and_update().clone()),
                Ok(()) = self.config.changed() => self.configure(),
                Ok(()) = self.config_problem.changed() => self.configure(),
                Ok(()) = self.object.changed() => {
                    let object = self.object.borrow_and_update().clone();
                    let why = object.and_then(|object| pause::wanted(object.labels()));
                    self.node.set_release(why);
                }
                Ok(()) = self.label_problem.changed() => {
                    let problem = self.label_problem.borrow_and_update().clone();
                    self.node.set_problem(Part::Labels, problem);
                }
                Ok(()) = status.changed() => self.node.serve(status.borrow_and_update().clone()),
            }
            self.tell(deps);
        }
    }

    fn configure(&mut self) {
        let config = self.config.borrow_and_update().clone();
        let problem = self.config_problem.borrow_and_update().clone();
        self.node.configure(config, problem);
    }

    /// Tells everybody what concerns them, where that has changed.
    fn tell(&mut self, deps: &Deps) {
        for notice in self.node.notices() {
            // Nobody who listens is no reason to stop.
            let _ = deps.notices.send(notice);
        }
        put(&self.wish, self.node.wish());
        put(&self.hosts, self.node.host_to_change());
        if let Some(order) = self.node.order() {
            put(&self.orders, Some(order));
        }
        if let Some(wanted) = self.node.wanted() {
            self.plugins.update(wanted);
        }
        put(&self.offers, self.node.labels());
        put(&self.snapshots, self.node.snapshot());
    }

    /// Ends all parts. Nothing is taken away that pods need.
    async fn end(mut self, deps: &Deps, mut parts: JoinSet<()>) {
        let _ = self.labels_end.take().map(|end| end.send(()));
        let ended = async {
            self.plugins.stop().await;
            // Who waits for snapshots ends when nobody sends any.
            drop(self.snapshots);
            deps.driver.release().await;
        };
        let _ = tokio::time::timeout(END, ended).await;
        parts.shutdown().await;
    }
}

/// Sends a value where it is another one.
fn put<T: PartialEq>(to: &watch::Sender<T>, value: T) {
    to.send_if_modified(|old| {
        let differs = *old != value;
        *old = value;
        differs
    });
}

/// Runs a part until it ends; one that panics is told of, rests, and begins anew.
fn part<F: Future<Output = ()> + Send + 'static>(
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
fn place(deps: &Deps) -> Place {
    let on_host = &deps.settings.kubelet_dir;
    Place {
        kubelet_dir: deps.root.join(on_host.strip_prefix("/").unwrap_or(on_host)),
        kubelet_dir_on_host: on_host.clone(),
        node: deps.settings.node.clone(),
    }
}

/// Everything that pods hold, by the kubelet's books.
async fn held(deps: Arc<Deps>) -> specs::keep::Held {
    let place = place(&deps);
    let socket = place.kubelet_dir.join("pod-resources/kubelet.sock");
    let checkpoint = place.kubelet_dir.join("device-plugins").join(CHECKPOINT);
    // How long this kubelet has been there isn't known here: its checkpoint counts too, which only holds on longer.
    let books = holders::read(&socket, &checkpoint, &place.node, Duration::ZERO).await;
    let names = |held: Vec<Holding>| {
        let uuids = held
            .iter()
            .map(|holding| pitcrew_core::plugin::uuid_of(&holding.id).to_owned());
        uuids.collect()
    };
    books.held.map(names)
}

/// Why the agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
