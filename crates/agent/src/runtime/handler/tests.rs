use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Mutex;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_host::containerd::effective;

use super::*;
use crate::runtime::install::tests::Node;
use crate::runtime::install::{There, Uses, plan as install};
use crate::runtime::uninstall::{self, Sites, look_and_plan};
use crate::runtime::{Handler, assess};
use crate::testing::never_asked;

const MAIN: &str = "/etc/containerd/config.toml";
const OURS: &str = "/etc/containerd/conf.d/99-pitcrew.toml";
const HOME: &str = "/opt/pitcrew";

const TWO: &str = "# as our people wrote it\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  \
                   sandbox_image = \"pause:3.9\" # mirrored\n\
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n";
const THREE: &str = "version = 3\n# no imports\n\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  \
                     runtime_type = 'io.containerd.runc.v2'\n  \
                     [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n    SystemdCgroup = true\n";

/// A node of kubeadm with this containerd and this configuration.
fn node(version: &str, config: Option<&str>) -> Node {
    let status = format!("Package: containerd\nStatus: install ok installed\nVersion: {version}-1\n\n");
    let mut manifest = serde_json::json!({
        "description": "kubeadm",
        "files": {
            "/etc/kubernetes/kubelet.conf": "x",
            "/usr/bin/containerd": "x",
            "/usr/lib/systemd/system/containerd.service": "[Service]\nExecStart=/usr/bin/containerd\n",
            "/var/lib/dpkg/status": status,
            "/run/x": "",
            "/etc/containerd/other.toml": "",
            "/opt/x": "",
        },
    });
    if let Some(config) = config {
        manifest["files"][MAIN] = config.into();
    }
    let node = Node::new(&manifest.to_string());
    started(&node, "one");
    node
}

/// containerd was started, for the so-manieth time.
fn started(node: &Node, run: &str) {
    let link = node
        .at("/run/systemd/units")
        .join("invocation:containerd.service");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&link);
    symlink(run, link).unwrap();
}

fn planned(node: &Node) -> Result<Option<Change>, Refused> {
    plan(&node.fs(), &node.host(), &binary(Path::new(HOME)))
}

/// All steps of an installation with the handler.
fn all_steps(node: &Node) -> Vec<Step> {
    let mut wanted = node.wanted("1.0.0");
    wanted.handler = true;
    let there = node.there(&wanted);
    let first = install(&node.host(), &there, &wanted).steps;
    let mut manifest = there.manifest.clone();
    for step in &first {
        if let Step::Write { to, text } = step
            && to.ends_with(MANIFEST)
        {
            manifest = crate::runtime::install::parse_manifest(text.as_bytes()).unwrap();
        }
    }
    let record = Record::now(&node.fs(), &node.host());
    let then = planned(node)
        .unwrap()
        .map(|change| steps(&node.fs(), &manifest, Path::new(HOME), &change, &record));
    first.into_iter().chain(then.unwrap_or_default()).collect()
}

fn bring_up(node: &Node) {
    node.executor().run(&all_steps(node)).unwrap();
}

fn uninstall(node: &Node) -> uninstall::Plan {
    let sites = Sites {
        cdi_dir: "/var/run/cdi".into(),
        ..Sites::default()
    };
    look_and_plan(node.dir.path(), &node.fs(), &node.host(), sites).unwrap()
}

fn take_down(node: &Node) -> Vec<String> {
    let plan = uninstall(node);
    node.executor().run(&plan.steps).unwrap();
    plan.remarks
}

fn handler(node: &Node) -> Handler {
    assess(&node.host())
        .since(loaded(&node.fs(), Path::new(HOME)))
        .handler
}

/// True where the program that containerd's configuration names is there, links followed.
fn has_wrapper(node: &Node) -> bool {
    let program = crate::runtime::install::followed(node.dir.path(), &binary(Path::new(HOME)));
    program.and_then(fs::read).is_ok()
}

fn config(node: &Node, generation: Generation) -> Effective {
    effective(&node.fs(), Path::new(MAIN), generation).unwrap()
}

/// Configurations of both generations, as people have them.
fn cases() -> Vec<(Generation, &'static str, Option<&'static str>)> {
    use Generation::{One, Two};
    let importing = "imports = [\"/etc/containerd/conf.d/*.toml\"]\nversion = 3\n";
    vec![
        (One, "1.7.24", Some(TWO)),
        (Two, "2.1.4", Some(THREE)),
        (Two, "2.1.4", Some(TWO)),
        (Two, "2.2.0", Some(importing)),
        (
            Two,
            "2.2.0",
            Some("version = 3\nimports = [\n  '/etc/containerd/other.toml', # ours\n]\n"),
        ),
        (Two, "2.2.0", None),
    ]
}

