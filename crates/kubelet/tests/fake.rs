//! What only the fake kubelet shows: pods in detail, refusals, the end of the grace period, many at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pitcrew_kubelet::device_plugin::{self, Device, DevicePluginOptions};
use pitcrew_kubelet::fake::plugin::{CALL, Call, DEVICES, Plugin, device};
use pitcrew_kubelet::fake::{AdmitError, Form, Held, Kubelet, Options, Pod, conflicts};
use pitcrew_kubelet::pod_resources::{self, GetPodResourcesRequest};
use pitcrew_kubelet::{SocketError, connect};
use proptest::prelude::*;

const DEADLINE: Duration = Duration::from_secs(10);
const GPU: &str = "nvidia.com/gpu";
const PREFERS: DevicePluginOptions = DevicePluginOptions {
    pre_start_required: false,
    get_preferred_allocation_available: true,
};

fn healthy(ids: &[&str]) -> Vec<Device> {
    ids.iter().map(|&id| device(id, true, &[])).collect()
}

async fn with(devices: Vec<Device>, options: DevicePluginOptions) -> (tempfile::TempDir, Kubelet, Plugin) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let kubelet = Kubelet::start(dir.path()).await.expect("it starts");
    let count = devices
        .iter()
        .filter(|device| device.health == device_plugin::HEALTHY)
        .count();
    let plugin = Plugin::serve(dir.path(), "gpu.sock", options, devices)
        .await
        .expect("it serves");
    plugin.register(GPU).await.expect("it is taken");
    kubelet
        .wait_for(GPU, count, DEADLINE)
        .await
        .expect("its devices are there");
    (dir, kubelet, plugin)
}

fn pod(name: &str, count: usize) -> Pod {
    Pod::new("default", name).container("main", &[(GPU, count)])
}

fn ids(held: &[Held], pod: &str, container: &str) -> Vec<String> {
    let mine = |held: &&Held| held.pod == pod && held.container == container;
    held.iter().filter(mine).map(|held| held.id.clone()).collect()
}

#[tokio::test]
async fn a_pod_that_wants_more_than_is_free_gets_nothing() {
    let (_dir, kubelet, plugin) = with(healthy(&["a", "b", "c"]), DevicePluginOptions::default()).await;
    kubelet.admit(&pod("first", 2)).await.expect("two are free");
    let refused = kubelet.admit(&pod("second", 2)).await;
    let expected = AdmitError::Insufficient {
        resource: GPU.to_owned(),
        wanted: 2,
        free: 1,
    };
    assert_eq!(refused, Err(expected));
    assert_eq!(ids(&kubelet.held(), "second", "main"), Vec::<String>::new());
    // The plugin was not even asked.
    assert_eq!(plugin.calls().len(), 1);
    assert!(kubelet.remove_pod("default", "first"));
    kubelet.admit(&pod("second", 2)).await.expect("all are free");
}

#[tokio::test]
async fn a_pod_that_fails_in_its_second_container_gives_all_back() {
    let (_dir, kubelet, _plugin) = with(healthy(&["a", "b", "c"]), DevicePluginOptions::default()).await;
    let greedy = pod("greedy", 2).container("more", &[(GPU, 2)]);
    assert!(kubelet.admit(&greedy).await.is_err());
    assert_eq!(kubelet.held(), []);
    kubelet.admit(&pod("other", 3)).await.expect("all are free");
}

#[tokio::test]
async fn unhealthy_devices_are_not_handed_out_and_who_has_them_keeps_them() {
    let (_dir, kubelet, plugin) = with(healthy(&["a", "b"]), DevicePluginOptions::default()).await;
    let started = kubelet.admit(&pod("holder", 1)).await.expect("one is free");
    plugin.set(vec![device("a", false, &[]), device("b", false, &[])]);
    kubelet
        .wait_for(GPU, 0, DEADLINE)
        .await
        .expect("both are unhealthy");
    assert_eq!(kubelet.capacity().get(GPU), Some(&(2, 0)));
    let none = AdmitError::NoneHealthy {
        resource: GPU.to_owned(),
    };
    assert_eq!(kubelet.admit(&pod("late", 1)).await, Err(none));
    let known = kubelet.devices(GPU);
    assert_eq!(
        known.iter().map(|known| known.healthy).collect::<Vec<_>>(),
        [false, false]
    );
    assert_eq!(known[0].held_by.len(), 1);
    let again = kubelet.restart_container("default", "holder", "main").await;
    assert_eq!(again.as_ref().ok(), started.get("main"));
}

