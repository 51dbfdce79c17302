//! What the kubelet calls, for one resource. Nothing here waits, reads a file or asks the driver.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use pitcrew_kubelet::device_plugin::{
    AllocateRequest, AllocateResponse, CdiDevice, ContainerAllocateResponse,
    ContainerPreferredAllocationResponse, DevicePlugin, DevicePluginOptions, DeviceSpec, Empty,
    ListAndWatchResponse, Mount, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::Answer;
use super::answer::Refusal;
use super::ledger::{Ledger, Withdrawn};
use super::offer::Offer;
use super::tell::Tell;
use crate::notice::Level;

/// What a resource says to whoever watches it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// These devices.
    Offered(Arc<Offer>),
    /// What was said last; another plugin has the resource now. To end our stream would cut that one off: the kubelet
    /// closes whichever connection of a resource is the newest.
    Passive,
    /// There is no such resource any more. The kubelet is told so, as it would go on to count the devices otherwise.
    Gone,
    /// The server ends, and may come again.
    Closed,
}

/// The gRPC service of one resource.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Name of the resource.
    pub(crate) resource: Arc<str>,
    /// What is offered.
    pub(crate) state: watch::Receiver<State>,
    /// How many streams have told somebody the devices, and go on.
    pub(crate) told: Arc<watch::Sender<usize>>,
    /// What was answered lately.
    pub(crate) ledger: Arc<Ledger>,
    /// Who is told of it.
    pub(crate) tell: Tell,
}

/// What all calls of this plugin can do beyond `Allocate`.
pub(crate) fn options() -> DevicePluginOptions {
    DevicePluginOptions {
        pre_start_required: false,
        get_preferred_allocation_available: true,
    }
}

impl Service {
    fn refuse(&self, refusal: &Refusal) -> Status {
        self.tell
            .say(Level::Warning, format!("refused to the kubelet: {refusal}"));
        Status::invalid_argument(refusal.to_string())
    }

    fn offer(&self) -> Result<Arc<Offer>, Status> {
        match &*self.state.borrow() {
            State::Offered(offer) => Ok(offer.clone()),
            State::Passive | State::Gone | State::Closed => {
                Err(Status::unavailable("this resource is no longer served"))
            }
        }
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let mut state = self.state.clone();
        // The first look is a change, too.
        state.mark_changed();
        let watching = Watching {
            state,
            last: None,
            told: None,
            count: self.told.clone(),
            over: false,
        };
        let stream = futures_util::stream::unfold(watching, |mut watching| async {
            let list = watching.next().await?;
            Some((Ok(list), watching))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let offer = self.offer()?;
        let requests = request.into_inner().container_requests.into_iter();
        let chosen = requests.map(|request| ContainerPreferredAllocationResponse {
            device_ids: offer.prefer(
                &request.available_device_ids,
                &request.must_include_device_ids,
                usize::try_from(request.allocation_size).unwrap_or(0),
            ),
        });
        Ok(Response::new(PreferredAllocationResponse {
            container_responses: chosen.collect(),
        }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let requests = request.into_inner().container_requests;
        let ids = || requests.iter().flat_map(|request| &request.device_ids);
        // Noted before the offer is looked at: who changes it and then looks here either sees this, or has changed it
        // before this call looks.
        let noted = self.ledger.note(&self.resource, ids());
        noted.map_err(|Withdrawn(id)| {
            self.refuse(&Refusal::Unhealthy {
                resource: self.resource.to_string(),
                id,
                why: "what a container needs of it is being taken away".to_owned(),
            })
        })?;
        let offer = self.offer()?;
        let answers: Result<Vec<Answer>, Refusal> = requests
            .iter()
            .map(|request| {
                offer
                    .answers
                    .answer(&offer.resource, &offer.unhealthy, &request.device_ids)
            })
            .collect();
        let answers = answers.map_err(|refusal| {
            self.ledger.forget(&self.resource, ids());
            self.refuse(&refusal)
        })?;
        for request in &requests {
            let ids = request.device_ids.join(", ");
            self.tell
                .say(Level::Info, format!("handed out {ids} of {}", self.resource));
        }
        let responses = answers.into_iter().map(response).collect();
        Ok(Response::new(AllocateResponse {
            container_responses: responses,
        }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

fn response(answer: Answer) -> ContainerAllocateResponse {
    let mount = |mount: crate::runtime::mounts::BindMount| Mount {
        container_path: mount.container,
        host_path: mount.host,
        read_only: mount.read_only,
    };
    let node = |node: crate::runtime::mounts::DeviceFile| DeviceSpec {
        container_path: node.container,
        host_path: node.host,
        permissions: node.permissions,
    };
    ContainerAllocateResponse {
        envs: answer.env.into_iter().collect(),
        mounts: answer.mounts.into_iter().map(mount).collect(),
        devices: answer.nodes.into_iter().map(node).collect(),
        annotations: answer.annotations.into_iter().collect(),
        cdi_devices: answer
            .cdi_devices
            .into_iter()
            .map(|name| CdiDevice { name })
            .collect(),
    }
}

/// One stream of `ListAndWatch`.
struct Watching {
    state: watch::Receiver<State>,
    last: Option<ListAndWatchResponse>,
    told: Option<Told>,
    count: Arc<watch::Sender<usize>>,
    over: bool,
}

/// Counts a stream for as long as it goes on.
struct Told(Arc<watch::Sender<usize>>);

impl Told {
    fn new(count: Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Watching {
    /// The next list: the first at once, then whenever it is another one. Nothing at the end.
    async fn next(&mut self) -> Option<ListAndWatchResponse> {
        while !self.over {
            self.state.changed().await.ok()?;
            let list = match &*self.state.borrow_and_update() {
                State::Offered(offer) => offer.list(),
                State::Passive => continue,
                State::Gone => {
                    self.over = true;
                    ListAndWatchResponse::default()
                }
                State::Closed => return None,
            };
            if self.last.as_ref() != Some(&list) {
                self.last = Some(list.clone());
                self.told.get_or_insert_with(|| Told::new(self.count.clone()));
                return Some(list);
            }
        }
        None
    }
}
