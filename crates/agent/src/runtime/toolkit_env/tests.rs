use pitcrew_host::Host;
use pitcrew_scenario::HostRoot;

use super::Treatment::{Honoured, NotNeeded, Wrong};
use super::*;

/// All that `nvidia-ctk-installer` of NVIDIA's toolkit 1.20 reads.
const KNOWN: &str = "RUNTIME RUNTIME_CONFIG CONTAINERD_CONFIG RUNTIME_DROP_IN_CONFIG RUNTIME_DROP_IN_CONFIG_HOST_PATH \
    RUNTIME_EXECUTABLE_PATH RUNTIME_SOCKET CONTAINERD_SOCKET RUNTIME_RESTART_MODE RUNTIME_ENABLE_CDI HOST_ROOT_MOUNT \
    NVIDIA_RUNTIME_NAME CONTAINERD_RUNTIME_CLASS NVIDIA_RUNTIME_SET_AS_DEFAULT CONTAINERD_SET_AS_DEFAULT \
    RUNTIME_CONFIG_SOURCE RUNTIME_CONFIG_SOURCES CONTAINERD_USE_LEGACY_CONFIG CONTAINERD_RUNTIME_TYPE RUNTIME_CONFIG_OVERRIDE \
    NO_RUNTIME_CONFIG NO_DAEMON ROOT TOOLKIT_INSTALL_DIR TOOLKIT_SOURCE_ROOT TOOLKIT_PACKAGE_TYPE TOOLKIT_PID_FILE \
    TOOLKIT_DEBUG NVIDIA_DRIVER_ROOT DRIVER_ROOT DRIVER_ROOT_CTR_PATH NVIDIA_DEV_ROOT DEV_ROOT DEV_ROOT_CTR_PATH \
    NVIDIA_CONTAINER_RUNTIME_DEBUG NVIDIA_CONTAINER_RUNTIME_LOG_LEVEL NVIDIA_CONTAINER_RUNTIME_MODE \
    NVIDIA_CONTAINER_RUNTIME_RUNTIMES NVIDIA_CONTAINER_RUNTIME_MODES_CDI_DEFAULT_KIND \
    NVIDIA_CONTAINER_RUNTIME_MODES_CDI_ANNOTATION_PREFIXES NVIDIA_CONTAINER_RUNTIME_HOOK_SKIP_MODE_DETECTION \
    NVIDIA_CONTAINER_CLI_DEBUG ACCEPT_NVIDIA_VISIBLE_DEVICES_ENVVAR_WHEN_UNPRIVILEGED \
    ACCEPT_NVIDIA_VISIBLE_DEVICES_AS_VOLUME_MOUNTS CDI_ENABLED CDI_OUTPUT_DIR CDI_KIND CREATE_DEVICE_NODES \
    NVIDIA_CONTAINER_TOOLKIT_OPT_IN_FEATURES ENABLE_NRI_PLUGIN NRI_PLUGIN_INDEX NRI_SOCKET NRI_NAMESPACE \
    NRI_MANAGEMENT_CDI_DEVICE_NAMESPACES";

fn host(name: &str) -> Host {
    let kubeadm = "description: x\nfiles:\n  /etc/kubernetes/kubelet.conf: x\n  /etc/containerd/config.toml: \"version = 2\\n\"\n  \
                   /usr/bin/containerd: x\nsockets: [/run/containerd/containerd.sock]\n";
    let text = match name {
        "kubeadm" => kubeadm,
        other => HostRoot::builtin_text(other).unwrap(),
    };
    let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
    Host::gather(&HostRoot::parse(text, name, &find).unwrap())
}

fn one(host: &Host, name: &str, value: &str) -> (Treatment, String) {
    let judged = judge(&[(name.to_owned(), value.to_owned())], host);
    let [verdict] = judged.verdicts.as_slice() else {
        panic!("{name} has {} verdicts", judged.verdicts.len());
    };
    (verdict.treatment, verdict.reason.clone())
}

