//! The environment of NVIDIA's container toolkit, as its chart sets it (`toolkit.env`): every variable that it knows is
//! accepted, and each gets a verdict that says what becomes of it on this node. Others are nobody's business.
//!
//! Most of them say how containerd's configuration shall be changed. Nothing of it is changed here, so the best that they
//! can be is unnecessary; on RKE2 and K3s many a copied value would break the node.

use std::path::{Path, PathBuf};

use pitcrew_host::Host;
use pitcrew_host::facts::DistributionKind;

use super::install::WrapperSettings;
use super::tier::{HANDLER, TOOLKIT_DIR, is_supervised};

/// What becomes of one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What becomes of it.
    pub treatment: Treatment,
    /// Why, or how: one line, in lower case.
    pub reason: String,
}

/// What becomes of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It does what it says, or what it says is so anyway.
    Honoured,
    /// It does nothing, and nothing is lost.
    NotNeeded,
    /// It would do harm, or means something that isn't so on this node.
    Wrong,
}

/// What all of them come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// A verdict for each known variable, in the order given.
    pub verdicts: Vec<Verdict>,
    /// For the wrapper.
    pub wrapper: WrapperSettings,
    /// The root of the driver's files on the host, where it is not `/`.
    pub driver_root: Option<PathBuf>,
    /// The root of the driver's device nodes on the host, where it is not `/`.
    pub dev_root: Option<PathBuf>,
    /// Whether missing device nodes are made.
    pub create_device_nodes: bool,
}

impl Verdict {
    /// For logs: `CONTAINERD_SOCKET=/x: wrong on RKE2, ignored, not needed: ...`.
    pub fn line(&self) -> String {
        format!("{}={}: {}", self.name, self.value, self.reason)
    }
}

/// True for a variable of NVIDIA's container toolkit.
pub fn is_known(name: &str) -> bool {
    rule(name).is_some()
}

/// Judges these variables on a node.
pub fn judge(env: &[(String, String)], host: &Host) -> Judged {
    let mut judged = Judged {
        verdicts: Vec::new(),
        wrapper: WrapperSettings::default(),
        driver_root: None,
        dev_root: None,
        create_device_nodes: true,
    };
    for (name, value) in env {
        let Some(rule) = rule(name) else { continue };
        let (treatment, reason) = apply(rule, value, host, &mut judged);
        judged.verdicts.push(Verdict {
            name: name.clone(),
            value: value.clone(),
            treatment,
            reason,
        });
    }
    judged
}

/// What a variable is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Runtime,
    Config,
    DropIn,
    Socket,
    Class,
    Default,
    Restart,
    NoConfig,
    InstallDir,
    DriverRoot,
    DevRoot,
    Mode,
    AcceptEnv,
    AcceptMounts,
    CreateNodes,
    Nri,
    /// Nothing here has a part that it would be for; the words say why nothing is lost.
    Unused(&'static str),
}

