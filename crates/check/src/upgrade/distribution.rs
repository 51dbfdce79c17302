//! What another release of RKE2 or K3s changes.

use std::cmp::Ordering;

use pitcrew_core::Reading;
use pitcrew_host::facts::{CgroupVersion, DistributionKind, Role};
use pitcrew_host::releases::{self, Basis, CdiThroughCri};
use semver::Version;

use super::{Change, Effect};
use crate::node::Node;
use crate::path::{self, Handler, Known, Tier};
use crate::report::Verdict;
use crate::rules;

/// Steps of an upgrade that are named one by one, at most.
const MOST_STEPS: u64 = 12;

/// What the release changes on this node.
pub(super) fn changes(node: &Node<'_>, kind: DistributionKind, then: &Version) -> Vec<Change> {
    let wanted = rules::distribution_name(kind);
    let running = node.distribution();
    let Some(running) = running.filter(|running| running.kind == kind) else {
        let now = running.map_or("none", |running| rules::distribution_name(running.kind));
        return vec![
            Change::compare("distribution", "distribution", now, format!("{wanted} {then}"))
                .breaks()
                .why(format!(
                    "this node doesn't run {wanted}: there is nothing to upgrade"
                )),
        ];
    };
    let now = running.version.value();
    let mut changes = vec![release(node, wanted, now, then)];
    changes.extend(runtime(node, kind, now, then));
    changes.push(runtime_class(kind, now, then));
    changes.push(handler(node));
    changes.extend(default_runtime(node));
    changes.extend(control_groups(node, now, then));
    changes.push(Change::compare("containers", "running containers", "run", "run").why(
        "containers outlive the restart of the supervisor, and keep the devices and files that they were started with",
    ));
    changes
}

/// The release itself, and the steps to it.
fn release(node: &Node<'_>, name: &str, now: Option<&Version>, then: &Version) -> Change {
    let Some(now) = now else {
        return Change::unknown(
            "distribution",
            "distribution",
            "unknown version",
            "the version that runs now can't be read",
        );
    };
    let (id, now_name) = ("distribution", format!("{name} {now}"));
    let is_same_release = (now.major, now.minor, now.patch) == (then.major, then.minor, then.patch);
    if is_same_release && (then.build.is_empty() || then.build == now.build) {
        return Change::compare(id, id, now_name.clone(), now_name);
    }
    let change = Change::compare(id, id, now_name, format!("{name} {then}"));
    let order = (now.major, now.minor).cmp(&(then.major, then.minor));
    if order == Ordering::Greater || (order == Ordering::Equal && now.patch > then.patch) {
        return change
            .breaks()
            .why("this goes backwards: Kubernetes does not support a downgrade of its data");
    }
    let is_agent = node.distribution().is_some_and(|it| it.role == Role::Agent);
    if then.minor > now.minor + 1 && now.major == then.major {
        let step = |minor| format!("1.{minor}");
        let steps = if then.minor - now.minor > MOST_STEPS {
            format!(
                "{}, {} ... {}",
                step(now.minor),
                step(now.minor + 1),
                step(then.minor)
            )
        } else {
            (now.minor..=then.minor).map(step).collect::<Vec<_>>().join(", ")
        };
        return change.why(format!(
            "one minor version at a time, servers first and one at a time, agents after them: {steps}"
        ));
    }
    change.why(if is_agent {
        "servers first and one at a time; this agent after them"
    } else {
        "servers first and one at a time, agents after them"
    })
}

