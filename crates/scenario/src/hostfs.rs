//! The files that the driver and the kernel show: device nodes, `/proc/driver/nvidia`, `/sys/bus/pci`.
//!
//! All of them follow from the live state, so that a MIG device that is created makes its nodes appear.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Component, Path, PathBuf};

use pitcrew_core::pci::PciFunction;
use pitcrew_core::ports::FileKind;

use crate::state::{GpuState, State};

/// Major numbers. 195 is NVIDIA's own; the others are given out when the modules are loaded, and are here as on
/// the recorded machine.
const MAJOR_NVIDIA: u32 = 195;
const MAJOR_UVM: u32 = 238;
const MAJOR_CAPS: u32 = 241;

/// GPU instances that a GPU has minors for, whatever it can be cut into.
pub(crate) const GPU_INSTANCES: u32 = 15;
/// One for the GPU instance and eight for its compute instances.
const MINORS_PER_INSTANCE: u32 = 9;
/// `config` and `monitor` come first.
const FIRST_INSTANCE_MINOR: u32 = 3;
/// The driver lists minors for this many GPUs, however few there are.
const LISTED_GPUS: u32 = 32;

/// Minor of `/dev/nvidia-caps/nvidia-capN` for a GPU instance.
pub(crate) fn gpu_instance_minor(gpu_minor: u32, gpu_instance: u32) -> u32 {
    FIRST_INSTANCE_MINOR + (gpu_minor * GPU_INSTANCES + gpu_instance) * MINORS_PER_INSTANCE
}

/// Minor for a compute instance in it.
pub(crate) fn compute_instance_minor(gpu_minor: u32, gpu_instance: u32, compute_instance: u32) -> u32 {
    gpu_instance_minor(gpu_minor, gpu_instance) + 1 + compute_instance
}

/// `/proc/driver/nvidia-caps/mig-minors`: the same text on every machine.
fn mig_minors() -> String {
    let mut text = String::from("config 1\nmonitor 2\n");
    for gpu in 0..LISTED_GPUS {
        for instance in 0..GPU_INSTANCES {
            let minor = gpu_instance_minor(gpu, instance);
            let _ = writeln!(text, "gpu{gpu}/gi{instance}/access {minor}");
            for compute in 0..MINORS_PER_INSTANCE - 1 {
                let minor = compute_instance_minor(gpu, instance, compute);
                let _ = writeln!(text, "gpu{gpu}/gi{instance}/ci{compute}/access {minor}");
            }
        }
    }
    text
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// A file of `/proc` or `/sys`; `size` is what the kernel claims, not what can be read.
    File {
        size: u64,
        text: String,
    },
    /// The long list of minors, made when it is read: a thousand machines need not keep a thousand copies.
    MigMinors,
    Link(PathBuf),
    CharDevice {
        major: u32,
        minor: u32,
    },
}

