//! What can be wrong with MPS, for people.

use std::path::Path;

use super::modes::Open;
use crate::dir::Planted;
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
    if let Some(planted) = Planted::of(error) {
        let path = planted.path.display();
        return problem(
            "DirectoryPlanted",
            format!("nothing is written there: {planted}"),
            format!("`ls -ld {path}` on the node says whose it is; take it away: `rm -r {path}`"),
        );
    }
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

pub(super) fn compute_mode(open: &Open) -> Problem {
    let uuid = &open.uuid;
    problem(
        "ComputeModeFailed",
        format!("could not set {uuid} to `EXCLUSIVE_PROCESS`: {}", why(open)),
        format!(
            "`nvidia-smi -i {uuid} -c EXCLUSIVE_PROCESS` on the node says more; without `--mps-compute-mode=exclusive` it is \
             shared all the same"
        ),
    )
}

pub(super) fn prohibited(open: &Open) -> Problem {
    let uuid = &open.uuid;
    problem(
        "ComputeModeProhibited",
        format!(
            "{uuid} is in compute mode `PROHIBITED`, which lets no process in: {}",
            why(open)
        ),
        format!("`nvidia-smi -i {uuid} -c DEFAULT` on the node, or on its host where it is passed through"),
    )
}

/// Nothing is broken, but people count on MPS to keep others out.
pub(super) fn not_exclusive(all: &[Open]) -> Problem {
    let told = all.iter().map(|open| {
        let mode = open
            .mode
            .map_or("an unknown mode".to_owned(), |mode| format!("`{}`", mode.word()));
        format!("{} stays in {mode} ({})", open.uuid, why(open))
    });
    let told = told.collect::<Vec<_>>().join(", ");
    let refused = all.iter().find(|open| open.why.is_some());
    problem(
        "NotExclusive",
        format!(
            "{told}: a process that is no client of MPS can use it as well, in time slices and without a limit of memory"
        ),
        match refused {
            Some(open) => format!(
                "`nvidia-smi -i {} -c EXCLUSIVE_PROCESS` on the node says more; where it shall be so: \
                 `--mps-compute-mode=leave`",
                open.uuid
            ),
            None => "nothing has to be done".to_owned(),
        },
    )
}

fn why(open: &Open) -> &str {
    open.why.as_deref().unwrap_or("`--mps-compute-mode=leave`")
}

pub(super) fn another_daemon(pipe: &Path) -> Problem {
    problem(
        "AnotherDaemon",
        format!("another daemon of MPS serves {}", pipe.display()),
        "remove NVIDIA's `mps-control-daemon` from this node, or stop the other one: \
         `echo quit | nvidia-cuda-mps-control`, with `CUDA_MPS_PIPE_DIRECTORY` set to that directory",
    )
}

pub(super) fn not_found(error: &std::io::Error) -> Problem {
    problem(
        "DaemonUnknown",
        format!("it can't be told whether a daemon runs that an agent before this one started: {error}"),
        "it is tried again; `systemctl status 'pitcrew-mps-*'` on the node says more",
    )
}

pub(super) fn not_started(error: &std::io::Error) -> Problem {
    problem(
        "DaemonFailed",
        format!("could not start the daemon: {error}"),
        "`unshare`, `sh`, and without systemd `setsid`, must be on the node",
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
