//! Host roots: what a manifest says is what is read, in memory as in a directory.

use std::collections::BTreeMap;
use std::path::Path;

use pitcrew_core::ports::{FileKind, HostFs};
use pitcrew_scenario::{Change, HostRoot, Machine, Scenario, ScenarioError};
use proptest::prelude::*;

use crate::machine;

fn root(text: &str) -> HostRoot {
    parse(text).unwrap()
}

fn parse(text: &str) -> Result<HostRoot, ScenarioError> {
    HostRoot::parse(text, "test.yaml", &|name| match name {
        "below" => Some(BELOW.to_owned()),
        "itself" => Some("{description: x, like: itself}".to_owned()),
        name => HostRoot::builtin_text(name).map(str::to_owned),
    })
}

fn read(fs: &dyn HostFs, path: &str) -> String {
    String::from_utf8(fs.read(Path::new(path)).unwrap()).unwrap()
}

fn kind(fs: &dyn HostFs, path: &str) -> Option<FileKind> {
    fs.kind(Path::new(path)).ok()
}

const BELOW: &str = "
description: what others are like
scenario: rtx3060
files: {/etc/one: '1', /etc/two: '2', /opt/tool/bin/tool: tool}
links: {/bin: usr/bin, /etc/link: two}
sockets: [/run/below.sock]
";

#[test]
fn entries_lie_over_those_of_another_root_and_both_over_the_machines() {
    let root = root(
        "
description: test
like: below
remove: [/opt/tool, /dev/nvidia-uvm]
files: {/etc/two: two, /proc/modules: ''}
links: {/etc/self: /etc/../etc/link, /usr/bin/smi: ../lib/x86_64-linux-gnu/libcuda.so.1}
devices: {/dev/nvidia-uvm-tools: '511:1'}
directories: [/etc/cdi]
",
    );
    assert_eq!(read(&root, "/etc/one"), "1");
    assert_eq!(read(&root, "/etc/self"), "two");
    assert_eq!(read(&root, "/proc/modules"), "");
    assert_eq!(read(&root, "/bin/smi"), "");
    assert!(read(&root, "/proc/driver/nvidia/version").contains("NVRM"));
    assert_eq!(kind(&root, "/opt/tool"), None);
    assert_eq!(kind(&root, "/opt"), None);
    assert_eq!(kind(&root, "/etc/cdi"), Some(FileKind::Directory));
    assert_eq!(kind(&root, "/run/below.sock"), Some(FileKind::Other));
    assert_eq!(
        kind(&root, "/dev/nvidia-uvm-tools"),
        Some(FileKind::CharDevice { major: 511, minor: 1 })
    );
    let dev = root.list(Path::new("/dev")).unwrap();
    assert_eq!(
        dev,
        ["nvidia-modeset", "nvidia-uvm-tools", "nvidia0", "nvidiactl"]
    );
    assert_eq!(
        root.list(Path::new("/etc")).unwrap(),
        ["cdi", "link", "one", "self", "two"]
    );
}

#[test]
fn what_the_manifest_says_of_the_driver_is_true_of_the_machine() {
    let with = |driver: &str| root(&format!("{{description: x, like: below, driver: {driver}}}"));
    let absent = with("{loaded: false}");
    assert_eq!(kind(&absent, "/dev/nvidiactl"), None);
    assert_eq!(kind(&absent, "/usr/lib/x86_64-linux-gnu/libcuda.so.1"), None);
    assert_eq!(
        read(&absent, "/sys/bus/pci/devices/0000:01:00.0/vendor"),
        "0x10de\n"
    );
    let other = with("{version: '550.1.2', libraries: /usr/lib64}");
    assert_eq!(
        kind(&other, "/usr/lib64/libcuda.so.1"),
        Some(FileKind::Link("libcuda.so.550.1.2".into()))
    );
    assert!(read(&other, "/proc/driver/nvidia/version").contains(" 550.1.2 "));
}

#[test]
fn what_may_not_be_read_is_there_and_refused() {
    let root = root(
        "{description: x, files: {/etc/shadow: s, /root/.ssh/key: k}, unreadable: [/etc/shadow, /root/.ssh]}",
    );
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    assert!(refused(root.read(Path::new("/etc/shadow")).unwrap_err()));
    assert_eq!(kind(&root, "/etc/shadow"), Some(FileKind::File(1)));
    assert!(refused(root.list(Path::new("/root/.ssh")).unwrap_err()));
    assert!(refused(root.kind(Path::new("/root/.ssh/key")).unwrap_err()));
}

#[test]
fn a_change_of_the_machine_is_seen_through_the_root() {
    let machine = machine("rtx3060");
    let root = HostRoot::over(machine.clone()).unwrap();
    assert!(kind(&root, "/dev/nvidia0").is_some());
    machine.change(&Change::UnloadDriver).unwrap();
    assert_eq!(kind(&root, "/dev/nvidia0"), None);
}