/// All files of one moment. Directories follow from them.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    /// The files that follow from this state.
    pub(crate) fn of(state: &State) -> Self {
        let mut tree = Self::default();
        for gpu in &state.gpus {
            tree.add_pci(gpu, state.driver.missing);
        }
        if !state.driver.missing {
            tree.add_driver(state);
            for gpu in &state.gpus {
                tree.add_gpu(gpu, state);
            }
        }
        tree
    }

    fn add(&mut self, path: impl Into<PathBuf>, node: Node) {
        self.0.insert(path.into(), node);
    }

    /// A file of `/proc`, whose size is always 0.
    fn proc(&mut self, path: impl Into<PathBuf>, text: String) {
        self.add(path, Node::File { size: 0, text });
    }

    /// A file of `/sys`, whose size is always a page.
    fn sys(&mut self, path: impl Into<PathBuf>, text: String) {
        self.add(
            path,
            Node::File {
                size: 4096,
                text: text + "\n",
            },
        );
    }

    fn device(&mut self, path: impl Into<PathBuf>, major: u32, minor: u32) {
        self.add(path, Node::CharDevice { major, minor });
    }

    /// The capability file of the driver, and the node that it stands for.
    fn capability(&mut self, path: &str, minor: u32, mode: u32) {
        let text = format!("DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n");
        self.proc(format!("/proc/driver/nvidia/capabilities/{path}"), text);
        self.device(format!("/dev/nvidia-caps/nvidia-cap{minor}"), MAJOR_CAPS, minor);
    }

    fn add_pci(&mut self, gpu: &GpuState, no_driver: bool) {
        let PciFunction {
            address,
            vendor_id,
            device_id,
            subsystem_vendor_id,
            subsystem_device_id,
        } = gpu.pci;
        let dir = format!("/sys/bus/pci/devices/{address}");
        for (name, id) in [
            ("vendor", vendor_id),
            ("device", device_id),
            ("subsystem_vendor", subsystem_vendor_id),
            ("subsystem_device", subsystem_device_id),
        ] {
            self.sys(format!("{dir}/{name}"), format!("{id:#06x}"));
        }
        self.sys(format!("{dir}/class"), format!("{:#08x}", gpu.pci_class()));
        self.sys(format!("{dir}/numa_node"), gpu.numa_node.to_string());
        if !no_driver {
            self.add(
                format!("{dir}/driver"),
                Node::Link("/sys/bus/pci/drivers/nvidia".into()),
            );
        }
    }

    fn add_driver(&mut self, state: &State) {
        let driver = &state.driver;
        let what = if driver.open_kernel_modules {
            "Open Kernel Module for x86_64 "
        } else {
            "x86_64 Kernel Module "
        };
        let version = &driver.version;
        self.proc(
            "/proc/driver/nvidia/version",
            format!(
                "NVRM version: NVIDIA UNIX {what} {version}  Release Build  (imaginary)\n\
                 GCC version:  gcc version 15.3.0 (GCC)\n"
            ),
        );
        self.sys("/sys/module/nvidia/version", version.clone());
        self.sys("/sys/bus/pci/drivers/nvidia/module/version", version.clone());
        self.proc(
            "/proc/modules",
            "nvidia_uvm 2183168 0 - Live 0x0000000000000000 (O)\n\
             nvidia_modeset 1720320 0 - Live 0x0000000000000000 (O)\n\
             nvidia 14381056 2 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (O)\n"
                .to_owned(),
        );
        self.proc(
            "/proc/devices",
            format!(
                "Character devices:\n{MAJOR_NVIDIA} nvidia\n{MAJOR_NVIDIA} nvidiactl\n{MAJOR_UVM} nvidia-uvm\n\
                 {MAJOR_CAPS} nvidia-caps\n\nBlock devices:\n"
            ),
        );
        self.device("/dev/nvidiactl", MAJOR_NVIDIA, 255);
        self.device("/dev/nvidia-modeset", MAJOR_NVIDIA, 254);
        self.device("/dev/nvidia-uvm", MAJOR_UVM, 0);
        self.device("/dev/nvidia-uvm-tools", MAJOR_UVM, 1);
        self.add("/proc/driver/nvidia-caps/mig-minors", Node::MigMinors);
        if state.gpus.iter().any(|gpu| gpu.geometry.is_some()) {
            self.capability("mig/config", 1, 0o400);
            self.capability("mig/monitor", 2, 0o444);
        }
    }

    fn add_gpu(&mut self, gpu: &GpuState, state: &State) {
        let minor = gpu.minor;
        self.device(format!("/dev/nvidia{minor}"), MAJOR_NVIDIA, minor);
        let or_unknown = |value: Option<&String>| value.map_or("??.??.??.??.??", String::as_str).to_owned();
        self.proc(
            format!("/proc/driver/nvidia/gpus/{}/information", gpu.pci.address),
            format!(
                "Model: \t\t {}\nIRQ:   \t\t {}\nGPU UUID: \t {}\nVideo BIOS: \t {}\nBus Type: \t PCIe\n\
                 DMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t {}\nDevice Minor: \t {minor}\n\
                 GPU Firmware: \t {}\nGPU Excluded:\t No\n",
                or_unknown(gpu.base.name.value()),
                41 + minor,
                gpu.uuid,
                or_unknown(gpu.base.vbios.value()).to_lowercase(),
                gpu.pci.address,
                state.driver.version,
            ),
        );
        for device in gpu.instances() {
            let (gi, ci) = (device.gpu_instance, device.compute_instance);
            self.capability(
                &format!("gpu{minor}/mig/gi{gi}/access"),
                gpu_instance_minor(minor, gi),
                0o444,
            );
            let access = format!("gpu{minor}/mig/gi{gi}/ci{ci}/access");
            self.capability(&access, compute_instance_minor(minor, gi, ci), 0o444);
        }
    }

    /// What is at a path, links in its directories followed.
    pub(crate) fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let path = self.resolve(path, false);
        Ok(match self.0.get(&path) {
            Some(Node::File { size, .. }) => FileKind::File(*size),
            Some(Node::MigMinors) => FileKind::File(0),
            Some(Node::Link(target)) => FileKind::Link(target.clone()),
            Some(Node::CharDevice { major, minor }) => FileKind::CharDevice {
                major: *major,
                minor: *minor,
            },
            None if self.is_directory(&path) => FileKind::Directory,
            None => return Err(absent(&path)),
        })
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = self.resolve(path, true);
        match self.0.get(&path) {
            Some(Node::File { text, .. }) => Ok(text.clone().into_bytes()),
            Some(Node::MigMinors) => Ok(mig_minors().into_bytes()),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{} is no file", path.display()),
            )),
            None if self.is_directory(&path) => Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                format!("{} is a directory", path.display()),
            )),
            None => Err(absent(&path)),
        }
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = self.resolve(path, true);
        if self.0.contains_key(&path) {
            let message = format!("{} is not a directory", path.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
        }
        if !self.is_directory(&path) {
            return Err(absent(&path));
        }
        let mut names: Vec<String> = self
            .0
            .keys()
            .filter_map(|known| known.strip_prefix(&path).ok()?.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.0.keys().any(|known| known.starts_with(path))
    }

    /// The path without links, `.` and `..`; the last part's link is followed only if asked.
    fn resolve(&self, path: &Path, follow_last: bool) -> PathBuf {
        let mut resolved = PathBuf::from("/");
        let mut parts: Vec<_> = path.components().collect();
        parts.reverse();
        while let Some(part) = parts.pop() {
            match part {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => {
                    resolved.pop();
                }
                Component::Normal(name) => {
                    resolved.push(name);
                    // Our links point at real directories only, so one step suffices and can't loop.
                    if let Some(Node::Link(target)) = self.0.get(&resolved)
                        && (follow_last || !parts.is_empty())
                    {
                        resolved.clone_from(target);
                    }
                }
            }
        }
        resolved
    }
}

fn absent(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} does not exist", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minors_are_numbered_as_recorded() {
        let text = mig_minors();
        let recorded =
            "config 1\nmonitor 2\ngpu0/gi0/access 3\ngpu0/gi0/ci0/access 4\ngpu0/gi0/ci1/access 5\n";
        assert!(text.starts_with(recorded), "{text:.100}");
        assert!(text.contains("\ngpu0/gi0/ci7/access 11\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n"));
        assert!(text.contains("\ngpu0/gi14/ci7/access 137\ngpu1/gi0/access 138\n"));
        assert!(text.ends_with("gpu31/gi14/ci7/access 4322\n"));
    }
}
