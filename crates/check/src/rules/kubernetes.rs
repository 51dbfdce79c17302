//! The Kubernetes distribution and its kubelet.

use pitcrew_core::Reading;
use pitcrew_host::facts::{Distribution, DistributionKind, Role};

use super::Rule;
use crate::node::Node;
use crate::report::{Finding, Topic, question};

pub(crate) const RULES: &[Rule] = &[
    distribution,
    device_plugins,
    pod_resources,
    pod_security,
    runtime_class,
    default_runtime,
];

/// Those that tell of a node that will not come back after a restart.
pub(crate) const TRAPS: &[Rule] = &[default_runtime];

/// Its name for people.
pub(crate) fn name(kind: DistributionKind) -> &'static str {
    match kind {
        DistributionKind::Rke2 => "RKE2",
        DistributionKind::K3s => "K3s",
        DistributionKind::Kubeadm => "kubeadm",
        DistributionKind::None => "containerd alone",
    }
}

/// Name, version, role.
fn identity(distribution: &Distribution) -> String {
    let version = match &distribution.version {
        Reading::Value(version) => format!(" {version}"),
        _ => " of unknown version".to_owned(),
    };
    let role = match distribution.role {
        Role::Server => ", server",
        Role::Agent => ", agent",
        Role::Unknown => "",
    };
    let moved = if distribution.data_dir_moved {
        format!(", data in {}", distribution.data_dir.display())
    } else {
        String::new()
    };
    format!("{}{version}{role}{moved}", name(distribution.kind))
}

fn distribution(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Kubernetes,
        "kubernetes.distribution",
        "distribution",
        "/etc/rancher, systemd units, data directories, /etc/kubernetes",
    );
    let why = "no pod can land here before the node is a part of a cluster";
    vec![match &node.host.distribution {
        Reading::Value(it) if it.kind == DistributionKind::None => ask
            .failure("a container runtime, no Kubernetes", why)
            .next("systemctl list-unit-files 'rke2*' 'k3s*' kubelet.service".to_owned()),
        Reading::Value(it) => ask.ok(identity(it)),
        Reading::NotSupported => ask
            .failure("none: neither RKE2, K3s nor kubeadm", why)
            .next("systemctl list-unit-files 'rke2*' 'k3s*' kubelet.service".to_owned()),
        Reading::Failed(reason) => ask.unknown(reason),
    }]
}

/// Is the kubelet there for device plugins?
fn device_plugins(node: &Node<'_>) -> Vec<Finding> {
    let root = node.host.kubelet.root.display();
    let ask = question(
        Topic::Kubernetes,
        "kubernetes.device-plugins",
        "device plugins",
        format!("{root}/device-plugins/kubelet.sock"),
    );
    if node.host.distribution.is_absent() {
        return vec![ask.not_applicable("no Kubernetes on this node")];
    }
    vec![match &node.host.kubelet.device_plugin_socket {
        Reading::Value(true) => ask.ok("the kubelet's socket is there"),
        Reading::Value(false) => ask
            .failure(
                "the directory is there, the kubelet's socket is not",
                "the kubelet doesn't run, or its root is another one",
            )
            .next(format!("sudo systemctl status {}", kubelet_unit(node))),
        Reading::NotSupported => ask
            .failure(
                format!("no {root}/device-plugins"),
                "the kubelet has not run yet, or its root is another one",
            )
            .next(format!("sudo systemctl status {}", kubelet_unit(node))),
        Reading::Failed(reason) => ask.unknown(reason),
    }]
}

/// The unit that the kubelet lives in.
fn kubelet_unit(node: &Node<'_>) -> String {
    match node.distribution().map(|it| it.kind) {
        Some(DistributionKind::Kubeadm) => "kubelet".to_owned(),
        _ => node.advice.unit(),
    }
}

fn pod_resources(node: &Node<'_>) -> Vec<Finding> {
    let root = node.host.kubelet.root.display();
    let ask = question(
        Topic::Kubernetes,
        "kubernetes.pod-resources",
        "pod resources",
        format!("{root}/pod-resources/kubelet.sock"),
    );
    if node.host.distribution.is_absent() {
        return vec![ask.not_applicable("no Kubernetes on this node")];
    }
    let why = "which pod holds which GPU can't be told without it";
    vec![match &node.host.kubelet.pod_resources_socket {
        Reading::Value(true) => ask.ok("the kubelet's socket is there"),
        Reading::Value(false) => ask.warning("no socket", why),
        Reading::NotSupported => ask.warning(format!("no {root}/pod-resources"), why),
        Reading::Failed(reason) => ask.unknown(reason).minor(),
    }]
}

