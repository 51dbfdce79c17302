//! The Kubernetes distribution of a node: RKE2, K3s, kubeadm, or a container runtime alone.

use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;
use semver::Version;

use crate::facts::{Distribution, DistributionKind, Role};
use crate::{read, releases, systemd};

mod settings;
mod version;

pub use settings::Settings;
pub use version::{parse_data_digest, parse_k3s_version};

/// What is found of a distribution, and what else of the node depends on it.
#[derive(Debug)]
pub(crate) struct Found {
    /// For the report.
    pub(crate) distribution: Distribution,
    /// Flags, environment and configuration files together.
    pub(crate) settings: Reading<Settings>,
}

/// Where a rancher distribution has its things.
struct Rancher {
    kind: DistributionKind,
    /// `rke2` or `k3s`.
    name: &'static str,
    binaries: &'static [&'static str],
}

const RANCHERS: [Rancher; 2] = [
    Rancher {
        kind: DistributionKind::Rke2,
        name: "rke2",
        binaries: &["/usr/local/bin/rke2", "/usr/bin/rke2", "/opt/rke2/bin/rke2"],
    },
    Rancher {
        kind: DistributionKind::K3s,
        name: "k3s",
        binaries: &["/usr/local/bin/k3s", "/usr/bin/k3s", "/opt/bin/k3s"],
    },
];

/// Binaries of a containerd that no distribution brought.
pub(crate) const PLAIN_CONTAINERD: [&str; 4] = [
    "/usr/bin/containerd",
    "/usr/local/bin/containerd",
    "/usr/sbin/containerd",
    "/opt/containerd/bin/containerd",
];
/// Socket of a containerd that no distribution brought.
pub(crate) const PLAIN_SOCKET: &str = "/run/containerd/containerd.sock";
const KUBEADM_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
const API_SERVER: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

/// `None` where there is no container runtime at all.
pub(crate) fn gather(fs: &dyn HostFs) -> Option<Found> {
    // Both can be installed; what runs counts most, then what starts at boot, then what has run.
    let ranked = RANCHERS.iter().filter_map(|rancher| {
        let unit = rancher.unit(fs);
        Some((rancher.presence(fs, unit.as_ref())?, rancher, unit))
    });
    if let Some((_, rancher, unit)) =
        ranked.max_by_key(|(presence, rancher, _)| (*presence, rancher.kind == DistributionKind::Rke2))
    {
        return Some(rancher.gather(fs, unit));
    }
    if read::exists(fs, "/etc/kubernetes/kubelet.conf") || read::exists(fs, KUBEADM_FLAGS) {
        return Some(kubeadm(fs));
    }
    let runtime = read::exists(fs, PLAIN_SOCKET)
        || read::exists(fs, "/etc/containerd/config.toml")
        || PLAIN_CONTAINERD.iter().any(|path| read::exists(fs, path));
    runtime.then(|| plain(fs))
}

/// The settings of a distribution that was found before. They are read again rather than kept among the facts: the
/// token of the cluster can be one of them.
pub(crate) fn settings_of(fs: &dyn HostFs, distribution: &Distribution) -> Reading<Settings> {
    let unit = distribution.unit.value().map(|unit| format!("{unit}.service"));
    match RANCHERS.iter().find(|rancher| rancher.kind == distribution.kind) {
        Some(rancher) => rancher.settings(fs, unit.as_deref()).1,
        None if distribution.kind == DistributionKind::Kubeadm => Settings::of_kubelet(fs, KUBEADM_FLAGS),
        None => Reading::NotSupported,
    }
}

/// How surely a distribution is the one of this node, rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Presence {
    /// Only its binary or a unit.
    Installed,
    /// Its data directory.
    HasRun,
    Enabled,
    Running,
}

impl Rancher {
    fn default_data_dir(&self) -> PathBuf {
        Path::new("/var/lib/rancher").join(self.name)
    }

