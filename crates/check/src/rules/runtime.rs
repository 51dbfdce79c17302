//! The container runtime: its version, CDI, the handler `nvidia`, NRI, drop-ins.

use pitcrew_core::Reading;
use pitcrew_host::facts::{Containerd, DistributionKind};
use pitcrew_host::releases::{self, CdiThroughCri};
use semver::Version;

use super::Rule;
use crate::node::Node;
use crate::path::{self, Handler, Known, Tier};
use crate::report::{Finding, Question, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[running, version, cdi, handler, nri, drop_ins];

/// The container runtime, or what to say without one.
fn runtime<'a>(node: &Node<'a>, ask: Question) -> Result<(&'a Containerd, Question), Vec<Finding>> {
    match &node.host.containerd {
        Reading::Value(containerd) => Ok((containerd, ask)),
        Reading::NotSupported => Err(vec![ask.not_applicable("no containerd on this node")]),
        Reading::Failed(_) => Err(vec![
            ask.not_applicable("containerd can't be examined: see `containerd`"),
        ]),
    }
}

/// Is it there, and does it run?
fn running(node: &Node<'_>) -> Vec<Finding> {
    let ask = |path: String| question(Topic::Runtime, "runtime.containerd", "containerd", path);
    vec![match &node.host.containerd {
        Reading::Value(containerd) => {
            let socket = containerd.socket.display().to_string();
            let ask = ask(socket.clone());
            if containerd.is_running {
                ask.ok(format!("socket {socket}"))
            } else {
                ask.failure(
                    format!("no socket {socket}"),
                    "containerd doesn't run, so no pod does",
                )
                .next(format!("sudo systemctl status {}", node.advice.unit()))
            }
        }
        Reading::NotSupported => ask("its usual sockets and binaries".to_owned())
            .failure("none on this node", "no container runtime, no pods")
            .next("systemctl list-unit-files 'rke2*' 'k3s*' containerd.service".to_owned()),
        Reading::Failed(reason) => ask("its usual sockets and binaries".to_owned()).unknown(reason),
    }]
}

fn version(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Runtime,
        "runtime.version",
        "containerd version",
        node.containerd()
            .map_or("its binary and log", |containerd| containerd.version_source),
    );
    let (containerd, ask) = match runtime(node, ask) {
        Ok(found) => found,
        Err(findings) => return findings,
    };
    vec![match Known::of(node.host, containerd) {
        Known::Exactly(version) if version < Version::new(1, 6, 0) => ask
            .failure(
                format!("{version}"),
                "older than 1.6, the oldest that pitcrew hands GPUs to",
            )
            .next(format!("{} get nodes -o wide", node.advice.kubectl())),
        // The build's mark is written as containerd itself writes it: v2.3.2-k3s1.
        Known::Exactly(version) => ask.ok(version.to_string().replace('+', "-")),
        Known::AtLeast(version) => ask.note(
            format!("{version} or later of its series"),
            "the node does not say; this is what its release ships",
        ),
        Known::ByConfig => ask.note(
            "2.0 or later",
            "the node does not say; its configuration is of generation 3",
        ),
        Known::Nothing(reason) => ask.unknown(reason),
    }]
}