fn nodes() -> impl Iterator<Item = (Generation, Node)> {
    cases()
        .into_iter()
        .map(|(generation, version, config)| (generation, node(version, config)))
}

#[test]
fn the_handler_is_there_and_everything_else_is_as_it_was() {
    for (generation, node) in nodes() {
        let before = fs::read_to_string(node.at(MAIN)).unwrap_or_default();
        bring_up(&node);
        let after = config(&node, generation);
        let ours = (
            HANDLER.to_owned(),
            "/opt/pitcrew/bin/nvidia-container-runtime".to_owned(),
        );
        assert!(after.config.handlers.contains(&ours), "{before}");
        // As the node's own runtime is started.
        if before.contains("SystemdCgroup") {
            let version = after.config.version;
            let table = edit::runtime(&after.table, version, HANDLER)
                .or_else(|| edit::runtime(&after.table, 3, HANDLER))
                .unwrap();
            let options = table["options"].as_table().unwrap();
            assert_eq!(
                options["SystemdCgroup"],
                pitcrew_host::containerd::Value::Boolean(true)
            );
        }
        // The program is there before it is named.
        assert!(has_wrapper(&node));
        assert_eq!(planned(&node), Ok(None), "once is enough");
        let is_drop_in = node.at(OURS).exists();
        assert_eq!(is_drop_in, generation == Generation::Two, "{before}");
        if before.contains("conf.d/*.toml") {
            assert_eq!(
                fs::read_to_string(node.at(MAIN)).unwrap(),
                before,
                "it imports drop-ins"
            );
        }
    }
}

#[test]
fn what_was_written_is_taken_away_to_the_byte() {
    for (_, node) in nodes() {
        let before = node.everything();
        bring_up(&node);
        started(&node, "two");
        assert!(matches!(handler(&node), Handler::Live { .. }));
        let remarks = take_down(&node);
        assert!(
            remarks
                .iter()
                .any(|it| it.contains("systemctl restart containerd")),
            "{remarks:?}"
        );
        assert!(has_wrapper(&node), "containerd still has the handler");
        assert_eq!(take_down(&node), remarks, "and has it until it is restarted");
        started(&node, "one");
        assert_eq!(take_down(&node), [""; 0]);
        assert_eq!(node.everything(), before);
    }
}

#[test]
fn what_people_changed_since_stays() {
    let node = node("1.7.24", Some(TWO));
    bring_up(&node);
    let text = fs::read_to_string(node.at(MAIN)).unwrap();
    fs::write(node.at(MAIN), text.replace("pause:3.9", "pause:3.10")).unwrap();
    take_down(&node);
    let expected = TWO.replace("pause:3.9", "pause:3.10");
    assert_eq!(fs::read_to_string(node.at(MAIN)).unwrap(), expected);
}

/// Between the plan and its last step lies the rehearsal, which takes seconds.
#[test]
fn what_people_change_while_it_is_planned_stays_and_is_read_anew() {
    for (_, node) in nodes().filter(|(_, node)| {
        let steps = all_steps(node);
        steps.iter().any(|step| matches!(step, Step::Edit { .. }))
    }) {
        let steps = all_steps(&node);
        let main = node.at(MAIN);
        let there = fs::read_to_string(&main).unwrap_or_else(|_| "version = 3\n".to_owned());
        let theirs = there + "# a line of theirs\n";
        fs::write(&main, &theirs).unwrap();
        let error = node.executor().run(&steps).unwrap_err();
        assert!(error.is_changed(), "{error}");
        let told = format!("`{MAIN}` could not be written: somebody has changed it since it was read");
        assert!(error.to_string().starts_with(&told), "{error}");
        assert_eq!(fs::read_to_string(&main).unwrap(), theirs);
        let left = fs::read_dir(main.parent().unwrap()).unwrap().flatten();
        let left: Vec<_> = left
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        assert!(!left.iter().any(|name| name.starts_with(".pitcrew-")), "{left:?}");

        bring_up(&node);
        assert!(
            fs::read_to_string(&main)
                .unwrap()
                .contains("# a line of theirs\n")
        );
        assert!(matches!(handler(&node), Handler::Pending { .. }));
        // The same when it is taken away.
        let plan = uninstall(&node);
        let theirs = fs::read_to_string(&main).unwrap() + "# another\n";
        fs::write(&main, &theirs).unwrap();
        assert!(node.executor().run(&plan.steps).unwrap_err().is_changed());
        assert_eq!(fs::read_to_string(&main).unwrap(), theirs);
        take_down(&node);
        let text = fs::read_to_string(&main).unwrap();
        assert!(
            text.contains("# a line of theirs\n") && text.contains("# another\n"),
            "{text}"
        );
        assert!(!text.contains("pitcrew"), "{text}");
    }
}