#[tokio::test]
async fn a_refusal_of_the_plugin_reaches_the_pod_and_holds_nothing() {
    let (_dir, kubelet, plugin) = with(healthy(&["a", "b"]), DevicePluginOptions::default()).await;
    plugin.refuse(Some("maximum request size is 1"));
    let refused = kubelet
        .admit(&pod("refused", 2))
        .await
        .expect_err("it is refused");
    assert!(
        refused
            .to_string()
            .ends_with("failed in Allocate: maximum request size is 1"),
        "{refused}"
    );
    assert_eq!(kubelet.held(), []);
    plugin.refuse(None);
    kubelet
        .admit(&pod("admitted", 2))
        .await
        .expect("both are free still");
}

#[tokio::test]
async fn later_containers_get_the_devices_of_init_containers_first() {
    let (_dir, kubelet, plugin) = with(healthy(&["a", "b", "c", "d"]), PREFERS).await;
    let pod = Pod::new("default", "pod")
        .container("main", &[(GPU, 2)])
        .init_container("init", &[(GPU, 1)])
        .sidecar("sidecar", &[(GPU, 1)]);
    kubelet.admit(&pod).await.expect("there are enough");
    let held = kubelet.held();
    assert_eq!(ids(&held, "pod", "init"), ["d"]);
    // The sidecar comes after it and takes the init container's device for good.
    assert_eq!(ids(&held, "pod", "sidecar"), ["d"]);
    assert_eq!(ids(&held, "pod", "main"), ["b", "c"]);
    assert_eq!(conflicts(&held, whole), Vec::<String>::new());

    assert!(kubelet.remove_pod("default", "pod"));
    let pod = Pod::new("default", "again")
        .init_container("init", &[(GPU, 1)])
        .container("main", &[(GPU, 2)]);
    kubelet.admit(&pod).await.expect("there are enough");
    assert_eq!(ids(&kubelet.held(), "again", "main"), ["c", "d"]);
    let calls = plugin.calls();
    let last = calls.iter().rfind(|call| matches!(call, Call::Preferred { .. }));
    let expected = Call::Preferred {
        available: ["a", "b", "c", "d"].map(str::to_owned).into(),
        must_include: vec!["d".to_owned()],
        size: 2,
    };
    assert_eq!(last, Some(&expected));
}

fn whole(held: &Held) -> Option<(String, Form)> {
    (held.resource == GPU).then(|| (held.id.clone(), Form::Whole))
}

#[tokio::test]
async fn init_containers_that_end_are_not_in_pod_resources() {
    let (dir, kubelet, _plugin) = with(healthy(&["a", "b"]), DevicePluginOptions::default()).await;
    let pod = pod("pod", 1)
        .init_container("init", &[(GPU, 1)])
        .sidecar("sidecar", &[]);
    kubelet.admit(&pod).await.expect("there are enough");
    let socket = dir.path().join(pod_resources::DIR).join(pod_resources::SOCKET);
    let mut client = pod_resources::client(connect(socket, DEADLINE).await.expect("it is served"));
    let mut get = async |name: &str| {
        let request = GetPodResourcesRequest {
            pod_name: name.to_owned(),
            pod_namespace: "default".to_owned(),
        };
        client.get(request).await.map(tonic::Response::into_inner)
    };
    let found = get("pod").await.expect("there is such a pod").pod_resources;
    let names: Vec<String> = found
        .expect("the answer has one")
        .containers
        .into_iter()
        .map(|container| container.name)
        .collect();
    assert_eq!(names, ["sidecar", "main"]);
    assert!(get("none").await.is_err());
}

