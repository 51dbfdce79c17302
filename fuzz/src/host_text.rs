//! Texts and tables of a host: whatever they hold, each parser answers, and what it takes stays within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pitcrew_host::{
    cdi, devices, distribution, driver, kubelet, ldcache, packages, pci, process, runtime, security, system, systemd,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = ldcache::parse(bytes);
    let _ = system::parse_secure_boot(bytes);
    let _ = distribution::parse_k3s_version(bytes);
    let _ = distribution::parse_containerd_command(bytes);
    if let Ok(Some(capability)) = pci::vendor_capability(bytes) {
        let _ = pci::parse_vgpu(capability);
    }
    let _ = pci::parse_vgpu(bytes);
    let _ = kubelet::parse_held(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = system::parse_os_release(text);
    let _ = system::cgroup_version(&system::parse_mounts(text));
    let _ = system::parse_lockdown(text);
    assert!(pci::unassigned_bars(text).iter().all(|&bar| bar < 6));
    let _ = driver::parse_modules(text);
    let _ = driver::parse_version(text);
    let _ = driver::blacklists_nouveau(text);
    let _ = devices::parse_devices(text);
    assert!(security::denials(text).len() <= 10);
    let _ = systemd::words(text);
    let _ = systemd::values(text, "ExecStart");
    let _ = systemd::environment(text);
    let _ = distribution::parse_data_digest(text);
    let _ = distribution::parse_pod_security(text);
    let _ = distribution::Settings::default().add_file(text);
    let _ = packages::dpkg_version(text, "containerd");
    let _ = runtime::parse_start(text);
    let _ = kubelet::parse_checkpoint(text);
    let _ = cdi::parse(text);
    if let Some(found) = process::parse_cgroup(text) {
        assert!(found.container_id.is_none_or(|id| id.len() == 64));
    }
    let _ = process::parse_pod_directory(text);
    let _ = process::parse_container_log(text);
    let _ = process::parse_uid(text);
    let _ = process::user_name(text, 0);
});
