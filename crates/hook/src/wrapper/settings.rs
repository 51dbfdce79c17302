//! The wrapper's settings: a JSON file beside the binary, written by the agent. Without it the defaults hold, which give
//! nobody a GPU past the scheduler.

use std::path::PathBuf;

use serde::Deserialize;

use super::WrapperError;

/// The file's name, in the directory of the binary.
pub const FILE: &str = "pitcrew-hook.json";

/// What the node's owner decides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "they are switches of a file")]
pub struct Settings {
    /// Whether `NVIDIA_VISIBLE_DEVICES` counts in containers that are not privileged: whoever can make a pod can then
    /// take any GPU. Needed for the device plugin's strategy `envvar`.
    pub accept_env_when_unprivileged: bool,
    /// Whether mounts of `/dev/null` below `/var/run/nvidia-container-devices` count: the strategy `volume-mounts`.
    pub accept_volume_mounts: bool,
    /// Whether the container's annotations `cdi.k8s.io/*` count: the strategy `cdi-annotations`. Users can't set those
    /// of a container.
    pub accept_annotations: bool,
    /// The kind of devices that are named by an index, a UUID or `all`.
    pub default_kind: String,
    /// Where CDI specifications are; a later directory wins over an earlier.
    pub spec_dirs: Vec<PathBuf>,
    /// Names or paths of the real runtime; the first that is there is used.
    pub runtimes: Vec<String>,
    /// Whether containers go to the real runtime as they are: what an uninstalled agent leaves where the wrapper is needed.
    pub pass_through: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            accept_env_when_unprivileged: false,
            accept_volume_mounts: false,
            accept_annotations: true,
            default_kind: "nvidia.com/gpu".to_owned(),
            spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            runtimes: vec!["runc".to_owned(), "crun".to_owned()],
            pass_through: false,
        }
    }
}

impl Settings {
    /// Reads the file beside this program, if there is one.
    pub(super) fn beside_program() -> Result<Self, WrapperError> {
        let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        let path = program.with_file_name(FILE);
        let failed = |reason: String| WrapperError::Settings {
            path: path.clone(),
            reason,
        };
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed(error.to_string())),
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.to_string())),
        }
    }
}