    /// The unit that runs, starts at boot, or is the only one there. RKE2's archive brings both of its units.
    fn unit(&self, fs: &dyn HostFs) -> Option<String> {
        let units: Vec<String> = if self.kind == DistributionKind::Rke2 {
            ["rke2-server.service", "rke2-agent.service"]
                .into_iter()
                .filter(|unit| systemd::unit_file(fs, unit).is_some() || systemd::is_running(fs, unit))
                .map(str::to_owned)
                .collect()
        } else {
            // The installer can name it otherwise: `k3s-<name>`.
            let mut units = systemd::services_named(fs, "k3s");
            units.retain(|unit| unit == "k3s.service" || unit.starts_with("k3s-"));
            units
        };
        let pick = |test: &dyn Fn(&str) -> bool| units.iter().find(|unit| test(unit)).cloned();
        pick(&|unit| systemd::is_running(fs, unit))
            .or_else(|| pick(&|unit| systemd::is_enabled(fs, unit)))
            .or_else(|| units.first().filter(|_| units.len() == 1).cloned())
    }

    fn presence(&self, fs: &dyn HostFs, unit: Option<&String>) -> Option<Presence> {
        if let Some(unit) = unit {
            if systemd::is_running(fs, unit) {
                return Some(Presence::Running);
            }
            if systemd::is_enabled(fs, unit) {
                return Some(Presence::Enabled);
            }
        }
        if read::exists(fs, self.default_data_dir().join("agent")) {
            return Some(Presence::HasRun);
        }
        (unit.is_some() || self.binaries.iter().any(|path| read::exists(fs, path)))
            .then_some(Presence::Installed)
    }

    /// The command of the unit, and all that it and the files set.
    fn settings(&self, fs: &dyn HostFs, unit: Option<&str>) -> (settings::Command, Reading<Settings>) {
        let command = unit.map_or_else(settings::Command::default, |unit| settings::Command::of(fs, unit));
        let settings = Settings::gather(fs, self.name, &command);
        (command, settings)
    }

    fn gather(&self, fs: &dyn HostFs, unit: Option<String>) -> Found {
        let (command, settings) = self.settings(fs, unit.as_deref());
        let usual = self.default_data_dir();
        let data_dir = data_dir_of_process(fs, unit.as_deref())
            .or_else(|| {
                let settings = settings.value()?;
                settings.last("data-dir").map(PathBuf::from)
            })
            .unwrap_or_else(|| usual.clone());
        let role = role(fs, unit.as_deref(), &command, &data_dir);
        let version = match self.kind {
            DistributionKind::Rke2 => version::of_rke2(fs, &data_dir),
            _ => version::of_k3s(fs, self.binaries, &data_dir),
        };
        let setting = |name: &str| match &settings {
            Reading::Value(settings) => settings
                .last(name)
                .map_or(Reading::NotSupported, |value| Reading::Value(value.to_owned())),
            Reading::NotSupported => Reading::NotSupported,
            Reading::Failed(why) => Reading::Failed(why.clone()),
        };
        let selinux = match setting("selinux") {
            Reading::NotSupported => Reading::Value(false),
            given => given.map(|value| value == "true"),
        };
        let pod_security = if role == Role::Agent {
            Reading::NotSupported
        } else {
            self.pod_security(fs, &settings)
        };
        let distribution = Distribution {
            kind: self.kind,
            role,
            ships_runtime_class: ships_runtime_class(self.kind, &version),
            version,
            data_dir_moved: data_dir != usual,
            data_dir,
            unit: unit.map_or(Reading::NotSupported, |unit| {
                Reading::Value(unit.trim_end_matches(".service").to_owned())
            }),
            profile: setting("profile"),
            pod_security,
            selinux,
            default_runtime: setting("default-runtime"),
        };
        Found {
            distribution,
            settings,
        }
    }

