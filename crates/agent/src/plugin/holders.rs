//! Which container holds which device, as the kubelet knows it.
//!
//! Two sources, because each alone errs at one moment. Pod-resources lists what pods hold, but right after its start a
//! kubelet has not yet been told of its pods, and lists none. Its checkpoint knows them across a restart, but keeps
//! entries of pods that are long gone until the next pod with a device comes. So the checkpoint counts until the list
//! can be believed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use pitcrew_core::plugin::holders::Holding;
use pitcrew_host::kubelet::parse_held;
use pitcrew_kubelet::device_plugin;
use pitcrew_kubelet::pod_resources::{self, ListPodResourcesRequest, ListPodResourcesResponse, client};

/// How long a kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// A kubelet that was there for so long knows its pods, if it has any.
const SETTLED: Duration = Duration::from_secs(30);
/// The kubelet's checkpoint beside the plugins' sockets.
pub(crate) const CHECKPOINT: &str = "kubelet_internal_checkpoint";

/// What a look at the kubelet's books gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// Everything that is held, as far as anybody knows; `None` where neither source can be read: everything may be
    /// held then.
    pub held: Option<Vec<Holding>>,
    /// Why pod-resources could not be asked.
    pub failure: Option<String>,
}

/// One entry of pod-resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// What pods hold.
    pub held: Vec<Holding>,
    /// True where a pod is listed that can only come from the API server: then all are. Those of files are there before
    /// it answers; the kubelet ends their names with the node's.
    pub from_api: bool,
}

/// The kubelet's socket, in its directory.
pub fn socket(kubelet_dir: &Path) -> PathBuf {
    kubelet_dir.join(pod_resources::DIR).join(pod_resources::SOCKET)
}

/// The kubelet's file of what its device plugins have given, in its directory.
pub(crate) fn checkpoint(kubelet_dir: &Path) -> PathBuf {
    kubelet_dir.join(device_plugin::DIR).join(CHECKPOINT)
}

/// What pods hold, by all that lies in the kubelet's directory. Its sockets are as old as the kubelet.
pub async fn of(kubelet_dir: &Path, node: &str) -> Books {
    let socket = socket(kubelet_dir);
    let made = std::fs::symlink_metadata(&socket).and_then(|metadata| metadata.modified());
    let up = made.ok().and_then(|made| made.elapsed().ok()).unwrap_or_default();
    read(&socket, &checkpoint(kubelet_dir), node, up).await
}

/// Reads both sources.
///
/// `pod_resources` is the kubelet's socket, `checkpoint` its file, `up` how long this kubelet has been there.
pub async fn read(pod_resources: &Path, checkpoint: &Path, node: &str, up: Duration) -> Books {
    let listed = list(pod_resources, node).await;
    let checkpoint = match std::fs::read(checkpoint) {
        Ok(text) => parse_held(&text).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    };
    settle(listed, checkpoint, up)
}

/// What is held, out of both sources. `checkpoint` is `None` where it can't be read.
pub fn settle(listed: Result<Listed, String>, checkpoint: Option<Vec<Holding>>, up: Duration) -> Books {
    match listed {
        Ok(listed) => {
            let believed = listed.from_api || up >= SETTLED;
            let more = if believed { Some(Vec::new()) } else { checkpoint };
            let held = more.map(|more| {
                let all = listed.held.into_iter().chain(more);
                let all: BTreeSet<Holding> = all.collect();
                all.into_iter().collect()
            });
            Books {
                failure: held.is_none().then(|| {
                    "the kubelet has just started, and its checkpoint of devices can't be read".to_owned()
                }),
                held,
            }
        }
        // An absent or empty checkpoint may be one of a kubelet that nobody has asked for a device; but it may also be
        // that of a kubelet whose directory this is not.
        Err(failure) => Books {
            held: checkpoint.filter(|held| !held.is_empty()),
            failure: Some(failure),
        },
    }
}

