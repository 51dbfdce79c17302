//! Configurations of containerd in the manifests are what RKE2 and K3s print, and not invented.
//!
//! They are compared with what K3s's own templates printed (the fixtures of `pitcrew-host`), or with our rendering,
//! which the tests there hold to those fixtures.

use std::path::Path;

use pitcrew_core::ports::HostFs;
use pitcrew_host::Host;
use pitcrew_host::containerd::{NodeFacts, Runtime, Shape, Table, parse_table, render};
use pitcrew_host::facts::DistributionKind;

use crate::manifests;

/// What K3s's templates printed.
fn printed() -> Vec<Table> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/tests/fixtures/containerd");
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .map(|path| parse_table(&std::fs::read_to_string(path).unwrap()).unwrap())
        .collect()
}

/// What its release would print for a node of these facts.
fn rendered(host: &Host) -> Table {
    let distribution = host.distribution.value().unwrap();
    let config = host.containerd.value().unwrap().config.value().unwrap();
    let is_k3s = distribution.kind == DistributionKind::K3s;
    let own = ["runc", "runhcs-wcow-process"];
    let data_dir = distribution.data_dir.clone();
    let facts = NodeFacts {
        program: if is_k3s { "k3s" } else { "rke2" }.to_owned(),
        selinux: *distribution.selinux.value().unwrap(),
        snapshotter: "overlayfs".to_owned(),
        pause_image: if is_k3s {
            "rancher/mirrored-pause:3.6"
        } else {
            "index.docker.io/rancher/mirrored-pause:3.6"
        }
        .to_owned(),
        cni: is_k3s.then(|| (data_dir.join("data/cni"), data_dir.join("agent/etc/cni/net.d"))),
        data_dir,
        default_runtime: None,
        nonroot_devices: false,
        unprivileged: true,
        systemd_cgroup: true,
        runtimes: config
            .handlers
            .iter()
            .filter(|(name, _)| !own.contains(&name.as_str()))
            .map(|(name, binary)| Runtime::found(name, Path::new(binary)))
            .collect(),
        logins: Vec::new(),
        mirrors: Vec::new(),
        resource_classes: Vec::new(),
    };
    let shape = Shape::of_release(distribution.version.value().unwrap());
    parse_table(&render(&shape, &facts)).unwrap()
}

#[test]
fn every_configuration_is_one_that_its_release_prints() {
    let printed = printed();
    assert!(printed.len() >= 30);
    let mut compared = 0;
    for name in manifests::names() {
        let root = manifests::root(&name);
        let host = Host::gather(&root);
        let kind = host.distribution.value().unwrap().kind;
        if kind != DistributionKind::Rke2 && kind != DistributionKind::K3s {
            continue;
        }
        let containerd = host.containerd.value().unwrap();
        let Ok(bytes) = root.read(&containerd.config_path) else {
            assert_eq!(name, "not-root");
            continue;
        };
        let table = parse_table(&String::from_utf8(bytes).unwrap()).unwrap();
        let is_printed = printed.contains(&table) || table == rendered(&host);
        assert!(is_printed, "{name}: {table:#?}\n{:#?}", rendered(&host));
        compared += 1;
    }
    assert!(compared >= 18, "{compared}");
}
