//! The agent on the test bed's node, beside imaginary GPUs.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pitcrew_kubelet::pod_resources::{self, AllocatableResourcesRequest, ListPodResourcesRequest};
use serde_json::Value;
use tempfile::TempDir;

use crate::mock::given;
use crate::{kubelet_dir, mock, on_node, pitcrew, testbed, xtask};

/// Name of the bed's node.
pub const NODE: &str = "127.0.0.1";

/// Imaginary GPUs on the bed's node, and what happens to them.
pub struct Gpus {
    scenario: String,
    dir: TempDir,
}

impl Gpus {
    /// Gives the node the GPUs of a scenario.
    ///
    /// # Panics
    /// Where it can't be given them.
    pub fn new(scenario: &str) -> Self {
        let gpus = Self {
            scenario: scenario.to_owned(),
            dir: TempDir::new().expect("a directory can be made"),
        };
        std::fs::write(gpus.changes(), "").expect("the file of changes can be made");
        gpus.place();
        gpus
    }

    /// The file of changes that the mock follows.
    fn changes(&self) -> PathBuf {
        self.dir.path().join("changes.jsonl")
    }

    /// Places the device nodes and files as they are now.
    fn place(&self) {
        let (changes, nvml) = (self.changes(), mock::library());
        testbed(&[
            "fake-gpus".as_ref(),
            self.scenario.as_ref(),
            "--changes".as_ref(),
            changes.as_os_str(),
            "--nvml".as_ref(),
            nvml.as_os_str(),
        ])
        .ok();
    }

    /// Makes something happen to them.
    ///
    /// # Panics
    /// Where it can't be written down.
    pub fn change(&self, change: &Value) {
        let file = std::fs::OpenOptions::new().append(true).open(self.changes());
        file.and_then(|mut file| file.write_all(format!("{change}\n").as_bytes()))
            .expect("the change can be written");
        self.place();
    }
}

/// A running agent. Dropping it ends it; what it placed stays.
pub struct Agent {
    child: Child,
    log: Arc<Mutex<String>>,
    /// When it was started.
    pub started: Instant,
}

impl Agent {
    /// Starts `pitcrew agent` on the node, as a process of the node.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn start(gpus: &Gpus, arguments: &[&str]) -> Self {
        Self::start_program(&pitcrew(), gpus, arguments)
    }

    /// Starts another program of the agent.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn start_program(program: &Path, gpus: &Gpus, arguments: &[&str]) -> Self {
        let hook = given("PITCREW_HOOK");
        let mut words: Vec<&OsStr> = vec!["agent".as_ref(), "--hook".as_ref(), hook.as_os_str()];
        words.extend(arguments.iter().map(OsStr::new));
        Self::start_any(program, gpus, &words)
    }

    /// Starts any program as a process of the node, with the mock as the driver's library.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn start_any(program: &Path, gpus: &Gpus, arguments: &[&OsStr]) -> Self {
        let mut command = Command::new(xtask());
        command
            .args(["testbed", "exec", "--"])
            .arg(program)
            .args(arguments)
            .env("PITCREW_SCENARIO_CHANGES", gpus.changes())
            .env("PITCREW_SCENARIO", &gpus.scenario)
            .env("PITCREW_NVML", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
            .env("NODE_NAME", NODE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("the agent can be started");
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (child.stderr.take(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines
                .into_iter()
                .flat_map(|lines| BufReader::new(lines).lines())
                .map_while(Result::ok)
            {
                let mut log = kept.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log, started }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process id: `exec` becomes nsenter, which becomes the agent.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with this signal, and waits.
    ///
    /// # Panics
    /// Where the signal can't be sent.
    pub fn end(mut self, signal: &str) -> String {
        self.signal(signal);
        let _ = self.child.wait();
        self.log()
    }

    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        kill.args(["-s", signal, &self.child.id().to_string()]);
        crate::run(kill, "");
    }
}

impl Drop for Agent {
    #[expect(clippy::print_stderr, reason = "it is shown with the test that failed")]
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("TERM");
            let end = Instant::now() + Duration::from_secs(5);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the agent said:\n{}", self.log());
        }
    }
}

/// What the kubelet says of its devices, asked through pod-resources.
pub struct PodResources {
    runtime: tokio::runtime::Runtime,
    socket: PathBuf,
}

impl Default for PodResources {
    fn default() -> Self {
        Self::new()
    }
}

impl PodResources {
    /// Those of the bed's kubelet.
    ///
    /// # Panics
    /// Where there can be no runtime.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            runtime: runtime.expect("a runtime can be made"),
            socket: kubelet_dir().join("pod-resources/kubelet.sock"),
        }
    }

    /// Ids of a resource that the kubelet could hand out.
    pub fn allocatable(&self, resource: &str) -> Vec<String> {
        let answer = self.runtime.block_on(async {
            let channel = pitcrew_kubelet::connect(&self.socket, Duration::from_secs(2))
                .await
                .ok()?;
            let mut client = pod_resources::client(channel);
            let answer = client
                .get_allocatable_resources(AllocatableResourcesRequest {})
                .await;
            answer.ok().map(tonic::Response::into_inner)
        });
        let devices = answer.map(|answer| answer.devices).unwrap_or_default();
        let mut ids: Vec<String> = devices
            .into_iter()
            .filter(|devices| devices.resource_name == resource)
            .flat_map(|devices| devices.device_ids)
            .collect();
        ids.sort();
        ids
    }

    /// What is held: pod, resource, ids; none where the kubelet doesn't answer.
    pub fn held(&self) -> Option<Vec<(String, String, Vec<String>)>> {
        let answer = self.runtime.block_on(async {
            let channel = pitcrew_kubelet::connect(&self.socket, Duration::from_secs(2))
                .await
                .ok()?;
            let mut client = pod_resources::client(channel);
            let answer = client.list(ListPodResourcesRequest {}).await;
            answer.ok().map(tonic::Response::into_inner)
        })?;
        let mut held = Vec::new();
        for pod in answer.pod_resources {
            for devices in pod.containers.into_iter().flat_map(|container| container.devices) {
                held.push((
                    format!("{}/{}", pod.namespace, pod.name),
                    devices.resource_name,
                    devices.device_ids,
                ));
            }
        }
        Some(held)
    }

    /// Waits until the kubelet has so many of a resource, and says how long that took since `begin`.
    ///
    /// # Panics
    /// After half a minute.
    #[track_caller]
    pub fn wait(&self, resource: &str, count: usize, begin: Instant, agent: &Agent) -> Duration {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.allocatable(resource);
            if found.len() == count {
                return begin.elapsed();
            }
            assert!(
                Instant::now() < end,
                "{count} of {resource} were expected and {found:?} are there; the agent said:\n{}",
                agent.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A pod of one container with these limits that runs a script in the image with glibc; `rest` is merged into its spec.
pub fn gpu_pod(name: &str, limits: &Value, script: &str, rest: &Value) -> String {
    let mut pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": "localhost/glibc:1",
                "command": ["sh", "-c", script],
                "resources": {"limits": limits},
            }],
        },
    });
    merge(&mut pod["spec"], rest);
    pod.to_string()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            for (into, from) in into.iter_mut().zip(from) {
                merge(into, from);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Paths below a directory of the node; none where it is not there.
pub fn node_files(dir: &str) -> Vec<String> {
    let script = format!("find {dir} -type f -o -type l -o -type s 2>/dev/null | sort");
    let found = on_node(&["sh", "-c", &script], "").stdout;
    found.lines().map(str::to_owned).collect()
}
