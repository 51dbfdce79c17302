use std::fs;
use std::sync::Arc;

use pitcrew_core::ports::{FileKind, InventorySource as _, Mig as _};
use pitcrew_host::{HostRoots, Roots};
use pitcrew_scenario::{HostRoot, Machine, Scenario};

use super::*;

const HOOK: &str = "/var/lib/rancher/rke2/agent/pitcrew/1.0.0/nvidia-cdi-hook";

/// A node laid out in a directory, with an imaginary machine under it.
struct Bench {
    machine: Machine,
    dir: tempfile::TempDir,
    fs: Layered,
}

/// What is written over what the machine shows.
struct Layered(HostRoots, HostRoot);

impl HostFs for Layered {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.0.kind(path).or_else(|_| self.1.kind(path))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.read(path).or_else(|_| self.1.read(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        match (self.0.list(path), self.1.list(path)) {
            (Ok(mut all), Ok(more)) => {
                all.extend(more);
                all.sort_unstable();
                all.dedup();
                Ok(all)
            }
            (first, second) => first.or(second),
        }
    }
}

impl Bench {
    fn new(scenario: &str) -> Self {
        let machine = Machine::new(Scenario::builtin(scenario).unwrap());
        let dir = tempfile::tempdir().unwrap();
        // As on every host, and as the machine's own.
        fs::create_dir_all(dir.path().join("var")).unwrap();
        fs::create_dir_all(dir.path().join("run/cdi")).unwrap();
        std::os::unix::fs::symlink("../run", dir.path().join("var/run")).unwrap();
        let written = HostRoots::new(Roots::under(dir.path()));
        let fs = Layered(written, HostRoot::over(machine.clone()).unwrap());
        Self { machine, dir, fs }
    }

    fn basis(&self) -> Basis {
        Basis {
            gpus: Arc::new(self.machine.clone().inventory().unwrap()),
            driver: DriverRoots {
                libraries: "/".into(),
                devices: "/".into(),
            },
            hook: HOOK.into(),
            dir: "/var/run/cdi".into(),
            dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            extras: Extras::default(),
        }
    }

    fn keep(&self, held: &[&str]) -> (usize, Option<Spec>) {
        let basis = self.basis();
        let draft = Draft::new(&self.fs, &basis).unwrap();
        let (steps, spec) = draft.settle(|name| held.contains(&name));
        for step in &steps {
            carry_out(self.dir.path(), &basis.dir, step).unwrap();
        }
        (steps.len(), spec)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("var/run/cdi").join(name)
    }

    fn written(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

const ALL: [&str; 3] = [
    "k8s.device-plugin.nvidia.com-gpu.json",
    "management.nvidia.com-gpu.json",
    "nvidia.com-gpu.json",
];

fn names(spec: &Spec) -> Vec<&str> {
    spec.devices.iter().map(|device| device.name.as_str()).collect()
}

#[test]
fn three_specifications_are_written_once_and_not_again_while_nothing_changes() {
    let bench = Bench::new("h100x8");
    let (steps, spec) = bench.keep(&[]);
    assert_eq!((steps, bench.written()), (3, ALL.map(str::to_owned).to_vec()));
    let mut uuids = bench.machine.uuids();
    uuids.sort();
    assert_eq!(names(&spec.unwrap()), uuids);
    assert_eq!(bench.keep(&[]).0, 0);
}

#[test]
fn what_nvidias_toolkit_defines_is_not_defined_once_more() {
    let bench = Bench::new("rtx3060");
    let theirs = r#"{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [
        {"name": "0", "containerEdits": {"env": ["A=1"]}}]}"#;
    bench.put("etc/cdi/nvidia.json", theirs);
    bench.keep(&[]);
    assert_eq!(bench.written(), ALL[..2]);
    // Comes later: ours goes, or neither would count.
    fs::remove_file(bench.dir.path().join("etc/cdi/nvidia.json")).unwrap();
    bench.keep(&[]);
    assert_eq!(bench.written(), ALL);
    bench.put("var/run/cdi/nvidia.yaml", theirs);
    bench.keep(&[]);
    let mut expected = ALL[..2].to_vec();
    expected.push("nvidia.yaml");
    assert_eq!(bench.written(), expected);
}

#[test]
fn another_file_with_the_device_plugins_names_is_told() {
    let bench = Bench::new("rtx3060");
    let uuid = &bench.machine.uuids()[0];
    let theirs = format!(
        r#"{{"cdiVersion": "0.5.0", "kind": "{PLUGIN}", "devices": [
        {{"name": "{uuid}", "containerEdits": {{"env": ["A=1"]}}}}]}}"#
    );
    bench.put("var/run/cdi/other.json", &theirs);
    let draft = Draft::new(&bench.fs, &bench.basis()).unwrap();
    let problem = draft.problem().unwrap();
    assert_eq!(problem.reason, "CdiConflict");
    assert!(
        problem.hint.ends_with("`rm /var/run/cdi/other.json`"),
        "{}",
        problem.hint
    );
}