    /// The file that the API server is told by, or that RKE2 writes by itself.
    fn pod_security(&self, fs: &dyn HostFs, settings: &Reading<Settings>) -> Reading<String> {
        let settings = match settings {
            Reading::Value(settings) => settings,
            Reading::NotSupported => return Reading::NotSupported,
            Reading::Failed(why) => return Reading::Failed(why.clone()),
        };
        let argument = settings.argument("kube-apiserver-arg", "admission-control-config-file");
        let file = settings
            .last("pod-security-admission-config-file")
            .or(argument)
            .map(PathBuf::from)
            .or_else(|| {
                (self.kind == DistributionKind::Rke2).then(|| "/etc/rancher/rke2/rke2-pss.yaml".into())
            });
        file.map_or(Reading::NotSupported, |file| pod_security_of(fs, &file))
    }
}

/// The default level that an admission configuration enforces.
fn pod_security_of(fs: &dyn HostFs, file: &Path) -> Reading<String> {
    match read::text(fs, file) {
        Reading::Value(text) => match parse_pod_security(&text) {
            Ok(Some(level)) => Reading::Value(level),
            Ok(None) => Reading::NotSupported,
            Err(why) => Reading::Failed(format!("`{}` can't be read: {why}", file.display())),
        },
        Reading::NotSupported => Reading::NotSupported,
        Reading::Failed(why) => Reading::Failed(why),
    }
}

/// The default level of the `PodSecurity` plugin in an `AdmissionConfiguration`; `None` where it sets none.
pub fn parse_pod_security(text: &str) -> Result<Option<String>, String> {
    let document: serde_json::Value = read::yaml(text)?;
    let plugins = document.get("plugins").and_then(serde_json::Value::as_array);
    let level = plugins
        .into_iter()
        .flatten()
        .filter(|plugin| plugin.get("name").and_then(serde_json::Value::as_str) == Some("PodSecurity"))
        .find_map(|plugin| plugin.pointer("/configuration/defaults/enforce")?.as_str());
    Ok(level.map(str::to_owned))
}

fn ships_runtime_class(kind: DistributionKind, version: &Reading<Version>) -> Reading<bool> {
    match version {
        Reading::Value(version) => match releases::ships_runtime_class(kind, version) {
            Some(true) => Reading::Value(true),
            Some(false) => Reading::NotSupported,
            None => Reading::Failed(format!("it isn't known whether {version} brings one")),
        },
        Reading::NotSupported => Reading::NotSupported,
        Reading::Failed(why) => Reading::Failed(why.clone()),
    }
}

/// The data directory out of the path of the configuration that the supervisor's containerd was started with: the one
/// that is in force, however it was set.
fn data_dir_of_process(fs: &dyn HostFs, unit: Option<&str>) -> Option<PathBuf> {
    let pids = unit
        .and_then(|unit| systemd::processes(fs, unit))
        .filter(|pids| !pids.is_empty())
        .unwrap_or_else(|| {
            let names = read::names_or_none(fs, "/proc");
            names.iter().filter_map(|name| name.parse().ok()).collect()
        });
    pids.into_iter()
        .take(MOST_PROCESSES)
        .filter(|pid| {
            read::line(fs, format!("/proc/{pid}/comm"))
                .value()
                .is_none_or(|name| name == "containerd")
        })
        .find_map(|pid| {
            let bytes = fs.read(Path::new(&format!("/proc/{pid}/cmdline"))).ok()?;
            parse_containerd_command(&bytes)
        })
}

/// Processes that are looked at.
const MOST_PROCESSES: usize = 5000;

/// The data directory in a command line of `/proc`, `containerd -c DIR/agent/etc/containerd/config.toml ...`; `None`
/// for any other.
pub fn parse_containerd_command(bytes: &[u8]) -> Option<PathBuf> {
    let config = config_of_command(bytes)?;
    let data_dir = config.strip_suffix("/agent/etc/containerd/config.toml")?;
    data_dir.starts_with('/').then(|| PathBuf::from(data_dir))
}

