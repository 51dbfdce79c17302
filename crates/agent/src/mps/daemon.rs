//! One daemon: how it is started, told what clients may have, watched and stopped.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::ports::FileKind;

use super::dialogue::{self, PING, QUIT};
use super::disk::Disk;
use super::{Daemon, PIPE_VARIABLE, Place, SHARED_MEMORY, problems};
use crate::Deps;
use crate::deps::Process;
use crate::notice::{Level, Notice, Topic};
use crate::snapshot::Problem;

const CONTROL: &str = "nvidia-cuda-mps-control";
/// Where programs are under the driver's root.
const PROGRAMS: [&str; 7] = [
    "usr/bin",
    "usr/sbin",
    "bin",
    "sbin",
    "usr/local/bin",
    "usr/local/sbin",
    LOCAL_PROGRAMS,
];
/// Where a driver is that is placed beside the system's own programs, and its libraries, which no loader's cache knows.
const LOCAL_PROGRAMS: &str = "usr/local/nvidia/bin";
const LOCAL_LIBRARIES: [&str; 2] = ["usr/local/nvidia/lib64", "usr/local/nvidia/lib"];
/// Where libraries are under a driver's root that isn't the host's.
const LIBRARIES: [&str; 4] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
];
/// What the label of containers' files is called.
const LABEL: &str = "container_file_t";
/// How long the daemon may take to answer after its start.
const READY: Duration = Duration::from_secs(10);
/// Between two questions whether it answers.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one command to the daemon may take.
const COMMAND: Duration = Duration::from_secs(10);
/// How long the end of the daemon may take: it gives servers ten seconds.
const END: Duration = Duration::from_secs(20);
/// Between two looks at a daemon that isn't our child.
const GLANCE: Duration = Duration::from_secs(5);
/// How much of the daemon's log is told.
const LAST_WORDS: usize = 300;

/// Runs in a mount namespace of its own, where `/dev/shm` is what the containers have there.
const SCRIPT: &str = r#"mount --bind "$0" /dev/shm && log=$1 && shift && exec "$@" >"$log" 2>&1"#;

/// What daemons stand on.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) deps: Arc<Deps>,
    place: Place,
    pub(super) disk: Disk,
}

/// A daemon that answers and keeps the limits.
pub(super) struct Running {
    /// `None` for one that an agent before us left.
    process: Option<Box<dyn Process>>,
    /// What isn't right although it runs.
    pub(super) problem: Option<Problem>,
    /// What is to know of it although all is right.
    pub(super) remark: Option<Problem>,
}

impl Ground {
    pub(super) fn new(deps: Arc<Deps>, place: Place) -> Self {
        Self {
            disk: Disk::new(&deps.root, &place),
            deps,
            place,
        }
    }

    pub(super) fn tell(&self, level: Level, text: String) {
        let notice = Notice {
            topic: Topic::Mps,
            level,
            text,
        };
        let _ = self.deps.notices.send(notice);
    }

    /// Starts it, or takes over one that an agent before us left and that is the same.
    pub(super) async fn start(&self, daemon: &Daemon) -> Result<Running, Problem> {
        let control = self.program(CONTROL)?;
        let problem = self.directories(&daemon.resource).await?;
        let pipe = self.place.pipe(&daemon.resource);
        let mut process = None;
        let left = self.disk.daemons().remove(&daemon.resource);
        let mut serves = self.control(&control, daemon, PING).await.is_ok();
        if serves && left.as_ref().is_some_and(|left| left != daemon) {
            let _ = self.control(&control, daemon, QUIT).await;
            serves = self.control(&control, daemon, PING).await.is_ok();
        }
        if serves && left.as_ref() != Some(daemon) {
            return Err(problems::another_daemon(&pipe));
        }
        let remark = self.settle_modes(daemon).await?;
        if !serves {
            self.disk
                .keep_daemon(daemon)
                .map_err(|error| problems::directory(&self.place.root, &error))?;
            process = Some(self.spawn(&control, daemon).await?);
        }
        self.limit(&control, daemon).await?;
        Ok(Running {
            process,
            problem,
            remark,
        })
    }

    /// Waits until it is gone, and says how it went.
    pub(super) async fn ended(&self, daemon: &Daemon, running: &mut Running) -> Problem {
        let log = self.log(&daemon.resource);
        let how = match &mut running.process {
            Some(process) => process.wait().await,
            None => self.silence(daemon).await,
        };
        problems::ended(&how, &self.last_words(&daemon.resource), &log)
    }

