//! The directories that a container runtime looks into, read as it reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs};

use crate::spec::Problem;
use crate::text::{self, Encoding, TextError};
use crate::{QualifiedName, Spec};

/// Where container runtimes look if they aren't told otherwise; what lies in the later counts more.
pub const DEFAULT: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What the directories hold.
#[derive(Debug)]
pub struct Directories {
    /// All files that a runtime would read, in its order.
    pub files: Vec<File>,
    /// Directories that can't be read, and why. A runtime skips them (CDI's library 1.1.0), or looks into none behind
    /// the first of them (1.1.1).
    pub unread: Vec<(PathBuf, io::Error)>,
}

/// A file in them.
#[derive(Debug)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Position of its directory: a greater one counts more.
    pub priority: usize,
    /// The specification, or why a runtime ignores the file.
    pub spec: Result<Spec, Refusal>,
}

/// Why a runtime ignores a file.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(io::Error),
    /// It holds bytes that are no text.
    #[error("it is no text in UTF-8")]
    NoText,
    /// Its text is no specification.
    #[error("{0}")]
    Text(#[from] TextError),
    /// The specification breaks rules, each with the line that it is broken in.
    #[error("{}", listed(.0))]
    Invalid(Vec<(Option<u64>, Problem)>),
}

fn listed(problems: &[(Option<u64>, Problem)]) -> String {
    let one = |(line, problem): &(Option<u64>, Problem)| match line {
        Some(line) => format!("line {line}: {problem}"),
        None => problem.to_string(),
    };
    problems.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// A name that more than one file gives a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The name.
    pub device: QualifiedName,
    /// Files of one directory that all have it.
    pub files: BTreeSet<PathBuf>,
}

/// Devices as a runtime finds them.
#[derive(Debug)]
pub struct Devices<'a> {
    /// By name: the file that counts.
    pub found: BTreeMap<QualifiedName, &'a File>,
    /// Names that no container can get, since files of one directory quarrel over them.
    pub conflicts: Vec<Conflict>,
}

impl Directories {
    /// Reads them, the last with the most priority.
    pub fn read<P: AsRef<Path>>(fs: &dyn HostFs, dirs: &[P]) -> Self {
        let mut read = Self {
            files: Vec::new(),
            unread: Vec::new(),
        };
        for (priority, dir) in dirs.iter().enumerate() {
            let dir = dir.as_ref();
            match fs.list(dir) {
                Ok(mut names) => {
                    names.sort_unstable();
                    for path in names.iter().map(|name| dir.join(name)) {
                        // A link to a directory is read, and fails, as in the runtime.
                        let is_directory = matches!(fs.kind(&path), Ok(FileKind::Directory));
                        if Encoding::of(&path).is_some() && !is_directory {
                            let spec = read_file(fs, &path);
                            read.files.push(File { path, priority, spec });
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => read.unread.push((dir.to_owned(), error)),
            }
        }
        read
    }

    /// Which file each device comes from.
    ///
    /// A file in a later directory counts more. Two in one directory that have a device in common take it from one
    /// another: nobody can have it, not even from a third one with more priority (CDI's library 1.1 does so).
    pub fn devices(&self) -> Devices<'_> {
        let mut found: BTreeMap<QualifiedName, &File> = BTreeMap::new();
        let mut conflicts: BTreeMap<QualifiedName, BTreeSet<PathBuf>> = BTreeMap::new();
        for file in &self.files {
            let Ok(spec) = &file.spec else { continue };
            // A specification that was taken has a kind.
            let Ok(kind) = spec.kind.parse::<crate::Kind>() else {
                continue;
            };
            for device in &spec.devices {
                let device = QualifiedName {
                    kind: kind.clone(),
                    name: device.name.clone(),
                };
                match found.get(&device) {
                    Some(other) if other.priority == file.priority => {
                        let files = [other.path.clone(), file.path.clone()];
                        conflicts.entry(device).or_default().extend(files);
                    }
                    _ => {
                        found.insert(device, file);
                    }
                }
            }
        }
        found.retain(|device, _| !conflicts.contains_key(device));
        let conflicts = conflicts.into_iter();
        Devices {
            found,
            conflicts: conflicts
                .map(|(device, files)| Conflict { device, files })
                .collect(),
        }
    }
}

/// Reads one file, whatever it is called.
///
/// # Errors
/// Where a container runtime would ignore it.
pub fn read_file(fs: &dyn HostFs, path: &Path) -> Result<Spec, Refusal> {
    let bytes = fs.read(path).map_err(Refusal::Read)?;
    parse(&bytes)
}

/// Reads the bytes of one file.
///
/// # Errors
/// Where a container runtime would ignore it.
pub fn parse(bytes: &[u8]) -> Result<Spec, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::NoText)?;
    let spec = text::parse(text)?;
    let problems = spec.problems();
    if problems.is_empty() {
        return Ok(spec);
    }
    let with_line = |problem: Problem| (text::line(text, &problem.path), problem);
    Err(Refusal::Invalid(problems.into_iter().map(with_line).collect()))
}
