//! Files in `/run/nvidia/validations` by which others wait for a node: those that NVIDIA's validator writes.
//!
//! Ours begin with a line that says so. A file without it is of a running NVIDIA operator (or of a person): while there
//! is one nothing is written, and it is never touched. `cuda-ready` says that a CUDA program ran: a proof did, under this
//! driver and since the node's boot.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use pitcrew_api::ConditionStatus;
use pitcrew_api::condition::kind;
use pitcrew_host::Host;

use super::judge::Judgement;
use crate::dir::Dir;

/// Where they are on the host.
pub const DIR: &str = "/run/nvidia/validations";
/// The first line of ours. `driver-ready` is read by shells, to which it is a comment.
const MARK: &str = "# written by pitcrew, removed when it is no longer true\n";
/// Files that the parts of a running NVIDIA operator wait for or leave there.
const FOREIGN: [&str; 5] = [
    "driver-ready",
    "toolkit-ready",
    "plugin-ready",
    "cuda-ready",
    ".driver-ctr-ready",
];
const OURS: [&str; 4] = ["driver-ready", "toolkit-ready", "plugin-ready", "cuda-ready"];

/// What became of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// They are as they should be; what was written and what was removed.
    Kept {
        /// Written, or written anew.
        written: Vec<&'static str>,
        /// Removed.
        removed: Vec<&'static str>,
    },
    /// These are somebody else's, so that ours are not written.
    Foreign(Vec<&'static str>),
}

/// The files that should be there, by name, with what they hold.
///
/// Each stands for what comes before it too, as it is with NVIDIA's validator: `toolkit-ready` for the driver and the
/// runtime, `plugin-ready` for all. `cuda-ready` stands for driver and runtime, and for a program that has computed.
pub fn wanted(
    judgements: &[Judgement],
    host: Option<&Host>,
    has_computed: bool,
) -> BTreeMap<&'static str, String> {
    let holds = |kind: &str| {
        judgements
            .iter()
            .any(|it| it.kind == kind && it.status == ConditionStatus::True)
    };
    let mut files = BTreeMap::new();
    if holds(kind::DRIVER_READY) {
        files.insert("driver-ready", format!("{MARK}{}", driver_roots(host)));
        if holds(kind::RUNTIME_READY) {
            files.insert("toolkit-ready", MARK.to_owned());
            if has_computed {
                files.insert("cuda-ready", MARK.to_owned());
            }
            if holds(kind::DEVICES_ADVERTISED) {
                files.insert("plugin-ready", MARK.to_owned());
            }
        }
    }
    files
}

/// The variables of `driver-ready`: where the driver is on the host, and where NVIDIA's containers have that mounted.
fn driver_roots(host: Option<&Host>) -> String {
    let driver = host.map(|host| &host.driver);
    let root = driver.and_then(|driver| driver.container_root.as_deref());
    let used = driver.and_then(|driver| driver.libraries.first());
    let container = root.filter(|root| used.is_some_and(|used| used.directory.starts_with(root)));
    let (is_host, on_host, in_container) = match container {
        Some(root) => (false, root.display().to_string(), root.display().to_string()),
        None => (true, "/".to_owned(), "/host".to_owned()),
    };
    format!(
        "IS_HOST_DRIVER={is_host}\n\
         NVIDIA_DRIVER_ROOT={on_host}\n\
         DRIVER_ROOT_CTR_PATH={in_container}\n\
         NVIDIA_DEV_ROOT={on_host}\n\
         DEV_ROOT_CTR_PATH={in_container}\n"
    )
}

/// Makes the files under a host's root as they should be. What is right already is not written again.
///
/// # Errors
/// Where the directory or a file can't be read, written or removed.
pub fn sync(root: &Path, wanted: &BTreeMap<&'static str, String>) -> io::Result<Outcome> {
    let dir = match Dir::open(root, Path::new(DIR)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if wanted.is_empty() {
                let (written, removed) = (Vec::new(), Vec::new());
                return Ok(Outcome::Kept { written, removed });
            }
            Dir::make(root, Path::new(DIR))?
        }
        other => other?,
    };
    let dir = dir.path();
    let foreign = foreign(&dir)?;
    let mut removed = Vec::new();
    for name in OURS {
        let path = dir.join(name);
        if !wanted.contains_key(name) && is_ours(&path)? {
            fs::remove_file(path)?;
            removed.push(name);
        }
    }
    if !foreign.is_empty() {
        return Ok(Outcome::Foreign(foreign));
    }
    let mut written = Vec::new();
    for (name, text) in wanted {
        let path = dir.join(name);
        if fs::read_to_string(&path).is_ok_and(|there| there == *text) {
            continue;
        }
        write(&dir, &path, text)?;
        written.push(*name);
    }
    Ok(Outcome::Kept { written, removed })
}

/// The files of ours that there are, as on the host: those of others stay when an uninstall takes ours away.
///
/// # Errors
/// Where one can't be read.
pub fn ours(root: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = below(root);
    let mut found = Vec::new();
    for name in OURS {
        if is_ours(&dir.join(name))? {
            found.push(Path::new(DIR).join(name));
        }
    }
    Ok(found)
}

fn below(root: &Path) -> PathBuf {
    root.join(DIR.trim_start_matches('/'))
}

fn foreign(dir: &Path) -> io::Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for name in FOREIGN {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() && !is_ours(&path)? {
            found.push(name);
        }
    }
    Ok(found)
}

