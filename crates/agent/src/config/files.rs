//! A configuration file, or a directory of them, looked at again and again.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Found, Source, Text, unreadable};
use crate::snapshot::Problem;

/// Most that is read of one file. etcd takes no larger object.
const LIMIT: u64 = 3 << 20;

/// What tells one state of a file from another, whatever was done to it.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Mark {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What was seen at the last look: each file, links followed, or why it can't be.
type Marks = Result<BTreeMap<PathBuf, Result<Mark, io::ErrorKind>>, io::ErrorKind>;

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Files {
    marks: Option<Marks>,
}

impl Files {
    /// What is at the path, where that changed since the last look.
    pub(super) fn look(&mut self, path: &Path) -> Option<Result<Found, Problem>> {
        let marks = marks(path);
        if self.marks.as_ref().is_some_and(|seen| *seen == marks) {
            return None;
        }
        let read = read(path);
        // What changed while it was read is seen at the next look.
        self.marks = Some(marks);
        Some(read.map_err(|error| {
            let text = format!("`{}` can't be read: {}", path.display(), words(&error));
            unreadable(text, &Source::Path(path.to_owned()))
        }))
    }
}

fn marks(path: &Path) -> Marks {
    let metadata = std::fs::metadata(path).map_err(|error| error.kind())?;
    let files = if metadata.is_dir() {
        names(path)
            .map_err(|error| error.kind())?
            .into_iter()
            .map(|name| path.join(name))
            .collect()
    } else {
        vec![path.to_owned()]
    };
    let mark = |file: PathBuf| {
        let mark = std::fs::metadata(&file).map(|metadata| Mark::of(&metadata));
        (file, mark.map_err(|error| error.kind()))
    };
    Ok(files.into_iter().map(mark).collect())
}

/// Names of the configurations in a directory. A mounted `ConfigMap` has others, which begin with dots.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        // No label can name a file that isn't UTF-8.
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn read(path: &Path) -> io::Result<Found> {
    if !std::fs::metadata(path)?.is_dir() {
        return text(path).map(|text| Found::One(Ok(text)));
    }
    let mut texts = BTreeMap::<String, Text>::new();
    for name in names(path)? {
        let file = path.join(&name);
        match text(&file) {
            Ok(text) => {
                texts.insert(name, Ok(text));
            }
            // A directory in it is none, and what has just gone is none any more.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::IsADirectory | io::ErrorKind::NotFound
                ) => {}
            Err(error) => {
                texts.insert(name, Err(words(&error)));
            }
        }
    }
    Ok(Found::Several(texts))
}

fn text(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // A pipe would never end.
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    let read = std::fs::File::open(path)?
        .take(LIMIT + 1)
        .read_to_string(&mut text)?;
    if read as u64 > LIMIT {
        return Err(io::Error::other("it is larger than 3 MiB"));
    }
    Ok(text)
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it isn't there".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidData => "it is no text in UTF-8".to_owned(),
        _ => error.to_string(),
    }
}