#[tokio::test]
async fn devices_near_to_the_wanted_numa_node_go_first() {
    let devices = || {
        vec![
            device("a", true, &[0]),
            device("b", true, &[0]),
            device("c", true, &[1]),
            device("d", true, &[1]),
            device("e", true, &[]),
        ]
    };
    let (_dir, kubelet, plugin) = with(devices(), PREFERS).await;
    // More than enough are near: the plugin has the choice among them.
    kubelet
        .admit(&pod("one", 1).near([0]))
        .await
        .expect("there are enough");
    assert_eq!(ids(&kubelet.held(), "one", "main"), ["b"]);
    kubelet.remove_pod("default", "one");
    // Too few are near: all of them, and the plugin has the choice among the rest.
    kubelet
        .admit(&pod("three", 3).near([0]))
        .await
        .expect("there are enough");
    assert_eq!(ids(&kubelet.held(), "three", "main"), ["a", "b", "e"]);
    let asked: Vec<_> = plugin
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::Preferred {
                available,
                must_include,
                size,
            } => Some((available.join(""), must_include.join(""), size)),
            _ => None,
        })
        .collect();
    let expected = [("ab", "", 1), ("abcde", "ab", 3)];
    let expected = expected.map(|(available, must, size)| (available.to_owned(), must.to_owned(), size));
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_plugin_without_an_opinion_is_not_asked() {
    let (_dir, kubelet, plugin) = with(healthy(&["a", "b"]), DevicePluginOptions::default()).await;
    kubelet.admit(&pod("pod", 1)).await.expect("there are enough");
    assert_eq!(plugin.calls(), [Call::Allocate(vec!["a".to_owned()])]);
}

