//! Programs that run on when the agent ends.
//!
//! Where the node has systemd they are transient units of it. What the agent starts itself is in the control group of its
//! container, and the runtime kills every process there when the container ends; what systemd starts is in a group of its
//! own. Elsewhere they are sessions of their own, which hold where the agent runs outside of a container, and are found
//! again by a variable that only who started them can have set.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_agent::deps::Process;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

use super::system::{Host, PATIENCE};

/// The variable that names a session, or a process group.
pub(super) const MARK: &str = "PITCREW_SERVICE";
/// There where systemd is the node's first process (`sd_booted(3)`).
const SYSTEMD: &str = "run/systemd/system";
/// Between two looks at a process.
const LOOK: Duration = Duration::from_secs(1);
/// Between two questions to systemd, where its process can't be seen.
const ASK: Duration = Duration::from_secs(5);
/// How long killed processes may take to go.
const GONE: Duration = Duration::from_secs(10);

/// Starts it by systemd where the node has one, else as a session.
pub(super) async fn start(
    host: &Host,
    name: &str,
    program: &Path,
    arguments: &[String],
    env: &[(String, String)],
) -> io::Result<Box<dyn Process>> {
    let mut why = "the node has no systemd".to_owned();
    if host.root().join(SYSTEMD).is_dir() {
        match start_unit(host, name, program, arguments, env).await {
            Ok(unit) => return Ok(Box::new(unit)),
            Err(error) => why = format!("systemd does not start it ({error})"),
        }
    }
    let mut env = env.to_vec();
    env.push((MARK.to_owned(), name.to_owned()));
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend_from_slice(arguments);
    let mut command = host.command(Path::new("setsid"), &words, &env);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.kill_on_drop(false);
    let child = command.spawn()?;
    let seen = child.id().and_then(Seen::look);
    let mortal = (host.root() != Path::new("/")).then(|| {
        format!("{why}, so that it runs in the agent's container, which takes it along when it ends")
    });
    Ok(Box::new(Session {
        child: Some(child),
        seen,
        mortal,
    }))
}

/// Finds it, whichever way it was started.
pub(super) async fn find(host: &Host, name: &str) -> io::Result<Option<Box<dyn Process>>> {
    if host.root().join(SYSTEMD).is_dir()
        && let Some(unit) = Unit::find(host, name).await?
    {
        return Ok(Some(Box::new(unit)));
    }
    let session = |seen| -> Box<dyn Process> {
        Box::new(Session {
            child: None,
            seen: Some(seen),
            mortal: None,
        })
    };
    Ok(marked(name)?.map(session))
}

/// The unit of a name.
fn unit_of(name: &str) -> String {
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() || "._-".contains(letter) {
            letter
        } else {
            '_'
        }
    };
    let name: String = name.chars().map(plain).collect();
    format!("pitcrew-{name}.service")
}

async fn start_unit(
    host: &Host,
    name: &str,
    program: &Path,
    arguments: &[String],
    env: &[(String, String)],
) -> io::Result<Unit> {
    let unit = unit_of(name);
    // One that failed, or that nobody found, would keep its name.
    let _ = host.tool("systemctl", &["stop", "--", &unit], PATIENCE).await;
    let mut words = vec![
        "--quiet".to_owned(),
        "--collect".to_owned(),
        format!("--unit={unit}"),
        format!("--description=pitcrew {name}"),
    ];
    words.extend(env.iter().map(|(key, value)| format!("--setenv={key}={value}")));
    words.push("--".to_owned());
    words.push(program.to_string_lossy().into_owned());
    words.extend_from_slice(arguments);
    let command = host.command(Path::new("systemd-run"), &words, &[]);
    host.finish(command, "", PATIENCE).await?;
    let ended = || io::Error::other("it ended at once; `journalctl -u pitcrew-*` on the node says more");
    Unit::find(host, name).await?.ok_or_else(ended)
}

/// A unit of systemd.
struct Unit {
    host: Host,
    name: String,
    /// Its first process, where it can be seen from here.
    seen: Option<Seen>,
}

impl Unit {
    /// The unit of this name, where it is active.
    async fn find(host: &Host, name: &str) -> io::Result<Option<Self>> {
        let name = unit_of(name);
        let words = ["show", "--property=ActiveState,MainPID", "--", &name].map(str::to_owned);
        let command = host.command(Path::new("systemctl"), &words, &[]);
        let answer = host.finish(command, "", PATIENCE).await?;
        Ok(main_process(&answer).map(|pid| Self {
            host: host.clone(),
            name,
            seen: Seen::look(pid),
        }))
    }

