//! The node: a mount namespace in which the machine's directories are covered by overlays, and
//! containerd and the kubelet in it. Nothing that they write reaches the machine.

use std::ffi::{CString, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};

use super::config::{self, NODE_NAME};
use super::control_plane::{answers, asks_well, settled};
use super::daemon::{Daemon, Process};
use super::paths::{COVERED, Paths, make_dir, remove_tree, write};
use super::programs::Programs;
use super::{Containerd, Missing, down, image, machine};

const KUBELET_PORT: u16 = 10250;
const KUBELET_HEALTH_PORT: u16 = 10248;

/// What the kubelet insists on, as files that cover those of /proc/sys.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The process that keeps the namespace while nothing else runs in it.
pub(crate) fn holder(paths: &Paths) -> Daemon<'_> {
    Daemon::new(paths, "node", &[])
}

pub(crate) fn containerd(paths: &Paths) -> Daemon<'_> {
    Daemon::new(paths, "containerd", &[])
}

pub(crate) fn kubelet(paths: &Paths) -> Daemon<'_> {
    Daemon::new(paths, "kubelet", &[KUBELET_PORT, KUBELET_HEALTH_PORT])
}

/// A command that runs in the node's namespace.
pub(crate) fn inside(paths: &Paths, holder: &Process, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--mount=/proc/{}/ns/mnt", holder.pid))
        .arg("--")
        .arg(program);
    command.env("PATH", paths.search_path());
    command
}

/// Runs a subcommand of this program's own in the node's namespace, to its end.
pub(crate) fn run_inside(paths: &Paths, holder: &Process, arguments: &[&str]) -> Result<()> {
    let exe = std::env::current_exe().context("could not find this program's own file")?;
    let mut command = inside(paths, holder, &exe);
    command.arg("testbed").arg("--dir").arg(paths.root());
    crate::process::run(command.args(arguments))
}

fn ready_file(paths: &Paths) -> PathBuf {
    paths.run("node.ready")
}

/// Starts what does not run of the node and waits until it is Ready.
pub(crate) fn up(paths: &Paths, version: Containerd, programs: &Programs) -> Result<()> {
    let version_file = paths.run("containerd.version");
    let running = std::fs::read_to_string(&version_file).unwrap_or_default();
    if containerd(paths).process().is_some() && running.trim() != version.name() {
        bail!(
            "the node runs containerd {} and {} was asked for; run `cargo xtask testbed down` first",
            running.trim(),
            version.name()
        );
    }
    if version == Containerd::Old && !paths.bin17().join("containerd").exists() {
        return Err(Missing::new("this pack holds no containerd 1.7", "leave --containerd away").into());
    }
    write(&version_file, version.name())?;
    config::write_all(paths, version)?;
    let holder = hold_namespace(paths)?;
    run_inside(paths, &holder, &["place-rke2", "--containerd", version.name()])?;
    start_containerd(paths, &holder, version)?;
    image::import(paths, &holder, version, &programs.images)?;

    let kubelet = kubelet(paths);
    let program = paths.bin().join("kubelet");
    kubelet.start(
        &program,
        inside(paths, &holder, &program).args(kubelet_arguments(paths)),
    )?;
    settled(paths)?;
    kubelet.wait(Duration::from_secs(30), "kubelet healthy", kubelet_healthy)?;
    kubelet.wait(Duration::from_secs(90), "node Ready", || node_ready(paths))
}

pub(crate) fn kubelet_healthy() -> bool {
    answers(KUBELET_HEALTH_PORT, "/healthz")
}

/// True where the API server says that the node is Ready.
pub(crate) fn node_ready(paths: &Paths) -> bool {
    asks_well(
        paths,
        &[
            "wait",
            "--for=condition=Ready",
            &format!("node/{NODE_NAME}"),
            "--timeout=2s",
        ],
    )
}