    /// Ends it, and gives its GPUs back the mode that they had.
    pub(super) async fn stop(&self, daemon: &Daemon, running: Option<Running>) {
        // One that nobody wrote down is another's.
        let is_ours = running.is_some() || self.disk.daemons().contains_key(&daemon.resource);
        if is_ours && let Ok(control) = self.program(CONTROL) {
            // It fails also where nobody serves, or a server had failed before; what isn't ended by it ends by being
            // dropped.
            let _ = self.control_within(&control, daemon, QUIT, END).await;
        }
        drop(running);
        self.disk.forget_daemon(&daemon.resource);
        self.give_back_modes(|uuid| daemon.gpus.iter().any(|part| part.uuid == uuid))
            .await;
    }

    async fn spawn(&self, control: &Path, daemon: &Daemon) -> Result<Box<dyn Process>, Problem> {
        let log = self.log(&daemon.resource);
        let words = [
            "--mount",
            "--propagation",
            "private",
            "--",
            "sh",
            "-c",
            SCRIPT,
            SHARED_MEMORY,
        ];
        let mut arguments: Vec<String> = words.map(str::to_owned).into();
        arguments.extend([text(&log), text(control), "-f".to_owned()]);
        let start = self
            .deps
            .system
            .start(Path::new("unshare"), &arguments, &self.env(daemon));
        let mut process = start.map_err(|error| problems::not_started(&error))?;
        let answers = async {
            while self.control(control, daemon, PING).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let failed = tokio::select! {
            how = process.wait() => Some(problems::ended(&how, &self.last_words(&daemon.resource), &log)),
            answered = tokio::time::timeout(READY, answers) => {
                answered.err().map(|_| problems::not_ready(READY.as_secs(), &log))
            }
        };
        failed.map_or(Ok(process), Err)
    }

    /// Tells it what clients may have. Servers that run keep what they were told, and all of them were told the same.
    async fn limit(&self, control: &Path, daemon: &Daemon) -> Result<(), Problem> {
        let log = self.log(&daemon.resource);
        let gone = |error: io::Error| problems::ended(&error.to_string(), "", &log);
        for (ordinal, part) in daemon.gpus.iter().enumerate() {
            let Some(mib) = part.memory_limit_mib else {
                self.tell(
                    Level::Warning,
                    format!(
                        "{}: nobody knows its memory, so its clients have no limit",
                        part.uuid
                    ),
                );
                continue;
            };
            let answer = self
                .control(control, daemon, &dialogue::set_memory(ordinal, mib))
                .await
                .map_err(gone)?;
            if !dialogue::is_memory(&answer, mib) {
                let what = format!("a limit of {mib} MiB on {}", part.uuid);
                return Err(problems::limit_refused(&what, answer.trim()));
            }
        }
        let percentage = daemon.active_thread_percentage;
        let answer = self
            .control(control, daemon, &dialogue::set_percentage(percentage))
            .await
            .map_err(gone)?;
        if !dialogue::is_percentage(&answer, percentage) {
            return Err(problems::limit_refused(
                &format!("{percentage} % of threads"),
                answer.trim(),
            ));
        }
        Ok(())
    }

    async fn control(&self, control: &Path, daemon: &Daemon, words: &str) -> io::Result<String> {
        self.control_within(control, daemon, words, COMMAND).await
    }

    async fn control_within(
        &self,
        control: &Path,
        daemon: &Daemon,
        words: &str,
        patience: Duration,
    ) -> io::Result<String> {
        let env = self.env(daemon);
        let answer = self.deps.system.run(control, &[], &env, words);
        tokio::time::timeout(patience, answer)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer"))?
    }

    /// Waits until a daemon that isn't our child is silent twice.
    async fn silence(&self, daemon: &Daemon) -> String {
        let mut silent = 0;
        while silent < 2 {
            tokio::time::sleep(GLANCE).await;
            let answers = match self.program(CONTROL) {
                Ok(control) => self.control(&control, daemon, PING).await.is_ok(),
                Err(_) => false,
            };
            silent = if answers { 0 } else { silent + 1 };
        }
        "it does not answer any more".to_owned()
    }

    /// A program of the driver, as the host sees it.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf, Problem> {
        let paths = PROGRAMS
            .iter()
            .map(|dir| self.place.driver_root.join(dir).join(name));
        let is_there = |path: &PathBuf| match self.deps.host.kind(path) {
            Ok(kind) => !matches!(kind, FileKind::Directory),
            Err(_) => false,
        };
        let found = paths.into_iter().find(is_there);
        found.ok_or_else(|| problems::program_missing(name, &self.place.driver_root))
    }

