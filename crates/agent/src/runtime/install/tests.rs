use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use pitcrew_host::{HostRoots, Roots};
use pitcrew_scenario::HostRoot;
use tempfile::TempDir;

use super::there::{candidates, choose};
use super::*;
use crate::runtime::tier::TOOLKIT_DIR;

const DATA: &str = "/var/lib/rancher/rke2/agent";
const CONFIG: &str = "/var/lib/rancher/rke2/agent/etc/containerd/config.toml";
const TASKS: &str = "/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io";
const SPEC: &str = "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json";

/// A node whose files lie in a directory, and the image of an agent.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    image: TempDir,
}

impl Node {
    pub(crate) fn new(manifest: &str) -> Self {
        let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
        let root = HostRoot::parse(manifest, "node", &find).unwrap();
        let node = Self {
            dir: tempfile::tempdir().unwrap(),
            image: tempfile::tempdir().unwrap(),
        };
        root.build(node.dir.path()).unwrap();
        node
    }

    pub(crate) fn rke2() -> Self {
        Self::new("description: x\nlike: rke2\nscenario: rtx3060\n")
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        step::inside(self.dir.path(), Path::new(path)).unwrap()
    }

    pub(crate) fn fs(&self) -> HostRoots {
        HostRoots::new(Roots::under(self.dir.path()))
    }

    pub(crate) fn host(&self) -> Host {
        Host::gather(&self.fs())
    }

    pub(crate) fn wanted(&self, version: &str) -> Wanted {
        let binary = self.image.path().join("pitcrew-hook");
        fs::write(&binary, format!("program {version}")).unwrap();
        Wanted {
            version: version.to_owned(),
            binary,
            wrapper: WrapperSettings::default(),
            handler: false,
        }
    }

    pub(crate) fn there(&self, wanted: &Wanted) -> There {
        There::look(self.dir.path(), &self.host(), wanted)
    }

