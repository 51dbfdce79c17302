//! The directory that reports are handed over in.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::super::shelf::{Requests, Shelf};
use super::super::{DIR, hand_over, on_disk};
use super::report;

#[test]
fn what_others_could_have_written_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(root.path());
    let good = hand_over(root.path(), &report(|_| {})).unwrap();
    let dir = good.parent().unwrap();
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::copy(&good, dir.join("open.json")).unwrap();
    std::fs::set_permissions(dir.join("open.json"), PermissionsExt::from_mode(0o666)).unwrap();
    std::os::unix::fs::symlink(&good, dir.join("link.json")).unwrap();
    std::fs::create_dir(dir.join("dir.json")).unwrap();
    std::fs::write(dir.join("text.txt"), "{}").unwrap();
    std::fs::write(dir.join(".unfinished.json"), "{").unwrap();
    std::fs::write(dir.join("bytes.json"), b"\xff").unwrap();
    let mut read = BTreeMap::new();
    let names = shelf
        .read(&BTreeMap::new(), |new| {
            read.insert(new.name, new.report.map(|report| report.evidence.node.name));
        })
        .unwrap();
    assert_eq!(names.len(), 5);
    let good = good.file_name().unwrap().to_str().unwrap();
    assert_eq!(read.remove(good), Some(Ok("worker-1".to_owned())));
    let why = |name: &str| read[name].clone().unwrap_err();
    assert_eq!(why("open.json"), "others than its owner can write to it");
    assert!(
        why("link.json").starts_with("it can't be read"),
        "{}",
        why("link.json")
    );
    assert_eq!(why("dir.json"), "it is no plain file");
    assert_eq!(why("bytes.json"), "it is no text in UTF-8");

    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(shelf.read(&BTreeMap::new(), |_| {}).is_err());
    assert!(hand_over(root.path(), &report(|_| {})).is_err());
}

#[test]
fn a_report_that_was_read_is_not_read_again_until_it_is_another() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(root.path());
    let path = hand_over(root.path(), &report(|_| {})).unwrap();
    let mut seen = BTreeMap::new();
    shelf
        .read(&BTreeMap::new(), |new| {
            seen.insert(new.name, new.stamp);
        })
        .unwrap();
    assert_eq!(seen.len(), 1);
    shelf
        .read(&seen, |new| panic!("{} was read again", new.name))
        .unwrap();
    std::fs::write(path, "{}").unwrap();
    let mut count = 0;
    shelf.read(&seen, |_| count += 1).unwrap();
    assert_eq!(count, 1);
}

#[test]
fn of_very_many_reports_the_newest_are_read_and_none_that_is_known_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(root.path());
    let path = hand_over(root.path(), &report(|_| {})).unwrap();
    let good = path.file_name().unwrap().to_str().unwrap().to_owned();
    let put_aged = |name: &str, age: u64| {
        let file = std::fs::File::create(path.with_file_name(name)).unwrap();
        let modified = std::time::SystemTime::now() - Duration::from_secs(age);
        file.set_modified(modified).unwrap();
    };
    for index in 0..1_100 {
        put_aged(&format!("old-{index}.json"), 10_000 - index);
        put_aged(&format!("other-{index}.txt"), 0);
    }
    let mut seen = BTreeMap::new();
    let mut order = Vec::new();
    let names = shelf
        .read(&seen.clone(), |new| {
            order.push(new.name.clone());
            seen.insert(new.name, new.stamp);
        })
        .unwrap();
    assert_eq!((names.len(), order.len()), (1_000, 1_000));
    assert_eq!(order.last(), Some(&good), "the newest last");
    assert!(names.contains("old-1099.json") && !names.contains("old-100.json"));
    // Known by now, and older than the thousand that come.
    for index in 0..1_000 {
        put_aged(&format!("new-{index}.json"), 0);
    }
    let mut count = 0;
    let names = shelf.read(&seen, |_| count += 1).unwrap();
    assert!(names.contains(&good));
    assert!(seen.keys().all(|name| names.contains(name)));
    assert_eq!((names.len(), count), (2_000, 1_000));
}

#[test]
fn links_are_followed_inside_the_hosts_root_and_requests_of_others_are_not_believed() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
    // Absolute, as the host's owner would make it: the host's path, not ours.
    let target = elsewhere.path().strip_prefix("/").unwrap();
    std::fs::create_dir_all(root.path().join(target)).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), root.path().join("var/lib/pitcrew")).unwrap();
    hand_over(root.path(), &report(|_| {})).unwrap();
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    let dir = root.path().join(target).join("proofs");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(on_disk(root.path()).unwrap().0.len(), 1);

    let shelf = Shelf::new(root.path());
    let requests = Requests {
        request: "today".to_owned(),
        answered: BTreeSet::from(["GPU-1".to_owned()]),
    };
    shelf.keep_requests(&requests).unwrap();
    assert_eq!(shelf.requests(), requests);
    let file = dir.join(".requests.json");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    assert_eq!(shelf.requests(), Requests::default());
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(shelf.requests(), Requests::default());
}

#[test]
fn an_uninstall_finds_all_of_it_and_nothing_where_there_is_none() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(on_disk(root.path()).unwrap(), (Vec::new(), Vec::new()));
    hand_over(root.path(), &report(|_| {})).unwrap();
    let requests = Requests {
        request: "today".to_owned(),
        answered: BTreeSet::from(["GPU-1".to_owned()]),
    };
    let shelf = Shelf::new(root.path());
    shelf.keep_requests(&requests).unwrap();
    assert_eq!(shelf.requests(), requests);
    let (files, dirs) = on_disk(root.path()).unwrap();
    assert_eq!(files.len(), 2);
    assert_eq!(dirs, [DIR, "/var/lib/pitcrew"].map(std::path::PathBuf::from));
}
