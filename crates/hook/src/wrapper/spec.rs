//! CDI specifications, as far as the wrapper applies them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::Name;
use crate::state::read_file;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What is changed in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edits {
    /// `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(default)]
    pub device_nodes: Vec<DeviceNode>,
    /// Mounts.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// OCI hooks.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// Groups that the container's first process is in too.
    #[serde(default, rename = "additionalGids")]
    pub additional_gids: Vec<u32>,
    /// What this wrapper does not apply, so refuses.
    #[serde(default)]
    pub intel_rdt: Option<Value>,
    /// Likewise.
    #[serde(default)]
    pub net_devices: Vec<Value>,
}

/// A device node; what it does not say is the host's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNode {
    /// In the container.
    pub path: String,
    /// On the host, where that differs.
    pub host_path: Option<String>,
    /// `c`, `b`, `u` or `p`.
    pub r#type: Option<String>,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// What the cgroup allows: `rwm` or fewer.
    pub permissions: Option<String>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A mount.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// On the host.
    pub host_path: String,
    /// In the container.
    pub container_path: String,
    /// File system type.
    pub r#type: Option<String>,
    /// Options.
    #[serde(default)]
    pub options: Vec<String>,
}

/// An OCI hook.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// When it runs: `hookName`.
    #[serde(rename = "hookName")]
    pub point: String,
    /// The program.
    pub path: String,
    /// Its arguments, its name first.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<i64>,
}

/// Why a device can't be given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// No file has it.
    #[error("no CDI specification in {dirs} has the device {name}{}", unreadable(.unread))]
    Unknown {
        /// The device.
        name: String,
        /// Where was looked.
        dirs: String,
        /// Files that could not be read, with the reason.
        unread: Vec<String>,
    },
    /// Two files of one directory have it, so that it is neither's.
    #[error("{name} is defined twice, by {} and {}; remove one", first.display(), second.display())]
    Twice {
        /// The device.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

fn unreadable(unread: &[String]) -> String {
    if unread.is_empty() {
        String::new()
    } else {
        format!("; could not read {}", unread.join("; "))
    }
}

/// All specifications of the node.
#[derive(Debug, Default)]
pub struct Specs {
    dirs: Vec<PathBuf>,
    /// With the number of the directory: a higher one wins.
    files: Vec<(usize, PathBuf, Spec)>,
    unread: Vec<String>,
}

impl Specs {
    /// Reads all files of these directories. One that can't be read counts only where a device is then missing.
    pub fn load(dirs: &[PathBuf]) -> Self {
        let mut specs = Self {
            dirs: dirs.to_vec(),
            ..Self::default()
        };
        for (priority, dir) in dirs.iter().enumerate() {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let read = read_file(&path).map_err(|error| error.to_string());
                match is_spec(&path).then(|| read.and_then(|text| parse(&path, &text))) {
                    Some(Ok(spec)) => specs.files.push((priority, path, spec)),
                    Some(Err(reason)) => specs.unread.push(format!("{}: {reason}", path.display())),
                    None => {}
                }
            }
        }
        specs
    }

    /// The edits for these devices in the order in which they apply: those of a file before those of its devices.
    pub fn resolve(&self, names: &[Name]) -> Result<Vec<&Edits>, SpecError> {
        let mut edits = Vec::new();
        let mut used = BTreeSet::new();
        for name in names {
            let (index, device) = self.find(name)?;
            if used.insert(index) {
                edits.extend(self.files.get(index).map(|(_, _, spec)| &spec.container_edits));
            }
            edits.push(&device.container_edits);
        }
        Ok(edits)
    }

    fn find(&self, name: &Name) -> Result<(usize, &Device), SpecError> {
        let mut best: Option<(usize, &Device)> = None;
        let mut twice = None;
        for (index, (priority, path, spec)) in self.files.iter().enumerate() {
            let Some(device) = spec
                .devices
                .iter()
                .find(|device| spec.kind == name.kind && device.name == name.device)
            else {
                continue;
            };
            match best.and_then(|(best, _)| self.files.get(best)) {
                Some((other, first, _)) if other == priority => {
                    let (first, second) = (first.clone(), path.clone());
                    twice = Some(SpecError::Twice {
                        name: name.to_string(),
                        first,
                        second,
                    });
                }
                Some((other, _, _)) if other > priority => {}
                _ => {
                    best = Some((index, device));
                    twice = None;
                }
            }
        }
        if let Some(twice) = twice {
            return Err(twice);
        }
        best.ok_or_else(|| {
            let dirs: Vec<String> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
            SpecError::Unknown {
                name: name.to_string(),
                dirs: dirs.join(" and "),
                unread: self.unread.clone(),
            }
        })
    }
}