#[test]
fn a_name_that_a_pod_holds_stays_until_it_is_let_go_of() {
    let mut bench = Bench::new("h100x8");
    let uuid = bench.machine.uuids()[0].clone();
    bench.keep(&[]);
    // Cut: the whole GPU is no device any more.
    bench.machine.set_mode(&uuid, true).unwrap();
    let profile = "3g.40gb".parse().unwrap();
    let device = bench.machine.create(&uuid, &profile, None).unwrap();
    let basis = bench.basis();
    let draft = Draft::new(&bench.fs, &basis).unwrap();
    assert_eq!(draft.dropped().into_iter().collect::<Vec<_>>(), [uuid.as_str()]);

    let (_, spec) = bench.keep(&[&uuid]);
    let spec = spec.unwrap();
    assert!(names(&spec).contains(&uuid.as_str()) && names(&spec).contains(&device.uuid.as_str()));
    spec.check().unwrap();
    assert_eq!(bench.keep(&[&uuid]).0, 0, "and is not written again and again");
    let (_, spec) = bench.keep(&[]);
    assert!(!names(&spec.unwrap()).contains(&uuid.as_str()));
}

/// What NVIDIA's plugin wrote before, with names by index, stays valid for pods that it started.
#[test]
fn names_of_nvidias_plugin_stay_while_a_pod_holds_them() {
    let bench = Bench::new("rtx3060");
    let theirs = format!(
        r#"{{"cdiVersion": "0.5.0", "kind": "{PLUGIN}", "devices": [
        {{"name": "0", "containerEdits": {{"deviceNodes": [{{"path": "/dev/nvidia0"}}]}}}}]}}"#
    );
    bench.put("var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", &theirs);
    let (_, spec) = bench.keep(&["0"]);
    let spec = spec.unwrap();
    assert_eq!(names(&spec).len(), 2);
    spec.check().unwrap();
    let (_, spec) = bench.keep(&[]);
    assert_eq!(names(&spec.unwrap()), [bench.machine.uuids()[0].as_str()]);
}

/// The kubelet's books have UUIDs alone, whatever NVIDIA's plugin called the devices towards the runtime.
#[test]
fn an_index_stays_while_a_pod_holds_the_uuid_of_its_device_and_gets_our_hooks() {
    let bench = Bench::new("h100x8");
    let uuids = bench.machine.uuids();
    let device = |index: usize| {
        format!(
            r#"{{"name": "{index}", "containerEdits": {{"deviceNodes": [{{"path": "/dev/nvidia{index}"}}],
            "hooks": [{{"hookName": "createContainer", "path": "/usr/local/nvidia/toolkit/nvidia-cdi-hook",
            "args": ["nvidia-cdi-hook", "chmod"]}}]}}}}"#
        )
    };
    let devices: Vec<String> = (0..8).map(device).collect();
    let theirs = format!(
        r#"{{"cdiVersion": "0.5.0", "kind": "{PLUGIN}", "devices": [{}]}}"#,
        devices.join(", ")
    );
    bench.put("var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", &theirs);
    for round in 0..3 {
        let (steps, spec) = bench.keep(&[&uuids[3]]);
        let spec = spec.unwrap();
        spec.check().unwrap();
        let (indices, ours): (Vec<&Device>, Vec<&Device>) =
            spec.devices.iter().partition(|device| device.name.len() == 1);
        assert_eq!(ours.len(), 8);
        let [three] = indices[..] else {
            panic!("{:?}", names(&spec))
        };
        let same = ours.iter().find(|device| device.name == uuids[3]).unwrap();
        assert_eq!(
            (three.name.as_str(), &three.container_edits),
            ("3", &same.container_edits)
        );
        assert!(
            !encode(&spec, Encoding::Json)
                .unwrap()
                .contains("/usr/local/nvidia")
        );
        assert_eq!(steps > 0, round == 0, "it isn't written again and again");
    }
    let (_, spec) = bench.keep(&[&uuids[4]]);
    assert_eq!(
        names(&spec.unwrap()).len(),
        8,
        "it goes with its pod, and no other index comes back"
    );
}

