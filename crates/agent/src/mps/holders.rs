//! Which pods have a share of a resource of MPS, told by the node alone: for when its daemon doesn't answer.
//!
//! A container that got one has the daemon's pipe mounted, and each of its processes shows that mount.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use pitcrew_core::ports::HostFs;
use pitcrew_host::process::{Pods, Process};
use rustix::io::Errno;

use super::IN_CONTAINER;

/// Pods, `namespace/name`, or processes where no pod is known of them. What a share is used for it can't tell.
///
/// # Errors
/// Where processes can't be looked at.
pub(super) fn holders(fs: &dyn HostFs, resource: &str, pipe: &Path) -> io::Result<BTreeSet<String>> {
    let names = fs.list(Path::new("/proc"))?;
    let pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    if pids.is_empty() {
        return Err(io::Error::other("no process is seen in `/proc`"));
    }
    let known = Pods::read(fs);
    let mut found = BTreeSet::new();
    for pid in pids {
        let mounts = match fs.read(&Path::new("/proc").join(pid.to_string()).join("mountinfo")) {
            Ok(mounts) => mounts,
            Err(error) if is_over(&error) => continue,
            Err(error) => return Err(error),
        };
        if !has_pipe(&String::from_utf8_lossy(&mounts), resource, pipe) {
            continue;
        }
        let process = Process::read(fs, pid);
        let pod = process.membership.value().and_then(|it| known.pod(&it.pod_uid));
        found.insert(pod.map_or_else(
            || format!("process {pid}"),
            |pod| format!("{}/{}", pod.namespace, pod.name),
        ));
    }
    Ok(found)
}

/// A process that ended while we looked, or has ended and is not yet waited for.
fn is_over(error: &io::Error) -> bool {
    let over = [Errno::SRCH, Errno::INVAL].map(|errno| Some(errno.raw_os_error()));
    error.kind() == io::ErrorKind::NotFound || over.contains(&error.raw_os_error())
}

/// Whether a process's mounts (`/proc/<pid>/mountinfo`) show the pipe, by where a container has it or by what is mounted:
/// a path in its file system, so the end of the host's.
fn has_pipe(mounts: &str, resource: &str, pipe: &Path) -> bool {
    let inside = format!("{IN_CONTAINER}/{resource}/pipe");
    let ours = Path::new(resource).join("pipe");
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else {
            return false;
        };
        let root = Path::new(root.trim_start_matches('/'));
        point == inside || root.ends_with(&ours) && pipe.ends_with(root)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_known_by_its_pipe_and_by_no_other() {
        let pipe = Path::new("/run/nvidia/mps/nvidia.com/gpu/pipe");
        let has = |line: &str| has_pipe(line, "nvidia.com/gpu", pipe);
        let rest = "rw,nosuid - tmpfs tmpfs rw";
        for line in [
            "812 801 0:25 /nvidia/mps/nvidia.com/gpu/pipe /mps/nvidia.com/gpu/pipe",
            "812 801 0:25 /elsewhere /mps/nvidia.com/gpu/pipe",
            "812 801 0:25 /nvidia/mps/nvidia.com/gpu/pipe /where/they/like",
            "812 801 8:1 /run/nvidia/mps/nvidia.com/gpu/pipe /x",
        ] {
            assert!(
                has(&format!("24 1 0:1 / / rw - ext4 a rw\n{line} {rest}\n")),
                "{line}"
            );
        }
        for line in [
            "812 801 0:25 /nvidia/mps/nvidia.com/gpu.shared/pipe /mps/nvidia.com/gpu.shared/pipe",
            "812 801 0:25 /other/nvidia.com/gpu/pipe /x",
            "812 801 0:26 /nvidia-mps /dev/shm",
            "812 801 0:26 / /",
            "",
        ] {
            assert!(!has(&format!("{line} {rest}\n")), "{line}");
        }
    }
}
