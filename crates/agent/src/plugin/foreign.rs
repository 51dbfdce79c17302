//! Whether another plugin hands out this node's GPUs.
//!
//! A plugin's socket doesn't say what it serves, and to ask it for its devices would take the news from the kubelet
//! (NVIDIA's has one queue of them). So two signs count: a living socket of NVIDIA's by its name, and devices that the
//! kubelet has which aren't ours, though they name our GPUs or have our resource's name.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use pitcrew_core::plugin::{Resource, uuid_of};
use pitcrew_kubelet::device_plugin::{DevicePluginClient, Empty};
use pitcrew_kubelet::pod_resources::{AllocatableResourcesRequest, client};
use tokio::time::Instant;

use super::directory::Directory;

/// How long a plugin or the kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the kubelet may take to notice that a plugin is gone, ours before a restart for one.
const SUSPICION: Duration = Duration::from_secs(1);
/// How long another plugin must be away: one that is upgraded comes back.
const AWAY: Duration = Duration::from_secs(3);
/// The same after a restart of the kubelet, which drops all plugins.
const AWAY_AFTER_RESTART: Duration = Duration::from_secs(10);
/// How NVIDIA's plugin and those made of it call their sockets.
const THEIRS: &str = "nvidia-";

/// Signs of another plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// A socket of NVIDIA's plugin that answers.
    pub(crate) socket: Option<String>,
    /// A resource that the kubelet has devices of, and not from us.
    pub(crate) resource: Option<String>,
    /// False where the kubelet didn't say.
    pub(crate) asked: bool,
}

/// Devices that the kubelet can hand out: resource and ids. An error in words where it doesn't say.
pub(crate) async fn allocatable(pod_resources: &Path) -> Result<Vec<(String, Vec<String>)>, String> {
    let asked = async {
        let channel = pitcrew_kubelet::connect(pod_resources, PATIENCE)
            .await
            .map_err(|error| error.to_string())?;
        let answer = client(channel)
            .get_allocatable_resources(AllocatableResourcesRequest {})
            .await
            .map_err(|status| status.message().to_owned())?;
        let devices = answer.into_inner().devices.into_iter();
        Ok(devices
            .map(|devices| (devices.resource_name, devices.device_ids))
            .collect())
    };
    let late = || format!("no answer in {PATIENCE:?}");
    tokio::time::timeout(PATIENCE, asked).await.map_err(|_| late())?
}

/// What another plugin is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sign {
    /// A socket of NVIDIA's plugin that answers.
    Socket(String),
    /// A resource that the kubelet has devices of, and not from us.
    Resource(String),
}

impl Sign {
    /// True where the other plugin serves the resource of this name itself, not only the same GPUs.
    pub(crate) fn is_of(&self, resource: &str) -> bool {
        match self {
            Self::Socket(socket) => {
                let name = resource.rsplit('/').next().unwrap_or(resource);
                *socket == format!("{THEIRS}{name}.sock")
            }
            Self::Resource(name) => name == resource,
        }
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => write!(f, "its socket `{socket}` answers"),
            Self::Resource(name) => write!(f, "the kubelet has devices of {name} that aren't ours"),
        }
    }
}

/// The first socket of NVIDIA's plugin that answers.
pub(crate) async fn living_socket(dir: &Path, directory: &Directory) -> Option<String> {
    for name in directory.plugins.keys().filter(|name| name.starts_with(THEIRS)) {
        let asked = async {
            let channel = pitcrew_kubelet::connect(dir.join(name), PATIENCE).await.ok()?;
            let mut client = DevicePluginClient::new(channel);
            client.get_device_plugin_options(Empty {}).await.ok()
        };
        if let Ok(Some(_)) = tokio::time::timeout(PATIENCE, asked).await {
            return Some(name.clone());
        }
    }
    None
}

/// A resource that somebody else serves: devices of ours under a name that we don't serve at the moment, or devices that
/// we don't know under one that we do. The kubelet doesn't tell a plugin that another one took its resource over.
pub(crate) fn of_others(
    allocatable: &[(String, Vec<String>)],
    wanted: &[Resource],
    served: &BTreeSet<String>,
) -> Option<String> {
    let devices = wanted.iter().flat_map(|resource| &resource.devices);
    let ours: BTreeSet<&str> = devices
        .flat_map(|device| [device.uuid.as_str(), device.gpu.as_str()])
        .collect();
    let theirs = allocatable.iter().find(|(name, ids)| {
        let is_ours = ids.iter().any(|id| ours.contains(uuid_of(id)));
        let is_wanted = !ids.is_empty() && wanted.iter().any(|resource| resource.name == *name);
        if served.contains(name) {
            let mine = wanted.iter().filter(|resource| resource.name == *name);
            let known: BTreeSet<&str> = mine
                .flat_map(|resource| &resource.devices)
                .map(|device| device.id.as_str())
                .collect();
            return ids.iter().any(|id| !known.contains(id.as_str()));
        }
        is_ours || is_wanted
    });
    theirs.map(|(name, _)| name.clone())
}

/// What is made of the signs over time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rival {
    suspected: Option<Instant>,
    sign: Option<Sign>,
    away: Option<Instant>,
    patience: Duration,
}

