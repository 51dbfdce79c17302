//! Specifications of a node's NVIDIA GPUs.
//!
//! What is looked for, where, and in which order is as in NVIDIA's container toolkit; the tests compare both on the
//! same roots and list the differences. Facts come from a snapshot of the GPUs and from the host's files; nothing is
//! asked of the driver here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitcrew_core::gpu::MigDevice;
use pitcrew_core::ports::HostFs;
use pitcrew_core::{Gpu, Inventory};

use crate::spec::{Kind, NameError};
use crate::{ContainerEdits, Device, Spec};

mod driver;
mod elf;
mod extra;
mod files;
mod hooks;
mod nodes;
mod root;
mod tidy;

pub use extra::{Extra, extra};

use driver::Driver;
use hooks::Hooks;
use nodes::Nodes;

/// How devices are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// By the driver's order: `0`, and `0:1` for a MIG device. It changes with the hardware.
    Index,
    /// By the driver's order, with the type in front: `gpu0`, `mig0:1`.
    TypeIndex,
    /// By UUID: `GPU-…`, `MIG-…`. It stays.
    Uuid,
}

/// What a specification is made for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Vendor and class of the devices.
    pub kind: Kind,
    /// How the devices are called; one with several names is there several times.
    pub names: Vec<Naming>,
    /// Adds the device `all`, which is all of them together.
    pub all: bool,
    /// Where on the host the driver's libraries and programs have their root: `/`, or that of a driver container.
    pub driver_root: PathBuf,
    /// Where on the host the root of the driver's device nodes is.
    pub dev_root: PathBuf,
    /// Directories of the driver's libraries under its root; empty to look for them.
    pub library_dirs: Vec<PathBuf>,
    /// The program on the host that the hooks start; its file name is what it is called as.
    pub hook: PathBuf,
    /// The host's `ldconfig`, if the hook shall not choose it.
    pub ldconfig: Option<PathBuf>,
}

impl Options {
    /// As NVIDIA's toolkit does if it isn't told otherwise, with another program for the hooks.
    ///
    /// # Errors
    /// Where the kind is none.
    pub fn new(kind: &str, hook: impl Into<PathBuf>) -> Result<Self, NameError> {
        Ok(Self {
            kind: kind.parse()?,
            names: vec![Naming::Index, Naming::Uuid],
            all: true,
            driver_root: "/".into(),
            dev_root: "/".into(),
            library_dirs: Vec::new(),
            hook: hook.into(),
            ldconfig: None,
        })
    }
}

/// A specification, and what is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The specification. It is valid, and of the lowest version that it can have.
    pub spec: Spec,
    /// What should have been in it and isn't, with the reason: one sentence each, in lower case, without a period.
    pub remarks: Vec<String>,
}

/// Why there is no specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The driver's libraries aren't there.
    #[error(
        "no libraries of NVIDIA's driver{} were found under `{}`{}",
        of_version(.version.as_deref()),
        .root.display(),
        instead(.others)
    )]
    NoLibraries {
        /// The version that the driver says it has; `None` where nobody could be asked.
        version: Option<String>,
        /// Where they were looked for.
        root: PathBuf,
        /// Versions that were found instead.
        others: Vec<String>,
    },
    /// No GPU has a device node, or there is no GPU.
    #[error("no GPU can be given to a container{}", because(.0))]
    NoDevices(Vec<String>),
}

fn of_version(version: Option<&str>) -> String {
    version.map_or_else(String::new, |version| format!(" {version}"))
}

fn instead(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => format!(", only of {}", others.join(", ")),
    }
}

fn because(remarks: &[String]) -> String {
    match remarks {
        [] => ": there is none".to_owned(),
        remarks => format!(": {}", remarks.join("; ")),
    }
}

/// A specification of every full GPU and MIG device.
///
/// A GPU in MIG mode is there only as its MIG devices. One that can't be read, or whose node is missing, is left out
/// and remarked on.
///
/// # Errors
/// Where there is no GPU to be given away, or the driver's libraries are missing.
pub fn gpus(inventory: &Inventory, fs: &dyn HostFs, options: &Options) -> Result<Generated, GenerateError> {
    let hooks = Hooks::new(options);
    let nodes = Nodes::new(fs, &options.dev_root, &hooks);
    let mut remarks = Vec::new();
    let mut devices = Vec::new();
    for gpu in &inventory.gpus {
        let at = |what: String| format!("GPU {} ({}): {what}", gpu.index, gpu.pci.address);
        for found in of_gpu(gpu, &nodes, options) {
            match found {
                Ok(found) => devices.extend(found),
                Err(why) => remarks.push(at(why)),
            }
        }
    }
    if devices.is_empty() {
        return Err(GenerateError::NoDevices(remarks));
    }
    let driver = Driver::find(version(inventory), fs, options)?;
    let mut common = ContainerEdits {
        device_nodes: nodes.control(),
        ..ContainerEdits::default()
    };
    common.append(files::graphics(&driver, &hooks));
    common.append(files::driver(&driver, &hooks));
    common.append(visible_devices());
    Ok(Generated {
        spec: finished(options, devices, common, options.all),
        remarks,
    })
}

