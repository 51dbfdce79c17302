//! The hooks: what the runtime has a program of the host do while it makes a container.

use std::path::Path;

use super::{Options, text};
use crate::Hook;

/// Makes hooks of one program.
pub(super) struct Hooks<'a> {
    program: &'a Path,
    ldconfig: Option<&'a Path>,
}

impl<'a> Hooks<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self {
            program: &options.hook,
            ldconfig: options.ldconfig.as_deref(),
        }
    }

    /// Makes links, each as `target::link`; none where there are none to make.
    pub(super) fn symlinks(&self, links: Vec<String>) -> Option<Hook> {
        if links.is_empty() {
            return None;
        }
        let arguments = links.into_iter().flat_map(|link| ["--link".to_owned(), link]);
        Some(self.hook("create-symlinks", arguments.collect()))
    }

    /// Lets the container use newer CUDA libraries that it has brought, where the driver of the host allows it.
    pub(super) fn cuda_compat(&self, driver: &str) -> Hook {
        self.hook(
            "enable-cuda-compat",
            vec![format!("--host-driver-version={driver}")],
        )
    }

    /// Has the container's loader know these directories; none where there are none.
    pub(super) fn update_ldcache(&self, folders: &[String]) -> Option<Hook> {
        if folders.is_empty() {
            return None;
        }
        let mut arguments = Vec::new();
        if let Some(ldconfig) = self.ldconfig {
            arguments.extend(["--ldconfig-path".to_owned(), text(ldconfig)]);
        }
        let folders = folders
            .iter()
            .flat_map(|folder| ["--folder".to_owned(), folder.clone()]);
        arguments.extend(folders);
        Some(self.hook("update-ldcache", arguments))
    }

    /// Keeps the driver's tools from making device nodes in the container.
    pub(super) fn disable_device_node_modification(&self) -> Hook {
        self.hook("disable-device-node-modification", Vec::new())
    }

    fn hook(&self, name: &str, arguments: Vec<String>) -> Hook {
        let program = self.program.file_name().unwrap_or(self.program.as_os_str());
        let mut args = vec![program.to_string_lossy().into_owned(), name.to_owned()];
        args.extend(arguments);
        Hook {
            hook_name: "createContainer".to_owned(),
            path: text(self.program),
            args,
            env: vec!["NVIDIA_CTK_DEBUG=false".to_owned()],
            timeout: None,
        }
    }
}
