//! The facts of one node, gathered once, as one value: what `check` judges.
//!
//! `Reading::NotSupported` means that the node has no such thing, `Failed` that it should have been readable and was
//! not (mostly: permission denied).

use std::path::PathBuf;

use pitcrew_core::Reading;
use pitcrew_core::labels::VgpuHost;
use pitcrew_core::pci::PciFunction;
use semver::Version;

/// Everything that is known of a node without asking the driver's library or the API server.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Operating system and kernel.
    pub system: System,
    /// NVIDIA GPUs on the PCI bus, by address.
    pub gpus: Reading<Vec<PciGpu>>,
    /// NVIDIA's `NVSwitch` bridges on the PCI bus (class 0x0680): where there are any, Fabric Manager must run.
    pub nvswitches: Reading<u32>,
    /// The driver's kernel modules and libraries.
    pub driver: Driver,
    /// Device nodes.
    pub devices: DeviceNodes,
    /// What may forbid what is allowed by mode bits.
    pub security: Security,
    /// Services of the host that matter to GPUs.
    pub services: Services,
    /// The Kubernetes distribution; `NotSupported` where there is none.
    pub distribution: Reading<Distribution>,
    /// The container runtime that the kubelet uses, or that would be used; `NotSupported` where there is none.
    pub containerd: Reading<Containerd>,
    /// CDI specifications that are there.
    pub cdi: Vec<CdiFile>,
    /// The kubelet's directories.
    pub kubelet: Kubelet,
    /// Traces of NVIDIA's GPU Operator and other stacks.
    pub foreign: Foreign,
}

/// Operating system and kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// `/etc/os-release`.
    pub os: Reading<OsRelease>,
    /// Release of the running kernel, e.g. `6.8.0-45-generic`.
    pub kernel: Reading<String>,
    /// Version of the control groups.
    pub cgroup: Reading<CgroupVersion>,
    /// Whether the firmware verifies what is booted (EFI variable `SecureBoot`); `NotSupported` without EFI.
    pub secure_boot: Reading<bool>,
    /// `/sys/kernel/security/lockdown`: `none`, `integrity` or `confidentiality`.
    pub lockdown: Reading<String>,
    /// The hypervisor under this machine; `NotSupported` on bare metal. A passed-through GPU is normal.
    pub hypervisor: Reading<String>,
    /// IOMMU groups there are: 0 where no IOMMU is in use.
    pub iommu_groups: Reading<u32>,
    /// True when `/usr` or `/` is mounted read-only (transactional and image-based systems).
    pub usr_read_only: Reading<bool>,
    /// What the firmware calls the machine (DMI `product_name`), e.g. `PowerEdge R760`.
    pub machine: Reading<String>,
    /// Words of the kernel command line.
    pub command_line: Reading<Vec<String>>,
}

/// What `/etc/os-release` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`, e.g. `ubuntu`, `sles`, `sle-micro`, `rhel`, `rocky`, `debian`.
    pub id: String,
    /// `ID_LIKE`, split.
    pub id_like: Vec<String>,
    /// `VERSION_ID`, e.g. `24.04`; empty where there is none.
    pub version: String,
    /// `PRETTY_NAME`.
    pub pretty_name: String,
}

/// Families of operating systems, which differ in how a package is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OsFamily {
    /// `apt`: Debian.
    Debian,
    /// `apt`, and `ubuntu-drivers`: Ubuntu.
    Ubuntu,
    /// `dnf`: RHEL, Rocky, Alma, Oracle, CentOS.
    RedHat,
    /// `zypper`: SLES, openSUSE Leap.
    Suse,
    /// `transactional-update`: SLE Micro, openSUSE MicroOS, SUSE Linux Micro.
    SuseTransactional,
    /// Something else.
    Other,
}

/// Version of the control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy, with legacy controllers beside it.
    Hybrid,
    /// One hierarchy for all.
    V2,
}

/// An NVIDIA GPU on the PCI bus. Known before any driver is there.
#[derive(Debug, Clone, PartialEq)]
pub struct PciGpu {
    /// Where it is, and what it says it is.
    pub function: PciFunction,
    /// Class code, e.g. 0x030200.
    pub class: u32,
    /// Kernel driver bound to it: `nvidia`, `nouveau`, `vfio-pci`, ...; `NotSupported` for none.
    pub driver: Reading<String>,
    /// IOMMU group; `NotSupported` without an IOMMU.
    pub iommu_group: Reading<u32>,
    /// NUMA node; `NotSupported` where the kernel says -1.
    pub numa_node: Reading<u32>,
    /// Numbers of the memory BARs that have a size and no address: the firmware had no room for them. Of a GPU whose
    /// `resource` file lists no memory BAR but 0, its registers, also 1.
    pub unassigned_bars: Reading<Vec<u8>>,
    /// True for a virtual function (vGPU by SR-IOV).
    pub is_virtual_function: bool,
    /// The driver of the host that this is a virtual GPU of; `NotSupported` for a real one, `Failed` also where only
    /// root may read it.
    pub vgpu_host: Reading<VgpuHost>,
}

