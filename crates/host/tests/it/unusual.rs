//! Nodes that differ from the usual one in the way that a test's name says.

use pitcrew_core::Reading;
use pitcrew_host::Host;
use pitcrew_host::facts::{CgroupVersion, DistributionKind, Role, SeLinux, Service};
use pitcrew_host::process::{Pods, Process};
use pitcrew_scenario::HostRoot;

fn root(text: &str) -> HostRoot {
    HostRoot::parse(text, "test", &|name| {
        HostRoot::builtin_text(name).map(str::to_owned)
    })
    .unwrap()
}

fn gather(text: &str) -> Host {
    Host::gather(&root(text))
}

/// A value, of which the test says that it is there.
fn of<T>(reading: &Reading<T>) -> &T {
    reading.value().unwrap()
}

#[test]
fn a_moved_data_directory_is_found_in_the_configuration() {
    let host = gather(
        "
description: x
like: rke2
remove: [/var/lib/rancher]
files:
  /etc/rancher/rke2/config.yaml: 'token: x'
  /etc/rancher/rke2/config.yaml.d/50-data.yaml: |
    data-dir: /data/rke2
    profile: cis
    selinux: true
    default-runtime: nvidia
    kubelet-arg: [root-dir=/data/kubelet]
  /data/rke2/agent/etc/containerd/config.toml: 'version = 2'
  /data/rke2/agent/containerd/containerd.log: ''
links: {/data/rke2/bin: /data/rke2/data/v1.28.15-rke2r1-fa9ff3a3a1b5/bin}
sockets: [/data/kubelet/device-plugins/kubelet.sock, /data/kubelet/device-plugins/nvidia-gpu.sock]
",
    );
    let distribution = of(&host.distribution);
    assert_eq!(distribution.data_dir.to_str(), Some("/data/rke2"));
    assert!(distribution.data_dir_moved);
    assert_eq!(of(&distribution.version).to_string(), "1.28.15+rke2r1");
    assert_eq!(distribution.profile, Reading::Value("cis".to_owned()));
    assert_eq!(distribution.selinux, Reading::Value(true));
    assert_eq!(distribution.default_runtime, Reading::Value("nvidia".to_owned()));
    assert_eq!(distribution.ships_runtime_class, Reading::NotSupported);
    let containerd = of(&host.containerd);
    assert_eq!(
        containerd.config_path.to_str(),
        Some("/data/rke2/agent/etc/containerd/config.toml")
    );
    assert_eq!(containerd.version_source, "the release that ships it");
    assert_eq!(of(&containerd.version).minor, 7);
    assert_eq!(of(&containerd.config).version, 2);
    assert_eq!(host.kubelet.root.to_str(), Some("/data/kubelet"));
    assert_eq!(host.kubelet.plugin_sockets, ["nvidia-gpu.sock"]);
    assert_eq!(host.foreign.device_plugin, ["nvidia-gpu.sock"]);
}

#[test]
fn a_moved_data_directory_is_found_by_the_containerd_that_runs() {
    let host = gather(
        r#"
description: x
like: k3s
files:
  /proc/1/comm: "systemd\n"
  /proc/4242/comm: "containerd\n"
  /proc/4242/cmdline: "containerd\0-c\0/srv/k3s/agent/etc/containerd/config.toml\0"
"#,
    );
    assert_eq!(of(&host.distribution).data_dir.to_str(), Some("/srv/k3s"));
    assert!(of(&host.distribution).data_dir_moved);
}

#[test]
fn a_moved_data_directory_is_found_in_the_units_command_and_environment() {
    let unit = "
description: x
like: k3s
files:
  /etc/systemd/system/k3s.service: |
    [Service]
    EnvironmentFile=-/etc/systemd/system/k3s.service.env
    ExecStart=/usr/local/bin/k3s \\
        server \\
";
    let by_flag = gather(&format!(
        "{unit}        '--data-dir' \\\n            '/srv/a' \\\n"
    ));
    assert_eq!(of(&by_flag.distribution).data_dir.to_str(), Some("/srv/a"));
    let by_variable = gather(&format!(
        "{unit}\n  /etc/systemd/system/k3s.service.env: K3S_DATA_DIR=/srv/b\n"
    ));
    assert_eq!(of(&by_variable.distribution).data_dir.to_str(), Some("/srv/b"));
}

