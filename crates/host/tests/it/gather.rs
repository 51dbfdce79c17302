//! All facts of the roots that come with the program, and of the machine that runs this test.

use std::time::{Duration, Instant};

use pitcrew_core::ports::HostFs;
use pitcrew_host::containerd::{self, NodeFacts, Shape};
use pitcrew_host::{Host, HostRoots, Roots};
use pitcrew_scenario::{HostRoot, Machine, Scenario};

fn machine(scenario: &str) -> Machine {
    Machine::new(Scenario::builtin(scenario).unwrap())
}

#[test]
fn an_rke2_worker_is_seen_whole() {
    let root = HostRoot::over(machine("rtx3060")).unwrap();
    insta::assert_debug_snapshot!(Host::gather(&root));
}

#[test]
fn a_k3s_server_with_switches_is_seen_whole() {
    let root = HostRoot::builtin("k3s").unwrap().with_machine(machine("h100x8"));
    insta::assert_debug_snapshot!(Host::gather(&root));
}

#[test]
fn a_root_in_a_directory_is_seen_as_in_memory() {
    let root = HostRoot::builtin("k3s").unwrap().with_machine(machine("rtx3060"));
    let dir = tempfile::tempdir().unwrap();
    let left_out = root.build(dir.path()).unwrap();
    let mut wanted = Host::gather(&root);
    wanted.devices.nodes.retain(|node| !left_out.contains(&node.path));
    let built = Host::gather(&HostRoots::new(Roots::under(dir.path())));
    assert_eq!(built, wanted);
}

#[test]
fn an_empty_root_is_told_without_invention() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_debug_snapshot!(Host::gather(&HostRoots::new(Roots::under(dir.path()))));
}

#[test]
fn this_machine_is_gathered_without_a_wait() {
    let start = Instant::now();
    let host = Host::gather(&HostRoots::new(Roots::under("/")));
    assert!(host.system.kernel.value().is_some());
    // Far above what it takes, far below a command that somebody waits for.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_file_system_that_refuses_everything_gives_reasons() {
    struct Refusing;
    impl HostFs for Refusing {
        fn kind(&self, _: &std::path::Path) -> std::io::Result<pitcrew_core::ports::FileKind> {
            Err(std::io::ErrorKind::PermissionDenied.into())
        }
        fn read(&self, _: &std::path::Path) -> std::io::Result<Vec<u8>> {
            Err(std::io::ErrorKind::PermissionDenied.into())
        }
        fn list(&self, _: &std::path::Path) -> std::io::Result<Vec<String>> {
            Err(std::io::ErrorKind::PermissionDenied.into())
        }
    }
    let host = Host::gather(&Refusing);
    assert_eq!(
        host.gpus.failure(),
        Some("`/sys/bus/pci/devices` can't be read: permission denied")
    );
    assert_eq!(
        host.driver.kernel_version.failure(),
        Some("`/proc/driver/nvidia/version` can't be read: permission denied")
    );
    assert!(host.system.os.failure().is_some() && host.security.denials.failure().is_some());
}

#[test]
fn the_configurations_in_the_built_in_roots_say_what_their_releases_write() {
    for (name, case) in [("rke2", "rke2-plain"), ("k3s", "k3s-moved")] {
        let root = HostRoot::builtin(name).unwrap();
        let host = Host::gather(&root);
        let distribution = host.distribution.value().unwrap();
        let data_dir = distribution.data_dir.clone();
        let node = NodeFacts {
            cni: (name == "k3s").then(|| (data_dir.join("data/cni"), data_dir.join("agent/etc/cni/net.d"))),
            data_dir,
            nonroot_devices: false,
            systemd_cgroup: true,
            runtimes: Vec::new(),
            logins: Vec::new(),
            ..crate::nodes::node(case)
        };
        let rendered = containerd::render(&Shape::of_release(distribution.version.value().unwrap()), &node);
        let written = root.read(&host.containerd.value().unwrap().config_path).unwrap();
        let written = containerd::parse_table(&String::from_utf8(written).unwrap()).unwrap();
        assert_eq!(written, containerd::parse_table(&rendered).unwrap(), "{name}");
    }
}
