//! What can happen to a node.

use std::time::{Duration, Instant};

use pitcrew_apiserver::{ApiError, Fault, Match, Verb};
use pitcrew_core::ports::Mig as _;
use pitcrew_kubelet::fake::AdmitError;
use pitcrew_scenario::Change;

use super::{ANSWER, World};
use crate::dice::{Dice, pick};

/// How long a pod waits for something to be had.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Configurations of the device plugin that are switched between.
const CONFIGURATIONS: [&str; 5] = [
    "version: v1\nflags:\n  migStrategy: none\n",
    "version: v1\nflags:\n  migStrategy: mixed\n",
    "version: v1\nflags:\n  migStrategy: none\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      replicas: 4\n",
    "version: v1\nflags:\n  migStrategy: mixed\nsharing:\n  timeSlicing:\n    renameByDefault: true\n    resources:\n    - name: nvidia.com/gpu\n      replicas: 2\n",
    // Not one at all: the last good one stays.
    "version: v1\nsharing:\n  timeSlicing: [\n",
];

/// Calls that hang.
const CALLS: [&str; 3] = ["nvmlDevice*", "nvmlDeviceGetMemoryInfo_v2", "nvmlEventSetWait_v2"];
/// XIDs that are thrown: of programs, of the GPU, of the hardware.
const XIDS: [u32; 6] = [13, 31, 48, 79, 95, 119];
/// Versions of the driver that are switched between.
const VERSIONS: [&str; 2] = ["580.159.04", "590.48.01"];

/// Why a pod was refused, in a word.
fn reason(error: &AdmitError) -> &'static str {
    match error {
        AdmitError::Unregistered { .. } => "unregistered",
        AdmitError::NoneHealthy { .. } => "none-healthy",
        AdmitError::Unhealthy { .. } => "unhealthy",
        AdmitError::Insufficient { .. } => "insufficient",
        AdmitError::Changed { .. } => "changed",
        AdmitError::PluginGone { .. } => "plugin-gone",
        AdmitError::Plugin { .. } => "plugin",
        AdmitError::Unknown { .. } => "unknown",
        AdmitError::Stopped => "stopped",
    }
}

/// One thing that happens. Numbers are taken modulo what there is at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Admit { resource: u32, count: u32 },
    Remove { pod: u32 },
    RestartKubelet,
    StopKubelet,
    KillAgent { pause: u32 },
    StopAgent,
    Configure { which: u32 },
    Hang { call: u32, gpu: u32 },
    Release,
    BreakDriver,
    UnloadDriver,
    ReplaceDriver { version: u32 },
    Xid { gpu: u32, xid: u32 },
    Reset { gpu: u32 },
    Lose { gpu: u32 },
    Return { gpu: u32 },
    Cut { gpu: u32, how: u32 },
    Fault { which: u32 },
    Calm,
}

impl Action {
    /// The next one. However many numbers it needs, always as many are rolled, so that the order of things follows from
    /// the seed alone.
    pub(super) fn roll(dice: &mut Dice) -> Self {
        let (what, a, b) = (dice.below(100), dice.below(1 << 16), dice.below(1 << 16));
        match what {
            0..=33 => Self::Admit {
                resource: a,
                count: 1 + b % 3,
            },
            34..=50 => Self::Remove { pod: a },
            51..=53 => Self::RestartKubelet,
            54..=55 => Self::StopKubelet,
            56..=60 => Self::KillAgent { pause: a % 50 },
            61..=62 => Self::StopAgent,
            63..=71 => Self::Configure { which: a },
            72..=73 => Self::Hang { call: a, gpu: b },
            74..=78 => Self::Release,
            79 => Self::BreakDriver,
            80 => Self::UnloadDriver,
            81..=83 => Self::ReplaceDriver { version: a },
            84..=85 => Self::Xid { gpu: a, xid: b },
            86..=88 => Self::Reset { gpu: a },
            89 => Self::Lose { gpu: a },
            90..=91 => Self::Return { gpu: a },
            92..=94 => Self::Cut { gpu: a, how: b },
            95..=98 => Self::Fault { which: a },
            _ => Self::Calm,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Admit { .. } => "admit",
            Self::Remove { .. } => "remove",
            Self::RestartKubelet => "restart-kubelet",
            Self::StopKubelet => "stop-kubelet",
            Self::KillAgent { .. } => "kill-agent",
            Self::StopAgent => "stop-agent",
            Self::Configure { .. } => "configure",
            Self::Hang { .. } => "hang",
            Self::Release => "release",
            Self::BreakDriver => "break-driver",
            Self::UnloadDriver => "unload-driver",
            Self::ReplaceDriver { .. } => "replace-driver",
            Self::Xid { .. } => "xid",
            Self::Reset { .. } => "reset",
            Self::Lose { .. } => "lose",
            Self::Return { .. } => "return",
            Self::Cut { .. } => "cut",
            Self::Fault { .. } => "fault",
            Self::Calm => "calm",
        }
    }
}

