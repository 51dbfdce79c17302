//! Proofs of the node's GPUs: when they run, what they keep from pods meanwhile, which reports count.

use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use pitcrew_agent::deps::ProofOrder;
use pitcrew_agent::proof::{DIR, hand_over};
use pitcrew_api::condition::kind;
use pitcrew_api::{Condition, ConditionStatus, GpuNode};
use pitcrew_core::proof::{Profile, Report};
use pitcrew_kubelet::fake::Pod;
use serde_json::{Value, json};

use crate::bench::{Bench, GPU, LONG};

async fn want(bench: &Bench, proof: Value) {
    let api: Api<GpuNode> = Api::all(bench.node.client().clone());
    let patch = Patch::Merge(json!({"spec": {"proof": proof}}));
    let name = bench.node.name();
    // It is made by the agent, or by whoever wants something first.
    let waited = async {
        while api.patch(name, &PatchParams::default(), &patch).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, waited).await.unwrap();
}

/// The `GpuNode`, as soon as `Proven` is so.
async fn proven(bench: &Bench, is_so: impl Fn(&Condition) -> bool) -> GpuNode {
    let api: Api<GpuNode> = Api::all(bench.node.client().clone());
    let waited = async {
        loop {
            let object = api.get_opt(bench.node.name()).await.unwrap();
            let status = object.as_ref().and_then(|object| object.status.as_ref());
            if status
                .and_then(|status| status.condition(kind::PROVEN))
                .is_some_and(&is_so)
            {
                return object.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, waited).await;
    waited.unwrap_or_else(|_| panic!("Proven never said it; the agent told:\n{}", bench.told()))
}

fn is(status: ConditionStatus) -> impl Fn(&Condition) -> bool {
    move |condition| condition.status == status
}

fn condition<'a>(object: &'a GpuNode, kind: &str) -> &'a Condition {
    object.status.as_ref().unwrap().condition(kind).unwrap()
}

async fn take(bench: &Bench, name: &str, count: usize) -> Vec<String> {
    let pod = Pod::new("default", name).container("main", &[(GPU, count)]);
    bench.node.kubelet().admit(&pod).await.unwrap();
    let held = bench.node.kubelet().held();
    let ours = held.into_iter().filter(|held| held.pod == name);
    ours.map(|held| held.id).collect()
}

/// A report of all GPUs of the node, as somebody would hand it over.
fn report(bench: &Bench) -> Report {
    let order = ProofOrder {
        devices: bench.node.machine().uuids(),
        profile: Profile::Smoke,
        node: bench.node.name().to_owned(),
    };
    bench.node.prover().report(&order).unwrap()
}

#[tokio::test]
async fn nothing_is_proved_unless_it_is_asked_for_and_a_request_is_answered_once() {
    let bench = Bench::running("rtx3060", 1).await;
    let object = proven(&bench, |it| it.reason == "NotProven").await;
    assert!(
        condition(&object, kind::PROVEN)
            .hint
            .as_ref()
            .unwrap()
            .contains("kubectl patch gpunode")
    );
    assert_eq!(bench.node.prover().orders(), []);
    want(&bench, json!({"request": "today", "profile": "smoke"})).await;
    let object = proven(&bench, is(ConditionStatus::True)).await;
    bench.has(GPU, 1).await;
    let status = object.status.as_ref().unwrap();
    let proof = status.gpus[0].proof.as_ref().unwrap();
    assert!(["PASS", "WARN"].contains(&proof.verdict.as_str()), "{proof:?}");
    assert!(proof.verified > 0);
    let marker = bench.node.root().join("run/nvidia/validations/cuda-ready");
    bench.until("a CUDA program has run", || marker.exists()).await;
    let orders = bench.node.prover().orders();
    assert_eq!(orders.len(), 1, "{orders:?}");
    assert_eq!(orders[0].profile, Profile::Smoke);
    // A new agent knows that the request was answered, and by the report that the GPU is proven.
    let mut bench = bench;
    bench.node.kill_agent().await;
    bench.node.start_agent().await;
    bench.has(GPU, 1).await;
    proven(&bench, is(ConditionStatus::True)).await;
    want(&bench, json!({"request": "tomorrow"})).await;
    bench
        .until("the second request is answered", || {
            bench.node.prover().orders().len() == 2
        })
        .await;
}

#[tokio::test]
async fn a_gpu_that_a_pod_holds_is_never_proved_and_follows_when_it_is_free() {
    let bench = Bench::running("h100x8", 8).await;
    let held = take(&bench, "train", 2).await;
    want(&bench, json!({"request": "now", "profile": "smoke"})).await;
    let object = proven(&bench, |it| it.reason == "Waiting").await;
    let message = &condition(&object, kind::PROVEN).message;
    assert!(message.contains("default/train holds it"), "{message}");
    let orders = bench.node.prover().orders();
    assert_eq!(orders.len(), 1, "{orders:?}");
    assert_eq!(orders[0].devices.len(), 6, "all that are free, at once");
    assert!(
        held.iter().all(|gpu| !orders[0].devices.contains(gpu)),
        "{orders:?}"
    );
    bench.node.kubelet().remove_pod("default", "train");
    proven(&bench, is(ConditionStatus::True)).await;
    let orders = bench.node.prover().orders();
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert_eq!(orders[1].devices.len(), 2);
    bench.has(GPU, 8).await;
}

async fn a_proof_runs(bench: &Bench) {
    bench
        .until("a proof runs", || !bench.node.prover().proving().is_empty())
        .await;
}