/// A specification of one device, `all`, that has every node of NVIDIA's driver: for what manages GPUs.
///
/// # Errors
/// Where there is no node, or the driver's libraries are missing.
pub fn management(
    inventory: Option<&Inventory>,
    fs: &dyn HostFs,
    options: &Options,
) -> Result<Generated, GenerateError> {
    let hooks = Hooks::new(options);
    let edits = Nodes::new(fs, &options.dev_root, &hooks).everything();
    if edits.device_nodes.is_empty() {
        let dev = options.dev_root.join("dev");
        let why = format!("`{}` has no node of NVIDIA's driver", dev.display());
        return Err(GenerateError::NoDevices(vec![why]));
    }
    let driver = Driver::find(inventory.and_then(version), fs, options)?;
    let mut common = files::management(&driver, &hooks);
    common.append(visible_devices());
    let device = Device {
        name: "all".to_owned(),
        container_edits: edits,
        ..Device::default()
    };
    Ok(Generated {
        spec: finished(options, vec![device], common, false),
        remarks: Vec::new(),
    })
}

fn version(inventory: &Inventory) -> Option<&str> {
    inventory.driver.version.value().map(String::as_str)
}

/// Keeps NVIDIA's own runtime, where it is there too, from giving the container the devices once more.
fn visible_devices() -> ContainerEdits {
    ContainerEdits {
        env: vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()],
        ..ContainerEdits::default()
    }
}

/// The devices of one GPU, each under all of its names: itself, or what it is cut into; or why one isn't there.
fn of_gpu(gpu: &Gpu, nodes: &Nodes<'_>, options: &Options) -> Vec<Result<Vec<Device>, String>> {
    let readings = &gpu.readings;
    let Some(minor) = readings.minor.value().copied() else {
        return vec![Err("the number of its device node can't be read".to_owned())];
    };
    if readings.mig_mode.value().is_none_or(|mode| !mode.current) {
        return vec![of_whole(gpu, minor, nodes, options)];
    }
    let Some(migs) = readings.mig_devices.value() else {
        return vec![Err("its MIG devices can't be read".to_owned())];
    };
    if migs.is_empty() {
        return vec![Err("it is in MIG mode and has no MIG device".to_owned())];
    }
    let of_mig = |(at, mig): (usize, &MigDevice)| {
        let edits = nodes.of_mig(gpu.pci.address, minor, mig)?;
        let name = |naming: &Naming| match naming {
            Naming::Index => format!("{}:{at}", gpu.index),
            Naming::TypeIndex => format!("mig{}:{at}", gpu.index),
            Naming::Uuid => mig.uuid.clone(),
        };
        Ok(options
            .names
            .iter()
            .map(|naming| device(name(naming), &edits))
            .collect())
    };
    migs.iter().enumerate().map(of_mig).collect()
}

fn of_whole(gpu: &Gpu, minor: u32, nodes: &Nodes<'_>, options: &Options) -> Result<Vec<Device>, String> {
    let edits = nodes.of_gpu(gpu.pci.address, minor)?;
    let name = |naming: &Naming| match naming {
        Naming::Index => Ok(gpu.index.to_string()),
        Naming::TypeIndex => Ok(format!("gpu{}", gpu.index)),
        Naming::Uuid => match gpu.readings.uuid.value() {
            Some(uuid) => Ok(uuid.clone()),
            None => Err("its UUID can't be read".to_owned()),
        },
    };
    let named = options.names.iter().map(name);
    named.map(|name| Ok(device(name?, &edits))).collect()
}

fn device(name: String, edits: &ContainerEdits) -> Device {
    Device {
        name,
        annotations: BTreeMap::new(),
        container_edits: edits.clone(),
    }
}

fn finished(options: &Options, mut devices: Vec<Device>, common: ContainerEdits, all: bool) -> Spec {
    if all {
        let mut edits = ContainerEdits::default();
        for device in &devices {
            edits.append(device.container_edits.clone());
        }
        devices.push(device("all".to_owned(), &edits));
    }
    let mut spec = Spec {
        version: String::new(),
        kind: options.kind.to_string(),
        annotations: BTreeMap::new(),
        devices,
        container_edits: common,
    };
    tidy::tidy(&mut spec);
    spec.version = spec.needs().to_string();
    spec
}

/// A path as it is written in a specification.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
