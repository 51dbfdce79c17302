//! Device nodes: of a GPU, of a MIG device, and those that all of them share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitcrew_core::gpu::MigDevice;
use pitcrew_core::mig::Attribute;
use pitcrew_core::pci::PciAddress;
use pitcrew_core::ports::{FileKind, HostFs};

use super::hooks::Hooks;
use super::root::Root;
use super::text;
use crate::{ContainerEdits, DeviceNode};

/// Nodes that every process on a GPU needs.
const CONTROL: [&str; 4] = [
    "/dev/nvidia-modeset",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-uvm",
    "/dev/nvidiactl",
];
/// Nodes in `/dev` that begin with `nvidia` and are none of a GPU's.
const NOT_OF_GPUS: [&str; 3] = ["nvidia-fs", "nvidia-nvswitch", "nvidia-nvlink"];
/// Directories of nodes, and what the names in them begin with.
const DIRECTORIES: [(&str, &str); 3] = [
    ("/dev", "nvidia*"),
    ("/dev/nvidia-caps", "nvidia-cap*"),
    ("/dev/nvidia-caps-imex-channels", "channel*"),
];
/// Which minor stands for which MIG capability.
const MIG_MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";

/// Looks at the nodes of a host.
pub(super) struct Nodes<'a> {
    dev: Root<'a>,
    hooks: &'a Hooks<'a>,
    capabilities: Option<BTreeMap<String, u32>>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(fs: &'a dyn HostFs, dev_root: &'a Path, hooks: &'a Hooks<'a>) -> Self {
        let minors = fs.read(Path::new(MIG_MINORS)).ok();
        Self {
            dev: Root::new(fs, dev_root),
            hooks,
            capabilities: minors.map(|bytes| parse_minors(&String::from_utf8_lossy(&bytes))),
        }
    }

    /// Those of a whole GPU, with its nodes for graphics.
    pub(super) fn of_gpu(&self, address: PciAddress, minor: u32) -> Result<ContainerEdits, String> {
        let own = self.required(&format!("/dev/nvidia{minor}"))?;
        Ok(self.with_graphics(vec![own], address))
    }

    /// Those of a MIG device: the GPU's, and those of the capabilities that open its instances.
    pub(super) fn of_mig(
        &self,
        address: PciAddress,
        minor: u32,
        mig: &MigDevice,
    ) -> Result<ContainerEdits, String> {
        let (gi, ci) = (mig.gpu_instance, mig.compute_instance);
        let capabilities = self.capabilities.as_ref();
        let capabilities = capabilities.ok_or_else(|| format!("`{MIG_MINORS}` can't be read"))?;
        let mut nodes = vec![self.required(&format!("/dev/nvidia{minor}"))?];
        for name in [
            format!("gpu{minor}/gi{gi}/access"),
            format!("gpu{minor}/gi{gi}/ci{ci}/access"),
        ] {
            let capability = capabilities.get(&name);
            let capability = capability.ok_or_else(|| format!("`{MIG_MINORS}` has no `{name}`"))?;
            nodes.push(self.required(&format!("/dev/nvidia-caps/nvidia-cap{capability}"))?);
        }
        if mig.profile.attribute == Some(Attribute::Graphics) {
            return Ok(self.with_graphics(nodes, address));
        }
        Ok(edits(nodes))
    }

    /// Those that every container with a GPU needs, as far as they are there.
    pub(super) fn control(&self) -> Vec<DeviceNode> {
        CONTROL
            .iter()
            .filter_map(|path| self.node(Path::new(path)))
            .collect()
    }

    /// All of NVIDIA's driver.
    pub(super) fn everything(&self) -> ContainerEdits {
        let blocked = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            NOT_OF_GPUS.iter().any(|prefix| name.starts_with(prefix))
        };
        let all = DIRECTORIES
            .iter()
            .flat_map(|(dir, pattern)| self.dev.matching(Path::new(dir), pattern));
        let wanted = all.filter(|path| !blocked(path));
        edits(wanted.filter_map(|path| self.node(&path)).collect())
    }

    /// Names in a directory that match, as paths.
    pub(super) fn matching(&self, dir: &Path, pattern: &str) -> Vec<PathBuf> {
        self.dev.matching(dir, pattern)
    }

    /// Those at these paths, as far as they are there.
    pub(super) fn edits_of(&self, paths: &[PathBuf]) -> ContainerEdits {
        edits(paths.iter().filter_map(|path| self.node(path)).collect())
    }

    fn required(&self, path: &str) -> Result<DeviceNode, String> {
        let missing = || format!("`{}` is not there", self.dev.on_host(Path::new(path)).display());
        self.node(Path::new(path)).ok_or_else(missing)
    }

    /// With the nodes that the kernel has made for graphics on this GPU, and the names that they have by slot.
    fn with_graphics(&self, mut nodes: Vec<DeviceNode>, address: PciAddress) -> ContainerEdits {
        let drm = PathBuf::from(format!("/sys/bus/pci/devices/{address}/drm"));
        let dri = Path::new("/dev/dri");
        let names = self.dev.fs.list(&drm).unwrap_or_default();
        nodes.extend(names.iter().filter_map(|name| self.node(&dri.join(name))));
        let mut links = Vec::new();
        for ending in ["card", "render"] {
            let link = dri.join(format!("by-path/pci-{address}-{ending}"));
            let Some(target) = self.dev.link(&link) else {
                continue;
            };
            let real = self.dev.follow(&link).map(|(real, _)| text(&real));
            if real.is_some_and(|real| nodes.iter().any(|node| node.path == real)) {
                links.push(format!("{}::{}", target.display(), link.display()));
            }
        }
        let mut edits = edits(nodes);
        edits.hooks.extend(self.hooks.symlinks(links));
        edits
    }

    /// The character device at a path.
    fn node(&self, path: &Path) -> Option<DeviceNode> {
        let (_, FileKind::CharDevice { major, minor }) = self.dev.follow(path)? else {
            return None;
        };
        let on_host = self.dev.on_host(path);
        let ownership = self.dev.fs.ownership(&on_host).ok();
        let mode = ownership
            .map(|ownership| ownership.mode)
            .filter(|mode| *mode != 0);
        let gid = ownership.map(|ownership| ownership.gid).filter(|gid| *gid != 0);
        Some(DeviceNode {
            path: text(path),
            host_path: if on_host == path {
                String::new()
            } else {
                text(&on_host)
            },
            major: major.into(),
            minor: minor.into(),
            file_mode: mode,
            permissions: "rwm".to_owned(),
            gid,
            ..DeviceNode::default()
        })
    }
}