/// The configuration that a containerd was started with.
fn config_of_command(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.split(|&byte| byte == 0).map(read::lossy);
    let program = words.next()?;
    if Path::new(&program)
        .file_name()
        .is_none_or(|name| name != "containerd")
    {
        return None;
    }
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "-c" | "--config") {
            return words.next();
        }
        if let Some(path) = word
            .strip_prefix("--config=")
            .or_else(|| word.strip_prefix("-c="))
        {
            return Some(path.to_owned());
        }
    }
    None
}

/// By the command of the unit, by its name, by what the data directory holds.
fn role(fs: &dyn HostFs, unit: Option<&str>, command: &settings::Command, data_dir: &Path) -> Role {
    match command.subcommand() {
        Some("server") => return Role::Server,
        Some("agent") => return Role::Agent,
        _ => {}
    }
    match unit {
        Some("rke2-server.service" | "k3s.service") => return Role::Server,
        Some("rke2-agent.service" | "k3s-agent.service") => return Role::Agent,
        _ => {}
    }
    if read::exists(fs, data_dir.join("server")) {
        Role::Server
    } else if read::exists(fs, data_dir.join("agent")) {
        Role::Agent
    } else {
        Role::Unknown
    }
}

fn kubeadm(fs: &dyn HostFs) -> Found {
    let settings = Settings::of_kubelet(fs, KUBEADM_FLAGS);
    let api_server = read::text(fs, API_SERVER);
    let role = match &api_server {
        Reading::Value(_) => Role::Server,
        Reading::NotSupported => Role::Agent,
        Reading::Failed(_) => Role::Unknown,
    };
    let pod_security = match &api_server {
        Reading::Value(text) => match settings::flag_in_manifest(text, "--admission-control-config-file") {
            Some(file) => pod_security_of(fs, Path::new(&file)),
            None => Reading::NotSupported,
        },
        _ => Reading::NotSupported,
    };
    Found {
        distribution: Distribution {
            version: version::of_kubeadm(fs, &api_server),
            pod_security,
            ..without_rancher(fs, DistributionKind::Kubeadm, role)
        },
        settings,
    }
}

fn plain(fs: &dyn HostFs) -> Found {
    Found {
        distribution: without_rancher(fs, DistributionKind::None, Role::Unknown),
        settings: Reading::NotSupported,
    }
}

fn without_rancher(fs: &dyn HostFs, kind: DistributionKind, role: Role) -> Distribution {
    Distribution {
        kind,
        role,
        version: Reading::NotSupported,
        data_dir: "/var/lib/kubelet".into(),
        data_dir_moved: false,
        unit: match systemd::unit_file(fs, "containerd.service") {
            Some(_) => Reading::Value("containerd".to_owned()),
            None => Reading::NotSupported,
        },
        profile: Reading::NotSupported,
        pod_security: Reading::NotSupported,
        selinux: Reading::NotSupported,
        default_runtime: Reading::NotSupported,
        ships_runtime_class: Reading::NotSupported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_is_in_the_command_of_containerd() {
        let command = b"containerd\0-c\0/data/rke2/agent/etc/containerd/config.toml\0";
        assert_eq!(parse_containerd_command(command), Some("/data/rke2".into()));
        let shim = b"/x/containerd-shim-runc-v2\0-c\0/data/rke2/agent/etc/containerd/config.toml\0";
        assert_eq!(parse_containerd_command(shim), None);
        assert_eq!(parse_containerd_command(b"/usr/bin/containerd\0"), None);
        assert_eq!(
            parse_containerd_command(b"/usr/bin/containerd\0--config=/etc/containerd/config.toml\0"),
            None
        );
        assert_eq!(parse_containerd_command(b""), None);
    }

    #[test]
    fn the_default_level_of_pod_security_is_read() {
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n    defaults:\n      enforce: \"restricted\"\n      enforce-version: \"latest\"\n";
        assert_eq!(parse_pod_security(text), Ok(Some("restricted".to_owned())));
        assert_eq!(parse_pod_security("plugins: []"), Ok(None));
        assert!(parse_pod_security("plugins: [").is_err());
    }
}