/// After a GPU before it is lost, the driver counts others: an index must not become another GPU.
#[test]
fn an_index_means_the_device_nodes_that_it_had_and_never_what_the_driver_counts_now() {
    let bench = Bench::new("h100x8");
    let uuids = bench.machine.uuids();
    let theirs = format!(
        r#"{{"cdiVersion": "0.5.0", "kind": "{PLUGIN}", "devices": [
        {{"name": "1", "containerEdits": {{"deviceNodes": [{{"path": "/dev/nvidia1"}}]}}}},
        {{"name": "all", "containerEdits": {{"deviceNodes": [{{"path": "/dev/nvidia0"}}, {{"path": "/dev/nvidia1"}}]}}}}]}}"#
    );
    bench.put("var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", &theirs);
    let mut gpus = Inventory::clone(&bench.basis().gpus);
    gpus.gpus.remove(0);
    for (at, gpu) in (0..).zip(&mut gpus.gpus) {
        gpu.index = at;
    }
    let basis = Basis {
        gpus: Arc::new(gpus),
        ..bench.basis()
    };
    let settle = |held: &str| {
        let draft = Draft::new(&bench.fs, &basis).unwrap();
        draft.settle(|name| name == held).1.unwrap()
    };
    let spec = settle(&uuids[1]);
    let one = spec.devices.iter().find(|device| device.name == "1").unwrap();
    assert!(
        one.container_edits
            .device_nodes
            .iter()
            .any(|node| node.path == "/dev/nvidia1")
    );
    assert!(!names(&spec).contains(&"all"));
    assert!(!names(&settle(&uuids[2])).contains(&"1"));
}

#[test]
fn what_is_no_longer_true_goes_and_what_is_not_ours_stays() {
    let bench = Bench::new("rtx3060");
    let uuid = bench.machine.uuids()[0].clone();
    bench.keep(&[]);
    let basis = Basis {
        gpus: Arc::new(Inventory {
            gpus: Vec::new(),
            ..Inventory::clone(&bench.basis().gpus)
        }),
        ..bench.basis()
    };
    let settle = |held: bool| {
        Draft::new(&bench.fs, &basis)
            .unwrap()
            .settle(|name| held && name == uuid)
    };
    let (steps, spec) = settle(true);
    assert!(
        spec.is_some() && steps.len() == 2,
        "the one that a pod needs stays: {steps:?}"
    );
    let (steps, spec) = settle(false);
    assert!(spec.is_none() && steps.len() == 3, "{steps:?}");
    assert!(steps.iter().all(|step| matches!(step, Step::Remove(_))));

    let text = fs::read_to_string(bench.path(ALL[0])).unwrap();
    let theirs = text.replace("/var/lib/rancher/rke2/agent/pitcrew/1.0.0/", "/usr/bin/");
    fs::write(bench.path(ALL[0]), theirs).unwrap();
    let (steps, _) = settle(false);
    assert_eq!(steps.len(), 2, "{steps:?}");
}

