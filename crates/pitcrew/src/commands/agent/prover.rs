//! Proofs as processes: this program once more, as `pitcrew prove`.
//!
//! Each is a process group of its own and marked by a variable, by which the next agent finds what one that was killed has
//! left.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_agent::Settings;
use pitcrew_agent::deps::{ProofOrder, Prover, Proving};
use pitcrew_cli::GlobalArgs;
use pitcrew_core::proof::Profile;
use pitcrew_prove::profile;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};

use super::service::{MARK, Seen, groups};

/// How long it may take to end when it is asked to.
const ASKED: Duration = Duration::from_secs(5);
/// How long it may take to go when it was killed.
const KILLED: Duration = Duration::from_secs(3);
/// What a proof takes beside its phases: kernels are loaded, or compiled by the driver, and counters are read.
const SET_UP: Duration = Duration::from_mins(2);
/// How much of what it says at last is kept, in bytes.
const LAST_WORDS: usize = 2_000;
/// How much of that is told, in characters.
const TOLD: usize = 300;
/// The flag that names what is proved.
const GPUS: &str = "--gpu";

/// Starts proofs on this machine.
#[derive(Debug)]
pub(super) struct Processes {
    root: PathBuf,
    nvml: Option<PathBuf>,
    scenario: Option<String>,
    /// The kubelet's, whose books both look at.
    kubelet_dir: PathBuf,
    /// The mark of this node's proofs.
    mark: String,
}

impl Processes {
    /// Proofs of the GPUs that the agent itself has: this machine's, or a scenario's.
    pub(super) fn new(global: &GlobalArgs, scenario: Option<&str>, settings: &Settings) -> Self {
        Self {
            root: global.root.clone(),
            nvml: global.nvml.clone(),
            scenario: scenario.map(str::to_owned),
            kubelet_dir: settings.kubelet_dir.clone(),
            mark: format!("{MARK}=proof-{}", settings.node),
        }
    }

    fn command(&self, order: &ProofOrder) -> Command {
        let devices = order.devices.join(",");
        // Not by its path: another version may lie there by now.
        let mut command = Command::new("/proc/self/exe");
        command.args([
            "prove",
            "--quiet",
            "--hand-over",
            "--profile",
            order.profile.name(),
        ]);
        command.args(["--node", &order.node, GPUS, &devices]);
        command.arg("--root").arg(&self.root);
        command.arg("--kubelet-dir").arg(&self.kubelet_dir);
        if let Some(nvml) = &self.nvml {
            command.arg("--nvml").arg(nvml);
        }
        if let Some(scenario) = &self.scenario {
            command.args(["--scenario", scenario]);
        }
        // Nothing of the agent's own environment is meant for it.
        command.env_clear();
        if let Some((name, value)) = self.mark.split_once('=') {
            command.env(name, value);
        }
        // Of MIG devices CUDA shows only the one that is named; what isn't named is left alone.
        command.env("CUDA_VISIBLE_DEVICES", &devices);
        command.env("CUDA_CACHE_DISABLE", "1");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }
}

impl Prover for Processes {
    fn start<'a>(&'a self, order: &'a ProofOrder) -> BoxFuture<'a, io::Result<Box<dyn Proving>>> {
        async move {
            let mut child = self.command(order).spawn()?;
            let words = Arc::new(Mutex::new(Vec::new()));
            if let Some(stderr) = child.stderr.take() {
                tokio::spawn(listen(stderr, Arc::clone(&words)));
            }
            let seen = child.id().and_then(Seen::look);
            let proof: Box<dyn Proving> = Box::new(Proof {
                devices: order.devices.clone(),
                child: Some(child),
                seen,
                words,
            });
            Ok(proof)
        }
        .boxed()
    }

    fn left(&self) -> BoxFuture<'_, io::Result<Vec<Box<dyn Proving>>>> {
        let proof = |seen: Seen| -> Box<dyn Proving> {
            Box::new(Proof {
                devices: devices_of(seen),
                child: None,
                seen: Some(seen),
                words: Arc::default(),
            })
        };
        let left = groups(&self.mark).map(|left| left.into_iter().map(proof).collect());
        std::future::ready(left).boxed()
    }

    fn longest(&self, profile: Profile) -> Duration {
        profile::usual(profile) * 3 / 2 + SET_UP
    }
}

/// A proof that was started, here or by an agent before this one.
struct Proof {
    devices: Vec<String>,
    child: Option<Child>,
    seen: Option<Seen>,
    words: Arc<Mutex<Vec<u8>>>,
}

impl Proof {
    /// Its number, which no other process has while it is there.
    fn pid(&self) -> Option<Pid> {
        let pid = match &self.child {
            Some(child) => child.id(),
            None => self.seen.map(|seen| seen.pid),
        };
        Pid::from_raw(i32::try_from(pid?).ok()?)
    }