fn is_spec(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "json" || extension == "yaml")
}

fn parse(path: &Path, text: &[u8]) -> Result<Spec, String> {
    // By way of a tree without types: the YAML parser is compiled once, not for each type, and the binary stays small.
    let tree: Value = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_slice(text).map_err(|error| error.to_string())?
    } else {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        let tree = serde_saphyr::from_str(text);
        tree.map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?
    };
    Spec::deserialize(without_nulls(tree)).map_err(|error| error.to_string())
}

/// A field that is null is as good as absent, for every reader of CDI.
fn without_nulls(tree: Value) -> Value {
    match tree {
        Value::Object(fields) => {
            let said = fields.into_iter().filter(|(_, value)| !value.is_null());
            said.map(|(key, value)| (key, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn spec(kind: &str, devices: &[&str]) -> String {
        let devices: Vec<Value> = devices
            .iter()
            .map(|device| serde_json::json!({"name": device, "containerEdits": {"env": [format!("D={device}")]}}))
            .collect();
        let all = serde_json::json!({"env": [format!("K={kind}")]});
        serde_json::json!({"cdiVersion": "0.5.0", "kind": kind, "devices": devices, "containerEdits": all})
            .to_string()
    }

    #[test]
    fn a_later_directory_wins_and_two_files_of_one_do_not() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(etc.path().join("a.json"), spec("a.com/x", &["0", "1"])).unwrap();
        std::fs::write(run.path().join("a.yaml"), spec("a.com/x", &["0"])).unwrap();
        std::fs::write(run.path().join("broken.json"), "{").unwrap();
        let nulls = "kind: a.com/y\ndevices:\n- name: \"0\"\n  containerEdits: {env: [Y=1], mounts: null}\ncontainerEdits: null\n";
        std::fs::write(run.path().join("nulls.yaml"), nulls).unwrap();
        std::fs::write(run.path().join("other.txt"), "{").unwrap();
        let dirs = [etc.path().to_owned(), run.path().to_owned()];
        let specs = Specs::load(&dirs);
        assert_eq!(specs.find(&name("a.com/x=0")).unwrap().0, 1);
        assert_eq!(specs.resolve(&[name("a.com/y=0")]).unwrap()[1].env, ["Y=1"]);
        let env: Vec<&str> = specs
            .resolve(&[name("a.com/x=1"), name("a.com/x=0"), name("a.com/x=1")])
            .unwrap()
            .iter()
            .flat_map(|edits| edits.env.iter().map(String::as_str))
            .collect();
        assert_eq!(env, ["K=a.com/x", "D=1", "K=a.com/x", "D=0", "D=1"]);
        let unknown = specs.resolve(&[name("a.com/x=2")]).unwrap_err().to_string();
        assert!(
            unknown.contains("has the device a.com/x=2; could not read") && unknown.contains("broken.json"),
            "{unknown}"
        );
        std::fs::write(run.path().join("b.json"), spec("a.com/x", &["0"])).unwrap();
        assert!(matches!(
            Specs::load(&dirs).resolve(&[name("a.com/x=0")]),
            Err(SpecError::Twice { .. })
        ));
    }
}
