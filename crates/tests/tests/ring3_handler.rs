//! `pitcrew agent --configure-containerd` on a node without a supervisor, with the real containerd of both generations: it
//! is what says that the handler is there, and nothing else.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pitcrew_host::containerd::Value;
use pitcrew_scenario::HostRoot;
use pitcrew_tests::{Outcome, pitcrew, run, testbed};
use tempfile::TempDir;

const WRAPPER: &str = "/opt/pitcrew/bin/nvidia-container-runtime";
/// As people have it, with comments and things of their own.
const OLD: &str = "# ours: see the wiki\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  \
                   sandbox_image = \"registry.k8s.io/pause:3.9\" # mirrored\n\
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  \
                   runtime_type = \"io.containerd.runc.v2\"\n  \
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n    SystemdCgroup = true\n\
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.crun]\n  \
                   runtime_type = \"io.containerd.runc.v2\"\n  \
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.crun.options]\n    \
                   BinaryName = \"/usr/bin/crun\"\n";
const NEW: &str = "version = 3\n# no drop-ins here\n\n\
                   [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  \
                   runtime_type = 'io.containerd.runc.v2'\n  \
                   [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n    SystemdCgroup = true\n";

/// A node of kubeadm in a directory, with a containerd that runs there.
struct Node {
    dir: TempDir,
    /// Beside it: the agent's hooks are on its own file system.
    hook: PathBuf,
}

impl Node {
    fn new(bed: &str, version: &str, config: &str) -> Self {
        let status = format!("Package: containerd\nStatus: install ok installed\nVersion: {version}-1\n\n");
        let mut manifest = serde_json::json!({
            "description": "kubeadm",
            "files": {
                "/etc/kubernetes/kubelet.conf": "x",
                "/usr/bin/containerd": "x",
                "/usr/lib/systemd/system/containerd.service": "[Service]\nExecStart=/usr/bin/containerd\n",
                "/var/lib/dpkg/status": status,
                "/var/lib/kubelet/device-plugins/x": "",
                "/run/x": "",
                "/opt/x": "",
            },
        });
        if !config.is_empty() {
            manifest["files"]["/etc/containerd/config.toml"] = config.into();
        }
        let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
        let root = HostRoot::parse(&manifest.to_string(), "node", &find).unwrap();
        let dir = tempfile::tempdir().unwrap();
        root.build(dir.path()).unwrap();
        let real = testbed(&["which", "containerd", "--containerd", bed]).ok();
        let program = dir.path().join("usr/bin/containerd");
        std::fs::remove_file(&program).unwrap();
        std::fs::copy(std::fs::canonicalize(real.trim()).unwrap(), program).unwrap();
        let hook = pitcrew_tests::mock::given("PITCREW_HOOK");
        let node = Self { dir, hook };
        node.started("one");
        node
    }

    /// systemd has started containerd.
    fn started(&self, run: &str) {
        let units = self.dir.path().join("run/systemd/units");
        std::fs::create_dir_all(&units).unwrap();
        let link = units.join("invocation:containerd.service");
        let _ = std::fs::remove_file(&link);
        symlink(run, link).unwrap();
    }

    fn pitcrew(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(pitcrew());
        command
            .env_remove("KUBECONFIG")
            .arg("--root")
            .arg(self.dir.path())
            .args(arguments);
        command
    }

    /// What containerd makes of its configuration: started as it is on the node, whose root is its own.
    fn dump(&self) -> Outcome {
        let root = self.dir.path().display().to_string();
        // It starts with its defaults where there is no file, and its `dump` doesn't: an empty one is the same.
        let config = if self.dir.path().join("etc/containerd/config.toml").exists() {
            "/etc/containerd/config.toml"
        } else {
            "/run/x"
        };
        let containerd = ["/usr/bin/containerd", "--config", config, "config", "dump"];
        let words = [&["agent", "in-root", &root][..], &containerd].concat();
        run(self.pitcrew(&words), "")
    }

    /// Handlers and their programs.
    fn handlers(&self) -> Vec<(String, String)> {
        pitcrew_host::containerd::parse(&self.dump().ok())
            .unwrap()
            .handlers
    }

    fn agent(&self) -> Agent {
        let hook = self.hook.display().to_string();
        let mut command = self.pitcrew(&[
            "agent",
            "--scenario=rtx3060",
            "--no-api",
            "--node=test",
            "--hook",
            &hook,
            "--configure-containerd",
        ]);
        let log = self.dir.path().with_extension("log");
        let file = std::fs::File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Agent { child, log }
    }

