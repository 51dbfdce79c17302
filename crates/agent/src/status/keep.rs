//! The task that writes what is said of a node.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use pitcrew_api::{ConditionStatus, GpuNode, GpuNodeSpec};
use tokio::sync::watch;
use tokio::time::Instant;

use super::judge::{self, Judgement};
use super::markers;
use super::writer::{Seen, Writer};
use crate::deps::Deps;
use crate::node::refusal;
use crate::notice::{Level, Notice, Topic};
use crate::run::put;
use crate::snapshot::Snapshot;

/// How long nothing is said while nothing has been looked at yet: what was said before the agent was started anew is
/// more likely true than `Starting`.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// When the Node is read again, with nothing changed.
const RESYNC: Duration = Duration::from_mins(5);
/// The first wait after a request that came to nothing, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Keeps the `GpuNode`, the Node's condition, Events and taint, and the marker files true to the newest snapshot, until
/// nobody sends snapshots any more. Sends what is wanted of the node as soon as that is known, and whenever it changes;
/// nothing is wanted where there is no `GpuNode`, or none may be read.
///
/// An API server that doesn't answer is asked again, later and later up to half a minute; marker files don't wait for
/// it. Without a client only they are kept.
pub async fn keep(
    deps: &Deps,
    snapshots: watch::Receiver<Snapshot>,
    wanted: watch::Sender<Option<GpuNodeSpec>>,
) {
    let here = on_the_node(deps, snapshots.clone());
    match &deps.client {
        Some(client) => {
            let there = in_the_cluster(deps, client, snapshots, wanted);
            tokio::join!(here, there);
        }
        None => here.await,
    }
}

/// Marker files, and the story.
async fn on_the_node(deps: &Deps, mut snapshots: watch::Receiver<Snapshot>) {
    let mut before: Vec<Judgement> = Vec::new();
    let mut trouble = None;
    let started = Instant::now();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if has_looked(&snapshot) || started.elapsed() >= FIRST_LOOK {
            let judgements = judge::judge(&snapshot);
            tell(deps, &before, &judgements);
            let files = markers::wanted(
                &judgements,
                snapshot.host.as_deref(),
                super::proven::has_computed(&snapshot),
            );
            let outcome = markers::sync(&deps.root, &files);
            let now = Some(marker_notice(&outcome));
            if trouble != now {
                trouble.clone_from(&now);
                now.flatten().into_iter().for_each(|notice| send(deps, notice));
            }
            before = judgements;
        }
        let first_look = tokio::time::sleep_until(started + FIRST_LOOK);
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = first_look, if started.elapsed() < FIRST_LOOK => {}
        }
    }
}

fn has_looked(snapshot: &Snapshot) -> bool {
    snapshot.host.is_some() && snapshot.gpus.is_some()
}

fn marker_notice(outcome: &std::io::Result<markers::Outcome>) -> Option<Notice> {
    let (level, text) = match outcome {
        Ok(markers::Outcome::Kept { .. }) => return None,
        Ok(markers::Outcome::Foreign(files)) => (
            Level::Info,
            format!(
                "{} in {} of another GPU stack: ours are not written while it is there",
                files.join(", "),
                markers::DIR
            ),
        ),
        Err(error) => (
            Level::Warning,
            format!(
                "the files in {} can't be kept: {error}; who waits for them waits on",
                markers::DIR
            ),
        ),
    };
    Some(Notice {
        topic: Topic::Status,
        level,
        text,
    })
}

/// Tells what changed.
fn tell(deps: &Deps, before: &[Judgement], now: &[Judgement]) {
    for judgement in now {
        let old = before.iter().find(|old| old.kind == judgement.kind);
        let is_new = old.is_none_or(|old| old.status != judgement.status || old.reason != judgement.reason);
        let is_proof = judgement.kind == pitcrew_api::condition::kind::PROVEN;
        if !is_new || is_proof && judgement.status == ConditionStatus::Unknown {
            continue;
        }
        let level = match (judgement.status, &judgement.hint) {
            (ConditionStatus::True, None) => Level::Info,
            (ConditionStatus::False, _) if judgement.reason != judge::REGISTERING => Level::Error,
            _ => Level::Warning,
        };
        let hint = judgement
            .hint
            .as_ref()
            .map_or_else(String::new, |hint| format!("; next: {hint}"));
        let text = format!(
            "{} is {} ({}): {}{hint}",
            judgement.kind, judgement.status, judgement.reason, judgement.message
        );
        send(
            deps,
            Notice {
                topic: Topic::Status,
                level,
                text,
            },
        );
    }
}

