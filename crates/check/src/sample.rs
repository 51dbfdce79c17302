//! A healthy node for tests, and ways to make it ill.

use std::path::PathBuf;

use pitcrew_core::Reading;
use pitcrew_core::pci::{NVIDIA_VENDOR_ID, PciFunction};
use pitcrew_host::Host;
use pitcrew_host::facts::{
    CgroupVersion, Containerd, ContainerdConfig, DeviceNode, DeviceNodes, Distribution, DistributionKind,
    Driver, DriverLibraries, Foreign, Kubelet, OsRelease, PciGpu, Role, Security, Service, Services, System,
};

/// An RKE2 1.36 agent on Ubuntu 24.04 with one RTX 3060 and driver 580.
pub(crate) fn host() -> Sample {
    Sample(Host {
        system: System {
            os: Reading::Value(os("ubuntu", "24.04")),
            kernel: text("6.8.0-45-generic"),
            cgroup: Reading::Value(CgroupVersion::V2),
            secure_boot: Reading::Value(false),
            lockdown: text("none"),
            hypervisor: Reading::NotSupported,
            iommu_groups: Reading::Value(0),
            usr_read_only: Reading::Value(false),
            machine: Reading::NotSupported,
            command_line: Reading::Value(vec!["quiet".to_owned()]),
        },
        gpus: Reading::Value(vec![gpu("0000:01:00.0", 0x2503)]),
        nvswitches: Reading::Value(0),
        driver: Driver {
            loaded_modules: Reading::Value(vec![
                "nvidia".to_owned(),
                "nvidia_uvm".to_owned(),
                "nvidia_modeset".to_owned(),
            ]),
            kernel_version: text("580.159.04"),
            open_kernel_modules: Reading::Value(true),
            module_on_disk: text("580.159.04"),
            nouveau_blacklisted: Reading::Value(true),
            libraries: vec![libraries("/usr/lib/x86_64-linux-gnu", "580.159.04")],
            container_root: None,
        },
        devices: DeviceNodes {
            nodes: vec![
                node("/dev/nvidia0", 195, 0),
                node("/dev/nvidiactl", 195, 255),
                node("/dev/nvidia-modeset", 195, 254),
                node("/dev/nvidia-uvm", 238, 0),
                node("/dev/nvidia-uvm-tools", 238, 1),
            ],
            majors: Reading::Value(vec![
                ("nvidia".to_owned(), 195),
                ("nvidiactl".to_owned(), 195),
                ("nvidia-uvm".to_owned(), 238),
            ]),
        },
        security: Security {
            selinux: Reading::NotSupported,
            fapolicyd: Reading::NotSupported,
            denials: Reading::NotSupported,
            fips: Reading::Value(false),
        },
        services: Services {
            fabric_manager: Service::Absent,
            persistenced: Service::Running,
            cdi_refresh: Service::Absent,
            imex: Service::Absent,
        },
        distribution: Reading::Value(distribution(DistributionKind::Rke2, Role::Agent, "1.36.2+rke2r1")),
        containerd: Reading::Value(containerd("2.3.2")),
        cdi: Vec::new(),
        kubelet: Kubelet {
            root: "/var/lib/kubelet".into(),
            device_plugin_socket: Reading::Value(true),
            pod_resources_socket: Reading::Value(true),
            plugin_sockets: Vec::new(),
            registered_resources: Reading::Value(Vec::new()),
        },
        foreign: Foreign {
            toolkit: None,
            validations: Vec::new(),
            device_plugin: Vec::new(),
            host_toolkit: None,
        },
    })
}

/// A node that can still be changed.
pub(crate) struct Sample(Host);

impl Sample {
    pub(crate) fn build(self) -> Host {
        self.0
    }

    /// Changes anything.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Host)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn os(self, id: &str, version: &str) -> Self {
        self.with(|host| host.system.os = Reading::Value(os(id, version)))
    }

    pub(crate) fn distribution(self, kind: DistributionKind, role: Role) -> Self {
        let version = match kind {
            DistributionKind::Rke2 => "1.36.2+rke2r1",
            DistributionKind::K3s => "1.36.2+k3s1",
            DistributionKind::Kubeadm | DistributionKind::None => "1.34.1",
        };
        self.with(|host| host.distribution = Reading::Value(distribution(kind, role, version)))
    }

    pub(crate) fn release(self, kind: DistributionKind, version: &str, containerd_version: &str) -> Self {
        self.with(|host| {
            host.distribution = Reading::Value(distribution(kind, Role::Agent, version));
            host.containerd = Reading::Value(containerd(containerd_version));
        })
    }

    /// Changes the container runtime.
    pub(crate) fn containerd(self, change: impl FnOnce(&mut Containerd)) -> Self {
        self.with(|host| {
            if let Reading::Value(containerd) = &mut host.containerd {
                change(containerd);
            }
        })
    }

    /// Changes what its configuration says.
    pub(crate) fn config(self, change: impl FnOnce(&mut ContainerdConfig)) -> Self {
        self.containerd(|containerd| {
            if let Reading::Value(config) = &mut containerd.config {
                change(config);
            }
        })
    }

    pub(crate) fn gpus(self, gpus: Vec<PciGpu>) -> Self {
        self.with(|host| host.gpus = Reading::Value(gpus))
    }

    pub(crate) fn driver(self, version: &str, open: bool) -> Self {
        self.with(|host| {
            host.driver.kernel_version = text(version);
            host.driver.open_kernel_modules = Reading::Value(open);
            host.driver.module_on_disk = text(version);
            host.driver.libraries = vec![libraries("/usr/lib/x86_64-linux-gnu", version)];
        })
    }

    /// Takes the driver away: nothing loaded, no library, no device node.
    pub(crate) fn no_driver(self) -> Self {
        self.with(|host| {
            host.driver.loaded_modules = Reading::Value(Vec::new());
            host.driver.kernel_version = Reading::NotSupported;
            host.driver.open_kernel_modules = Reading::NotSupported;
            host.driver.module_on_disk = Reading::NotSupported;
            host.driver.libraries.clear();
            host.devices.nodes.clear();
            host.devices.majors = Reading::Value(Vec::new());
            host.services.persistenced = Service::Absent;
            if let Reading::Value(gpus) = &mut host.gpus {
                for gpu in gpus {
                    gpu.driver = Reading::NotSupported;
                }
            }
        })
    }
}

