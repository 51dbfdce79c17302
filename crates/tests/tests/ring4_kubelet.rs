//! The contract of the fake kubelet, on the real one: the same functions that ring 2 runs on `pitcrew_kubelet::fake`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitcrew_kubelet::contract::{self, Subject};
use pitcrew_tests::{kubectl, run, testbed, wait_for};
use serde_json::json;

const NODE: &str = "127.0.0.1";

/// What this file's pods have.
const LABEL: &str = "pitcrew.test/ring4=kubelet";

/// Cases restart the kubelet under each other's feet, so they take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The test bed's kubelet. What its directory holds lies in the bed's directory, from where the node has it mounted.
struct Real {
    bed: PathBuf,
    kubelet: PathBuf,
}

impl Real {
    fn new() -> Self {
        let kubeconfig = PathBuf::from(testbed(&["kubeconfig"]).ok().trim());
        let bed = kubeconfig
            .ancestors()
            .nth(2)
            .expect("it lies in the bed's directory")
            .to_owned();
        Self {
            kubelet: bed.join("var/kubelet"),
            bed,
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // What a case that failed has left would stand in the way of its next run.
        kubectl(&["delete", "pod", "--selector", LABEL, "--wait=true"], "");
    }
}

impl Subject for Real {
    fn dir(&self) -> &Path {
        &self.kubelet
    }

    async fn restart(&self) {
        let text = std::fs::read_to_string(self.bed.join("run/kubelet.pid")).expect("it has a pid file");
        let pid = text.split_whitespace().next().expect("it holds a pid").to_owned();
        let mut kill = std::process::Command::new("kill");
        kill.args(["-s", "KILL", &pid]);
        run(kill, "").ok();
        wait_for("the kubelet's end", || {
            (!Path::new("/proc").join(&pid).exists()).then_some(())
        });
        testbed(&["up"]).ok();
    }

    async fn run_pod(&self, pod: &str, resource: &str, count: usize) -> BTreeMap<String, String> {
        wait_for(&format!("{count} {resource} in the Node's status"), || {
            let name = resource.replace('.', r"\.");
            let path = format!("jsonpath={{.status.allocatable.{name}}}");
            let found = kubectl(&["get", "node", NODE, "-o", &path], "").ok();
            (found.parse::<usize>().unwrap_or_default() >= count).then_some(())
        });
        let container = json!({
            "name": "main",
            "image": "localhost/busybox:1",
            "command": ["sh", "-c", "env | grep ^PLUGIN_; until [ -e /end ]; do sleep 0.1; done"],
            "resources": {"limits": {resource: count.to_string()}},
        });
        let (key, value) = LABEL.split_once('=').expect("it is a label");
        let labels = BTreeMap::from([(key, value)]);
        let pod_json = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "labels": labels},
            "spec": {"terminationGracePeriodSeconds": 0, "nodeName": NODE, "containers": [container]},
        });
        kubectl(&["apply", "-f", "-"], &pod_json.to_string()).ok();
        variables(pod, 0)
    }

    async fn restart_container(&self, pod: &str) -> BTreeMap<String, String> {
        // A kubelet that has just started doesn't know its pods at once.
        wait_for(&format!("a command in {pod}"), || {
            (kubectl(&["exec", pod, "--", "touch", "/end"], "").code == Some(0)).then_some(())
        });
        variables(pod, 1)
    }

    async fn remove_pod(&self, pod: &str) {
        kubectl(&["delete", "pod", pod, "--wait=true"], "").ok();
    }
}

/// What a container has written after its start number `restarts`.
fn variables(pod: &str, restarts: u32) -> BTreeMap<String, String> {
    let status = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state}";
    let mut last = String::new();
    wait_for(&format!("{pod} to run after {restarts} restarts"), || {
        last = kubectl(&["get", "pod", pod, "-o", status], "").ok();
        (last.starts_with(&restarts.to_string()) && last.contains("running")).then_some(())
    });
    wait_for(&format!("the variables of {pod}"), || {
        let log = kubectl(&["logs", pod], "").ok();
        let found: BTreeMap<_, _> = log
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        (found.len() == 2).then_some(found)
    })
}

macro_rules! on_the_real_one {
    ($($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs the test bed: cargo xtask test --ring 4"]
            async fn $case() {
                let _turn = TURN.lock().await;
                contract::$case(&Real::new()).await;
            }
        )*
    };
}

pitcrew_kubelet::for_each_case!(on_the_real_one);
