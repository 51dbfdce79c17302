//! Whatever a file holds, its parser gives an answer.

use pitcrew_host::{
    cdi, devices, distribution, driver, kubelet, ldcache, packages, pci, process, runtime, security, system,
    systemd,
};
use proptest::prelude::*;

/// Lines of words that parsers look for, and anything.
fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("type=AVC msg=audit(1:2): denied nvidia"),
        Just("type=FANOTIFY msg=audit(1:2): resp=2"),
        Just("0x0000000000000000"),
        Just("0xffffffffffffffff"),
        Just("NVRM version:"),
        Just("580.159.04"),
        Just("cgroup2 /sys/fs/cgroup cgroup2 ro\\04"),
        Just("[integrity]"),
        Just("ExecStart=\\"),
        Just("blacklist nouveau"),
        Just("ID=\"\\"),
        Just("0::/kubepods-pod"),
        Just("Package: containerd"),
        Just("{\"Data\":"),
        Just("msg=\"starting containerd\" version=v1"),
        Just("Uid:"),
        Just("\n"),
        Just(" "),
        Just("="),
        Just(":"),
    ];
    let any = "\\PC{0,8}";
    proptest::collection::vec(prop_oneof![word.prop_map(str::to_owned), any], 0..20)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn every_parser_of_text_is_total(text in text()) {
        let _ = system::parse_os_release(&text);
        let _ = system::cgroup_version(&system::parse_mounts(&text));
        let _ = system::parse_secure_boot(text.as_bytes());
        let _ = system::parse_lockdown(&text);
        let _ = system::hypervisor_of(&text, &text);
        let _ = pci::unassigned_bars(&text);
        let _ = driver::parse_modules(&text);
        let _ = driver::parse_version(&text);
        let _ = driver::blacklists_nouveau(&text);
        let _ = devices::parse_devices(&text);
        prop_assert!(security::denials(&text).len() <= 10);
        let _ = systemd::words(&text);
        let _ = systemd::values(&text, "ExecStart");
        let _ = systemd::environment(&text);
        let _ = distribution::parse_data_digest(&text);
        let _ = distribution::parse_k3s_version(text.as_bytes());
        let _ = distribution::parse_pod_security(&text);
        let _ = distribution::parse_containerd_command(text.as_bytes());
        let _ = distribution::Settings::default().add_file(&text);
        let _ = packages::dpkg_version(&text, "containerd");
        let _ = runtime::parse_start(&text);
        let _ = kubelet::parse_checkpoint(&text);
        let _ = cdi::parse(&text);
        let _ = ldcache::parse(text.as_bytes());
        let _ = process::parse_cgroup(&text);
        let _ = process::parse_pod_directory(&text);
        let _ = process::parse_container_log(&text);
        let _ = process::parse_uid(&text);
        let _ = process::user_name(&text, 0);
    }
}