/// True where containerd answers on its socket.
pub(crate) fn containerd_healthy(paths: &Paths) -> bool {
    let mut ctr = Command::new(paths.bin().join("ctr"));
    ctr.arg("--address")
        .arg(paths.socket())
        .args(["--timeout", "2s", "version"]);
    ctr.output().is_ok_and(|output| output.status.success())
}

fn kubelet_arguments(paths: &Paths) -> Vec<String> {
    vec![
        format!("--config={}", paths.etc("kubelet.yaml").display()),
        format!("--kubeconfig={}", paths.pki("kubelet.conf").display()),
        "--root-dir=/var/lib/kubelet".into(),
        format!("--cert-dir={}", paths.var("kubelet-pki").display()),
        format!("--hostname-override={NODE_NAME}"),
        "--v=2".into(),
    ]
}

fn start_containerd(paths: &Paths, holder: &Process, version: Containerd) -> Result<()> {
    let dir = if version == Containerd::Old {
        paths.bin17()
    } else {
        paths.bin()
    };
    let program = dir.join("containerd");
    let daemon = containerd(paths);
    if daemon.process().is_none() {
        // A socket that a killed one left answers nobody.
        let _ = std::fs::remove_file(paths.socket());
    }
    let mut command = inside(paths, holder, Path::new("env"));
    // The shim is looked for on the search path first, and the old one lies beside the old containerd.
    let mut path = OsString::from("PATH=");
    path.push(dir);
    path.push(":");
    path.push(paths.search_path());
    command
        .arg(path)
        .arg(&program)
        .arg("--config")
        .arg(paths.etc("containerd.toml"));
    daemon.start(&program, &mut command)?;
    daemon.wait(Duration::from_secs(30), "containerd answers", || {
        containerd_healthy(paths)
    })
}

/// The namespace's holder; a node whose holder is gone is stopped and made anew.
fn hold_namespace(paths: &Paths) -> Result<Process> {
    let daemon = holder(paths);
    if let Some(process) = daemon.process() {
        if ready_file(paths).exists() {
            return Ok(process);
        }
        eprintln!("node: an earlier start was cut off; starting it anew");
    }
    down::stop_node(paths)?;
    remove_tree(&paths.node("run"))?;
    remove_tree(&paths.run("apifwd"))?;
    let _ = std::fs::remove_file(ready_file(paths));
    let exe = std::env::current_exe().context("could not find this program's own file")?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--"])
        .arg(&exe)
        .arg("testbed");
    command.arg("--dir").arg(paths.root()).arg("hold-node");
    daemon.start(&exe, &mut command)?;
    daemon.wait(Duration::from_secs(15), "node's mount namespace", || {
        ready_file(paths).exists()
    })?;
    daemon
        .process()
        .context("the holder of the node's mount namespace ended")
}

/// Runs a command in the node, in place of this process.
pub(crate) fn exec(paths: &Paths, command: &[OsString]) -> Result<()> {
    let Some(holder) = holder(paths).process() else {
        return Err(Missing::new("the test bed is not up", "run `cargo xtask testbed up` first").into());
    };
    let Some((program, arguments)) = command.split_first() else {
        bail!("no command was given")
    };
    let error = inside(paths, &holder, Path::new(program))
        .args(arguments)
        .env("KUBECONFIG", paths.kubeconfig())
        .env("CONTAINERD_ADDRESS", paths.socket())
        .env("CONTAINERD_NAMESPACE", "k8s.io")
        .exec();
    Err(error).context("could not start nsenter")
}