/// The driver's kernel modules and libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Loaded kernel modules out of `nvidia`, `nvidia_uvm`, `nvidia_modeset`, `nvidia_drm`, `nvidia_peermem`,
    /// `nouveau`, `nova_core`, `vfio_pci`.
    pub loaded_modules: Reading<Vec<String>>,
    /// Version of the loaded kernel module, e.g. `580.159.04`; `NotSupported` where none is loaded.
    pub kernel_version: Reading<String>,
    /// True for NVIDIA's open kernel modules; `NotSupported` where none is loaded.
    pub open_kernel_modules: Reading<bool>,
    /// Version of `nvidia.ko` for the running kernel on disk, where it can be told (from its path or package);
    /// `NotSupported` where there is none.
    pub module_on_disk: Reading<String>,
    /// Whether `nouveau` is blacklisted in `modprobe.d` or on the kernel command line.
    pub nouveau_blacklisted: Reading<bool>,
    /// Where the driver's libraries were found; the first is the one that is used. Empty where there are none.
    pub libraries: Vec<DriverLibraries>,
    /// The root that the driver container of NVIDIA's operator would mount, where it is (`/run/nvidia/driver`).
    pub container_root: Option<PathBuf>,
}

/// The driver's libraries in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverLibraries {
    /// The directory, as on the host.
    pub directory: PathBuf,
    /// Version from the file that `libcuda.so.1` or `libnvidia-ml.so.1` stands for.
    pub version: Reading<String>,
    /// True where `libnvidia-ml.so.1` is there.
    pub has_nvml: bool,
    /// True where `libcuda.so.1` is there.
    pub has_cuda: bool,
    /// True where `libnvidia-ptxjitcompiler.so.1` is there.
    pub has_jit: bool,
}

/// Device nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNodes {
    /// Character devices `/dev/nvidia*`, by path.
    pub nodes: Vec<DeviceNode>,
    /// Character devices that drivers have registered, `/proc/devices`, out of those of NVIDIA.
    pub majors: Reading<Vec<(String, u32)>>,
}

/// One device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Its path.
    pub path: PathBuf,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// What may forbid what is allowed by mode bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// SELinux; `NotSupported` where the kernel has none.
    pub selinux: Reading<SeLinux>,
    /// Whether `fapolicyd` is installed, and enabled at boot.
    pub fapolicyd: Reading<bool>,
    /// Denials in the audit log that concern GPUs or container runtimes, newest last, at most ten.
    pub denials: Reading<Vec<String>>,
    /// True in FIPS mode.
    pub fips: Reading<bool>,
}

/// The mode of SELinux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeLinux {
    /// Denies.
    Enforcing,
    /// Only reports.
    Permissive,
}

/// Services of the host that matter to GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// `nvidia-fabricmanager.service`.
    pub fabric_manager: Service,
    /// `nvidia-persistenced.service`.
    pub persistenced: Service,
    /// `nvidia-cdi-refresh.service` or its `.path`, which write `/var/run/cdi/nvidia.yaml`.
    pub cdi_refresh: Service,
    /// `nvidia-imex.service`.
    pub imex: Service,
}

/// One service of systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// No unit file.
    Absent,
    /// There is a unit file; it doesn't start at boot, and nothing says that it runs.
    Installed,
    /// It starts at boot; nothing says that it runs now.
    Enabled,
    /// It runs: its socket, pid file or cgroup is there.
    Running,
}

/// A Kubernetes distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Which.
    pub kind: DistributionKind,
    /// Whether this node is a server, an agent, or can't be told.
    pub role: Role,
    /// Its version, e.g. `1.36.2+rke2r1`.
    pub version: Reading<Version>,
    /// The data directory, e.g. `/var/lib/rancher/rke2`; for others `/var/lib/kubelet`.
    pub data_dir: PathBuf,
    /// True when the data directory is not the usual one.
    pub data_dir_moved: bool,
    /// The systemd unit to restart, e.g. `rke2-agent`.
    pub unit: Reading<String>,
    /// `profile:` of the configuration (`cis`, ...); `NotSupported` for none.
    pub profile: Reading<String>,
    /// The default level of Pod Security that the API server of this node enforces; `NotSupported` on agents and
    /// where nothing is configured.
    pub pod_security: Reading<String>,
    /// `selinux: true` in the configuration.
    pub selinux: Reading<bool>,
    /// `default-runtime:` of the configuration; `NotSupported` for none.
    pub default_runtime: Reading<String>,
    /// Whether the distribution itself ships a `RuntimeClass` of name `nvidia` (from its version); `NotSupported` where it
    /// doesn't, `Failed` where the version is unknown.
    pub ships_runtime_class: Reading<bool>,
}