    async fn is_active(&self) -> bool {
        let is_active = ["is-active", "--quiet", "--", &self.name];
        self.host.tool("systemctl", &is_active, PATIENCE).await.is_ok()
    }
}

/// The first process of a unit that is active, from what `systemctl show` says.
fn main_process(answer: &str) -> Option<u32> {
    let value = |key: &str| {
        let mut lines = answer.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.trim())
    };
    let is_active = matches!(value("ActiveState"), Some("active" | "activating"));
    let pid = value("MainPID")?.parse().ok()?;
    (is_active && pid != 0).then_some(pid)
}

impl Process for Unit {
    fn wait(&mut self) -> BoxFuture<'_, String> {
        async {
            if let Some(seen) = self.seen {
                seen.gone().await;
            }
            // Also where the agent doesn't see the node's processes, and has looked at another one.
            while self.is_active().await {
                tokio::time::sleep(ASK).await;
            }
            format!("the unit {} is not active any more", self.name)
        }
        .boxed()
    }

    fn end(&mut self) -> BoxFuture<'_, ()> {
        async {
            let stop = ["stop", "--", &self.name];
            let _ = self.host.tool("systemctl", &stop, PATIENCE).await;
        }
        .boxed()
    }
}

/// A session.
struct Session {
    /// Where it was started here.
    child: Option<Child>,
    seen: Option<Seen>,
    mortal: Option<String>,
}

impl Process for Session {
    fn wait(&mut self) -> BoxFuture<'_, String> {
        async {
            match (&mut self.child, self.seen) {
                (Some(child), _) => match child.wait().await {
                    Ok(status) => format!("it ended with {status}"),
                    Err(error) => format!("nobody knows how it ended: {error}"),
                },
                (None, Some(seen)) => {
                    seen.gone().await;
                    "it is not there any more".to_owned()
                }
                (None, None) => "it is not there".to_owned(),
            }
        }
        .boxed()
    }

    fn end(&mut self) -> BoxFuture<'_, ()> {
        async {
            let Some(seen) = self.seen else { return };
            if !seen.is_there() {
                return;
            }
            if let Some(pid) = i32::try_from(seen.pid).ok().and_then(Pid::from_raw) {
                // The leader of a session leads a group of the same number, in which all that it started is.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = tokio::time::timeout(GONE, async {
                match &mut self.child {
                    Some(child) => drop(child.wait().await),
                    None => seen.gone().await,
                }
            })
            .await;
        }
        .boxed()
    }

    fn mortal(&self) -> Option<String> {
        self.mortal.clone()
    }
}

/// A process, and when it began: numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) pid: u32,
    /// In ticks since the machine's start.
    begun: u64,
}

impl Seen {
    pub(super) fn look(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self {
            pid,
            begun: stat.begun,
        })
    }

    pub(super) fn is_there(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.begun == self.begun && !stat.is_dead)
    }

    pub(super) async fn gone(self) {
        while self.is_there() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What is needed of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    is_dead: bool,
    group: u32,
    session: u32,
    begun: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name is in brackets, and may hold anything (`proc_pid_stat(5)`).
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            begun: fields.get(19)?.parse().ok()?,
        })
    }
}

/// The session of this name: its leader alone, as all that it starts has its environment.
fn marked(name: &str) -> io::Result<Option<Seen>> {
    let mark = format!("{MARK}={name}");
    Ok(leaders(&mark, |stat| stat.session)?.into_iter().next())
}

/// The leaders of process groups that have this variable, as `NAME=value`.
pub(super) fn groups(mark: &str) -> io::Result<Vec<Seen>> {
    leaders(mark, |stat| stat.group)
}

fn leaders(mark: &str, led_by: impl Fn(&Stat) -> u32) -> io::Result<Vec<Seen>> {
    let mut leaders = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let Some(stat) = Stat::read(pid) else { continue };
        if stat.is_dead || led_by(&stat) != pid {
            continue;
        }
        // Whoever likes can set a variable: what we started runs as we do.
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if !is_of(&status, rustix::process::geteuid().as_raw()) {
            continue;
        }
        // Not ours to read, or gone.
        let Ok(env) = std::fs::read(entry.path().join("environ")) else {
            continue;
        };
        if env.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes()) {
            leaders.push(Seen {
                pid,
                begun: stat.begun,
            });
        }
    }
    Ok(leaders)
}

