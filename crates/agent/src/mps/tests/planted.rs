//! What others planted where the daemons' shared memory is.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::running::Bench;
use super::*;
use crate::mps::daemon::SCRIPT;

/// `/dev/shm` is open to every pod with `hostIPC`.
#[tokio::test(start_paused = true)]
async fn what_was_planted_in_shared_memory_is_refused_told_and_used_again_once_it_is_gone() {
    let bench = Bench::new();
    let (root, shm) = (bench.host.root.clone(), bench.host.root.join("dev/shm"));
    std::fs::create_dir_all(&shm).unwrap();
    let set =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(&shm, 0o1777);
    std::fs::create_dir_all(root.join("etc")).unwrap();
    set(&root.join("etc"), 0o755);
    symlink("/etc", shm.join("nvidia-mps")).unwrap();
    let mut bench = bench;
    bench.want(2, &[], Place::default());
    let problem = bench.problem("DirectoryPlanted").await.problem().unwrap();
    assert!(
        problem
            .message
            .contains("nothing is written there: `/dev/shm/nvidia-mps` is a symbolic link"),
        "{problem:?}"
    );
    assert!(
        problem.hint.ends_with("`rm -r /dev/shm/nvidia-mps`"),
        "{problem:?}"
    );
    let etc = std::fs::metadata(root.join("etc")).unwrap();
    assert_eq!(etc.permissions().mode() & 0o7777, 0o755);
    assert_eq!(bench.host.world().started, 0);
    std::fs::remove_file(shm.join("nvidia-mps")).unwrap();
    bench.ready().await;
    let there = std::fs::metadata(shm.join("nvidia-mps")).unwrap();
    assert_eq!(there.permissions().mode() & 0o7777, 0o1777);
}

/// The script's own look, between the agent's and the mount.
#[test]
fn the_daemons_script_mounts_a_directory_and_no_link_that_took_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
    std::fs::create_dir(at("bin")).unwrap();
    std::fs::create_dir(at("memory")).unwrap();
    symlink(at("memory"), at("link")).unwrap();
    let mount = at("bin/mount");
    std::fs::write(&mount, "#!/bin/sh\necho \"$*\" in \"$(pwd -P)\" >>\"$MOUNTED\"\n").unwrap();
    std::fs::set_permissions(&mount, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |memory: PathBuf| {
        let ended = Command::new("sh")
            .args(["-c", SCRIPT])
            .args([memory, at("log")])
            .args(["echo", "served"])
            .env("PATH", format!("{}:/usr/bin:/bin", at("bin").display()))
            .env("MOUNTED", at("mounted"))
            .status()
            .unwrap();
        ended.success()
    };
    assert!(!run(at("link")));
    assert!(!at("mounted").exists() && !at("log").exists());
    assert!(run(at("memory")));
    let mounted = std::fs::read_to_string(at("mounted")).unwrap();
    let expected = format!(
        "--no-canonicalize --bind . /dev/shm in {}\n",
        at("memory").display()
    );
    assert_eq!(mounted, expected);
    assert_eq!(std::fs::read_to_string(at("log")).unwrap(), "served\n");
}