#[test]
fn a_configuration_that_may_not_be_read_hides_no_distribution() {
    let host = gather("{description: x, like: rke2, unreadable: [/etc/rancher/rke2/config.yaml]}");
    let distribution = of(&host.distribution);
    assert_eq!(distribution.kind, DistributionKind::Rke2);
    assert_eq!(
        distribution.profile.failure(),
        Some("`/etc/rancher/rke2/config.yaml` can't be read: permission denied")
    );
}

#[test]
fn a_server_enforces_the_level_in_rke2s_own_file() {
    let host = gather(
        "
description: x
like: rke2
remove: [/sys/fs/cgroup/system.slice/rke2-agent.service, /etc/systemd/system/multi-user.target.wants/rke2-agent.service]
files:
  /usr/local/lib/systemd/system/rke2-server.service: '[Service]'
  /etc/rancher/rke2/rke2-pss.yaml: 'plugins: [{name: PodSecurity, configuration: {defaults: {enforce: restricted}}}]'
directories: [/sys/fs/cgroup/system.slice/rke2-server.service]
",
    );
    let distribution = of(&host.distribution);
    assert_eq!(distribution.role, Role::Server);
    assert_eq!(distribution.unit, Reading::Value("rke2-server".to_owned()));
    assert_eq!(distribution.pod_security, Reading::Value("restricted".to_owned()));
}

#[test]
fn kubeadm_is_known_by_its_kubelet_and_its_packages() {
    let host = gather(
        "
description: x
files:
  /etc/kubernetes/kubelet.conf: ''
  /var/lib/kubelet/kubeadm-flags.env: 'KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/containerd/containerd.sock --root-dir=/kubelet\"'
  /etc/containerd/config.toml: 'version = 2'
  /etc/containerd/conf.d/99-nvidia.toml: 'version = 2'
  /usr/bin/containerd: ''
  /var/lib/dpkg/status: |
    Package: kubelet
    Status: hold ok installed
    Version: 1.31.2-1.1

    Package: containerd.io
    Status: install ok installed
    Version: 1.7.24-1
sockets: [/run/containerd/containerd.sock]
",
    );
    let distribution = of(&host.distribution);
    assert_eq!(
        (distribution.kind, distribution.role),
        (DistributionKind::Kubeadm, Role::Agent)
    );
    assert_eq!(of(&distribution.version).to_string(), "1.31.2");
    let containerd = of(&host.containerd);
    assert!(containerd.is_running);
    assert_eq!(of(&containerd.version).to_string(), "1.7.24");
    assert_eq!(containerd.drop_ins.len(), 1);
    assert!(!containerd.drop_ins[0].imported);
    assert_eq!(host.kubelet.root.to_str(), Some("/kubelet"));
}

#[test]
fn the_runtime_of_a_node_with_crio_or_docker_is_not_known_and_not_absent() {
    let host = gather(
        "
description: x
files:
  /etc/kubernetes/kubelet.conf: ''
  /var/lib/kubelet/kubeadm-flags.env: 'KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/crio/crio.sock\"'
",
    );
    assert_eq!(
        host.containerd.failure(),
        Some("the kubelet is told to use `/var/run/crio/crio.sock`, and only containerd is known here")
    );
    let docker = gather("{description: x, like: k3s, files: {/etc/rancher/k3s/config.yaml: 'docker: true'}}");
    assert!(docker.containerd.failure().unwrap().contains("`docker`"));
}

#[test]
fn templates_drop_ins_and_runtimes_are_those_of_the_next_start() {
    let host = gather(
        r#"
description: x
like: rke2
files:
  /var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.d/10-own.toml: 'version = 3'
  /var/lib/rancher/rke2/agent/etc/containerd/config.toml.d/old.toml: 'version = 2'
  /var/lib/rancher/rke2/agent/etc/containerd/config.toml.tmpl: '{{ template "base" . }}'
  /usr/bin/nvidia-container-runtime: ''
  /usr/local/nvidia/toolkit/nvidia-container-runtime: "\x23! /bin/sh"
  /usr/local/nvidia/toolkit/nvidia-container-runtime.cdi: "\x23! /bin/sh"
  /run/nvidia/validations/driver-ready: ''
"#,
    );
    let containerd = of(&host.containerd);
    let drop_ins: Vec<_> = containerd
        .drop_ins
        .iter()
        .map(|drop_in| {
            (
                drop_in.path.file_name().unwrap().to_str().unwrap(),
                drop_in.imported,
            )
        })
        .collect();
    assert_eq!(drop_ins, [("10-own.toml", true), ("old.toml", false)]);
    assert_eq!(containerd.templates.len(), 1);
    let runtimes: Vec<_> = containerd
        .detected_runtimes
        .iter()
        .map(|(handler, path)| format!("{handler} {}", path.display()))
        .collect();
    assert_eq!(
        runtimes,
        [
            "nvidia /usr/local/nvidia/toolkit/nvidia-container-runtime",
            "nvidia-cdi /usr/local/nvidia/toolkit/nvidia-container-runtime.cdi"
        ]
    );
    assert!(host.foreign.toolkit.is_some());
    assert_eq!(host.foreign.validations, ["driver-ready"]);
}