/// The container runtime and what hangs on its version.
fn runtime(node: &Node<'_>, kind: DistributionKind, now: Option<&Version>, then: &Version) -> Vec<Change> {
    let Some(containerd) = node.containerd() else {
        return vec![Change::unknown(
            "containerd",
            "containerd",
            "unknown",
            "containerd can't be examined on this node",
        )];
    };
    let known = Known::of(node.host, containerd);
    let current = known.version();
    let shown = match &known {
        Known::Exactly(version) => version.to_string().replace('+', "-"),
        Known::AtLeast(version) => format!("{version} or later"),
        Known::ByConfig => "2.0 or later".to_owned(),
        Known::Nothing(_) => "unknown".to_owned(),
    };
    let Some(shipped) = releases::containerd_for(kind, then) else {
        return vec![Change::unknown(
            "containerd",
            "containerd",
            shown,
            format!(
                "what {} {then} ships is not in pitcrew's table of releases: tier, CDI and NRI can't be told",
                rules::distribution_name(kind)
            ),
        )];
    };
    let mut containerd_change = Change::compare(
        "containerd",
        "containerd",
        shown,
        format!("{} or later of {}", shipped.lowest, shipped.series()),
    );
    if current.as_ref().is_some_and(|current| *current >= shipped.lowest)
        && current
            .as_ref()
            .is_some_and(|current| format!("{}.{}", current.major, current.minor) == shipped.series())
    {
        containerd_change.effect = Effect::Same;
    }
    if shipped.basis == Basis::SisterRelease {
        containerd_change =
            containerd_change.why("K3s ships the containerd of the RKE2 release of that number");
    }
    let next = &shipped.lowest;
    let enabled = containerd.config.value().and_then(|config| config.enable_cdi);
    let mut changes = vec![containerd_change];
    changes.push(tier(current.as_ref(), next, enabled));
    changes.push(cdi(current.as_ref(), next));
    changes.push(nri(current.as_ref(), next));
    changes.push(config(node, current.as_ref(), next));
    changes.extend(drop_ins(node, now, then, next));
    changes
}

fn tier(now: Option<&Version>, then: &Version, enabled: Option<bool>) -> Change {
    let (next, _) = path::tier(then, enabled);
    let Some(now) = now else {
        return Change::compare("tier", "GPU into a container", "unknown", next.to_string());
    };
    let (current, _) = path::tier(now, enabled);
    let change = Change::compare(
        "tier",
        "GPU into a container",
        current.to_string(),
        next.to_string(),
    );
    match (current, next) {
        (Tier::Mounts, Tier::Native) => change.why(
            "pods that run keep their mounts; new ones get the devices from the runtime, and need no runtime class",
        ),
        _ => change,
    }
}

fn cdi(now: Option<&Version>, then: &Version) -> Change {
    let words = |version: &Version| match releases::cdi_through_cri(version) {
        CdiThroughCri::No => "not known",
        CdiThroughCri::OffByDefault => "off by default",
        CdiThroughCri::Yes => "on by default",
    };
    Change::compare(
        "cdi",
        "CDI in containerd",
        now.map_or("unknown", words),
        words(then),
    )
}

fn nri(now: Option<&Version>, then: &Version) -> Change {
    let words = |version: &Version| match (
        releases::nri_by_default(version),
        releases::cdi_through_nri(version),
    ) {
        (false, _) => "off by default",
        (true, false) => "on, without CDI devices",
        (true, true) => "on, with CDI devices",
    };
    Change::compare("nri", "NRI", now.map_or("unknown", words), words(then))
}

/// The generation of the configuration, and what the user has written for the old one.
fn config(node: &Node<'_>, now: Option<&Version>, then: &Version) -> Change {
    let generation = |version: &Version| format!("generation {}", releases::config_generation(version));
    let change = Change::compare(
        "config",
        "its configuration",
        now.map_or_else(|| "unknown".to_owned(), generation),
        generation(then),
    );
    let template = node
        .containerd()
        .and_then(|containerd| containerd.templates.first());
    let Some(template) = template else {
        return change;
    };
    let path = template.path.display();
    let trap = rules::template_finding(node).filter(|finding| finding.verdict == Verdict::Failure);
    if let Some(trap) = trap {
        return change
            .breaks()
            .why(format!(
                "the restart of the upgrade renders {path}: {}",
                trap.found
            ))
            .next("pitcrew check --next-boot");
    }
    let is_v2 = template
        .path
        .file_name()
        .is_some_and(|name| name == "config.toml.tmpl");
    if change.effect == Effect::Changes && is_v2 {
        return change
            .why(format!(
                "{path} is still used and migrated by containerd; drop-ins of generation 3 are not read beside it"
            ))
            .next("rewrite it as config-v3.toml.tmpl, or remove it, before the upgrade");
    }
    change.why(format!("{path} is rendered again"))
}

