//! What the agent says of its node, said to a real API server with a pod's own token: roles and policies suffice, and
//! everything is as a real server takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pitcrew_agent::deps::Deps;
use pitcrew_agent::runtime::Tier;
use pitcrew_agent::settings::Settings;
use pitcrew_agent::snapshot::Snapshot;
use pitcrew_agent::status;
use pitcrew_core::plugin::{Device, Resource, Sharing};
use pitcrew_core::ports::{Clock, InventorySource as _};
use pitcrew_host::{Host, HostRoots, Roots};
use pitcrew_scenario::{HostRoot, Machine, Scenario};
use pitcrew_tests::{kubectl, wait_for};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::cluster::{Deployed, NODE};
use crate::nothing::Nothing;

struct Now;

impl Clock for Now {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

fn snapshot() -> Snapshot {
    let mut machine = Machine::new(Scenario::builtin("h100x8").unwrap());
    let host = Host::gather(&HostRoot::over(machine.clone()).unwrap());
    let inventory = machine.inventory().unwrap();
    let device = |gpu: &pitcrew_core::Gpu| {
        let uuid = gpu.readings.uuid.value().unwrap().clone();
        Device {
            id: uuid.clone(),
            uuid: uuid.clone(),
            gpu: uuid,
            gpu_index: gpu.index,
            numa: None,
        }
    };
    let resource = Resource {
        name: "nvidia.com/gpu".to_owned(),
        sharing: Sharing::None,
        one_per_container: false,
        devices: inventory.gpus.iter().map(device).collect(),
    };
    Snapshot {
        host: Some(Arc::new(host)),
        gpus: Some(Ok(Arc::new(inventory))),
        sick: BTreeMap::new(),
        held: Some(BTreeMap::new()),
        resources: vec![resource],
        registered: BTreeSet::from(["nvidia.com/gpu".to_owned()]),
        unhealthy: BTreeMap::new(),
        tier: Tier::Native,
        problems: BTreeMap::new(),
        remarks: BTreeMap::new(),
        proof: Arc::default(),
    }
}

fn read(arguments: &[&str]) -> Value {
    let found = kubectl(&[arguments, &["-o", "json"]].concat(), "");
    serde_json::from_str(&found.stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
async fn an_agent_with_a_pods_token_says_all_that_it_has_to_say() {
    let deployed = Deployed::new();
    let token = deployed.token("pitcrew-agent", NODE);
    kubectl(
        &["taint", "node", NODE, "pitcrew.dev/not-ready=:PreferNoSchedule"],
        "",
    )
    .ok();
    let root = tempfile::tempdir().unwrap();
    let (notices, mut told) = mpsc::unbounded_channel();
    let deps = Deps {
        settings: Settings::new(NODE),
        driver: Arc::new(Nothing),
        host: Arc::new(HostRoots::new(Roots::under("/"))),
        root: root.path().to_owned(),
        system: Arc::new(Nothing),
        prover: Arc::new(pitcrew_agent::deps::NoProver),
        client: Some(token.client().await),
        clock: Arc::new(Now),
        notices,
    };
    let first = snapshot();
    let (snapshots, receiver) = watch::channel(first.clone());
    let (sender, _wanted) = watch::channel(None);
    let task = tokio::spawn(async move { status::keep(&deps, receiver, sender).await });

    let object = wait_for("the GpuNode to be ready", || {
        let object = read(&["get", "gpunode", NODE]);
        let conditions = object["status"]["conditions"].as_array()?.clone();
        conditions
            .iter()
            .any(|it| it["type"] == "Ready" && it["status"] == "True")
            .then_some(object)
    });
    assert_eq!(object["status"]["gpus"].as_array().unwrap().len(), 8);
    assert_eq!(
        object["metadata"]["ownerReferences"][0]["uid"],
        deployed.uid(NODE).as_str()
    );
    wait_for("the taint to be lifted", || {
        let taints = read(&["get", "node", NODE])["spec"]["taints"].to_string();
        (!taints.contains("pitcrew.dev/not-ready")).then_some(())
    });

    // A GPU falls ill: the condition of the Node, and an Event that `kubectl describe` shows.
    let mut ill = first.clone();
    let Some(Ok(inventory)) = &first.gpus else {
        unreachable!("the snapshot has GPUs")
    };
    let uuid = inventory.gpus[3].readings.uuid.value().unwrap().clone();
    ill.sick
        .insert(uuid.clone(), "XID 79: GPU has fallen off the bus".to_owned());
    snapshots.send_replace(ill);
    let described = wait_for("the Event", || {
        let described = kubectl(&["describe", "node", NODE], "").ok();
        described.contains("GpuUnhealthy").then_some(described)
    });
    assert!(
        described.contains("XID 79") && described.contains(&uuid),
        "{described}"
    );
    assert!(described.contains("GpuHealthy"), "{described}");
    assert_eq!(read(&["get", "gpunode", NODE])["status"]["sickCount"], 1);

    // What is said again is not written again: the server's own count of revisions says so.
    let revision = || read(&["get", "gpunode", NODE])["metadata"]["resourceVersion"].clone();
    let before = revision();
    snapshots.send_modify(|_| {});
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(revision(), before);

    drop(snapshots);
    task.await.unwrap();
    let complaints: Vec<String> = std::iter::from_fn(|| told.try_recv().ok())
        .map(|notice| notice.text)
        .filter(|text| text.contains("API server"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    // A Node's own condition would stay: the node is the bed's.
    let at = read(&["get", "node", NODE])["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .position(|it| it["type"] == status::NODE_CONDITION);
    let remove = format!(
        r#"[{{"op": "remove", "path": "/status/conditions/{}"}}]"#,
        at.unwrap()
    );
    kubectl(
        &[
            "patch",
            "node",
            NODE,
            "--subresource=status",
            "--type=json",
            "-p",
            &remove,
        ],
        "",
    )
    .ok();
}