/// A node with one GPU, of which a proof runs that does not end by itself.
async fn in_a_proof() -> Bench {
    let bench = Bench::running("rtx3060", 1).await;
    bench.node.prover().hold();
    want(&bench, json!({"request": "now"})).await;
    a_proof_runs(&bench).await;
    bench
}

#[tokio::test]
async fn what_is_being_proved_is_withheld_and_is_neither_sick_nor_does_the_node_lose_its_readiness() {
    let bench = in_a_proof().await;
    bench.has(GPU, 0).await;
    let pod = Pod::new("default", "train").container("main", &[(GPU, 1)]);
    assert!(bench.node.kubelet().admit(&pod).await.is_err(), "it waits");
    let object = proven(&bench, |it| it.reason == "Proving").await;
    assert_eq!(object.status.as_ref().unwrap().sick_count, Some(0));
    let api: Api<GpuNode> = Api::all(bench.node.client().clone());
    let waited = async {
        loop {
            let object = api.get(bench.node.name()).await.unwrap();
            if condition(&object, kind::DEVICES_ADVERTISED).reason == "BeingProved" {
                return object;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let object = tokio::time::timeout(LONG, waited).await.unwrap();
    assert_eq!(condition(&object, kind::READY).status, ConditionStatus::True);
    bench.node.prover().let_go();
    bench.has(GPU, 1).await;
    proven(&bench, is(ConditionStatus::True)).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_in_a_proof_is_followed_by_one_that_ends_it_and_gives_the_gpu_back() {
    let mut bench = in_a_proof().await;
    bench.node.kill_agent().await;
    assert_eq!(
        bench.node.prover().proving().len(),
        1,
        "it has outlived its agent"
    );
    want(&bench, json!({"request": null})).await;
    bench.node.start_agent().await;
    bench.tells("that an agent before this one began is ended").await;
    bench.has(GPU, 1).await;
    assert_eq!(bench.node.prover().proving(), [""; 0]);
}

#[tokio::test]
async fn an_agent_that_is_asked_to_end_ends_its_proof() {
    let mut bench = in_a_proof().await;
    bench.node.stop_agent().await.unwrap();
    assert_eq!(bench.node.prover().proving(), [""; 0]);
}

#[tokio::test]
async fn a_report_that_is_handed_over_counts_and_one_that_is_not_of_this_node_does_not() {
    let bench = Bench::running("h100x8", 8).await;
    let root = bench.node.root();
    let mut other = report(&bench);
    other.evidence.node.name = "another".to_owned();
    hand_over(root, &other).unwrap();
    bench.tells("it is of the node `another`").await;
    let mut planted = report(&bench);
    planted.evidence.run.injected = vec!["sm=7,bit=12".to_owned()];
    std::fs::write(
        root.join(DIR.trim_start_matches('/')).join("planted.json"),
        json(&planted),
    )
    .unwrap();
    bench.tells("faults were planted in it (sm=7,bit=12)").await;
    std::fs::write(root.join(DIR.trim_start_matches('/')).join("none.json"), "{}").unwrap();
    bench.tells("its schema is `none`").await;
    proven(&bench, |it| it.reason == "NotProven").await;

    hand_over(root, &report(&bench)).unwrap();
    proven(&bench, is(ConditionStatus::True)).await;
    assert_eq!(bench.node.prover().orders(), []);
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap()
}

#[tokio::test]
async fn a_wrong_result_is_told_with_its_gpu_and_takes_it_from_pods_only_where_that_is_asked_for() {
    let bench = Bench::running("h100x8", 8).await;
    let bad = bench.node.machine().uuids()[3].clone();
    bench.node.prover().corrupt(&bad);
    want(&bench, json!({"request": "now", "profile": "smoke"})).await;
    let object = proven(&bench, |it| it.reason == "FailCorruption").await;
    let proven_is = condition(&object, kind::PROVEN);
    assert_eq!(proven_is.status, ConditionStatus::False);
    assert!(
        proven_is.message.contains(&bad) && proven_is.message.starts_with("GPU 3"),
        "{proven_is:?}"
    );
    assert!(
        proven_is.hint.as_ref().unwrap().contains("out of service"),
        "{proven_is:?}"
    );
    bench.has(GPU, 8).await;
    want(&bench, json!({"gatesReadiness": true})).await;
    bench.has(GPU, 7).await;
    assert_eq!(bench.unhealthy(GPU), [bad]);
}

#[tokio::test]
async fn where_readiness_hangs_on_it_no_gpu_goes_to_pods_before_it_is_proven() {
    let mut bench = Bench::new("rtx3060").await;
    bench.node.prover().hold();
    let proof = &mut bench.node.settings_mut().proof;
    proof.gates_readiness = true;
    proof.when_unproven = true;
    bench.node.start_agent().await;
    a_proof_runs(&bench).await;
    assert_eq!(
        bench
            .node
            .kubelet()
            .capacity()
            .get(GPU)
            .map_or(0, |found| found.1),
        0
    );
    bench.node.prover().let_go();
    bench.has(GPU, 1).await;
    proven(&bench, is(ConditionStatus::True)).await;
}

#[tokio::test]
async fn a_proof_that_could_not_run_is_told_and_not_tried_again_at_once() {
    let mut bench = Bench::new("rtx3060").await;
    bench.node.prover().fail(Some("there is no `libcuda.so.1`"));
    bench.node.settings_mut().proof.when_unproven = true;
    bench.node.start_agent().await;
    let object = proven(&bench, |it| it.reason == "ProofFailed").await;
    let message = &condition(&object, kind::PROVEN).message;
    assert!(message.contains("there is no `libcuda.so.1`"), "{message}");
    bench.has(GPU, 1).await;
    assert_eq!(bench.node.prover().orders().len(), 1);
}