    fn is_there(&mut self) -> bool {
        let seen = self.seen;
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(status) => status.is_none(),
                Err(_) => seen.is_none_or(Seen::is_there),
            },
            None => seen.is_some_and(Seen::is_there),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended already.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// What it said at last, in one line.
    fn last_words(&self) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&words).into_owned();
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines.join(" ").chars().take(TOLD).collect()
    }

    async fn gone(&mut self) {
        match (&mut self.child, self.seen) {
            (Some(child), _) => drop(child.wait().await),
            (None, Some(seen)) => seen.gone().await,
            (None, None) => {}
        }
    }
}

impl Proving for Proof {
    fn devices(&self) -> Vec<String> {
        self.devices.clone()
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        async {
            let how = if let Some(child) = &mut self.child {
                match child.wait().await {
                    Ok(status) => format!("it ended with {status}"),
                    Err(error) => format!("nobody knows how it ended: {error}"),
                }
            } else {
                self.gone().await;
                "it is not there any more".to_owned()
            };
            match self.last_words() {
                words if words.is_empty() => how,
                words => format!("{how}: {words}"),
            }
        }
        .boxed()
    }

    fn end(&mut self) -> BoxFuture<'_, bool> {
        async {
            for (signal, patience) in [(Signal::TERM, ASKED), (Signal::KILL, KILLED)] {
                if !self.is_there() {
                    break;
                }
                self.signal(signal);
                if tokio::time::timeout(patience, self.gone()).await.is_ok() {
                    break;
                }
            }
            !self.is_there()
        }
        .boxed()
    }
}

/// Keeps the end of what it complains of.
async fn listen(mut stderr: ChildStderr, words: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; 1_024];
    while let Ok(read) = stderr.read(&mut piece).await {
        if read == 0 {
            return;
        }
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend_from_slice(&piece[..read]);
        let too_many = words.len().saturating_sub(LAST_WORDS);
        words.drain(..too_many);
    }
}

/// What a process proves, as its command line says.
fn devices_of(seen: Seen) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{}/cmdline", seen.pid)).unwrap_or_default();
    let mut words = line
        .split(|byte| *byte == 0)
        .skip_while(|word| *word != GPUS.as_bytes());
    let devices = words.nth(1).map(String::from_utf8_lossy).unwrap_or_default();
    devices
        .split(',')
        .filter(|device| !device.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that stands for a proof: it ignores what it is asked, as one does that hangs in a call.
    fn started(mark: &str, script: &str) -> Proof {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "prove", GPUS, "GPU-1,GPU-2"]);
        let (name, value) = mark.split_once('=').unwrap();
        command.env(name, value).process_group(0).kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let words = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(listen(child.stderr.take().unwrap(), Arc::clone(&words)));
        Proof {
            devices: Vec::new(),
            seen: child.id().and_then(Seen::look),
            child: Some(child),
            words,
        }
    }

    fn processes(node: &str) -> Processes {
        Processes {
            root: "/".into(),
            nvml: None,
            scenario: None,
            kubelet_dir: "/var/lib/k0s/kubelet".into(),
            mark: format!("{MARK}=proof-{node}"),
        }
    }

    #[test]
    fn a_proof_looks_at_the_books_of_the_agents_kubelet() {
        let order = ProofOrder {
            devices: vec!["GPU-1".to_owned()],
            profile: Profile::Smoke,
            node: "worker-1".to_owned(),
        };
        let command = processes("worker-1").command(&order);
        let words: Vec<_> = command.as_std().get_args().collect();
        let at = words.iter().position(|word| *word == "--kubelet-dir").unwrap();
        assert_eq!(words[at + 1], "/var/lib/k0s/kubelet");
    }

    async fn has_spoken(proof: &Proof) {
        let spoken = async {
            while proof.last_words().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), spoken)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_proof_that_an_agent_has_left_is_found_with_its_gpus_and_ended() {
        let processes = processes(&format!("test-{}", std::process::id()));
        let mut proof = started(&processes.mark, "echo ready >&2; while :; do sleep 600; done");
        has_spoken(&proof).await;
        let mut left = processes.left().await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].devices(), ["GPU-1", "GPU-2"]);
        assert!(left[0].end().await);
        assert!(proof.wait().await.starts_with("it ended with signal: 15"));
        assert!(processes.left().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_proof_of_which_proc_says_nothing_is_ended_all_the_same() {
        let processes = processes(&format!("unseen-{}", std::process::id()));
        let mut proof = started(&processes.mark, "while :; do sleep 600; done");
        let seen = proof.seen.take().unwrap();
        assert!(proof.is_there());
        assert!(proof.end().await);
        assert!(!seen.is_there());
        assert!(proof.end().await, "also a second time");
        assert!(proof.wait().await.contains("signal: 15"));
    }

    #[tokio::test]
    async fn a_proof_that_does_not_heed_is_killed_and_its_last_words_are_told() {
        let processes = processes(&format!("deaf-{}", std::process::id()));
        let mut proof = started(
            &processes.mark,
            "trap '' TERM; echo deaf >&2; while :; do sleep 600; done",
        );
        has_spoken(&proof).await;
        assert!(proof.end().await);
        let how = proof.wait().await;
        assert!(how.contains("signal: 9") && how.ends_with("deaf"), "{how}");
    }
}
