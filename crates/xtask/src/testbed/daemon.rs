//! A background program of the bed: started once, found again by later commands, never mistaken.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::paths::{Paths, write};
use super::{cgroup, machine};

/// How often something awaited is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A running process, named such that a later one with the same id is not taken for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks since boot, as field 22 of /proc/PID/stat has it.
    started: u64,
}

impl Process {
    /// The process that has this id now.
    pub(crate) fn now(pid: u32) -> Option<Self> {
        let (started, zombie) = stat(pid)?;
        (!zombie).then_some(Self { pid, started })
    }

    pub(crate) fn alive(&self) -> bool {
        Self::now(self.pid).as_ref() == Some(self)
    }

    /// How long it has been running.
    pub(crate) fn age(&self) -> Option<Duration> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        // What user space is told has been 100 ticks a second on x86-64 always.
        let since_boot = Duration::from_millis(self.started * 10);
        Duration::try_from_secs_f64(uptime).ok()?.checked_sub(since_boot)
    }

    /// Sends a signal, if it is still the same process.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
            && self.alive()
        {
            // That it ended in between is what was wanted.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// The start time, and whether it is a zombie, which nobody can stop any more.
fn stat(pid: u32) -> Option<(u64, bool)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold blanks and parentheses itself.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    Some((fields.get(19)?.parse().ok()?, fields.first() == Some(&"Z")))
}

/// One of the bed's background programs.
pub(crate) struct Daemon<'a> {
    paths: &'a Paths,
    pub(crate) name: &'static str,
    /// Ports of 127.0.0.1 that it takes.
    ports: &'static [u16],
}

impl<'a> Daemon<'a> {
    pub(crate) fn new(paths: &'a Paths, name: &'static str, ports: &'static [u16]) -> Self {
        Self { paths, name, ports }
    }

    fn pid_file(&self) -> PathBuf {
        self.paths.run(&format!("{}.pid", self.name))
    }

    /// The process, where it runs: id, start time and program are as noted.
    pub(crate) fn process(&self) -> Option<Process> {
        let text = std::fs::read_to_string(self.pid_file()).ok()?;
        let mut fields = text.splitn(3, ' ');
        let process = Process {
            pid: fields.next()?.parse().ok()?,
            started: fields.next()?.parse().ok()?,
        };
        let program = Path::new(fields.next()?.trim_end());
        (process.alive() && runs(process.pid, program)).then_some(process)
    }

    /// Starts it where it does not run; true where it was started. Output goes to its log.
    pub(crate) fn start(&self, program: &Path, command: &mut Command) -> Result<bool> {
        if self.process().is_some() {
            return Ok(false);
        }
        for port in self.ports {
            machine::port_is_free(self.name, *port)?;
        }
        let program = std::fs::canonicalize(program)
            .with_context(|| format!("the program {} is not there", program.display()))?;
        let path = self.paths.log(self.name);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("could not open the log {}", path.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own, so that Ctrl-C in the terminal does not reach it.
            .process_group(0)
            .env("PATH", self.paths.search_path())
            .spawn()
            .with_context(|| {
                format!(
                    "could not start {} ({})",
                    self.name,
                    crate::process::shown(command)
                )
            })?;
        let pid = child.id();
        let started = stat(pid).map_or(0, |(started, _)| started);
        write(
            &self.pid_file(),
            format!("{pid} {started} {}\n", program.display()),
        )?;
        cgroup::adopt(pid)?;
        eprintln!("{}: started (process {pid})", self.name);
        Ok(true)
    }

    /// Waits until `ready` holds; where the program ends before, says so with the end of its log.
    pub(crate) fn wait(&self, limit: Duration, what: &str, ready: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !ready() {
            if self.process().is_none() {
                bail!("{} ended before it was ready\n{}", self.name, self.last_words());
            }
            if begun.elapsed() > limit {
                bail!("{what}: not after {} s\n{}", limit.as_secs(), self.last_words());
            }
            std::thread::sleep(POLL);
        }
        eprintln!("{what}: ok ({:.1} s)", begun.elapsed().as_secs_f32());
        Ok(())
    }

    fn last_words(&self) -> String {
        let path = self.paths.log(self.name);
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
        format!("the end of its log, {}:\n  {last}", path.display())
    }

    /// Asks it to end, insists after `grace`, forgets it.
    pub(crate) fn stop(&self, grace: Duration) -> Result<()> {
        if let Some(process) = self.process() {
            end(std::slice::from_ref(&process), grace)
                .with_context(|| format!("could not stop {}", self.name))?;
            eprintln!("{}: stopped", self.name);
        }
        match std::fs::remove_file(self.pid_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", self.pid_file().display()))
            }
            _ => Ok(()),
        }
    }
}

/// True where `pid` runs `program`, or one of those that turn into it a moment after the start.
fn runs(pid: u32, program: &Path) -> bool {
    let Ok(exe) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
        return false;
    };
    let exe = exe.to_string_lossy();
    // A program that was built anew meanwhile is still the one that was started.
    let exe = Path::new(exe.strip_suffix(" (deleted)").unwrap_or(&exe));
    let launcher = ["unshare", "nsenter"]
        .iter()
        .any(|name| exe.file_name() == Some(name.as_ref()));
    exe == program || launcher
}

/// Ends processes: asks all, waits up to `grace` in all, then insists.
pub(crate) fn end(processes: &[Process], grace: Duration) -> Result<()> {
    for (signal, limit) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(10))] {
        for process in processes {
            process.signal(signal);
        }
        let begun = Instant::now();
        while processes.iter().any(Process::alive) && begun.elapsed() < limit {
            std::thread::sleep(POLL / 5);
        }
    }
    let left: Vec<String> = processes
        .iter()
        .filter(|process| process.alive())
        .map(|process| process.pid.to_string())
        .collect();
    if !left.is_empty() {
        bail!("processes {} did not end, not even on SIGKILL", left.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bed() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(dir.path().to_path_buf()), None).unwrap();
        paths.make().unwrap();
        (dir, paths)
    }

    #[test]
    fn a_pid_file_is_believed_only_for_the_same_process() {
        let (_dir, paths) = bed();
        let daemon = Daemon::new(&paths, "etcd", &[]);
        let us = Process::now(std::process::id()).unwrap();
        let exe = std::env::current_exe().unwrap().canonicalize().unwrap();
        let note = |pid: u32, started: u64, exe: &Path| {
            write(
                &paths.run("etcd.pid"),
                format!("{pid} {started} {}\n", exe.display()),
            )
            .unwrap();
            daemon.process()
        };
        assert_eq!(note(us.pid, us.started, &exe), Some(us.clone()));
        assert_eq!(
            note(us.pid, us.started + 1, &exe),
            None,
            "another start: the id was used again"
        );
        assert_eq!(
            note(us.pid, us.started, Path::new("/bin/other")),
            None,
            "another program"
        );
        write(&paths.run("etcd.pid"), "garbage").unwrap();
        assert_eq!(daemon.process(), None);
        // Nothing is signalled on the word of a stale file, and it goes.
        daemon.stop(Duration::ZERO).unwrap();
        assert!(!paths.run("etcd.pid").exists());
    }
}
