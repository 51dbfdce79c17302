use std::time::Instant;

use pitcrew_core::Reading;
use pitcrew_core::ports::InventorySource as _;
use pitcrew_scenario::{Change as Act, HostRoot, Machine, Scenario};

use super::*;

struct Bench {
    machine: Machine,
    node: Node,
}

impl Bench {
    fn new(scenario: &str) -> Self {
        let machine = Machine::new(Scenario::builtin(scenario).unwrap());
        let node = Node::new(&Settings::new("node"));
        let mut bench = Self { machine, node };
        bench.look();
        bench.gather(|_| {});
        bench.node.configure(
            Some(Arc::new(Chosen {
                name: None,
                config: Config::default(),
            })),
            None,
        );
        bench
    }

    fn look(&mut self) {
        let looked = self.machine.inventory().map(Arc::new);
        self.node.see(Seen::Gpus(looked), Instant::now());
    }

    fn gather(&mut self, change: impl FnOnce(&mut Host)) {
        let mut host = Host::gather(&HostRoot::over(self.machine.clone()).unwrap());
        change(&mut host);
        self.node.see(Seen::Host(Arc::new(host)), Instant::now());
    }

    fn offered(&self) -> usize {
        let resources = self.node.snapshot().resources;
        resources.iter().map(|resource| resource.devices.len()).sum()
    }

    fn told(&mut self) -> String {
        let notices = self.node.notices();
        notices.into_iter().map(|notice| notice.text + "\n").collect()
    }
}

#[test]
fn a_gpu_that_is_given_to_a_virtual_machine_is_reported_and_no_longer_offered() {
    let mut bench = Bench::new("h100x8");
    assert_eq!(bench.offered(), 8);
    let uuid = bench.machine.uuids()[0].clone();
    bench.machine.change(&Act::FallOffBus { gpu: 0 }).unwrap();
    bench.look();
    assert_eq!(bench.offered(), 8, "a lost one is still this node's");
    bench.gather(|host| {
        let Reading::Value(gpus) = &mut host.gpus else {
            panic!("no GPUs on the bus");
        };
        gpus[0].driver = Reading::Value("vfio-pci".to_owned());
    });
    assert_eq!(bench.offered(), 7);
    assert!(
        bench
            .told()
            .contains(&format!("GPU {uuid} was given to another driver"))
    );
    assert!(!bench.node.snapshot().sick.contains_key(&uuid));
    bench.look();
    assert_eq!(bench.offered(), 7, "and doesn't come back by a look");
}

#[test]
fn a_driver_that_fails_is_told_once_and_its_gpus_are_kept() {
    let mut bench = Bench::new("h100x8");
    bench.told();
    bench
        .machine
        .change(&Act::BreakDriver {
            reason: "Unknown Error".to_owned(),
        })
        .unwrap();
    for _ in 0..3 {
        bench.look();
    }
    assert_eq!(bench.told().matches("Unknown Error").count(), 1);
    let snapshot = bench.node.snapshot();
    assert_eq!((snapshot.sick.len(), bench.offered()), (8, 8));
    assert_eq!(snapshot.problems[&Part::Driver].reason, "DriverFailed");
    assert!(bench.node.wish().closely);
}

#[test]
fn a_configuration_that_this_node_cannot_do_leaves_what_was_offered() {
    let mut bench = Bench::new("h100x8");
    let text =
        "version: v1\nsharing:\n  mps:\n    resources:\n    - name: nvidia.com/gpu\n      replicas: 400\n";
    let config = Config::parse(text).unwrap();
    bench
        .node
        .configure(Some(Arc::new(Chosen { name: None, config })), None);
    assert_eq!(bench.offered(), 8);
    let problem = bench.node.snapshot().problems[&Part::Config].clone();
    assert_eq!(problem.reason, "ConfigNotPossible");
}

#[test]
fn what_changes_all_the_time_makes_no_new_specification() {
    let mut bench = Bench::new("h100x8");
    bench.node.install(Some(Installed {
        hook: Some("/opt/pitcrew/1/nvidia-cdi-hook".into()),
        home: "/opt/pitcrew".into(),
        ..Installed::default()
    }));
    let before = bench.node.order().unwrap();
    bench.machine.change(&Act::Load { gpu: 0, percent: 90 }).unwrap();
    bench.look();
    assert_eq!(bench.node.order().unwrap(), before);
}

#[test]
fn while_the_driver_is_wanted_by_somebody_else_nothing_is_changed_on_the_host() {
    let mut bench = Bench::new("h100x8");
    assert!(bench.node.host_to_change().is_some());
    bench.node.set_release(Some("x".to_owned()));
    assert!(bench.node.host_to_change().is_none());
    assert_eq!(bench.node.wish().release.as_deref(), Some("x"));
    let released = Seen::Released {
        why: "x".to_owned(),
        held: None,
    };
    bench.node.see(released, Instant::now());
    let snapshot = bench.node.snapshot();
    assert_eq!(snapshot.sick.len(), 8);
    assert_eq!(snapshot.problems[&Part::Driver].reason, "Paused");
    let held = Seen::Released {
        why: "x".to_owned(),
        held: Some("`nvmlDeviceGetName` did not return within 10 s".to_owned()),
    };
    bench.node.see(held, Instant::now());
    let problem = bench.node.snapshot().problems[&Part::Driver].clone();
    assert_eq!(problem.reason, "DriverHeld");
    assert!(
        problem
            .message
            .contains("`nvmlDeviceGetName` did not return within 10 s")
    );
    assert!(problem.hint.contains("kubectl delete pod"), "{}", problem.hint);
    bench.node.set_release(None);
    bench.look();
    assert!(bench.node.snapshot().sick.is_empty());
}
