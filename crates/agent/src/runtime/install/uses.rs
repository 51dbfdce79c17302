//! Who names what we have installed: containers, CDI specifications, containerd's configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pitcrew_core::ports::HostFs;
use pitcrew_host::Host;

use super::WRAPPER;
use crate::runtime::tier::{self, TOOLKIT_DIR};

/// Below the state directory of containerd: the bundles of all containers that Kubernetes has started.
const TASKS: &str = "io.containerd.runtime.v2.task/k8s.io";

/// A container that was started with something of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Its pod, `namespace/name`, where the bundle says so.
    pub pod: Option<String>,
    /// Versions whose files its bundle names.
    pub versions: BTreeSet<String>,
    /// True where our wrapper was its runtime: without it the container can't be ended.
    pub by_wrapper: bool,
}

impl Task {
    /// What a person calls it.
    pub fn name(&self) -> &str {
        self.pod.as_deref().unwrap_or(&self.id)
    }
}

/// Who names what we have installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Containers.
    pub tasks: Vec<Task>,
    /// CDI specifications, and the versions that they name.
    pub specs: Vec<(PathBuf, BTreeSet<String>)>,
    /// Handlers of containerd's configuration in force whose binary is the wrapper.
    pub handlers: Vec<String>,
    /// Where bundles or specifications could not be read: then nothing may be taken away.
    pub unread: Vec<String>,
}

impl Uses {
    /// Looks at the node. `home` is our directory on it.
    pub fn look(fs: &dyn HostFs, host: &Host, home: &Path) -> Self {
        let mut uses = Self::default();
        let containerd = host.containerd.value();
        if let Some(config) = containerd.and_then(|containerd| containerd.config.value()) {
            let named = config
                .handlers
                .iter()
                .filter(|(_, binary)| is_wrapper(Path::new(binary), home));
            uses.handlers = named.map(|(handler, _)| handler.clone()).collect();
        }
        for file in &host.cdi {
            match fs.read(&file.path) {
                Ok(text) => {
                    let versions = versions_in(&text, home);
                    if !versions.is_empty() {
                        uses.specs.push((file.path.clone(), versions));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => uses
                    .unread
                    .push(format!("`{}` can't be read: {error}", file.path.display())),
            }
        }
        let state = containerd.and_then(|containerd| containerd.socket.parent());
        if let Some(state) = state {
            uses.look_at_tasks(fs, &state.join(TASKS), home);
        }
        uses
    }

    fn look_at_tasks(&mut self, fs: &dyn HostFs, dir: &Path, home: &Path) {
        let names = match fs.list(dir) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                self.unread
                    .push(format!("`{}` can't be read: {error}", dir.display()));
                return;
            }
        };
        for id in names {
            let bundle = dir.join(&id);
            // A container that ends while we look takes its bundle along.
            let config = match fs.read(&bundle.join("config.json")) {
                Ok(config) => config,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.unread
                        .push(format!("`{}` can't be read: {error}", bundle.display()));
                    continue;
                }
            };
            // containerd's shim keeps there which program it calls for this container.
            let runtime = fs.read(&bundle.join("runtime")).unwrap_or_default();
            let runtime = PathBuf::from(String::from_utf8_lossy(&runtime).trim().to_owned());
            let by_wrapper = is_wrapper(&runtime, home);
            let versions = versions_in(&config, home);
            if by_wrapper || !versions.is_empty() {
                self.tasks.push(Task {
                    pod: pod_of(&config),
                    id,
                    versions,
                    by_wrapper,
                });
            }
        }
    }

    /// All versions that are named, and all of them where somebody could not be asked.
    pub(super) fn versions(&self) -> Named<'_> {
        Named(self)
    }

    /// True where a container was started through our wrapper.
    pub fn needs_wrapper(&self) -> bool {
        self.tasks.iter().any(|task| task.by_wrapper)
    }
}

/// Versions that somebody names.
pub(super) struct Named<'a>(&'a Uses);

impl Named<'_> {
    pub(super) fn contains(&self, version: &str) -> bool {
        !self.0.unread.is_empty()
            || self.0.tasks.iter().any(|task| task.versions.contains(version))
            || self
                .0
                .specs
                .iter()
                .any(|(_, versions)| versions.contains(version))
    }
}

/// The wrapper by the path that supervisors find, or by our own.
fn is_wrapper(path: &Path, home: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(WRAPPER) && (path.starts_with(TOOLKIT_DIR) || path.starts_with(home))
}

/// Versions whose directories under `home` a text names, e.g. `1.2.0` of `HOME/1.2.0/nvidia-cdi-hook`.
pub fn versions_in(text: &[u8], home: &Path) -> BTreeSet<String> {
    let mut needle = home.as_os_str().as_encoded_bytes().to_vec();
    needle.push(b'/');
    let mut versions = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = find(rest, &needle) {
        rest = &rest[at + needle.len()..];
        let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b".+-_".contains(byte);
        let length = rest.iter().take_while(|byte| is_of_name(byte)).count();
        if length > 0 && rest.get(length) == Some(&b'/') {
            versions.insert(String::from_utf8_lossy(&rest[..length]).into_owned());
        }
    }
    versions
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// `namespace/name` out of the annotations that containerd gives every container of Kubernetes.
fn pod_of(config: &[u8]) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    let annotations = config.get("annotations")?;
    let of = |key: &str| annotations.get(format!("io.kubernetes.cri.{key}"))?.as_str();
    Some(format!("{}/{}", of("sandbox-namespace")?, of("sandbox-name")?))
}

/// True where every container of the node is started through our wrapper, or will be from the next start on.
pub(crate) fn is_default(host: &Host, uses: &Uses) -> bool {
    let containerd = host.containerd.value();
    let config = containerd.and_then(|containerd| containerd.config.value());
    let now = config.and_then(|config| config.default_handler.as_ref());
    tier::is_default(host) || now.is_some_and(|name| uses.handlers.contains(name))
}
