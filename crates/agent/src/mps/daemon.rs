//! One daemon: how it is started, told what clients may have, watched and stopped.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::ports::{FileKind, HostFs};
use tokio::sync::mpsc::UnboundedSender;

use super::dialogue::{self, PING, QUIT, SERVERS};
use super::disk::Disk;
use super::holders;
use super::{Daemon, PIPE_VARIABLE, Place, Policy, SHARED_MEMORY, problems};
use crate::Deps;
use crate::deps::{Process, System};
use crate::dir::Dir;
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
/// How much of the daemon's log is told.
const LAST_WORDS: usize = 300;

/// Runs in a mount namespace of its own, where `/dev/shm` is what the containers have there. Everybody can write to the
/// host's: a link that was planted there since we looked is not followed.
pub(super) const SCRIPT: &str = r#"cd "$0" && [ "$(pwd -P)" = "$0" ] && mount --no-canonicalize --bind . /dev/shm && cd / \
&& log=$1 && shift && exec "$@" >"$log" 2>&1"#;

/// What daemons stand on.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) system: Arc<dyn System>,
    host: Arc<dyn HostFs + Send + Sync>,
    notices: UnboundedSender<Notice>,
    pub(super) policy: Policy,
    place: Place,
    pub(super) disk: Disk,
}

/// A daemon that answers and keeps the limits.
pub(super) struct Running {
    process: Box<dyn Process>,
    /// What isn't right although it runs.
    pub(super) problem: Option<Problem>,
    /// What is to know of it although all is right.
    pub(super) remark: Option<Problem>,
}

impl Ground {
    pub(super) fn new(deps: &Deps, place: Place) -> Self {
        let (system, host) = (Arc::clone(&deps.system), Arc::clone(&deps.host));
        Self {
            policy: deps.settings.mps_compute_mode,
            ..Self::to_remove(system, host, &deps.root, deps.notices.clone(), place)
        }
    }

    /// What is needed to take all of it away.
    pub(super) fn to_remove(
        system: Arc<dyn System>,
        host: Arc<dyn HostFs + Send + Sync>,
        root: &Path,
        notices: UnboundedSender<Notice>,
        place: Place,
    ) -> Self {
        Self {
            system,
            host,
            notices,
            policy: Policy::Leave,
            disk: Disk::new(root, &place),
            place,
        }
    }

    /// Processes that use the daemon, or why it doesn't say.
    pub(super) async fn clients(&self, daemon: &Daemon) -> Result<Vec<u32>, String> {
        let control = self.program(CONTROL).map_err(|problem| problem.message)?;
        let why = |error: io::Error| error.to_string();
        let mut clients = Vec::new();
        let servers = self.control(&control, daemon, SERVERS).await.map_err(why)?;
        for server in dialogue::numbers(&servers) {
            let clients_of = dialogue::clients_of(server);
            let answer = self.control(&control, daemon, &clients_of).await.map_err(why)?;
            clients.extend(dialogue::numbers(&answer));
        }
        Ok(clients)
    }

    /// True where no such daemon runs any more, as far as the node says.
    pub(super) async fn is_gone(&self, daemon: &Daemon) -> bool {
        matches!(self.find(&daemon.resource).await, Ok(None))
    }

    /// Pods that have a share of what it serves.
    pub(super) fn holders(&self, daemon: &Daemon) -> io::Result<BTreeSet<String>> {
        let pipe = self.place.pipe(&daemon.resource);
        holders::holders(&*self.host, &daemon.resource, &pipe)
    }

    pub(super) fn tell(&self, level: Level, text: String) {
        let notice = Notice {
            topic: Topic::Mps,
            level,
            text,
        };
        let _ = self.notices.send(notice);
    }