/// The rule of a variable; `None` for one that NVIDIA's toolkit doesn't know.
fn rule(name: &str) -> Option<Rule> {
    const NO_CONFIG: &str = "containerd's configuration is not changed";
    const NVIDIAS_IMAGE: &str = "it is about NVIDIA's own image";
    const NO_LEGACY: &str = "there is no NVIDIA hook or command line behind our wrapper";
    const LOG: &str = "our wrapper logs where containerd tells it to, and what went wrong always";
    Some(match name {
        "RUNTIME" => Rule::Runtime,
        "RUNTIME_CONFIG" | "CONTAINERD_CONFIG" => Rule::Config,
        "RUNTIME_DROP_IN_CONFIG" | "RUNTIME_DROP_IN_CONFIG_HOST_PATH" => Rule::DropIn,
        "RUNTIME_SOCKET" | "CONTAINERD_SOCKET" => Rule::Socket,
        "NVIDIA_RUNTIME_NAME" | "CONTAINERD_RUNTIME_CLASS" => Rule::Class,
        "NVIDIA_RUNTIME_SET_AS_DEFAULT" | "CONTAINERD_SET_AS_DEFAULT" => Rule::Default,
        "RUNTIME_RESTART_MODE" => Rule::Restart,
        "NO_RUNTIME_CONFIG" => Rule::NoConfig,
        "ROOT" | "TOOLKIT_INSTALL_DIR" => Rule::InstallDir,
        "NVIDIA_DRIVER_ROOT" | "DRIVER_ROOT" => Rule::DriverRoot,
        "NVIDIA_DEV_ROOT" | "DEV_ROOT" => Rule::DevRoot,
        "NVIDIA_CONTAINER_RUNTIME_MODE" => Rule::Mode,
        "ACCEPT_NVIDIA_VISIBLE_DEVICES_ENVVAR_WHEN_UNPRIVILEGED" => Rule::AcceptEnv,
        "ACCEPT_NVIDIA_VISIBLE_DEVICES_AS_VOLUME_MOUNTS" => Rule::AcceptMounts,
        "CREATE_DEVICE_NODES" => Rule::CreateNodes,
        "ENABLE_NRI_PLUGIN"
        | "NRI_PLUGIN_INDEX"
        | "NRI_SOCKET"
        | "NRI_NAMESPACE"
        | "NRI_MANAGEMENT_CDI_DEVICE_NAMESPACES" => Rule::Nri,
        "RUNTIME_EXECUTABLE_PATH" => Rule::Unused("containerd is not run to learn about it: its files tell"),
        "RUNTIME_CONFIG_SOURCE"
        | "RUNTIME_CONFIG_SOURCES"
        | "RUNTIME_CONFIG_OVERRIDE"
        | "CONTAINERD_USE_LEGACY_CONFIG"
        | "CONTAINERD_RUNTIME_TYPE" => Rule::Unused(NO_CONFIG),
        "RUNTIME_ENABLE_CDI" => {
            Rule::Unused("containerd 2 takes CDI names without being told, older ones get mounts")
        }
        "CDI_ENABLED" => Rule::Unused("specifications are written wherever containerd takes them"),
        "CDI_OUTPUT_DIR" => Rule::Unused("specifications lie where containerd looks for them"),
        "CDI_KIND" => {
            Rule::Unused("the device plugin's kind is `k8s.device-plugin.nvidia.com/gpu`, as NVIDIA's is")
        }
        "HOST_ROOT_MOUNT"
        | "DRIVER_ROOT_CTR_PATH"
        | "DEV_ROOT_CTR_PATH"
        | "TOOLKIT_SOURCE_ROOT"
        | "TOOLKIT_PACKAGE_TYPE"
        | "TOOLKIT_PID_FILE"
        | "TOOLKIT_DEBUG"
        | "NO_DAEMON" => Rule::Unused(NVIDIAS_IMAGE),
        "NVIDIA_CONTAINER_RUNTIME_DEBUG" | "NVIDIA_CONTAINER_RUNTIME_LOG_LEVEL" => Rule::Unused(LOG),
        "NVIDIA_CONTAINER_RUNTIME_RUNTIMES" => {
            Rule::Unused("our wrapper becomes the first of runc and crun that the supervisor's PATH has")
        }
        "NVIDIA_CONTAINER_RUNTIME_MODES_CDI_DEFAULT_KIND" => {
            Rule::Unused("a device without a kind is one of `nvidia.com/gpu`")
        }
        "NVIDIA_CONTAINER_RUNTIME_MODES_CDI_ANNOTATION_PREFIXES" => {
            Rule::Unused("annotations `cdi.k8s.io/` count, which are those that containerd knows too")
        }
        "NVIDIA_CONTAINER_RUNTIME_HOOK_SKIP_MODE_DETECTION"
        | "NVIDIA_CONTAINER_CLI_DEBUG"
        | "NVIDIA_CONTAINER_TOOLKIT_OPT_IN_FEATURES" => Rule::Unused(NO_LEGACY),
        _ => return None,
    })
}

