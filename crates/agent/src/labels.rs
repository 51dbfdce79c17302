//! Labels of the node, as GPU Feature Discovery writes them, kept true.
//!
//! What they are is decided by [`pitcrew_core::labels`]; here they are written, to one of three places ([`Sink`]):
//!
//! - The Node, by server-side apply under the field manager [`MANAGER`]. What GPU Feature Discovery, Node Feature
//!   Discovery or a person left there is taken over once. From somebody who keeps writing something else it is taken
//!   three times in an hour and then left to them, which is told; in an hour it is tried again.
//! - A `NodeFeature`, as GPU Feature Discovery calls it, for clusters where Node Feature Discovery shall be the only
//!   one that labels Nodes.
//! - A file for the local source of Node Feature Discovery.
//!
//! Nothing is written unless it changes something. While the driver can't be read, as in an upgrade or when it starts
//! after us, labels stay as they are for ten minutes; then those that only it knows go. GPUs that are gone from the bus
//! take all of theirs along at once.

mod file;
mod ledger;
mod object;
mod seen;
#[cfg(test)]
mod tests;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::core::PartialObjectMeta;
use pitcrew_core::labels::Offer;
use pitcrew_core::plugin::config::{Flags, GfdFlags, Interval};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::deps::Deps;
use crate::node::{Known, Told, why};
use crate::notice::{Level, Topic};
use crate::snapshot::{Problem, Snapshot};

use ledger::{Ledger, Left, Plan};
use object::{Object, WriteError};
pub(crate) use object::{feature_name, give_up_feature, give_up_node};
use seen::Seen;
use wish::{Memory, Wish};

/// Field manager of all labels that we write.
pub const MANAGER: &str = "pitcrew-labels";

/// The first wait before a write is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long the API server may take for one write.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where labels are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// The Node itself.
    Node,
    /// The `NodeFeature` `nvidia-features-for-NODE` in this namespace.
    NodeFeature {
        /// The namespace.
        namespace: String,
    },
    /// A file, as on the host.
    File {
        /// Its path, e.g. `/etc/kubernetes/node-feature-discovery/features.d/gfd`.
        path: PathBuf,
        /// Whether it is taken away when the agent ends. The reference does so unless it was told to look only once.
        removed_at_end: bool,
    },
}

/// Kinds of places that labels can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkKind {
    /// The Node.
    Node,
    /// A `NodeFeature`.
    NodeFeature,
    /// A file.
    File,
}

/// Where labels are written, and what besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// Where to.
    pub sink: Sink,
    /// Whether a label says when they were first made.
    pub timestamp: bool,
}

impl Outlet {
    /// What was asked for, else what the configuration says: `useNodeFeatureAPI` before a file, as in the reference, and
    /// the Node where it says neither. `namespace` is the agent's own.
    pub fn of(asked: Option<SinkKind>, flags: &Flags, namespace: &str) -> Self {
        let gfd = &flags.gfd;
        let said = match (flags.use_node_feature_api, &gfd.output_file) {
            (Some(true), _) => SinkKind::NodeFeature,
            (_, Some(_)) => SinkKind::File,
            _ => SinkKind::Node,
        };
        let sink = match asked.unwrap_or(said) {
            SinkKind::Node => Sink::Node,
            SinkKind::NodeFeature => Sink::NodeFeature {
                namespace: namespace.to_owned(),
            },
            SinkKind::File => Sink::File {
                path: gfd
                    .output_file
                    .clone()
                    .unwrap_or_else(|| GfdFlags::OUTPUT_FILE.into()),
                removed_at_end: !gfd.oneshot && gfd.sleep_interval != Interval::Infinite,
            },
        };
        Self {
            sink,
            timestamp: !gfd.no_timestamp,
        }
    }
}

/// What [`keep`] reads and tells.
#[derive(Debug, Clone)]
pub struct Channels {
    /// What is known of the node.
    pub snapshot: watch::Receiver<Snapshot>,
    /// How its GPUs are offered; `None` before that is known, when no label says anything.
    pub offer: watch::Receiver<Option<Offer>>,
    /// The Node object, from [`crate::node::follow`].
    pub node: watch::Receiver<Known>,
    /// Where it is told what doesn't work.
    pub problem: watch::Sender<Option<Problem>>,
}

