//! The container runtime: where it is, which version, how it is configured, and what its supervisor will find.

use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::{FileKind, HostFs};
use semver::{BuildMetadata, Prerelease, Version};

use crate::containerd::{self, Generation};
use crate::distribution::{self, Found, Settings};
use crate::facts::{Containerd, ContainerdConfig, Distribution, DistributionKind, DropIn, Template};
use crate::{packages, read, releases, systemd};

/// Socket of the containerd of RKE2 and of K3s.
const RANCHER_SOCKET: &str = "/run/k3s/containerd/containerd.sock";
/// How much of the end of containerd's log is searched for its last start, in bytes.
const LOG_TAIL: u64 = 64 << 20;

/// Directories that RKE2 and K3s look into for container runtimes before any other.
const RUNTIME_DIRS: [&str; 2] = ["/usr/local/nvidia/toolkit", "/opt/kwasm/bin"];
/// `PATH` of a service of systemd that sets none.
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// Handlers that RKE2 and K3s make of binaries that they find (`pkg/agent/containerd/runtimes.go` of K3s).
const RUNTIMES: [(&str, &str); 11] = [
    ("nvidia", "nvidia-container-runtime"),
    ("nvidia-experimental", "nvidia-container-runtime-experimental"),
    ("nvidia-cdi", "nvidia-container-runtime.cdi"),
    ("crun", "crun"),
    ("lunatic", "containerd-shim-lunatic-v1"),
    ("slight", "containerd-shim-slight-v1"),
    ("spin", "containerd-shim-spin-v2"),
    ("wws", "containerd-shim-wws-v1"),
    ("wasmedge", "containerd-shim-wasmedge-v1"),
    ("wasmer", "containerd-shim-wasmer-v1"),
    ("wasmtime", "containerd-shim-wasmtime-v1"),
];

pub(crate) fn gather(fs: &dyn HostFs, found: &Found) -> Reading<Containerd> {
    let distribution = &found.distribution;
    let settings = found.settings.value();
    let endpoint = endpoint(settings);
    let docker = settings.and_then(|settings| settings.last("docker")) == Some("true");
    // There is a container runtime, only none that is known here: that is no absence.
    let other = endpoint
        .as_deref()
        .filter(|socket| !socket.contains("containerd"));
    if let Some(other) = other.or(docker.then_some("docker")) {
        return Reading::Failed(format!(
            "the kubelet is told to use `{other}`, and only containerd is known here"
        ));
    }
    let external = endpoint.is_some();
    let rancher = rancher(distribution) && !external;
    let config_path = if rancher {
        distribution.data_dir.join("agent/etc/containerd/config.toml")
    } else {
        plain_config(fs)
    };
    let socket = PathBuf::from(endpoint.unwrap_or_else(|| {
        let usual = if rancher {
            RANCHER_SOCKET
        } else {
            distribution::PLAIN_SOCKET
        };
        usual.to_owned()
    }));
    let (version, version_source) = version(fs, distribution, rancher);
    let (config, generation, files) = config(fs, &config_path, &version);
    let dir = config_path.parent().unwrap_or(Path::new("/")).to_owned();
    Reading::Value(Containerd {
        is_running: matches!(read::followed(fs, &socket), Some((_, FileKind::Other))),
        binary: binary(fs, distribution, rancher),
        drop_ins: drop_ins(fs, &dir, rancher, &files),
        templates: if rancher {
            templates(fs, &dir, generation)
        } else {
            Vec::new()
        },
        detected_runtimes: if rancher {
            detected(fs, distribution, settings)
        } else {
            Vec::new()
        },
        version,
        version_source,
        socket,
        config_path,
        config,
    })
}

fn rancher(distribution: &Distribution) -> bool {
    matches!(distribution.kind, DistributionKind::Rke2 | DistributionKind::K3s)
}

/// The socket that the kubelet is told to use, where it is told.
fn endpoint(settings: Option<&Settings>) -> Option<String> {
    let settings = settings?;
    let given = settings
        .last("container-runtime-endpoint")
        .or_else(|| settings.argument("kubelet-arg", "container-runtime-endpoint"))?;
    let path = given.strip_prefix("unix://").unwrap_or(given);
    (!path.is_empty()).then(|| path.to_owned())
}

