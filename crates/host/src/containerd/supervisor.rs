//! What RKE2 or K3s know of their node when they write the configuration.
//!
//! Taken from the supervisor's own flags, else from what it wrote at its last start, else its default; what
//! is neither written nor known is listed, so that a reader can judge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;
use serde::Deserialize;
use serde_json::Value as Json;

use super::base::{IMAGES, NodeFacts, Runtime, Shape};
use super::config;
use super::tree::{self, Table, Value};
use crate::distribution;
use crate::facts::{Distribution, DistributionKind, Host};

/// The largest file of settings that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// What was found out for rendering.
pub(super) struct Supervisor {
    pub(super) node: NodeFacts,
    /// What could not be known and was taken as usual.
    pub(super) assumptions: Vec<String>,
    /// Why what is rendered may not be what will be written.
    pub(super) doubts: Vec<String>,
}

/// Gathers what is known; `written` is the file of the last start, where the supervisor itself wrote it.
pub(super) fn gather(
    host: &Host,
    fs: &dyn HostFs,
    shape: &Shape,
    written: Option<&Table>,
) -> Option<Supervisor> {
    let distribution = host.distribution.value()?;
    let program = match distribution.kind {
        DistributionKind::Rke2 => "rke2",
        DistributionKind::K3s => "k3s",
        DistributionKind::Kubeadm | DistributionKind::None => return None,
    };
    let mut assumptions = Vec::new();
    let mut doubts = Vec::new();
    let settings = Settings::read(distribution, fs, &mut doubts);
    let old = Written::new(written);
    let mut choose = |key: &str, written: Option<String>, usual: &str| {
        settings.text(key).or(written).unwrap_or_else(|| {
            assumptions.push(format!("`{key}` is not known and is taken as usual: {usual}"));
            usual.to_owned()
        })
    };
    let snapshotter = choose("snapshotter", old.snapshotter(), "overlayfs");
    let pause_image = choose("pause-image", old.pause_image(), "rancher/mirrored-pause:3.6");
    let data_dir = distribution.data_dir.clone();
    let cni = match (program, written) {
        ("rke2", _) => None,
        (_, Some(_)) => old.cni(),
        _ if settings.text("flannel-backend").as_deref() == Some("none") => None,
        _ => Some((data_dir.join("data/cni"), data_dir.join("agent/etc/cni/net.d"))),
    };
    if let Reading::Failed(reason) = &distribution.default_runtime {
        doubts.push(format!(
            "whether there is a `default-runtime` can't be read: {reason}"
        ));
    }
    if let Reading::Failed(reason) = &distribution.selinux {
        doubts.push(format!("whether `selinux` is set can't be read: {reason}"));
    }
    if matches!(snapshotter.as_str(), "stargz" | "nix") {
        doubts.push(format!(
            "what {program} writes for the snapshotter {snapshotter} is not known here"
        ));
    }
    for (key, what) in [
        ("rootless", "in rootless mode"),
        (
            "container-runtime-endpoint",
            "with a container runtime of its own",
        ),
        ("docker", "with Docker"),
    ] {
        if settings
            .text(key)
            .is_some_and(|value| value != "false" && !value.is_empty())
        {
            doubts.push(format!(
                "{program} runs {what} (`{key}`), for which it writes nothing that is known here"
            ));
        }
    }
    let registries = Registries::read(fs, program, &settings, &mut doubts);
    let node = NodeFacts {
        program: program.to_owned(),
        data_dir,
        selinux: match distribution.selinux {
            Reading::Value(on) => on,
            Reading::NotSupported | Reading::Failed(_) => false,
        },
        snapshotter,
        pause_image,
        cni,
        default_runtime: distribution
            .default_runtime
            .value()
            .cloned()
            .filter(|name| !name.is_empty()),
        nonroot_devices: settings
            .flag("nonroot-devices")
            .or_else(|| old.flag("device_ownership_from_security_context"))
            .unwrap_or(false),
        unprivileged: old.flag("enable_unprivileged_ports").unwrap_or(true),
        systemd_cgroup: old.systemd_cgroup().unwrap_or(true),
        runtimes: host.containerd.value().map(runtimes).unwrap_or_default(),
        logins: registries.logins,
        mirrors: if shape.certs_d {
            Vec::new()
        } else {
            registries.mirrors
        },
        resource_classes: old.resource_classes(),
    };
    Some(Supervisor {
        node,
        assumptions,
        doubts,
    })
}

fn runtimes(containerd: &crate::facts::Containerd) -> Vec<Runtime> {
    let mut found: Vec<Runtime> = containerd
        .detected_runtimes
        .iter()
        .map(|(handler, binary)| Runtime::found(handler, binary))
        .collect();
    // Go's templates go through a map in the order of its keys.
    found.sort_by(|one, other| one.handler.cmp(&other.handler));
    found
}

/// Flags of the supervisor: its configuration files, environment and command line.
struct Settings(Option<distribution::Settings>);

impl Settings {
    fn read(distribution: &Distribution, fs: &dyn HostFs, doubts: &mut Vec<String>) -> Self {
        let settings = distribution::settings_of(fs, distribution);
        if let Reading::Failed(reason) = &settings {
            doubts.push(format!("the flags of the supervisor can't be read: {reason}"));
        }
        Self(match settings {
            Reading::Value(settings) => Some(settings),
            Reading::NotSupported | Reading::Failed(_) => None,
        })
    }