/// Keeps the labels true until `end` is ready. With `timestamp`, one of them says when it began.
///
/// Does nothing without a client, but for a file. Of what happens to the labels when it ends see [`Sink`]; otherwise they
/// stay, also when the agent is removed: see [`remove`].
pub async fn keep(
    deps: &Deps,
    sink: Sink,
    timestamp: bool,
    channels: Channels,
    end: impl Future<Output = ()> + Send,
) {
    let target = match (&sink, deps.client.clone()) {
        (Sink::Node, Some(client)) => Target::Object(Box::new(Object::node(client, &deps.settings.node))),
        (Sink::NodeFeature { namespace }, Some(client)) => {
            Target::Object(Box::new(Object::feature(client, &deps.settings.node, namespace)))
        }
        (Sink::File { path, .. }, _) => Target::File(under(&deps.root, path)),
        (_, None) => return end.await,
    };
    let began = deps.clock.now().duration_since(SystemTime::UNIX_EPOCH);
    let timestamp = began.ok().filter(|_| timestamp).map(|began| began.as_secs());
    let keeper = Keeper {
        deps,
        timestamp,
        channels,
        memory: Memory::default(),
        ledger: Ledger::default(),
        seen: None,
        written: None,
        told: Told::default(),
        told_left: BTreeSet::new(),
        failures: 0,
    };
    tokio::select! {
        () = keeper.run(&target) => {}
        () = end => {}
    }
    if let (
        Sink::File {
            removed_at_end: true, ..
        },
        Target::File(path),
    ) = (&sink, &target)
        && let Err(error) = file::remove(path)
    {
        let text = format!("`{}` can't be removed: {error}", path.display());
        deps.tell(Topic::Labels, Level::Warning, text);
    }
}

/// Takes away what was written to one place, as labels go to another from now on.
pub(crate) async fn leave(deps: &Deps, sink: &Sink) {
    let node = &deps.settings.node;
    let left = match (sink, deps.client.clone()) {
        (Sink::Node, Some(client)) => give_up_node(client, node, false)
            .await
            .map(|_| ())
            .map_err(|error| why(&*error)),
        (Sink::NodeFeature { namespace }, Some(client)) => give_up_feature(client, node, namespace, false)
            .await
            .map(|_| ())
            .map_err(|error| why(&*error)),
        (Sink::File { path, .. }, _) => {
            file::remove(&under(&deps.root, path)).map_err(|error| error.to_string())
        }
        (_, None) => Ok(()),
    };
    let place = match sink {
        Sink::Node => "the Node".to_owned(),
        Sink::NodeFeature { .. } => "the NodeFeature".to_owned(),
        Sink::File { path, .. } => format!("`{}`", path.display()),
    };
    match left {
        Ok(()) => deps.tell(
            Topic::Labels,
            Level::Info,
            format!("labels go elsewhere now: took ours from {place}"),
        ),
        Err(error) => {
            let text = format!(
                "labels go elsewhere now, and ours could not be taken from {place}: {error}; `pitcrew agent uninstall` \
                 takes them away, or do so by hand"
            );
            deps.tell(Topic::Labels, Level::Warning, text);
        }
    }
}

/// True where a Node has labels that we wrote.
pub(crate) fn has_ours(node: &PartialObjectMeta<Node>) -> bool {
    !object::seen_of_node(node).ours.is_empty()
}

/// True where a file of the host has labels that we wrote: nobody else writes those of `pitcrew.dev/`.
pub(crate) fn is_our_file(root: &Path, path: &Path) -> bool {
    let text = std::fs::read_to_string(under(root, path)).unwrap_or_default();
    text.lines().any(|line| line.starts_with("pitcrew.dev/"))
}

/// A path of the host below where its root is.
fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

enum Target {
    Object(Box<Object>),
    File(PathBuf),
}

struct Keeper<'a> {
    deps: &'a Deps,
    timestamp: Option<u64>,
    channels: Channels,
    memory: Memory,
    ledger: Ledger,
    /// The object as it was last seen; `None` before, and where there is none.
    seen: Option<Seen>,
    /// What was last written.
    written: Option<BTreeMap<String, String>>,
    told: Told,
    /// Labels that are left to others, as they were told last.
    told_left: BTreeSet<String>,
    /// Failed writes since the last that worked.
    failures: u32,
}

