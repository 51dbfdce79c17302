use std::path::Path;

use pitcrew_check::{Handler as Other, Tier as OtherTier};
use pitcrew_core::ports::{GpuError, HostFs as _};
use pitcrew_scenario::HostRoot;

use super::*;

/// The nodes that `check` is tested with, by name.
fn node(name: &str) -> HostRoot {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../check/tests/roots");
    let find = |name: &str| {
        let own = std::fs::read_to_string(dir.join(format!("{name}.yaml"))).ok();
        own.or_else(|| HostRoot::builtin_text(name).map(str::to_owned))
    };
    let text = find(name).unwrap();
    HostRoot::parse(&text, name, &find).unwrap()
}

fn written(manifest: &str) -> Host {
    let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
    Host::gather(&HostRoot::parse(manifest, "written", &find).unwrap())
}

#[test]
fn the_agent_and_check_say_the_same_of_every_node() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../check/tests/roots");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let host = Host::gather(&node(&name));
        let nothing = GpuError::NoDriver("not asked".to_owned());
        let checked = pitcrew_check::check(&host, Err(&nothing)).path;
        let way = assess(&host);
        let tier = match checked.tier {
            OtherTier::Native => Tier::Native,
            OtherTier::Mounts => Tier::Mounts,
            OtherTier::None | OtherTier::Unknown => Tier::Unknown,
        };
        assert_eq!(way.tier, tier, "{name}: {way:?}");
        let same = matches!(
            (&way.handler, checked.handler),
            (Handler::Live { .. }, Other::Live)
                | (Handler::Broken { .. }, Other::Broken)
                | (Handler::Pending { .. }, Other::Pending)
                | (Handler::Absent, Other::Absent)
                | (Handler::Unknown(_), Other::Unknown)
        );
        assert!(same, "{name}: {:?} and {:?}", way.handler, checked.handler);
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} nodes");
}

#[test]
fn containerd_decides_the_tier_and_the_reason_names_it() {
    let of = |name: &str| {
        let way = assess(&Host::gather(&node(name)));
        (way.tier, way.reason)
    };
    let (tier, reason) = of("rke2-1.36");
    assert_eq!(tier, Tier::Native, "{reason}");
    let (tier, reason) = of("rke2-1.28");
    assert_eq!(
        (tier, reason.as_str()),
        (Tier::Mounts, "containerd 1.7 does not take CDI names by itself")
    );
    let (tier, _) = of("rke2-1.31");
    assert_ne!(tier, Tier::Unknown);
    let off = written(
        "description: x\nlike: rke2\nscenario: rtx3060\nfiles:\n  /var/lib/rancher/rke2/agent/etc/containerd/config.toml: |\n    \
         version = 3\n    [plugins.'io.containerd.cri.v1.runtime']\n    enable_cdi = false\n",
    );
    let way = assess(&off);
    assert_eq!(way.tier, Tier::Mounts);
    assert_eq!(way.reason, "CDI is switched off in containerd's configuration");
}

/// Pitfall 2 of the facts: the toolkit read another containerd's configuration where Docker's is on the host.
#[test]
fn pitfall_2_another_containerds_configuration_is_not_read() {
    let host = written(
        "description: x\nlike: rke2\nscenario: rtx3060\nfiles:\n  /usr/bin/containerd: x\n  /etc/containerd/config.toml: |\n    \
         version = 2\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n    default_runtime_name = \"nvidia\"\n    \
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]\n    BinaryName = \"/usr/bin/nvidia-container-runtime\"\n\
         sockets: [/run/containerd/containerd.sock, /run/docker.sock]\n",
    );
    let way = assess(&host);
    assert_eq!(way.tier, Tier::Native, "{}", way.reason);
    assert_eq!(way.handler, Handler::Absent);
    assert!(!way.is_default);
}

/// Pitfall 5 of the facts: the toolkit failed on RKE2 and K3s, since no `containerd` is on their PATH.
#[test]
fn pitfall_5_no_containerd_on_path_is_needed() {
    for name in ["rke2", "k3s"] {
        let root = HostRoot::builtin(name).unwrap();
        for dir in ["/usr/bin", "/usr/local/bin", "/usr/sbin"] {
            let names = root.list(Path::new(dir)).unwrap_or_default();
            assert!(!names.iter().any(|name| name == "containerd"), "{name}: {dir}");
        }
        assert_eq!(assess(&Host::gather(&root)).tier, Tier::Native, "{name}");
    }
}

/// Pitfalls 6 and 7 of the facts: `no runtime for "nvidia" is configured` while a restart is awaited; and that the
/// `RuntimeClass` exists, as RKE2 makes it by itself, proves nothing.
#[test]
fn pitfalls_6_and_7_a_pending_handler_is_told_with_the_command_and_a_runtime_class_proves_nothing() {
    let with = |more: &str| {
        let binary = "/usr/local/nvidia/toolkit/nvidia-container-runtime";
        let host = written(&format!(
            "description: x\nlike: rke2\nscenario: rtx3060\nfiles:\n  {binary}: x\n{more}"
        ));
        assert_eq!(
            host.distribution.value().unwrap().ships_runtime_class,
            Reading::Value(true)
        );
        assess(&host)
    };
    let pending = with("");
    assert!(matches!(pending.handler, Handler::Pending { .. }), "{pending:?}");
    let problem = pending.problem(&["a/b".to_owned(), "c/d".to_owned()]).unwrap();
    assert_eq!(
        (problem.reason.as_str(), problem.hint.as_str()),
        ("HandlerPending", "systemctl restart rke2-agent")
    );
    assert!(problem.message.contains("a/b, c/d"), "{}", problem.message);

    let absent = written("description: x\nlike: rke2\nscenario: rtx3060\n");
    let absent = assess(&absent);
    assert_eq!(absent.handler, Handler::Absent);
    assert_eq!(absent.problem(&[]), None, "nobody asks for it");
    let missing = absent.problem(&["a/b".to_owned()]).unwrap();
    assert_eq!(missing.reason, "HandlerMissing");
}

#[test]
fn a_handler_whose_binary_is_gone_is_broken() {
    let host = written(
        "description: x\nlike: rke2\nscenario: rtx3060\nfiles:\n  /var/lib/rancher/rke2/agent/etc/containerd/config.toml: |\n    \
         version = 3\n    [plugins.'io.containerd.cri.v1.runtime'.containerd]\n    default_runtime_name = 'nvidia'\n    \
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia'.options]\n    \
         BinaryName = '/usr/local/nvidia/toolkit/nvidia-container-runtime'\n",
    );
    let way = assess(&host);
    assert!(matches!(way.handler, Handler::Broken { .. }), "{way:?}");
    assert!(way.is_default);
    assert_eq!(way.problem(&[]).unwrap().reason, "HandlerBroken");
}
