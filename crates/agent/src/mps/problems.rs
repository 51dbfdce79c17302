//! What can be wrong with MPS, for people.

use std::path::Path;

use crate::snapshot::Problem;

fn problem(reason: &str, message: String, hint: impl Into<String>) -> Problem {
    Problem {
        reason: reason.to_owned(),
        message,
        hint: hint.into(),
    }
}

pub(super) fn mig_device(uuid: &str) -> Problem {
    problem(
        "MpsOnMig",
        format!("{uuid} is a MIG device, which can't be shared through MPS here"),
        "use `sharing.timeSlicing`, or set `flags.migStrategy` to `none`",
    )
}

pub(super) fn mig_mode(uuid: &str) -> Problem {
    problem(
        "MpsOnMig",
        format!("{uuid} is in MIG mode, and its MIG devices can't be shared through MPS here"),
        format!("turn MIG off (`nvidia-smi -i {uuid} -mig 0`), or use `sharing.timeSlicing`"),
    )
}

pub(super) fn too_many_replicas(uuid: &str, replicas: usize, most: usize) -> Problem {
    problem(
        "TooManyReplicas",
        format!("{uuid} can have {most} clients of MPS, and {replicas} replicas of it are asked for"),
        format!("set `replicas` to {most} or fewer"),
    )
}

pub(super) fn no_gpus() -> Problem {
    problem(
        "NoGpus",
        "the driver knows none of its GPUs".to_owned(),
        "`pitcrew gpus` says what the driver knows",
    )
}

pub(super) fn program_missing(program: &str, root: &Path) -> Problem {
    problem(
        "ProgramMissing",
        format!("there is no `{program}` under {}", root.display()),
        "install what comes with the driver for it (`nvidia-compute-utils-<branch>` on Ubuntu, `nvidia-cuda-mps` on \
         Debian, `nvidia-driver-cuda` on RHEL, `nvidia-compute-utils-G06` on SLES), or use `sharing.timeSlicing`",
    )
}

pub(super) fn directory(path: &Path, error: &std::io::Error) -> Problem {
    problem(
        "DirectoryFailed",
        format!("could not make {}: {error}", path.display()),
        "set `flags.mpsRoot` to a directory that can be written",
    )
}

pub(super) fn closed_directory(path: &Path) -> Problem {
    problem(
        "DirectoryClosed",
        format!(
            "{} is closed to others, so that only pods of root reach MPS",
            path.display()
        ),
        format!("`chmod o+x {}` on the node", path.display()),
    )
}

pub(super) fn label(path: &Path, error: &std::io::Error) -> Problem {
    problem(
        "LabelFailed",
        format!("could not label {} for containers: {error}", path.display()),
        format!("`chcon -R -t container_file_t {}` on the node", path.display()),
    )
}

pub(super) fn compute_mode(uuid: &str, error: &str) -> Problem {
    problem(
        "ComputeModeFailed",
        format!("could not set {uuid} to `EXCLUSIVE_PROCESS`: {error}"),
        format!("`nvidia-smi -i {uuid} -c EXCLUSIVE_PROCESS` on the node says more"),
    )
}

pub(super) fn another_daemon(pipe: &Path) -> Problem {
    problem(
        "AnotherDaemon",
        format!("another daemon of MPS serves {}", pipe.display()),
        "remove NVIDIA's `mps-control-daemon` from this node, or stop the other one: \
         `echo quit | nvidia-cuda-mps-control`, with `CUDA_MPS_PIPE_DIRECTORY` set to that directory",
    )
}

pub(super) fn not_started(error: &std::io::Error) -> Problem {
    problem(
        "DaemonFailed",
        format!("could not start the daemon: {error}"),
        "`unshare` and `sh` must be on the node",
    )
}

pub(super) fn not_ready(seconds: u64, log: &Path) -> Problem {
    problem(
        "DaemonFailed",
        format!("the daemon has not answered within {seconds} s"),
        format!("{} on the node says more", log.display()),
    )
}

pub(super) fn ended(how: &str, last_words: &str, log: &Path) -> Problem {
    let said = if last_words.is_empty() {
        String::new()
    } else {
        format!("; its last words: {last_words}")
    };
    problem(
        "DaemonFailed",
        format!("the daemon is gone: {how}{said}"),
        format!("{} on the node says more", log.display()),
    )
}

pub(super) fn limit_refused(what: &str, found: &str) -> Problem {
    problem(
        "LimitRefused",
        format!("the daemon does not take {what}, and says `{found}`"),
        "report this with the version of the driver",
    )
}

pub(super) fn waits(resource: &str) -> Problem {
    problem(
        "WaitsForPods",
        format!("pods hold GPUs that the daemon of {resource} serves: it is changed when they are gone"),
        "nothing has to be done; to have it at once, end those pods",
    )
}
