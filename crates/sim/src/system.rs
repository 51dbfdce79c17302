//! What only the kernel or systemd could do, done to an imaginary node.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_agent::deps::{Process, System as Interface};
use pitcrew_core::ports::HostFs as _;
use pitcrew_host::containerd::next_boot;
use pitcrew_host::facts::Host;
use tokio::sync::watch;

use crate::files::Files;
use crate::mps;

/// What happens on the node when a unit was restarted.
pub(crate) type Restart = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<()>> + Send + Sync>;

/// systemd, modprobe and programs of an imaginary node. A handle: clones are the same node.
///
/// Modules are there where the machine's driver is; device nodes are made in [`Files`]. Restarting RKE2 or K3s writes
/// containerd's configuration as they do, from what is found on the node then. Programs don't run: that they were started
/// is remembered, with their arguments.
#[derive(Clone)]
pub struct System {
    scratch: PathBuf,
    files: Files,
    restart: Restart,
    log: Arc<Mutex<Log>>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// What was asked of the node so far.
#[derive(Debug, Default)]
struct Log {
    modules: Vec<String>,
    restarts: Vec<String>,
    started: Vec<Program>,
    /// By number, who ends it.
    running: BTreeMap<usize, watch::Sender<Option<String>>>,
    /// Numbers by name.
    names: BTreeMap<String, usize>,
    ran: Vec<Program>,
    answers: BTreeMap<PathBuf, String>,
    mps: mps::Settings,
}

impl Log {
    /// What a program of the node prints.
    fn output(
        &mut self,
        program: &Path,
        arguments: &[String],
        env: &[(String, String)],
        input: &str,
    ) -> io::Result<String> {
        if let Some(answer) = self.answers.get(program) {
            return Ok(answer.clone());
        }
        match program.file_name().and_then(|name| name.to_str()) {
            Some(mps::CONTROL) => {
                let pipe = mps::pipe(env).unwrap_or_default();
                let serves = |at: &usize| {
                    let program = self.started.get(*at);
                    program.is_some_and(|program| mps::pipe(&program.env) == Some(pipe))
                };
                let Some(at) = self.running.keys().copied().find(serves) else {
                    return Err(mps::nobody());
                };
                let said = self.mps.say(pipe, input);
                if said.quits
                    && let Some(end) = self.running.remove(&at)
                {
                    end.send_replace(Some("it ended with exit status: 0".to_owned()));
                }
                Ok(said.output)
            }
            Some(mps::SMI) => Ok(self.mps.smi(arguments).unwrap_or_default()),
            _ => Ok(String::new()),
        }
    }
}

/// A program that was started or run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its path on the node.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// What it was given on standard input; empty for what was started.
    pub input: String,
}

