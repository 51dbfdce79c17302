//! The files that the driver and the kernel show: device nodes, `/proc/driver/nvidia`, `/sys/bus/pci`.
//!
//! All of them follow from the live state, so that a MIG device that is created makes its nodes appear.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::pci::{NVIDIA_VENDOR_ID, PciAddress, PciFunction};

use crate::state::{GpuState, State};

/// Major numbers. 195 is NVIDIA's own; the others are given out when the modules are loaded, and are here as on
/// the recorded machine.
const MAJOR_NVIDIA: u32 = 195;
const MAJOR_UVM: u32 = 238;
const MAJOR_CAPS: u32 = 241;

/// GPU instances that a GPU has minors for, whatever it can be cut into.
pub(crate) const GPU_INSTANCES: u32 = 15;
/// Compute instances that a GPU instance has minors for.
pub(crate) const COMPUTE_INSTANCES: u32 = 8;
/// One for the GPU instance and eight for its compute instances.
const MINORS_PER_INSTANCE: u32 = 1 + COMPUTE_INSTANCES;
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
pub(crate) fn mig_minors() -> String {
    let mut text = String::from("config 1\nmonitor 2\n");
    for gpu in 0..LISTED_GPUS {
        for instance in 0..GPU_INSTANCES {
            let minor = gpu_instance_minor(gpu, instance);
            let _ = writeln!(text, "gpu{gpu}/gi{instance}/access {minor}");
            for compute in 0..COMPUTE_INSTANCES {
                let minor = compute_instance_minor(gpu, instance, compute);
                let _ = writeln!(text, "gpu{gpu}/gi{instance}/ci{compute}/access {minor}");
            }
        }
    }
    text
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
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
    Socket,
    Directory,
}

/// Libraries of the driver that the product looks for.
const LIBRARIES: [&str; 4] = [
    "libcuda",
    "libnvidia-ml",
    "libnvidia-ptxjitcompiler",
    "libnvidia-cfg",
];

/// `NVSwitch`es as PCI functions, by the compute capability of the GPUs behind them: device id, and how many a board of
/// eight GPUs has. Later boards show none.
const SWITCHES: [(ComputeCapability, u16, usize); 2] = [
    (ComputeCapability { major: 8, minor: 0 }, 0x1af1, 6),
    (ComputeCapability { major: 9, minor: 0 }, 0x22a3, 4),
];

/// The kernel's list of the memory windows of a function: registers, memory (BAR1), and a small one. From Hopper on
/// all are of 64 bits, so the numbers are even. Addresses are made up, one TiB for each bus.
fn resource(gpu: &GpuState) -> String {
    const PREFETCHABLE_64: u64 = 0x0014_220c;
    let base = u64::from(gpu.pci.address.bus) << 40;
    let memory = gpu
        .base
        .bar1_total_bytes
        .value()
        .copied()
        .unwrap_or(256 << 20)
        .clamp(1, 1 << 39);
    let window = |start: u64, size: u64, flags: u64| (start, start + size - 1, flags);
    let low = u64::from(gpu.pci.address.bus) << 24 | 0x8000_0000;
    let (memory, small) = (
        window(base + (1 << 39), memory, PREFETCHABLE_64),
        window(base + (1 << 38), 32 << 20, PREFETCHABLE_64),
    );
    let none = (0, 0, 0);
    let lines = if gpu.card.compute_capability.major >= 9 {
        let registers = window(base + (1 << 37), 16 << 20, PREFETCHABLE_64);
        [registers, none, memory, none, small, none]
    } else {
        let registers = window(low, 16 << 20, 0x0004_0200);
        [registers, memory, none, small, none, none]
    };
    let lines: Vec<String> = lines
        .iter()
        .chain([&none; 7])
        .map(|(start, end, flags)| format!("{start:#018x} {end:#018x} {flags:#018x}"))
        .collect();
    lines.join("\n")
}

