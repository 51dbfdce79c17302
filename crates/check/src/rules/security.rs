//! What may forbid what mode bits allow.

use pitcrew_core::Reading;
use pitcrew_host::facts::{DistributionKind, SeLinux};

use super::Rule;
use crate::node::Node;
use crate::report::{Finding, Topic, question};

pub(crate) const RULES: &[Rule] = &[selinux, fapolicyd, denials, fips];

fn selinux(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Security,
        "security.selinux",
        "SELinux",
        "/sys/fs/selinux/enforce, selinux: of the distribution",
    );
    let confined = node
        .distribution()
        .and_then(|distribution| distribution.selinux.value().copied());
    let is_supervised = node.distribution().is_some_and(|distribution| {
        matches!(distribution.kind, DistributionKind::Rke2 | DistributionKind::K3s)
    });
    vec![match &node.host.security.selinux {
        Reading::NotSupported => ask.not_applicable("the kernel has none"),
        Reading::Failed(reason) => ask.unknown(reason).minor(),
        Reading::Value(SeLinux::Permissive) => {
            ask.note("permissive", "what would be denied is only written to the audit log")
        }
        Reading::Value(SeLinux::Enforcing) if is_supervised && confined == Some(false) => ask.note(
            "enforcing; containers are not confined (selinux: false)",
            "GPUs work; with selinux: true containers get their own label, and so do device nodes in them",
        ),
        Reading::Value(SeLinux::Enforcing) => ask.note(
            "enforcing; containers are confined",
            "the distribution's policy has no rule for NVIDIA's paths: device nodes and libraries in containers work, \
             the driver's sockets under /run may be denied",
        ),
    }]
}

fn fapolicyd(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Security,
        "security.fapolicyd",
        "fapolicyd",
        "fapolicyd.service",
    );
    let place = node.distribution().map_or_else(
        || "/opt/pitcrew".to_owned(),
        |distribution| distribution.data_dir.display().to_string(),
    );
    vec![match &node.host.security.fapolicyd {
        Reading::NotSupported => ask.not_applicable("not installed"),
        Reading::Failed(reason) => ask.unknown(reason).minor(),
        Reading::Value(false) => ask.ok("installed, not enabled"),
        Reading::Value(true) => ask
            .note(
                "enabled",
                format!("it lets only trusted programs run: a rule must allow those under {place}"),
            )
            .next("sudo fapolicyd-cli --list | grep -e rancher -e pitcrew".to_owned()),
    }]
}

/// A denial is too long for a line of its own: what it says most, and where the rest is.
const SHOWN: usize = 160;

fn denials(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Security,
        "security.denials",
        "denials",
        "/var/log/audit/audit.log",
    );
    vec![match &node.host.security.denials {
        Reading::NotSupported => ask.not_applicable("no audit log"),
        Reading::Failed(reason) => ask.unknown(reason).minor(),
        Reading::Value(denials) => match denials.last() {
            None => ask.ok("none about GPUs or the container runtime"),
            Some(last) => {
                let shown: String = last.chars().take(SHOWN).collect();
                let more = if shown.len() < last.len() { "…" } else { "" };
                let count = match denials.len() {
                    1 => "1 denial".to_owned(),
                    count => format!("{count} denials"),
                };
                ask.warning(
                    format!("{count}; the last: {shown}{more}"),
                    "a program was forbidden what GPU pods may need; whether it still is, the time of the entry tells",
                )
                .next("sudo ausearch -m AVC,USER_AVC,FANOTIFY -ts recent -i".to_owned())
            }
        },
    }]
}

fn fips(node: &Node<'_>) -> Vec<Finding> {
    match &node.host.security.fips {
        Reading::Value(true) => {
            let ask = question(
                Topic::Security,
                "security.fips",
                "FIPS mode",
                "/proc/sys/crypto/fips_enabled",
            );
            vec![ask.note(
                "on",
                "GPUs work; programs that speak TLS or hash are held to approved algorithms",
            )]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample;

    #[test]
    fn the_last_denial_is_quoted_and_cut() {
        let host = sample::host().with(|host| {
            host.security.denials = Reading::Value(vec!["first".to_owned(), "x".repeat(500)]);
        });
        let finding = one(&host.build(), "security.denials");
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.found.starts_with("2 denials; the last: xxx") && finding.found.ends_with('…'));
        assert!(finding.found.len() < 200);
    }

    #[test]
    fn an_audit_log_that_cannot_be_read_is_unknown_and_decides_nothing() {
        let host = sample::host().with(|host| {
            host.security.denials = Reading::Failed("permission denied".to_owned());
        });
        let finding = one(&host.build(), "security.denials");
        assert_eq!((finding.verdict, finding.decisive), (Verdict::Unknown, false));
    }

    #[test]
    fn selinux_is_judged_by_what_the_distribution_does_with_it() {
        let found = |confined| {
            let host = sample::host().with(|host| {
                host.security.selinux = Reading::Value(SeLinux::Enforcing);
                if let Reading::Value(distribution) = &mut host.distribution {
                    distribution.selinux = Reading::Value(confined);
                }
            });
            one(&host.build(), "security.selinux").found
        };
        assert_eq!(found(true), "enforcing; containers are confined");
        assert_eq!(
            found(false),
            "enforcing; containers are not confined (selinux: false)"
        );
    }
}