#[test]
fn killed_between_any_two_steps_containerd_starts_and_the_next_run_goes_on() {
    for (index, (generation, version, config)) in cases().into_iter().enumerate() {
        let steps = all_steps(&node(version, config)).len();
        for stop in 0..=steps {
            let node = node(version, config);
            let before = node.everything();
            for step in all_steps(&node).iter().take(stop) {
                node.executor().step(step).unwrap();
            }
            starts(&node, generation, &format!("{index}, up to step {stop}"));
            bring_up(&node);
            assert_eq!(planned(&node), Ok(None));
            started(&node, "two");
            // The same on the way back.
            let way_back = uninstall(&node).steps;
            for step in way_back.iter().take(stop) {
                node.executor().step(step).unwrap();
                starts(
                    &node,
                    generation,
                    &format!("{index}, back, after {step:?} of {way_back:#?}"),
                );
            }
            take_down(&node);
            started(&node, "one");
            take_down(&node);
            assert_eq!(node.everything(), before, "stopped after {stop}");
        }
    }
}

/// It reads its configuration, and what that names is there.
#[track_caller]
fn starts(node: &Node, generation: Generation, when: &str) {
    if !node.at(MAIN).exists() {
        return;
    }
    for (name, binary) in config(node, generation).config.handlers {
        assert!(binary.is_empty() || has_wrapper(node), "{name}: {binary}: {when}");
    }
}

#[test]
fn it_is_live_once_containerd_was_started_again() {
    let node = node("2.1.4", Some(THREE));
    assert_eq!(handler(&node), Handler::Absent);
    bring_up(&node);
    let Handler::Pending { binary } = handler(&node) else {
        panic!("{:?}", handler(&node))
    };
    assert_eq!(binary, super::binary(Path::new(HOME)));
    let way = assess(&node.host()).since(Loaded::NotYet);
    assert_eq!(way.problem(&[]).unwrap().hint, "systemctl restart containerd");
    started(&node, "two");
    assert!(matches!(handler(&node), Handler::Live { .. }));
    fs::remove_dir_all(node.at("/run/systemd")).unwrap();
    assert!(
        matches!(handler(&node), Handler::Unknown(_)),
        "without systemd nobody knows"
    );
}

#[test]
fn owner_mode_and_link_of_a_file_of_others_stay() {
    let node = node("1.7.24", Some(TWO));
    let real = node.at("/etc/containerd").join("real.toml");
    fs::rename(node.at(MAIN), &real).unwrap();
    symlink("real.toml", node.at("/etc/containerd").join("config.toml")).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    bring_up(&node);
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&real).unwrap().contains(HANDLER));
    assert!(fs::read_link(node.at("/etc/containerd").join("config.toml")).is_ok());
    take_down(&node);
    assert_eq!(fs::read_to_string(&real).unwrap(), TWO);
}

#[test]
fn what_is_not_ours_to_change_is_left_alone_with_the_reason() {
    let theirs = format!(
        "{TWO}[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]\nBinaryName = '/usr/bin/theirs'\n"
    );
    let inline = "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { sandbox_image = \"x\" } }\n";
    // Generation 1 replaces a plugin's section by that of a file that comes later.
    let replaced = format!("imports = ['/etc/containerd/other.toml']\n{TWO}");
    for (node, word) in [
        (node("1.7.24", Some(&theirs)), "is `/usr/bin/theirs`, which stays"),
        (node("1.7.24", Some("[plugins.cri]\n")), "of version 1"),
        (node("2.1.4", Some("[plugins.cri]\n")), "of version 1"),
        (node("1.7.24", None), "names no runtime"),
        (node("1.7.24", Some("version = 2\n")), "names no runtime"),
        (node("1.7.24", Some(inline)), "names no runtime"),
        (
            node("2.1.4", Some("version = 3\nimports = 1\n")),
            "can't be changed",
        ),
        (node("2.1.4", Some("version = {{ tmpl")), "can't be changed"),
        (node("unknown", Some(TWO)), "version can't be told"),
        (Node::rke2(), "this node's supervisor"),
        (
            {
                let node = node("1.7.24", Some(&replaced));
                let other = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n";
                fs::write(node.at("/etc/containerd/other.toml"), other).unwrap();
                node
            },
            "another file that it imports",
        ),
    ] {
        let before = node.everything();
        let refused = planned(&node).unwrap_err().to_string();
        assert!(refused.contains(word), "{word}: {refused}");
        assert_eq!(node.everything(), before);
    }
}