/// All files of one moment. Directories follow from them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    /// The files that follow from this state.
    pub(crate) fn of(state: &State) -> Self {
        let mut tree = Self::default();
        for gpu in &state.gpus {
            tree.add_pci(gpu, state.driver.missing);
        }
        if state.nvswitch {
            tree.add_switches(state);
        }
        if !state.driver.missing {
            tree.add_driver(state);
            tree.add_libraries(state);
            for gpu in &state.gpus {
                tree.add_gpu(gpu, state);
            }
        }
        tree
    }

    pub(crate) fn add(&mut self, path: impl Into<PathBuf>, node: Node) {
        self.0.insert(path.into(), node);
    }

    /// An ordinary file.
    pub(crate) fn file(&mut self, path: impl Into<PathBuf>, text: String) {
        let size = text.len() as u64;
        self.add(path, Node::File { size, text });
    }

    pub(crate) fn link(&mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) {
        self.add(path, Node::Link(target.into()));
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
        self.sys(format!("{dir}/resource"), resource(gpu));
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

    /// The driver's libraries that others look for, as empty files with the names and links of real ones.
    fn add_libraries(&mut self, state: &State) {
        let (dir, version) = (&state.driver.libraries, &state.driver.version);
        for name in LIBRARIES {
            let file = format!("{name}.so.{version}");
            self.file(dir.join(&file), String::new());
            self.link(dir.join(format!("{name}.so.1")), file);
            self.link(dir.join(format!("{name}.so")), format!("{name}.so.1"));
        }
        // The package that the module on disk was built from.
        self.file(
            format!("/usr/src/nvidia-{version}/dkms.conf"),
            format!("PACKAGE_NAME=\"nvidia\"\nPACKAGE_VERSION=\"{version}\"\n"),
        );
    }

    /// The switches on the PCI bus where they are there to be seen, and Fabric Manager, without which no CUDA program
    /// starts on such a machine.
    fn add_switches(&mut self, state: &State) {
        let compute = state.gpus.first().map(|gpu| gpu.card.compute_capability);
        let Some((_, device, count)) = SWITCHES.iter().find(|(of, ..)| Some(*of) == compute) else {
            return;
        };
        let taken: Vec<u8> = state.gpus.iter().map(|gpu| gpu.pci.address.bus).collect();
        let free = (0..=u8::MAX)
            .rev()
            .filter(|bus| !taken.contains(bus))
            .take(*count);
        for bus in free {
            let address = PciAddress {
                domain: 0,
                bus,
                device: 0,
                function: 0,
            };
            let dir = format!("/sys/bus/pci/devices/{address}");
            self.sys(format!("{dir}/vendor"), format!("{NVIDIA_VENDOR_ID:#06x}"));
            self.sys(format!("{dir}/device"), format!("{device:#06x}"));
            self.sys(format!("{dir}/class"), "0x068000".to_owned());
        }
        if !state.driver.missing {
            let unit = "/usr/lib/systemd/system/nvidia-fabricmanager.service";
            self.file(
                unit,
                "[Unit]\nDescription=NVIDIA fabric manager service\n".to_owned(),
            );
            self.link(
                "/etc/systemd/system/multi-user.target.wants/nvidia-fabricmanager.service",
                unit,
            );
            self.file(
                "/run/nvidia-fabricmanager/nv-fabricmanager.pid",
                "1234\n".to_owned(),
            );
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
        for instance in &gpu.instances {
            let gi = instance.id;
            self.capability(
                &format!("gpu{minor}/mig/gi{gi}/access"),
                gpu_instance_minor(minor, gi),
                0o444,
            );
            for compute in &instance.compute {
                let ci = compute.id;
                let access = format!("gpu{minor}/mig/gi{gi}/ci{ci}/access");
                self.capability(&access, compute_instance_minor(minor, gi, ci), 0o444);
            }
        }
    }

    /// What is at this very path, no link followed.
    pub(crate) fn get(&self, path: &Path) -> Option<&Node> {
        self.0.get(path)
    }

    /// Everything below a path.
    pub(crate) fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        let after: (Bound<&Path>, Bound<&Path>) = (Bound::Excluded(path), Bound::Unbounded);
        self.0
            .range::<Path, _>(after)
            .take_while(move |(known, _)| known.starts_with(path))
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&PathBuf, &Node)> {
        self.0.iter()
    }

    /// Takes away a path and all below it.
    pub(crate) fn remove(&mut self, path: &Path) {
        self.0.retain(|known, _| !known.starts_with(path));
    }
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
