//! The fake kubelet's pod-resources.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::pod::{Kind, Pod, numa};
use super::run::Run;
use super::state::State;
use crate::pod_resources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse,
    NumaNode, PodResources, PodResourcesLister, TopologyInfo,
};

pub(super) struct Lister(pub(super) Arc<Run>);

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let state = self.0.state();
        Ok(Response::new(ListPodResourcesResponse {
            pod_resources: state.pods.values().map(|pod| resources(&state, pod)).collect(),
        }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        let state = self.0.state();
        let devices = state
            .allocatable()
            .flat_map(|(resource, device)| entries(resource, &device.id, &numa(device)));
        Ok(Response::new(AllocatableResourcesResponse {
            devices: devices.collect(),
            ..AllocatableResourcesResponse::default()
        }))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let request = request.into_inner();
        let state = self.0.state();
        let key = (request.pod_namespace, request.pod_name);
        let Some(pod) = state.pods.get(&key) else {
            return Err(Status::unknown(format!("there is no pod {} in {}", key.1, key.0)));
        };
        Ok(Response::new(GetPodResourcesResponse {
            pod_resources: Some(resources(&state, pod)),
        }))
    }
}

/// What a pod holds. Init containers that end are left out, as the real one does.
fn resources(state: &State, pod: &Pod) -> PodResources {
    let key = pod.key();
    let containers = pod.in_order().filter(|container| container.kind != Kind::Init);
    let containers = containers.map(|container| {
        let held = state.held.get(&key).and_then(|held| held.get(&container.name));
        let devices = held.into_iter().flatten().flat_map(|(resource, holding)| {
            let devices = holding.devices.iter();
            devices.flat_map(move |(id, nodes)| entries(resource, id, nodes))
        });
        ContainerResources {
            name: container.name.clone(),
            devices: devices.collect(),
            ..ContainerResources::default()
        }
    });
    PodResources {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        containers: containers.collect(),
    }
}

/// One entry for each NUMA node of a device, or one without any.
fn entries(resource: &str, id: &str, nodes: &[i64]) -> Vec<ContainerDevices> {
    let entry = |topology| ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id.to_owned()],
        topology,
    };
    if nodes.is_empty() {
        return vec![entry(None)];
    }
    let near = |&id: &i64| TopologyInfo {
        nodes: vec![NumaNode { id }],
    };
    nodes.iter().map(|node| entry(Some(near(node)))).collect()
}