pub(crate) fn text(text: &str) -> Reading<String> {
    Reading::Value(text.to_owned())
}

pub(crate) fn os(id: &str, version: &str) -> OsRelease {
    let like: &[&str] = match id {
        "ubuntu" => &["debian"],
        "rocky" => &["rhel", "centos", "fedora"],
        "rhel" => &["fedora"],
        "sles" | "sle-micro" => &["suse"],
        _ => &[],
    };
    OsRelease {
        id: id.to_owned(),
        id_like: like.iter().map(|&it| it.to_owned()).collect(),
        version: version.to_owned(),
        pretty_name: format!("{id} {version}"),
    }
}

/// A GPU that NVIDIA's driver holds.
pub(crate) fn gpu(address: &str, device_id: u16) -> PciGpu {
    PciGpu {
        function: PciFunction {
            address: address.parse().unwrap(),
            vendor_id: NVIDIA_VENDOR_ID,
            device_id,
            subsystem_vendor_id: NVIDIA_VENDOR_ID,
            subsystem_device_id: 0x16c1,
        },
        class: 0x03_0200,
        driver: text("nvidia"),
        iommu_group: Reading::NotSupported,
        numa_node: Reading::Value(0),
        unassigned_bars: Reading::Value(Vec::new()),
        is_virtual_function: false,
        vgpu_host: Reading::NotSupported,
    }
}

/// The same, held by something else.
pub(crate) fn held_by(mut gpu: PciGpu, driver: &str) -> PciGpu {
    gpu.driver = text(driver);
    gpu
}

pub(crate) fn libraries(directory: &str, version: &str) -> DriverLibraries {
    DriverLibraries {
        directory: directory.into(),
        version: text(version),
        has_nvml: true,
        has_cuda: true,
        has_jit: true,
    }
}

pub(crate) fn node(path: &str, major: u32, minor: u32) -> DeviceNode {
    DeviceNode {
        path: path.into(),
        major,
        minor,
    }
}

fn distribution(kind: DistributionKind, role: Role, version: &str) -> Distribution {
    let (data_dir, unit) = match (kind, role) {
        (DistributionKind::Rke2, Role::Server) => ("/var/lib/rancher/rke2", "rke2-server"),
        (DistributionKind::Rke2, _) => ("/var/lib/rancher/rke2", "rke2-agent"),
        (DistributionKind::K3s, Role::Server) => ("/var/lib/rancher/k3s", "k3s"),
        (DistributionKind::K3s, _) => ("/var/lib/rancher/k3s", "k3s-agent"),
        (DistributionKind::Kubeadm | DistributionKind::None, _) => ("/var/lib/kubelet", "containerd"),
    };
    Distribution {
        kind,
        role,
        version: Reading::Value(version.parse().unwrap()),
        data_dir: data_dir.into(),
        data_dir_moved: false,
        unit: text(unit),
        profile: Reading::NotSupported,
        pod_security: Reading::NotSupported,
        selinux: Reading::Value(false),
        default_runtime: Reading::NotSupported,
        ships_runtime_class: Reading::Value(true),
    }
}

fn containerd(version: &str) -> Containerd {
    let dir = PathBuf::from("/var/lib/rancher/rke2/agent/etc/containerd");
    let generation = if version.starts_with('1') { 2 } else { 3 };
    Containerd {
        version: Reading::Value(version.parse().unwrap()),
        version_source: "its log",
        socket: "/run/k3s/containerd/containerd.sock".into(),
        is_running: true,
        binary: Reading::Value("/var/lib/rancher/rke2/bin/containerd".into()),
        config_path: dir.join("config.toml"),
        config: Reading::Value(ContainerdConfig {
            version: generation,
            handlers: vec![("runc".to_owned(), String::new())],
            default_handler: None,
            enable_cdi: None,
            cdi_dirs: None,
            nri_disabled: None,
            enable_selinux: None,
            imports: vec![dir.join("config-v3.toml.d/*.toml").display().to_string()],
        }),
        templates: Vec::new(),
        drop_ins: Vec::new(),
        detected_runtimes: Vec::new(),
    }
}