#[test]
fn every_built_in_parses_and_lies_over_every_scenario() {
    for name in HostRoot::builtin_names() {
        let root = HostRoot::builtin(name).unwrap();
        assert!(!root.description().is_empty());
        assert_eq!(root.name(), name);
        for (scenario, _) in Scenario::builtin_names() {
            let root = root
                .clone()
                .with_machine(Machine::new(Scenario::builtin(scenario).unwrap()));
            assert!(read(&root, "/etc/os-release").contains("ID="));
            assert!(
                kind(&root, "/lib/x86_64-linux-gnu/libcuda.so.1").is_some(),
                "{scenario}"
            );
        }
    }
    insta::assert_snapshot!(HostRoot::builtin("rke1").unwrap_err(), @"no host root is called `rke1`; did you mean `rke2`?");
}

#[test]
fn machines_with_switches_show_them_and_fabric_manager() {
    let of = |name: &str| {
        let machine = machine(name);
        let devices = machine.list(Path::new("/sys/bus/pci/devices")).unwrap();
        let switches = devices
            .iter()
            .filter(|device| read(&machine, &format!("/sys/bus/pci/devices/{device}/class")) == "0x068000\n")
            .count();
        (
            switches,
            kind(&machine, "/run/nvidia-fabricmanager/nv-fabricmanager.pid").is_some(),
        )
    };
    assert_eq!(of("h100x8"), (4, true));
    assert_eq!(of("a100x8"), (6, true));
    assert_eq!(of("rtx3060"), (0, false));
}

#[test]
fn mistakes_are_told_with_their_place() {
    let refused: Vec<String> = [
        "{description: x, files: {etc/one: a}}",
        "{description: x, files: {/etc/../one: a}}",
        "{description: x, devices: {/dev/a: '195'}}",
        "{description: x, files: {/a: a}, sockets: [/a]}",
        "{description: x, files: {/a: a, /a/b: b}}",
        "{description: x, modes: {/a: '0999'}}",
        "{description: x, links: {/a: ''}}",
        "{description: x, like: nothing}",
        "{description: x, like: itself}",
        "{description: x, scenario: rtx3061}",
        "{description: x, file: {}}",
        "files: {}",
    ]
    .iter()
    .map(|text| parse(text).unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(refused.join("\n"));
}

/// Everything below a path: kind and, of files, text.
fn walk(fs: &dyn HostFs, path: &Path, found: &mut BTreeMap<String, String>) {
    for name in fs.list(path).unwrap() {
        let path = path.join(name);
        let mut kind = fs.kind(&path).unwrap();
        let text = match kind {
            FileKind::Directory => {
                walk(fs, &path, found);
                String::new()
            }
            FileKind::File(_) => {
                // The kernel's own sizes are not those of their copies.
                kind = FileKind::File(0);
                String::from_utf8(fs.read(&path).unwrap()).unwrap()
            }
            _ => String::new(),
        };
        found.insert(path.display().to_string(), format!("{kind:?} {text}"));
    }
}

proptest! {
    #[test]
    fn any_text_is_a_root_or_a_refusal(text in "\\PC*") {
        let _ = parse(&text);
    }

    #[test]
    fn any_path_is_answered(path in "(/(\\.\\.|etc|link|self|dev|[a-z]{0,2})){0,6}") {
        let root = root("{description: x, like: below, links: {/etc/self: self, /a: ../../etc}}");
        let path = Path::new(&path);
        let _ = (root.kind(path), root.read(path), root.list(path));
    }
}

#[test]
fn a_root_laid_out_in_a_directory_holds_what_it_holds_in_memory() {
    for name in HostRoot::builtin_names() {
        let root = HostRoot::builtin(name).unwrap().with_machine(machine("a100x8"));
        let dir = tempfile::tempdir().unwrap();
        let left_out = root.build(dir.path()).unwrap();
        let real = pitcrew_host::HostRoots::new(pitcrew_host::Roots::under(dir.path()));
        let (mut wanted, mut built) = (BTreeMap::new(), BTreeMap::new());
        walk(&root, Path::new("/"), &mut wanted);
        walk(&real, Path::new("/"), &mut built);
        for path in left_out {
            wanted.remove(&path.display().to_string());
            built.remove(&path.display().to_string());
        }
        assert_eq!(built, wanted);
    }
}

#[test]
fn modes_are_set_and_what_root_reads_anyway_is_said() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = root("{description: x, files: {/a: a, /b: b}, modes: {/a: '0640'}, unreadable: [/b]}");
    let dir = tempfile::tempdir().unwrap();
    let left_out = root.build(dir.path()).unwrap();
    let mode = |name: &str| {
        std::fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!((mode("a"), mode("b")), (0o640, 0));
    let readable = std::fs::read(dir.path().join("b")).is_ok();
    assert_eq!(!left_out.is_empty(), readable);
}