    fn text(&self, key: &str) -> Option<String> {
        self.0.as_ref()?.last(key).map(str::to_owned)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.text(key)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}

fn yaml<T: serde::de::DeserializeOwned>(fs: &dyn HostFs, path: &Path) -> Result<Option<T>, String> {
    let bytes = match fs.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if bytes.len() > MAX_BYTES {
        return Err("it is too large".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    serde_saphyr::from_str(&text).map(Some).map_err(|error| {
        let message = error.to_string();
        message.lines().next().unwrap_or_default().to_owned()
    })
}

/// Of `registries.yaml` what reaches containerd's own file. No secret is kept.
#[derive(Default)]
struct Registries {
    logins: Vec<(String, Vec<String>)>,
    mirrors: Vec<(String, Vec<String>)>,
}

#[derive(Deserialize)]
struct RegistriesFile {
    #[serde(default)]
    mirrors: BTreeMap<String, Option<MirrorFile>>,
    #[serde(default)]
    configs: BTreeMap<String, Option<RegistryFile>>,
}

#[derive(Deserialize)]
struct MirrorFile {
    #[serde(default)]
    endpoint: Vec<String>,
}

#[derive(Deserialize)]
struct RegistryFile {
    #[serde(default)]
    auth: Option<BTreeMap<String, Option<Json>>>,
}

impl Registries {
    fn read(fs: &dyn HostFs, program: &str, settings: &Settings, doubts: &mut Vec<String>) -> Self {
        let path = settings.text("private-registry").map_or_else(
            || PathBuf::from(format!("/etc/rancher/{program}/registries.yaml")),
            PathBuf::from,
        );
        match yaml::<RegistriesFile>(fs, &path) {
            Ok(None) => Self::default(),
            Ok(Some(file)) => Self {
                logins: file.configs.into_iter().filter_map(login).collect(),
                mirrors: file
                    .mirrors
                    .into_iter()
                    .map(|(name, mirror)| (name, mirror.map(|mirror| mirror.endpoint).unwrap_or_default()))
                    .collect(),
            },
            Err(reason) => {
                doubts.push(format!("`{}` can't be read: {reason}", path.display()));
                Self::default()
            }
        }
    }
}

/// The keys of a login, as containerd calls them, in the order in which they are written.
fn login((registry, config): (String, Option<RegistryFile>)) -> Option<(String, Vec<String>)> {
    let auth = config?.auth?;
    let set = |key: &str| matches!(auth.get(key), Some(Some(Json::String(text))) if !text.is_empty());
    let keys = [
        ("username", "username"),
        ("password", "password"),
        ("auth", "auth"),
        ("identity_token", "identitytoken"),
    ];
    let keys = keys.iter().filter(|(own, _)| set(own));
    Some((registry, keys.map(|(_, name)| (*name).to_owned()).collect()))
}

/// What the supervisor wrote at its last start.
struct Written<'a> {
    table: Option<&'a Table>,
    cri: &'static str,
}

impl<'a> Written<'a> {
    fn new(table: Option<&'a Table>) -> Self {
        let version = table.and_then(|table| config::version(table).ok()).unwrap_or(2);
        Self {
            table,
            cri: config::cri_section(version),
        }
    }

    fn get(&self, path: &[&str]) -> Option<&'a Value> {
        tree::get(self.table?, &[&["plugins"], path].concat())
    }

    fn text(&self, path: &[&str]) -> Option<String> {
        self.get(path)?.as_str().map(str::to_owned)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.get(&[self.cri, key])? {
            Value::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }

    fn snapshotter(&self) -> Option<String> {
        self.text(&[IMAGES, "snapshotter"])
            .or_else(|| self.text(&[self.cri, "containerd", "snapshotter"]))
    }

    fn pause_image(&self) -> Option<String> {
        self.text(&[IMAGES, "pinned_images", "sandbox"])
            .or_else(|| self.text(&[self.cri, "sandbox_image"]))
    }

    fn cni(&self) -> Option<(PathBuf, PathBuf)> {
        let bin = match self.get(&[self.cri, "cni", "bin_dirs"]) {
            Some(Value::Array(dirs)) => dirs.first().and_then(Value::as_str).map(str::to_owned),
            _ => self.text(&[self.cri, "cni", "bin_dir"]),
        };
        let conf = self.text(&[self.cri, "cni", "conf_dir"])?;
        Some((bin?.into(), conf.into()))
    }

    fn systemd_cgroup(&self) -> Option<bool> {
        match self.get(&[
            self.cri,
            "containerd",
            "runtimes",
            "runc",
            "options",
            "SystemdCgroup",
        ])? {
            Value::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }

    fn resource_classes(&self) -> Vec<(String, String)> {
        ["blockio_config_file", "rdt_config_file"]
            .iter()
            .filter_map(|key| {
                let file = self.text(&["io.containerd.service.v1.tasks-service", key])?;
                Some(((*key).to_owned(), file))
            })
            .collect()
    }
}
