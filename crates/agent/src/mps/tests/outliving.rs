//! Daemons that outlive their agent, and what becomes of them.

use std::sync::Arc;

use super::running::{ALL, Bench, PIPE, gpu};
use super::*;
use crate::mps::{Policy, Refused, Removal, Status};

/// The daemon of one agent, which then ended or was killed.
async fn left_behind(is_killed: bool) -> Bench {
    let mut bench = Bench::new();
    bench.want(2, &[], Place::default());
    bench.ready().await;
    if is_killed {
        bench.kill().await;
    } else {
        bench.stop().await;
        assert_eq!(*bench.status.borrow(), Status::default());
    }
    bench
}

/// Pods compute on while the agent's pod is replaced.
#[tokio::test(start_paused = true)]
async fn a_daemon_outlives_an_agent_that_ends_or_is_killed_and_the_next_one_takes_it_over() {
    for is_killed in [false, true] {
        let before = left_behind(is_killed).await;
        let pid = before.pid();
        assert_eq!(before.mode(), "Exclusive_Process");
        before.host.world().calls.clear();
        let mut next = Bench::on(before.host.clone(), Policy::WherePossible);
        next.want(2, &[], Place::default());
        let status = next.ready().await;
        assert_eq!(status.problems, BTreeMap::new());
        assert_eq!((next.pid(), next.host.world().started), (pid, 1));
        let calls = next.host.world().calls.clone();
        assert!(!calls.iter().any(|call| call.contains("quit")), "{calls:?}");
        let told = next.notices().join("\n");
        assert!(told.contains("is taken over"), "{told}");
        // It is watched as one of its own.
        let ended = next.host.world().daemons.remove(PIPE).unwrap();
        ended
            .end
            .unwrap()
            .send_replace(Some("it is not there any more".to_owned()));
        next.problem("DaemonFailed").await;
        next.ready().await;
        assert_eq!(next.host.world().started, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_was_left_and_is_not_wanted_any_more_ends_once_nobody_holds_it() {
    let before = left_behind(true).await;
    let pid = before.pid();
    let mut next = Bench::on(before.host.clone(), Policy::WherePossible);
    next.want(0, &[gpu()], Place::default());
    let status = next.ready().await;
    assert_eq!(status.problem().unwrap().reason, "WaitsForPods");
    assert_eq!(next.pid(), pid);
    next.gone().await;
    assert_eq!(next.mode(), "Default");
    assert_eq!(next.host.world().started, 1);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_was_left_and_that_nobody_holds_is_replaced_where_another_is_wanted() {
    let before = left_behind(true).await;
    let mut next = Bench::on(before.host.clone(), Policy::WherePossible);
    next.want(4, &[], Place::default());
    next.ready().await;
    assert_eq!(next.host.world().started, 2);
    assert_eq!(next.host.world().daemons[PIPE].percentage, "25.0");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_went_with_its_agents_container_is_started_anew_and_its_mode_known() {
    let before = left_behind(true).await;
    before.host.world().daemons.clear();
    let mut next = Bench::on(before.host.clone(), Policy::WherePossible);
    next.want(2, &[gpu()], Place::default());
    next.ready().await;
    assert_eq!(next.host.world().started, 2);
    next.gone().await;
    assert_eq!(next.mode(), "Default");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_hangs_is_ended_and_started_anew() {
    let before = left_behind(true).await;
    silence(&before);
    let mut next = Bench::on(before.host.clone(), Policy::WherePossible);
    next.want(2, &[], Place::default());
    next.ready().await;
    let world = next.host.world();
    assert_eq!(world.daemons.keys().collect::<Vec<_>>(), [PIPE]);
    assert_eq!(world.started, 2);
}

#[tokio::test(start_paused = true)]
async fn where_a_daemon_would_end_with_the_agents_container_it_is_told() {
    let mut bench = Bench::new();
    bench.host.world().mortal = Some("the node has no systemd".to_owned());
    bench.want(2, &[], Place::default());
    bench.ready().await;
    let told = bench.notices();
    let warned = told.iter().find(|line| line.contains("the node has no systemd"));
    assert!(warned.is_some_and(|line| line.starts_with("Warning")), "{told:?}");
}

async fn removal(bench: &Bench) -> Result<Removal, Refused> {
    removal_of(bench, false).await
}

async fn removal_of(bench: &Bench, silent_too: bool) -> Result<Removal, Refused> {
    let host = Arc::new(bench.host.clone());
    let (root, place) = (&bench.host.root, Place::default());
    Removal::look(host.clone(), host, root, &place, silent_too).await
}

/// A daemon that runs and doesn't answer any more.
fn silence(bench: &Bench) {
    let mut world = bench.host.world();
    let silent = world.daemons.remove(PIPE).unwrap();
    let key = format!("{PIPE} (mute)");
    world.daemons.insert(key.clone(), silent);
    let name = world.names.keys().next().unwrap().clone();
    world.names.insert(name, key);
}

/// A process of the host, with what it has mounted.
fn process(bench: &Bench, pid: u32, mount: &str) {
    let dir = bench.host.root.join("proc").join(pid.to_string());
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(
        dir.join("mountinfo"),
        format!("24 1 8:1 / / rw - ext4 a rw\n{mount}\n"),
    )
    .unwrap();
    let uid = "0b9f1d2c-5b0e-4a53-9d0a-5f3f6c7f6a10";
    let group = format!("0::/kubepods/burstable/pod{uid}/{}\n", "c".repeat(64));
    std::fs::write(dir.join("cgroup"), group).unwrap();
    let logs = format!("var/log/pods/team_train-0_{uid}");
    std::fs::create_dir_all(bench.host.root.join(logs)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn uninstall_ends_what_agents_left_and_gives_modes_back() {
    let bench = left_behind(false).await;
    let removal = removal(&bench).await.unwrap();
    assert_eq!(
        removal.things(),
        [
            "the daemon of MPS of `nvidia.com/gpu`",
            "`/run/nvidia/mps/nvidia.com/gpu`",
            "`/run/nvidia/mps/nvidia.com`",
            "`/run/nvidia/mps/.daemons`",
            "`/run/nvidia/mps/.compute-modes`",
            "`/run/nvidia/mps`",
            "`/dev/shm/nvidia-mps`",
        ]
    );
    assert_eq!(removal.run().await, Vec::<String>::new());
    assert!(bench.host.world().daemons.is_empty());
    assert_eq!(bench.mode(), "Default");
    assert!(bench.host.root.join("run/nvidia").is_dir());
    assert!(!bench.host.root.join("run/nvidia/mps").exists());
    assert!(!bench.host.root.join("dev/shm/nvidia-mps").exists());
    assert_eq!(
        self::removal(&bench).await.unwrap().things(),
        Vec::<String>::new()
    );
}

#[tokio::test(start_paused = true)]
async fn uninstall_refuses_while_programs_use_a_daemon_and_names_them() {
    let bench = left_behind(false).await;
    bench.host.world().daemons.get_mut(PIPE).unwrap().clients = vec![12, 34];
    let refused = removal(&bench).await.unwrap_err().to_string();
    assert!(
        refused.starts_with(
            "these processes use nvidia.com/gpu through MPS, and would fail without its daemon: 12, 34;"
        ),
        "{refused}"
    );
    assert!(bench.host.world().daemons.contains_key(PIPE));
}

#[tokio::test(start_paused = true)]
async fn uninstall_takes_a_daemon_that_does_not_answer_for_used_while_a_pod_has_a_share_of_it() {
    let bench = left_behind(false).await;
    silence(&bench);
    let refused = removal(&bench).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unread { .. }), "{refused}");
    assert!(
        refused.to_string().contains("run it as root on the node"),
        "{refused}"
    );
    let share = "812 801 0:25 /nvidia/mps/nvidia.com/gpu/pipe /mps/nvidia.com/gpu/pipe rw - tmpfs tmpfs rw";
    process(&bench, 1, "");
    process(&bench, 4711, share);
    process(&bench, 4712, share);
    let refused = removal(&bench).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("the daemon of MPS of nvidia.com/gpu does not answer (")
            && refused.contains("may run through it: team/train-0; drain the node")
            && refused.ends_with("add `--mps-too`"),
        "{refused}"
    );
    assert_eq!(bench.host.world().daemons.len(), 1);
    // Once they are gone, nobody needs it.
    for pid in [4711, 4712] {
        process(&bench, pid, "");
    }
    removal(&bench).await.unwrap();
    process(&bench, 4711, share);
    assert_eq!(
        removal_of(&bench, true).await.unwrap().run().await,
        Vec::<String>::new()
    );
    assert!(bench.host.world().daemons.is_empty());
}

#[tokio::test(start_paused = true)]
async fn uninstall_waits_for_nobody_where_the_daemon_is_gone() {
    let bench = left_behind(true).await;
    bench.host.world().daemons.clear();
    process(
        &bench,
        4711,
        "812 801 0:25 /nvidia/mps/nvidia.com/gpu/pipe /mps/nvidia.com/gpu/pipe rw - tmpfs tmpfs rw",
    );
    removal(&bench).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn uninstall_keeps_a_mode_in_mind_that_could_not_be_given_back() {
    let bench = left_behind(false).await;
    bench.host.world().no_modes = Some("Insufficient Permissions".to_owned());
    let left = removal(&bench).await.unwrap().run().await;
    assert!(
        left.iter()
            .any(|line| line.contains("stays in a compute mode that lets one process in")),
        "{left:?}"
    );
    assert_eq!(bench.notes().len(), 1);
    assert!(bench.host.root.join("usr/bin").join(ALL[1]).exists());
}