impl Keeper<'_> {
    async fn run(mut self, target: &Target) {
        let mut features = match target {
            Target::Object(object) => object.follow(),
            Target::File(_) => futures_util::stream::pending().boxed(),
        };
        // Of a `NodeFeature` it must be known whether it is there before it can be written.
        let mut looked = !matches!(target, Target::Object(object) if object.is_feature());
        loop {
            let again = if looked { self.step(target).await } else { None };
            tokio::select! {
                changed = self.channels.snapshot.changed() => if changed.is_err() { break },
                changed = self.channels.offer.changed() => if changed.is_err() { break },
                changed = self.channels.node.changed() => if changed.is_err() { break },
                Some(seen) = features.next() => match seen {
                    Ok(seen) => {
                        looked = true;
                        self.see(seen);
                    }
                    Err(error) => self.failed("the NodeFeature of this node can't be read", &error),
                },
                () = until(again) => {}
            }
        }
        // Whoever made the channels has gone; what was written stays.
        std::future::pending::<()>().await;
    }

    /// Takes in what was seen, unless it is older than what is known.
    fn see(&mut self, seen: Option<Seen>) {
        match (&self.seen, seen) {
            (Some(known), Some(seen)) if seen.uid == known.uid && seen.revision < known.revision => {}
            (_, seen) => self.seen = seen,
        }
    }

    /// Looks once and writes what must be; when to look again at the latest.
    async fn step(&mut self, target: &Target) -> Option<Instant> {
        let node = self.channels.node.borrow_and_update().clone();
        if matches!(target, Target::Object(object) if !object.is_feature()) {
            self.see(node.as_deref().map(object::seen_of_node));
        }
        let snapshot = self.channels.snapshot.borrow_and_update().clone();
        let offer = self.channels.offer.borrow_and_update().clone();
        let now = Instant::now();
        let (wish, again) = match self.memory.wish(&snapshot, offer.as_ref(), self.timestamp, now) {
            Wish::Wait => return None,
            Wish::Labels(labels) => (labels, None),
            Wish::Keep(until, bare) => match self.kept() {
                Some(labels) => (labels, Some(until)),
                None => (bare, Some(until)),
            },
        };
        match target {
            Target::File(path) => match file::write(&self.deps.root, path, &wish) {
                Ok(()) => {
                    self.succeeded();
                    self.wrote(wish, &format!("`{}`", path.display()));
                    again
                }
                Err(error) => {
                    self.failed(&format!("`{}` can't be written", path.display()), &error);
                    Some(self.retry(now))
                }
            },
            Target::Object(object) => {
                let node_uid = node.as_deref().and_then(|node| node.metadata.uid.clone());
                self.write(object, wish, node_uid.as_deref(), now, again).await
            }
        }
    }

    /// Labels to stay with: those that were written, now or by the agent before us.
    fn kept(&self) -> Option<BTreeMap<String, String>> {
        let ours = |seen: &Seen| {
            let labels = seen.labels.iter().filter(|(key, _)| seen.ours.contains(*key));
            let labels: BTreeMap<_, _> = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
            (!labels.is_empty()).then_some(labels)
        };
        self.written.clone().or_else(|| self.seen.as_ref().and_then(ours))
    }

    async fn write(
        &mut self,
        object: &Object,
        wish: BTreeMap<String, String>,
        node_uid: Option<&str>,
        now: Instant,
        again: Option<Instant>,
    ) -> Option<Instant> {
        if self.seen.is_none() && (!object.is_feature() || wish.is_empty()) {
            // It is looked again when there is a Node. Nothing need be said in an object that isn't there.
            return again;
        }
        let blank = Seen::default();
        let plan = self.ledger.plan(&wish, self.seen.as_ref().unwrap_or(&blank), now);
        let again = [again, plan.again].into_iter().flatten().min();
        if !plan.write {
            self.tell_left(&plan.left);
            return again;
        }
        let write = object.write(&plan, self.seen.as_ref(), node_uid);
        let done = match tokio::time::timeout(DEADLINE, write).await {
            Ok(done) => done,
            Err(_) => Err(WriteError::Silent),
        };
        match done {
            Ok(seen) => {
                self.see(Some(seen));
                self.ledger.wrote(&plan);
                self.succeeded();
                self.tell_taken(&plan);
                self.tell_left(&plan.left);
                self.wrote(wish, object.what());
                again
            }
            Err(error) => {
                if matches!(&error, WriteError::Api(error) if object::is_gone(error)) {
                    // The watch will say so too, later.
                    self.seen = None;
                }
                self.failed(
                    &format!("the labels can't be written to {}", object.what()),
                    &error,
                );
                Some(self.retry(now))
            }
        }
    }

    fn retry(&mut self, now: Instant) -> Instant {
        let wait = RETRY.0 * 2_u32.saturating_pow(self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        now + wait.min(RETRY.1)
    }

    fn wrote(&mut self, labels: BTreeMap<String, String>, place: &str) {
        if self.written.as_ref() != Some(&labels) {
            let product = labels.get("nvidia.com/gpu.product");
            let text = match (product, labels.len()) {
                (Some(product), count) => format!("{count} labels are on {place}: {product}"),
                (None, 0) => format!("no labels are left on {place}: there is no GPU"),
                (None, count) => format!("{count} labels are on {place}, none of them of the driver"),
            };
            self.deps.tell(Topic::Labels, Level::Info, text);
        }
        self.written = Some(labels);
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        if self.told.ok() {
            self.deps
                .tell(Topic::Labels, Level::Info, "labels can be written again");
            self.channels.problem.send_replace(None);
            self.told_left.clear();
        }
    }

    fn failed(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) {
        let (reason, hint) = object::advice(error, &self.deps.settings.node);
        if self.told.failed() {
            let message = format!("{what}: {}", why(error));
            let text = format!("{message}; it is tried again until it works");
            self.deps.tell(Topic::Labels, Level::Warning, text);
            self.channels.problem.send_replace(Some(Problem {
                reason: reason.to_owned(),
                message,
                hint,
            }));
        }
    }

    fn tell_taken(&self, plan: &Plan) {
        for (who, count) in &plan.taken {
            let text = format!("took {count} labels over from `{who}`");
            self.deps.tell(Topic::Labels, Level::Info, text);
        }
    }

    /// Tells which labels are left to others, when they are others than last time.
    fn tell_left(&mut self, left: &BTreeMap<String, Left>) {
        let keys: BTreeSet<String> = left.keys().cloned().collect();
        if keys == self.told_left {
            return;
        }
        let problem = conflict(left, &self.deps.settings.node);
        let (level, text) = problem.as_ref().map_or_else(
            || {
                let text = "nobody else changes the labels any more".to_owned();
                (Level::Info, text)
            },
            |problem| (Level::Warning, format!("{}; {}", problem.message, problem.hint)),
        );
        self.deps.tell(Topic::Labels, level, text);
        self.channels.problem.send_replace(problem);
        self.told_left = keys;
    }
}

/// What is told of labels that are left to others.
fn conflict(left: &BTreeMap<String, Left>, node: &str) -> Option<Problem> {
    let (key, first) = left.iter().next()?;
    let who: BTreeSet<&str> = left
        .values()
        .flat_map(|left| &left.who)
        .map(String::as_str)
        .collect();
    let who = if who.is_empty() {
        "somebody".to_owned()
    } else {
        let who: Vec<String> = who.iter().map(|who| format!("`{who}`")).collect();
        who.join(" and ")
    };
    let said = |value: &Option<String>| {
        value
            .as_ref()
            .map_or("absent".to_owned(), |value| format!("`{value}`"))
    };
    let more = match left.len() - 1 {
        0 => String::new(),
        1 => " and one more label".to_owned(),
        more => format!(" and {more} more labels"),
    };
    Some(Problem {
        reason: "LabelConflict".to_owned(),
        message: format!(
            "{who} keeps making label {key} {} that should be {}{more}: it is left so for an hour",
            said(&first.says),
            said(&first.should)
        ),
        hint: format!(
            "remove gpu-feature-discovery from this node, e.g. `kubectl label node {node} \
             nvidia.com/gpu.deploy.gpu-feature-discovery=false --overwrite`"
        ),
    })
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
