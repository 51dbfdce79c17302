//! Directories of specifications, read as containerd reads them.

use pitcrew_cdi::directories::{Directories, Refusal};
use pitcrew_scenario::HostRoot;

fn spec(kind: &str, devices: &[&str]) -> String {
    let device = |name: &&str| format!("{{name: '{name}', containerEdits: {{env: [A=1]}}}}");
    let devices: Vec<String> = devices.iter().map(device).collect();
    format!(
        "\"{{cdiVersion: 0.6.0, kind: {kind}, devices: [{}]}}\"",
        devices.join(", ")
    )
}

fn read(files: &[(&str, String)], dirs: &[&str], more: &str) -> Directories {
    let files: Vec<String> = files
        .iter()
        .map(|(path, text)| format!("  {path}: {text}"))
        .collect();
    let text = format!("description: x\nfiles:\n{}\n{more}", files.join("\n"));
    let root = HostRoot::parse(&text, "test", &|_| None).unwrap();
    Directories::read(&root, dirs)
}

#[test]
fn what_lies_in_the_later_directory_counts() {
    let files = [
        ("/etc/cdi/a.yaml", spec("a.com/gpu", &["0", "1"])),
        ("/var/run/cdi/b.json", spec("a.com/gpu", &["1", "2"])),
        ("/var/run/cdi/notes.txt", "x".to_owned()),
        ("/var/run/cdi/dir.yaml/x", "x".to_owned()),
    ];
    let read = read(&files, &["/etc/cdi", "/var/run/cdi", "/nowhere"], "");
    assert_eq!(read.files.len(), 2);
    let devices = read.devices();
    let from: Vec<String> = devices
        .found
        .iter()
        .map(|(name, file)| format!("{name} {}", file.path.display()))
        .collect();
    assert_eq!(
        from,
        [
            "a.com/gpu=0 /etc/cdi/a.yaml",
            "a.com/gpu=1 /var/run/cdi/b.json",
            "a.com/gpu=2 /var/run/cdi/b.json"
        ]
    );
    assert_eq!(devices.conflicts, []);
}

#[test]
fn two_files_of_one_directory_take_a_device_from_one_another_and_from_all() {
    let files = [
        ("/etc/cdi/a.yaml", spec("a.com/gpu", &["0", "1"])),
        ("/etc/cdi/b.yaml", spec("a.com/gpu", &["1"])),
        ("/var/run/cdi/c.yaml", spec("a.com/gpu", &["1"])),
    ];
    let read = read(&files, &["/etc/cdi", "/var/run/cdi"], "");
    let devices = read.devices();
    let found: Vec<String> = devices.found.keys().map(ToString::to_string).collect();
    assert_eq!(found, ["a.com/gpu=0"]);
    assert_eq!(devices.conflicts.len(), 1);
    assert_eq!(devices.conflicts[0].device.to_string(), "a.com/gpu=1");
    assert_eq!(devices.conflicts[0].files.len(), 2);
}

#[test]
fn what_can_not_be_read_is_told_with_its_reason() {
    let files = [
        ("/etc/cdi/a.yaml", spec("a.com/gpu", &[])),
        ("/etc/cdi/b.json", "'{'".to_owned()),
        ("/etc/cdi/c.yaml", spec("a.com/gpu", &["0"])),
        ("/run/secret/d.yaml", spec("a.com/gpu", &["0"])),
    ];
    let more = "links: {/etc/cdi/d.yaml: nowhere}\nunreadable: [/etc/cdi/c.yaml, /run/secret]";
    let read = read(&files, &["/etc/cdi", "/run/secret"], more);
    assert_eq!(read.unread.len(), 1);
    let why: Vec<&Refusal> = read
        .files
        .iter()
        .map(|file| file.spec.as_ref().unwrap_err())
        .collect();
    assert!(
        matches!(why[0], Refusal::Invalid(problems) if problems[0].0 == Some(1)),
        "{why:?}"
    );
    assert!(matches!(why[1], Refusal::Text(_)), "{why:?}");
    assert!(matches!(why[2], Refusal::Read(_)), "{why:?}");
    assert!(matches!(why[3], Refusal::Read(_)), "{why:?}");
    assert!(read.devices().found.is_empty());
}
