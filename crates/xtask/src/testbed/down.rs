//! Stops everything, in the order in which nothing is left behind, and looks whether that is so.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::config::BRIDGE;
use super::daemon::{Process, end};
use super::paths::{Paths, remove_tree};
use super::{Missing, cgroup, control_plane, machine, node};

/// How long a daemon may take to end when asked.
const GRACE: Duration = Duration::from_secs(15);

/// Stops the bed; with `wipe`, removes what it wrote.
pub(crate) fn run(paths: &Paths, wipe: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Missing::new(
            "the test bed runs as root",
            "run `down` as root or with `sudo -E`",
        )
        .into());
    }
    if !paths.root().exists() && cgroup::left().is_empty() {
        eprintln!("down: there is no test bed in {}", paths.root().display());
        return Ok(());
    }
    let lock = paths.lock()?;
    stop_node(paths)?;
    control_plane::scheduler(paths).stop(GRACE)?;
    control_plane::controller_manager(paths).stop(GRACE)?;
    // Clients that hold a watch open make a graceful end of the API server a long one.
    control_plane::api_server(paths).stop(Duration::from_secs(5))?;
    control_plane::etcd(paths).stop(GRACE)?;
    // What a killed `up` had started and not yet noted.
    // The kernel keeps a cgroup for a moment after its last process ended.
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        end(&cgroup::daemons(), Duration::from_secs(2))?;
        end(&cgroup::pods(), Duration::from_secs(2))?;
        cgroup::remove(true);
        if cgroup::left().is_empty() || Instant::now() > patience {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    verify(paths)?;
    if wipe {
        wipe_data(paths)?;
    }
    drop(lock);
    eprintln!("down: no process, mount, cgroup or network device of the test bed is left");
    Ok(())
}

/// Stops the node: kubelet, pods, containerd, shims, and the namespace with its mounts.
pub(crate) fn stop_node(paths: &Paths) -> Result<()> {
    let holder = node::holder(paths);
    let namespace = holder.process().and_then(|process| mount_namespace(process.pid));
    node::kubelet(paths).stop(GRACE)?;
    end(&cgroup::pods(), Duration::from_secs(3))?;
    // Before containerd, whose end would make orphans of the shims.
    let kept: Vec<Option<Process>> = vec![
        holder.process(),
        control_plane::etcd(paths).process(),
        control_plane::api_server(paths).process(),
        control_plane::controller_manager(paths).process(),
        control_plane::scheduler(paths).process(),
    ];
    let ours = || -> Vec<Process> {
        cgroup::daemons()
            .into_iter()
            .filter(|process| !kept.contains(&Some(process.clone())))
            .collect()
    };
    let before = ours();
    node::containerd(paths).stop(GRACE)?;
    let mut rest = before;
    rest.extend(ours());
    // Shims hold out against SIGTERM while they have a task, and there is none any more.
    end(&rest, Duration::from_millis(300))?;
    if let Some(namespace) = namespace {
        let guests: Vec<Process> = machine::processes()
            .filter(|pid| mount_namespace(*pid).as_ref() == Some(&namespace))
            .filter_map(Process::now)
            .collect();
        end(&guests, Duration::from_millis(300))?;
    }
    holder.stop(Duration::from_millis(300))?;
    cgroup::remove(false);
    let forwarder = paths.cni().join("apifwd");
    if bridge_exists() && forwarder.exists() {
        crate::process::run(Command::new(forwarder).args(["remove-bridge", BRIDGE]))?;
    }
    // Sockets, bundles and shim state of what runs no more.
    for name in ["containerd", "containerd17", "apifwd"] {
        remove_tree(&paths.run(name))?;
    }
    // The pods are gone, and so are their leases.
    remove_tree(&paths.var("cni"))?;
    for name in ["containerd.sock", "containerd.sock.ttrpc", "node.ready"] {
        let _ = std::fs::remove_file(paths.run(name));
    }
    Ok(())
}

fn mount_namespace(pid: u32) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn bridge_exists() -> bool {
    std::path::Path::new("/sys/class/net").join(BRIDGE).exists()
}

/// Fails with a list of what is left.
fn verify(paths: &Paths) -> Result<()> {
    let mut left = Vec::new();
    for pid in machine::processes() {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
        let first = std::path::Path::new(std::str::from_utf8(first).unwrap_or_default());
        if exe.starts_with(paths.root()) || first.starts_with(paths.bin()) || first.starts_with(paths.bin17())
        {
            left.push(format!("process {pid} ({})", first.display()));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = paths.root().to_string_lossy().into_owned();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&format!("{root}/")) || line.contains(" pitcrew-testbed "))
            .map(|line| format!("mount {line}")),
    );
    left.extend(
        cgroup::left()
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    if bridge_exists() {
        left.push(format!("network device {BRIDGE}"));
    }
    if !left.is_empty() {
        bail!(
            "something of the test bed is left:\n  {}\nrun `cargo xtask testbed down` again",
            left.join("\n  ")
        );
    }
    Ok(())
}

fn wipe_data(paths: &Paths) -> Result<()> {
    for name in ["node", "var", "etc", "pki", "log", "bin", "bin17", "cni", "run"] {
        remove_tree(&paths.root().join(name))?;
    }
    // Not ours to remove where the user put something beside it.
    let _ = std::fs::remove_dir(paths.root());
    Ok(())
}
