//! An imaginary host with MPS.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_core::Inventory;
use pitcrew_core::ports::{Clock, FileKind, GpuError, GpuEvent, HostFs};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use crate::Deps;
use crate::deps::{Driver, Process, System};
use crate::mps::Policy;
use crate::notice::Notice;
use crate::settings::Settings;

/// A daemon that runs.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// As it answers.
    pub(super) percentage: String,
    pub(super) limits: BTreeMap<usize, String>,
    pub(super) visible: String,
    pub(super) libraries: String,
    pub(super) end: Option<watch::Sender<Option<String>>>,
    /// Process id; of a daemon that was put there, 0.
    pub(super) pid: usize,
    /// Processes that use it.
    pub(super) clients: Vec<u32>,
}

/// What the imaginary host is and does.
#[derive(Debug, Default)]
pub(super) struct World {
    /// By pipe directory.
    pub(super) daemons: BTreeMap<String, Serving>,
    /// Pipes of what was started, by the name that it was started under.
    pub(super) names: BTreeMap<String, String>,
    /// By UUID, as `nvidia-smi` writes them.
    pub(super) modes: BTreeMap<String, String>,
    /// Everything that was run or started, in short.
    pub(super) calls: Vec<String>,
    /// Daemons end at once with this.
    pub(super) stillborn: Option<String>,
    /// Daemons are started and never answer.
    pub(super) mute: bool,
    /// Limits are not taken.
    pub(super) deaf: bool,
    /// `nvidia-smi -c` fails with this.
    pub(super) no_modes: Option<String>,
    /// `nvidia-smi -c` says that it is done, and it isn't.
    pub(super) modes_stay: bool,
    /// `chcon` fails with this.
    pub(super) no_labels: Option<String>,
    pub(super) started: usize,
    /// Why what is started ends with the agent.
    pub(super) mortal: Option<String>,
}

#[derive(Clone)]
pub(super) struct Host {
    pub(super) root: PathBuf,
    pub(super) world: Arc<Mutex<World>>,
}

impl Host {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Puts the driver's programs there.
    pub(super) fn install(&self, programs: &[&str]) {
        let bin = self.root.join("usr/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for program in programs {
            std::fs::write(bin.join(program), "").unwrap();
        }
    }

    fn see(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

fn value<'a>(env: &'a [(String, String)], name: &str) -> &'a str {
    env.iter()
        .find(|(key, _)| key == name)
        .map_or("", |(_, value)| value)
}

struct Child(watch::Receiver<Option<String>>, Host, String, Option<String>);

impl Process for Child {
    fn wait(&mut self) -> BoxFuture<'_, String> {
        async move {
            match self.0.wait_for(Option::is_some).await {
                Ok(how) => how.clone().unwrap(),
                Err(_) => "it ended with exit status: 0".to_owned(),
            }
        }
        .boxed()
    }

    fn end(&mut self) -> BoxFuture<'_, ()> {
        if let Some(serving) = self.1.world().daemons.remove(&self.2)
            && let Some(end) = serving.end
        {
            end.send_replace(Some("it ended with signal: 9".to_owned()));
        }
        std::future::ready(()).boxed()
    }

    fn mortal(&self) -> Option<String> {
        self.3.clone()
    }
}

impl System for Host {
    fn load_module(&self, _: &str) -> BoxFuture<'_, io::Result<()>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    fn make_char_device(&self, _: &Path, _: u32, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn restart_unit<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<()>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    fn start<'a>(
        &'a self,
        name: &'a str,
        program: &'a Path,
        arguments: &'a [String],
        env: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Box<dyn Process>>> {
        let pipe = value(env, "CUDA_MPS_PIPE_DIRECTORY").to_owned();
        let log = self.see(&Path::new(value(env, "CUDA_MPS_LOG_DIRECTORY")).join("control.log"));
        let mut world = self.world();
        world.started += 1;
        world
            .calls
            .push(format!("{} {}", program.display(), arguments.join(" ")));
        let (end, ended) = watch::channel(None);
        // One that is there and doesn't listen has another key.
        let key = if world.mute {
            format!("{pipe} (mute)")
        } else {
            pipe
        };
        if let Some(how) = world.stillborn.clone() {
            std::fs::write(log, "Starting\nno such GPU\n").unwrap();
            end.send_replace(Some(how));
        } else {
            let serving = Serving {
                percentage: "100.0".to_owned(),
                visible: value(env, "CUDA_VISIBLE_DEVICES").to_owned(),
                libraries: value(env, "LD_LIBRARY_PATH").to_owned(),
                end: Some(end),
                pid: world.started,
                ..Serving::default()
            };
            world.daemons.insert(key.clone(), serving);
            world.names.insert(name.to_owned(), key.clone());
        }
        let child = Child(ended, self.clone(), key, world.mortal.clone());
        let child: Box<dyn Process> = Box::new(child);
        std::future::ready(Ok(child)).boxed()
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Option<Box<dyn Process>>>> {
        let world = self.world();
        let key = world.names.get(name).cloned();
        let found = key.and_then(|key| {
            let ended = world.daemons.get(&key)?.end.as_ref()?.subscribe();
            let child: Box<dyn Process> = Box::new(Child(ended, self.clone(), key, None));
            Some(child)
        });
        std::future::ready(Ok(found)).boxed()
    }

    fn run<'a>(
        &'a self,
        program: &'a Path,
        arguments: &'a [String],
        env: &'a [(String, String)],
        input: &'a str,
    ) -> BoxFuture<'a, io::Result<String>> {
        async move {
            let mut world = self.world();
            let name = program.file_name().unwrap().to_str().unwrap();
            let words = format!(
                "{name} {} {}",
                arguments.join(" "),
                input.trim().replace('\n', "; ")
            );
            if !input.starts_with("get_default_active_thread_percentage") {
                world.calls.push(words.trim().to_owned());
            }
            match name {
                "nvidia-smi" => smi(&mut world, arguments),
                "chcon" => world
                    .no_labels
                    .clone()
                    .map_or(Ok(String::new()), |error| Err(io::Error::other(error))),
                "nvidia-cuda-mps-control" => {
                    control(&mut world, value(env, "CUDA_MPS_PIPE_DIRECTORY"), input)
                }
                other => Err(io::Error::other(format!("no program {other}"))),
            }
        }
        .boxed()
    }
}

