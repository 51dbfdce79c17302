//! Specifications of what containers get besides GPUs: storage and network that reach a GPU's memory, and the channels
//! of IMEX. They need no driver's libraries and no GPU.

use std::path::{Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs};

use super::files::{OPTIONS, mount};
use super::hooks::Hooks;
use super::nodes::Nodes;
use super::root::Root;
use super::{Options, device, finished, visible_devices};
use crate::{Device, Spec};

/// What containers get besides GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extra {
    /// `GPUDirect` Storage: the nodes of `nvidia-fs`, with the configuration of `cuFile` and what udev knows.
    Gds,
    /// The network cards of `MOFED`, for RDMA.
    Mofed,
    /// `GDRCopy`.
    Gdrcopy,
    /// The channels of IMEX, through which GPUs of several nodes share memory; each is a device of its own.
    ImexChannel,
}

impl Extra {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Gds, Self::Mofed, Self::Gdrcopy, Self::ImexChannel];

    /// The class of its devices, as in NVIDIA's toolkit.
    pub fn class(self) -> &'static str {
        match self {
            Self::Gds => "gds",
            Self::Mofed => "mofed",
            Self::Gdrcopy => "gdrcopy",
            Self::ImexChannel => "imex-channel",
        }
    }

    /// Directories of its nodes, and their names in them.
    fn nodes(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Gds => &[("/dev", "nvidia-fs*")],
            Self::Mofed => &[("/dev/infiniband", "uverbs*"), ("/dev/infiniband", "rdma_cm")],
            Self::Gdrcopy => &[("/dev", "gdrdrv")],
            Self::ImexChannel => &[("/dev/nvidia-caps-imex-channels", "channel*")],
        }
    }

    /// What is there of its nodes.
    fn paths(self, nodes: &Nodes<'_>) -> Vec<PathBuf> {
        let patterns = self.nodes().iter();
        patterns
            .flat_map(|(dir, pattern)| nodes.matching(Path::new(dir), pattern))
            .collect()
    }

    /// Files of the host that are mounted with them, and directories, where they are there.
    fn mounts(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Gds => &[("/run/udev", true), ("/etc/cufile.json", false)],
            Self::Mofed | Self::Gdrcopy | Self::ImexChannel => &[],
        }
    }
}

/// A specification of what is there of it: one device `all`, or one for each channel of IMEX, called by its number.
/// `None` where the host has none of its device nodes.
pub fn extra(what: Extra, fs: &dyn HostFs, options: &Options) -> Option<Spec> {
    let hooks = Hooks::new(options);
    let nodes = Nodes::new(fs, &options.dev_root, &hooks);
    let devices = if what == Extra::ImexChannel {
        channels(what, &nodes)
    } else {
        let mut edits = nodes.edits_of(&what.paths(&nodes));
        if edits.device_nodes.is_empty() {
            return None;
        }
        let root = Root::new(fs, &options.driver_root);
        let is_there = |path: &Path, is_directory: bool| {
            root.follow(path)
                .is_some_and(|(_, kind)| (kind == FileKind::Directory) == is_directory)
        };
        let there = what.mounts().iter().map(|(path, kind)| (Path::new(path), *kind));
        let there = there.filter(|(path, is_directory)| is_there(path, *is_directory));
        edits
            .mounts
            .extend(there.map(|(path, _)| mount(&root.on_host(path), path, &OPTIONS)));
        vec![device("all".to_owned(), &edits)]
    };
    (!devices.is_empty()).then(|| finished(options, devices, visible_devices(), false))
}

fn channels(what: Extra, nodes: &Nodes<'_>) -> Vec<Device> {
    let channel = |path: &PathBuf| {
        let number = path.file_name()?.to_str()?.strip_prefix("channel")?;
        // `channel1x` is none, and `channel01` would be another name of `channel1`.
        let known: u32 = number
            .parse()
            .ok()
            .filter(|known: &u32| known.to_string() == number)?;
        let edits = nodes.edits_of(std::slice::from_ref(path));
        (!edits.device_nodes.is_empty()).then(|| device(known.to_string(), &edits))
    };
    what.paths(nodes).iter().filter_map(channel).collect()
}