    /// Makes the directories, open to pods of every user. What is wrong and yet lets it run comes back.
    async fn directories(&self, resource: &str) -> Result<Option<Problem>, Problem> {
        let (pipe, log) = (self.place.pipe(resource), self.place.log(resource));
        let memory = PathBuf::from(SHARED_MEMORY);
        // Servers run as the user of their pod and make files beside the pipe, which none but they may remove.
        for (path, mode) in [(&pipe, 0o1777), (&log, 0o755), (&memory, 0o1777)] {
            self.make(path, mode)
                .map_err(|error| problems::directory(path, &error))?;
        }
        if self.place.selinux {
            for path in [&pipe, &memory] {
                let arguments = ["-R", "-t", LABEL, &text(path)].map(str::to_owned);
                let labelled = self
                    .deps
                    .system
                    .run(Path::new("chcon"), &arguments, &[], "")
                    .await;
                if let Err(error) = labelled {
                    return Ok(Some(problems::label(path, &error)));
                }
            }
        }
        let closed = pipe.ancestors().find(|dir| {
            let meta = std::fs::metadata(self.disk.see(dir));
            meta.is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0)
        });
        Ok(closed.map(problems::closed_directory))
    }

    /// Makes a directory of the host, and those above it that are missing.
    fn make(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut missing: Vec<&Path> = path
            .ancestors()
            .take_while(|dir| !self.disk.see(dir).is_dir())
            .collect();
        while let Some(dir) = missing.pop() {
            let seen = self.disk.see(dir);
            std::fs::create_dir(&seen)?;
            // Whatever our umask is.
            std::fs::set_permissions(&seen, PermissionsExt::from_mode(0o755))?;
        }
        std::fs::set_permissions(self.disk.see(path), PermissionsExt::from_mode(mode))
    }

    fn env(&self, daemon: &Daemon) -> Vec<(String, String)> {
        let mut env = self.paths();
        env.push((PIPE_VARIABLE.to_owned(), text(&self.place.pipe(&daemon.resource))));
        env.push((
            "CUDA_MPS_LOG_DIRECTORY".to_owned(),
            text(&self.place.log(&daemon.resource)),
        ));
        // Servers open no other GPUs, and number these in this order.
        env.push(("CUDA_VISIBLE_DEVICES".to_owned(), dialogue::visible(&daemon.gpus)));
        env
    }

    /// Where programs and libraries of the driver are.
    pub(super) fn paths(&self) -> Vec<(String, String)> {
        let list = |dirs: &[&str]| {
            let dirs = dirs.iter().map(|dir| text(&self.place.driver_root.join(dir)));
            dirs.collect::<Vec<_>>().join(":")
        };
        let own = list(&PROGRAMS);
        if self.place.driver_root == Path::new("/") {
            let path = ("PATH".to_owned(), own);
            let is_local = |program: PathBuf| program.starts_with(Path::new("/").join(LOCAL_PROGRAMS));
            return if self.program(CONTROL).is_ok_and(is_local) {
                vec![path, ("LD_LIBRARY_PATH".to_owned(), list(&LOCAL_LIBRARIES))]
            } else {
                vec![path]
            };
        }
        // `unshare` and `sh` are the host's.
        let path = format!("/usr/sbin:/usr/bin:/sbin:/bin:{own}");
        vec![
            ("PATH".to_owned(), path),
            ("LD_LIBRARY_PATH".to_owned(), list(&LIBRARIES)),
        ]
    }

    fn log(&self, resource: &str) -> PathBuf {
        self.place.log(resource).join("control.log")
    }

    /// The end of the daemon's log, on one line.
    fn last_words(&self, resource: &str) -> String {
        let log = std::fs::read(self.disk.see(&self.log(resource))).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        let words = lines.into_iter().rev().collect::<Vec<_>>().join(" | ");
        let skip = words.chars().count().saturating_sub(LAST_WORDS);
        words.chars().skip(skip).collect()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