impl Rival {
    /// Takes new signs in.
    pub(crate) fn judge(&mut self, signs: &Signs, now: Instant) {
        let sign = match (&signs.socket, &signs.resource) {
            (Some(socket), _) => Some(Sign::Socket(socket.clone())),
            (None, Some(resource)) => Some(Sign::Resource(resource.clone())),
            (None, None) => None,
        };
        if let Some(sign) = sign {
            self.away = None;
            let since = *self.suspected.get_or_insert(now);
            if signs.socket.is_some() || now.duration_since(since) >= SUSPICION {
                self.sign = Some(sign);
            }
            return;
        }
        if self.sign.is_none() {
            self.suspected = None;
        } else if signs.asked {
            let since = *self.away.get_or_insert(now);
            let patience = self.patience.max(AWAY);
            if now.duration_since(since) >= patience {
                *self = Self::default();
            }
        }
    }

    /// The kubelet was restarted: its plugins need time to come back.
    pub(crate) fn kubelet_restarted(&mut self) {
        if self.sign.is_some() {
            self.away = None;
            self.patience = AWAY_AFTER_RESTART;
        }
    }

    /// What another plugin is known by; `Some` as long as we must not register.
    pub(crate) fn sign(&self) -> Option<&Sign> {
        self.sign.as_ref()
    }

    /// True while it isn't clear that nobody else serves.
    pub(crate) fn is_possible(&self) -> bool {
        self.suspected.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_core::plugin::{Device, Sharing};

    fn wanted() -> Vec<Resource> {
        vec![Resource {
            name: "nvidia.com/gpu.shared".to_owned(),
            sharing: Sharing::TimeSlicing,
            one_per_container: false,
            devices: vec![Device {
                id: "GPU-1::0".to_owned(),
                uuid: "GPU-1".to_owned(),
                gpu: "GPU-1".to_owned(),
                gpu_index: 0,
                numa: None,
            }],
        }]
    }

    #[test]
    fn who_hands_out_our_gpus_under_any_name_is_another_plugin() {
        let has = |name: &str, id: &str, served: &[&str]| {
            let allocatable = [(name.to_owned(), vec![id.to_owned()])];
            let served = served.iter().map(|&name| name.to_owned()).collect();
            of_others(&allocatable, &wanted(), &served)
        };
        assert_eq!(
            has("nvidia.com/gpu", "GPU-1", &[]).as_deref(),
            Some("nvidia.com/gpu")
        );
        assert_eq!(
            has("nvidia.com/gpu", "GPU-1::3", &[]).as_deref(),
            Some("nvidia.com/gpu")
        );
        assert!(has("nvidia.com/gpu.shared", "x", &[]).is_some());
        assert_eq!(has("nvidia.com/gpu", "GPU-9", &[]), None);
        assert_eq!(
            has("nvidia.com/gpu.shared", "GPU-1::0", &["nvidia.com/gpu.shared"]),
            None
        );
        assert!(has("nvidia.com/gpu.shared", "GPU-1::7", &["nvidia.com/gpu.shared"]).is_some());
        assert_eq!(has("intel.com/sriov", "0000:3b:00.1", &[]), None);
    }

    fn signs(socket: Option<&str>, resource: Option<&str>) -> Signs {
        Signs {
            socket: socket.map(str::to_owned),
            resource: resource.map(str::to_owned),
            asked: true,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_kubelet_has_not_forgotten_yet_is_not_taken_for_another_plugin() {
        let mut rival = Rival::default();
        rival.judge(&signs(None, Some("nvidia.com/gpu")), Instant::now());
        assert!(rival.is_possible());
        assert_eq!(rival.sign(), None);
        tokio::time::advance(Duration::from_millis(200)).await;
        rival.judge(&signs(None, None), Instant::now());
        assert!(!rival.is_possible());
        rival.judge(&signs(None, Some("nvidia.com/gpu")), Instant::now());
        tokio::time::advance(SUSPICION).await;
        rival.judge(&signs(None, Some("nvidia.com/gpu")), Instant::now());
        assert!(rival.sign().unwrap().is_of("nvidia.com/gpu"));
    }

    #[tokio::test(start_paused = true)]
    async fn another_plugin_is_gone_when_it_stays_away_for_seconds() {
        let mut rival = Rival::default();
        rival.judge(&signs(Some("nvidia-gpu.sock"), None), Instant::now());
        let sign = rival.sign().unwrap();
        assert!(sign.is_of("nvidia.com/gpu") && !sign.is_of("nvidia.com/gpu.shared"));
        assert_eq!(sign.to_string(), "its socket `nvidia-gpu.sock` answers");
        // It is upgraded.
        rival.judge(&signs(None, None), Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        rival.judge(&signs(Some("nvidia-gpu.sock"), None), Instant::now());
        rival.judge(&signs(None, None), Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        rival.judge(&signs(None, None), Instant::now());
        assert!(rival.sign().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        // A kubelet that doesn't say proves nothing.
        let silent = Signs {
            asked: false,
            ..Signs::default()
        };
        rival.judge(&silent, Instant::now());
        assert!(rival.sign().is_some());
        rival.judge(&signs(None, None), Instant::now());
        assert_eq!(rival.sign(), None);
        assert!(!rival.is_possible());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_of_the_kubelet_another_plugin_has_longer_to_come_back() {
        let mut rival = Rival::default();
        rival.judge(&signs(Some("nvidia-gpu.sock"), None), Instant::now());
        rival.kubelet_restarted();
        rival.judge(&signs(None, None), Instant::now());
        tokio::time::advance(Duration::from_secs(9)).await;
        rival.judge(&signs(None, None), Instant::now());
        assert!(rival.sign().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        rival.judge(&signs(None, None), Instant::now());
        assert_eq!(rival.sign(), None);
    }
}
