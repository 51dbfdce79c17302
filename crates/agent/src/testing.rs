//! What tests of parts of the agent start from: an imaginary node and an API server in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use pitcrew_apiserver::ApiServer;
use pitcrew_core::Inventory;
use pitcrew_core::ports::{Clock, GpuError, GpuEvent, HostFs, InventorySource as _};
use pitcrew_host::Host;
use pitcrew_scenario::{HostRoot, Machine, Scenario};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::deps::{Deps, Driver, NoProver, Process, System};
use crate::notice::Notice;
use crate::runtime::Tier;
use crate::settings::Settings;
use crate::snapshot::Snapshot;

/// Name of the Node.
pub(crate) const NODE: &str = "worker-1";
/// Seconds since 1970 at all times.
pub(crate) const NOW: u64 = 1_764_000_000;

/// Methods of [`System`] that a test never comes to.
macro_rules! never_asked {
    ($($method:ident),+) => { $(never_asked!(@ $method);)+ };
    (@ load_module) => {
        fn load_module(&self, _: &str) -> BoxFuture<'_, std::io::Result<()>> {
            unreachable!("no module is loaded")
        }
    };
    (@ make_char_device) => {
        fn make_char_device(&self, _: &std::path::Path, _: u32, _: u32) -> std::io::Result<()> {
            unreachable!("no device is made")
        }
    };
    (@ restart_unit) => {
        fn restart_unit<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<()>> {
            unreachable!("nothing is restarted")
        }
    };
    (@ start) => {
        fn start<'a>(
            &'a self,
            _: &'a str,
            _: &'a std::path::Path,
            _: &'a [String],
            _: &'a [(String, String)],
        ) -> BoxFuture<'a, std::io::Result<Box<dyn crate::deps::Process>>> {
            unreachable!("nothing is started")
        }
    };
    (@ find) => {
        fn find<'a>(
            &'a self,
            _: &'a str,
        ) -> BoxFuture<'a, std::io::Result<Option<Box<dyn crate::deps::Process>>>> {
            unreachable!("nothing is looked for")
        }
    };
    (@ run) => {
        fn run<'a>(
            &'a self,
            _: &'a std::path::Path,
            _: &'a [String],
            _: &'a [(String, String)],
            _: &'a str,
        ) -> BoxFuture<'a, std::io::Result<String>> {
            unreachable!("nothing is run")
        }
    };
}
pub(crate) use never_asked;

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
    }
}

/// For parts that ask neither: they would wait for ever.
struct Nothing;

impl Driver for Nothing {
    fn look(&self) -> BoxFuture<'_, Result<Inventory, GpuError>> {
        std::future::pending().boxed()
    }

    fn event(&self) -> BoxFuture<'_, GpuEvent> {
        std::future::pending().boxed()
    }

    fn release(&self) -> BoxFuture<'_, Result<(), GpuError>> {
        std::future::ready(Ok(())).boxed()
    }
}

impl System for Nothing {
    fn load_module(&self, _: &str) -> BoxFuture<'_, io::Result<()>> {
        std::future::pending().boxed()
    }

    fn make_char_device(&self, _: &Path, _: u32, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn restart_unit<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<()>> {
        std::future::pending().boxed()
    }

    fn start<'a>(
        &'a self,
        _: &'a str,
        _: &'a Path,
        _: &'a [String],
        _: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Box<dyn Process>>> {
        std::future::pending().boxed()
    }

    fn find<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Option<Box<dyn Process>>>> {
        std::future::pending().boxed()
    }

    fn run<'a>(
        &'a self,
        _: &'a Path,
        _: &'a [String],
        _: &'a [(String, String)],
        _: &'a str,
    ) -> BoxFuture<'a, io::Result<String>> {
        std::future::pending().boxed()
    }
}

/// A node of one scenario.
pub(crate) struct Bench {
    pub(crate) server: ApiServer,
    pub(crate) machine: Machine,
    pub(crate) notices: UnboundedReceiver<Notice>,
    pub(crate) deps: Arc<Deps>,
    scratch: tempfile::TempDir,
}

impl Bench {
    /// The Node is there already.
    pub(crate) async fn new(scenario: &str) -> Self {
        let bench = Self::without_node(scenario);
        let node = json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}});
        let node = serde_json::from_value(node).unwrap();
        bench.nodes().create(&by("kubelet"), &node).await.unwrap();
        bench
    }

    pub(crate) fn without_node(scenario: &str) -> Self {
        let server = ApiServer::new();
        let machine = Machine::new(Scenario::builtin(scenario).unwrap());
        let (sender, notices) = unbounded_channel();
        let scratch = tempfile::tempdir().unwrap();
        let deps = Deps {
            settings: Settings::new(NODE),
            driver: Arc::new(Nothing),
            host: Arc::new(HostRoot::over(machine.clone()).unwrap()),
            root: scratch.path().to_owned(),
            system: Arc::new(Nothing),
            prover: Arc::new(NoProver),
            client: Some(Client::new(server.clone(), "default")),
            clock: Arc::new(Stopped),
            notices: sender,
        };
        Self {
            server,
            machine,
            notices,
            deps: Arc::new(deps),
            scratch,
        }
    }

    /// The host's file at this path.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.server.clone(), "default")
    }

    pub(crate) fn nodes(&self) -> Api<Node> {
        Api::all(self.client())
    }

    pub(crate) async fn node(&self) -> Node {
        self.nodes().get(NODE).await.unwrap()
    }

    /// Somebody sets labels of the Node, or takes them away with `null`.
    pub(crate) async fn label(&self, who: &str, labels: Value) {
        let patch = json!({"metadata": {"labels": labels}});
        let params = PatchParams {
            field_manager: Some(who.to_owned()),
            ..PatchParams::default()
        };
        self.nodes()
            .patch(NODE, &params, &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// What the agent knows when it looks now.
    pub(crate) fn look(&self) -> Snapshot {
        look(&self.machine, self.deps.host.as_ref())
    }

    /// What was told since the last time.
    pub(crate) fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(notice) = self.notices.try_recv() {
            told.push(notice.text);
        }
        told
    }
}

pub(crate) fn by(who: &str) -> PostParams {
    PostParams {
        field_manager: Some(who.to_owned()),
        ..PostParams::default()
    }
}

/// What an agent knows that looks at a node.
pub(crate) fn look(machine: &Machine, host: &dyn HostFs) -> Snapshot {
    let gpus = machine.clone().inventory();
    Snapshot {
        host: Some(Arc::new(Host::gather(host))),
        gpus: Some(gpus.map(Arc::new)),
        ..nothing_known()
    }
}

/// A snapshot before the first look.
pub(crate) fn nothing_known() -> Snapshot {
    Snapshot {
        host: None,
        gpus: None,
        held: None,
        sick: std::collections::BTreeMap::new(),
        resources: Vec::new(),
        registered: std::collections::BTreeSet::new(),
        unhealthy: std::collections::BTreeMap::new(),
        tier: Tier::Unknown,
        problems: std::collections::BTreeMap::new(),
        remarks: std::collections::BTreeMap::new(),
        proof: Arc::default(),
    }
}

/// Waits until it is so: a minute of the clock that tests stop.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    for _ in 0..6000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it didn't come to this in a minute: {what}");
}