/// Drop-ins of the user, where there are any.
fn drop_ins(node: &Node<'_>, now: Option<&Version>, then: &Version, containerd: &Version) -> Option<Change> {
    let drop_ins = &node.containerd()?.drop_ins;
    let first = drop_ins.first()?;
    let words = |imports: Option<bool>| match imports {
        Some(true) => "read",
        Some(false) => "not read",
        None => "can't tell",
    };
    let is_read = if drop_ins.iter().any(|it| it.imported) {
        Some(true)
    } else {
        now.and_then(releases::renders_imports)
    };
    let directory = first.path.parent().and_then(|parent| parent.file_name());
    let is_old_place =
        releases::config_generation(containerd) == 3 && directory.is_some_and(|name| name == "config.toml.d");
    if is_old_place {
        return Some(
            Change::compare("drop-ins", "drop-ins", words(is_read), "not read")
                .why("containerd 2 is given those of config-v3.toml.d, written for generation 3"),
        );
    }
    let next = releases::renders_imports(then);
    let change = Change::compare("drop-ins", "drop-ins", words(is_read), words(next));
    Some(if next.is_none() {
        Change {
            effect: Effect::Unknown,
            ..change
        }
        .why("the first release that reads them is not established; the rendered configuration will tell")
    } else {
        change
    })
}

fn runtime_class(kind: DistributionKind, now: Option<&Version>, then: &Version) -> Change {
    let words = |ships: Option<bool>| match ships {
        Some(true) => "created by the distribution",
        Some(false) => "not created by it",
        None => "can't tell",
    };
    let next = releases::ships_runtime_class(kind, then);
    let change = Change::compare(
        "runtime-class",
        "RuntimeClass nvidia",
        now.map_or("unknown", |now| words(releases::ships_runtime_class(kind, now))),
        words(next),
    );
    match (next, change.effect) {
        (None, _) => Change {
            effect: Effect::Unknown,
            ..change
        },
        (Some(true), Effect::Changes) if kind == DistributionKind::Rke2 => change.why(
            "RKE2 makes it with Helm and takes over one that is there; whoever else applies it must stop",
        ),
        _ => change,
    }
}

/// Since Kubernetes 1.35 the kubelet's `failCgroupV1` is true unless it is set (KEP-5573).
fn control_groups(node: &Node<'_>, now: Option<&Version>, then: &Version) -> Option<Change> {
    let refuses = |version: &Version| (version.major, version.minor) >= (1, 35);
    let words = match node.host.system.cgroup.value()? {
        CgroupVersion::V1 => "version 1",
        CgroupVersion::Hybrid => "version 1 with 2 beside it",
        CgroupVersion::V2 => return None,
    };
    if !refuses(then) || now.is_some_and(refuses) {
        return None;
    }
    let change = Change::compare(
        "control-groups",
        "control groups",
        words,
        "the kubelet doesn't start on it",
    );
    Some(
        change
            .breaks()
            .why("from 1.35 on the kubelet wants version 2, unless its configuration says `failCgroupV1: false`")
            .next(
                node.advice
                    .kernel_argument("systemd.unified_cgroup_hierarchy=1"),
            ),
    )
}

/// The upgrade restarts the supervisor: what waits for that happens then.
fn handler(node: &Node<'_>) -> Change {
    let now = path::of(node.host).handler;
    let then = match now {
        Handler::Pending => Handler::Live,
        Handler::Broken => Handler::Absent,
        same => same,
    };
    let change = Change::compare("handler", "handler nvidia", now.to_string(), then.to_string());
    match now {
        Handler::Pending => change.why("the upgrade restarts the supervisor, which then finds the binary"),
        Handler::Broken => change.why("the supervisor will not find the binary again, and drops the handler"),
        Handler::Unknown => Change {
            effect: Effect::Unknown,
            ..change
        },
        Handler::Live | Handler::Absent => change,
    }
}