impl System {
    pub(crate) fn new(scratch: PathBuf, files: Files, restart: Restart) -> Self {
        Self {
            scratch,
            files,
            restart,
            log: Arc::default(),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Modules that were asked for, in order.
    pub fn modules(&self) -> Vec<String> {
        self.log().modules.clone()
    }

    /// Units that were restarted, in order.
    pub fn restarts(&self) -> Vec<String> {
        self.log().restarts.clone()
    }

    /// Programs that were started, in order, also those that have ended.
    pub fn started(&self) -> Vec<Program> {
        self.log().started.clone()
    }

    /// Programs that run now.
    pub fn running(&self) -> Vec<Program> {
        let log = self.log();
        let running = log.running.keys();
        running.filter_map(|at| log.started.get(*at).cloned()).collect()
    }

    /// Programs that were run to their end, in order.
    pub fn ran(&self) -> Vec<Program> {
        self.log().ran.clone()
    }

    /// What a program of the node prints when it is run.
    pub fn answer(&self, program: impl Into<PathBuf>, output: impl Into<String>) {
        self.log().answers.insert(program.into(), output.into());
    }

    /// Ends every running program of this path, as if it had crashed; how many there were.
    pub fn crash(&self, program: &Path) -> usize {
        let mut log = self.log();
        let Log { running, started, .. } = &mut *log;
        let mut count = 0;
        running.retain(|at, end| {
            let is_it = started.get(*at).is_some_and(|known| known.path == program);
            if is_it {
                end.send_replace(Some("it was ended by signal 9".to_owned()));
                count += 1;
            }
            !is_it
        });
        count
    }

    /// The program that was started as this one, where it runs.
    fn running_at(&self, at: usize) -> Option<Box<dyn Process>> {
        let ended = self.log().running.get(&at)?.subscribe();
        Some(Box::new(Running {
            at,
            ended,
            system: self.clone(),
        }))
    }

    /// Whether a program is there; one without a directory is looked for where programs are.
    fn find_program(&self, program: &Path) -> io::Result<()> {
        if program.components().count() > 1 {
            return self.files.kind(program).map(drop);
        }
        let directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Path::new);
        let is_there = |dir: &&Path| self.files.kind(&dir.join(program)).is_ok();
        let found = directories.iter().any(is_there);
        found.then_some(()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes containerd's configuration as the supervisor does at its start.
    fn render(&self) -> io::Result<()> {
        let host = Host::gather(&self.files);
        let Some(plan) = next_boot::plan(&host, &self.files) else {
            return Ok(());
        };
        let (Some(program), Some(text)) = (plan.supervisor, plan.rendered) else {
            return Ok(());
        };
        // What the supervisor itself has written says so in its first line.
        let body = text.split_once('\n').map_or("", |(_, body)| body);
        let text = format!("# File generated by {program}. DO NOT EDIT.\n{body}");
        let path = plan.config_path;
        fs::write(self.scratch.join(path.strip_prefix("/").unwrap_or(&path)), text)
    }
}

impl Interface for System {
    fn load_module(&self, name: &str) -> BoxFuture<'_, io::Result<()>> {
        let name = name.replace('-', "_");
        let is_there = self.files.kind(Path::new("/sys/module/nvidia/version")).is_ok();
        self.log().modules.push(name.clone());
        let result = if is_there && name.starts_with("nvidia") {
            Ok(())
        } else {
            let text = format!("modprobe: module {name} not found: the imaginary driver is not loaded");
            Err(io::Error::new(io::ErrorKind::NotFound, text))
        };
        std::future::ready(result).boxed()
    }

    fn make_char_device(&self, path: &Path, major: u32, minor: u32) -> io::Result<()> {
        self.files.make(path, major, minor)
    }

    fn restart_unit<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, io::Result<()>> {
        async move {
            let name = unit.strip_suffix(".service").unwrap_or(unit);
            let directories = [
                "/etc/systemd/system",
                "/usr/local/lib/systemd/system",
                "/usr/lib/systemd/system",
            ];
            let is_there = directories.iter().any(|dir| {
                self.files
                    .kind(&Path::new(dir).join(format!("{name}.service")))
                    .is_ok()
            });
            if !is_there {
                let text = format!("unit {name}.service not found");
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
            self.log().restarts.push(name.to_owned());
            self.render()?;
            (self.restart)(name.to_owned()).await
        }
        .boxed()
    }

    fn start<'a>(
        &'a self,
        name: &'a str,
        program: &'a Path,
        arguments: &'a [String],
        env: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Box<dyn Process>>> {
        let started = self.find_program(program).map(|()| {
            let mut log = self.log();
            let at = log.started.len();
            log.started.push(Program {
                path: program.to_owned(),
                arguments: arguments.to_vec(),
                env: env.to_vec(),
                input: String::new(),
            });
            let (end, _) = watch::channel(None);
            log.running.insert(at, end);
            log.names.insert(name.to_owned(), at);
            drop(log);
            self.running_at(at)
        });
        let started = started.and_then(|running| running.ok_or_else(|| io::ErrorKind::NotFound.into()));
        std::future::ready(started).boxed()
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Option<Box<dyn Process>>>> {
        let at = self.log().names.get(name).copied();
        std::future::ready(Ok(at.and_then(|at| self.running_at(at)))).boxed()
    }

    fn run<'a>(
        &'a self,
        program: &'a Path,
        arguments: &'a [String],
        env: &'a [(String, String)],
        input: &'a str,
    ) -> BoxFuture<'a, io::Result<String>> {
        let result = self.find_program(program).map(|()| {
            let mut log = self.log();
            log.ran.push(Program {
                path: program.to_owned(),
                arguments: arguments.to_vec(),
                env: env.to_vec(),
                input: input.to_owned(),
            });
            log.output(program, arguments, env, input)
        });
        std::future::ready(result.and_then(|output| output)).boxed()
    }
}

/// A program that runs on the imaginary node.
struct Running {
    at: usize,
    ended: watch::Receiver<Option<String>>,
    system: System,
}

impl Process for Running {
    fn wait(&mut self) -> BoxFuture<'_, String> {
        async {
            let end = self.ended.wait_for(Option::is_some).await;
            end.ok()
                .and_then(|end| end.clone())
                .unwrap_or_else(|| "it has ended".to_owned())
        }
        .boxed()
    }

    fn end(&mut self) -> BoxFuture<'_, ()> {
        if let Some(end) = self.system.log().running.remove(&self.at) {
            end.send_replace(Some("it was ended by signal 9".to_owned()));
        }
        std::future::ready(()).boxed()
    }
}