#[test]
fn our_own_wrapper_is_no_trace_of_nvidias() {
    let host = gather(
        r#"{description: x, like: rke2, files: {/usr/local/nvidia/toolkit/nvidia-container-runtime: "\x7fELF"}}"#,
    );
    assert_eq!(host.foreign.toolkit, None);
}

#[test]
fn libraries_of_other_versions_are_told_beside_the_one_in_use() {
    let host = gather(
        "
description: x
like: rke2
scenario: rtx3060
files:
  /usr/lib/x86_64-linux-gnu/libcuda.so.550.1.2: ''
  /usr/local/nvidia/lib64/libnvidia-ml.so.535.1.2: ''
links: {/usr/local/nvidia/lib64/libnvidia-ml.so.1: libnvidia-ml.so.535.1.2, /lib64: usr/lib64}
",
    );
    let versions: Vec<_> = host
        .driver
        .libraries
        .iter()
        .map(|it| {
            format!(
                "{} {} {} {}",
                it.directory.display(),
                of(&it.version),
                it.has_nvml,
                it.has_cuda
            )
        })
        .collect();
    assert_eq!(
        versions,
        [
            "/usr/lib/x86_64-linux-gnu 580.159.04 true true",
            "/usr/lib/x86_64-linux-gnu 550.1.2 false true",
            "/usr/local/nvidia/lib64 535.1.2 true false"
        ]
    );
}

#[test]
fn debians_alternatives_are_followed_to_the_version() {
    let host = gather(
        "
description: x
files:
  /usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.535.247.01: ''
links:
  /usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.1: libcuda.so.535.247.01
  /usr/lib/x86_64-linux-gnu/libcuda.so.1: /etc/alternatives/glx--libcuda.so.1-x86_64-linux-gnu
  /etc/alternatives/glx--libcuda.so.1-x86_64-linux-gnu: /usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.1
",
    );
    let directories: Vec<_> = host
        .driver
        .libraries
        .iter()
        .map(|it| it.directory.to_str().unwrap())
        .collect();
    assert_eq!(
        directories,
        [
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/x86_64-linux-gnu/nvidia/current"
        ]
    );
    assert!(
        host.driver
            .libraries
            .iter()
            .all(|it| of(&it.version) == "535.247.01")
    );
}

#[test]
fn a_gpu_that_vfio_holds_is_seen_with_its_group() {
    let host = gather(
        "
description: x
scenario: rtx3060
links:
  /sys/bus/pci/devices/0000:01:00.0/driver: ../../../../bus/pci/drivers/vfio-pci
  /sys/bus/pci/devices/0000:01:00.0/iommu_group: ../../../../kernel/iommu_groups/17
directories: [/sys/kernel/iommu_groups/17]
files:
  /sys/class/dmi/id/sys_vendor: QEMU
  /sys/class/dmi/id/product_name: Standard PC (Q35 + ICH9, 2009)
  /proc/mounts: |
    tmpfs /sys/fs/cgroup tmpfs ro 0 0
    cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
",
    );
    let gpu = &of(&host.gpus)[0];
    assert_eq!(gpu.driver, Reading::Value("vfio-pci".to_owned()));
    assert_eq!(gpu.iommu_group, Reading::Value(17));
    assert_eq!(gpu.unassigned_bars, Reading::Value(vec![]));
    assert_eq!(host.system.iommu_groups, Reading::Value(1));
    assert_eq!(host.system.hypervisor, Reading::Value("QEMU/KVM".to_owned()));
    assert_eq!(host.system.cgroup, Reading::Value(CgroupVersion::V1));
    assert_eq!(host.distribution, Reading::NotSupported);
}

