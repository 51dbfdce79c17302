//! One imaginary node, and the agent on it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use pitcrew_agent::config::Source;
use pitcrew_agent::settings::Pace;
use pitcrew_agent::{Deps, Notice, Settings};
use pitcrew_apiserver::ApiServer;
use pitcrew_host::facts::Host;
use pitcrew_kubelet::SocketError;
use pitcrew_kubelet::fake::{Kubelet, Options};
use pitcrew_scenario::{Change, HostRoot, Machine, Scenario, ScenarioError};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::cluster;
use crate::driver::{self, Driver};
use crate::files::{Files, keep_links_inside};
use crate::notices::Notices;
use crate::pods::Processes;
use crate::prover::Prover;
use crate::system::{Restart, System};

/// Paths of unix sockets have 107 bytes at most; this much of them is the node's own part.
const LONGEST_ROOT: usize = 40;

/// How often an agent looks: imaginary drivers cost nothing to ask, and nobody wants to wait for them.
const PACE: Pace = Pace {
    glance: Duration::from_millis(100),
    look: Duration::from_secs(1),
    look_closely: Duration::from_millis(200),
    gather: Duration::from_secs(2),
    driver_away: Duration::from_secs(3),
};
/// How long a GPU must have been well that was sick.
const PROBATION: Duration = Duration::from_millis(500);

