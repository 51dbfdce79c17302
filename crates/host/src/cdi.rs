//! CDI specifications that are on the node, whoever wrote them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;
use serde_json::Value;

use crate::driver::is_version;
use crate::facts::{CdiFile, CdiSummary};
use crate::read;

/// Where containerd and others look, the later with more priority.
const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Paths of one specification that are looked for; those of a node with eight GPUs name some two hundred.
const MOST_PATHS: usize = 4000;

pub(crate) fn gather(fs: &dyn HostFs, configured: Option<&[String]>) -> Vec<CdiFile> {
    let dirs: Vec<&str> = match configured {
        Some(dirs) => dirs.iter().map(String::as_str).collect(),
        None => DIRS.to_vec(),
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for dir in dirs
        .iter()
        .map(Path::new)
        .filter(|dir| seen.insert(read::canonical(fs, dir)))
    {
        let names = match read::names(fs, dir) {
            Reading::Value(names) => names,
            Reading::NotSupported => continue,
            Reading::Failed(why) => {
                found.push(CdiFile {
                    path: dir.to_owned(),
                    spec: Reading::Failed(why),
                });
                continue;
            }
        };
        for name in names {
            let ending = Path::new(&name).extension();
            if ending.is_some_and(|ending| ending == "json" || ending == "yaml") {
                let path = dir.join(&name);
                let spec = spec(fs, &path);
                found.push(CdiFile { path, spec });
            }
        }
    }
    found
}

fn spec(fs: &dyn HostFs, path: &Path) -> Reading<CdiSummary> {
    match read::text(fs, path) {
        Reading::Value(text) => match parse(&text) {
            Ok(spec) => {
                let missing = |path: &&PathBuf| is_missing(fs, path);
                let missing_paths = spec
                    .paths
                    .iter()
                    .take(MOST_PATHS)
                    .filter(missing)
                    .cloned()
                    .collect();
                Reading::Value(CdiSummary {
                    missing_paths,
                    ..spec.summary
                })
            }
            Err(why) => Reading::Failed(format!("`{}` is no CDI specification: {why}", path.display())),
        },
        // It was listed just now.
        Reading::NotSupported => {
            Reading::Failed(format!("`{}` has gone, or is a link to nothing", path.display()))
        }
        Reading::Failed(why) => Reading::Failed(why),
    }
}

/// True where nothing is at the path, or a link there leads to nothing; what may not be looked at may be there.
fn is_missing(fs: &dyn HostFs, path: &Path) -> bool {
    read::followed(fs, path).is_none() && !fs.kind(path).is_err_and(|error| !read::is_absent(&error))
}

/// What a specification says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its summary; `missing_paths` is empty, since it takes a host to know them.
    pub summary: CdiSummary,
    /// Paths of the host that it names.
    pub paths: BTreeSet<PathBuf>,
}

/// Reads a specification, JSON or YAML.
///
/// # Errors
/// Where it is neither, or lacks `cdiVersion`, `kind` or the names of its devices.
pub fn parse(text: &str) -> Result<Spec, String> {
    let document: Value = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        read::yaml(text)?
    };
    let required = |name: &str| {
        let value = document.get(name).and_then(Value::as_str);
        value
            .map(str::to_owned)
            .ok_or_else(|| format!("it has no `{name}`"))
    };
    let (version, kind) = (required("cdiVersion")?, required("kind")?);
    let mut devices = Vec::new();
    let mut paths = BTreeSet::new();
    add_paths(&document, &mut paths);
    for device in array(&document, "devices") {
        let name = device.get("name").and_then(Value::as_str);
        devices.push(name.ok_or("a device has no name")?.to_owned());
        add_paths(device, &mut paths);
    }
    let driver_version = driver_version(&paths);
    Ok(Spec {
        summary: CdiSummary {
            version,
            kind,
            devices,
            missing_paths: Vec::new(),
            driver_version,
        },
        paths,
    })
}

fn array<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Paths of the host that `containerEdits` name: device nodes, mounts and hooks.
fn add_paths(value: &Value, paths: &mut BTreeSet<PathBuf>) {
    let Some(edits) = value.get("containerEdits") else {
        return;
    };
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(PathBuf::from);
    paths.extend(
        array(edits, "deviceNodes").filter_map(|node| text(node, "hostPath").or_else(|| text(node, "path"))),
    );
    paths.extend(array(edits, "mounts").filter_map(|mount| text(mount, "hostPath")));
    paths.extend(array(edits, "hooks").filter_map(|hook| text(hook, "path")));
}

/// The version in the name of the mounted `libcuda`, or of any library of the driver.
fn driver_version(paths: &BTreeSet<PathBuf>) -> Option<String> {
    let mut any = None;
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some((library, version)) = name.and_then(|name| name.split_once(".so.")) else {
            continue;
        };
        // Libraries of others have versions too, with a single number in front: `libnvidia-egl-gbm.so.1.1.2`.
        let branch = version
            .split('.')
            .next()
            .and_then(|part| part.parse::<u32>().ok());
        if is_version(version) && branch.is_some_and(|branch| branch >= 300) {
            if library == "libcuda" {
                return Some(version.to_owned());
            }
            any.get_or_insert_with(|| version.to_owned());
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = r#"
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /host/dev/nvidia0
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, update-ldcache]
  mounts:
  - hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2
    containerPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2
  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04
    containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04
"#;

    #[test]
    fn devices_paths_and_the_drivers_version_are_read() {
        let spec = parse(YAML).unwrap();
        assert_eq!(spec.summary.kind, "nvidia.com/gpu");
        assert_eq!(spec.summary.devices, ["0", "all"]);
        assert_eq!(spec.summary.driver_version.as_deref(), Some("580.159.04"));
        let paths: Vec<_> = spec.paths.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            paths,
            [
                "/dev/nvidia0",
                "/dev/nvidiactl",
                "/host/dev/nvidia0",
                "/usr/bin/nvidia-cdi-hook",
                "/usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04",
                "/usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2",
            ]
        );
    }

    #[test]
    fn json_is_read_and_other_texts_are_refused() {
        assert!(parse(r#"{"cdiVersion":"0.5.0","kind":"a/b","devices":[{"name":"x"}]}"#).is_ok());
        let refused =
            ["", "{", "kind: a/b", "{\"cdiVersion\":\"1\"}", "- a"].map(|text| parse(text).is_err());
        assert_eq!(refused, [true; 5]);
    }

    #[test]
    fn a_mount_of_a_whole_root_does_not_hide_the_drivers_version() {
        let text = YAML.replace(
            "  mounts:\n",
            "  mounts:\n  - hostPath: /\n    containerPath: /host\n",
        );
        let version = parse(&text).unwrap().summary.driver_version;
        assert_eq!(version.as_deref(), Some("580.159.04"));
    }
}