/// The configuration in the command of `containerd.service`, or the usual one.
fn plain_config(fs: &dyn HostFs) -> PathBuf {
    let unit = systemd::unit_text(fs, "containerd.service");
    let command = unit
        .value()
        .and_then(|text| systemd::values(text, "ExecStart").pop());
    let words = systemd::words(&command.unwrap_or_default());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "-c" | "--config")
            && let Some(path) = words.next()
        {
            return path.into();
        }
        if let Some(path) = word.strip_prefix("--config=") {
            return path.into();
        }
    }
    "/etc/containerd/config.toml".into()
}

fn binary(fs: &dyn HostFs, distribution: &Distribution, rancher: bool) -> Reading<PathBuf> {
    let data = &distribution.data_dir;
    let candidates: Vec<PathBuf> = match distribution.kind {
        DistributionKind::Rke2 if rancher => vec![data.join("bin/containerd")],
        DistributionKind::K3s if rancher => vec![data.join("data/current/bin/containerd")],
        _ => distribution::PLAIN_CONTAINERD.iter().map(PathBuf::from).collect(),
    };
    let found = candidates.into_iter().find(|path| read::exists(fs, path));
    found.map_or(Reading::NotSupported, Reading::Value)
}

/// The version, and where it was learned from.
fn version(fs: &dyn HostFs, distribution: &Distribution, rancher: bool) -> (Reading<Version>, &'static str) {
    let unknown = |why: String| (Reading::Failed(why), "nothing");
    if !rancher {
        return packages::version(fs, &["containerd.io", "containerd"]).map_or_else(
            || unknown("no file of this node tells it: ask `containerd --version`".to_owned()),
            |version| (Reading::Value(version), "its package"),
        );
    }
    let log = distribution.data_dir.join("agent/containerd/containerd.log");
    if let Ok(Some(version)) = read::last_line(fs, &log, LOG_TAIL, parse_start) {
        return (Reading::Value(version), "its log");
    }
    let Reading::Value(release) = &distribution.version else {
        return unknown(format!("neither `{}` nor the release tells it", log.display()));
    };
    releases::containerd_for(distribution.kind, release).map_or_else(
        || {
            unknown(format!(
                "`{}` doesn't tell it, and the release {release} is not known",
                log.display()
            ))
        },
        |shipped| (Reading::Value(shipped.lowest), "the release that ships it"),
    )
}

/// The version in the line that containerd logs when it starts.
pub fn parse_start(line: &str) -> Option<Version> {
    let (_, rest) = line.split_once("msg=\"starting containerd\"")?;
    let version = rest.split(' ').find_map(|word| word.strip_prefix("version="))?;
    parse_version(version.trim_matches('"'))
}

/// A version of containerd as it gives it, e.g. `v2.1.4-k3s1`: the mark of K3s's builds becomes build metadata, since
/// they are no pre-releases.
pub fn parse_version(text: &str) -> Option<Version> {
    let mut version: Version = text.strip_prefix('v').unwrap_or(text).parse().ok()?;
    if version.pre.starts_with("k3s") {
        version.build = BuildMetadata::new(version.pre.as_str()).ok()?;
        version.pre = Prerelease::EMPTY;
    }
    Some(version)
}

/// What the configuration says, how it is read, and which files it is made of.
fn config(
    fs: &dyn HostFs,
    path: &Path,
    version: &Reading<Version>,
) -> (Reading<ContainerdConfig>, Option<Generation>, Vec<PathBuf>) {
    let text = read::text(fs, path);
    let known = version.value().map(Generation::of);
    let text = match text {
        Reading::Value(text) => text,
        Reading::NotSupported => return (Reading::NotSupported, known, Vec::new()),
        Reading::Failed(why) => return (Reading::Failed(why), known, Vec::new()),
    };
    // Only generation 2 reads version 3, and it writes no other by itself.
    let told = containerd::parse(&text).ok().map(|config| {
        if config.version >= 3 {
            Generation::Two
        } else {
            Generation::One
        }
    });
    let generation = known.or(told);
    match containerd::effective(fs, path, generation.unwrap_or(Generation::Two)) {
        Ok(effective) => {
            let files = effective.files.into_iter().map(|file| file.path).collect();
            (Reading::Value(effective.config), generation, files)
        }
        Err(error) => (Reading::Failed(error.to_string()), generation, Vec::new()),
    }
}