#[test]
fn a_specification_with_the_hook_of_an_older_version_is_ours_and_written_anew() {
    let bench = Bench::new("rtx3060");
    bench.keep(&[]);
    let basis = Basis {
        hook: HOOK.replace("1.0.0", "1.1.0").into(),
        ..bench.basis()
    };
    let (steps, spec) = Draft::new(&bench.fs, &basis).unwrap().settle(|_| true);
    assert_eq!(steps.len(), 3, "{steps:?}");
    let text = encode(&spec.unwrap(), Encoding::Json).unwrap();
    assert!(text.contains("/1.1.0/") && !text.contains("/1.0.0/"));
}

#[test]
fn a_driver_without_libraries_is_a_problem_with_a_next_step() {
    let bench = Bench::new("rtx3060");
    let mut basis = bench.basis();
    basis.driver.libraries = "/run/nvidia/driver".into();
    let draft = Draft::new(&bench.fs, &basis).unwrap();
    let problem = draft.problem().unwrap();
    assert_eq!(problem.reason, "DriverLibrariesNotFound");
    assert!(problem.hint.contains("pitcrew check"));
}

#[test]
fn the_directory_is_found_behind_links_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("var")).unwrap();
    std::os::unix::fs::symlink("/run", dir.path().join("var/run")).unwrap();
    std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
    let at = |path: &str| crate::runtime::install::followed(dir.path(), Path::new(path));
    assert_eq!(at("/var/run/cdi").unwrap(), dir.path().join("run/cdi"));
    assert_eq!(at("/var/../../etc").unwrap(), dir.path().join("etc"));
    assert!(at("/loop/cdi").is_err());
}

#[test]
fn what_is_asked_for_besides_gpus_has_specifications_of_its_own() {
    const HAS_ALL: &str = "
description: x
like: rke2
scenario: rtx3060
files: {/etc/cufile.json: '{}'}
devices:
  /dev/nvidia-fs0: 506:0
  /dev/gdrdrv: 505:0
  /dev/nvidia-caps-imex-channels/channel0: 504:0
  /dev/nvidia-caps-imex-channels/channel1: 504:1
";
    let mut bench = Bench::new("rtx3060");
    let builtin = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
    bench.fs.1 = HostRoot::parse(HAS_ALL, "node", &builtin).unwrap();
    let basis = Basis {
        extras: Extras {
            imex_channels: vec![0],
            gds: true,
            mofed: true,
            gdrcopy: false,
        },
        ..bench.basis()
    };
    let keep = |fs: &Layered, basis: &Basis| {
        let draft = Draft::new(fs, basis).unwrap();
        let remarks = draft.remarks().to_vec();
        let (steps, _) = draft.settle(|_| false);
        for step in &steps {
            carry_out(bench.dir.path(), &basis.dir, step).unwrap();
        }
        (steps.len(), remarks)
    };
    let (steps, remarks) = keep(&bench.fs, &basis);
    assert_eq!(steps, 5);
    assert_eq!(
        remarks,
        ["`mofed` is asked for, and this node has no device node of it"]
    );
    let mut expected = vec![
        "k8s.device-plugin.nvidia.com-gds.json",
        "k8s.device-plugin.nvidia.com-gpu.json",
        "k8s.device-plugin.nvidia.com-imex-channel.json",
    ];
    expected.extend(&ALL[1..]);
    assert_eq!(bench.written(), expected);
    let path = Path::new("/var/run/cdi/k8s.device-plugin.nvidia.com-imex-channel.json");
    let channels = directories::read_file(&bench.fs, path).unwrap();
    assert_eq!(names(&channels), ["0"], "the other was not asked for");
    assert_eq!(keep(&bench.fs, &basis).0, 0, "written once");

    // Pods were given them; and what has no node any more is of no use to anybody.
    let no_more = bench.basis();
    assert_eq!(keep(&bench.fs, &no_more).0, 0);
    let without = HAS_ALL.replace("  /dev/nvidia-fs0: 506:0\n", "");
    bench.fs.1 = HostRoot::parse(&without, "node", &builtin).unwrap();
    assert_eq!(keep(&bench.fs, &basis).0, 1);
    assert_eq!(bench.written(), expected[1..]);
}