#[test]
fn a_hardened_red_hat_is_seen_with_its_denials() {
    let host = gather(
        "
description: x
like: rke2
files:
  /sys/fs/selinux/enforce: '1'
  /usr/lib/systemd/system/fapolicyd.service: ''
  /proc/sys/crypto/fips_enabled: \"1\\n\"
  /var/log/audit/audit.log: |
    type=AVC msg=audit(1700000000.123:456): avc:  denied  { read } for  pid=1 comm=\"nvidia-smi\" path=\"/dev/nvidiactl\"
    type=USER_LOGIN msg=audit(1700000000.123:457): nvidia
links:
  /etc/systemd/system/multi-user.target.wants/fapolicyd.service: /usr/lib/systemd/system/fapolicyd.service
",
    );
    assert_eq!(host.security.selinux, Reading::Value(SeLinux::Enforcing));
    assert_eq!(host.security.fapolicyd, Reading::Value(true));
    assert_eq!(host.security.fips, Reading::Value(true));
    assert_eq!(of(&host.security.denials).len(), 1);
}

#[test]
fn specifications_of_cdi_are_held_against_the_node() {
    let host = gather(
        r#"
description: x
like: rke2
scenario: rtx3060
files:
  /run/cdi/nvidia.yaml: |
    cdiVersion: 0.5.0
    kind: nvidia.com/gpu
    devices: [{name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0}, {path: /dev/nvidia7}]}}]
    containerEdits:
      mounts: [{hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.570.1.2, containerPath: /x}]
  /etc/cdi/broken.json: '{'
  /etc/cdi/readme.txt: ''
  /usr/lib/systemd/system/nvidia-cdi-refresh.path: ''
links:
  /etc/systemd/system/multi-user.target.wants/nvidia-cdi-refresh.path: /usr/lib/systemd/system/nvidia-cdi-refresh.path
"#,
    );
    let paths: Vec<_> = host.cdi.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/etc/cdi/broken.json", "/var/run/cdi/nvidia.yaml"]);
    assert!(host.cdi[0].spec.failure().is_some());
    let spec = of(&host.cdi[1].spec);
    assert_eq!(spec.driver_version.as_deref(), Some("570.1.2"));
    let missing: Vec<_> = spec
        .missing_paths
        .iter()
        .map(|path| path.to_str().unwrap())
        .collect();
    assert_eq!(
        missing,
        ["/dev/nvidia7", "/usr/lib/x86_64-linux-gnu/libcuda.so.570.1.2"]
    );
    assert_eq!(host.services.cdi_refresh, Service::Enabled);
}

#[test]
fn a_module_on_disk_is_told_by_dkms_or_by_itself() {
    let dkms = gather(
        "
description: x
files:
  /proc/sys/kernel/osrelease: 5.14.0-503.el9.x86_64
  /lib/modules/5.14.0-503.el9.x86_64/extra/nvidia.ko.xz: ''
  /var/lib/dkms/nvidia/570.1.2/5.14.0-503.el9.x86_64/x86_64/module/nvidia.ko.xz: ''
  /var/lib/dkms/nvidia/580.1.2/source: ''
",
    );
    assert_eq!(dkms.driver.module_on_disk, Reading::Value("570.1.2".to_owned()));
    let twice = gather(
        "
description: x
files:
  /proc/sys/kernel/osrelease: 6.4.0
  /lib/modules/6.4.0/updates/dkms/nvidia.ko.zst: ''
  /var/lib/dkms/nvidia/570.1.2/6.4.0/x86_64/module/nvidia.ko.zst: ''
  /var/lib/dkms/nvidia-open/580.1.2/6.4.0/x86_64/module/nvidia.ko.zst: ''
",
    );
    assert_eq!(
        twice.driver.module_on_disk.failure(),
        Some(
            "`/lib/modules/6.4.0/updates/dkms/nvidia.ko.zst` is there, its version can't be told from here (it is \
             one of 570.1.2, 580.1.2): ask `modinfo -F version nvidia`"
        ),
        "either can be the one that is installed"
    );
    let itself = gather(
        r#"
description: x
files:
  /proc/sys/kernel/osrelease: 6.4.0
  /lib/modules/6.4.0/updates/nvidia.ko: "\x7fELF\0srcversion=1\0version=580.9.8\0license=Dual MIT/GPL\0"
  /var/lib/dkms/nvidia/570.1.2/6.4.0/x86_64/module/nvidia.ko.zst: ''
"#,
    );
    assert_eq!(itself.driver.module_on_disk, Reading::Value("580.9.8".to_owned()));
    let unknown = gather(
        "{description: x, files: {/proc/sys/kernel/osrelease: '6.4.0', /lib/modules/6.4.0/extra/nvidia-580/nvidia.ko.zst: ''}}",
    );
    assert!(unknown.driver.module_on_disk.failure().is_some());
}