async fn list(socket: &Path, node: &str) -> Result<Listed, String> {
    let asked = async {
        let channel = pitcrew_kubelet::connect(socket, PATIENCE)
            .await
            .map_err(|error| error.to_string())?;
        let answer = client(channel).list(ListPodResourcesRequest {}).await;
        answer.map_err(|status| format!("the kubelet does not say who holds devices: {}", status.message()))
    };
    let answer = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| format!("the kubelet does not say within {PATIENCE:?} who holds devices"))??;
    Ok(listed(answer.into_inner(), node))
}

fn listed(answer: ListPodResourcesResponse, node: &str) -> Listed {
    let mut listed = Listed::default();
    let mirrored = format!("-{node}");
    for pod in answer.pod_resources {
        listed.from_api |= !pod.name.ends_with(&mirrored);
        let holder = format!("{}/{}", pod.namespace, pod.name);
        for devices in pod.containers.into_iter().flat_map(|container| container.devices) {
            let of = |id| Holding {
                resource: devices.resource_name.clone(),
                id,
                holder: holder.clone(),
            };
            listed.held.extend(devices.device_ids.into_iter().map(of));
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_kubelet::pod_resources::{ContainerDevices, ContainerResources, PodResources};

    fn holding(id: &str, holder: &str) -> Holding {
        Holding {
            resource: "nvidia.com/gpu".to_owned(),
            id: id.to_owned(),
            holder: holder.to_owned(),
        }
    }

    fn pod(name: &str, ids: &[&str]) -> PodResources {
        PodResources {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            containers: vec![ContainerResources {
                name: "main".to_owned(),
                devices: ids
                    .iter()
                    .map(|&id| ContainerDevices {
                        resource_name: "nvidia.com/gpu".to_owned(),
                        device_ids: vec![id.to_owned()],
                        topology: None,
                    })
                    .collect(),
                ..ContainerResources::default()
            }],
        }
    }

    fn list(pods: &[PodResources]) -> Listed {
        let answer = ListPodResourcesResponse {
            pod_resources: pods.to_vec(),
        };
        listed(answer, "worker")
    }

    #[test]
    fn pod_resources_tell_who_holds_what() {
        let listed = list(&[pod("a", &["GPU-1", "GPU-2"]), pod("b", &[])]);
        assert!(listed.from_api);
        assert_eq!(
            listed.held,
            [holding("GPU-1", "default/a"), holding("GPU-2", "default/a")]
        );
        assert!(!list(&[pod("etcd-worker", &[])]).from_api);
        assert!(!list(&[]).from_api);
    }

    #[test]
    fn a_kubelet_that_has_just_started_is_not_believed_that_nobody_holds_anything() {
        let checkpoint = vec![holding("GPU-1", "pod 1")];
        let fresh = Duration::from_secs(2);
        let empty = list(&[pod("kube-proxy-worker", &[])]);
        let books = settle(Ok(empty.clone()), Some(checkpoint.clone()), fresh);
        assert_eq!(books.held, Some(checkpoint.clone()));
        // Once a pod of the API server is listed, all are.
        let known = list(&[pod("a", &[])]);
        let books = settle(Ok(known), Some(checkpoint.clone()), fresh);
        assert_eq!(books.held, Some(Vec::new()));
        assert_eq!(settle(Ok(empty.clone()), None, fresh).held, None);
        // A kubelet without pods keeps stale entries for ever.
        let books = settle(Ok(empty), Some(checkpoint), Duration::from_secs(31));
        assert_eq!(books.held, Some(Vec::new()));
    }

    #[test]
    fn without_pod_resources_the_checkpoint_counts_and_without_both_everything_may_be_held() {
        let checkpoint = vec![holding("GPU-1", "pod 1")];
        let failed = || Err("no answer".to_owned());
        let long = Duration::from_hours(1);
        let books = settle(failed(), Some(checkpoint.clone()), long);
        assert_eq!(books.held, Some(checkpoint));
        assert_eq!(books.failure.as_deref(), Some("no answer"));
        assert_eq!(settle(failed(), None, long).held, None);
        assert_eq!(settle(failed(), Some(Vec::new()), long).held, None);
    }
}
