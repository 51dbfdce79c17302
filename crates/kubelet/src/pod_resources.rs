//! The pod-resources API, version `v1`: which pod holds what.

use tonic::transport::Channel;

pub use crate::generated::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
pub use crate::generated::pod_resources::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
pub use crate::generated::pod_resources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, CdiDevice, ClaimResource, ContainerDevices,
    ContainerMemory, ContainerResources, DynamicResource, GetPodResourcesRequest, GetPodResourcesResponse,
    ListPodResourcesRequest, ListPodResourcesResponse, NumaNode, PodResources, TopologyInfo,
};

/// Directory of the socket, in the kubelet's directory.
pub const DIR: &str = "pod-resources";
/// File name of the kubelet's socket in [`DIR`].
pub const SOCKET: &str = "kubelet.sock";
/// The longest answer that is taken, in bytes: what the kubelet's own client takes. A node with many pods goes beyond
/// the 4 MiB of gRPC.
pub const MAX_ANSWER: usize = 16 << 20;

/// A client that takes answers of up to [`MAX_ANSWER`].
pub fn client(channel: Channel) -> PodResourcesListerClient<Channel> {
    PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}
