//! One run of the fake kubelet, from start to stop: its sockets, and its connections to plugins.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::name::is_extended;
use super::pod::AdmitError;
use super::state::{Endpoint, Ids, State};
use super::{Options, lister};
use crate::device_plugin::{
    self, AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginClient, Empty, PreStartContainerRequest,
    PreferredAllocationRequest, RegisterRequest, Registration, RegistrationServer,
};
use crate::pod_resources::{self, PodResourcesListerServer};
use crate::{Socket, SocketError, connect};

/// Permissions of the sockets.
const MODE: u32 = 0o755;
/// Between two tries to dial a plugin.
const REDIAL: Duration = Duration::from_millis(50);

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    dir: PathBuf,
    pub(super) options: Options,
    state: Mutex<State>,
    /// Counts what happened, over all runs.
    pub(super) changed: watch::Sender<u64>,
    /// What listens, and what watches plugins; empty once it is stopped.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Run {
    /// A kubelet that doesn't run.
    pub(super) fn stopped(dir: &Path, options: Options, changed: watch::Sender<u64>) -> Arc<Self> {
        Arc::new(Self {
            dir: dir.to_owned(),
            options,
            state: Mutex::default(),
            changed,
            tasks: Mutex::new(None),
        })
    }

    /// Starts with what an earlier run left: removes every socket that lies in the directory of device plugins, then
    /// listens.
    pub(super) async fn start(
        dir: &Path,
        options: Options,
        state: State,
        changed: watch::Sender<u64>,
    ) -> Result<Arc<Self>, SocketError> {
        let plugins = dir.join(device_plugin::DIR);
        let resources = dir.join(pod_resources::DIR);
        for made in [&plugins, &resources] {
            let failed = |error| SocketError::Bind {
                path: made.clone(),
                error,
            };
            std::fs::create_dir_all(made).map_err(failed)?;
            remove_sockets(made).map_err(failed)?;
        }
        let run = Arc::new(Self {
            dir: dir.to_owned(),
            options,
            state: Mutex::new(state),
            changed,
            tasks: Mutex::new(None),
        });
        let mut tasks = JoinSet::new();
        if options.pod_resources {
            let socket = Socket::bind(resources.join(pod_resources::SOCKET), MODE).await?;
            let service = PodResourcesListerServer::new(lister::Lister(run.clone()));
            tasks.spawn(socket.keep_file().serve(service, std::future::pending()));
        }
        let socket = Socket::bind(plugins.join(device_plugin::SOCKET), MODE).await?;
        let service = RegistrationServer::new(Registrar(run.clone()));
        tasks.spawn(socket.keep_file().serve(service, std::future::pending()));
        *run.tasks() = Some(tasks);
        run.tell();
        Ok(run)
    }

    /// Ends everything at once, as a process does that is killed: sockets stay behind, nobody is told. Gives what the
    /// next run needs; a run that was stopped before gives nothing more.
    pub(super) async fn stop(&self) -> State {
        let tasks = self.tasks().take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
        let state = std::mem::take(&mut *self.state()).restarted();
        self.tell();
        state
    }

    /// Like [`Self::stop`], where nobody can wait.
    pub(super) fn abandon(&self) {
        // Dropping them ends them.
        drop(self.tasks().take());
        *self.state() = State::default();
    }

    pub(super) fn is_running(&self) -> bool {
        self.tasks().is_some()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something changed.
    pub(super) fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Connects to a plugin that has registered, and begins to watch it.
    async fn plugin(self: &Arc<Self>, resource: String, socket: PathBuf) -> Result<(), Status> {
        let (close, closed) = watch::channel(false);
        // The connection before this one is not closed, and goes on to be listened to.
        self.state().clients.insert(resource.clone(), close);
        let connected = async {
            let channel = self.dial(&socket).await?;
            let mut client = DevicePluginClient::new(channel);
            let options = client.get_device_plugin_options(Empty {}).await?.into_inner();
            Ok::<_, Status>((client, options))
        };
        let (client, options) = match connected.await {
            Ok(connected) => connected,
            Err(status) => {
                self.state().clients.remove(&resource);
                return Err(status);
            }
        };
        let endpoint = Endpoint {
            plugin: Some(client.clone()),
            socket,
            options,
            stopped: None,
        };
        self.state().endpoints.insert(resource.clone(), endpoint);
        self.tell();
        if let Some(tasks) = self.tasks().as_mut() {
            tasks.spawn(self.clone().watch(resource, client, closed));
        }
        Ok(())
    }

    /// Dials a plugin's socket until somebody answers, or the time is over.
    async fn dial(&self, socket: &Path) -> Result<Channel, Status> {
        let end = tokio::time::Instant::now() + self.options.dial;
        loop {
            match connect(socket, self.options.dial).await {
                Ok(channel) => return Ok(channel),
                Err(error) if tokio::time::Instant::now() + REDIAL > end => {
                    return Err(Status::unknown(format!("could not dial the plugin: {error}")));
                }
                Err(_) => tokio::time::sleep(REDIAL).await,
            }
        }
    }

    /// Takes a plugin's lists until its stream ends or its connection is closed.
    async fn watch(
        self: Arc<Self>,
        resource: String,
        mut client: DevicePluginClient<Channel>,
        mut closed: watch::Receiver<bool>,
    ) {
        let listening = async {
            let Ok(lists) = client.list_and_watch(Empty {}).await else {
                return;
            };
            let mut lists = lists.into_inner();
            while let Ok(Some(list)) = lists.message().await {
                self.state().update(&resource, list.devices);
                self.tell();
            }
        };
        tokio::select! {
            () = listening => {}
            () = async {
                // A sender that is gone is a client that another one took the place of, which closes nothing.
                if closed.wait_for(|&closed| closed).await.is_err() {
                    std::future::pending::<()>().await;
                }
            } => {}
        }
        drop(client);
        let mut state = self.state();
        // As the real one does: whichever connection was made last for this resource is closed now, though it may be
        // another plugin's than the one that ended.
        if let Some(close) = state.clients.remove(&resource) {
            let _ = close.send(true);
            state.disconnected(&resource);
        }
        drop(state);
        self.tell();
    }

    fn endpoint(&self, resource: &str) -> Result<Endpoint, AdmitError> {
        let gone = || AdmitError::PluginGone {
            resource: resource.to_owned(),
        };
        self.state().endpoints.get(resource).cloned().ok_or_else(gone)
    }

    fn plugin_of(&self, resource: &str) -> Result<DevicePluginClient<Channel>, AdmitError> {
        let gone = || AdmitError::PluginGone {
            resource: resource.to_owned(),
        };
        self.endpoint(resource)?.plugin.ok_or_else(gone)
    }

    /// Which of `available` the plugin would take; nothing where it has no opinion.
    pub(super) async fn preferred(
        &self,
        resource: &str,
        available: &Ids,
        must_include: &Ids,
        size: usize,
    ) -> Result<Ids, AdmitError> {
        let endpoint = self.endpoint(resource)?;
        if !endpoint.options.get_preferred_allocation_available {
            return Ok(Ids::new());
        }
        let mut plugin = self.plugin_of(resource)?;
        let request = ContainerPreferredAllocationRequest {
            available_device_ids: available.iter().cloned().collect(),
            must_include_device_ids: must_include.iter().cloned().collect(),
            allocation_size: i32::try_from(size).unwrap_or(i32::MAX),
        };
        let request = PreferredAllocationRequest {
            container_requests: vec![request],
        };
        let answer = plugin
            .get_preferred_allocation(request)
            .await
            .map_err(|status| refused(resource, "GetPreferredAllocation", &status))?;
        let first = answer.into_inner().container_responses.into_iter().next();
        Ok(first
            .map(|answer| answer.device_ids.into_iter().collect())
            .unwrap_or_default())
    }

    pub(super) async fn allocate(
        &self,
        resource: &str,
        ids: &Ids,
    ) -> Result<ContainerAllocateResponse, AdmitError> {
        let mut plugin = self.plugin_of(resource)?;
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest {
                device_ids: ids.iter().cloned().collect(),
            }],
        };
        let answer = plugin
            .allocate(request)
            .await
            .map_err(|status| refused(resource, "Allocate", &status))?;
        let first = answer.into_inner().container_responses.into_iter().next();
        first.ok_or_else(|| AdmitError::Plugin {
            resource: resource.to_owned(),
            call: "Allocate",
            message: "the answer is for no container".to_owned(),
        })
    }

    /// Tells a plugin that wants to know that a container starts.
    pub(super) async fn pre_start(&self, resource: &str, ids: Vec<String>) -> Result<(), AdmitError> {
        if !self.endpoint(resource)?.options.pre_start_required {
            return Ok(());
        }
        let mut plugin = self.plugin_of(resource)?;
        let called = plugin.pre_start_container(PreStartContainerRequest { device_ids: ids });
        match tokio::time::timeout(self.options.pre_start, called).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(refused(resource, "PreStartContainer", &status)),
            Err(_) => Err(AdmitError::Plugin {
                resource: resource.to_owned(),
                call: "PreStartContainer",
                message: format!("no answer in {:?}", self.options.pre_start),
            }),
        }
    }
}

fn refused(resource: &str, call: &'static str, status: &Status) -> AdmitError {
    AdmitError::Plugin {
        resource: resource.to_owned(),
        call,
        message: status.message().to_owned(),
    }
}

/// Removes every socket in a directory, and nothing else.
fn remove_sockets(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;

    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            match std::fs::remove_file(entry.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The kubelet's side of registration.
struct Registrar(Arc<Run>);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        if request.version != device_plugin::VERSION {
            return Err(Status::unknown(format!(
                "version {:?} of the API is not known; known is {:?}",
                request.version,
                device_plugin::VERSION
            )));
        }
        if !is_extended(&request.resource_name) {
            return Err(Status::unknown(format!(
                "{:?} is no name of an extended resource",
                request.resource_name
            )));
        }
        // `join` with an absolute path would leave the directory.
        let endpoint = request.endpoint.trim_start_matches('/');
        let socket = self.0.dir.join(device_plugin::DIR).join(endpoint);
        self.0.plugin(request.resource_name, socket).await?;
        Ok(Response::new(Empty {}))
    }
}
