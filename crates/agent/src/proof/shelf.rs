//! The directory that reports are handed over in.
//!
//! Whoever may write there may say that a GPU is proven: it belongs to root, and what belongs to anybody else, what others
//! can write to, and what is no plain file is not read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pitcrew_core::proof::{self, MAX_BYTES, Report};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::dir::Dir;

/// Where reports are, on the host.
pub const DIR: &str = "/var/lib/pitcrew/proofs";
/// Names of reports end so; what begins with a dot is not finished, or not a report.
const ENDING: &str = ".json";
/// Which requests were answered.
const REQUESTS: &str = ".requests.json";
/// How names of files begin that are being written.
const UNFINISHED: &str = ".new-";
/// Most reports that are looked at beside those that are known: the newest.
const MOST: usize = 1_000;
/// Longest text of which requests were answered, in bytes.
const MAX_REQUESTS_BYTES: usize = 1 << 20;

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    modified: SystemTime,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            inode: metadata.ino(),
        }
    }
}

/// A file that is new, or another one than before.
#[derive(Debug)]
pub(super) struct New {
    pub(super) name: String,
    pub(super) stamp: Stamp,
    pub(super) report: Result<Report, String>,
}

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    root: PathBuf,
}

/// The request that was answered last, and for which GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Requests {
    pub(super) request: String,
    pub(super) answered: BTreeSet<String>,
}

impl Shelf {
    /// `root` is the host's root as the agent sees it.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Reads what is new, one file after the other, the newest last, and hands each over before the next is read. Gives the
    /// names that there are, of which those that are known never go because there are many.
    pub(super) fn read(
        &self,
        known: &BTreeMap<String, Stamp>,
        mut each: impl FnMut(New),
    ) -> io::Result<BTreeSet<String>> {
        let dir = make(&self.root)?;
        let mut names = BTreeSet::new();
        let mut newest = BTreeMap::new();
        for entry in fs::read_dir(dir.path())?.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') || !name.ends_with(ENDING) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let stamp = Stamp::of(&metadata);
            if known.contains_key(&name) {
                names.insert(name.clone());
            }
            newest.insert((stamp.modified, name), stamp);
            if newest.len() > MOST {
                newest.pop_first();
            }
        }
        for ((_, name), stamp) in newest {
            if known.get(&name) != Some(&stamp) {
                // A mistake of ours at one report, told by the panic's own message: the others count all the same.
                let report = catch_unwind(AssertUnwindSafe(|| read(&dir.path().join(&name))));
                let mistake = || Err("it could not be read, which is a mistake of pitcrew".to_owned());
                each(New {
                    name: name.clone(),
                    stamp,
                    report: report.unwrap_or_else(|_| mistake()),
                });
            }
            names.insert(name);
        }
        Ok(names)
    }

    /// Takes a report away that others have outlived, or that never counts.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(open(&self.root)?.path().join(name))
    }

    /// What was answered; nothing where nothing was written down, or others could have written it.
    pub(super) fn requests(&self) -> Requests {
        let text = open(&self.root)
            .map_err(|error| error.to_string())
            .and_then(|dir| bytes(&dir.path().join(REQUESTS), MAX_REQUESTS_BYTES));
        text.ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub(super) fn keep_requests(&self, requests: &Requests) -> io::Result<()> {
        let text = serde_json::to_string(requests)?;
        put(&make(&self.root)?.path(), REQUESTS, text.as_bytes())
    }
}

/// Hands a report to the node's agent, in one step. `root` is the host's root as this process sees it. Gives where it is.
///
/// # Errors
/// Where the directory can't be made or written to, or isn't ours alone.
pub fn hand_over(root: &Path, report: &Report) -> io::Result<PathBuf> {
    let held = make(root)?;
    let dir = held.path();
    let mut file = unfinished(&dir)?;
    let mut writer = io::BufWriter::new(file.as_file_mut());
    serde_json::to_writer(&mut writer, report)?;
    writer.flush()?;
    drop(writer);
    // What makes the unfinished file's name unlike others makes the finished one's.
    let own = file.path().file_name().and_then(|name| name.to_str());
    let own = own
        .and_then(|name| name.strip_prefix(UNFINISHED))
        .unwrap_or_default();
    let name = format!("{}-{own}{ENDING}", report.evidence.run.started.0);
    file.persist(dir.join(&name))?;
    Ok(root.join(DIR.trim_start_matches('/')).join(name))
}

/// What of proofs is on a host, to be taken away: files, then directories, as paths of the host.
///
/// # Errors
/// Where it can't be looked at.
pub fn on_disk(root: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let on_host = Path::new(DIR);
    let dir = match Dir::open(root, on_host) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir.path())? {
        files.push(on_host.join(entry?.file_name()));
    }
    files.sort();
    let dirs = on_host.ancestors().take(2).map(Path::to_owned).collect();
    Ok((files, dirs))
}

/// Opens the directory, where it is ours alone.
fn open(root: &Path) -> io::Result<Dir> {
    let dir = Dir::open(root, Path::new(DIR))?;
    is_ours(&fs::metadata(dir.path())?).map_err(io::Error::other)?;
    Ok(dir)
}

/// As [`open`]; it is made where it is missing, for us alone to look into.
fn make(root: &Path) -> io::Result<Dir> {
    let path = Path::new(DIR);
    if let (Some(above), Some(name)) = (path.parent(), path.file_name()) {
        let above = Dir::make(root, above)?;
        match DirBuilder::new().mode(0o700).create(above.path().join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    open(root)
}

fn is_ours(metadata: &Metadata) -> Result<(), String> {
    let owner = metadata.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(format!("it belongs to user {owner}"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err("others than its owner can write to it".to_owned());
    }
    Ok(())
}

fn read(path: &Path) -> Result<Report, String> {
    let text = String::from_utf8(bytes(path, MAX_BYTES)?).map_err(|_| "it is no text in UTF-8".to_owned())?;
    proof::parse(&text).map_err(|error| error.to_string())
}

/// What is in a plain file of ours; one byte more than `most` at most, by which it is seen that it is too long.
fn bytes(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("it can't be read: {error}");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err("it is no plain file".to_owned());
    }
    is_ours(&metadata)?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

fn unfinished(dir: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = unfinished(dir)?;
    file.write_all(bytes)?;
    file.persist(dir.join(name))?;
    Ok(())
}