#[test]
fn a_process_is_led_back_to_its_pod_and_container() {
    let uid = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let group = uid.replace('-', "_");
    let root = root(&format!(
        r#"
description: x
files:
  /etc/passwd: "root:x:0:0::/root:/bin/sh\n"
  /proc/4711/cmdline: "/usr/bin/python3\0train.py\0"
  /proc/4711/comm: "python3\n"
  /proc/4711/status: "Name:\tpython3\nUid:\t0\t0\t0\t0\n"
  /proc/4711/cgroup: "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{group}.slice/cri-containerd-{id}.scope\n"
directories: [/var/log/pods/ml_trainer-0_{uid}/main]
links: {{/var/log/containers/trainer-0_ml_main-{id}.log: /var/log/pods/ml_trainer-0_{uid}/main/0.log}}
"#
    ));
    let process = Process::read(&root, 4711);
    assert_eq!(process.name, Reading::Value("python3".to_owned()));
    assert_eq!(process.user, Reading::Value("root".to_owned()));
    let membership = of(&process.membership);
    let pods = Pods::read(&root);
    let pod = pods.pod(&membership.pod_uid).unwrap();
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("ml", "trainer-0"));
    assert_eq!(
        pods.container(membership.container_id.as_deref().unwrap()),
        Some("main")
    );
    let gone = Process::read(&root, 1);
    assert_eq!(
        gone.membership.failure(),
        Some("there is no process 1 on this node")
    );
}

#[test]
fn a_template_in_a_directory_that_may_not_be_looked_into_is_not_absent() {
    let host = gather("{description: x, like: k3s, unreadable: [/var/lib/rancher/k3s/agent/etc/containerd]}");
    let templates = &of(&host.containerd).templates;
    assert!(!templates.is_empty());
    assert!(templates.iter().all(|template| {
        template
            .text
            .failure()
            .is_some_and(|why| why.contains("permission denied"))
    }));
}

#[test]
fn modules_are_found_where_the_packages_of_debian_red_hat_and_suse_put_them() {
    for module in [
        "updates/dkms/nvidia-current.ko",
        "extra/drivers/video/nvidia/nvidia.ko",
        "weak-updates/drivers/video/nvidia/nvidia.ko",
        "weak-updates/updates/nvidia.ko",
    ] {
        let host = gather(&format!(
            "
description: x
files:
  /proc/sys/kernel/osrelease: '6.1.0-28-amd64'
  /lib/modules/6.1.0-28-amd64/{module}: \"\\0version=550.163.01\\0\"
"
        ));
        assert_eq!(
            host.driver.module_on_disk,
            Reading::Value("550.163.01".to_owned()),
            "{module}"
        );
    }
}

#[test]
fn a_flag_goes_before_a_file_and_a_file_before_the_environment() {
    let host = gather(
        "
description: x
files:
  /usr/local/bin/k3s: ''
  /etc/systemd/system/k3s.service: |
    [Service]
    Environment=K3S_CONFIG_FILE=/etc/named.yaml K3S_DATA_DIR=/of/environment K3S_SELINUX=true
    ExecStart=/usr/local/bin/k3s server --config /etc/ignored.yaml --profile etcd --kubelet-arg v=2
  /etc/ignored.yaml: 'data-dir: /ignored'
  /etc/named.yaml: |
    data-dir: /of/file
    profile: cis
    kubelet-arg: [root-dir=/kubelet]
links: {/etc/systemd/system/multi-user.target.wants/k3s.service: /etc/systemd/system/k3s.service}
",
    );
    let distribution = of(&host.distribution);
    assert_eq!(distribution.data_dir.to_str(), Some("/of/file"));
    assert_eq!(distribution.profile, Reading::Value("etcd".to_owned()));
    assert_eq!(distribution.selinux, Reading::Value(true));
    assert_eq!(
        host.kubelet.root.to_str(),
        Some("/kubelet"),
        "a flag adds to the list"
    );
}