fn apply(rule: Rule, value: &str, host: &Host, judged: &mut Judged) -> (Treatment, String) {
    use Treatment::{Honoured, NotNeeded, Wrong};
    let flag = truth(value);
    match rule {
        Rule::Unused(why) => (NotNeeded, format!("not needed: {why}")),
        Rule::Runtime if value.is_empty() || value == "containerd" => {
            (Honoured, "it is what is found on this node".to_owned())
        }
        Rule::Runtime => (Wrong, "ignored: only containerd is known here".to_owned()),
        Rule::Config => config(value, host),
        Rule::DropIn => drop_in(host),
        Rule::Socket => socket(value, host),
        Rule::Class if value.is_empty() || value == HANDLER => {
            (Honoured, format!("the handler is called `{HANDLER}`"))
        }
        Rule::Class => (
            Wrong,
            format!("ignored: the handler is called `{HANDLER}`, as RKE2 and K3s call what they find"),
        ),
        Rule::Default => default(flag, host),
        Rule::Restart => restart(value, host),
        Rule::NoConfig => (
            Honoured,
            "containerd's configuration is changed only where `--configure-containerd` asks for it"
                .to_owned(),
        ),
        Rule::InstallDir if usual_dir(value) => (Honoured, format!("our wrapper is in `{TOOLKIT_DIR}`")),
        Rule::InstallDir => (
            Wrong,
            format!(
                "ignored: RKE2 and K3s look for a wrapper in `{TOOLKIT_DIR}`, and nothing else is needed"
            ),
        ),
        Rule::DriverRoot => {
            judged.driver_root = root(value);
            (Honoured, "the driver's files are looked for there".to_owned())
        }
        Rule::DevRoot => {
            judged.dev_root = root(value);
            (
                Honoured,
                "the driver's device nodes are looked for there".to_owned(),
            )
        }
        Rule::Mode if matches!(value, "" | "auto" | "cdi" | "jit-cdi") => {
            (Honoured, "our wrapper works by CDI".to_owned())
        }
        Rule::Mode => (Wrong, "ignored: our wrapper works by CDI only".to_owned()),
        Rule::AcceptEnv => {
            judged.wrapper.accept_env_when_unprivileged = flag == Some(true);
            match flag {
                Some(true) => (
                    Honoured,
                    "honoured for pods with `runtimeClassName: nvidia`: whoever may make one can take any GPU of this node \
                     past the scheduler"
                        .to_owned(),
                ),
                _ => (Honoured, "it is so if nothing is said".to_owned()),
            }
        }
        Rule::AcceptMounts => {
            judged.wrapper.accept_volume_mounts = flag == Some(true);
            let how = match flag {
                Some(true) => "honoured for pods with `runtimeClassName: nvidia`",
                _ => "it is so if nothing is said",
            };
            (Honoured, how.to_owned())
        }
        Rule::CreateNodes => {
            judged.create_device_nodes = !value.is_empty() && value != "none";
            let how = if judged.create_device_nodes {
                "missing device nodes are made, those of GPUs and of MIG among them"
            } else {
                "no device node is made"
            };
            (Honoured, how.to_owned())
        }
        Rule::Nri => (
            NotNeeded,
            "not needed: no NRI plugin is run; pods get their GPUs from the device plugin".to_owned(),
        ),
    }
}

/// As Go's `strconv.ParseBool`.
fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn root(value: &str) -> Option<PathBuf> {
    Some(PathBuf::from(value)).filter(|path| path.is_absolute() && *path != Path::new("/"))
}

/// The toolkit's directory is below the one that is given.
fn usual_dir(value: &str) -> bool {
    let value = Path::new(value);
    value == Path::new(TOOLKIT_DIR) || Some(value) == Path::new(TOOLKIT_DIR).parent()
}