/// Which distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DistributionKind {
    /// RKE2.
    Rke2,
    /// K3s.
    K3s,
    /// Set up by kubeadm.
    Kubeadm,
    /// A container runtime and no Kubernetes.
    None,
}

/// Server or agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs the control plane.
    Server,
    /// Runs pods only.
    Agent,
    /// Can't be told.
    Unknown,
}

/// The container runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// Its version; `Failed` where it can't be told without asking it.
    pub version: Reading<Version>,
    /// Where the version was learned from, in words, e.g. `its log`.
    pub version_source: &'static str,
    /// Its socket's path; whether something listens is `is_running`.
    pub socket: PathBuf,
    /// True when the socket is there.
    pub is_running: bool,
    /// Its binary.
    pub binary: Reading<PathBuf>,
    /// The rendered configuration that is in force (or would be).
    pub config_path: PathBuf,
    /// What that configuration says; `NotSupported` where there is no file (defaults), `Failed` where it can't be read
    /// or parsed.
    pub config: Reading<ContainerdConfig>,
    /// Templates of the user beside it, RKE2 and K3s only; the first is the one that is used.
    pub templates: Vec<Template>,
    /// Files that `imports` names, or would be imported from the drop-in directories of RKE2 and K3s.
    pub drop_ins: Vec<DropIn>,
    /// Container runtimes that the supervisor of RKE2 or K3s finds at its next start, as handler and binary.
    pub detected_runtimes: Vec<(String, PathBuf)>,
}

/// What a configuration of containerd says that matters to GPUs, after its imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerdConfig {
    /// `version`; a file without one is 1.
    pub version: u32,
    /// Handlers, as name and binary; the binary is empty for the runtime's own default.
    pub handlers: Vec<(String, String)>,
    /// `default_runtime_name`; `None` for containerd's own default.
    pub default_handler: Option<String>,
    /// `enable_cdi`, as written; `None` for containerd's own default.
    pub enable_cdi: Option<bool>,
    /// `cdi_spec_dirs`, as written; `None` for containerd's own default.
    pub cdi_dirs: Option<Vec<String>>,
    /// `disable` of the NRI plugin, as written; `None` for containerd's own default.
    pub nri_disabled: Option<bool>,
    /// `enable_selinux`, as written.
    pub enable_selinux: Option<bool>,
    /// `imports`.
    pub imports: Vec<String>,
}

/// A template of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its path.
    pub path: PathBuf,
    /// Its text.
    pub text: Reading<String>,
}

/// A drop-in of containerd's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIn {
    /// Its path.
    pub path: PathBuf,
    /// Its text.
    pub text: Reading<String>,
    /// True when the rendered configuration imports it now.
    pub imported: bool,
}

/// A CDI specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiFile {
    /// Its path.
    pub path: PathBuf,
    /// What it says; `Failed` where it can't be read or parsed.
    pub spec: Reading<CdiSummary>,
}

/// What of a CDI specification concerns others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiSummary {
    /// `cdiVersion`.
    pub version: String,
    /// `kind`, e.g. `nvidia.com/gpu`.
    pub kind: String,
    /// Names of the devices.
    pub devices: Vec<String>,
    /// Host paths that it names (device nodes, mounts, hooks) and that are not there.
    pub missing_paths: Vec<PathBuf>,
    /// Version of the driver that its library mounts carry in their names, where one does.
    pub driver_version: Option<String>,
}

/// The kubelet's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubelet {
    /// Its root, `/var/lib/kubelet` unless moved.
    pub root: PathBuf,
    /// Whether `device-plugins/kubelet.sock` is there; `NotSupported` where the directory isn't.
    pub device_plugin_socket: Reading<bool>,
    /// Whether `pod-resources/kubelet.sock` is there; `NotSupported` where the directory isn't.
    pub pod_resources_socket: Reading<bool>,
    /// Sockets of device plugins there, without the kubelet's own.
    pub plugin_sockets: Vec<String>,
    /// Resources of device plugins that the kubelet's checkpoint knows, e.g. `nvidia.com/gpu`.
    pub registered_resources: Reading<Vec<String>>,
}

/// Traces of others that configure GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// NVIDIA's toolkit directory, `/usr/local/nvidia/toolkit`, where it holds NVIDIA's own files.
    pub toolkit: Option<PathBuf>,
    /// Marker files of the validator, `/run/nvidia/validations/*`.
    pub validations: Vec<String>,
    /// Sockets of an NVIDIA device plugin, a part of [`Kubelet::plugin_sockets`].
    pub device_plugin: Vec<String>,
    /// The host's own container toolkit (`nvidia-ctk`), where it is installed as a package.
    pub host_toolkit: Option<PathBuf>,
}
