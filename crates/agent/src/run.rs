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
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::Deps;
use crate::config::{self, Chosen};
use crate::labels::{self, Outlet};
use crate::mps;
use crate::node::Known;
use crate::notice::Topic;
use crate::plugin::Plugins;
use crate::proof;
use crate::snapshot::{Part, Problem};
use crate::specs;

mod eyes;
mod glance;
mod handler;
mod install;
mod node;
mod offer;
mod parts;
mod pause;

use eyes::Calls;
use node::Node;
use parts::part;

/// Things seen that wait for the main loop.
const WAITING: usize = 64;
/// How long parts may take to end.
const END: Duration = Duration::from_secs(15);

/// Runs the agent until `shutdown` is ready.
///
/// What was installed or handed out stays: pods that run need it, and the next agent finds it.
///
/// # Errors
/// Where it can't even begin; what fails later is told and tried again.
pub async fn run(deps: Deps, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let deps = Arc::new(deps);
    let (mut main, parts, ending) = Main::start(&deps);
    tokio::select! {
        () = shutdown => {}
        () = main.run(&deps) => {}
    }
    main.end(&deps, parts, ending).await;
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
    restart_problem: watch::Receiver<Option<Problem>>,
    waiting: watch::Receiver<Vec<String>>,
    outlets: watch::Sender<Option<Outlet>>,
    plugins: Plugins,
    shares: watch::Sender<Option<parts::Shares>>,
    shared: watch::Receiver<mps::Status>,
    proofs: watch::Receiver<Option<proof::View>>,
    /// Tells those that have something to do at the end.
    stop: Option<oneshot::Sender<()>>,
}

impl Main {
    /// Starts all parts.
    #[expect(
        clippy::too_many_lines,
        reason = "a line for each channel, and a few for each part"
    )]
    fn start(deps: &Arc<Deps>) -> (Self, JoinSet<()>, JoinSet<()>) {
        let (mut parts, mut ending) = (JoinSet::new(), JoinSet::new());
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
        let (restart_trouble, restart_problem) = watch::channel(None);
        let (wait, waiting) = watch::channel(Vec::new());
        let (outlets, outlet) = watch::channel(None);
        let (wanted, spec) = watch::channel(None::<GpuNodeSpec>);
        let (shares, to_share) = watch::channel(None);
        let (daemons, mps_status) = watch::channel(mps::Status::default());
        let (view, proofs) = watch::channel(None);
        let (stop, end) = oneshot::channel();
        let end = end.map(|_| ()).shared();

        part(&mut parts, deps, Topic::Gpus, {
            let (wishes, calls, seen) = (wishes.clone(), Arc::clone(&calls), seen.clone());
            move |deps| eyes::gpus(deps, wishes.clone(), Arc::clone(&calls), seen.clone())
        });
        part(&mut parts, deps, Topic::Node, {
            let calls = Arc::clone(&calls);
            move |deps| eyes::host(deps, wishes.clone(), Arc::clone(&calls), seen.clone())
        });
        let channels = handler::Channels {
            hosts: host.clone(),
            installed: installed.clone(),
            problem: restart_trouble,
            waiting: wait,
        };
        part(&mut parts, deps, Topic::Runtime, move |deps| {
            handler::keep(deps, channels.clone())
        });
        part(&mut parts, deps, Topic::Runtime, move |deps| {
            install::keep(deps, host.clone(), Arc::clone(&calls), install.clone())
        });
        let plugins = Plugins::start(parts::place(deps), deps.notices.clone());
        let ledger = plugins.ledger();
        let channels = proof::keep::Channels {
            snapshots: snapshot.clone(),
            wanted: spec.clone(),
            plugin: plugins.status(),
            view,
        };
        part(&mut ending, deps, Topic::Proof, {
            let (end, ledger) = (end.clone(), Arc::clone(&ledger));
            move |deps| parts::proofs(deps, channels.clone(), Arc::clone(&ledger), end.clone())
        });
        part(&mut parts, deps, Topic::Cdi, move |deps| {
            parts::specs(deps, order.clone(), drafted.clone(), Arc::clone(&ledger))
        });
        part(&mut parts, deps, Topic::Node, move |deps| {
            parts::object(deps, follow.clone())
        });
        let channels = config::Channels {
            node: object.clone(),
            wanted: spec,
            chosen: choose,
            problem: config_trouble,
        };
        part(&mut parts, deps, Topic::Plugin, move |deps| {
            parts::config(deps, channels.clone())
        });
        part(&mut ending, deps, Topic::Mps, {
            let end = end.clone();
            move |deps| parts::mps(deps, to_share.clone(), daemons.clone(), end.clone())
        });
        let channels = labels::Channels {
            snapshot: snapshot.clone(),
            offer,
            node: object.clone(),
            problem: label_trouble,
        };
        part(&mut ending, deps, Topic::Labels, move |deps| {
            parts::labels(deps, outlet.clone(), channels.clone(), end.clone())
        });
        part(&mut parts, deps, Topic::Status, move |deps| {
            parts::status(deps, snapshot.clone(), wanted.clone())
        });
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
            restart_problem,
            waiting,
            outlets,
            plugins,
            shares,
            shared: mps_status,
            proofs,
            stop: Some(stop),
        };
        (main, parts, ending)
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
                Ok(()) = self.restart_problem.changed() => {
                    let problem = self.restart_problem.borrow_and_update().clone();
                    self.node.set_restart_problem(problem);
                }
                Ok(()) = self.waiting.changed() => {
                    let waiting = self.waiting.borrow_and_update().clone();
                    self.node.set_waiting(waiting);
                }
                Ok(()) = self.shared.changed() => {
                    self.node.share(self.shared.borrow_and_update().clone());
                }
                Ok(()) = self.proofs.changed() => {
                    self.node.prove(self.proofs.borrow_and_update().clone());
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
        if let Some(shares) = self.node.shares() {
            put(&self.shares, Some(shares));
        }
        if let Some(wanted) = self.node.wanted() {
            self.plugins.update(wanted);
        }
        put(&self.offers, self.node.labels());
        if let Some(outlet) = self.node.outlet(deps) {
            put(&self.outlets, Some(outlet));
        }
        put(&self.snapshots, self.node.snapshot());
    }

    /// Ends all parts. Nothing is taken away that pods need.
    async fn end(mut self, deps: &Deps, mut parts: JoinSet<()>, mut ending: JoinSet<()>) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let ended = async {
            self.plugins.stop().await;
            while ending.join_next().await.is_some() {}
        };
        // What doesn't end in time is dropped, which ends it too.
        let _ = tokio::time::timeout(END, ended).await;
        parts.shutdown().await;
        let _ = tokio::time::timeout(eyes::RELEASE, deps.driver.release()).await;
    }
}

/// Sends a value where it is another one.
pub(crate) fn put<T: PartialEq>(to: &watch::Sender<T>, value: T) {
    to.send_if_modified(|old| {
        let differs = *old != value;
        *old = value;
        differs
    });
}

/// Why the agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
