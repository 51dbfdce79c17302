use std::io;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use pitcrew_apiserver::ApiServer;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::deps::System;
use crate::runtime::tier::{Tier, Way};
use crate::testing::never_asked;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_764_000_000 + seconds).unwrap()
}

fn peer(name: &str, is_server: bool) -> Peer {
    Peer {
        name: name.to_owned(),
        is_server,
        is_ready: true,
        wants: false,
    }
}

fn pending() -> Handler {
    Handler::Pending {
        binary: "/usr/local/nvidia/toolkit/nvidia-container-runtime".into(),
    }
}

fn live() -> Handler {
    Handler::Live {
        binary: "/usr/local/nvidia/toolkit/nvidia-container-runtime".into(),
    }
}

fn facts() -> Facts {
    Facts {
        handler: pending(),
        unit: Some("rke2-agent".to_owned()),
        consent: Consent {
            restart: true,
            only_server: false,
        },
        trap: None,
        peers: Some(vec![peer("s1", true), peer("w1", false)]),
        node: "w1".to_owned(),
        our_turn: true,
        outcome: None,
    }
}

fn waits(facts: &Facts) -> String {
    let facts = Facts {
        our_turn: false,
        ..facts.clone()
    };
    match next(&State::Idle, &facts, at(0)) {
        (State::Idle, Act::Wait(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_restarted_without_need_or_consent() {
    for (handler, restart) in [
        (live(), true),
        (Handler::Absent, true),
        (Handler::Unknown(String::new()), true),
        (pending(), false),
    ] {
        let consent = Consent {
            restart,
            only_server: true,
        };
        let facts = Facts {
            handler,
            consent,
            our_turn: false,
            ..facts()
        };
        assert_eq!(next(&State::Idle, &facts, at(0)), (State::Idle, Act::Nothing));
    }
}

#[test]
fn a_node_that_would_not_come_back_is_not_restarted() {
    let trapped = Facts {
        trap: Some("the table runtimes.nvidia is there twice".to_owned()),
        ..facts()
    };
    assert_eq!(
        waits(&trapped),
        "this node would not come back as it is: the table runtimes.nvidia is there twice; see `pitcrew check --next-boot`"
    );
    assert_eq!(
        next(&State::Idle, &trapped, at(0)),
        (State::Idle, Act::Release),
        "others may go first"
    );
}

#[test]
fn a_server_goes_last_and_only_beside_others_that_are_ready() {
    let server = |peers: Vec<Peer>| Facts {
        node: "s1".to_owned(),
        unit: Some("rke2-server".to_owned()),
        peers: Some(peers),
        ..facts()
    };
    let alone = server(vec![peer("s1", true), peer("w1", false)]);
    assert!(waits(&alone).contains("the only server"));
    let consent = Consent {
        restart: true,
        only_server: true,
    };
    let agreed = Facts { consent, ..alone };
    assert!(matches!(
        next(&State::Idle, &agreed, at(0)),
        (State::Restarting { .. }, Act::Restart(_))
    ));

    let mut down = peer("s2", true);
    down.is_ready = false;
    let beside = server(vec![peer("s1", true), down]);
    assert_eq!(waits(&beside), "servers of the cluster are not ready: s2");

    let mut worker = peer("w1", false);
    worker.wants = true;
    let early = server(vec![peer("s1", true), peer("s2", true), worker.clone()]);
    assert_eq!(waits(&early), "servers come last, and these nodes wait too: w1");
    worker.is_ready = false;
    let fine = server(vec![peer("s1", true), peer("s2", true), worker]);
    assert!(matches!(next(&State::Idle, &fine, at(0)), (_, Act::Restart(unit)) if unit == "rke2-server"));

    let unknown = Facts {
        peers: None,
        ..facts()
    };
    assert_eq!(waits(&unknown), "the API server doesn't answer");
    let nowhere = Facts {
        node: "gone".to_owned(),
        ..facts()
    };
    assert_eq!(waits(&nowhere), "the cluster has no node gone");
}

#[test]
fn a_restart_is_asked_for_in_our_turn_and_waited_for() {
    let wanting = Facts {
        our_turn: false,
        ..facts()
    };
    assert_eq!(next(&State::Idle, &wanting, at(0)), (State::Idle, Act::Acquire));
    let (restarting, act) = next(&State::Idle, &facts(), at(1));
    assert_eq!(act, Act::Restart("rke2-agent".to_owned()));
    let done = Facts {
        outcome: Some(Ok(())),
        ..facts()
    };
    let (settling, act) = next(&restarting, &done, at(30));
    assert_eq!(act, Act::Acquire, "the turn is kept");
    assert!(matches!(settling, State::Settling { .. }));
    assert_eq!(
        next(&settling, &facts(), at(60)),
        (settling.clone(), Act::Acquire)
    );
    let there = Facts {
        handler: live(),
        ..facts()
    };
    assert_eq!(next(&settling, &there, at(61)), (State::Idle, Act::Release));
    let silent = Facts { peers: None, ..there };
    assert_eq!(
        next(&settling, &silent, at(61)).1,
        Act::Acquire,
        "nobody says that the node is ready"
    );
    let (state, act) = next(&settling, &silent, at(700));
    assert!(matches!(state, State::Failed { .. }) && act == Act::Release);
}

#[test]
fn what_failed_is_not_tried_again_by_itself() {
    let (restarting, _) = next(&State::Idle, &facts(), at(0));
    let refused = Facts {
        outcome: Some(Err("Job for rke2-agent.service failed".to_owned())),
        ..facts()
    };
    let (failed, act) = next(&restarting, &refused, at(1));
    assert_eq!(act, Act::Release);
    let State::Failed { reason, .. } = &failed else {
        panic!("{failed:?}")
    };
    assert_eq!(
        reason,
        "`rke2-agent` could not be restarted: Job for rke2-agent.service failed"
    );
    assert_eq!(
        next(&failed, &facts(), at(100_000)),
        (failed.clone(), Act::Nothing)
    );
    let there = Facts {
        handler: live(),
        ..facts()
    };
    assert_eq!(
        next(&failed, &there, at(100_001)),
        (State::Idle, Act::Release),
        "somebody did it by hand"
    );

    // Restarted, and no handler: it is not restarted for ever.
    let (settling, _) = next(
        &restarting,
        &Facts {
            outcome: Some(Ok(())),
            ..facts()
        },
        at(1),
    );
    assert!(matches!(
        next(&settling, &facts(), at(602)),
        (State::Failed { .. }, Act::Release)
    ));
}

#[test]
fn an_agent_that_ended_in_the_middle_goes_on() {
    let (restarting, _) = next(&State::Idle, &facts(), at(0));
    let text = serde_json::to_vec(&restarting).unwrap();
    let resumed = parse_state(&text);
    assert_eq!(resumed, restarting);
    let there = Facts {
        handler: live(),
        our_turn: false,
        ..facts()
    };
    assert!(matches!(
        next(&resumed, &there, at(9)),
        (State::Settling { .. }, Act::Acquire)
    ));
    let not_yet = Facts {
        our_turn: false,
        ..facts()
    };
    assert_eq!(next(&resumed, &not_yet, at(9)), (resumed.clone(), Act::Acquire));
    let (second, act) = next(&resumed, &facts(), at(9));
    assert_eq!(act, Act::Restart("rke2-agent".to_owned()));
    let (third, act) = next(&second, &facts(), at(20));
    assert!(
        matches!(third, State::Failed { .. }) && act == Act::Release,
        "twice is enough"
    );
    assert_eq!(parse_state(b"{half"), State::Idle);
}

/// A node of a cluster in memory: its systemd makes the handler live, as a supervisor does.
struct Machine {
    name: &'static str,
    unit: &'static str,
    server: ApiServer,
    root: TempDir,
    live: Mutex<bool>,
    restarts: Arc<Mutex<Vec<&'static str>>>,
    /// Ends the agent in the middle of the restart: it never hears of it.
    ends: bool,
}

impl Machine {
    fn seen_handler(&self) -> Handler {
        if *self.live.lock().unwrap() {
            live()
        } else {
            pending()
        }
    }

    fn restarter(&self) -> Restarter {
        let client = Client::new(self.server.clone(), "default");
        Restarter::new(
            client,
            "pitcrew",
            self.name,
            self.root.path(),
            Path::new("/opt/pitcrew"),
        )
    }

    async fn tick(&self, restarter: &mut Restarter, now: i64) -> Vec<Told> {
        let way = Way {
            tier: Tier::Native,
            reason: String::new(),
            handler: self.seen_handler(),
            is_default: false,
            unit: Some(self.unit.to_owned()),
        };
        let seen = Seen {
            way: &way,
            trap: None,
            consent: Consent {
                restart: true,
                only_server: false,
            },
            now: at(now),
        };
        restarter.tick(&seen, self).await.unwrap()
    }
}

impl System for Machine {
    never_asked!(load_module, make_char_device, start, find, run);

    fn restart_unit<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, io::Result<()>> {
        async move {
            assert_eq!(unit, self.unit);
            self.restarts.lock().unwrap().push(self.name);
            // Others get their turns while this takes its time.
            tokio::time::sleep(Duration::from_secs(40)).await;
            *self.live.lock().unwrap() = true;
            if self.ends {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        .boxed()
    }
}

struct Cluster {
    server: ApiServer,
    restarts: Arc<Mutex<Vec<&'static str>>>,
}

impl Cluster {
    async fn new(nodes: &[(&str, bool)]) -> Self {
        let server = ApiServer::new();
        let cluster = Self {
            server,
            restarts: Arc::default(),
        };
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("pitcrew".to_owned());
        let namespaces: Api<Namespace> = Api::all(Client::new(cluster.server.clone(), "default"));
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        for (name, is_server) in nodes {
            let mut node = Node::default();
            node.metadata.name = Some((*name).to_owned());
            if *is_server {
                let label = (
                    "node-role.kubernetes.io/control-plane".to_owned(),
                    "true".to_owned(),
                );
                node.metadata.labels = Some([label].into());
            }
            cluster
                .nodes()
                .create(&PostParams::default(), &node)
                .await
                .unwrap();
            cluster.ready(name, true).await;
        }
        cluster
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(Client::new(self.server.clone(), "default"))
    }

    async fn ready(&self, name: &str, is_ready: bool) {
        let status = if is_ready { "True" } else { "False" };
        let patch = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        let params = PatchParams::default();
        self.nodes()
            .patch_status(name, &params, &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    async fn wants(&self, name: &str) -> bool {
        let node = self.nodes().get(name).await.unwrap();
        node.metadata
            .annotations
            .is_some_and(|annotations| annotations.contains_key(WANTED))
    }

    fn machine(&self, name: &'static str, unit: &'static str) -> Machine {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("opt/pitcrew")).unwrap();
        Machine {
            name,
            unit,
            server: self.server.clone(),
            root,
            live: Mutex::new(false),
            restarts: self.restarts.clone(),
            ends: false,
        }
    }
}

/// Pitfalls 3 and 4 of the facts: a storm of hangups, and handlers that came only because the supervisor was killed. One
/// restart for each node, through systemd, one after the other, and none once the handler is there.
#[tokio::test(start_paused = true)]
async fn pitfalls_3_and_4_every_node_is_restarted_once_one_after_the_other_and_the_server_last() {
    let cluster = Cluster::new(&[("s1", true), ("s2", true), ("w1", false), ("w2", false)]).await;
    let machines = [
        cluster.machine("s1", "rke2-server"),
        cluster.machine("w1", "rke2-agent"),
        cluster.machine("w2", "rke2-agent"),
    ];
    let overlap = Mutex::new((0, 0));
    let run = async |machine: &Machine| {
        let mut restarter = machine.restarter();
        for round in 0..200 {
            let before = machine.restarts.lock().unwrap().len();
            machine.tick(&mut restarter, round * 5).await;
            let since = machine.restarts.lock().unwrap()[before..].to_vec();
            if since.contains(&machine.name) {
                let mut overlap = overlap.lock().unwrap();
                *overlap = (overlap.0 + 1, overlap.1.max(since.len()));
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(*restarter.state(), State::Idle);
    };
    // Workers say that they want before the server looks.
    tokio::join!(run(&machines[1]), run(&machines[2]), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        run(&machines[0]).await;
    });
    let restarts = cluster.restarts.lock().unwrap().clone();
    assert_eq!(restarts.len(), 3, "{restarts:?}");
    assert_eq!(restarts[2], "s1", "{restarts:?}");
    assert_eq!(
        *overlap.lock().unwrap(),
        (3, 1),
        "none began while another was under way"
    );
    for name in ["s1", "w1", "w2"] {
        assert!(!cluster.wants(name).await, "{name}");
    }
    for machine in &machines {
        assert!(!machine.root.path().join("opt/pitcrew/restart.json").exists());
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_while_its_supervisor_restarts_is_followed_by_one_that_finishes() {
    let cluster = Cluster::new(&[("s1", true), ("w1", false), ("w2", false)]).await;
    let mut first = cluster.machine("w1", "rke2-agent");
    first.ends = true;
    let other = cluster.machine("w2", "rke2-agent");
    let killed = tokio::time::timeout(Duration::from_mins(2), async {
        first.tick(&mut first.restarter(), 0).await;
    })
    .await;
    assert!(killed.is_err(), "it never heard what came of it");

    let mut waiting = other.restarter();
    let told = other.tick(&mut waiting, 120).await;
    assert_eq!(
        told,
        [Told::Info(
            "a restart is needed and must wait: it is the turn of w1".to_owned()
        )]
    );
    assert_eq!(other.tick(&mut waiting, 125).await, [], "it is told once");

    let mut resumed = first.restarter();
    assert!(matches!(resumed.state(), State::Restarting { .. }));
    cluster.ready("w1", false).await;
    first.tick(&mut resumed, 130).await;
    assert!(matches!(resumed.state(), State::Settling { .. }));
    cluster.ready("w1", true).await;
    first.tick(&mut resumed, 135).await;
    assert_eq!(*resumed.state(), State::Idle);
    assert_eq!(
        *cluster.restarts.lock().unwrap(),
        ["w1"],
        "it was not restarted twice"
    );
    other.tick(&mut waiting, 140).await;
    assert_eq!(*cluster.restarts.lock().unwrap(), ["w1", "w2"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_comes_back_gives_its_turn_back_after_a_while() {
    let cluster = Cluster::new(&[("s1", true), ("w1", false)]).await;
    let machine = cluster.machine("w1", "rke2-agent");
    let mut restarter = machine.restarter();
    machine.tick(&mut restarter, 0).await;
    cluster.ready("w1", false).await;
    let mut told = Vec::new();
    for seconds in (10..=700).step_by(10) {
        told.extend(machine.tick(&mut restarter, seconds).await);
    }
    assert_eq!(
        told,
        [Told::Warning(
            "`rke2-agent` was restarted, and the node is not ready".to_owned()
        )]
    );
    let problem = restarter.problem().unwrap();
    assert_eq!(
        problem.hint,
        "journalctl -u rke2-agent, then systemctl restart rke2-agent"
    );
    assert!(!cluster.wants("w1").await, "nobody waits for it");
    let mut lease = crate::runtime::lease::ClusterLease::new(
        Client::new(cluster.server.clone(), "default"),
        "pitcrew",
        LEASE,
        "w9",
        LEASE_DURATION,
    );
    assert_eq!(
        lease.acquire(at(701)).await.unwrap(),
        crate::runtime::lease::Turn::Ours
    );
}

#[test]
fn a_node_with_our_wrapper_comes_back_and_one_with_a_trap_does_not() {
    let node = crate::runtime::install::tests::Node::rke2();
    node.bring_up("1.0.0", usize::MAX);
    assert_eq!(trap(&node.host(), &node.fs()), None);
    // A template that repeats what the base says as soon as the binary is there.
    let template = "{{ template \"base\" . }}\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia']\n\
                    runtime_type = \"io.containerd.runc.v2\"\n";
    let path = "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl";
    std::fs::write(node.at(path), template).unwrap();
    let why = trap(&node.host(), &node.fs()).unwrap();
    assert!(why.contains("nvidia"), "{why}");
}