/// Will pods that need the host's devices be let in?
fn pod_security(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Kubernetes,
        "kubernetes.pod-security",
        "Pod Security",
        "profile: of the distribution, admission configuration",
    );
    let Some(distribution) = node.distribution() else {
        return vec![ask.not_applicable("no Kubernetes on this node")];
    };
    let kubectl = node.advice.kubectl();
    let label = format!(
        "{kubectl} label namespace NAMESPACE pod-security.kubernetes.io/enforce=privileged \
         pod-security.kubernetes.io/audit=privileged pod-security.kubernetes.io/warn=privileged"
    );
    let why = "the namespace of what needs the host (GPU agents, not GPU pods) has to be labelled privileged, or its \
               pods are rejected";
    let level = distribution.pod_security.value().map(String::as_str);
    let profile = distribution.profile.value().map(String::as_str);
    let finding = match (level, profile) {
        (Some("privileged"), None) => ask.ok("privileged everywhere"),
        (Some(level @ ("restricted" | "baseline")), profile) => {
            let profile = profile.map_or_else(String::new, |profile| format!(" (profile {profile})"));
            ask.warning(format!("{level} by default{profile}"), why)
                .next(label)
        }
        (_, Some(profile)) if profile.starts_with("cis") => ask
            .warning(format!("restricted by default (profile {profile})"), why)
            .next(label),
        (Some(level), _) => ask.ok(format!("{level} by default")),
        (None, _) => match distribution
            .pod_security
            .failure()
            .or(distribution.profile.failure())
        {
            Some(reason) => ask.unknown(reason).minor(),
            None if distribution.role == Role::Server => ask.ok("nothing configured: privileged"),
            None => ask.ok("no profile here; the servers decide"),
        },
    };
    vec![finding]
}

/// The `RuntimeClass` `nvidia`: whether the distribution makes it, and how to look.
fn runtime_class(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Kubernetes,
        "kubernetes.runtime-class",
        "RuntimeClass nvidia",
        "the distribution's version",
    );
    let Some(distribution) = node.distribution().filter(|it| it.kind != DistributionKind::None) else {
        return vec![ask.not_applicable("no Kubernetes on this node")];
    };
    let look = format!("{} get runtimeclass nvidia", node.advice.kubectl());
    let proves_nothing = "it is the cluster's and says nothing of this node: see `handler nvidia`";
    vec![match &distribution.ships_runtime_class {
        Reading::Value(true) => ask
            .note(
                format!("created by {} itself", name(distribution.kind)),
                proves_nothing,
            )
            .next(look),
        Reading::Value(false) | Reading::NotSupported => ask
            .note(
                "not created by this release",
                "pods with `runtimeClassName: nvidia` need it; pods that only ask for nvidia.com/gpu do not",
            )
            .next(look),
        Reading::Failed(reason) => ask.unknown(reason).minor().next(look),
    }]
}

