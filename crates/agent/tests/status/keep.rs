//! What reaches an API server, on its good days and its bad ones.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use pitcrew_agent::deps::Deps;
use pitcrew_agent::settings::Settings;
use pitcrew_agent::snapshot::Part;
use pitcrew_agent::status;
use pitcrew_api::condition::kind;
use pitcrew_api::{ConditionStatus, GpuNode, GpuNodeSpec};
use pitcrew_apiserver::{ApiError, Fault, Match, Verb};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cluster::{Cluster, NODE, Nothing, Told, is_ready, ready, settle, sick, start, without_driver};
use crate::node;

#[tokio::test(start_paused = true)]
async fn a_node_gets_its_gpu_node_and_everything_that_is_said_of_it() {
    let cluster = Cluster::new().await;
    let agent = cluster.start(ready());
    let object = cluster.until_ready(ConditionStatus::True).await;
    settle().await;
    let owner = &object.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str(), Some(&owner.uid)),
        ("Node", NODE, cluster.node().await.uid().as_ref())
    );
    let status = object.status.unwrap();
    assert_eq!(status.product.as_deref(), Some("NVIDIA GeForce RTX 3060"));
    assert_eq!(status.observed_generation, object.metadata.generation);
    let kinds: Vec<&str> = status.conditions.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(kinds, kind::ALL);

    let node = cluster.node().await;
    let conditions = node.status.unwrap().conditions.unwrap();
    let told: Vec<(&str, &str)> = conditions
        .iter()
        .map(|it| (it.type_.as_str(), it.status.as_str()))
        .collect();
    assert_eq!(told, [("Ready", "True"), (status::NODE_CONDITION, "True")]);
    assert_eq!(cluster.events().await, [("GpusReady".to_owned(), 1)]);
    assert!(cluster.marker("plugin-ready").exists());
    agent.stop().await;
}

