//! What runs, since when, and whether it is well.

use std::time::Duration;

use anyhow::{Result, bail};

use super::paths::Paths;
use super::{control_plane, node};

/// Prints one line for each part of the bed; an error where one does not run or is not well.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    type Check<'a> = Box<dyn Fn() -> bool + 'a>;
    let parts: [(_, Check<'_>); 7] = [
        (control_plane::etcd(paths), Box::new(control_plane::etcd_healthy)),
        (
            control_plane::api_server(paths),
            Box::new(|| control_plane::asks_well(paths, &["get", "--raw", "/readyz"])),
        ),
        (
            control_plane::controller_manager(paths),
            Box::new(control_plane::controller_manager_listens),
        ),
        (
            control_plane::scheduler(paths),
            Box::new(control_plane::scheduler_listens),
        ),
        (node::holder(paths), Box::new(|| true)),
        (
            node::containerd(paths),
            Box::new(|| node::containerd_healthy(paths)),
        ),
        (
            node::kubelet(paths),
            Box::new(|| node::kubelet_healthy() && node::node_ready(paths)),
        ),
    ];
    let mut bad = Vec::new();
    println!("{:<24} {:>8}  {:>9}  HEALTH", "COMPONENT", "PID", "UP");
    for (daemon, healthy) in &parts {
        let process = daemon.process();
        let (pid, age) = process.as_ref().map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |process| {
                (
                    process.pid.to_string(),
                    process.age().map_or_else(|| "?".to_owned(), shown),
                )
            },
        );
        let health = match process {
            None => "down",
            Some(_) if healthy() => "ok",
            Some(_) => "not well",
        };
        println!("{:<24} {pid:>8}  {age:>9}  {health}", daemon.name);
        if health != "ok" {
            bad.push(daemon.name);
        }
    }
    if !bad.is_empty() {
        bail!(
            "{} of {} parts do not run well: {}; `cargo xtask testbed up` starts what is missing",
            bad.len(),
            parts.len(),
            bad.join(", ")
        );
    }
    Ok(())
}

fn shown(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}