impl World {
    /// Does it. What can't be done at this moment isn't.
    pub(super) async fn perform(&mut self, action: Action) -> Result<(), String> {
        let gpus = self.node.machine().gpu_count().max(1);
        match action {
            Action::Admit { resource, count } => self.admit(resource, count).await?,
            Action::Remove { pod } => {
                if let Some(pod) = pick(&self.pods, pod) {
                    let name = pod.name.clone();
                    self.end(&name);
                }
            }
            Action::RestartKubelet => self.kubelet(true).await?,
            Action::StopKubelet => {
                self.node.kubelet().stop().await;
                tokio::time::sleep(Duration::from_millis(30)).await;
                self.kubelet(false).await?;
            }
            Action::KillAgent { pause } => {
                self.node.kill_agent().await;
                tokio::time::sleep(Duration::from_millis(pause.into())).await;
                self.node.start_agent().await;
            }
            Action::StopAgent => self.stop_agent().await?,
            Action::Configure { which } => {
                let text = pick(&CONFIGURATIONS, which).copied().unwrap_or_default();
                self.node.configure(text).map_err(|error| error.to_string())?;
            }
            Action::Fault { which } => self.fault(which),
            Action::Calm => self.node.api().faults().clear(),
            Action::Cut { gpu, how } => self.cut(gpu % gpus, how),
            Action::UnloadDriver => {
                // A driver that is held can't be unloaded.
                self.end_all();
                self.change(&Change::UnloadDriver);
            }
            Action::ReplaceDriver { version } => {
                self.end_all();
                let version = pick(&VERSIONS, version).copied().unwrap_or_default();
                self.change(&Change::UnloadDriver);
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.change(&Change::ReplaceDriver {
                    version: version.to_owned(),
                });
            }
            Action::Reset { gpu } => {
                self.end_on(gpu % gpus);
                self.change(&Change::Reset { gpu: gpu % gpus });
            }
            Action::Return { gpu } => {
                self.end_on(gpu % gpus);
                self.change(&Change::Return { gpu: gpu % gpus });
            }
            Action::Lose { gpu } => self.change(&Change::FallOffBus { gpu: gpu % gpus }),
            Action::Xid { gpu, xid } => self.change(&Change::Xid {
                gpu: gpu % gpus,
                xid: pick(&XIDS, xid).copied().unwrap_or_default(),
                gpu_instance: None,
            }),
            Action::Hang { call, gpu } => self.change(&Change::Hang {
                call: pick(&CALLS, call).copied().unwrap_or_default().to_owned(),
                gpu: Some(gpu % gpus),
            }),
            Action::Release => self.change(&Change::Release),
            Action::BreakDriver => self.change(&Change::BreakDriver {
                reason: "GSP firmware did not start".to_owned(),
            }),
        }
        Ok(())
    }

    /// What the scenario refuses doesn't happen.
    pub(super) fn change(&mut self, change: &Change) {
        if let Err(error) = self.node.machine().change(change) {
            self.note(&format!("    refused: {error}"));
        }
    }

    async fn kubelet(&mut self, stop: bool) -> Result<(), String> {
        let kubelet = self.node.kubelet();
        let up = if stop {
            kubelet.restart().await
        } else {
            kubelet.resume().await
        };
        up.map_err(|error| format!("the kubelet doesn't start: {error}"))
    }

    async fn stop_agent(&mut self) -> Result<(), String> {
        match tokio::time::timeout(ANSWER, self.node.stop_agent()).await {
            Err(_) => Err(format!("the agent has not stopped within {ANSWER:?}")),
            Ok(Err(error)) => Err(format!("the agent has ended in an error: {error}")),
            Ok(Ok(())) => {
                self.node.start_agent().await;
                Ok(())
            }
        }
    }

