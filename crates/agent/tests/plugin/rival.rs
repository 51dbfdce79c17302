//! Another device plugin on the node.

use std::path::Path;
use std::pin::Pin;

use futures_util::Stream;
use pitcrew_kubelet::Socket;
use pitcrew_kubelet::device_plugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DevicePlugin, DevicePluginOptions,
    DevicePluginServer, Empty, HEALTHY, ListAndWatchResponse, PreStartContainerRequest,
    PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest,
    RegistrationClient, VERSION,
};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

use crate::node::{Node, SOON, pod, resource, wanted, whole};
use pitcrew_core::plugin::Sharing;

const GPU: &str = "nvidia.com/gpu";

/// As NVIDIA's: it serves, registers once, and never looks at its streams again.
struct Other(JoinHandle<()>);

impl Other {
    async fn start(sockets: &Path, name: &str, resource: &str, ids: &[&str]) -> Self {
        let socket = Socket::bind(sockets.join(name), 0o600).await.unwrap();
        let plugin = Plugin(ids.iter().map(|&id| id.to_owned()).collect());
        let serving = socket.serve(DevicePluginServer::new(plugin), std::future::pending());
        let task = tokio::spawn(serving);
        register(sockets, name, resource).await;
        Self(task)
    }

    async fn kill(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

async fn register(sockets: &Path, name: &str, resource: &str) {
    let channel = pitcrew_kubelet::connect(sockets.join("kubelet.sock"), SOON)
        .await
        .unwrap();
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: name.to_owned(),
        resource_name: resource.to_owned(),
        options: None,
    };
    RegistrationClient::new(channel).register(request).await.unwrap();
}

struct Plugin(Vec<String>);

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let device = |id: &String| Device {
            id: id.clone(),
            health: HEALTHY.to_owned(),
            topology: None,
        };
        let list = ListAndWatchResponse {
            devices: self.0.iter().map(device).collect(),
        };
        let first = futures_util::stream::once(async { Ok(list) });
        let never = futures_util::stream::pending();
        Ok(Response::new(Box::pin(futures_util::StreamExt::chain(
            first, never,
        ))))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let answer = ContainerAllocateResponse {
            envs: [("NVIDIA_VISIBLE_DEVICES".to_owned(), "theirs".to_owned())].into(),
            ..ContainerAllocateResponse::default()
        };
        let count = request.into_inner().container_requests.len();
        Ok(Response::new(AllocateResponse {
            container_responses: vec![answer; count],
        }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

#[tokio::test]
async fn nothing_is_registered_while_another_plugin_serves_and_taken_over_when_it_is_gone() {
    let (mut node, kubelet) = Node::with_kubelet().await;
    let other = Other::start(&node.sockets(), "nvidia-gpu.sock", GPU, &["GPU-0", "GPU-1"]).await;
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
    let theirs = kubelet.admit(&pod("theirs", GPU, 1)).await.unwrap();
    node.plugins.update(wanted([whole(3)]));
    let status = node.until_problem("OtherPluginServes").await;
    assert!(status.problem.unwrap().message.contains("nvidia-gpu.sock"));
    assert_eq!(kubelet.allocatable(GPU), Some(2));
    assert!(!node.sockets().join("pitcrew-gpu.sock").exists());
    other.kill().await;
    let begin = std::time::Instant::now();
    kubelet.wait_for(GPU, 3, SOON).await.unwrap();
    assert!(begin.elapsed().as_secs() < 8, "{:?}", begin.elapsed());
    // What it handed out stays so: the ids are the same.
    let again = kubelet
        .restart_container("default", "theirs", "main")
        .await
        .unwrap();
    assert_eq!(again, theirs["main"]);
    assert!(kubelet.admit(&pod("three", GPU, 3)).await.is_err());
    kubelet.admit(&pod("two", GPU, 2)).await.unwrap();
    assert!(node.told().iter().any(|text| text.contains("taking over")));
}

#[tokio::test]
async fn a_plugin_of_any_name_that_hands_out_our_gpus_is_another_plugin() {
    let (node, kubelet) = Node::with_kubelet().await;
    let other = Other::start(&node.sockets(), "acme.sock", "acme.example/gpu", &["GPU-0"]).await;
    kubelet.wait_for("acme.example/gpu", 1, SOON).await.unwrap();
    node.plugins.update(wanted([whole(2)]));
    let status = node.until_problem("OtherPluginServes").await;
    assert!(status.problem.unwrap().message.contains("acme.example/gpu"));
    other.kill().await;
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
}

#[tokio::test]
async fn other_kinds_of_devices_are_nobodys_business() {
    let (node, kubelet) = Node::with_kubelet().await;
    let _other = Other::start(&node.sockets(), "rdma.sock", "rdma/hca", &["mlx5_0"]).await;
    kubelet.wait_for("rdma/hca", 1, SOON).await.unwrap();
    node.plugins.update(wanted([whole(2)]));
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
}

/// The kubelet closes the newest connection of a resource when an older one ends: who makes room must not end its own.
#[tokio::test]
async fn a_plugin_that_comes_later_gets_the_resource_and_is_not_cut_off() {
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins.update(wanted([whole(2)]));
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
    let other = Other::start(
        &node.sockets(),
        "nvidia-gpu.sock",
        GPU,
        &["GPU-0", "GPU-1", "GPU-2"],
    )
    .await;
    node.until_problem("OtherPluginServes").await;
    kubelet.wait_for(GPU, 3, SOON).await.unwrap();
    let started = kubelet.admit(&pod("theirs", GPU, 1)).await.unwrap();
    assert!(format!("{started:?}").contains("theirs"), "{started:?}");
    other.kill().await;
    kubelet.wait_for(GPU, 2, SOON * 2).await.unwrap();
    let started = kubelet.admit(&pod("ours", GPU, 1)).await.unwrap();
    assert!(
        format!("{started:?}").contains("k8s.device-plugin.nvidia.com/gpu=GPU-"),
        "{started:?}"
    );
}

#[tokio::test]
async fn our_resource_of_another_name_is_withdrawn_when_nvidias_plugin_comes() {
    const SHARED: &str = "nvidia.com/gpu.shared";
    let (node, kubelet) = Node::with_kubelet().await;
    node.plugins
        .update(wanted([resource(SHARED, 2, Sharing::TimeSlicing, 4)]));
    kubelet.wait_for(SHARED, 8, SOON).await.unwrap();
    let other = Other::start(&node.sockets(), "nvidia-gpu.sock", GPU, &["GPU-0", "GPU-1"]).await;
    kubelet.wait_for(SHARED, 0, SOON).await.unwrap();
    assert_eq!(kubelet.allocatable(GPU), Some(2));
    other.kill().await;
    kubelet.wait_for(SHARED, 8, SOON).await.unwrap();
}

#[tokio::test]
async fn a_second_agent_waits_for_the_first() {
    let (first, kubelet) = Node::with_kubelet().await;
    first.plugins.update(wanted([whole(2)]));
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
    let (sender, _notices) = tokio::sync::mpsc::unbounded_channel();
    let place = pitcrew_agent::plugin::Place {
        kubelet_dir: first.dir.path().to_owned(),
        kubelet_dir_on_host: "/var/lib/kubelet".into(),
        node: "worker".to_owned(),
    };
    let second = pitcrew_agent::plugin::Plugins::start(place, sender);
    second.update(wanted([whole(2)]));
    let mut status = second.status();
    tokio::time::timeout(SOON, status.wait_for(|status| status.problem.is_some()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kubelet.allocatable(GPU), Some(2));
    let Node { plugins, dir, .. } = first;
    plugins.stop().await;
    tokio::time::timeout(SOON, status.wait_for(|status| !status.registered.is_empty()))
        .await
        .unwrap()
        .unwrap();
    kubelet.wait_for(GPU, 2, SOON).await.unwrap();
    drop(dir);
}