/// True where a process runs as this user and as nobody else, from what `/proc/PID/status` says. The owner of `/proc/PID`
/// would not do: it is root for all that can't be dumped, and the user for a program that root lends its rights to
/// (`proc_pid_status(5)`).
fn is_of(status: &str, user: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let ids: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    ids.len() == 4 && ids.iter().all(|id| id.parse() == Ok(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_only_ours_where_it_runs_as_we_do_in_every_way() {
        assert!(is_of("Name:\tx\nUid:\t0\t0\t0\t0\nGid:\t5\t5\t5\t5\n", 0));
        for text in [
            "Uid:\t1000\t1000\t1000\t1000\n",
            "Uid:\t1000\t0\t0\t0\n",
            "Uid:\t0\t0\t0\n",
            "Gid:\t0\t0\t0\t0\n",
            "Name:\tUid:\t0\t0\t0\t0\n",
            "",
        ] {
            assert!(!is_of(text, 0), "{text}");
        }
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(is_of(&own, rustix::process::geteuid().as_raw()));
    }

    /// Only root can start a program as somebody else.
    #[test]
    fn what_another_user_marks_is_not_taken_for_ours() {
        use std::os::unix::process::CommandExt as _;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let name = format!("planted-{}", std::process::id());
        let mark = format!("{MARK}={name}");
        let started = |user: u32| {
            let mut command = std::process::Command::new("/bin/sleep");
            command.arg("600").env(MARK, &name).process_group(0).uid(user);
            command.spawn().unwrap()
        };
        let (mut planted, mut own) = (started(65_534), started(0));
        let found = groups(&mark).unwrap();
        for child in [&mut planted, &mut own] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let found: Vec<u32> = found.iter().map(|seen| seen.pid).collect();
        assert_eq!(found, [own.id()]);
    }

    #[test]
    fn a_unit_is_named_after_its_service() {
        assert_eq!(
            unit_of("mps-nvidia.com/gpu"),
            "pitcrew-mps-nvidia.com_gpu.service"
        );
    }

    #[test]
    fn only_a_unit_that_is_active_has_a_process() {
        assert_eq!(main_process("MainPID=4711\nActiveState=active\n"), Some(4711));
        for text in [
            "MainPID=0\nActiveState=inactive\n",
            "MainPID=4711\nActiveState=failed\n",
            "MainPID=0\nActiveState=active\n",
            "MainPID=x\nActiveState=active\n",
            "",
        ] {
            assert_eq!(main_process(text), None, "{text}");
        }
    }

    #[test]
    fn the_name_of_a_process_hides_nothing_of_its_stat() {
        let text = "4711 (a) S b) Z 1 4711 4711 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1 1\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.is_dead, stat.session, stat.begun), (true, 4711, 987_654));
        for text in ["", "1 (", "1 (x) S", "1 (x) S 1 1 a"] {
            assert_eq!(Stat::parse(text), None, "{text}");
        }
    }

    /// As where an agent is killed: nobody holds it any more, and the next one finds it, ends it, and with it what it started.
    #[tokio::test]
    async fn a_session_runs_on_when_it_is_dropped_and_is_found_by_its_name_and_ended_with_its_children() {
        // A root without systemd, whose programs are the machine's: what is tried here is the session.
        let host = Host::new(Path::new("/"));
        let name = format!("test-{}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let child = dir.path().join("child");
        let script = format!(
            "sleep 600 & echo $! >{0}.new; mv {0}.new {0}; wait",
            child.display()
        );
        let arguments = ["-c".to_owned(), script];
        assert!(marked(&name).unwrap().is_none());
        let mut command = host.command(
            Path::new("setsid"),
            &[vec!["/bin/sh".to_owned()], arguments.to_vec()].concat(),
            &[(MARK.to_owned(), name.clone())],
        );
        command.kill_on_drop(false);
        let begun = command.spawn().unwrap();
        let wait = async {
            loop {
                let text = std::fs::read_to_string(&child).ok();
                if let Some(pid) = text.and_then(|text| text.trim().parse::<u32>().ok()) {
                    return pid;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let wait = tokio::time::timeout(Duration::from_secs(10), wait);
        let sleeper = Seen::look(wait.await.unwrap()).unwrap();
        drop(begun);
        let found = marked(&name).unwrap().unwrap();
        assert!(sleeper.is_there());
        let mut session = Session {
            child: None,
            seen: Some(found),
            mortal: None,
        };
        session.end().await;
        assert_eq!(session.wait().await, "it is not there any more");
        // A signal that was sent is not yet an end.
        let gone = tokio::time::timeout(Duration::from_secs(10), sleeper.gone());
        gone.await.unwrap();
        assert!(marked(&name).unwrap().is_none());
    }
}