/// Does it take CDI names?
fn cdi(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Runtime,
        "runtime.cdi",
        "CDI in containerd",
        "containerd's version; enable_cdi, cdi_spec_dirs",
    );
    let (containerd, ask) = match runtime(node, ask) {
        Ok(found) => found,
        Err(findings) => return findings,
    };
    let config = match &containerd.config {
        Reading::Failed(reason) => return vec![ask.unknown(reason)],
        Reading::Value(config) => Some(config),
        Reading::NotSupported => None,
    };
    let Some(version) = Known::of(node.host, containerd).version() else {
        return vec![ask.unknown("containerd's version is not known")];
    };
    let enabled = config.and_then(|config| config.enable_cdi);
    let dirs = config.and_then(|config| config.cdi_dirs.as_ref());
    let mounts =
        "the device plugin answers device nodes and mounts of the driver's libraries instead; nothing to do";
    let finding = match (releases::cdi_through_cri(&version), enabled) {
        (CdiThroughCri::Yes, Some(false)) => ask.warning(
            "switched off (enable_cdi = false)",
            "it is on by default in this version, and switching it off is deprecated; GPUs then go in by mounts",
        ),
        (CdiThroughCri::Yes, _) => match dirs.filter(|dirs| !dirs.iter().any(|dir| is_run_cdi(dir))) {
            Some(dirs) => ask.failure(
                format!("on, and looks only in {}", listed(dirs)),
                "specifications are written to /var/run/cdi, where containerd does not look",
            )
            .next("pitcrew check --next-boot".to_owned())
            .care("take cdi_spec_dirs out of the template or drop-in that sets it".to_owned()),
            None => ask.ok("on"),
        },
        (CdiThroughCri::OffByDefault, Some(true)) => {
            ask.note("switched on; by default it is off in this version", mounts)
        }
        (CdiThroughCri::OffByDefault, _) => ask.note("off, as by default in this version", mounts),
        (CdiThroughCri::No, _) => ask.note("not known to this version", mounts),
    };
    vec![finding]
}

fn is_run_cdi(dir: &str) -> bool {
    matches!(dir.trim_end_matches('/'), "/var/run/cdi" | "/run/cdi")
}

/// Is there a handler for `runtimeClassName: nvidia`?
fn handler(node: &Node<'_>) -> Vec<Finding> {
    let config_path = node.containerd().map_or_else(
        || "containerd's configuration".to_owned(),
        |containerd| containerd.config_path.display().to_string(),
    );
    let ask = question(Topic::Runtime, "runtime.handler", "handler nvidia", config_path);
    let (containerd, ask) = match runtime(node, ask) {
        Ok(found) => found,
        Err(findings) => return findings,
    };
    let path = path::of(node.host);
    let binary = |handlers: &[(String, String)]| {
        let mut named = handlers.iter().filter(|(name, _)| name == "nvidia");
        named.next().map(|(_, binary)| binary.clone()).unwrap_or_default()
    };
    let configured = containerd
        .config
        .value()
        .map(|config| binary(&config.handlers))
        .unwrap_or_default();
    let is_supervised = node
        .distribution()
        .is_some_and(|it| matches!(it.kind, DistributionKind::Rke2 | DistributionKind::K3s));
    let finding = match path.handler {
        Handler::Live if configured.is_empty() => ask.ok("live, plain runc"),
        Handler::Live => ask.ok(format!("live: {configured}")),
        Handler::Broken => ask
            .failure(
                format!("configured, and {configured} is gone"),
                "pods with `runtimeClassName: nvidia` fail to start until it is back",
            )
            .next(format!("ls -l {configured}")),
        Handler::Pending => {
            let (command, care) = restart(node);
            let mut detected = containerd.detected_runtimes.iter();
            let found = detected
                .find(|(name, _)| name == "nvidia")
                .map(|(_, binary)| binary.display().to_string())
                .unwrap_or_default();
            let why = if path.tier == Tier::Native {
                "only pods with `runtimeClassName: nvidia` need it, and fail until then; others need no restart"
            } else {
                "pods with `runtimeClassName: nvidia` fail until then (`no runtime for \"nvidia\" is configured`)"
            };
            ask.warning(format!("waits for a restart: {found} was found"), why)
                .next(command)
                .care(care)
        }
        Handler::Absent if is_supervised => ask.note(
            "none, and no binary that the next start would find",
            "only pods with `runtimeClassName: nvidia` need it",
        ),
        Handler::Absent => ask.note("none", "only pods with `runtimeClassName: nvidia` need it"),
        Handler::Unknown => {
            let reason = containerd
                .config
                .failure()
                .unwrap_or("the configuration can't be read");
            ask.unknown(reason).minor()
        }
    };
    vec![finding]
}

