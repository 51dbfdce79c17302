//! The nodes that K3s's own templates were run for.

use std::path::{Path, PathBuf};

use pitcrew_host::containerd::{NodeFacts, Runtime};

const NVIDIA: &str = "/usr/local/nvidia/toolkit/nvidia-container-runtime";

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/containerd")
}

pub(crate) fn node(case: &str) -> NodeFacts {
    let rke2 = NodeFacts {
        program: "rke2".to_owned(),
        data_dir: "/var/lib/rancher/rke2".into(),
        selinux: false,
        snapshotter: "overlayfs".to_owned(),
        pause_image: "index.docker.io/rancher/mirrored-pause:3.6".to_owned(),
        cni: None,
        default_runtime: None,
        nonroot_devices: false,
        unprivileged: true,
        systemd_cgroup: true,
        runtimes: Vec::new(),
        logins: Vec::new(),
        mirrors: Vec::new(),
        resource_classes: Vec::new(),
    };
    match case {
        "rke2-plain" => rke2,
        "rke2-nvidia-default" => NodeFacts {
            selinux: true,
            default_runtime: Some("nvidia".to_owned()),
            runtimes: vec![
                Runtime::found("nvidia", Path::new(NVIDIA)),
                Runtime::found("nvidia-cdi", Path::new(&format!("{NVIDIA}.cdi"))),
            ],
            ..rke2
        },
        "k3s-moved" => NodeFacts {
            program: "k3s".to_owned(),
            data_dir: "/data/k3s".into(),
            pause_image: "rancher/mirrored-pause:3.6".to_owned(),
            cni: Some((
                "/data/k3s/data/cni".into(),
                "/data/k3s/agent/etc/cni/net.d".into(),
            )),
            nonroot_devices: true,
            systemd_cgroup: false,
            runtimes: vec![
                Runtime::found("nvidia", Path::new("/usr/bin/nvidia-container-runtime")),
                Runtime::found("crun", Path::new("/usr/bin/crun")),
            ],
            logins: vec![(
                "registry.example:5000".to_owned(),
                vec!["username".to_owned(), "password".to_owned()],
            )],
            ..rke2
        },
        other => unreachable!("no such case: {other}"),
    }
}