    async fn admit(&mut self, resource: u32, count: u32) -> Result<(), String> {
        // As the scheduler does, most wait for something to be had; some are here at a bad moment.
        let waits = !resource.is_multiple_of(4);
        let until = Instant::now() + PATIENCE;
        let names = loop {
            let (free, taken): (Vec<_>, Vec<_>) =
                self.node.resources().into_iter().partition(|(_, devices)| {
                    let mut devices = devices.iter();
                    devices.any(|device| device.healthy && device.held_by.is_empty())
                });
            if !free.is_empty() && waits {
                break free;
            }
            if !waits || Instant::now() > until {
                break free.into_iter().chain(taken).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
        let Some(resource) = pick(&names, resource).cloned() else {
            return Ok(());
        };
        self.named += 1;
        let name = format!("pod-{}", self.named);
        let count = usize::try_from(count).unwrap_or(1);
        let limits = [(resource.as_str(), count)];
        let admitted = self.node.admit(&name, &limits);
        match tokio::time::timeout(ANSWER, admitted).await {
            Err(_) => {
                return Err(format!(
                    "the kubelet got no answer for {count} of {resource} within {ANSWER:?}"
                ));
            }
            Ok(Err(error)) => {
                *self.report.refused.entry(reason(&error)).or_default() += 1;
                self.note(&format!("    {name} is refused: {error}"));
            }
            Ok(Ok(pod)) => {
                self.report.admitted += 1;
                self.note(&format!(
                    "    {name} has {} of {resource}",
                    pod.given.ids.join(" ")
                ));
                self.pods.push(pod);
            }
        }
        Ok(())
    }

    /// Ends a pod.
    fn end(&mut self, name: &str) {
        self.node.remove(name);
        self.pods.retain(|pod| pod.name != name);
    }

    pub(super) fn end_all(&mut self) {
        for pod in std::mem::take(&mut self.pods) {
            self.node.remove(&pod.name);
        }
    }

    /// Ends all pods that have a part of a GPU.
    pub(super) fn end_on(&mut self, gpu: u32) {
        self.learn();
        let uuid = self.node.machine().gpu(gpu).map(|gpu| gpu.uuid);
        let on: Vec<String> = self
            .pods
            .iter()
            .filter(|pod| pod.given.ids.iter().any(|id| self.parent(id) == uuid))
            .map(|pod| pod.name.clone())
            .collect();
        for name in on {
            self.end(&name);
        }
    }

    /// Cuts a GPU anew, as far as the driver lets: it refuses while somebody's process holds what would change.
    fn cut(&mut self, gpu: u32, how: u32) {
        let mut machine = self.node.machine().clone();
        let Some(facts) = machine.gpu(gpu) else { return };
        let asks = [
            pitcrew_scenario::calls::MIG_MODE,
            pitcrew_scenario::calls::MIG_CREATE,
            pitcrew_scenario::calls::MIG_DESTROY,
            pitcrew_scenario::calls::MIG_PROFILES,
            pitcrew_scenario::calls::MIG_INSTANCES,
        ];
        if facts.lost || asks.iter().any(|call| machine.hangs(call, Some(gpu))) {
            return;
        }
        let is_on = facts.readings.mig_mode.value().is_some_and(|mode| mode.current);
        let uuid = facts.uuid;
        let result = match how % 4 {
            0 if !is_on => machine.set_mode(&uuid, true).and_then(|()| machine.reset(&uuid)),
            0 => machine.set_mode(&uuid, false).and_then(|()| machine.reset(&uuid)),
            1 => facts
                .instances
                .iter()
                .try_for_each(|instance| machine.destroy(&uuid, instance.id)),
            _ => machine.profiles(&uuid).and_then(|profiles| {
                let profile = pick(&profiles, how / 4).map(|geometry| geometry.profile.clone());
                profile.map_or(Ok(()), |profile| machine.create(&uuid, &profile, None).map(drop))
            }),
        };
        if let Err(error) = result {
            self.note(&format!("    refused: {error}"));
        }
    }

    /// Something goes wrong with the API server.
    fn fault(&mut self, which: u32) {
        let faults = self.node.api().faults();
        let any = Match::default;
        match which % 8 {
            0 => faults.fail(any(), Fault::Error(ApiError::new(500, "etcd has no leader")), 5),
            1 => faults.fail(any(), Fault::Refused, 5),
            2 => faults.fail(any(), Fault::LostAnswer, 3),
            3 => faults.drop_watches(any()),
            4 => faults.expire_watches(any()),
            5 => faults.freeze(),
            6 => faults.delay(any().verb(Verb::Patch), Duration::from_millis(200)),
            _ => faults.thaw(),
        }
    }
}