/// Why there is no imaginary node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scenario or the host root is none.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The scratch directory can't be filled.
    #[error("the imaginary node can't be laid out under `{}`", .path.display())]
    Scratch {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The imaginary kubelet can't serve.
    #[error("the imaginary kubelet can't serve its sockets")]
    Kubelet(#[from] SocketError),
    /// The imaginary API server refused something.
    #[error("the imaginary API server refused the node")]
    Api(#[source] Box<kube::Error>),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// How a node is made.
#[derive(Debug, Clone)]
pub struct Builder {
    scenario: Scenario,
    name: String,
    host: String,
    without: Vec<PathBuf>,
    deadline: Duration,
    api: Option<ApiServer>,
    kubelet: Options,
}

impl Builder {
    /// The name of the Node; `gpu-worker-1` by default.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The host: a built-in root, `rke2` (the default) or `k3s`.
    #[must_use]
    pub fn host(mut self, root: impl Into<String>) -> Self {
        self.host = root.into();
        self
    }

    /// What the machine would show and isn't there at the start, with all below it: `/dev/nvidia-uvm`.
    #[must_use]
    pub fn without(mut self, path: impl Into<PathBuf>) -> Self {
        self.without.push(path.into());
        self
    }

    /// How long the driver may take for a look, [`driver::DEADLINE`] by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How the kubelet behaves.
    #[must_use]
    pub fn kubelet(mut self, options: Options) -> Self {
        self.kubelet = options;
        self
    }

    /// The API server of a cluster that the node joins; one of its own by default.
    #[must_use]
    pub fn api(mut self, api: ApiServer) -> Self {
        self.api = Some(api);
        self
    }

    /// Lays the node out and starts everything on it but the agent. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// Where the host isn't known, the scratch directory can't be made, or the API server has such a node already.
    pub async fn start(self) -> Result<Node, Error> {
        let scratch = scratch()?;
        let root = scratch.path().to_owned();
        let refused = |source| Error::Scratch {
            path: root.clone(),
            source,
        };
        HostRoot::builtin(&self.host)?.build(&root).map_err(refused)?;
        keep_links_inside(&root).map_err(refused)?;
        bring_programs(&root).map_err(refused)?;

        let machine = Machine::new(self.scenario.for_node(&self.name));
        let files = Files::new(&root, shown(&machine, &self.without)?);
        let kubelet_dir = root.join("var/lib/kubelet");
        let kubelet = Arc::new(Kubelet::with(&kubelet_dir, self.kubelet).await?);
        let restarted = Arc::clone(&kubelet);
        // A restart of RKE2 or K3s takes the kubelet along.
        let restart: Restart = Arc::new(move |_| {
            let kubelet = Arc::clone(&restarted);
            async move { kubelet.restart().await.map_err(io::Error::other) }.boxed()
        });
        let system = System::new(root.clone(), files.clone(), restart);
        let prover = Prover::new(&root, machine.clone());
        let api = self.api.unwrap_or_default();
        let client = kube::Client::new(api.clone(), "default");
        let host = Host::gather(&files);
        let distribution = host.distribution.value();
        let version = distribution.and_then(|found| found.version.value());
        let version = version.map(|version| format!("v{version}"));
        cluster::define(&client).await?;
        cluster::configure(&api, "version: v1\n")?;
        cluster::register(&client, &self.name, version.as_deref()).await?;
        let (sender, notices) = Notices::collect();
        let mut settings = Settings::new(self.name);
        (settings.pace, settings.probation) = (PACE, PROBATION);
        settings.sources.source = Source::ConfigMap {
            namespace: cluster::NAMESPACE.to_owned(),
            name: cluster::CONFIGURATION.to_owned(),
        };
        settings.imaginary = true;
        settings.hook.binary = image(&root).map_err(refused)?;
        Ok(Node {
            settings,
            scratch,
            driver: Arc::new(Driver::new(machine.clone(), self.deadline)),
            machine,
            files,
            system,
            prover,
            api,
            client,
            sender,
            notices,
            kubelet,
            processes: Processes::default(),
            alive: Arc::default(),
            kept: JoinSet::new(),
            agent: None,
        })
    }
}

/// A directory whose path is short enough for sockets below it.
fn scratch() -> Result<TempDir, Error> {
    let usual = std::env::temp_dir();
    let dir = if usual.as_os_str().len() > LONGEST_ROOT {
        PathBuf::from("/tmp")
    } else {
        usual
    };
    let made = tempfile::Builder::new().prefix("pitcrew-").tempdir_in(&dir);
    made.map_err(|source| Error::Scratch { path: dir, source })
}

/// What comes with the driver's package and is looked for, but is no library.
fn bring_programs(root: &Path) -> io::Result<()> {
    for name in [
        "nvidia-smi",
        "nvidia-cuda-mps-control",
        "nvidia-cuda-mps-server",
        "unshare",
        "sh",
    ] {
        fs::write(root.join("usr/bin").join(name), "")?;
    }
    Ok(())
}

/// What the agent's image brings along: a program in the place of the hooks, which nothing here runs.
fn image(root: &Path) -> io::Result<PathBuf> {
    let dir = root.join("image");
    fs::create_dir(&dir)?;
    let hook = dir.join("pitcrew-hook");
    fs::write(&hook, "\x7fELF imaginary")?;
    Ok(hook)
}

/// What the machine shows of files, without some.
fn shown(machine: &Machine, without: &[PathBuf]) -> Result<HostRoot, ScenarioError> {
    let paths: Vec<String> = without
        .iter()
        .map(|path| serde_json::Value::from(path.display().to_string()).to_string())
        .collect();
    let manifest = format!(
        "description: what the machine shows\nremove: [{}]\n",
        paths.join(", ")
    );
    Ok(HostRoot::parse(&manifest, "machine", &|_| None)?.with_machine(machine.clone()))
}

/// One imaginary node.
///
/// Dropping it ends the agent, lets every call of the driver return, and removes the scratch directory.
pub struct Node {
    settings: Settings,
    machine: Machine,
    files: Files,
    system: System,
    prover: Prover,
    driver: Arc<Driver>,
    api: ApiServer,
    client: kube::Client,
    sender: UnboundedSender<Notice>,
    notices: Notices,
    kubelet: Arc<Kubelet>,
    processes: Processes,
    /// True while an agent runs.
    alive: Arc<AtomicBool>,
    /// What runs until the node is dropped.
    kept: JoinSet<()>,
    agent: Option<Agent>,
    scratch: TempDir,
}

/// An agent that runs.
#[derive(Debug)]
struct Agent {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), pitcrew_agent::run::Error>>,
}

/// Says that an agent runs, until it is dropped.
struct Alive(Arc<AtomicBool>);

impl Alive {
    fn new(alive: Arc<AtomicBool>) -> Self {
        alive.store(true, Ordering::Relaxed);
        Self(alive)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Node {
    /// A node with the GPUs of this scenario.
    pub fn builder(scenario: Scenario) -> Builder {
        Builder {
            scenario,
            name: "gpu-worker-1".to_owned(),
            host: "rke2".to_owned(),
            without: Vec::new(),
            deadline: driver::DEADLINE,
            api: None,
            kubelet: Options::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.node
    }

    /// Its GPUs.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its files, as the agent sees them.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// What was done by its kernel and systemd.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Who proves its GPUs.
    pub fn prover(&self) -> &Prover {
        &self.prover
    }

    /// Its driver, as the agent asks it.
    pub fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Its kubelet.
    pub fn kubelet(&self) -> &Arc<Kubelet> {
        &self.kubelet
    }

    /// Processes of its pods.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    pub(crate) fn alive(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.alive)
    }

    /// Runs something until the node is dropped.
    pub(crate) fn keep(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.kept.spawn(task);
    }

    /// Puts the device plugin's configuration into the `ConfigMap` that the agent follows, in the place of the one before
    /// it.
    /// Faults of the API server don't keep it from arriving.
    ///
    /// # Errors
    /// What the API server has against it.
    pub fn configure(&self, text: &str) -> Result<(), kube::Error> {
        cluster::configure(&self.api, text)
    }

    /// The API server of its cluster.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// A client of the API server.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Where its files lie.
    pub fn root(&self) -> &Path {
        self.scratch.path()
    }

    /// What its agents have told.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// What the next agent is asked for.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// What an agent on this node is given.
    pub fn deps(&self) -> Deps {
        Deps {
            settings: self.settings.clone(),
            driver: Arc::clone(&self.driver) as Arc<dyn pitcrew_agent::deps::Driver>,
            host: Arc::new(self.files.clone()),
            root: self.root().to_owned(),
            system: Arc::new(self.system.clone()),
            prover: Arc::new(self.prover.clone()),
            client: Some(self.client.clone()),
            clock: Arc::new(self.machine.clone()),
            notices: self.sender.clone(),
        }
    }

    /// Starts the agent; one that runs is killed first.
    pub async fn start_agent(&mut self) {
        self.kill_agent().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            // Who drops the sender kills the agent; that is no order to stop.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let (deps, alive) = (self.deps(), Alive::new(self.alive()));
        let task = tokio::spawn(async move {
            let _alive = alive;
            pitcrew_agent::run(deps, shutdown).await
        });
        self.agent = Some(Agent { stop, task });
    }

    /// Asks the agent to stop, and waits until it has.
    ///
    /// # Errors
    /// What the agent ended in.
    pub async fn stop_agent(&mut self) -> Result<(), pitcrew_agent::run::Error> {
        let Some(Agent { stop, task }) = self.agent.take() else {
            return Ok(());
        };
        // It may have ended by itself.
        let _ = stop.send(());
        task.await.unwrap_or(Ok(()))
    }

    /// Ends the agent in the middle of whatever it does, as `kill -9` would.
    pub async fn kill_agent(&mut self) {
        if let Some(Agent { task, .. }) = self.agent.take() {
            task.abort();
            let _ = task.await;
        }
        // The kernel closes what a killed process had open.
        let _ = pitcrew_agent::deps::Driver::release(self.driver.as_ref()).await;
    }

    /// True while the agent runs.
    pub fn agent_runs(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name())
            .field("root", &self.root())
            .finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.task.abort();
        }
        // A call that hangs would keep the runtime from ending. Nothing is named that may not exist.
        let _ = self.machine.change(&Change::Release);
    }
}