    /// Everything in /etc and /opt.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.dir.path().join("etc"), self.dir.path().join("opt")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    dirs.push(path.clone());
                    found.insert(path, String::new());
                } else {
                    let text = std::fs::read(&path).unwrap_or_default();
                    found.insert(path, String::from_utf8_lossy(&text).into_owned());
                }
            }
        }
        found
    }
}

/// An agent, until it is dropped.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said this.
    #[track_caller]
    fn says(&self, words: &str) {
        let end = Instant::now() + Duration::from_mins(1);
        while !self.log().contains(words) {
            assert!(Instant::now() < end, "it does not say `{words}`:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut kill = Command::new("kill");
        kill.args(["-s", "TERM", &self.child.id().to_string()]);
        run(kill, "");
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn containerd_finds_the_handler_beside_what_it_had_and_loses_it_again() {
    for (bed, version, config) in [
        ("1.7", "1.7.35", OLD),
        ("2.2", "2.2.9", NEW),
        ("2.2", "2.2.9", OLD),
        (
            "2.2",
            "2.2.9",
            "imports = ['/etc/containerd/conf.d/*.toml']\nversion = 3\n",
        ),
        ("2.2", "2.2.9", ""),
    ] {
        let node = Node::new(bed, version, config);
        let (before, had) = (node.files(), node.handlers());
        let agent = node.agent();
        agent.says("containerd's configuration has the handler `nvidia` now");
        let mut has = node.handlers();
        assert!(
            has.contains(&("nvidia".to_owned(), WRAPPER.to_owned())),
            "{has:?}"
        );
        has.retain(|(name, _)| name != "nvidia");
        assert_eq!(has, had, "containerd {version}: {config}");
        let real = pitcrew_host::containerd::parse_table(&node.dump().ok()).unwrap();
        let options = |name: &str| {
            let found = [2, 3]
                .iter()
                .find_map(|version| pitcrew_host::containerd::edit::runtime(&real, *version, name));
            let mut options = found.unwrap()["options"].as_table().unwrap().clone();
            options.remove("BinaryName");
            // It fills in its defaults for its own runtime alone.
            let nothing = [
                Value::String(String::new()),
                Value::Integer(0),
                Value::Boolean(false),
            ];
            options.retain(|_, value| !nothing.contains(value));
            options
        };
        assert_eq!(
            options("nvidia"),
            options("runc"),
            "it starts containers as the node's own does"
        );
        agent.says(&format!(
            "`{WRAPPER}` is there, and the container runtime takes it up at its next start"
        ));
        drop(agent);

        node.started("two");
        let uninstall = || run(node.pitcrew(&["agent", "uninstall", "--no-api"]), "");
        let first = uninstall();
        assert_eq!(first.code, Some(0), "{first:#?}");
        assert!(
            first.stderr.contains("systemctl restart containerd"),
            "{first:#?}"
        );
        assert_eq!(node.handlers(), had);
        node.started("three");
        uninstall().ok();
        assert_eq!(node.files(), before, "containerd {version}: {config}");
    }
}

/// containerd 1.7 has a default runtime only as long as its configuration names none.
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_node_does_not_lose_its_default_runtime_by_a_handler() {
    let node = Node::new("1.7", "1.7.35", "");
    let before = node.files();
    let agent = node.agent();
    agent.says("names no runtime, and containerd 1.7 forgets its own");
    drop(agent);
    assert!(before.keys().all(|path| !path.ends_with("config.toml")));
    assert!(!node.dir.path().join("etc/containerd/config.toml").exists());
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_configuration_that_the_nodes_containerd_refuses_is_left_as_it_is() {
    // Broken in a way that only containerd itself finds.
    let broken =
        format!("{NEW}[timeouts]\n  'io.containerd.timeout.bolt.open' = 'soon'\n[debug]\n  uid = 'nobody'\n");
    let node = Node::new("2.2", "2.2.9", &broken);
    assert_ne!(
        node.dump().code,
        Some(0),
        "containerd takes it: {:#?}",
        node.dump()
    );
    let agent = node.agent();
    agent.says("the node's own containerd does not take");
    let main = std::fs::read_to_string(node.dir.path().join("etc/containerd/config.toml")).unwrap();
    assert_eq!(main, broken);
    assert!(!node.dir.path().join("etc/containerd/conf.d").exists());
}