    pub(crate) fn executor(&self) -> Executor<'_> {
        Executor::new(self.dir.path())
    }

    pub(crate) fn uses(&self, there: &There) -> Uses {
        Uses::look(&self.fs(), &self.host(), &there.home)
    }

    /// What the main loop does: install, then the specification, then old versions. It stops before step `stop`.
    pub(crate) fn bring_up(&self, version: &str, stop: usize) -> usize {
        let wanted = self.wanted(version);
        let mut done = 0;
        let there = self.there(&wanted);
        let spec = spec_of(&hook_path(&there, &wanted));
        let mut steps = plan(&self.host(), &there, &wanted).steps;
        if fs::read_to_string(self.at(SPEC)).ok().as_ref() != Some(&spec) {
            steps.push(Step::make_dir(Path::new(SPEC).parent().unwrap()));
            steps.push(Step::write(Path::new(SPEC), spec));
        }
        for step in &steps {
            if done == stop {
                return done;
            }
            self.executor().step(step).unwrap();
            done += 1;
        }
        let there = self.there(&wanted);
        for step in collect(&there, &self.uses(&there), version).steps {
            if done == stop {
                return done;
            }
            self.executor().step(&step).unwrap();
            done += 1;
        }
        done
    }

    /// Writes the configuration that the supervisor renders from what it finds now.
    pub(crate) fn restart_supervisor(&self) {
        let mut text = "version = 3\n".to_owned();
        for (name, binary) in &self.host().containerd.value().unwrap().detected_runtimes {
            use std::fmt::Write as _;
            let _ = write!(
                text,
                "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'{name}'.options]\nBinaryName = '{}'\n",
                binary.display()
            );
        }
        fs::write(self.at(CONFIG), text).unwrap();
    }

    /// A container, as its bundle lies on the node.
    pub(crate) fn start(&self, id: &str, hook: Option<&Path>, runtime: &str) {
        let bundle = self.at(TASKS).join(id);
        fs::create_dir_all(&bundle).unwrap();
        let hooks = hook.map(|path| serde_json::json!({"createContainer": [{"path": path}]}));
        let config = serde_json::json!({
            "hooks": hooks,
            "annotations": {"io.kubernetes.cri.sandbox-namespace": "ml", "io.kubernetes.cri.sandbox-name": id},
        });
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        fs::write(bundle.join("runtime"), runtime).unwrap();
    }

    pub(crate) fn end(&self, id: &str) {
        fs::remove_dir_all(self.at(TASKS).join(id)).unwrap();
    }

    /// What must hold at every moment: pods start, and those that run can be ended.
    #[track_caller]
    pub(crate) fn assert_pods_start(&self, when: &str) {
        if let Ok(text) = fs::read_to_string(self.at(SPEC)) {
            let spec = pitcrew_cdi::text::parse(&text).unwrap();
            for hook in &spec.container_edits.hooks {
                assert!(self.runs(Path::new(&hook.path)), "{when}: no hook {}", hook.path);
            }
        }
        let host = self.host();
        let config = host.containerd.value().unwrap().config.value().cloned();
        for (name, binary) in config.map(|config| config.handlers).unwrap_or_default() {
            let ours = binary.starts_with("/usr/local/nvidia");
            assert!(
                !ours || self.runs(Path::new(&binary)),
                "{when}: handler {name} has no {binary}"
            );
            if ours {
                let real = self.real(Path::new(&binary));
                let text = fs::read_to_string(real.with_file_name(WRAPPER_SETTINGS)).unwrap();
                let settings: Result<pitcrew_hook::wrapper::Settings, _> = serde_json::from_str(&text);
                assert!(settings.is_ok(), "{when}: {text}");
            }
        }
    }

    fn real(&self, path: &Path) -> PathBuf {
        let at = step::inside(self.dir.path(), path).unwrap();
        match fs::read_link(&at) {
            Ok(target) => step::inside(self.dir.path(), &target).unwrap(),
            Err(_) => at,
        }
    }

    pub(crate) fn runs(&self, path: &Path) -> bool {
        fs::metadata(self.real(path))
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 == 0o111)
    }

    /// All that is on the node: paths, where links lead, and texts.
    pub(crate) fn everything(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with("proc") || path.ends_with("sys") {
                    continue;
                }
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                let what = if kind.is_symlink() {
                    format!("-> {}", fs::read_link(&path).unwrap().display())
                } else if kind.is_file() {
                    fs::read_to_string(&path).unwrap_or_default()
                } else {
                    String::new()
                };
                found.push(format!("{} {what}", path.display()));
                if kind.is_dir() {
                    dirs.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

fn spec_of(hook: &Path) -> String {
    serde_json::json!({"cdiVersion": "0.5.0", "kind": "k8s.device-plugin.nvidia.com/gpu",
        "devices": [{"name": "x", "containerEdits": {"env": ["A=1"]}}],
        "containerEdits": {"hooks": [{"hookName": "createContainer", "path": hook, "args": ["nvidia-cdi-hook", "chmod"]}]}})
    .to_string()
}

#[test]
fn a_fresh_node_gets_hook_and_wrapper_and_a_second_run_does_nothing() {
    let node = Node::rke2();
    node.bring_up("1.0.0", usize::MAX);
    let hook = Path::new(DATA).join("pitcrew/1.0.0/nvidia-cdi-hook");
    assert!(node.runs(&hook));
    assert!(node.runs(&Path::new(TOOLKIT_DIR).join(WRAPPER)));
    assert!(node.runs(&Path::new(TOOLKIT_DIR).join(WRAPPER_CDI)));
    let wanted = node.wanted("1.0.0");
    let there = node.there(&wanted);
    assert_eq!(hook_path(&there, &wanted), hook);
    assert_eq!(plan(&node.host(), &there, &wanted), Plan::default());
    let before = node.everything();
    assert_eq!(node.bring_up("1.0.0", usize::MAX), 0);
    assert_eq!(node.everything(), before);
    // Its supervisor finds it by itself.
    node.restart_supervisor();
    assert!(matches!(
        super::super::assess(&node.host()).handler,
        super::super::Handler::Live { .. }
    ));
}

#[track_caller]
fn same(left: &[String], right: &[String], stop: usize) {
    let more = |a: &[String], b: &[String]| {
        a.iter()
            .filter(|line| !b.contains(line))
            .cloned()
            .collect::<Vec<_>>()
    };
    let (extra, missing) = (more(left, right), more(right, left));
    assert!(
        extra.is_empty() && missing.is_empty(),
        "step {stop}: {extra:#?} and not {missing:#?}"
    );
}

#[test]
fn killed_between_any_two_steps_pods_start_and_the_next_run_completes() {
    // First installation, then an upgrade over it with the handler live.
    let whole = Node::rke2();
    let first = whole.bring_up("1.0.0", usize::MAX);
    whole.restart_supervisor();
    let second = whole.bring_up("2.0.0", usize::MAX);
    assert!(first >= 8 && second >= 6, "{first} and {second} steps");
    assert!(
        !whole.at(&format!("{DATA}/pitcrew/1.0.0")).exists(),
        "the old version is gone"
    );
    let expected = |node: &Node| {
        let own = node.dir.path().display().to_string();
        let all = node.everything().into_iter().map(|line| line.replace(&own, ""));
        all.collect::<Vec<_>>()
    };
    let complete = expected(&whole);
    for stop in 0..first {
        let node = Node::rke2();
        node.bring_up("1.0.0", stop);
        node.assert_pods_start(&format!("first installation, step {stop}"));
        node.restart_supervisor();
        node.assert_pods_start(&format!("first installation, step {stop}, and a restart"));
        node.bring_up("1.0.0", usize::MAX);
        node.restart_supervisor();
        node.bring_up("2.0.0", usize::MAX);
        same(&expected(&node), &complete, stop);
    }
    for stop in 0..second {
        let node = Node::rke2();
        node.bring_up("1.0.0", usize::MAX);
        node.restart_supervisor();
        node.bring_up("2.0.0", stop);
        node.assert_pods_start(&format!("upgrade, step {stop}"));
        node.bring_up("2.0.0", usize::MAX);
        same(&expected(&node), &complete, stop);
    }
}

#[test]
fn what_was_never_finished_is_taken_away() {
    let node = Node::rke2();
    node.bring_up("1.0.0", usize::MAX);
    for dir in [format!("{DATA}/pitcrew/1.0.0"), TOOLKIT_DIR.to_owned()] {
        fs::write(node.at(&dir).join(".pitcrew-x7.tmp"), "half").unwrap();
    }
    node.bring_up("1.0.0", usize::MAX);
    assert!(!node.everything().iter().any(|line| line.contains("/.pitcrew-")));
}

/// What was handed out stays valid.
#[test]
fn an_old_version_stays_while_a_container_or_a_specification_names_it() {
    let node = Node::rke2();
    node.bring_up("1.0.0", usize::MAX);
    let old = Path::new(DATA).join("pitcrew/1.0.0");
    let hook = old.join(HOOK);
    node.start("train", Some(&hook), "/usr/bin/runc");
    node.bring_up("2.0.0", usize::MAX);
    assert!(node.runs(&hook), "a container names it");
    node.end("train");
    fs::write(node.at("/etc/cdi/mine.json"), spec_of(&hook)).unwrap();
    node.bring_up("2.0.0", usize::MAX);
    assert!(node.runs(&hook), "a specification names it");
    fs::remove_file(node.at("/etc/cdi/mine.json")).unwrap();
    node.bring_up("2.0.0", usize::MAX);
    assert!(!node.at(old.to_str().unwrap()).exists());
}

/// NVIDIA's installer does `rm -rf` of the directory, at its start and when it is uninstalled.
#[test]
fn nvidias_installer_deleting_its_directory_breaks_no_pod() {
    let node = Node::rke2();
    node.bring_up("1.0.0", usize::MAX);
    fs::remove_dir_all(node.at(TOOLKIT_DIR)).unwrap();
    node.assert_pods_start("after rm -rf");
    node.restart_supervisor();
    node.bring_up("1.0.0", usize::MAX);
    assert!(node.runs(&Path::new(TOOLKIT_DIR).join(WRAPPER)), "it is put back");
}

/// A manifest, what is done to the node, and what is told.
type Case = (&'static str, fn(&Node), &'static str);

#[test]
fn a_wrapper_that_is_not_ours_stays() {
    let wrapper = Path::new(TOOLKIT_DIR).join(WRAPPER);
    let cases: [Case; 3] = [
        (
            "description: x\nlike: rke2\nscenario: rtx3060\nfiles:\n  /usr/local/nvidia/toolkit/nvidia-ctk: x\n  \
             /usr/local/nvidia/toolkit/nvidia-container-runtime: \"#!/bin/sh\\n\"\n",
            |_| {},
            "holds NVIDIA's container toolkit, which stays as it is",
        ),
        (
            "description: x\nlike: rke2\nscenario: rtx3060\n",
            |node| {
                fs::create_dir_all(node.at("/usr/local/nvidia/toolkit/")).unwrap();
                symlink(
                    "/opt/other",
                    node.at("/usr/local/nvidia/toolkit/nvidia-container-runtime"),
                )
                .unwrap();
            },
            "is not ours and stays as it is",
        ),
        (
            "description: x\nlike: rke2\nscenario: rtx3060\nfiles:\n  /usr/bin/nvidia-container-runtime: x\n",
            |_| {},
            "the handler `nvidia` is `/usr/bin/nvidia-container-runtime`, which stays",
        ),
    ];
    for (manifest, prepare, says) in cases {
        let node = Node::new(manifest);
        prepare(&node);
        let wanted = node.wanted("1.0.0");
        let plan = plan(&node.host(), &node.there(&wanted), &wanted);
        assert!(
            plan.remarks.iter().any(|remark| remark.contains(says)),
            "{:?}",
            plan.remarks
        );
        assert!(
            !plan.steps.iter().any(|step| step.path() == wrapper),
            "{:#?}",
            plan.steps
        );
        assert!(
            plan.steps.iter().any(|step| step.path().ends_with(HOOK)),
            "the hook is installed all the same"
        );
    }
}

#[test]
fn an_installation_of_nvidias_toolkit_over_ours_is_theirs_from_then_on() {
    let node = Node::rke2();
    node.bring_up("1.0.0", usize::MAX);
    fs::remove_dir_all(node.at(TOOLKIT_DIR)).unwrap();
    fs::create_dir_all(node.at(TOOLKIT_DIR)).unwrap();
    let at = node.at("/usr/local/nvidia/toolkit/nvidia-container-runtime");
    fs::write(&at, "#!/bin/sh\n").unwrap();
    node.bring_up("1.0.0", usize::MAX);
    assert_eq!(fs::read_to_string(&at).unwrap(), "#!/bin/sh\n");
    let list = fs::read(node.at(&format!("{DATA}/pitcrew/{MANIFEST}"))).unwrap();
    let list = parse_manifest(&list).unwrap();
    assert!(
        !list
            .entries()
            .iter()
            .any(|entry| entry.path.ends_with("toolkit/nvidia-container-runtime"))
    );
}

/// Pitfalls 1 and 8 of the facts: the toolkit wrote a template that broke the node's network, and an import that broke k0s.
#[test]
fn pitfalls_1_and_8_no_configuration_of_containerd_is_ever_written() {
    let kubeadm = "description: x\nfiles:\n  /etc/kubernetes/kubelet.conf: x\n  /etc/containerd/config.toml: \"version = 2\\n\"\n  \
                   /usr/bin/containerd: x\n";
    let template = format!(
        "description: x\nlike: rke2\nscenario: rtx3060\nfiles:\n  {CONFIG}.tmpl: \"{{{{ template }}}}\"\n"
    );
    for manifest in [
        kubeadm,
        &template,
        "description: x\nlike: k3s\nscenario: rtx3060\n",
    ] {
        let node = Node::new(manifest);
        let wanted = node.wanted("1.0.0");
        let there = node.there(&wanted);
        for step in plan(&node.host(), &there, &wanted).steps {
            let path = step.path();
            let allowed = path.starts_with(&there.home) || path.starts_with("/usr/local/nvidia");
            assert!(allowed, "{path:?}");
            assert!(
                path.extension()
                    .is_none_or(|ending| ending != "toml" && ending != "tmpl"),
                "{path:?}"
            );
        }
    }
}

/// Pitfall 9 of the facts: `/usr/local` is read-only on Flatcar and its like.
#[test]
fn pitfall_9_where_usr_local_is_read_only_the_wrapper_lies_elsewhere_and_that_is_told() {
    let node = Node::rke2();
    let wanted = node.wanted("1.0.0");
    let mut there = node.there(&wanted);
    there.toolkit_closed = Some("`/usr/local` is mounted read-only".to_owned());
    there.links_dir = there.home.join(BIN);
    let plan = plan(&node.host(), &there, &wanted);
    let bin = format!("{DATA}/pitcrew/bin");
    let told = plan.remarks.join("\n");
    assert!(told.contains("`/usr/local` is mounted read-only"), "{told}");
    assert!(
        told.contains(&format!("PATH=\"{bin}:/usr/local/sbin")) && told.contains("/etc/default/rke2-agent"),
        "{told}"
    );
    node.executor().run(&plan.steps).unwrap();
    assert!(node.runs(&Path::new(&bin).join(WRAPPER)));
    assert!(!node.at("/usr/local/nvidia").exists());
    assert!(!plan.steps.iter().any(|step| step.path().starts_with("/usr")));
}

#[test]
fn our_directory_is_the_first_that_can_be_written_to() {
    let place = |path: &str, closed: Option<&str>| Place {
        path: path.into(),
        closed: closed.map(str::to_owned),
    };
    let none = |_: &Path| false;
    let open = [place("/opt/pitcrew", None), place("/var/lib/pitcrew", None)];
    assert_eq!(choose(&open, none), ("/opt/pitcrew".into(), None));
    let closed = [
        place("/opt/pitcrew", Some("`/` is mounted read-only")),
        place("/var/lib/pitcrew", None),
    ];
    let (home, remark) = choose(&closed, none);
    assert_eq!(home, Path::new("/var/lib/pitcrew"));
    assert_eq!(
        remark.unwrap(),
        "our files lie in `/var/lib/pitcrew`: `/` is mounted read-only"
    );
    let (home, _) = choose(&open, |path| path == Path::new("/var/lib/pitcrew"));
    assert_eq!(
        home,
        Path::new("/var/lib/pitcrew"),
        "what was written is not lost from sight"
    );
    assert_eq!(
        candidates(&Node::rke2().host())[0],
        Path::new(DATA).join("pitcrew")
    );
    let plain = Node::new("description: x\nfiles: {/etc/kubernetes/kubelet.conf: x}\n");
    assert_eq!(candidates(&plain.host())[0], Path::new("/opt/pitcrew"));
}

#[test]
fn links_of_the_host_are_followed_inside_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("var/local")).unwrap();
    fs::create_dir(root.join("usr")).unwrap();
    symlink("/var/local", root.join("usr/local")).unwrap();
    symlink("../../../../var/local/x", root.join("usr/up")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let at = |path: &str| {
        step::inside(root, Path::new(path)).map(|path| path.strip_prefix(root).unwrap().to_owned())
    };
    assert_eq!(at("/usr/local/nvidia").unwrap(), Path::new("var/local/nvidia"));
    assert_eq!(at("/usr/up/y").unwrap(), Path::new("var/local/x/y"));
    assert_eq!(
        at("/usr/local").unwrap(),
        Path::new("usr/local"),
        "what is at the path is not followed"
    );
    let followed = |path: &str| {
        step::followed(root, Path::new(path)).map(|path| path.strip_prefix(root).unwrap().to_owned())
    };
    assert_eq!(followed("/usr/local").unwrap(), Path::new("var/local"));
    assert_eq!(
        followed("/usr/local/not/there").unwrap(),
        Path::new("var/local/not/there")
    );
    assert!(followed("/loop").is_err());
    assert_eq!(at("/../../etc").unwrap(), Path::new("etc"));
    assert!(at("/loop/x").is_err());
    Executor::new(root)
        .run(&[Step::write(Path::new("/usr/local/f"), "x".to_owned())])
        .unwrap();
    assert!(root.join("var/local/f").is_file());
}

#[test]
fn versions_are_read_out_of_any_text() {
    let home = Path::new("/opt/pitcrew");
    let of = |text: &str| versions_in(text.as_bytes(), home).into_iter().collect::<Vec<_>>();
    assert_eq!(
        of("{\"path\":\"/opt/pitcrew/1.2.0/nvidia-cdi-hook\",\"x\":\"/opt/pitcrew/1.3.0-rc.1+x/y\"}"),
        ["1.2.0", "1.3.0-rc.1+x"]
    );
    assert_eq!(
        of("/opt/pitcrew/installed.json /opt/pitcrew/ /opt/pitcrewx/1/y"),
        [""; 0]
    );
}

#[test]
fn a_list_that_leads_elsewhere_is_no_list() {
    let mut list = Manifest::default();
    list.add(Kind::File, Path::new("/opt/pitcrew/x"));
    assert_eq!(parse_manifest(list.text().as_bytes()), Some(list.clone()));
    for path in ["etc/passwd", "/opt/../etc/passwd", ""] {
        let mut list = list.clone();
        list.add(Kind::File, Path::new(path));
        assert_eq!(parse_manifest(list.text().as_bytes()), None, "{path}");
    }
    assert_eq!(parse_manifest(b"{\"schema\":\"x\",\"paths\":[]}"), None);
    assert_eq!(parse_manifest(b"nothing"), None);
}