/// A restart, unless something else on the node would keep it from coming back.
fn restart(node: &Node<'_>) -> (String, Option<String>) {
    let unit = node.advice.unit();
    match super::trap(node) {
        Some(trap) => (
            "pitcrew check --next-boot".to_owned(),
            Some(format!("do not restart {unit} before `{trap}` is put right")),
        ),
        None => node.advice.restart(),
    }
}

/// Can an NRI plugin ask for devices?
fn nri(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Runtime,
        "runtime.nri",
        "NRI",
        "containerd's version; disable of the NRI plugin",
    );
    let (containerd, ask) = match runtime(node, ask) {
        Ok(found) => found,
        Err(findings) => return findings,
    };
    let Some(version) = Known::of(node.host, containerd).version() else {
        return vec![ask.unknown("containerd's version is not known").minor()];
    };
    let disabled = containerd.config.value().and_then(|config| config.nri_disabled);
    let is_on = disabled.map_or_else(|| releases::nri_by_default(&version), |disabled| !disabled);
    vec![ask.ok(match (is_on, releases::cdi_through_nri(&version)) {
        (false, _) => "off; nothing here needs it",
        (true, true) => "on, with CDI devices",
        (true, false) => "on, without CDI devices",
    })]
}

/// Are drop-ins read as whoever wrote them meant?
fn drop_ins(node: &Node<'_>) -> Vec<Finding> {
    let Some(containerd) = node.containerd() else {
        return Vec::new();
    };
    let (Some(config), false) = (containerd.config.value(), containerd.drop_ins.is_empty()) else {
        return Vec::new();
    };
    let ask = question(
        Topic::Runtime,
        "runtime.drop-ins",
        "drop-ins",
        listed(containerd.drop_ins.iter().map(|it| it.path.display())),
    );
    let generation_of = |text: &str| {
        text.lines().find_map(|line| {
            let value = line
                .trim()
                .strip_prefix("version")?
                .trim_start()
                .strip_prefix('=')?;
            value.split('#').next()?.trim().parse::<u32>().ok()
        })
    };
    let not_read: Vec<_> = containerd
        .drop_ins
        .iter()
        .filter(|it| !it.imported)
        .map(|it| it.path.display())
        .collect();
    let older: Vec<_> = containerd
        .drop_ins
        .iter()
        .filter(|it| it.imported)
        .filter(|it| {
            let written = it.text.value().and_then(|text| generation_of(text));
            written.is_some_and(|written| written < config.version)
        })
        .map(|it| it.path.display())
        .collect();
    let is_old = Known::of(node.host, containerd)
        .version()
        .is_some_and(|version| version.major < 2);
    vec![if !older.is_empty() {
        ask.warning(
            format!("of an older generation than the main file: {}", listed(older)),
            format!(
                "containerd drops what it says without a word: write `version = {}` and the names of that generation",
                config.version
            ),
        )
        .next("pitcrew check --next-boot".to_owned())
    } else if is_old && containerd.drop_ins.iter().any(|it| it.imported) {
        ask.warning(
            "imported by containerd 1.x",
            "1.x replaces a plugin's whole section by that of the drop-in: what the main file says there is lost",
        )
        .next("pitcrew check --next-boot".to_owned())
    } else if !not_read.is_empty() {
        ask.warning(
            format!("not imported: {}", listed(not_read)),
            "the running configuration doesn't name them: they were added after the last start, or this release reads \
             none",
        )
        .next("pitcrew check --next-boot".to_owned())
    } else {
        ask.ok(format!("{} read", containerd.drop_ins.len()))
    }]
}

