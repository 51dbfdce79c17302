//! Daemons that run, end, and don't start.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::host::{Host, Serving, deps};
use super::{GPU, inventory, shared};
use crate::mps::{Place, Policy, Status, Wanted, plan, run};
use crate::notice::Notice;

pub(super) const PIPE: &str = "/run/nvidia/mps/nvidia.com/gpu/pipe";
pub(super) const ALL: [&str; 2] = ["nvidia-cuda-mps-control", "nvidia-smi"];

pub(super) struct Bench {
    pub(super) host: Host,
    wanted: watch::Sender<Option<Wanted>>,
    pub(super) status: watch::Receiver<Status>,
    told: UnboundedReceiver<Notice>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    dir: Option<tempfile::TempDir>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Policy::WherePossible)
    }

    pub(super) fn with(policy: Policy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            root: dir.path().to_owned(),
            world: std::sync::Arc::default(),
        };
        host.install(&ALL);
        let mut bench = Self::on(host, policy);
        bench.dir = Some(dir);
        bench
    }

    /// An agent that starts on a host that was used before.
    pub(super) fn on(host: Host, policy: Policy) -> Self {
        let (deps, told) = deps(&host, policy);
        let (wanted, wishes) = watch::channel(None);
        let (say, status) = watch::channel(Status::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(run(deps, wishes, say, stopped));
        Self {
            host,
            wanted,
            status,
            told,
            stop: Some(stop),
            task,
            dir: None,
        }
    }

    pub(super) fn want(&self, replicas: usize, held: &[String], place: Place) {
        let gpus = inventory("rtx3060");
        let resources = match replicas {
            0 => Vec::new(),
            _ => vec![shared(&gpus, |_| replicas)],
        };
        self.wanted.send_replace(Some(Wanted {
            daemons: plan(&resources, &gpus),
            held: held.iter().cloned().collect::<BTreeSet<_>>(),
            place,
        }));
    }

    pub(super) async fn until(&mut self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let found = self.status.wait_for(|status| is_so(status));
        let found = tokio::time::timeout(Duration::from_mins(10), found).await;
        let found = found.ok().map(|status| status.unwrap().clone());
        found.unwrap_or_else(|| panic!("waited for {what}; there is {:?}", *self.status.borrow()))
    }

    pub(super) async fn ready(&mut self) -> Status {
        self.until("a daemon", |status| status.ready.contains_key(GPU))
            .await
    }

    pub(super) async fn problem(&mut self, reason: &str) -> Status {
        self.until(reason, |status| {
            status
                .problems
                .get(GPU)
                .is_some_and(|problem| problem.reason == reason)
        })
        .await
    }

    pub(super) fn notices(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(notice) = self.told.try_recv() {
            lines.push(format!("{:?}: {}", notice.level, notice.text));
        }
        lines
    }

    /// Sharing is switched off, and the daemon gone.
    pub(super) async fn gone(&mut self) {
        self.want(0, &[], Place::default());
        let mut looks = 0;
        while !self.host.world().daemons.is_empty() || !self.notes().is_empty() {
            looks += 1;
            assert!(looks < 1000, "something is left: {:?}", self.notes());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What is written down for the next agent.
    pub(super) fn notes(&self) -> Vec<String> {
        let root = self.host.root.join("run/nvidia/mps");
        let dirs = [".daemons", ".compute-modes"].map(|dir| std::fs::read_dir(root.join(dir)));
        let entries = dirs.into_iter().flatten().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect()
    }

    pub(super) fn pid(&self) -> usize {
        self.host.world().daemons[PIPE].pid
    }

    /// As by `kill -9`.
    pub(super) async fn kill(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    pub(super) async fn stop(&mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap();
    }

    /// How often a mode was set.
    pub(super) fn sets(&self) -> usize {
        let world = self.host.world();
        let sets = world.calls.iter().filter(|call| call.contains(" -c "));
        sets.filter(|call| call.starts_with("nvidia-smi")).count()
    }

    pub(super) fn mode(&self) -> String {
        self.host
            .world()
            .modes
            .get(&gpu())
            .cloned()
            .unwrap_or_else(|| "Default".to_owned())
    }
}

pub(super) fn gpu() -> String {
    inventory("rtx3060").gpus[0]
        .readings
        .uuid
        .value()
        .unwrap()
        .clone()
}

#[tokio::test(start_paused = true)]
async fn a_daemon_is_started_for_its_gpus_alone_and_told_what_clients_may_have() {
    let mut bench = Bench::new();
    bench.want(4, &[], Place::default());
    let status = bench.ready().await;
    assert_eq!(status.problems, BTreeMap::new());
    assert_eq!(
        status.ready[GPU].env["CUDA_MPS_PIPE_DIRECTORY"],
        "/mps/nvidia.com/gpu/pipe"
    );
    {
        let world = bench.host.world();
        let daemon = &world.daemons[PIPE];
        assert_eq!(
            (daemon.percentage.as_str(), daemon.visible.clone()),
            ("25.0", gpu())
        );
        assert_eq!(daemon.limits, BTreeMap::from([(0, "3072M".to_owned())]));
        let start = world
            .calls
            .iter()
            .find(|call| call.starts_with("unshare"))
            .unwrap();
        assert!(start.ends_with("/usr/bin/nvidia-cuda-mps-control -f"), "{start}");
    }
    assert_eq!(bench.mode(), "Exclusive_Process");
    let told = bench.notices().join("\n");
    assert!(told.contains("pods of another user wait"), "{told}");
}

/// Pods that don't run as root reach the pipe: a server runs as their user.
#[tokio::test(start_paused = true)]
async fn directories_are_open_to_every_user_and_nobody_removes_anothers_files() {
    let mut bench = Bench::new();
    bench.want(2, &[], Place::default());
    bench.ready().await;
    let mode = |path: &str| {
        let meta = std::fs::metadata(bench.host.root.join(path)).unwrap();
        format!("{:o}", meta.permissions().mode() & 0o7777)
    };
    for dir in [
        "run",
        "run/nvidia",
        "run/nvidia/mps",
        "run/nvidia/mps/nvidia.com/gpu/log",
    ] {
        assert_eq!(mode(dir), "755", "{dir}");
    }
    for dir in ["run/nvidia/mps/nvidia.com/gpu/pipe", "dev/shm/nvidia-mps"] {
        assert_eq!(mode(dir), "1777", "{dir}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_closed_on_the_way_is_named_and_root_may_go_on() {
    let mut bench = Bench::new();
    let closed = bench.host.root.join("run/nvidia");
    std::fs::create_dir_all(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    bench.want(2, &[], Place::default());
    let status = bench.ready().await;
    let problem = status.problem().unwrap();
    assert_eq!(problem.reason, "DirectoryClosed");
    assert_eq!(problem.hint, "`chmod o+x /run/nvidia` on the node");
}

/// Row 8 of `devices`, section 7: a daemon that ends comes back, and nothing is handed out meanwhile.
#[tokio::test(start_paused = true)]
async fn a_daemon_that_ends_is_started_again_and_its_resource_is_not_ready_meanwhile() {
    let mut bench = Bench::new();
    bench.want(2, &[], Place::default());
    bench.ready().await;
    let ended = bench.host.world().daemons.remove(PIPE).unwrap();
    ended
        .end
        .unwrap()
        .send_replace(Some("it ended with signal: 11".to_owned()));
    let status = bench.problem("DaemonFailed").await;
    assert!(status.ready.is_empty());
    assert!(status.problem().unwrap().message.contains("signal: 11"));
    let status = bench.ready().await;
    assert_eq!(status.problems, BTreeMap::new());
    assert_eq!(bench.host.world().started, 2);
}

/// Row 8 of `devices`, section 7: a daemon that can't start is told with what it said, and tried ever less often.
#[tokio::test(start_paused = true)]
async fn a_daemon_that_can_not_start_is_explained_and_tried_less_and_less_often() {
    let mut bench = Bench::new();
    bench.host.world().stillborn = Some("it ended with exit status: 1".to_owned());
    bench.want(2, &[], Place::default());
    let problem = bench.problem("DaemonFailed").await.problem().unwrap();
    assert_eq!(
        problem.message,
        "nvidia.com/gpu: the daemon is gone: it ended with exit status: 1; its last words: Starting | no such GPU"
    );
    assert_eq!(
        problem.hint,
        "/run/nvidia/mps/nvidia.com/gpu/log/control.log on the node says more"
    );
    tokio::time::sleep(Duration::from_mins(10)).await;
    // 1, 2, 4, 8, 16, 32 s, then once a minute.
    let started = bench.host.world().started;
    assert!((12..=18).contains(&started), "{started}");
    let told = bench.notices();
    assert_eq!(
        told.iter().filter(|line| line.starts_with("Error")).count(),
        1,
        "{told:?}"
    );
    bench.host.world().stillborn = None;
    bench.ready().await;
}

/// Row 8 of `devices`, section 7.
#[tokio::test(start_paused = true)]
async fn a_driver_without_the_daemon_is_named_with_the_packages_and_waited_for() {
    let mut bench = Bench::new();
    std::fs::remove_file(bench.host.root.join("usr/bin/nvidia-cuda-mps-control")).unwrap();
    bench.want(2, &[], Place::default());
    let problem = bench.problem("ProgramMissing").await.problem().unwrap();
    assert!(
        problem
            .message
            .ends_with("there is no `nvidia-cuda-mps-control` under /"),
        "{problem:?}"
    );
    assert!(problem.hint.contains("nvidia-compute-utils"), "{problem:?}");
    assert_eq!(bench.mode(), "Default");
    bench.host.install(&ALL);
    bench.ready().await;
}

/// Row 8 of `devices`, section 7: SELinux.
#[tokio::test(start_paused = true)]
async fn under_selinux_containers_are_let_to_the_directories_or_it_is_told() {
    let mut bench = Bench::new();
    let place = Place {
        selinux: true,
        ..Place::default()
    };
    bench.want(2, &[], place.clone());
    let status = bench.ready().await;
    assert_eq!(status.problems, BTreeMap::new());
    let labelled: Vec<String> = {
        let world = bench.host.world();
        let calls = world.calls.iter().filter(|call| call.starts_with("chcon"));
        calls.cloned().collect()
    };
    let expected = [PIPE, "/dev/shm/nvidia-mps"].map(|path| format!("chcon -R -t container_file_t {path}"));
    assert_eq!(labelled, expected);

    let mut bench = Bench::new();
    bench.host.world().no_labels = Some("Operation not permitted".to_owned());
    bench.want(2, &[], place);
    let status = bench.ready().await;
    assert_eq!(status.problem().unwrap().reason, "LabelFailed");
}

#[tokio::test(start_paused = true)]
async fn where_the_mode_can_not_be_set_it_is_shared_as_it_is_and_told_what_that_means() {
    let mut bench = Bench::new();
    bench.host.world().no_modes = Some("Insufficient Permissions".to_owned());
    bench.want(2, &[], Place::default());
    let status = bench.ready().await;
    assert_eq!(status.problems, BTreeMap::new());
    let remark = status.remark().unwrap();
    assert_eq!(remark.reason, "NotExclusive");
    assert_eq!(
        remark.message,
        format!(
            "nvidia.com/gpu: {} stays in `DEFAULT` (Insufficient Permissions): a process that is no client of MPS can use \
             it as well, in time slices and without a limit of memory",
            gpu()
        )
    );
    let command = format!("nvidia-smi -i {} -c EXCLUSIVE_PROCESS", gpu());
    assert!(remark.hint.contains(&command), "{remark:?}");
    let told = bench.notices();
    let warned = told.iter().find(|line| line.contains("stays in `DEFAULT`"));
    assert!(warned.is_some_and(|line| line.starts_with("Warning")), "{told:?}");
    // Nothing was changed, so there is nothing to give back.
    bench.host.world().no_modes = None;
    bench.host.world().calls.clear();
    bench.gone().await;
    assert_eq!(bench.sets(), 0);
}

/// `nvidia-smi` ends with success where a GPU does not support it.
#[tokio::test(start_paused = true)]
async fn a_mode_that_was_set_and_is_not_so_is_found_out() {
    let mut bench = Bench::new();
    bench.host.world().modes_stay = true;
    bench.want(2, &[], Place::default());
    let remark = bench.ready().await.remark().unwrap();
    assert!(
        remark.message.contains("it is in `DEFAULT` all the same"),
        "{remark:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_without_nvidia_smi_shares_in_the_mode_that_it_has() {
    let mut bench = Bench::new();
    std::fs::remove_file(bench.host.root.join("usr/bin/nvidia-smi")).unwrap();
    bench.want(2, &[], Place::default());
    let remark = bench.ready().await.remark().unwrap();
    assert!(
        remark
            .message
            .contains("stays in an unknown mode (there is no `nvidia-smi` under /)"),
        "{remark:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_who_insists_on_exclusive_gpus_shares_none_that_is_not() {
    let mut bench = Bench::with(Policy::Exclusive);
    bench.host.world().no_modes = Some("Insufficient Permissions".to_owned());
    bench.want(2, &[], Place::default());
    let problem = bench.problem("ComputeModeFailed").await.problem().unwrap();
    assert!(
        problem.message.ends_with("Insufficient Permissions"),
        "{problem:?}"
    );
    let command = format!("nvidia-smi -i {} -c EXCLUSIVE_PROCESS", gpu());
    assert!(problem.hint.contains(&command), "{problem:?}");
    assert_eq!(bench.host.world().started, 0);
    bench.host.world().no_modes = None;
    let status = bench.ready().await;
    assert_eq!((status.problems, status.remarks), Default::default());
    assert_eq!(bench.mode(), "Exclusive_Process");
}

#[tokio::test(start_paused = true)]
async fn a_mode_that_shall_be_left_alone_is_only_read() {
    let mut bench = Bench::with(Policy::Leave);
    bench.want(2, &[], Place::default());
    let remark = bench.ready().await.remark().unwrap();
    assert!(
        remark
            .message
            .contains("stays in `DEFAULT` (`--mps-compute-mode=leave`)"),
        "{remark:?}"
    );
    assert_eq!(remark.hint, "nothing has to be done");
    let told = bench.notices();
    assert!(!told.iter().any(|line| line.starts_with("Warning")), "{told:?}");
    bench.gone().await;
    assert_eq!(bench.sets(), 0);
    // One that its owner made exclusive needs no word.
    let mut bench = Bench::with(Policy::Leave);
    bench
        .host
        .world()
        .modes
        .insert(gpu(), "Exclusive_Process".to_owned());
    bench.want(2, &[], Place::default());
    assert_eq!(bench.ready().await.remark(), None);
    assert_eq!(bench.sets(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_gpu_that_lets_nobody_in_is_not_shared() {
    let mut bench = Bench::with(Policy::Leave);
    bench.host.world().modes.insert(gpu(), "Prohibited".to_owned());
    bench.want(2, &[], Place::default());
    let status = bench.problem("ComputeModeProhibited").await;
    assert!(status.ready.is_empty());
    assert_eq!(bench.sets(), 0);
}

/// An agent before had set it, and nobody had told it not to.
#[tokio::test(start_paused = true)]
async fn a_mode_that_an_agent_before_set_is_given_back_before_it_is_left_alone() {
    let mut bench = Bench::new();
    bench.want(2, &[], Place::default());
    bench.ready().await;
    assert_eq!(bench.mode(), "Exclusive_Process");
    bench.kill().await;
    let mut next = Bench::on(bench.host.clone(), Policy::Leave);
    next.want(2, &[], Place::default());
    next.ready().await;
    assert_eq!(next.mode(), "Default");
}

#[tokio::test(start_paused = true)]
async fn a_driver_beside_the_systems_programs_is_found_with_its_libraries() {
    let mut bench = Bench::new();
    let from = bench.host.root.join("usr/bin");
    let to = bench.host.root.join("usr/local/nvidia/bin");
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::rename(from, to).unwrap();
    bench.want(2, &[], Place::default());
    bench.ready().await;
    let world = bench.host.world();
    let libraries = world.daemons[PIPE].libraries.clone();
    assert_eq!(libraries, "/usr/local/nvidia/lib64:/usr/local/nvidia/lib");
}

/// The daemon says nothing where it takes no limit, so it is asked.
#[tokio::test(start_paused = true)]
async fn a_limit_that_is_not_taken_makes_no_device_ready() {
    let mut bench = Bench::new();
    bench.host.world().deaf = true;
    bench.want(2, &[], Place::default());
    let status = bench.problem("LimitRefused").await;
    assert!(status.ready.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_never_answers_is_given_up() {
    let mut bench = Bench::new();
    bench.host.world().mute = true;
    bench.want(2, &[], Place::default());
    let problem = bench.problem("DaemonFailed").await.problem().unwrap();
    assert!(
        problem
            .message
            .ends_with("the daemon has not answered within 10 s"),
        "{problem:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn sharing_that_is_switched_off_ends_the_daemon_and_switched_on_again_starts_it() {
    let mut bench = Bench::new();
    bench.want(2, &[], Place::default());
    bench.ready().await;
    bench.want(0, &[], Place::default());
    bench.until("no daemon", |status| status.ready.is_empty()).await;
    // At once, while the first one may be ending still.
    bench.want(4, &[], Place::default());
    bench.ready().await;
    assert_eq!(bench.host.world().daemons[PIPE].percentage, "25.0");
    assert_eq!(bench.mode(), "Exclusive_Process");
}

/// What was handed out stays valid: old pods' containers start again with what the kubelet kept.
#[tokio::test(start_paused = true)]
async fn a_daemon_whose_gpu_a_pod_holds_stays_when_sharing_changes_until_the_pod_is_gone() {
    let mut bench = Bench::new();
    bench.want(2, &[], Place::default());
    bench.ready().await;
    for replicas in [4, 0] {
        bench.want(replicas, &[gpu()], Place::default());
        let status = bench.problem("WaitsForPods").await;
        assert!(status.ready.contains_key(GPU));
        assert_eq!(bench.host.world().daemons[PIPE].percentage, "50.0");
    }
    bench.want(4, &[], Place::default());
    bench
        .until("the new daemon", |status| status.problems.is_empty())
        .await;
    bench.ready().await;
    assert_eq!(bench.host.world().started, 2);
    assert_eq!(bench.host.world().daemons[PIPE].percentage, "25.0");
}

#[tokio::test(start_paused = true)]
async fn another_ones_daemon_is_neither_used_nor_ended() {
    let mut bench = Bench::new();
    bench
        .host
        .world()
        .daemons
        .insert(PIPE.to_owned(), Serving::default());
    bench.want(2, &[], Place::default());
    let problem = bench.problem("AnotherDaemon").await.problem().unwrap();
    assert!(problem.hint.contains("mps-control-daemon"), "{problem:?}");
    bench.want(0, &[], Place::default());
    bench
        .until("nothing wanted", |status| *status == Status::default())
        .await;
    assert!(bench.host.world().daemons.contains_key(PIPE));
    assert_eq!(bench.mode(), "Default");
}

#[tokio::test(start_paused = true)]
async fn a_gpu_that_its_owner_made_exclusive_stays_so() {
    let mut bench = Bench::new();
    bench
        .host
        .world()
        .modes
        .insert(gpu(), "Exclusive_Process".to_owned());
    bench.want(2, &[], Place::default());
    bench.ready().await;
    bench.gone().await;
    assert_eq!(bench.mode(), "Exclusive_Process");
}

#[tokio::test(start_paused = true)]
async fn a_driver_container_brings_its_own_programs_and_libraries() {
    let mut bench = Bench::new();
    let driver = Host {
        root: bench.host.root.join("run/nvidia/driver"),
        world: bench.host.world.clone(),
    };
    driver.install(&ALL);
    let place = Place {
        driver_root: "/run/nvidia/driver".into(),
        ..Place::default()
    };
    bench.want(2, &[], place);
    bench.ready().await;
    let world = bench.host.world();
    let start = world
        .calls
        .iter()
        .find(|call| call.starts_with("unshare"))
        .unwrap();
    assert!(
        start.ends_with("/run/nvidia/driver/usr/bin/nvidia-cuda-mps-control -f"),
        "{start}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_root_moves_everything() {
    let mut bench = Bench::new();
    bench.want(2, &[], Place::default());
    bench.ready().await;
    let place = Place {
        root: "/run/other".into(),
        ..Place::default()
    };
    bench.want(2, &[], place);
    let status = bench
        .until("the other root", |status| {
            let mounts = status.ready.get(GPU).map(|shared| shared.mounts[0].host.clone());
            mounts.as_deref() == Some("/run/other/nvidia.com/gpu/pipe")
        })
        .await;
    assert_eq!(status.problems, BTreeMap::new());
    let world = bench.host.world();
    assert_eq!(
        world.daemons.keys().collect::<Vec<_>>(),
        ["/run/other/nvidia.com/gpu/pipe"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_is_told_and_starts_nothing() {
    let mut bench = Bench::new();
    bench.want(49, &[], Place::default());
    let status = bench.problem("TooManyReplicas").await;
    assert!(status.ready.is_empty());
    assert_eq!(bench.host.world().started, 0);
    bench.want(48, &[], Place::default());
    bench
        .until("a daemon without a problem", |status| {
            status.problems.is_empty() && status.ready.contains_key(GPU)
        })
        .await;
}