    /// Starts it, or takes over one that an agent before us left and that is the same.
    pub(super) async fn start(&self, daemon: &Daemon) -> Result<Running, Problem> {
        let control = self.program(CONTROL)?;
        let problem = self.directories(&daemon.resource).await?;
        let is_same = self.disk.daemons().get(&daemon.resource) == Some(daemon);
        let mut process = self.find(&daemon.resource).await?;
        let serves = self.control(&control, daemon, PING).await.is_ok();
        if serves && process.is_none() {
            return Err(problems::another_daemon(&self.place.pipe(&daemon.resource)));
        }
        if let Some(left) = process.take_if(|_| !is_same || !serves) {
            self.end(&control, daemon, left).await;
        }
        let remark = self.settle_modes(daemon).await?;
        let process = if let Some(left) = process {
            let text = format!(
                "{}: the daemon of an agent before this one is taken over",
                daemon.resource
            );
            self.tell(Level::Info, text);
            left
        } else {
            self.disk
                .keep_daemon(daemon)
                .map_err(|error| problems::directory(&self.place.root, &error))?;
            self.spawn(&control, daemon).await?
        };
        self.limit(&control, daemon).await?;
        Ok(Running {
            process,
            problem,
            remark,
        })
    }

    /// Waits until it is gone, and says how it went.
    pub(super) async fn ended(&self, daemon: &Daemon, running: &mut Running) -> Problem {
        let how = running.process.wait().await;
        let log = self.log(&daemon.resource);
        problems::ended(&how, &self.last_words(&daemon.resource), &log)
    }

    /// Ends it, and gives its GPUs back the mode that they had.
    pub(super) async fn stop(&self, daemon: &Daemon, running: Option<Running>) {
        let process = match running {
            Some(running) => Some(running.process),
            // One that nobody finds is another's, or gone.
            None => self.find(&daemon.resource).await.ok().flatten(),
        };
        if let Some(mut process) = process {
            match self.program(CONTROL) {
                Ok(control) => self.end(&control, daemon, process).await,
                Err(_) => process.end().await,
            }
        }
        self.disk.forget_daemon(&daemon.resource);
        self.give_back_modes(|uuid| daemon.gpus.iter().any(|part| part.uuid == uuid))
            .await;
    }

    /// Asks it to end, which takes its servers along, and ends what is left of it then.
    async fn end(&self, control: &Path, daemon: &Daemon, mut process: Box<dyn Process>) {
        // It fails also where nobody serves, or a server had failed before.
        let _ = self.control_within(control, daemon, QUIT, END).await;
        process.end().await;
    }

    async fn find(&self, resource: &str) -> Result<Option<Box<dyn Process>>, Problem> {
        let found = self.system.find(&service(resource)).await;
        found.map_err(|error| problems::not_found(&error))
    }

    async fn spawn(&self, control: &Path, daemon: &Daemon) -> Result<Box<dyn Process>, Problem> {
        let log = self.log(&daemon.resource);
        let words = [
            "--mount",
            // What is unmounted on the node goes here too, or a volume stayed busy as long as the daemon lives.
            "--propagation",
            "slave",
            "--",
            "sh",
            "-c",
            SCRIPT,
            SHARED_MEMORY,
        ];
        let mut arguments: Vec<String> = words.map(str::to_owned).into();
        arguments.extend([text(&log), text(control), "-f".to_owned()]);
        let name = service(&daemon.resource);
        let env = self.env(daemon);
        let start = self.system.start(&name, Path::new("unshare"), &arguments, &env);
        let mut process = start.await.map_err(|error| problems::not_started(&error))?;
        if let Some(why) = process.mortal() {
            let text = format!(
                "{}: {why}: programs that use it fail then, and their pods have to start again",
                daemon.resource
            );
            self.tell(Level::Warning, text);
        }
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
        match failed {
            None => Ok(process),
            Some(problem) => {
                process.end().await;
                Err(problem)
            }
        }
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
        let answer = self.system.run(control, &[], &env, words);
        tokio::time::timeout(patience, answer)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer"))?
    }

    /// A program of the driver, as the host sees it.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf, Problem> {
        let paths = PROGRAMS
            .iter()
            .map(|dir| self.place.driver_root.join(dir).join(name));
        let is_there = |path: &PathBuf| match self.host.kind(path) {
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
            Dir::make(self.disk.root(), path)
                .and_then(|dir| dir.set_mode(mode))
                .map_err(|error| problems::directory(path, &error))?;
        }
        if self.place.selinux {
            for path in [&pipe, &memory] {
                let arguments = ["-R", "-t", LABEL, &text(path)].map(str::to_owned);
                let labelled = self.system.run(Path::new("chcon"), &arguments, &[], "").await;
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

/// What the daemon of a resource is called on the node.
fn service(resource: &str) -> String {
    format!("mps-{resource}")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