/// A default runtime that isn't found at the start.
fn default_runtime(node: &Node<'_>) -> Option<Change> {
    let distribution = node.distribution()?;
    let Reading::Value(name) = &distribution.default_runtime else {
        return None;
    };
    let is_found = name == "runc"
        || name == "crun"
        || node
            .containerd()?
            .detected_runtimes
            .iter()
            .any(|(handler, _)| handler == name);
    let change = Change::compare("default-runtime", "default runtime", name, name);
    Some(if is_found {
        change
    } else {
        change
            .breaks()
            .why("its binary is not found: the restart of the upgrade leaves a node on which no pod starts")
    })
}

#[cfg(test)]
mod tests {
    use pitcrew_core::ports::GpuError;
    use pitcrew_host::facts::{DropIn, Template};

    use super::super::{Plan, Target, plan};
    use super::*;
    use crate::sample::{self, Sample, text};

    fn to(host: Sample, target: &str) -> Plan {
        let none = GpuError::NoDriver("not asked".to_owned());
        plan(&host.build(), Err(&none), &Target::parse(&[target]).unwrap())
    }

    fn from_1_28() -> Sample {
        sample::host().release(DistributionKind::Rke2, "1.28.15+rke2r1", "1.7.22")
    }

    fn line(plan: &Plan, id: &str) -> String {
        let change = plan.change(id).unwrap_or_else(|| panic!("{id}: {plan:?}"));
        format!("{} -> {} ({:?})", change.now, change.then, change.effect)
    }

    #[test]
    fn control_groups_of_version_1_end_with_1_35() {
        let on = |cgroup, release: &str, target: &str| {
            let host = sample::host()
                .release(DistributionKind::Rke2, release, "2.1.4")
                .with(|host| host.system.cgroup = Reading::Value(cgroup));
            to(host, target).change("control-groups").map(|it| it.effect)
        };
        let breaks = Some(Effect::Breaks);
        for cgroup in [CgroupVersion::V1, CgroupVersion::Hybrid] {
            assert_eq!(on(cgroup, "1.34.1+rke2r1", "rke2=1.35.3"), breaks);
            assert_eq!(on(cgroup, "1.33.4+rke2r1", "rke2=1.34.1"), None);
            assert_eq!(
                on(cgroup, "1.35.1+rke2r1", "rke2=1.35.3"),
                None,
                "it runs already"
            );
        }
        assert_eq!(on(CgroupVersion::V2, "1.34.1+rke2r1", "rke2=1.35.3"), None);
    }

    #[test]
    fn a_release_of_the_same_number_is_no_upgrade() {
        let release = |target| line(&to(sample::host(), target), "distribution");
        assert_eq!(
            release("rke2=1.36.2"),
            "RKE2 1.36.2+rke2r1 -> RKE2 1.36.2+rke2r1 (Same)"
        );
        assert_eq!(
            release("rke2=1.36.2+rke2r2"),
            "RKE2 1.36.2+rke2r1 -> RKE2 1.36.2+rke2r2 (Changes)"
        );
        assert!(
            to(sample::host(), "rke2=1.90.0").changes[0]
                .why
                .as_ref()
                .is_some_and(|why| why.ends_with("1.36, 1.37 ... 1.90"))
        );
    }

    #[test]
    fn from_containerd_1_7_to_2_3_the_tier_becomes_native() {
        let plan = to(from_1_28(), "rke2=1.36.2");
        assert_eq!(
            line(&plan, "containerd"),
            "1.7.22 -> 2.3.2 or later of 2.3 (Changes)"
        );
        assert_eq!(
            line(&plan, "tier"),
            "device nodes and mounts -> native CDI (Changes)"
        );
        assert_eq!(line(&plan, "cdi"), "off by default -> on by default (Changes)");
        assert_eq!(
            line(&plan, "nri"),
            "off by default -> on, with CDI devices (Changes)"
        );
        assert_eq!(line(&plan, "config"), "generation 2 -> generation 3 (Changes)");
        assert_eq!(
            line(&plan, "runtime-class"),
            "not created by it -> created by the distribution (Changes)"
        );
        assert!(
            plan.change("distribution")
                .unwrap()
                .why
                .as_ref()
                .unwrap()
                .contains("1.28, 1.29, 1.30")
        );
        assert_eq!(plan.effect, Effect::Changes);
    }

