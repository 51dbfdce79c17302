//! The device plugin as the rest of the agent sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use pitcrew_core::plugin::config::SharingPolicy;
use pitcrew_core::plugin::holders::{Blocked, Holding};
use pitcrew_core::plugin::preference::Topology;
use pitcrew_core::plugin::resources::Plan;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Answers;
use super::keeper::{END, Keeper};
use super::ledger::Ledger;
use super::tell::Tell;
use crate::notice::{Level, Notice};
use crate::snapshot::Problem;

/// How long the plugin rests after a crash.
const AFTER_CRASH: Duration = Duration::from_secs(1);

/// Where the plugin works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The kubelet's directory, as this process reaches it.
    pub kubelet_dir: PathBuf,
    /// The same as the kubelet reaches it, for the length of paths.
    pub kubelet_dir_on_host: PathBuf,
    /// Name of the node.
    pub node: String,
}

/// What the node's resources should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// The resources.
    pub plan: Arc<Plan>,
    /// GPUs and MIG devices that must not be used, by UUID, with the reason.
    pub sick: BTreeMap<String, String>,
    /// GPUs that are well and must not be handed out for now, by UUID, with the reason.
    pub withheld: BTreeMap<String, String>,
    /// What containers get.
    pub answers: Arc<Answers>,
    /// How the GPUs are connected.
    pub topology: Arc<Topology>,
    /// Which replicas are preferred.
    pub policy: SharingPolicy,
}

/// What there is of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Names of the resources that the kubelet has taken, and whose devices it was told.
    pub registered: BTreeSet<String>,
    /// Why something isn't as it should be; `None` is well.
    pub problem: Option<Problem>,
    /// Ids that are held back because their GPU is held in another form, or may be, by resource, with the reason.
    pub held_back: Blocked,
    /// Ids that the kubelet is told to be unhealthy, for whatever reason, by resource.
    pub unhealthy: Blocked,
    /// Everything that is held, some seconds late; `None` where nobody could be asked.
    pub held: Option<Vec<Holding>>,
}

/// The device plugin: serves the resources that it is given until it is stopped or dropped.
#[derive(Debug)]
pub struct Plugins {
    wanted: watch::Sender<Option<Wanted>>,
    status: watch::Receiver<Status>,
    ledger: Arc<Ledger>,
    task: JoinHandle<()>,
}

impl Plugins {
    /// Starts, with no resource.
    pub fn start(place: Place, notices: UnboundedSender<Notice>) -> Self {
        let (wanted, to_do) = watch::channel(Some(Wanted::default()));
        let (sender, status) = watch::channel(Status::default());
        let tell = Tell(notices);
        // One for all times that it is started: what was answered before a crash was answered.
        let ledger = Arc::new(Ledger::default());
        let answered = Arc::clone(&ledger);
        let task = tokio::spawn(async move {
            loop {
                let keeper = Keeper::new(place.clone(), tell.clone(), sender.clone(), Arc::clone(&answered));
                let ended = AssertUnwindSafe(keeper.run(to_do.clone())).catch_unwind().await;
                if ended.is_ok() {
                    return;
                }
                let text = "the device plugin has crashed and is started again".to_owned();
                tell.say(Level::Error, text);
                tokio::time::sleep(AFTER_CRASH).await;
            }
        });
        Self {
            wanted,
            status,
            ledger,
            task,
        }
    }

    /// What was answered lately, and which devices must not be answered any more.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Says what there should be from now on. Does nothing where that is so already; what only changes its devices or
    /// their health stays registered.
    pub fn update(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|current| {
            let is_new = current.as_ref() != Some(&wanted);
            if is_new {
                *current = Some(wanted);
            }
            is_new
        });
    }

    /// What there is, now and whenever it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Ends: the kubelet sees its streams end, and holds the devices for unhealthy until somebody registers them
    /// again. Nothing that was handed out changes by that.
    pub async fn stop(mut self) {
        self.wanted.send_replace(None);
        let _ = tokio::time::timeout(END, &mut self.task).await;
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.task.abort();
    }
}