pub(super) fn send(deps: &Deps, notice: Notice) {
    // Nobody who listens is no reason to stop.
    let _ = deps.notices.send(notice);
}

/// What is written at the API server.
async fn in_the_cluster(
    deps: &Deps,
    client: &Client,
    mut snapshots: watch::Receiver<Snapshot>,
    wanted: watch::Sender<Option<GpuNodeSpec>>,
) {
    let name = &deps.settings.node;
    let api: Api<GpuNode> = Api::all(client.clone());
    let mut seen = std::pin::pin!(watcher::watch_object(api, name).default_backoff());
    let mut writer = Writer::new(deps, client.clone());
    let started = Instant::now();
    let mut failures = 0;
    let mut told = None;
    // Uid and generation of the object whose wish is known.
    let mut newest = None;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let mut due = started + FIRST_LOOK;
        if has_looked(&snapshot) || started.elapsed() >= FIRST_LOOK {
            let done = writer.pass(&snapshot, now(deps)).await;
            let text = done.err().map(|trouble| trouble.to_string());
            if text.is_none() {
                failures = 0;
                due = Instant::now() + RESYNC;
            } else {
                due = Instant::now() + retry(failures, name);
                failures = failures.saturating_add(1);
            }
            if text != told {
                let notice = match &text {
                    Some(text) => Notice {
                        topic: Topic::Status,
                        level: Level::Warning,
                        text: format!("{text}; asked again within {} s", RETRY.1.as_secs()),
                    },
                    None => Notice {
                        topic: Topic::Status,
                        level: Level::Info,
                        text: "the API server has everything that is said of this node again".to_owned(),
                    },
                };
                send(deps, notice);
                told = text;
            }
        }
        if let Seen::There(object) = writer.seen() {
            want(&wanted, &mut newest, object);
        }
        loop {
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                event = seen.next() => match event {
                    Some(Ok(object)) => {
                        if let Some(object) = &object {
                            want(&wanted, &mut newest, object);
                        } else {
                            newest = None;
                            put(&wanted, Some(GpuNodeSpec::default()));
                        }
                        writer.saw(object);
                    }
                    // It looks again by itself, later and later; a pass says what is wrong.
                    Some(Err(error)) => {
                        let code = refusal(&error).map(|status| status.code);
                        if matches!(code, Some(403 | 404)) && wanted.borrow().is_none() {
                            put(&wanted, Some(GpuNodeSpec::default()));
                        }
                        continue;
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(due) => writer.resync(),
            }
            break;
        }
    }
}

/// Takes what an object wants, unless a newer state of it is known: a watch may be behind what a write was answered with.
fn want(
    wanted: &watch::Sender<Option<GpuNodeSpec>>,
    newest: &mut Option<(Option<String>, i64)>,
    object: &GpuNode,
) {
    let (uid, generation) = (
        object.metadata.uid.clone(),
        object.metadata.generation.unwrap_or(0),
    );
    if newest
        .as_ref()
        .is_some_and(|(known, at)| *known == uid && generation < *at)
    {
        return;
    }
    *newest = Some((uid, generation));
    put(wanted, Some(object.spec.clone()));
}

/// The time, in whole seconds as in every condition.
fn now(deps: &Deps) -> Time {
    let now = Timestamp::try_from(deps.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// When to ask again after so many failures: twice as long each time, and not all nodes at the same moment.
fn retry(failures: u32, node: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    (node, failures).hash(&mut hasher);
    let spread = Duration::from_millis(hasher.finish() % 500);
    let wait = RETRY.0.saturating_mul(2_u32.saturating_pow(failures));
    (wait + wait.mul_f64(spread.as_secs_f64())).min(RETRY.1)
}
