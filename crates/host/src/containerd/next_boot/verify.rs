//! The node's own containerd has the last word.

use std::io;
use std::path::{Component, Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::{FileKind, HostFs};

use super::problem::{self, Problem, ProblemKind, Severity};
use super::{NextBoot, difference};
use crate::containerd::{Generation, parse};
use crate::facts::{ContainerdConfig, Host};

/// A file that containerd is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpFile {
    /// Its name, in whichever directory.
    pub name: String,
    /// Its text. Each import in it is the name of one of the other files.
    pub text: String,
}

/// What `containerd config dump` wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// True where it ended with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Has a containerd read configurations.
pub trait ContainerdDump {
    /// Puts the files into one directory of its own, and runs `BINARY --config FIRST config dump` there.
    ///
    /// An error of kind `Unsupported` says why nobody could be asked. `imports` of the files are relative to that directory. `binary` is as on the host, without links in it.
    fn dump(&self, binary: &Path, files: &[DumpFile]) -> io::Result<Dumped>;
}

/// Whether containerd itself was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// It takes the configuration.
    Takes(PathBuf),
    /// It refuses it, with its own words.
    Refuses {
        /// The binary.
        binary: PathBuf,
        /// What it said.
        said: String,
    },
    /// It wasn't, and why.
    No(String),
}

/// Has the node's own containerd read what was planned, and corrects the plan by what it says.
pub fn verify(plan: &mut NextBoot, host: &Host, fs: &dyn HostFs, dump: &dyn ContainerdDump) {
    plan.verified = match binary(host, fs) {
        Err(reason) => Verified::No(reason),
        Ok(binary) => match files(plan, fs) {
            Err(reason) => Verified::No(reason),
            Ok(files) => match dump.dump(&binary, &files) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => Verified::No(error.to_string()),
                Err(error) => Verified::No(format!("`{}` can't be run: {error}", binary.display())),
                Ok(dumped) => judge(plan, fs, binary, &dumped),
            },
        },
    };
    if let Verified::No(reason) = &plan.verified
        && plan.rendered.is_some()
        && plan.next.is_some()
    {
        let reason = reason.clone();
        plan.add(Problem::new(
            ProblemKind::Unknown,
            Severity::CantTell,
            format!("not verified by the node's own containerd: {reason}"),
        ));
    }
}

fn binary(host: &Host, fs: &dyn HostFs) -> Result<PathBuf, String> {
    match &host.containerd {
        Reading::Value(containerd) => match &containerd.binary {
            Reading::Value(path) => {
                resolve(fs, path).ok_or_else(|| format!("`{}` is not there", path.display()))
            }
            Reading::NotSupported => Err("containerd's binary was not found".to_owned()),
            Reading::Failed(reason) => Err(format!("containerd's binary was not found: {reason}")),
        },
        Reading::NotSupported => Err("there is no containerd".to_owned()),
        Reading::Failed(reason) => Err(reason.clone()),
    }
}

/// A path with every link of it followed on the host: RKE2's directory of binaries is an absolute link.
fn resolve(fs: &dyn HostFs, path: &Path) -> Option<PathBuf> {
    let mut pending: Vec<PathBuf> = vec![path.to_path_buf()];
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(next) = pending.pop() {
        let mut components = next.components();
        let Some(first) = components.next() else { continue };
        let rest = components.as_path();
        if !rest.as_os_str().is_empty() {
            pending.push(rest.to_path_buf());
        }
        match first {
            Component::RootDir => at = PathBuf::from("/"),
            Component::ParentDir => {
                at.pop();
            }
            Component::CurDir | Component::Prefix(_) => {}
            Component::Normal(name) => {
                let here = at.join(name);
                match fs.kind(&here).ok()? {
                    FileKind::Link(target) if links < MAX_LINKS => {
                        links += 1;
                        pending.push(target);
                    }
                    FileKind::Link(_) => return None,
                    _ => at = here,
                }
            }
        }
    }
    Some(at)
}

/// Links on the way to one file, at most: as the kernel has it.
const MAX_LINKS: usize = 40;

/// The main file and everything that it imports, with imports by the names of the copies.
fn files(plan: &NextBoot, fs: &dyn HostFs) -> Result<Vec<DumpFile>, String> {
    let Some(rendered) = &plan.rendered else {
        return Err("it can't be told what will be written".to_owned());
    };
    let mut texts = vec![rendered.clone()];
    for drop_in in &plan.drop_ins {
        texts.push(text(fs, &drop_in.path)?);
    }
    Ok(copies(&texts))
}

fn text(fs: &dyn HostFs, path: &Path) -> Result<String, String> {
    let bytes = fs
        .read(path)
        .map_err(|error| format!("`{}` can't be read: {error}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8", path.display()))
}