#[tokio::test]
async fn a_container_with_two_resources_gets_both_answers() {
    let (dir, kubelet, _plugin) = with(healthy(&["a"]), DevicePluginOptions::default()).await;
    let mig = Plugin::serve(
        dir.path(),
        "mig.sock",
        DevicePluginOptions::default(),
        healthy(&["m"]),
    )
    .await;
    let mig = mig.expect("it serves");
    mig.register("nvidia.com/mig-1g.5gb").await.expect("it is taken");
    kubelet
        .wait_for("nvidia.com/mig-1g.5gb", 1, DEADLINE)
        .await
        .expect("it is there");
    let pod = Pod::new("default", "pod").container("main", &[(GPU, 1), ("nvidia.com/mig-1g.5gb", 1)]);
    let started = kubelet.admit(&pod).await.expect("there are enough");
    let main = &started["main"];
    assert_eq!(main.devices.len(), 2);
    // Both say something of the same variables: the first counts.
    let expected = [(CALL, "1"), (DEVICES, "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(main.options.envs, BTreeMap::from(expected));
}

#[tokio::test]
async fn after_the_grace_period_a_resource_is_forgotten_and_its_containers_can_not_start() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let options = Options {
        grace: Duration::from_millis(50),
        ..Options::default()
    };
    let kubelet = Kubelet::with(dir.path(), options).await.expect("it starts");
    let plugin = Plugin::serve(dir.path(), "gpu.sock", PREFERS, healthy(&["a"]))
        .await
        .expect("it serves");
    plugin.register(GPU).await.expect("it is taken");
    kubelet.wait_for(GPU, 1, DEADLINE).await.expect("it is there");
    kubelet.admit(&pod("pod", 1)).await.expect("there is one");
    plugin.stop().await;
    kubelet
        .wait_until("no plugin", DEADLINE, |kubelet| kubelet.registered().is_empty())
        .await
        .expect("its end is seen");
    assert_eq!(kubelet.allocatable(GPU), Some(0));
    kubelet
        .restart_container("default", "pod", "main")
        .await
        .expect("it is known still");
    let end = tokio::time::Instant::now() + DEADLINE;
    while kubelet.capacity().contains_key(GPU) {
        assert!(tokio::time::Instant::now() < end, "it is known still");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let gone = AdmitError::PluginGone {
        resource: GPU.to_owned(),
    };
    assert_eq!(
        kubelet.restart_container("default", "pod", "main").await,
        Err(gone)
    );
    // The plugin's return cures it.
    let plugin = Plugin::serve(dir.path(), "gpu.sock", PREFERS, healthy(&["a"]))
        .await
        .expect("it serves");
    plugin.register(GPU).await.expect("it is taken");
    kubelet
        .restart_container("default", "pod", "main")
        .await
        .expect("it starts again");
}

#[tokio::test]
async fn what_is_held_outlives_a_stopped_kubelet_and_its_sockets_stay_dead() {
    let (dir, kubelet, plugin) = with(healthy(&["a", "b"]), DevicePluginOptions::default()).await;
    let pods = [pod("stays", 1), pod("goes", 1)];
    for pod in &pods {
        kubelet.admit(pod).await.expect("there are enough");
    }
    kubelet.stop().await;
    assert_eq!(kubelet.admit(&pod("late", 1)).await, Err(AdmitError::Stopped));
    assert_eq!(kubelet.held().len(), 2);
    let socket = dir.path().join(device_plugin::DIR).join(device_plugin::SOCKET);
    assert!(socket.exists());
    let error = connect(&socket, DEADLINE).await.expect_err("nobody serves it");
    assert!(matches!(error, SocketError::Connect { .. }), "{error}");
    // Its plugin sees the end.
    let end = tokio::time::Instant::now() + DEADLINE;
    while plugin.listeners() > 0 {
        assert!(
            tokio::time::Instant::now() < end,
            "the plugin's stream is open still"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(kubelet.remove_pod("default", "goes"));
    kubelet.resume().await.expect("it starts again");
    kubelet.resume().await.expect("that does nothing more");
    assert_eq!(ids(&kubelet.held(), "stays", "main"), ["a"]);
    assert_eq!(kubelet.allocatable(GPU), Some(0));
    let again = Plugin::serve(dir.path(), "gpu.sock", PREFERS, healthy(&["a", "b"]))
        .await
        .expect("it serves");
    again.register(GPU).await.expect("it is taken");
    kubelet.wait_for(GPU, 2, DEADLINE).await.expect("they are there");
    kubelet.admit(&pod("late", 1)).await.expect("one is free");
    assert_eq!(ids(&kubelet.held(), "late", "main"), ["b"]);
}

#[tokio::test]
async fn a_pod_that_is_admitted_again_keeps_its_devices_or_is_told_why_not() {
    let (_dir, kubelet, plugin) = with(healthy(&["a", "b"]), DevicePluginOptions::default()).await;
    let first = kubelet.admit(&pod("pod", 1)).await.expect("there is one");
    assert_eq!(kubelet.admit(&pod("pod", 1)).await.as_ref(), Ok(&first));
    let changed = kubelet.admit(&pod("pod", 2)).await;
    assert!(
        matches!(
            changed,
            Err(AdmitError::Changed {
                held: 1,
                wanted: 2,
                ..
            })
        ),
        "{changed:?}"
    );
    let first = kubelet.admit(&pod("pod", 1)).await.expect("there is one");
    plugin.set(vec![device("a", false, &[]), device("b", true, &[])]);
    kubelet
        .wait_for(GPU, 1, DEADLINE)
        .await
        .expect("one is unhealthy");
    assert_eq!(first["main"].devices[GPU], ["a"]);
    let unhealthy = kubelet.admit(&pod("pod", 1)).await;
    assert!(
        matches!(unhealthy, Err(AdmitError::Unhealthy { .. })),
        "{unhealthy:?}"
    );
}

#[tokio::test]
async fn what_never_comes_is_told_with_what_there_is() {
    let (_dir, kubelet, _plugin) = with(healthy(&["a", "b"]), DevicePluginOptions::default()).await;
    let late = kubelet
        .wait_for(GPU, 3, Duration::from_millis(1))
        .await
        .expect_err("there are two");
    assert_eq!(
        late.to_string(),
        "waited 1ms for 3 allocatable nvidia.com/gpu; there is nvidia.com/gpu: 2 of 2, served"
    );
    let unknown = kubelet
        .admit(&Pod::new("default", "pod").container("main", &[("a.b/c", 1)]))
        .await;
    assert!(
        matches!(unknown, Err(AdmitError::Unregistered { .. })),
        "{unknown:?}"
    );
    assert!(kubelet.restart_container("default", "pod", "main").await.is_err());
    assert_eq!(kubelet.plugin("a.b/c"), None);
    let socket = kubelet
        .plugin(GPU)
        .and_then(|path| path.file_name().map(PathBuf::from));
    assert_eq!(socket, Some(PathBuf::from("gpu.sock")));
}

#[tokio::test]
async fn a_kubelet_without_pod_resources_has_no_such_socket() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let options = Options {
        pod_resources: false,
        ..Options::default()
    };
    let _kubelet = Kubelet::with(dir.path(), options).await.expect("it starts");
    assert!(
        !dir.path()
            .join(pod_resources::DIR)
            .join(pod_resources::SOCKET)
            .exists()
    );
    assert!(
        dir.path()
            .join(device_plugin::DIR)
            .join(device_plugin::SOCKET)
            .exists()
    );
}

#[tokio::test]
async fn a_directory_that_is_too_deep_is_named() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let deep = dir.path().join("x".repeat(90));
    let error = Kubelet::start(&deep).await.expect_err("it is too long");
    assert!(matches!(error, SocketError::TooLong { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kubelets_live_in_one_process() {
    let mut all = tokio::task::JoinSet::new();
    for number in 0..100 {
        all.spawn(async move {
            let (_dir, kubelet, _plugin) = with(healthy(&["a", "b"]), PREFERS).await;
            kubelet.restart().await.expect("it starts again");
            let plugin = Plugin::serve(kubelet.dir(), "again.sock", PREFERS, healthy(&["c"])).await;
            let plugin = plugin.expect("it serves");
            plugin.register(GPU).await.expect("it is taken");
            kubelet.wait_for(GPU, 1, DEADLINE).await.expect("it is there");
            let started = kubelet
                .admit(&pod(&number.to_string(), 1))
                .await
                .expect("one is free");
            assert_eq!(started["main"].devices[GPU], ["c"]);
        });
    }
    while let Some(done) = all.join_next().await {
        done.expect("none fails");
    }
}

/// What can happen to a kubelet with one plugin of six devices.
#[derive(Debug, Clone)]
enum Step {
    Admit(u8, usize),
    Remove(u8),
    Health(Vec<bool>),
    Restart,
    Register,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8, 1..4_usize).prop_map(|(pod, count)| Step::Admit(pod, count)),
        3 => (0..6_u8).prop_map(Step::Remove),
        2 => proptest::collection::vec(any::<bool>(), 6).prop_map(Step::Health),
        1 => Just(Step::Restart),
        2 => Just(Step::Register),
    ]
}

fn six(health: &[bool]) -> Vec<Device> {
    let ids = ["a", "b", "c", "d", "e", "f"];
    ids.iter()
        .zip(health)
        .map(|(&id, &healthy)| device(id, healthy, &[]))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_no_device_is_held_twice(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            let (dir, kubelet, first) = with(six(&[true; 6]), PREFERS).await;
            let mut plugin = Some(first);
            let mut serial = 0;
            for step in steps {
                match step {
                    Step::Admit(name, count) => {
                        let admitted = kubelet.admit(&pod(&name.to_string(), count)).await;
                        let held = ids(&kubelet.held(), &name.to_string(), "main").len();
                        assert_eq!(held, if admitted.is_ok() { count } else { 0 }, "{admitted:?}");
                    }
                    Step::Remove(name) => {
                        kubelet.remove_pod("default", &name.to_string());
                    }
                    Step::Health(health) => {
                        if let Some(plugin) = &plugin {
                            plugin.set(six(&health));
                        }
                    }
                    Step::Restart => {
                        let before = kubelet.held();
                        kubelet.restart().await.expect("it starts again");
                        assert_eq!(kubelet.held(), before);
                        assert_eq!(kubelet.allocatable(GPU), Some(0));
                    }
                    Step::Register => {
                        if let Some(plugin) = plugin.take() {
                            plugin.stop().await;
                        }
                        serial += 1;
                        let name = format!("{serial}.sock");
                        let next = Plugin::serve(dir.path(), &name, PREFERS, six(&[true; 6])).await;
                        let next = next.expect("it serves");
                        next.register(GPU).await.expect("it is taken");
                        plugin = Some(next);
                    }
                }
                assert_eq!(conflicts(&kubelet.held(), whole), Vec::<String>::new());
            }
        });
    }
}