    #[test]
    fn a_release_that_is_not_in_the_table_is_unknown_and_not_guessed() {
        let plan = to(from_1_28(), "rke2=1.42.0");
        assert_eq!(line(&plan, "containerd"), "1.7.22 -> can't tell (Unknown)");
        assert!(plan.change("tier").is_none());
        assert_eq!(plan.effect, Effect::Unknown);
    }

    #[test]
    fn within_a_series_containerd_stays() {
        let host = sample::host().release(DistributionKind::Rke2, "1.36.2+rke2r1", "2.3.2");
        let plan = to(host, "rke2=1.36.3");
        assert_eq!(plan.change("containerd").unwrap().effect, Effect::Same);
        assert_eq!(plan.change("tier").unwrap().effect, Effect::Same);
    }

    #[test]
    fn backwards_and_another_distribution_break() {
        assert_eq!(to(sample::host(), "rke2=1.35.7").effect, Effect::Breaks);
        let other = to(sample::host(), "k3s=1.36.2");
        assert_eq!(other.effect, Effect::Breaks);
        assert_eq!(line(&other, "distribution"), "RKE2 -> K3s 1.36.2 (Breaks)");
    }

    #[test]
    fn a_waiting_handler_becomes_live_and_a_lost_one_goes() {
        let pending = from_1_28().containerd(|containerd| {
            containerd.detected_runtimes =
                vec![("nvidia".to_owned(), "/usr/bin/nvidia-container-runtime".into())];
        });
        let plan = to(pending, "rke2=1.29.15");
        assert_eq!(
            line(&plan, "handler"),
            "live after the next restart -> live (Changes)"
        );
    }

    #[test]
    fn a_template_trap_springs_at_the_upgrade() {
        let with = |content: &str| {
            from_1_28().containerd(|containerd| {
                containerd.templates = vec![Template {
                    path: "/etc/containerd/config.toml.tmpl".into(),
                    text: text(content),
                }];
            })
        };
        assert_eq!(
            to(with("version = 2\n"), "rke2=1.29.15")
                .change("config")
                .unwrap()
                .effect,
            Effect::Breaks
        );
        let good = to(with("{{ template \"base\" . }}\n"), "rke2=1.36.2");
        let change = good.change("config").unwrap();
        assert_eq!(change.effect, Effect::Changes);
        assert!(change.next.as_ref().unwrap().contains("config-v3.toml.tmpl"));
    }

    #[test]
    fn drop_ins_of_the_old_place_are_not_read_under_containerd_2() {
        let host = from_1_28().containerd(|containerd| {
            containerd.drop_ins = vec![DropIn {
                path: "/x/config.toml.d/a.toml".into(),
                text: text("version = 2\n"),
                imported: false,
            }];
        });
        assert_eq!(
            line(&to(host, "rke2=1.36.2"), "drop-ins"),
            "not read -> not read (Same)"
        );
        let host = sample::host()
            .release(DistributionKind::Rke2, "1.33.4+rke2r1", "2.0.5")
            .containerd(|containerd| {
                containerd.drop_ins = vec![DropIn {
                    path: "/x/config-v3.toml.d/a.toml".into(),
                    text: text("version = 3\n"),
                    imported: false,
                }];
            });
        assert_eq!(
            line(&to(host, "rke2=1.35.4"), "drop-ins"),
            "not read -> can't tell (Unknown)"
        );
    }

    #[test]
    fn a_default_runtime_without_its_binary_breaks() {
        let host = from_1_28().with(|host| {
            if let Reading::Value(distribution) = &mut host.distribution {
                distribution.default_runtime = text("nvidia");
            }
        });
        assert_eq!(
            to(host, "rke2=1.29.15").change("default-runtime").unwrap().effect,
            Effect::Breaks
        );
    }
}