/// Files that a containerd can be given for these texts: the main file's first, then those of all that is imported, in the
/// order in which they are merged.
pub fn copies(texts: &[String]) -> Vec<DumpFile> {
    let copy = |(index, text): (usize, &String)| {
        // All imports are the main file's: their order is that in which containerd would read them.
        let imports = if index == 0 {
            (1..texts.len()).map(name).collect()
        } else {
            Vec::new()
        };
        DumpFile {
            name: name(index),
            text: with_imports(text, &imports),
        }
    };
    texts.iter().enumerate().map(copy).collect()
}

fn name(index: usize) -> String {
    format!("{index:03}.toml")
}

/// A text with other imports. One that can't be parsed stays as it is: containerd shall say what is wrong with it.
fn with_imports(text: &str, imports: &[String]) -> String {
    let Ok(mut document) = text.parse::<toml_edit::DocumentMut>() else {
        return text.to_owned();
    };
    if imports.is_empty() && !document.contains_key("imports") {
        return text.to_owned();
    }
    if imports.is_empty() {
        document.remove("imports");
    } else {
        let list: toml_edit::Array = imports.iter().collect();
        document["imports"] = toml_edit::value(list);
    }
    document.to_string()
}

fn judge(plan: &mut NextBoot, fs: &dyn HostFs, binary: PathBuf, dumped: &Dumped) -> Verified {
    if !dumped.success {
        let said = refusal(&dumped.stderr);
        let expected = plan
            .problems
            .iter()
            .any(|problem| matches!(problem.kind, ProblemKind::TableTwice | ProblemKind::ConfigRefused));
        if !expected {
            plan.next = None;
            plan.add(Problem::new(
                ProblemKind::ConfigRefused,
                Severity::Breaks,
                format!("containerd does not start on it: {said}"),
            ));
        }
        return Verified::Refuses { binary, said };
    }
    let dump = match parse(&dumped.stdout) {
        Ok(dump) => dump,
        Err(error) => return Verified::No(format!("what containerd printed can't be read: {error}")),
    };
    let twice = |problem: &Problem| problem.kind == ProblemKind::TableTwice;
    if plan.next.is_none() && plan.problems.iter().any(twice) {
        // containerd 1 takes a table that is there twice in two spellings, as long as no key is.
        plan.problems.retain(|problem| !twice(problem));
        plan.next = Some(ContainerdConfig {
            version: plan.generation.map_or(dump.version, Generation::config_version),
            default_handler: dump.default_handler.clone().filter(|name| name != "runc"),
            ..dump.clone()
        });
    }
    let Some(next) = &mut plan.next else {
        // It prints a configuration whose import is missing, and does not start on it: what we found stands.
        return Verified::Takes(binary);
    };
    // Its answer has every default filled in: of what was written, only what concerns handlers is compared.
    let comparable = |handlers: &[(String, String)]| -> Vec<(String, String)> {
        let mut found: Vec<_> = handlers
            .iter()
            .filter(|(name, _)| name != "runc")
            .cloned()
            .collect();
        found.sort();
        found
    };
    let (ours, theirs) = (comparable(&next.handlers), comparable(&dump.handlers));
    if ours != theirs {
        let list = |handlers: &[(String, String)]| {
            let names: Vec<&str> = handlers.iter().map(|(name, _)| name.as_str()).collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let what = format!(
            "containerd finds other handlers than were read here: {} instead of {}",
            list(&theirs),
            list(&ours)
        );
        next.handlers.clone_from(&dump.handlers);
        let severity = if ours.iter().all(|handler| theirs.contains(handler)) {
            Severity::Notice
        } else {
            Severity::Loses
        };
        plan.add(Problem::new(ProblemKind::DumpDiffers, severity, what));
    }
    for problem in problem::of_handlers(&dump, fs) {
        plan.add(problem);
    }
    if let (Some(now), Some(next)) = (plan.now.value(), &plan.next) {
        plan.differences = difference::between(now, next);
    }
    Verified::Takes(binary)
}

/// The line in which containerd says why it ends: the last one, without its own name.
fn refusal(stderr: &str) -> String {
    let line = stderr
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it ended with an error and said nothing");
    let line = line.trim();
    let line = line.strip_prefix("containerd: ").unwrap_or(line);
    line.chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_those_of_the_copies() {
        let text = "# first\nversion = 3\nimports = [\"/x/*.toml\"]\n[plugins.a]\nb = 1\n";
        let changed = with_imports(text, &["001.toml".to_owned()]);
        assert_eq!(
            changed,
            "# first\nversion = 3\nimports = [\"001.toml\"]\n[plugins.a]\nb = 1\n"
        );
        assert!(!with_imports(text, &[]).contains("imports"));
        assert_eq!(with_imports("x = [", &["a".to_owned()]), "x = [");
    }

    #[test]
    fn the_last_line_says_why() {
        let stderr = "time=x level=warning msg=y\ncontainerd: failed to unmarshal TOML: toml: table runc already exists\n\n";
        assert_eq!(
            refusal(stderr),
            "failed to unmarshal TOML: toml: table runc already exists"
        );
        assert!(refusal("").contains("said nothing"));
    }
}
