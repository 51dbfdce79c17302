//! The contract: what the fake kubelet and a real one both do to a device plugin, as functions over a [`Subject`].
//!
//! Each function serves a plugin of its own for a resource of its own, and asserts. Ring 2 runs all of them on the fake,
//! ring 4 the same ones on the test bed's kubelet. [`for_each_case!`](crate::for_each_case) lists them, so that neither
//! ring can forget one.
#![expect(
    clippy::missing_panics_doc,
    reason = "every case asserts: that is what it is for"
)]

mod pods;
mod registration;

pub use pods::*;
pub use registration::*;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;

use crate::connect;
use crate::pod_resources::{
    self, AllocatableResourcesRequest, ContainerDevices, ListPodResourcesRequest, PodResourcesListerClient,
};

/// Calls a macro with the name of every case.
#[macro_export]
macro_rules! for_each_case {
    ($callback:ident) => {
        $callback! {
            healthy_devices_are_allocatable
            the_newest_list_counts
            a_plugin_that_ends_leaves_nothing_allocatable
            a_restart_takes_sockets_and_devices_away_until_plugins_register_again
            what_is_registered_wrongly_is_refused
            the_end_of_an_old_stream_cuts_off_the_new_plugin
            a_registration_after_the_end_of_the_old_stream_holds
            a_failed_registration_hides_the_end_of_the_plugin_before_it
            a_pod_gets_healthy_devices_as_the_plugin_prefers
            an_answer_is_kept_for_the_life_of_the_pod
        }
    };
}

/// A kubelet under contract.
pub trait Subject {
    /// Its directory, with those of the sockets in it.
    fn dir(&self) -> &Path;

    /// Ends it as a kill does, and starts it again.
    fn restart(&self) -> impl Future<Output = ()>;

    /// Runs a pod whose one container asks for `count` of a resource: the variables of the test's plugin that the
    /// container has.
    fn run_pod(
        &self,
        pod: &str,
        resource: &str,
        count: usize,
    ) -> impl Future<Output = BTreeMap<String, String>>;

    /// Ends the container of a pod and has it started again; its variables then.
    fn restart_container(&self, pod: &str) -> impl Future<Output = BTreeMap<String, String>>;

    /// Ends a pod, and waits until it is gone.
    fn remove_pod(&self, pod: &str) -> impl Future<Output = ()>;
}

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Allocatable devices of a resource and their NUMA nodes, as pod-resources tells.
async fn allocatable(subject: &impl Subject, resource: &str) -> Result<BTreeMap<String, Vec<i64>>, String> {
    let mut client = lister(subject).await?;
    let answer = client
        .get_allocatable_resources(AllocatableResourcesRequest {})
        .await;
    let answer = answer.map_err(|status| status.to_string())?;
    Ok(by_id(&answer.into_inner().devices, resource))
}

/// Devices of a resource that pods hold, by pod, as pod-resources tells.
async fn held(subject: &impl Subject, resource: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut client = lister(subject).await?;
    let answer = client.list(ListPodResourcesRequest {}).await;
    let answer = answer.map_err(|status| status.to_string())?;
    let mut held = BTreeMap::new();
    for pod in answer.into_inner().pod_resources {
        let devices = pod.containers.into_iter().flat_map(|container| container.devices);
        let ids: Vec<String> = by_id(&devices.collect::<Vec<_>>(), resource)
            .into_keys()
            .collect();
        if !ids.is_empty() {
            held.insert(pod.name, ids);
        }
    }
    Ok(held)
}

async fn lister(subject: &impl Subject) -> Result<PodResourcesListerClient<Channel>, String> {
    let channel = connect(socket(subject), DEADLINE).await;
    channel
        .map(pod_resources::client)
        .map_err(|error| error.to_string())
}

/// Looks until `found` is as it should be.
async fn wait_until<T: std::fmt::Debug + PartialEq>(
    what: &str,
    expected: T,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) {
    let end = Instant::now() + DEADLINE;
    loop {
        let found = look().await;
        if found.as_ref() == Ok(&expected) {
            return;
        }
        assert!(
            Instant::now() < end,
            "waited for {what}: {expected:?}; there is {found:?}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

fn socket(subject: &impl Subject) -> PathBuf {
    subject.dir().join(pod_resources::DIR).join(pod_resources::SOCKET)
}

fn by_id(devices: &[ContainerDevices], resource: &str) -> BTreeMap<String, Vec<i64>> {
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for entry in devices.iter().filter(|entry| entry.resource_name == resource) {
        for id in &entry.device_ids {
            let nodes = entry.topology.iter().flat_map(|topology| &topology.nodes);
            found
                .entry(id.clone())
                .or_default()
                .extend(nodes.map(|node| node.id));
        }
    }
    for nodes in found.values_mut() {
        nodes.sort_unstable();
    }
    found
}

/// Waits until pod-resources shows just these ids as allocatable.
async fn wait_for(subject: &impl Subject, resource: &str, ids: &[&str]) {
    let expected: Vec<String> = ids.iter().map(|&id| id.to_owned()).collect();
    wait_until(&format!("allocatable {resource}"), expected, async || {
        Ok(allocatable(subject, resource).await?.into_keys().collect())
    })
    .await;
}