/// A default runtime that is not there keeps every pod from starting, the control plane's too.
fn default_runtime(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Kubernetes,
        "kubernetes.default-runtime",
        "default runtime",
        "default-runtime: of the distribution",
    );
    let Some(distribution) = node.distribution() else {
        return Vec::new();
    };
    let name = match &distribution.default_runtime {
        Reading::Value(name) => name,
        Reading::NotSupported => return Vec::new(),
        Reading::Failed(reason) => return vec![ask.unknown(reason).minor()],
    };
    // Looked for among those that are detected, and `runc` is none of them: RKE2 and K3s end on it as well.
    let detected = node
        .containerd()
        .is_some_and(|it| it.detected_runtimes.iter().any(|(handler, _)| handler == name));
    vec![if detected {
        ask.note(
            format!("`{name}` for every pod"),
            "also for the control plane's: while it is set, that runtime's binary must not be removed",
        )
    } else {
        ask.failure(
            format!("`{name}`, and no such runtime is found"),
            "at its next start no pod starts here, the control plane's neither: the node will not come back",
        )
        .next("pitcrew check --next-boot".to_owned())
        .care(format!(
            "take default-runtime out of the configuration, or install the binary, before {} is restarted",
            node.advice.unit()
        ))
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, Sample, text};

    fn configured(change: impl FnOnce(&mut Distribution)) -> Sample {
        sample::host().with(|host| {
            if let Reading::Value(distribution) = &mut host.distribution {
                change(distribution);
            }
        })
    }

    #[test]
    fn a_distribution_is_named_with_role_and_a_moved_directory() {
        let host = configured(|it| {
            it.data_dir = "/data/rke2".into();
            it.data_dir_moved = true;
        });
        assert_eq!(
            one(&host.build(), "kubernetes.distribution").found,
            "RKE2 1.36.2+rke2r1, agent, data in /data/rke2"
        );
    }

    #[test]
    fn a_default_runtime_that_is_gone_is_a_failure_before_it_hurts() {
        let gone = configured(|it| it.default_runtime = text("nvidia")).build();
        let finding = one(&gone, "kubernetes.default-runtime");
        assert_eq!(finding.verdict, Verdict::Failure);
        assert_eq!(finding.next.as_deref(), Some("pitcrew check --next-boot"));
        let there = configured(|it| it.default_runtime = text("nvidia")).containerd(|it| {
            it.detected_runtimes = vec![("nvidia".to_owned(), "/usr/bin/nvidia-container-runtime".into())];
        });
        assert_eq!(
            one(&there.build(), "kubernetes.default-runtime").verdict,
            Verdict::Note
        );
        // No binary makes these handlers, so their names are none that a supervisor would find.
        for name in ["runc", "crun"] {
            let builtin = configured(|it| it.default_runtime = text(name)).build();
            assert_eq!(
                one(&builtin, "kubernetes.default-runtime").verdict,
                Verdict::Failure
            );
        }
    }

    #[test]
    fn what_cannot_be_read_of_pod_security_is_not_taken_for_privileged() {
        for change in [
            (|it: &mut Distribution| it.pod_security = Reading::Failed("permission denied".to_owned()))
                as fn(&mut Distribution),
            |it| it.profile = Reading::Failed("permission denied".to_owned()),
        ] {
            let host = sample::host()
                .distribution(DistributionKind::Rke2, Role::Server)
                .with(|host| {
                    if let Reading::Value(distribution) = &mut host.distribution {
                        distribution.pod_security = Reading::NotSupported;
                        distribution.profile = Reading::NotSupported;
                        change(distribution);
                    }
                });
            let finding = one(&host.build(), "kubernetes.pod-security");
            assert_eq!(finding.verdict, Verdict::Unknown);
        }
    }

    #[test]
    fn the_cis_profile_asks_for_labels_and_names_the_command() {
        let host = configured(|it| it.profile = text("cis"));
        let finding = one(&host.build(), "kubernetes.pod-security");
        assert_eq!(finding.found, "restricted by default (profile cis)");
        assert!(
            finding
                .next
                .unwrap()
                .starts_with("kubectl label namespace NAMESPACE ")
        );
        let server = sample::host()
            .distribution(DistributionKind::K3s, Role::Server)
            .with(|host| {
                if let Reading::Value(distribution) = &mut host.distribution {
                    distribution.pod_security = text("baseline");
                }
            });
        let finding = one(&server.build(), "kubernetes.pod-security");
        assert!(finding.next.unwrap().starts_with("k3s kubectl label"));
    }

    #[test]
    fn a_runtime_class_is_never_taken_for_a_handler() {
        let finding = one(&sample::host().build(), "kubernetes.runtime-class");
        assert_eq!(finding.verdict, Verdict::Note);
        assert!(finding.why.unwrap().contains("says nothing of this node"));
    }

    #[test]
    fn a_kubelet_that_does_not_listen_is_a_failure_with_its_unit() {
        let host = sample::host().with(|host| host.kubelet.device_plugin_socket = Reading::Value(false));
        let finding = one(&host.build(), "kubernetes.device-plugins");
        assert_eq!(finding.next.as_deref(), Some("sudo systemctl status rke2-agent"));
        let kubeadm = sample::host()
            .distribution(DistributionKind::Kubeadm, Role::Agent)
            .with(|host| host.kubelet.device_plugin_socket = Reading::NotSupported);
        let finding = one(&kubeadm.build(), "kubernetes.device-plugins");
        assert_eq!(finding.next.as_deref(), Some("sudo systemctl status kubelet"));
    }
}