#[test]
fn without_being_asked_nothing_of_it_is_written() {
    let node = node("2.1.4", Some(THREE));
    let wanted = node.wanted("1.0.0");
    let there: There = node.there(&wanted);
    let steps = install(&node.host(), &there, &wanted).steps;
    node.executor().run(&steps).unwrap();
    assert_eq!(fs::read_to_string(node.at(MAIN)).unwrap(), THREE);
    assert!(!node.at("/opt/pitcrew/bin").exists() && !node.at(OURS).exists());
    assert_eq!(take_down(&node), [""; 0]);
}

#[test]
fn a_running_container_of_the_handler_keeps_its_wrapper() {
    let node = node("2.1.4", Some(THREE));
    bring_up(&node);
    started(&node, "two");
    let there = node.there(&node.wanted("1.0.0"));
    let uses = Uses::look(&node.fs(), &node.host(), &there.home);
    assert_eq!(uses.handlers, [HANDLER]);
    let removal = uninstall::Removal {
        record: Record::now(&node.fs(), &node.host()),
        unread: false,
        sockets: Vec::new(),
        files: Vec::new(),
        dirs: Vec::new(),
        specs: Vec::new(),
        wrapper_too: true,
    };
    let by_wrapper = Uses {
        tasks: vec![crate::runtime::install::Task {
            id: "1".to_owned(),
            pod: Some("ml/train".to_owned()),
            versions: std::collections::BTreeSet::new(),
            by_wrapper: true,
        }],
        ..uses
    };
    let plan = uninstall::plan(&node.host(), &there, &by_wrapper, &removal).unwrap();
    assert!(plan.remarks[0].contains("ml/train"), "{:?}", plan.remarks);
    node.executor().run(&plan.steps).unwrap();
    assert!(has_wrapper(&node));
    assert_eq!(
        fs::read_to_string(node.at(MAIN)).unwrap(),
        THREE,
        "no new one is started by it"
    );
}

/// A containerd that says what it is told to, and what it was asked.
struct Told {
    answers: Mutex<Vec<io::Result<String>>>,
    root: PathBuf,
    asked: Mutex<Vec<String>>,
}

impl System for Told {
    never_asked!(load_module, make_char_device, restart_unit, start, find);

    fn run<'a>(
        &'a self,
        program: &'a Path,
        arguments: &'a [String],
        _: &'a [(String, String)],
        _: &'a str,
    ) -> BoxFuture<'a, io::Result<String>> {
        assert_eq!(program, Path::new("/usr/bin/containerd"));
        let given = self.root.join(arguments[1].trim_start_matches('/'));
        self.asked
            .lock()
            .unwrap()
            .push(fs::read_to_string(given).unwrap());
        let answer = self.answers.lock().unwrap().remove(0);
        async move { answer }.boxed()
    }
}

async fn rehearsed(node: &Node, answers: Vec<io::Result<String>>) -> (Result<(), Refused>, Vec<String>) {
    let change = planned(node).unwrap().unwrap();
    let told = Told {
        answers: Mutex::new(answers),
        root: node.dir.path().to_owned(),
        asked: Mutex::default(),
    };
    let before = node.everything();
    let result = rehearse(&change, node.dir.path(), &told).await;
    assert_eq!(node.everything(), before, "no copy is left");
    (result, told.asked.into_inner().unwrap())
}

#[tokio::test]
async fn the_nodes_own_containerd_has_the_last_word() {
    let node = node("1.7.24", Some(TWO));
    let change = planned(&node).unwrap().unwrap();
    let after = change.edits[0].text.clone();
    let fine = vec![Ok(TWO.to_owned()), Ok(after.clone())];
    let (result, asked) = rehearsed(&node, fine).await;
    assert_eq!((result, asked), (Ok(()), vec![TWO.to_owned(), after.clone()]));
    let refused = |result: Result<(), Refused>| result.unwrap_err().to_string();
    let (result, _) = rehearsed(
        &node,
        vec![Ok(TWO.to_owned()), Err(io::Error::other("invalid plugin"))],
    )
    .await;
    assert!(refused(result).ends_with("invalid plugin"));
    let (result, _) = rehearsed(&node, vec![Ok(TWO.to_owned()), Ok(TWO.to_owned())]).await;
    assert!(refused(result).contains("finds no handler"));
    let more = after.replace(
        "SystemdCgroup = true\n# pitcrew",
        "SystemdCgroup = false\n# pitcrew",
    );
    let (result, _) = rehearsed(&node, vec![Ok(TWO.to_owned()), Ok(more)]).await;
    assert!(refused(result).contains("more changed"));
}