/// What the distribution is called, where it writes containerd's configuration itself.
fn supervisor(host: &Host) -> Option<&'static str> {
    match host.distribution.value()?.kind {
        DistributionKind::Rke2 => Some("RKE2"),
        DistributionKind::K3s => Some("K3s"),
        DistributionKind::Kubeadm | DistributionKind::None => None,
    }
}

fn config(value: &str, host: &Host) -> (Treatment, String) {
    let in_force = host.containerd.value().map(|containerd| &containerd.config_path);
    if let Some(name) = supervisor(host) {
        let why = if Path::new(value)
            .extension()
            .is_some_and(|ending| ending == "tmpl")
        {
            "a tool that edits a template breaks the next start of the node".to_owned()
        } else if in_force.is_some_and(|path| path == Path::new(value)) {
            format!("{name} writes this file anew at each start, so nothing that is changed in it stays")
        } else {
            let real = in_force
                .map(|path| format!("`{}`", path.display()))
                .unwrap_or_default();
            format!("{name}'s containerd does not read this file but {real}")
        };
        return (
            Treatment::Wrong,
            format!("wrong on {name}, ignored, not needed: {why}"),
        );
    }
    (
        Treatment::NotNeeded,
        "not needed: containerd's configuration is only read, and found by itself".to_owned(),
    )
}

fn drop_in(host: &Host) -> (Treatment, String) {
    match supervisor(host) {
        Some(name) => (
            Treatment::Wrong,
            format!(
                "wrong on {name}, ignored, not needed: its containerd reads drop-ins from its own directories at most"
            ),
        ),
        None => (
            Treatment::NotNeeded,
            "not needed: containerd's configuration is not changed".to_owned(),
        ),
    }
}

fn socket(value: &str, host: &Host) -> (Treatment, String) {
    let given = value.strip_prefix("unix://").unwrap_or(value);
    let real = host
        .containerd
        .value()
        .map(|containerd| containerd.socket.as_path());
    match (real, supervisor(host)) {
        (Some(real), _) if real == Path::new(given) => {
            (Treatment::Honoured, "it is what is found on this node".to_owned())
        }
        (Some(real), Some(name)) => (
            Treatment::Wrong,
            format!(
                "wrong on {name}, ignored, not needed: its containerd listens at `{}`",
                real.display()
            ),
        ),
        (Some(real), None) => (
            Treatment::Wrong,
            format!(
                "ignored, not needed: the kubelet's containerd listens at `{}`",
                real.display()
            ),
        ),
        (None, _) => (
            Treatment::NotNeeded,
            "not needed: nothing is asked of containerd's socket".to_owned(),
        ),
    }
}

fn default(flag: Option<bool>, host: &Host) -> (Treatment, String) {
    if flag == Some(false) {
        return (Treatment::Honoured, "no handler is made the default".to_owned());
    }
    let why = "every container of the node, its control plane's among them, would fail with the wrapper; pods that ask for \
               `nvidia.com/gpu` get theirs without";
    match supervisor(host) {
        Some(name) => (
            Treatment::Wrong,
            format!("ignored, not needed, and without effect on {name}: {why}"),
        ),
        None => (Treatment::Wrong, format!("ignored, not needed: {why}")),
    }
}

fn restart(value: &str, host: &Host) -> (Treatment, String) {
    match value {
        "none" => (
            Treatment::Honoured,
            "nothing is restarted unless the agent is allowed to".to_owned(),
        ),
        "signal" | "" if is_supervised(host) => (
            Treatment::Wrong,
            "ignored: a hangup kills containerd, and the supervisor with it; where a restart is needed and allowed, it is \
             made through systemd"
                .to_owned(),
        ),
        _ => (
            Treatment::NotNeeded,
            "not needed: where a restart is needed and allowed, it is made through systemd".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests;