#[test]
fn every_known_variable_has_a_verdict_on_every_distribution_and_others_have_none() {
    for distribution in ["rke2", "k3s", "kubeadm"] {
        let host = host(distribution);
        for name in KNOWN.split_whitespace() {
            for value in ["", "true", "false", "x"] {
                let (_, reason) = one(&host, name, value);
                assert!(
                    reason.len() > 10 && !reason.ends_with('.'),
                    "{distribution} {name}={value}: {reason}"
                );
            }
        }
        let unknown = [("PATH", "/bin"), ("KUBERNETES_PORT", "x"), ("CONTAINERD", "x")];
        let unknown = unknown.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(judge(&unknown, &host).verdicts, []);
    }
    assert_eq!(KNOWN.split_whitespace().count(), 54);
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn what_is_copied_from_guides_is_judged_by_the_node() {
    let rke2 = "/var/lib/rancher/rke2/agent/etc/containerd/config.toml";
    let k3s = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
    let (rke2_tmpl, k3s_tmpl) = (format!("{rke2}.tmpl"), format!("{k3s}.tmpl"));
    let socket = "/run/k3s/containerd/containerd.sock";
    let plain = "/run/containerd/containerd.sock";
    let table = [
        // Pitfall 1 of the facts: the toolkit pointed at a template.
        (
            "rke2",
            "CONTAINERD_CONFIG",
            rke2_tmpl.as_str(),
            Wrong,
            "wrong on RKE2, ignored, not needed: a tool that edits a template",
        ),
        (
            "k3s",
            "CONTAINERD_CONFIG",
            k3s_tmpl.as_str(),
            Wrong,
            "wrong on K3s, ignored, not needed: a tool that edits a template",
        ),
        (
            "rke2",
            "CONTAINERD_CONFIG",
            k3s,
            Wrong,
            "wrong on RKE2, ignored, not needed: RKE2's containerd does not read this file but `/var/lib/rancher/rke2",
        ),
        (
            "rke2",
            "CONTAINERD_CONFIG",
            rke2,
            Wrong,
            "writes this file anew at each start",
        ),
        (
            "rke2",
            "RUNTIME_CONFIG",
            "/etc/containerd/config.toml",
            Wrong,
            "wrong on RKE2, ignored, not needed",
        ),
        (
            "kubeadm",
            "CONTAINERD_CONFIG",
            "/etc/containerd/config.toml",
            NotNeeded,
            "only read",
        ),
        (
            "rke2",
            "CONTAINERD_SOCKET",
            socket,
            Honoured,
            "it is what is found",
        ),
        (
            "k3s",
            "RUNTIME_SOCKET",
            "unix:///run/k3s/containerd/containerd.sock",
            Honoured,
            "it is what is found",
        ),
        (
            "rke2",
            "CONTAINERD_SOCKET",
            plain,
            Wrong,
            "listens at `/run/k3s/containerd/containerd.sock`",
        ),
        (
            "kubeadm",
            "CONTAINERD_SOCKET",
            plain,
            Honoured,
            "it is what is found",
        ),
        (
            "kubeadm",
            "CONTAINERD_SOCKET",
            socket,
            Wrong,
            "listens at `/run/containerd/containerd.sock`",
        ),
        ("rke2", "CONTAINERD_RUNTIME_CLASS", "nvidia", Honoured, "`nvidia`"),
        (
            "rke2",
            "CONTAINERD_RUNTIME_CLASS",
            "gpu",
            Wrong,
            "the handler is called `nvidia`",
        ),
        (
            "rke2",
            "CONTAINERD_SET_AS_DEFAULT",
            "true",
            Wrong,
            "without effect on RKE2",
        ),
        (
            "kubeadm",
            "CONTAINERD_SET_AS_DEFAULT",
            "true",
            Wrong,
            "would fail with the wrapper",
        ),
        (
            "rke2",
            "NVIDIA_RUNTIME_SET_AS_DEFAULT",
            "False",
            Honoured,
            "no handler is made the default",
        ),
        ("rke2", "RUNTIME", "docker", Wrong, "only containerd"),
        (
            "rke2",
            "RUNTIME_DROP_IN_CONFIG",
            "/etc/containerd/conf.d/99-nvidia.toml",
            Wrong,
            "wrong on RKE2",
        ),
        // Pitfalls 3 and 4 of the facts: the hangup.
        (
            "rke2",
            "RUNTIME_RESTART_MODE",
            "signal",
            Wrong,
            "a hangup kills containerd",
        ),
        (
            "rke2",
            "RUNTIME_RESTART_MODE",
            "none",
            Honoured,
            "unless the agent is allowed to",
        ),
        (
            "rke2",
            "RUNTIME_RESTART_MODE",
            "systemd",
            NotNeeded,
            "through systemd",
        ),
        (
            "rke2",
            "ROOT",
            "/usr/local/nvidia",
            Honoured,
            "/usr/local/nvidia/toolkit",
        ),
        (
            "rke2",
            "TOOLKIT_INSTALL_DIR",
            "/opt/nvidia",
            Wrong,
            "look for a wrapper in",
        ),
        (
            "rke2",
            "NVIDIA_CONTAINER_RUNTIME_MODE",
            "legacy",
            Wrong,
            "CDI only",
        ),
        ("rke2", "ENABLE_NRI_PLUGIN", "true", NotNeeded, "no NRI plugin"),
        ("rke2", "NO_DAEMON", "true", NotNeeded, "NVIDIA's own image"),
    ];
    for (distribution, name, value, treatment, says) in table {
        let (got, reason) = one(&host(distribution), name, value);
        assert_eq!(got, treatment, "{distribution} {name}={value}: {reason}");
        assert!(reason.contains(says), "{distribution} {name}={value}: {reason}");
    }
}

#[test]
fn what_is_honoured_comes_to_something() {
    let host = host("rke2");
    let of = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        judge(&pairs, &host)
    };
    let nothing = of(&[]);
    // Unlike NVIDIA's, whose default lets every pod take any GPU.
    assert_eq!(nothing.wrapper, WrapperSettings::default());
    assert!(!nothing.wrapper.accept_env_when_unprivileged && nothing.create_device_nodes);
    // As in RKE2's own documentation.
    let rke2 = of(&[
        ("ACCEPT_NVIDIA_VISIBLE_DEVICES_ENVVAR_WHEN_UNPRIVILEGED", "false"),
        ("ACCEPT_NVIDIA_VISIBLE_DEVICES_AS_VOLUME_MOUNTS", "true"),
    ]);
    assert!(!rke2.wrapper.accept_env_when_unprivileged && rke2.wrapper.accept_volume_mounts);
    let opened = of(&[("ACCEPT_NVIDIA_VISIBLE_DEVICES_ENVVAR_WHEN_UNPRIVILEGED", "true")]);
    assert!(opened.wrapper.accept_env_when_unprivileged);
    assert!(opened.verdicts[0].line().contains("past the scheduler"));
    let roots = of(&[
        ("NVIDIA_DRIVER_ROOT", "/run/nvidia/driver"),
        ("DEV_ROOT", "/"),
        ("CREATE_DEVICE_NODES", ""),
    ]);
    assert_eq!(
        roots.driver_root.as_deref(),
        Some(Path::new("/run/nvidia/driver"))
    );
    assert_eq!((roots.dev_root, roots.create_device_nodes), (None, false));
}