fn smi(world: &mut World, arguments: &[String]) -> io::Result<String> {
    let uuid = arguments[1].clone();
    if arguments[2] != "-c" {
        return Ok(format!(
            "{}\n",
            world.modes.get(&uuid).map_or("Default", String::as_str)
        ));
    }
    if let Some(error) = &world.no_modes {
        return Err(io::Error::other(error.clone()));
    }
    if world.modes_stay {
        return Ok("Treating as warning and moving on.\nAll done.\n".to_owned());
    }
    let mode = match arguments[3].as_str() {
        "DEFAULT" => "Default",
        "EXCLUSIVE_PROCESS" => "Exclusive_Process",
        _ => "Prohibited",
    };
    world.modes.insert(uuid, mode.to_owned());
    Ok(String::new())
}

fn control(world: &mut World, pipe: &str, input: &str) -> io::Result<String> {
    let deaf = world.deaf;
    let Some(daemon) = world.daemons.get_mut(pipe) else {
        return Err(io::Error::other(
            "it ended with exit status: 1: Cannot find MPS control daemon process",
        ));
    };
    let mut answer = String::new();
    for line in input.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "get_default_active_thread_percentage" => {
                answer.push_str(&daemon.percentage);
                answer.push('\n');
            }
            "set_default_active_thread_percentage" => {
                daemon.percentage = format!("{:.1}", words[1].parse::<f64>().unwrap());
                answer.push_str(&daemon.percentage);
                answer.push('\n');
            }
            "set_default_device_pinned_mem_limit" if !deaf => {
                daemon
                    .limits
                    .insert(words[1].parse().unwrap(), words[2].to_owned());
            }
            "set_default_device_pinned_mem_limit" => {}
            "get_default_device_pinned_mem_limit" => {
                let limit = daemon.limits.get(&words[1].parse().unwrap());
                let limit = limit.map_or("", String::as_str);
                let mib = limit
                    .strip_suffix('M')
                    .and_then(|limit| limit.parse::<u64>().ok());
                match mib {
                    Some(mib) if mib >= 1024 => answer += &[&(mib / 1024).to_string(), "G"].concat(),
                    _ => answer += limit,
                }
                answer += "\n";
            }
            "get_server_list" => {
                if !daemon.clients.is_empty() {
                    answer += "4711\n";
                }
            }
            "get_client_list" => {
                let lines: Vec<String> = daemon
                    .clients
                    .iter()
                    .map(|client| format!("{client}\n"))
                    .collect();
                answer += &lines.concat();
            }
            "quit" => {
                let ended = world.daemons.remove(pipe).unwrap();
                if let Some(end) = ended.end {
                    end.send_replace(Some("it ended with exit status: 0".to_owned()));
                }
                return Ok(answer);
            }
            other => {
                let refusal = format!("Unknown command \"{other}\"\n");
                answer.push_str(&refusal);
            }
        }
    }
    Ok(answer)
}

impl HostFs for Host {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let meta = std::fs::symlink_metadata(self.see(path))?;
        Ok(if meta.is_dir() {
            FileKind::Directory
        } else {
            FileKind::File(meta.len())
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(self.see(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.see(path))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap()));
        names.collect()
    }
}

struct Idle;

impl Driver for Idle {
    fn look(&self) -> BoxFuture<'_, Result<Inventory, GpuError>> {
        std::future::pending().boxed()
    }

    fn event(&self) -> BoxFuture<'_, GpuEvent> {
        std::future::pending().boxed()
    }

    fn release(&self) -> BoxFuture<'_, Result<(), GpuError>> {
        std::future::ready(Ok(())).boxed()
    }
}

impl Clock for Idle {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1)
    }
}

/// What an agent gets on that host, and what it tells.
pub(super) fn deps(host: &Host, policy: Policy) -> (Arc<Deps>, UnboundedReceiver<Notice>) {
    let (notices, told) = unbounded_channel();
    let deps = Deps {
        settings: Settings {
            mps_compute_mode: policy,
            ..Settings::new("worker-1")
        },
        driver: Arc::new(Idle),
        host: Arc::new(host.clone()),
        root: host.root.clone(),
        system: Arc::new(host.clone()),
        prover: Arc::new(crate::deps::NoProver),
        client: None,
        clock: Arc::new(Idle),
        notices,
    };
    (Arc::new(deps), told)
}