/// Templates in the order in which they are tried; a supervisor of containerd 1 knows one only. One that may be there,
/// in a directory that can't be looked into, is among them.
fn templates(fs: &dyn HostFs, dir: &Path, generation: Option<Generation>) -> Vec<Template> {
    let names: &[&str] = match generation {
        Some(Generation::One) => &["config.toml.tmpl"],
        Some(Generation::Two) | None => &["config-v3.toml.tmpl", "config.toml.tmpl"],
    };
    names
        .iter()
        .map(|name| dir.join(name))
        .filter(|path| read::may_exist(fs, path))
        .map(|path| Template {
            text: read::text(fs, &path),
            path,
        })
        .collect()
}

/// What is imported now, and what lies in the directories of drop-ins.
fn drop_ins(fs: &dyn HostFs, dir: &Path, rancher: bool, files: &[PathBuf]) -> Vec<DropIn> {
    let dirs: &[&str] = if rancher {
        &["config-v3.toml.d", "config.toml.d"]
    } else {
        &["conf.d"]
    };
    let imported = files.iter().skip(1);
    let mut found: Vec<(PathBuf, bool)> = imported.map(|path| (path.clone(), true)).collect();
    for dir in dirs.iter().map(|name| dir.join(name)) {
        for name in read::names_or_none(fs, &dir) {
            let path = dir.join(&name);
            if read::ends_in(&name, "toml") && !found.iter().any(|(known, _)| *known == path) {
                found.push((path, false));
            }
        }
    }
    let drop_in = |(path, imported): (PathBuf, bool)| DropIn {
        text: read::text(fs, &path),
        path,
        imported,
    };
    found.into_iter().map(drop_in).collect()
}

/// Container runtimes that RKE2 and K3s will find at their next start.
///
/// Releases since October 2024 search `PATH` with two directories before it; older ones exactly two directories, and
/// know no `nvidia-cdi`. Whether a file may be executed isn't looked at.
fn detected(
    fs: &dyn HostFs,
    distribution: &Distribution,
    settings: Option<&Settings>,
) -> Vec<(String, PathBuf)> {
    let new = distribution
        .version
        .value()
        .is_none_or(releases::detects_cdi_runtime);
    let path = settings.and_then(Settings::path).unwrap_or(SERVICE_PATH);
    let dirs: Vec<&str> = if new {
        RUNTIME_DIRS.into_iter().chain(path.split(':')).collect()
    } else {
        vec![RUNTIME_DIRS[0], "/usr/bin"]
    };
    RUNTIMES
        .iter()
        .filter(|(handler, _)| new || *handler != "nvidia-cdi")
        .filter_map(|(handler, binary)| {
            let mut paths = dirs
                .iter()
                .filter(|dir| dir.starts_with('/'))
                .map(|dir| Path::new(dir).join(binary));
            let found = paths.find(|path| read::is_file(fs, path))?;
            Some(((*handler).to_owned(), found))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_line_of_the_start() {
        let line = "time=\"2026-11-20T08:12:01.482917350Z\" level=info msg=\"starting containerd\" revision=0b2a version=v2.1.4-k3s1";
        let version = parse_start(line).unwrap();
        assert_eq!((version.major, version.minor, version.patch), (2, 1, 4));
        assert_eq!((version.pre.as_str(), version.build.as_str()), ("", "k3s1"));
        assert!(parse_start(&line.replace("starting", "stopping")).is_none());
        assert_eq!(parse_version("1.7.24"), Some(Version::new(1, 7, 24)));
        assert_eq!(parse_version("v2.0.0-rc.1").unwrap().pre.as_str(), "rc.1");
    }
}
