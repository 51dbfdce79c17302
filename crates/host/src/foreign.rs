//! Traces of others that configure GPUs: NVIDIA's operator, its container toolkit, its device plugin.

use std::path::{Path, PathBuf};

use pitcrew_core::ports::HostFs;

use crate::facts::Foreign;
use crate::read;

/// Where the operator's toolkit is installed, and where our own wrapper of a container runtime stands too.
const TOOLKIT: &str = "/usr/local/nvidia/toolkit";
/// Files that NVIDIA's installer puts there, and we never do.
const ITS_OWN: [&str; 8] = [
    "nvidia-ctk",
    "nvidia-ctk.real",
    "nvidia-container-cli",
    "nvidia-container-cli.real",
    "nvidia-container-runtime.real",
    "nvidia-container-runtime-hook",
    "nvidia-container-runtime.legacy",
    "nvidia-container-toolkit",
];

pub(crate) fn gather(fs: &dyn HostFs, plugin_sockets: &[String]) -> Foreign {
    let host_toolkit = ["/usr/bin/nvidia-ctk", "/usr/local/bin/nvidia-ctk"];
    Foreign {
        toolkit: is_nvidias(fs, Path::new(TOOLKIT)).then(|| TOOLKIT.into()),
        validations: read::names_or_none(fs, "/run/nvidia/validations"),
        device_plugin: plugin_sockets
            .iter()
            .filter(|name| name.starts_with("nvidia"))
            .cloned()
            .collect(),
        host_toolkit: host_toolkit
            .iter()
            .find(|path| read::exists(fs, path))
            .map(PathBuf::from),
    }
}

/// True where a file is NVIDIA's alone, or the runtime is a script: NVIDIA's is one around `X.real`, ours a program.
fn is_nvidias(fs: &dyn HostFs, dir: &Path) -> bool {
    let names = read::names_or_none(fs, dir);
    let own = names
        .iter()
        .any(|name| ITS_OWN.contains(&name.as_str()) || name.starts_with("libnvidia-container"));
    let runtime = dir.join("nvidia-container-runtime");
    own || fs.read_part(&runtime, 0, 2).is_ok_and(|start| start == b"#!")
}
