//! CDI specifications that are there, and what is wrong with them.

use std::fmt::Write as _;
use std::path::Path;

use pitcrew_cdi::Spec;
use pitcrew_cdi::directories::{Directories, Refusal};
use pitcrew_cdi::text::Encoding;
use serde::Serialize;

use super::table::{Column, render};

/// The devices that a container can ask for.
#[derive(Debug, Serialize)]
pub(crate) struct List {
    schema: &'static str,
    devices: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<Conflict>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignored: Vec<Ignored>,
}

#[derive(Debug, Serialize)]
struct Entry {
    device: String,
    kind: String,
    name: String,
    file: String,
}

#[derive(Debug, Serialize)]
struct Conflict {
    device: String,
    files: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Ignored {
    path: String,
    reason: String,
}

impl List {
    pub(crate) fn new(read: &Directories) -> Self {
        let found = read.devices();
        let devices = found.found.iter().map(|(device, file)| Entry {
            device: device.to_string(),
            kind: device.kind.to_string(),
            name: device.name.clone(),
            file: shown(&file.path),
        });
        let conflicts = found.conflicts.iter().map(|conflict| Conflict {
            device: conflict.device.to_string(),
            files: conflict.files.iter().map(|path| shown(path)).collect(),
        });
        let unread = read.unread.iter().map(|(dir, error)| Ignored {
            path: shown(dir),
            reason: format!(
                "it can't be read, and some container runtimes look into no later directory: {error}"
            ),
        });
        let refused = read.files.iter().filter_map(|file| {
            let refusal = file.spec.as_ref().err()?;
            Some(Ignored {
                path: shown(&file.path),
                reason: refusal.to_string(),
            })
        });
        Self {
            schema: "pitcrew.dev/cdi-devices/v1alpha1",
            devices: devices.collect(),
            conflicts: conflicts.collect(),
            ignored: unread.chain(refused).collect(),
        }
    }

    /// True where nothing was found at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty() && !self.has_findings()
    }

    /// True where something keeps devices from containers.
    pub(crate) fn has_findings(&self) -> bool {
        !self.conflicts.is_empty() || !self.ignored.is_empty()
    }

    pub(crate) fn text(&self, width: Option<usize>) -> String {
        let mut text = String::new();
        if !self.devices.is_empty() {
            let cells = |cell: &dyn Fn(&Entry) -> &String| {
                self.devices
                    .iter()
                    .map(|entry| cell(entry).clone())
                    .collect::<Vec<_>>()
            };
            let columns = vec![
                Column::new("KIND", cells(&|entry| &entry.kind)),
                Column::new("DEVICE", cells(&|entry| &entry.name)),
                Column::new("FILE", cells(&|entry| &entry.file)).expendable(1),
            ];
            text = render(columns, width);
        }
        if !text.is_empty() && self.has_findings() {
            text.push('\n');
        }
        for Conflict { device, files } in &self.conflicts {
            let files: Vec<String> = files.iter().map(|file| format!("`{file}`")).collect();
            let _ = writeln!(
                text,
                "conflict: no container can get `{device}`, which is in {}",
                files.join(" and ")
            );
        }
        for Ignored { path, reason } in &self.ignored {
            let _ = writeln!(text, "ignored: `{path}`: {reason}");
        }
        text
    }
}

/// What container runtimes say of files.
#[derive(Debug, Serialize)]
pub(crate) struct Verdicts {
    schema: &'static str,
    files: Vec<Judged>,
}

/// What container runtimes say of a file.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    file: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    devices: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    what: String,
}

impl Judged {
    pub(crate) fn new(path: &Path, result: Result<Spec, Refusal>) -> Self {
        let mut problems = Vec::new();
        let whole = |line, what| Problem {
            line,
            path: None,
            what,
        };
        if Encoding::of(path).is_none() {
            let what = "no container runtime reads a file whose name ends in neither `.json` nor `.yaml`";
            problems.push(whole(None, what.to_owned()));
        }
        let spec = match result {
            Ok(spec) => Some(spec),
            Err(Refusal::Invalid(found)) => {
                problems.extend(found.into_iter().map(|(line, problem)| Problem {
                    line,
                    path: Some(problem.path),
                    what: problem.what,
                }));
                None
            }
            Err(Refusal::Text(error)) => {
                problems.push(whole(Some(error.line), error.what));
                None
            }
            Err(other @ (Refusal::Read(_) | Refusal::NoText)) => {
                problems.push(whole(None, other.to_string()));
                None
            }
        };
        let devices = spec.iter().flat_map(|spec| &spec.devices);
        Self {
            file: shown(path),
            valid: problems.is_empty(),
            devices: devices.map(|device| device.name.clone()).collect(),
            needs: spec.as_ref().map(|spec| spec.needs().to_string()),
            kind: spec.as_ref().map(|spec| spec.kind.clone()),
            version: spec.map(|spec| spec.version),
            problems,
        }
    }

    fn line(&self) -> String {
        let unknown = String::new();
        let (kind, version) = (self.kind.as_ref(), self.version.as_ref());
        let (kind, version) = (kind.unwrap_or(&unknown), version.unwrap_or(&unknown));
        let count = match self.devices.len() {
            1 => "1 device".to_owned(),
            count => format!("{count} devices"),
        };
        let mut line = format!("{}: valid: {count} of `{kind}`, version {version}", self.file);
        if let Some(needs) = self.needs.as_ref().filter(|needs| *needs != version) {
            let _ = write!(
                line,
                ", though {needs} would do and older runtimes refuse {version}"
            );
        }
        line
    }
}

impl Verdicts {
    pub(crate) fn new(files: Vec<Judged>) -> Self {
        Self {
            schema: "pitcrew.dev/cdi-validation/v1alpha1",
            files,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(crate) fn all_valid(&self) -> bool {
        self.files.iter().all(|file| file.valid)
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            if file.valid {
                let _ = writeln!(text, "{}", file.line());
            }
            for Problem { line, path, what } in &file.problems {
                let line = line.map_or_else(String::new, |line| format!(":{line}"));
                let path = path.as_ref().map_or_else(String::new, |path| format!("{path}: "));
                let _ = writeln!(text, "{}{line}: {path}{what}", file.file);
            }
        }
        text
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