/// The holder itself: makes the mounts in the namespace that `unshare` gave it, then waits for its end.
pub(crate) fn hold(paths: &Paths) -> Result<()> {
    if std::fs::read_link("/proc/self/ns/mnt").ok() == std::fs::read_link("/proc/1/ns/mnt").ok() {
        bail!("`hold-node` is started by `up`, in a mount namespace of its own");
    }
    // Shared among those who join, so that a pod's Bidirectional mounts reach the node.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .context("could not make the namespace's mounts shared")?;
    let kept = keep(paths)?;
    let writes = writes(paths)?;
    for covered in COVERED.iter().filter(|covered| **covered != "/run") {
        overlay(covered, &writes)?;
    }
    for (place, keeper) in kept {
        if !place.exists() {
            if keeper.is_dir() {
                make_dir(&place)?;
            } else {
                write(&place, "")?;
            }
        }
        bind(&keeper, &place)?;
    }
    for dir in ["/var/lib/kubelet", "/etc/cdi", "/etc/containerd/conf.d"] {
        make_dir(Path::new(dir))?;
    }
    make_dir(&paths.var("kubelet"))?;
    bind(&paths.var("kubelet"), Path::new("/var/lib/kubelet"))?;
    for name in ["run/containerd", "run/cdi", "run/nri", "run/lock"] {
        make_dir(&paths.node(name))?;
    }
    bind(&paths.node("run"), Path::new("/run"))?;
    for (name, value) in SYSCTLS {
        let target = Path::new("/proc/sys").join(name);
        if target.exists() {
            let file = paths.node("sysctl").join(name.replace('/', "."));
            make_dir(&paths.node("sysctl"))?;
            write(&file, format!("{value}\n"))?;
            bind(&file, &target)?;
        }
    }
    write(&ready_file(paths), "")?;
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// Binds aside what is mounted below the directories that will be covered: an overlay does not show it.
/// Returns each mount point with the place where it is kept.
fn keep(paths: &Paths) -> Result<Vec<(PathBuf, PathBuf)>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("could not read the mounts")?;
    let mut kept: Vec<(PathBuf, PathBuf)> = Vec::new();
    for place in mount_points(&table) {
        let below = COVERED
            .iter()
            .any(|dir| *dir != "/run" && place.starts_with(dir) && place != Path::new(dir));
        if !below || kept.iter().any(|(upper, _)| place.starts_with(upper)) || !place.exists() {
            continue;
        }
        let keeper = paths.node(&format!("kept/{}", kept.len()));
        make_dir(&paths.node("kept"))?;
        if place.is_dir() {
            let _ = std::fs::remove_file(&keeper);
            make_dir(&keeper)?;
        } else {
            let _ = std::fs::remove_dir(&keeper);
            write(&keeper, "")?;
        }
        bind(&place, &keeper)?;
        kept.push((place, keeper));
    }
    Ok(kept)
}

/// The mount points of a mountinfo table, upper ones first.
fn mount_points(table: &str) -> Vec<PathBuf> {
    let unescape = |text: &str| {
        text.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\")
    };
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|text| unescape(text).into())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Where the overlays write. An overlay takes no other for that, so there it is memory.
fn writes(paths: &Paths) -> Result<PathBuf> {
    let dir = paths.node("writes");
    make_dir(&dir)?;
    if machine::on_overlay(&dir) {
        mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None)
            .with_context(|| format!("could not mount memory on {}", dir.display()))?;
    }
    Ok(dir)
}

fn overlay(covered: &str, writes: &Path) -> Result<()> {
    let name = covered.trim_start_matches('/').replace('/', "-");
    let (upper, work) = (writes.join(&name), writes.join(format!("{name}.work")));
    make_dir(Path::new(covered))?;
    make_dir(&upper)?;
    // What a killed mount left in it would refuse the next one.
    remove_tree(&work)?;
    make_dir(&work)?;
    let options = format!(
        "lowerdir={covered},upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    let options = CString::new(options).context("a path with a null byte")?;
    mount(
        "pitcrew-testbed",
        covered,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .with_context(|| {
        format!(
            "could not cover {covered} with an overlay ({})",
            options.to_string_lossy()
        )
    })
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount_bind_recursive(from, to)
        .with_context(|| format!("could not bind {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_come_unescaped_and_upper_ones_first() {
        let table = "30 1 0:5 / /dev/shm/a\\040b rw - tmpfs t rw\n31 1 0:5 / /dev/shm rw - tmpfs t rw\n";
        assert_eq!(
            mount_points(table),
            [PathBuf::from("/dev/shm"), "/dev/shm/a b".into()]
        );
    }
}