/// `.status` is applied, and by a manager of its own, so that it stays apart from what others write.
#[tokio::test(start_paused = true)]
async fn the_status_is_applied_by_its_own_manager() {
    let cluster = Cluster::new().await;
    let _agent = cluster.start(ready());
    let object = cluster.until_ready(ConditionStatus::True).await;
    let managers: Vec<(String, String, String)> = object
        .managed_fields()
        .iter()
        .map(|it| {
            (
                it.manager.clone().unwrap_or_default(),
                it.operation.clone().unwrap_or_default(),
                it.subresource.clone().unwrap_or_default(),
            )
        })
        .collect();
    let expected = |subresource: &str| {
        (
            "pitcrew-agent".to_owned(),
            "Apply".to_owned(),
            subresource.to_owned(),
        )
    };
    assert_eq!(managers, [expected(""), expected("status")]);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_not_written() {
    let cluster = Cluster::new().await;
    let agent = cluster.start(ready());
    cluster.until_ready(ConditionStatus::True).await;
    settle().await;
    cluster.server.audit().take();
    for second in 0..60 {
        cluster.clock.0.fetch_add(second, Ordering::Relaxed);
        agent.snapshots.send_modify(|_| {});
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    let asked = cluster.server.audit().take();
    let writes: Vec<_> = asked
        .iter()
        .filter(|it| !matches!(it.verb, Verb::Get | Verb::List | Verb::Watch))
        .collect();
    assert!(writes.is_empty(), "{writes:#?}");
    // An hour: the Node and the GpuNode every five minutes at most, and the watch.
    assert!(asked.len() < 60, "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_anew_changes_no_time_and_repeats_no_event() {
    let cluster = Cluster::new().await;
    let agent = cluster.start(ready());
    let first = cluster.until_ready(ConditionStatus::True).await;
    settle().await;
    agent.stop().await;
    cluster.clock.0.fetch_add(1000, Ordering::Relaxed);
    cluster.server.audit().take();
    // It knows nothing for a while, and what was said stays.
    let agent = cluster.start(node::nothing_known());
    settle().await;
    agent.snapshots.send_replace(ready());
    settle().await;
    let second = cluster.until_ready(ConditionStatus::True).await;
    assert_eq!(first.status, second.status);
    assert_eq!(cluster.events().await, [("GpusReady".to_owned(), 1)]);
    let asked = cluster.server.audit().take();
    assert!(asked.iter().all(|it| it.verb != Verb::Patch), "{asked:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_does_not_answer_from_the_start_is_told_after_a_while() {
    let cluster = Cluster::new().await;
    let _agent = cluster.start(node::nothing_known());
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(cluster.gpu_nodes().get_opt(NODE).await.unwrap().is_none());
    let object = cluster.until_ready(ConditionStatus::Unknown).await;
    let status = object.status.unwrap();
    assert_eq!(status.condition(kind::READY).unwrap().reason, status::STARTING);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_told_everything_when_it_is_back() {
    let cluster = Cluster::new().await;
    let mut agent = cluster.start(ready());
    cluster.until_ready(ConditionStatus::True).await;
    settle().await;
    agent.told();
    let faults = cluster.server.faults();
    faults.fail(Match::default(), Fault::Refused, 1_000_000);
    faults.drop_watches(Match::default());
    agent.snapshots.send_replace(without_driver());
    cluster.clock.0.fetch_add(60, Ordering::Relaxed);
    let away_since = cluster.clock.0.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_mins(10)).await;
    // What others on the node wait for doesn't wait for an API server.
    assert!(!cluster.marker("driver-ready").exists());
    let told = agent.told();
    let complaints = told.iter().filter(|text| text.contains("API server")).count();
    assert!((1..=3).contains(&complaints), "{told:#?}");
    cluster.clock.0.fetch_add(600, Ordering::Relaxed);
    faults.clear();
    let object = cluster.until_ready(ConditionStatus::False).await;
    settle().await;
    let status = object.status.unwrap();
    let since = status
        .condition(kind::DRIVER_READY)
        .unwrap()
        .last_transition_time
        .0;
    assert_eq!(
        since.as_second().unsigned_abs(),
        away_since,
        "when it happened, not when it could be told"
    );
    let events = cluster.events().await;
    assert!(
        events.contains(&("DriverNotInstalled".to_owned(), 1)),
        "{events:?}"
    );
    assert!(
        agent.told().iter().any(|text| text.contains("again")),
        "it says so"
    );
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_keeps_nothing_else_from_happening() {
    let cluster = Cluster::new().await;
    let agent = cluster.start(ready());
    cluster.until_ready(ConditionStatus::True).await;
    settle().await;
    cluster
        .server
        .faults()
        .delay(Match::default(), Duration::from_hours(1));
    agent.snapshots.send_replace(without_driver());
    settle().await;
    assert!(!cluster.marker("driver-ready").exists());
    agent.snapshots.send_replace(ready());
    settle().await;
    assert!(cluster.marker("driver-ready").exists());
    cluster.server.faults().clear();
    agent.snapshots.send_replace(without_driver());
    cluster.until_ready(ConditionStatus::False).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_of_a_node_is_passed_on() {
    let cluster = Cluster::new().await;
    let mut agent = cluster.start(ready());
    cluster.until_ready(ConditionStatus::True).await;
    let patch = json!({"spec": {"config": "shared"}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let patched = cluster.gpu_nodes().patch(NODE, &params, &patch).await;
    let generation = patched.unwrap().metadata.generation;
    let wanted = GpuNodeSpec {
        config: Some("shared".to_owned()),
        ..GpuNodeSpec::default()
    };
    let known = agent
        .wanted
        .wait_for(|known| known.as_ref() == Some(&wanted))
        .await;
    assert!(known.is_ok());
    let observed = |object: &GpuNode| object.status.as_ref().unwrap().observed_generation == generation;
    let object = cluster.until("the generation to be observed", observed).await;
    // What is wanted is the owner's: the agent's own writes leave it alone.
    assert_eq!(object.spec.config.as_deref(), Some("shared"));
}

/// Whoever waits for it must not wait for an object that nobody has asked for, or for a kind that isn't there.
#[tokio::test(start_paused = true)]
async fn that_nothing_is_wanted_is_known_before_there_is_a_gpu_node_and_where_there_can_be_none() {
    let cluster = Cluster::new().await;
    let mut agent = cluster.start(node::nothing_known());
    let nothing = Some(GpuNodeSpec::default());
    assert!(agent.wanted.wait_for(|known| *known == nothing).await.is_ok());
    assert!(cluster.gpu_nodes().get_opt(NODE).await.unwrap().is_none());
    let forbidden = Fault::Error(ApiError::new(403, "gpunodes is forbidden"));
    let about = Match::default().resource("gpunodes");
    cluster.server.faults().fail(about, forbidden, 1000);
    let mut agent = cluster.start(node::nothing_known());
    assert!(agent.wanted.wait_for(|known| *known == nothing).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_gpu_node_that_was_deleted_comes_back_and_one_of_another_node_is_owned_by_that() {
    let cluster = Cluster::new().await;
    let _agent = cluster.start(ready());
    let first = cluster.until_ready(ConditionStatus::True).await;
    let gpu_nodes = cluster.gpu_nodes();
    gpu_nodes.delete(NODE, &DeleteParams::default()).await.unwrap();
    let other = |object: &GpuNode| object.uid() != first.uid() && is_ready(object).is_some();
    let second = cluster.until("another GpuNode", other).await;
    // The node is registered anew, and the object goes with the old one.
    cluster
        .nodes()
        .delete(NODE, &DeleteParams::default())
        .await
        .unwrap();
    settle().await;
    assert!(gpu_nodes.get_opt(NODE).await.unwrap().is_none());
    cluster.register(json!([])).await;
    let third = |object: &GpuNode| object.uid() != second.uid() && is_ready(object).is_some();
    let third = cluster.until("a third GpuNode", third).await;
    assert_eq!(
        Some(&third.owner_references()[0].uid),
        cluster.node().await.uid().as_ref()
    );
    settle().await;
    let conditions = cluster.node().await.status.unwrap().conditions.unwrap();
    assert!(conditions.iter().any(|it| it.type_ == status::NODE_CONDITION));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_wrote_over_is_put_right() {
    let cluster = Cluster::new().await;
    let _agent = cluster.start(ready());
    cluster.until_ready(ConditionStatus::True).await;
    settle().await;
    let lie = json!({"status": {"product": "none", "gpus": null}});
    let (params, lie) = (PatchParams::default(), Patch::Merge(&lie));
    let patched = cluster.gpu_nodes().patch_status(NODE, &params, &lie).await;
    assert_eq!(patched.unwrap().status.unwrap().product.as_deref(), Some("none"));
    let right = |object: &GpuNode| {
        let status = object.status.as_ref().unwrap();
        status.product.as_deref() == Some("NVIDIA GeForce RTX 3060") && status.gpus.len() == 1
    };
    cluster.until("the status to be put right", right).await;
}

#[tokio::test(start_paused = true)]
async fn without_its_definition_all_else_is_said_and_what_is_missing_named() {
    let cluster = Cluster::without_definition().await;
    let mut agent = cluster.start(sick("XID 79"));
    settle().await;
    let conditions = cluster.node().await.status.unwrap().conditions.unwrap();
    let healthy = conditions
        .iter()
        .find(|it| it.type_ == status::NODE_CONDITION)
        .unwrap();
    assert_eq!(healthy.status, "False");
    assert!(
        healthy.message.as_ref().unwrap().contains("XID 79"),
        "{healthy:?}"
    );
    let told = agent.told();
    assert!(
        told.iter()
            .any(|text| text.contains("kubectl apply -f deploy/crds")),
        "{told:#?}"
    );
    cluster.define().await;
    cluster.until_ready(ConditionStatus::False).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_registered_yet_is_waited_for() {
    let cluster = Cluster::new().await;
    cluster
        .nodes()
        .delete(NODE, &DeleteParams::default())
        .await
        .unwrap();
    let mut agent = cluster.start(ready());
    tokio::time::sleep(Duration::from_mins(2)).await;
    let told = agent.told();
    assert!(
        told.iter().any(|text| text.contains("knows no node `worker-1`")),
        "{told:#?}"
    );
    cluster.register(json!([])).await;
    cluster.until_ready(ConditionStatus::True).await;
}

fn taint(key: &str) -> Value {
    json!({"key": key, "effect": "NoSchedule"})
}

#[tokio::test(start_paused = true)]
async fn the_start_up_taint_is_lifted_when_the_node_is_ready_and_no_other() {
    let cluster = Cluster::new().await;
    cluster
        .nodes()
        .delete(NODE, &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .register(json!([
            taint("nvidia.com/gpu"),
            taint(status::STARTUP_TAINT),
            taint("x")
        ]))
        .await;
    let agent = cluster.start(without_driver());
    cluster.until_ready(ConditionStatus::False).await;
    settle().await;
    assert_eq!(
        cluster.taints().await,
        ["nvidia.com/gpu", status::STARTUP_TAINT, "x"]
    );
    agent.snapshots.send_replace(ready());
    settle().await;
    assert_eq!(cluster.taints().await, ["nvidia.com/gpu", "x"]);
}

async fn set_taints(cluster: &Cluster, taints: Value) {
    let patch = json!({"spec": {"taints": taints}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    cluster.nodes().patch(NODE, &params, &patch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_taint_that_is_put_back_is_left_to_whoever_did_it() {
    let cluster = Cluster::new().await;
    set_taints(&cluster, json!([taint(status::STARTUP_TAINT)])).await;
    let mut agent = cluster.start(ready());
    settle().await;
    assert!(cluster.taints().await.is_empty());
    agent.told();
    set_taints(&cluster, json!([taint(status::STARTUP_TAINT)])).await;
    for snapshot in [without_driver(), ready(), without_driver(), ready()] {
        agent.snapshots.send_replace(snapshot);
        tokio::time::sleep(Duration::from_mins(6)).await;
    }
    assert_eq!(cluster.taints().await, [status::STARTUP_TAINT]);
    let told = agent.told();
    let about = told
        .iter()
        .filter(|text| text.contains("is on the node again"))
        .count();
    assert_eq!(about, 1, "{told:#?}");
}

/// Two who change the list at once: neither loses its own.
#[tokio::test(start_paused = true)]
async fn a_list_of_taints_that_changes_under_the_patch_loses_nothing() {
    let cluster = Cluster::new().await;
    set_taints(&cluster, json!([taint("a"), taint(status::STARTUP_TAINT)])).await;
    // The patch arrives late: meanwhile another taint has come to the front.
    let patches = Match::default()
        .verb(Verb::Patch)
        .resource("nodes")
        .subresource("");
    cluster.server.faults().delay(patches, Duration::from_secs(2));
    let _agent = cluster.start(ready());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut node = cluster.node().await;
    let taints = json!([taint("b"), taint("a"), taint(status::STARTUP_TAINT)]);
    node.spec.as_mut().unwrap().taints = serde_json::from_value(taints).unwrap();
    cluster
        .nodes()
        .replace(NODE, &PostParams::default(), &node)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        cluster.taints().await,
        ["b", "a", status::STARTUP_TAINT],
        "the test of the patch failed"
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.taints().await, ["b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_gets_lost_makes_no_second_event() {
    let cluster = Cluster::new().await;
    let writes = Match::default()
        .verb(Verb::Create)
        .resource("events.events.k8s.io");
    cluster.server.faults().fail(writes, Fault::LostAnswer, 3);
    let _agent = cluster.start(ready());
    cluster.until_ready(ConditionStatus::True).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(cluster.events().await, [("GpusReady".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_happens_again_is_counted_and_what_happens_for_another_reason_is_not() {
    let cluster = Cluster::new().await;
    let agent = cluster.start(ready());
    settle().await;
    for why in ["XID 79", "XID 79", "XID 48"] {
        cluster.clock.0.fetch_add(5, Ordering::Relaxed);
        agent.snapshots.send_replace(sick(why));
        settle().await;
        agent.snapshots.send_replace(ready());
        settle().await;
    }
    let mut events = cluster.events().await;
    events.retain(|(reason, _)| reason.starts_with("GpuUnhealthy"));
    events.sort();
    assert_eq!(
        events,
        [("GpuUnhealthy".to_owned(), 1), ("GpuUnhealthy".to_owned(), 2)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_with_what_to_look_at_and_once() {
    let cluster = Cluster::new().await;
    let forbidden = ApiError::new(403, "ValidatingAdmissionPolicy 'pitcrew-agent' denied request");
    let writes = Match::default().verb(Verb::Patch).resource("gpunodes");
    cluster
        .server
        .faults()
        .fail(writes, Fault::Error(forbidden), 1_000_000);
    let mut agent = cluster.start(ready());
    tokio::time::sleep(Duration::from_mins(30)).await;
    let told = agent.told();
    let refused: Vec<_> = told
        .iter()
        .filter(|text| text.contains("denied request"))
        .collect();
    assert_eq!(refused.len(), 1, "{told:#?}");
    assert!(refused[0].contains("kubectl apply -k deploy"), "{refused:?}");
    // Later and later: half an hour is not a thousand requests.
    assert!(cluster.server.audit().take().len() < 400);
}

#[tokio::test(start_paused = true)]
async fn a_node_on_its_own_keeps_its_marker_files() {
    let root = tempfile::tempdir().unwrap();
    let (notices, told) = mpsc::unbounded_channel();
    let deps = Deps {
        settings: Settings::new(NODE),
        driver: Arc::new(Nothing),
        host: Arc::new(pitcrew_host::HostRoots::new(pitcrew_host::Roots::under("/"))),
        root: root.path().to_owned(),
        system: Arc::new(Nothing),
        prover: Arc::new(pitcrew_agent::deps::NoProver),
        client: None,
        clock: Arc::new(Told(AtomicU64::new(0))),
        notices,
    };
    let mut agent = start(deps, without_driver(), told);
    settle().await;
    let dir = root.path().join("run/nvidia/validations");
    assert!(!dir.exists());
    agent.snapshots.send_replace(ready());
    settle().await;
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    let told = agent.told();
    assert!(
        told.iter().any(|text| text.contains("sudo apt install")),
        "{told:#?}"
    );
    assert!(
        told.iter().any(|text| text.starts_with("Ready is True")),
        "{told:#?}"
    );
    agent.stop().await;
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        3,
        "an agent that stops takes nothing away"
    );
}

/// One step of a bad day.
#[derive(Debug, Clone)]
enum Step {
    Becomes(usize),
    Fails(usize, usize),
    Cuts,
    Expires,
    Deletes,
    Waits(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_usize).prop_map(Step::Becomes),
        3 => ((0..3_usize), (1..20_usize)).prop_map(|(which, times)| Step::Fails(which, times)),
        1 => Just(Step::Cuts),
        1 => Just(Step::Expires),
        1 => Just(Step::Deletes),
        4 => (0..20_000_u64).prop_map(Step::Waits),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever goes wrong on the way, in the end the server has what holds, and then nothing is written any more.
    #[test]
    fn in_the_end_the_server_has_what_holds(steps in steps(), last in 0..4_usize) {
        let snapshots = [ready(), without_driver(), sick("XID 79"), node::with_problem(ready(), Part::Plugin, "OtherPlugin")];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let cluster = Cluster::new().await;
            let agent = cluster.start(node::nothing_known());
            let faults = cluster.server.faults();
            for step in steps {
                match step {
                    Step::Becomes(which) => { agent.snapshots.send_replace(snapshots[which].clone()); }
                    Step::Fails(which, times) => {
                        let fault = [Fault::Refused, Fault::LostAnswer, Fault::Error(ApiError::new(503, "etcd has no leader"))];
                        faults.fail(Match::default(), fault[which].clone(), times);
                    }
                    Step::Cuts => faults.drop_watches(Match::default()),
                    Step::Expires => faults.expire_watches(Match::default()),
                    Step::Deletes => { let _ = cluster.gpu_nodes().delete(NODE, &DeleteParams::default()).await; }
                    Step::Waits(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
                }
            }
            faults.clear();
            agent.snapshots.send_replace(snapshots[last].clone());
            tokio::time::sleep(Duration::from_mins(2)).await;
            let object = cluster.gpu_nodes().get(NODE).await.unwrap();
            let status = object.status.unwrap();
            for judgement in status::judge(&snapshots[last]) {
                let condition = status.condition(judgement.kind).unwrap();
                prop_assert_eq!(condition.status, judgement.status);
                prop_assert_eq!(&condition.reason, &judgement.reason);
            }
            let conditions = cluster.node().await.status.unwrap().conditions.unwrap();
            let healthy = conditions.into_iter().find(|it| it.type_ == status::NODE_CONDITION).unwrap();
            prop_assert_eq!(healthy.status, status.condition(kind::HEALTHY).unwrap().status.to_string());
            cluster.server.audit().take();
            tokio::time::sleep(Duration::from_mins(20)).await;
            let writes = cluster.server.audit().take();
            prop_assert!(writes.iter().all(|it| matches!(it.verb, Verb::Get | Verb::List | Verb::Watch)), "{writes:#?}");
            Ok(())
        })?;
    }
}
