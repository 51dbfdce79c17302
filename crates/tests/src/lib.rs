//! The test bed as the tests of rings 3 and 4 use it: unmodified clients, run on its node; and what others drive.
//!
//! Those tests live in `tests/`, one file per ring and topic, and the file's name starts with its ring.
//! `cargo xtask test` brings the bed up, says in `PITCREW_XTASK` which program drives it, and takes it down again.

pub mod agent;
pub mod mock;
pub mod smi;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Where a container runtime looks for CDI specifications, on the node.
pub const CDI_DIR: &str = "/etc/cdi";

/// What a program wrote and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit status; none where a signal ended it.
    pub code: Option<i32>,
}

impl Outcome {
    /// Standard output of a program that must succeed.
    ///
    /// # Panics
    /// Where it did not, with all that it wrote.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == Some(0), "it failed: {self:#?}");
        self.stdout
    }

    /// Standard error of a program that must fail.
    ///
    /// # Panics
    /// Where it succeeded, with all that it wrote.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(self.code != Some(0), "it succeeded: {self:#?}");
        self.stderr
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

/// The program that drives the bed.
///
/// # Panics
/// Where the tests were not started by `cargo xtask test`.
pub fn xtask() -> PathBuf {
    std::env::var_os("PITCREW_XTASK")
        .map(PathBuf::from)
        .expect("PITCREW_XTASK is not set: run these tests with `cargo xtask test --ring 3 --ring 4`")
}

/// The product: where `cargo xtask test` says, or as plain `cargo test` has just built it.
///
/// # Panics
/// Where it is at neither place.
pub fn pitcrew() -> PathBuf {
    let beside_tests = || {
        let test = std::env::current_exe().ok()?;
        let built = test.ancestors().nth(2)?.join("pitcrew");
        built.is_file().then_some(built)
    };
    std::env::var_os("PITCREW_BIN")
        .map(PathBuf::from)
        .or_else(beside_tests)
        .expect("pitcrew is not built: run these tests with `cargo xtask test`, or name a built one in PITCREW_BIN")
}

/// Runs a subcommand of `xtask testbed`.
///
/// # Panics
/// Where the program can't be started.
pub fn testbed<S: AsRef<OsStr>>(arguments: &[S]) -> Outcome {
    let mut command = Command::new(xtask());
    command.arg("testbed").args(arguments);
    run(command, "")
}

/// Runs a program on the node; `input` is its standard input.
pub fn on_node<S: AsRef<OsStr>>(arguments: &[S], input: &str) -> Outcome {
    let mut command = Command::new(xtask());
    command.args(["testbed", "exec", "--"]).args(arguments);
    run(command, input)
}

/// Runs kubectl; `input` is what `-f -` reads.
pub fn kubectl(arguments: &[&str], input: &str) -> Outcome {
    on_node(&[&["kubectl"], arguments].concat(), input)
}

/// Runs any command to its end.
///
/// # Panics
/// Where it can't be started.
pub fn run(mut command: Command, input: &str) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    // What does not read its input may have ended already.
    let _ = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(input.as_bytes()));
    child.wait_with_output().expect("its output can be read").into()
}

/// Looks again until `look` gives something.
///
/// # Panics
/// After a minute, saying what was awaited.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A namespace of its own for one test, deleted at its end.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with these labels, and waits for the service account that pods need.
    ///
    /// # Panics
    /// Where it can't be made.
    pub fn new(name: &str, labels: &[&str]) -> Self {
        let namespace = Self {
            name: name.to_owned(),
        };
        // One that an earlier run left may still be going.
        kubectl(&["delete", "namespace", name, "--ignore-not-found"], "").ok();
        kubectl(&["create", "namespace", name], "").ok();
        if !labels.is_empty() {
            kubectl(&[&["label", "namespace", name], labels].concat(), "").ok();
        }
        wait_for("the service account `default`", || {
            let found = namespace.kubectl(&["get", "serviceaccount", "default"], "");
            (found.code == Some(0)).then_some(())
        });
        namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in it.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Outcome {
        kubectl(&[&["--namespace", &self.name], arguments].concat(), input)
    }

    /// Waits for a pod's end and returns its phase and log.
    ///
    /// # Panics
    /// Where it does not end within a minute.
    pub fn ended(&self, pod: &str) -> (String, String) {
        let phase = wait_for(&format!("the end of the pod {pod}"), || {
            let phase = self
                .kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"], "")
                .ok();
            matches!(phase.as_str(), "Succeeded" | "Failed").then_some(phase)
        });
        (phase, self.kubectl(&["logs", pod], "").ok())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The bed goes down after the tests; a namespace that lingers is in nobody's way.
        kubectl(&["delete", "namespace", &self.name, "--wait=false"], "");
    }
}

/// A pod of one container that runs a shell script to its end; `security` is JSON for the container's context.
pub fn pod(name: &str, script: &str, pod_security: &str, security: &str) -> String {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": json(pod_security),
            "containers": [{
                "name": "main",
                "image": "localhost/busybox:1",
                "command": ["sh", "-c", script],
                "securityContext": json(security),
            }],
        },
    })
    .to_string()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("the test's own JSON is right")
}

/// The kubelet, halted: it ends within seconds any sandbox that no pod of the API asked for.
pub struct HaltedKubelet;

impl HaltedKubelet {
    /// Halts it until this is dropped.
    pub fn new() -> Self {
        signal_kubelet("STOP");
        Self
    }
}

impl Default for HaltedKubelet {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for HaltedKubelet {
    fn drop(&mut self) {
        signal_kubelet("CONT");
    }
}

fn signal_kubelet(signal: &str) {
    signal_daemon("kubelet", signal);
}

/// Sends a signal to one of the bed's daemons, e.g. `kubelet` or `containerd`.
///
/// # Panics
/// Where it does not run.
pub fn signal_daemon(name: &str, signal: &str) {
    let text = std::fs::read_to_string(bed_dir().join(format!("run/{name}.pid")));
    let text = text.expect("the daemon's pid file can be read");
    let pid = text.split_whitespace().next().expect("it holds a pid");
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, pid]);
    run(kill, "").ok();
}

/// Where all that the bed writes lies.
///
/// # Panics
/// Where the bed has no kubeconfig.
pub fn bed_dir() -> PathBuf {
    let kubeconfig = testbed(&["kubeconfig"]).ok();
    let bed = Path::new(kubeconfig.trim()).ancestors().nth(2);
    bed.expect("the kubeconfig lies in the bed").to_owned()
}

/// The kubelet's directory, as seen from outside of the node's mount namespace.
pub fn kubelet_dir() -> PathBuf {
    bed_dir().join("var/kubelet")
}

/// Runs a shell script in a container that CRI gives these CDI devices to.
pub fn run_with_devices(devices: &[&str], script: &str) -> Outcome {
    let mut crirun = "exec crirun --socket $CONTAINERD_ADDRESS --cgroup-parent /pitcrew-testbed".to_owned();
    for device in devices {
        crirun = format!("{crirun} --cdi-device {device}");
    }
    on_node(&["sh", "-c", &format!(r#"{crirun} -- sh -c "$0""#), script], "")
}

/// Writes a CDI specification on the node.
///
/// # Panics
/// Where it can't be written.
pub fn write_cdi(name: &str, spec: &serde_json::Value) {
    let script = format!("cat > {CDI_DIR}/.{name} && mv {CDI_DIR}/.{name} {CDI_DIR}/{name}");
    on_node(&["sh", "-c", &script], &spec.to_string()).ok();
}