#[cfg(test)]
mod tests {
    use pitcrew_host::facts::DropIn;

    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, text};

    #[test]
    fn cdi_is_judged_by_version_and_switch() {
        let on = |version: &str, enabled| {
            let host = sample::host().release(DistributionKind::Rke2, "1.36.2+rke2r1", version);
            one(
                &host.config(|config| config.enable_cdi = enabled).build(),
                "runtime.cdi",
            )
        };
        assert_eq!(on("2.3.2", None).verdict, Verdict::Ok);
        assert_eq!(on("2.3.2", Some(false)).verdict, Verdict::Warning);
        assert_eq!(on("1.7.27", None).found, "off, as by default in this version");
        assert_eq!(
            on("1.7.27", Some(true)).found,
            "switched on; by default it is off in this version"
        );
        assert_eq!(on("1.6.28", None).found, "not known to this version");
    }

    #[test]
    fn containerd_that_looks_elsewhere_for_specifications_is_a_failure() {
        let host = sample::host().config(|config| config.cdi_dirs = Some(vec!["/etc/cdi".to_owned()]));
        assert_eq!(one(&host.build(), "runtime.cdi").verdict, Verdict::Failure);
    }

    #[test]
    fn nri_is_on_from_containerd_2_and_takes_cdi_devices_from_2_1() {
        let found = |version: &str, disabled| {
            let host = sample::host()
                .release(DistributionKind::Rke2, "1.33.0+rke2r1", version)
                .config(|config| config.nri_disabled = disabled);
            one(&host.build(), "runtime.nri").found
        };
        assert_eq!(found("1.7.27", None), "off; nothing here needs it");
        assert_eq!(found("2.0.4", None), "on, without CDI devices");
        assert_eq!(found("2.1.4", None), "on, with CDI devices");
        assert_eq!(found("2.1.4", Some(true)), "off; nothing here needs it");
    }

    #[test]
    fn a_handler_is_live_pending_broken_or_absent() {
        let toolkit = "/usr/local/nvidia/toolkit/nvidia-container-runtime";
        let host = |configured: bool, detected: bool| {
            let host = sample::host().containerd(|containerd| {
                if detected {
                    containerd.detected_runtimes = vec![("nvidia".to_owned(), toolkit.into())];
                }
            });
            host.config(|config| {
                if configured {
                    config.handlers.push(("nvidia".to_owned(), toolkit.to_owned()));
                }
            })
            .build()
        };
        let live = one(&host(true, true), "runtime.handler");
        assert_eq!(live.found, format!("live: {toolkit}"));
        let pending = one(&host(false, true), "runtime.handler");
        assert_eq!(pending.verdict, Verdict::Warning);
        assert_eq!(pending.next.as_deref(), Some("sudo systemctl restart rke2-agent"));
        let broken = one(&host(true, false), "runtime.handler");
        assert_eq!(broken.verdict, Verdict::Failure);
        assert_eq!(one(&host(false, false), "runtime.handler").verdict, Verdict::Note);
    }

    #[test]
    fn a_version_that_the_node_does_not_say_comes_from_its_release() {
        let host = sample::host().containerd(|containerd| {
            containerd.version = Reading::Failed("its log is gone".to_owned());
        });
        let finding = one(&host.build(), "runtime.version");
        assert_eq!(finding.found, "2.3.2 or later of its series");
        let host = sample::host()
            .containerd(|containerd| containerd.version = Reading::Failed("its log is gone".to_owned()))
            .with(|host| {
                if let Reading::Value(distribution) = &mut host.distribution {
                    distribution.version = Reading::Value("1.99.0+rke2r1".parse().unwrap());
                }
            });
        assert_eq!(one(&host.build(), "runtime.version").found, "2.0 or later");
    }

    #[test]
    fn a_drop_in_of_an_older_generation_is_lost_without_a_word() {
        let with = |written: &str, imported| {
            let host = sample::host().containerd(|containerd| {
                containerd.drop_ins = vec![DropIn {
                    path: "/x/config-v3.toml.d/nvidia.toml".into(),
                    text: text(written),
                    imported,
                }];
            });
            one(&host.build(), "runtime.drop-ins")
        };
        assert_eq!(with("version = 2 # old\n", true).verdict, Verdict::Warning);
        assert_eq!(with("version = 3\n", true).verdict, Verdict::Ok);
        assert_eq!(with("[plugins]\n", true).verdict, Verdict::Ok);
        assert_eq!(
            with("version = 3\n", false).found,
            "not imported: /x/config-v3.toml.d/nvidia.toml"
        );
    }
}
