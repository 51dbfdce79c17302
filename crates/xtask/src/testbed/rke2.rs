//! The node's face: that of an RKE2 agent, so that what detects its distribution finds one, and its containerd, where
//! RKE2 has them. The kubelet and containerd are the bed's own.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

use super::Containerd;
use super::paths::{Paths, make_dir, write};

const DATA: &str = "/var/lib/rancher/rke2";
const UNIT: &str = "\
[Unit]
Description=Rancher Kubernetes Engine v2 (agent)

[Service]
ExecStart=/usr/local/bin/rke2 agent

[Install]
WantedBy=multi-user.target
";

/// A release that ships a containerd of this generation.
fn release(version: Containerd) -> &'static str {
    match version {
        Containerd::Current => "v1.36.2-rke2r1-0123456789ab",
        Containerd::Old => "v1.30.14-rke2r1-0123456789ab",
    }
}

/// In the node's mount namespace: places the files and links.
pub(crate) fn place(paths: &Paths, version: Containerd) -> Result<()> {
    file("/usr/local/bin/rke2", "")?;
    file(
        "/etc/rancher/rke2/config.yaml",
        "server: https://127.0.0.1:9345\n",
    )?;
    let unit = "/usr/local/lib/systemd/system/rke2-agent.service";
    file(unit, UNIT)?;
    link(
        Path::new(unit),
        "/etc/systemd/system/multi-user.target.wants/rke2-agent.service",
    )?;
    let bin = format!("{DATA}/data/{}/bin", release(version));
    let programs = match version {
        Containerd::Current => paths.bin(),
        Containerd::Old => paths.bin17(),
    };
    for name in ["containerd", "containerd-shim-runc-v2"] {
        link(&programs.join(name), &format!("{bin}/{name}"))?;
    }
    for name in ["ctr", "kubelet", "runc"] {
        link(&paths.bin().join(name), &format!("{bin}/{name}"))?;
    }
    link(Path::new(&bin), &format!("{DATA}/bin"))?;
    let etc = format!("{DATA}/agent/etc/containerd/config.toml");
    link(&paths.etc("containerd.toml"), &etc)?;
    let log = format!("{DATA}/agent/containerd/containerd.log");
    link(&paths.log("containerd"), &log)?;
    // Bundles of containers, by which it is told who uses what.
    let state = paths.run(match version {
        Containerd::Current => "containerd",
        Containerd::Old => "containerd17",
    });
    let tasks = "io.containerd.runtime.v2.task";
    link(&state.join(tasks), &format!("/run/k3s/containerd/{tasks}"))?;
    link(&paths.socket(), "/run/k3s/containerd/containerd.sock")
}

fn parent(path: &str) -> Result<()> {
    Path::new(path).parent().map_or(Ok(()), make_dir)
}

fn file(path: &str, text: &str) -> Result<()> {
    parent(path)?;
    write(Path::new(path), text)
}

fn link(target: &Path, path: &str) -> Result<()> {
    parent(path)?;
    let _ = std::fs::remove_file(path);
    symlink(target, path).with_context(|| format!("could not link {path} to {}", target.display()))
}