/// The nodes, and the groups without which a process that isn't root can't open them.
fn edits(device_nodes: Vec<DeviceNode>) -> ContainerEdits {
    const ANYONE: u32 = 0o006;
    let group = |node: &DeviceNode| {
        let open = node.file_mode.is_some_and(|mode| mode & ANYONE == ANYONE);
        node.gid.filter(|_| node.file_mode.is_some() && !open)
    };
    ContainerEdits {
        additional_gids: device_nodes.iter().filter_map(group).collect(),
        device_nodes,
        ..ContainerEdits::default()
    }
}

/// Minors of MIG capabilities by name, e.g. `gpu0/gi1/access`. Lines that are none are skipped.
fn parse_minors(text: &str) -> BTreeMap<String, u32> {
    let line = |line: &str| {
        let (name, minor) = line.split_once(' ')?;
        Some((name.to_owned(), minor.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_added_only_for_nodes_that_not_everybody_may_open() {
        let node = |mode, gid| DeviceNode {
            file_mode: Some(mode),
            gid,
            ..DeviceNode::default()
        };
        let nodes = vec![
            node(0o666, Some(44)),
            node(0o660, Some(109)),
            node(0o660, None),
            node(0o664, Some(7)),
        ];
        assert_eq!(edits(nodes).additional_gids, [109, 7]);
    }

    #[test]
    fn minors_are_read_by_name() {
        let minors = parse_minors("config 1\ngpu0/gi1/access 12\nnonsense\ngpu0/gi1/ci0/access x\n");
        assert_eq!(minors.len(), 2);
        assert_eq!(minors.get("gpu0/gi1/access"), Some(&12));
    }
}
