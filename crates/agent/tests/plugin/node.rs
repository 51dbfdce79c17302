//! A node for tests: a directory, a fake kubelet, the device plugin.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pitcrew_agent::Notice;
use pitcrew_agent::plugin::{Answers, Place, Plugins, Shared, Status, Strategy, Wanted};
use pitcrew_core::plugin::resources::Plan;
use pitcrew_core::plugin::{Device, Resource, Sharing, replica_id, uuid_of};
use pitcrew_kubelet::fake::{Form, Held, Kubelet, Pod, conflicts};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// For everything that takes no time by itself.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A node.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) plugins: Plugins,
    pub(crate) notices: UnboundedReceiver<Notice>,
}

impl Node {
    /// One with the plugin, and no kubelet yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (plugins, notices) = start(dir.path());
        Self {
            dir,
            plugins,
            notices,
        }
    }

    /// One with a kubelet.
    pub(crate) async fn with_kubelet() -> (Self, Kubelet) {
        let dir = tempfile::tempdir().unwrap();
        let kubelet = Kubelet::start(dir.path()).await.unwrap();
        let (plugins, notices) = start(dir.path());
        let node = Self {
            dir,
            plugins,
            notices,
        };
        (node, kubelet)
    }

    /// The agent is killed and started again.
    pub(crate) fn restart_agent(&mut self) {
        let (plugins, notices) = start(self.dir.path());
        self.plugins = plugins;
        self.notices = notices;
    }

    /// The directory of sockets.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.dir.path().join("device-plugins")
    }

    /// Waits until the status is as it should be.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let mut status = self.plugins.status();
        let found = tokio::time::timeout(SOON, status.wait_for(|status| is_so(status))).await;
        assert!(
            found.is_ok(),
            "waited {SOON:?} for {what}; {:?}",
            *self.plugins.status().borrow()
        );
        found.unwrap().unwrap().clone()
    }

    /// Waits until a problem of this reason is told.
    pub(crate) async fn until_problem(&self, reason: &str) -> Status {
        let is_so = |status: &Status| {
            status
                .problem
                .as_ref()
                .is_some_and(|problem| problem.reason == reason)
        };
        self.until(reason, is_so).await
    }

    /// Waits until so many ids are held back for a reason that has these words in it; one of the reasons.
    pub(crate) async fn until_held_back(&self, count: usize, words: &str) -> String {
        let matching = |status: &Status| {
            let reasons = status.held_back.values().flat_map(|ids| ids.values());
            let matching = reasons.filter(|why| why.contains(words)).cloned();
            matching.collect::<Vec<String>>()
        };
        let status = self
            .until("ids held back", |status| matching(status).len() == count)
            .await;
        matching(&status).remove(0)
    }

    /// Everything that was told so far.
    pub(crate) fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notices.try_recv().ok())
            .map(|notice| notice.text)
            .collect()
    }
}

fn start(dir: &Path) -> (Plugins, UnboundedReceiver<Notice>) {
    let (sender, notices) = unbounded_channel();
    let place = Place {
        kubelet_dir: dir.to_owned(),
        kubelet_dir_on_host: "/var/lib/kubelet".into(),
        node: "worker".to_owned(),
    };
    (Plugins::start(place, sender), notices)
}

/// A resource of `gpus` GPUs, whole or in so many shares.
pub(crate) fn resource(name: &str, gpus: u32, sharing: Sharing, shares: u32) -> Resource {
    let ids = (0..gpus).flat_map(|gpu| {
        let uuid = format!("GPU-{gpu}");
        (0..shares).map(move |share| (gpu, replica_id(&uuid, sharing, share, shares)))
    });
    let devices = ids.map(|(gpu_index, id)| Device {
        uuid: uuid_of(&id).to_owned(),
        gpu: uuid_of(&id).to_owned(),
        id,
        gpu_index,
        numa: Some(gpu_index / 4),
    });
    Resource {
        name: name.to_owned(),
        sharing,
        one_per_container: sharing != Sharing::None,
        devices: devices.collect(),
    }
}

/// Whole GPUs.
pub(crate) fn whole(gpus: u32) -> Resource {
    resource("nvidia.com/gpu", gpus, Sharing::None, 1)
}

/// MIG devices of one GPU.
pub(crate) fn mig(gpu: u32, count: u32) -> Resource {
    let devices = (0..count).map(|at| Device {
        id: format!("MIG-{gpu}-{at}"),
        uuid: format!("MIG-{gpu}-{at}"),
        gpu: format!("GPU-{gpu}"),
        gpu_index: gpu,
        numa: None,
    });
    Resource {
        name: "nvidia.com/mig-1g.10gb".to_owned(),
        sharing: Sharing::None,
        one_per_container: false,
        devices: devices.collect(),
    }
}

/// These resources, all healthy, handed out by CDI names.
pub(crate) fn wanted(resources: impl IntoIterator<Item = Resource>) -> Wanted {
    let mut plan = Plan::default();
    plan.resources = resources.into_iter().collect();
    let mps = plan.resources.iter();
    let mps = mps.filter(|resource| resource.sharing == Sharing::Mps);
    let mps = mps
        .map(|resource| (resource.name.clone(), Shared::default()))
        .collect();
    Wanted {
        plan: Arc::new(plan),
        answers: Arc::new(Answers {
            strategies: vec![Strategy::CdiCri],
            mps,
            ..Answers::default()
        }),
        ..Wanted::default()
    }
}

/// A pod of one container.
pub(crate) fn pod(name: &str, resource: &str, count: usize) -> Pod {
    Pod::new("default", name).container("main", &[(resource, count)])
}

/// What is held and must not be together.
pub(crate) fn double_booked(kubelet: &Kubelet) -> Vec<String> {
    conflicts(&kubelet.held(), form)
}

fn form(held: &Held) -> Option<(String, Form)> {
    let uuid = uuid_of(&held.id);
    let part = |form: &str| Form::Part(form.to_owned());
    Some(match uuid.strip_prefix("MIG-") {
        Some(mig) => (format!("GPU-{}", mig.split('-').next()?), part("mig")),
        None if held.id == uuid => (uuid.to_owned(), Form::Whole),
        None if held.id.contains("-of-") => (uuid.to_owned(), part("mps")),
        None => (uuid.to_owned(), part("time-slicing")),
    })
}