/// True for a regular file that begins with our mark; false where nothing is.
fn is_ours(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut start = Vec::new();
    fs::File::open(path)?
        .take(MARK.len() as u64)
        .read_to_end(&mut start)?;
    Ok(start == MARK.as_bytes())
}

/// All or nothing, readable for all: others run as any user.
fn write(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = tempfile::Builder::new()
        .prefix(".pitcrew-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(kinds: &[&'static str]) -> Vec<Judgement> {
        kind::ALL
            .iter()
            .map(|kind| Judgement {
                kind,
                status: if kinds.contains(kind) {
                    ConditionStatus::True
                } else {
                    ConditionStatus::False
                },
                reason: "Test".to_owned(),
                message: String::new(),
                hint: None,
            })
            .collect()
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(below(root))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    const ALL: [&str; 3] = [kind::DRIVER_READY, kind::RUNTIME_READY, kind::DEVICES_ADVERTISED];

    #[test]
    fn files_come_and_go_with_what_they_stand_for() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(
            sync(root, &wanted(&judged(&[]), None, false)).unwrap(),
            Outcome::Kept {
                written: vec![],
                removed: vec![]
            }
        );
        assert!(!below(root).exists(), "nothing to write, nothing made");
        sync(root, &wanted(&judged(&ALL[..1]), None, false)).unwrap();
        assert_eq!(names(root), ["driver-ready"]);
        sync(root, &wanted(&judged(&ALL), None, false)).unwrap();
        assert_eq!(names(root), ["driver-ready", "plugin-ready", "toolkit-ready"]);
        // Without a driver a runtime is ready for nothing.
        let outcome = sync(root, &wanted(&judged(&ALL[1..]), None, false)).unwrap();
        assert_eq!(
            outcome,
            Outcome::Kept {
                written: vec![],
                removed: vec!["driver-ready", "toolkit-ready", "plugin-ready"]
            }
        );
        assert!(names(root).is_empty());
    }

    #[test]
    fn what_is_right_already_is_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        let files = wanted(&judged(&ALL), None, false);
        sync(root.path(), &files).unwrap();
        let nothing = Outcome::Kept {
            written: vec![],
            removed: vec![],
        };
        assert_eq!(sync(root.path(), &files).unwrap(), nothing);
    }

    #[test]
    fn files_of_a_running_nvidia_operator_are_untouched_and_keep_ours_away() {
        let root = tempfile::tempdir().unwrap();
        let dir = below(root.path());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("toolkit-ready"), "").unwrap();
        let outcome = sync(root.path(), &wanted(&judged(&ALL), None, false)).unwrap();
        assert_eq!(outcome, Outcome::Foreign(vec!["toolkit-ready"]));
        assert_eq!(names(root.path()), ["toolkit-ready"]);
        sync(root.path(), &wanted(&judged(&[]), None, false)).unwrap();
        assert!(ours(root.path()).unwrap().is_empty());
        assert_eq!(fs::read_to_string(dir.join("toolkit-ready")).unwrap(), "");
    }

    #[test]
    fn what_we_wrote_before_an_operator_came_goes_when_it_is_no_longer_true() {
        let root = tempfile::tempdir().unwrap();
        sync(root.path(), &wanted(&judged(&ALL), None, false)).unwrap();
        fs::write(below(root.path()).join("driver-ready"), "IS_HOST_DRIVER=true\n").unwrap();
        let outcome = sync(root.path(), &wanted(&judged(&[]), None, false)).unwrap();
        assert_eq!(outcome, Outcome::Foreign(vec!["driver-ready"]));
        assert_eq!(names(root.path()), ["driver-ready"]);
    }

    #[test]
    fn a_link_is_never_followed_nor_taken_for_ours() {
        let root = tempfile::tempdir().unwrap();
        let dir = below(root.path());
        fs::create_dir_all(&dir).unwrap();
        let aim = root.path().join("aim");
        fs::write(&aim, MARK).unwrap();
        std::os::unix::fs::symlink(&aim, dir.join("driver-ready")).unwrap();
        let outcome = sync(root.path(), &wanted(&judged(&ALL), None, false)).unwrap();
        assert_eq!(outcome, Outcome::Foreign(vec!["driver-ready"]));
        assert_eq!(fs::read_to_string(aim).unwrap(), MARK);
    }

    #[test]
    fn ours_are_told_from_those_of_others_by_what_is_in_them() {
        let root = tempfile::tempdir().unwrap();
        sync(root.path(), &wanted(&judged(&ALL), None, false)).unwrap();
        assert_eq!(ours(root.path()).unwrap().len(), 3);
        fs::write(below(root.path()).join("plugin-ready"), "").unwrap();
        let names = ["driver-ready", "toolkit-ready"].map(|name| Path::new(DIR).join(name));
        assert_eq!(ours(root.path()).unwrap(), names);
    }

    /// The file is sourced: <https://github.com/NVIDIA/gpu-operator> has its operands do so.
    #[test]
    fn a_shell_reads_the_drivers_roots() {
        let root = tempfile::tempdir().unwrap();
        sync(root.path(), &wanted(&judged(&ALL), None, false)).unwrap();
        let file = below(root.path()).join("driver-ready");
        let script = format!(
            "set -eu; . {}; echo $IS_HOST_DRIVER $NVIDIA_DRIVER_ROOT $DRIVER_ROOT_CTR_PATH $NVIDIA_DEV_ROOT $DEV_ROOT_CTR_PATH",
            file.display()
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "true / /host / /host\n"
        );
    }
}
