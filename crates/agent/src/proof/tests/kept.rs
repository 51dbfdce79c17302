//! The task, and one attempt of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use pitcrew_core::proof::{Profile, SetupError, SetupErrorCode, Timestamp};
use tokio::sync::{oneshot, watch};

use super::super::attempt::{Attempt, Hands};
use super::super::keep::{Books, Channels, keep};
use super::super::{View, hand_over};
use super::{report, uuid};
use crate::plugin::{Ledger, Status};
use crate::testing::{Bench, NODE, until};

/// Nobody says what pods hold.
fn silent() -> Books {
    Arc::new(|| std::future::pending().boxed())
}

#[tokio::test]
async fn a_report_that_proves_nothing_is_told_and_removed_and_those_that_may_count_stay() {
    let mut bench = Bench::without_node("rtx3060");
    let snapshot = bench.look();
    let gpu = uuid(&snapshot.gpus.as_ref().unwrap().as_ref().unwrap().gpus[0]);
    let of_node = |change: fn(&mut pitcrew_core::proof::Evidence)| {
        report(|evidence| {
            evidence.node.name = NODE.to_owned();
            evidence.run.started = Timestamp::of(bench.deps.clock.now());
            evidence.devices.truncate(1);
            evidence.devices[0].device.uuid.clone_from(&gpu);
            change(evidence);
        })
    };
    let put = |report| hand_over(&bench.deps.root, &report).unwrap();
    let failed = put(of_node(|evidence| {
        evidence.devices.clear();
        evidence.setup_error = Some(SetupError {
            code: SetupErrorCode::NoDriver,
            message: "there is no driver".to_owned(),
            fix: None,
            cuda_error: None,
        });
    }));
    let of_another = put(of_node(|evidence| evidence.node.name = "another".to_owned()));
    let early = put(of_node(|evidence| evidence.run.started.0 += 3_600));
    let elsewhere = put(of_node(|evidence| {
        evidence.devices[0].device.uuid = "GPU-0".to_owned();
    }));
    let good = put(of_node(|_| {}));

    let (_snapshots, snapshots) = watch::channel(snapshot);
    let (_wanted, wanted) = watch::channel(None);
    let (_plugin, plugin) = watch::channel(Status::default());
    let (view, mut seen) = watch::channel(None::<View>);
    let channels = Channels {
        snapshots,
        wanted,
        plugin,
        view,
    };
    let (end, ended) = oneshot::channel::<()>();
    let task = tokio::spawn(keep(
        Arc::clone(&bench.deps),
        channels,
        Arc::new(Ledger::default()),
        silent(),
        ended.map(drop),
    ));
    let is_taken_up = |view: &Option<View>| view.as_ref().is_some_and(|view| view.proofs.contains_key(&gpu));
    let taken_up = seen.wait_for(is_taken_up);
    tokio::time::timeout(Duration::from_mins(1), taken_up)
        .await
        .unwrap()
        .unwrap();
    until("what never counts is gone", async || {
        !failed.exists() && !of_another.exists()
    })
    .await;
    assert!(early.exists() && elsewhere.exists() && good.exists());
    end.send(()).unwrap();
    task.await.unwrap();
    let told = bench.told();
    let about = |path: &std::path::Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut about = told.iter().filter(|text| text.contains(name));
        let text = about.next().unwrap().clone();
        assert_eq!(about.next(), None, "once");
        text
    };
    assert!(about(&failed).ends_with("no GPU was tested: there is no driver; it is removed"));
    assert!(about(&of_another).ends_with("; it is removed"));
    assert!(!about(&early).contains("removed") && !about(&elsewhere).contains("removed"));
}

#[tokio::test]
async fn an_attempt_that_still_asks_who_holds_what_is_called_off_at_once() {
    let bench = Bench::without_node("rtx3060");
    let snapshot = bench.look();
    let inventory = Arc::clone(snapshot.gpus.as_ref().unwrap().as_ref().unwrap());
    let gpu = uuid(&inventory.gpus[0]);
    let (stop, stopped) = watch::channel(false);
    let (_plugin, plugin) = watch::channel(Status::default());
    let hands = watch::Sender::new(Hands::default());
    let mut seen = hands.subscribe();
    let attempt = Attempt {
        deps: Arc::clone(&bench.deps),
        ledger: Arc::new(Ledger::default()),
        books: silent(),
        plugin,
        resources: Vec::new(),
        inventory,
        gpus: BTreeMap::from([(gpu.clone(), vec![gpu.clone()])]),
        profile: Profile::Smoke,
        hands,
        stop: stopped,
    };
    let task = tokio::spawn(attempt.run());
    seen.wait_for(|hands| hands.withheld.contains_key(&gpu))
        .await
        .unwrap();
    stop.send_replace(true);
    let outcome = tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
    assert!(outcome.cut_short);
    assert_eq!(outcome.begun, BTreeSet::new());
}
