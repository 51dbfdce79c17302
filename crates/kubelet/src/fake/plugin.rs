//! A device plugin for tests: it does what it is told, and remembers what it was asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::device_plugin::{
    self, AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationResponse,
    Device, DevicePlugin, DevicePluginOptions, DevicePluginServer, Empty, HEALTHY, ListAndWatchResponse,
    NumaNode, PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, RegisterRequest, RegistrationClient, TopologyInfo, UNHEALTHY,
};
use crate::{Socket, SocketError, connect};

/// Variable that a container gets: its devices, joined by commas.
pub const DEVICES: &str = "PLUGIN_DEVICES";
/// Variable that a container gets: how many calls of `Allocate` the plugin has had, this one included.
pub const CALL: &str = "PLUGIN_CALL";

const DIAL: Duration = Duration::from_secs(5);

/// What a plugin was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Which devices it would take.
    Preferred {
        /// Those that may be taken.
        available: Vec<String>,
        /// Those that must be.
        must_include: Vec<String>,
        /// How many.
        size: i32,
    },
    /// For these devices.
    Allocate(Vec<String>),
    /// For these devices.
    PreStart(Vec<String>),
}

/// A device plugin that serves on its socket until it is dropped.
///
/// It prefers devices from the end of the list, and gives a container nothing but [`DEVICES`] and [`CALL`].
#[derive(Debug)]
pub struct Plugin {
    dir: PathBuf,
    endpoint: String,
    /// `None` once it stops, which ends the streams.
    devices: Option<watch::Sender<Vec<Device>>>,
    asked: Arc<Mutex<Asked>>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Asked {
    calls: Vec<Call>,
    refusal: Option<String>,
}

/// A device: its id, whether it is healthy, and the NUMA nodes that it is near to.
pub fn device(id: impl Into<String>, healthy: bool, numa: &[i64]) -> Device {
    let nodes = numa.iter().map(|&id| NumaNode { id }).collect();
    Device {
        id: id.into(),
        health: if healthy { HEALTHY } else { UNHEALTHY }.to_owned(),
        topology: (!numa.is_empty()).then_some(TopologyInfo { nodes }),
    }
}

impl Plugin {
    /// Serves on `endpoint`, in the directory for device plugins of a kubelet's directory. Not registered yet.
    pub async fn serve(
        kubelet: &Path,
        endpoint: &str,
        options: DevicePluginOptions,
        devices: Vec<Device>,
    ) -> Result<Self, SocketError> {
        let dir = kubelet.join(device_plugin::DIR);
        let socket = Socket::bind(dir.join(endpoint), 0o600).await?;
        let asked = Arc::<Mutex<Asked>>::default();
        let (devices, list) = watch::channel(devices);
        let (stop, stopped) = oneshot::channel::<()>();
        let service = DevicePluginServer::new(Service {
            options,
            list,
            asked: asked.clone(),
        });
        let stopped = async {
            let _ = stopped.await;
        };
        Ok(Self {
            dir,
            endpoint: endpoint.to_owned(),
            devices: Some(devices),
            asked,
            stop: Some(stop),
            serving: tokio::spawn(socket.serve(service, stopped)),
        })
    }

    /// Registers for a resource.
    ///
    /// # Errors
    ///
    /// What the kubelet answers, or [`tonic::Code::Unavailable`] where none does.
    pub async fn register(&self, resource: &str) -> Result<(), Status> {
        register(&self.dir, device_plugin::VERSION, &self.endpoint, resource).await
    }

    /// Tells other devices.
    pub fn set(&self, devices: Vec<Device>) {
        if let Some(sender) = &self.devices {
            sender.send_replace(devices);
        }
    }

    /// How many streams of its list are open.
    pub fn listeners(&self) -> usize {
        // The service itself keeps one to make others of.
        let receivers = self.devices.as_ref().map_or(0, watch::Sender::receiver_count);
        receivers.saturating_sub(1)
    }

    /// What it was asked so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .calls
            .clone()
    }

    /// From now on refuses with this message what it is asked for; `None`: no more.
    pub fn refuse(&self, message: Option<&str>) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).refusal = message.map(str::to_owned);
    }

    /// Ends it, and waits until its connections are closed and its socket is gone.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        drop(self.devices.take());
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Registers whatever is said, right or wrong, in a directory for device plugins.
pub async fn register(dir: &Path, version: &str, endpoint: &str, resource: &str) -> Result<(), Status> {
    let channel = connect(dir.join(device_plugin::SOCKET), DIAL)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let request = RegisterRequest {
        version: version.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource.to_owned(),
        options: None,
    };
    RegistrationClient::new(channel).register(request).await?;
    Ok(())
}

struct Service {
    options: DevicePluginOptions,
    list: watch::Receiver<Vec<Device>>,
    asked: Arc<Mutex<Asked>>,
}

impl Service {
    fn ask(&self, call: Call) -> Result<(), Status> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.calls.push(call);
        asked
            .refusal
            .clone()
            .map_or(Ok(()), |refusal| Err(Status::unknown(refusal)))
    }

    fn allocations(&self) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let allocations = asked
            .calls
            .iter()
            .filter(|call| matches!(call, Call::Allocate(_)));
        allocations.count()
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(self.options))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let lists = WatchStream::new(self.list.clone()).map(|devices| Ok(ListAndWatchResponse { devices }));
        Ok(Response::new(Box::pin(lists)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let mut container_responses = Vec::new();
        for request in request.into_inner().container_requests {
            let size = usize::try_from(request.allocation_size).unwrap_or_default();
            let (mut available, must_include) =
                (request.available_device_ids, request.must_include_device_ids);
            available.sort();
            let rest = available.iter().rev().filter(|id| !must_include.contains(id));
            let device_ids = must_include.iter().chain(rest).take(size).cloned().collect();
            container_responses.push(ContainerPreferredAllocationResponse { device_ids });
            self.ask(Call::Preferred {
                available,
                must_include,
                size: request.allocation_size,
            })?;
        }
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let mut container_responses = Vec::new();
        for request in request.into_inner().container_requests {
            let mut ids = request.device_ids;
            ids.sort();
            let devices = ids.join(",");
            self.ask(Call::Allocate(ids))?;
            let call = self.allocations().to_string();
            container_responses.push(ContainerAllocateResponse {
                envs: BTreeMap::from([(DEVICES.to_owned(), devices), (CALL.to_owned(), call)]),
                ..ContainerAllocateResponse::default()
            });
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let mut ids = request.into_inner().device_ids;
        ids.sort();
        self.ask(Call::PreStart(ids))?;
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
