//! A template of the user that will break the node at its next start, as far as its text shows.
//!
//! RKE2 and K3s render their configuration from it at every start, so what is wrong in it sleeps until then. This is
//! the hint that a look at the text gives; `pitcrew check --next-boot` renders it and asks containerd.

use std::collections::BTreeSet;

use pitcrew_core::Reading;
use pitcrew_host::facts::Template;
use pitcrew_host::releases;

use super::Rule;
use crate::node::Node;
use crate::path::Known;
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[template];

/// What a template's text shows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trap {
    /// Tables that the base text writes too: a TOML file may not hold a table twice.
    Repeats(Vec<String>),
    /// Nothing in it is filled in: a finished configuration was put where a template belongs.
    Finished,
    /// An action is not closed.
    Unclosed,
    /// It is written out whole and not built on the base text.
    WithoutBase,
}

fn template(node: &Node<'_>) -> Vec<Finding> {
    let Some(containerd) = node.containerd() else {
        return Vec::new();
    };
    let Some(template) = containerd.templates.first() else {
        return Vec::new();
    };
    let path = template.path.display();
    let ask = question(Topic::Runtime, "runtime.template", "template", path.to_string());
    let text = match &template.text {
        Reading::Value(text) => text,
        Reading::NotSupported => return Vec::new(),
        Reading::Failed(reason) => return vec![ask.unknown(reason)],
    };
    let detected: Vec<&str> = containerd
        .detected_runtimes
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let rehearse = "pitcrew check --next-boot".to_owned();
    let care = format!(
        "do not restart {} before that: what is wrong here shows at its next start only",
        node.advice.unit()
    );
    vec![match trap(text, &detected) {
        Some(Trap::Repeats(tables)) => ask
            .failure(
                format!("repeats what the base text writes: {}", listed(tables)),
                "the template is appended to the base text and not merged, and containerd refuses a file that holds a \
                 table twice: the node will not come back",
            )
            .next(rehearse)
            .care(care),
        Some(Trap::Unclosed) => ask
            .failure(
                "an action `{{` is not closed",
                "it can't be rendered: the node will not come back",
            )
            .next(rehearse)
            .care(care),
        Some(Trap::Finished) => ask
            .failure(
                "a finished configuration, not a template",
                "a tool wrote here what belongs elsewhere: what the distribution puts in at every start (its CNI, \
                 registries, pause image, runtimes) is lost at the next one",
            )
            .next(rehearse)
            .care(care),
        Some(Trap::WithoutBase) => ask
            .warning(
                "written out whole, not built on the base text",
                "what later releases add to the base text never reaches this node; `{{ template \"base\" . }}` brings it",
            )
            .next(rehearse),
        None if is_old_generation(template, node) => ask
            .warning(
                "of generation 2, under containerd 2",
                "containerd 2 migrates it; drop-ins of generation 3 are then not read, so rename and rewrite it as \
                 config-v3.toml.tmpl",
            )
            .next(rehearse),
        None => ask.note(
            "built on the base text",
            "what it adds is rendered at every start; `pitcrew check --next-boot` says whether containerd takes it",
        ),
    }]
}

fn is_old_generation(template: &Template, node: &Node<'_>) -> bool {
    let is_v2 = template
        .path
        .file_name()
        .is_some_and(|name| name == "config.toml.tmpl");
    let version = node
        .containerd()
        .and_then(|containerd| Known::of(node.host, containerd).version());
    is_v2 && version.is_some_and(|version| releases::config_generation(&version) == 3)
}

/// What the text shows; `detected` are the handlers that the base text will write.
fn trap(text: &str, detected: &[&str]) -> Option<Trap> {
    if text.matches("{{").count() != text.matches("}}").count() {
        return Some(Trap::Unclosed);
    }
    if !text.contains("{{") {
        return Some(Trap::Finished);
    }
    if !has_base(text) {
        return Some(Trap::WithoutBase);
    }
    let mut seen = BTreeSet::new();
    let mut repeated = Vec::new();
    let mut depth = 0_usize;
    for line in text.lines() {
        // What stands under a condition may be left out; that is for the rehearsal to find.
        let is_conditional = depth > 0;
        depth = (depth + opens(line))
            .saturating_sub(line.matches("end }}").count() + line.matches("end}}").count());
        let Some(table) = table_of(line) else {
            continue;
        };
        let twice = !seen.insert(table.clone());
        if !is_conditional && (twice || base_writes(&table, detected)) {
            repeated.push(table);
        }
    }
    (!repeated.is_empty()).then_some(Trap::Repeats(repeated))
}

fn has_base(text: &str) -> bool {
    text.split("{{").skip(1).any(|rest| {
        let action = rest.split("}}").next().unwrap_or_default();
        let action = action.trim_start_matches('-').trim_start();
        action.starts_with("template") && action.contains("\"base\"")
    })
}

fn opens(line: &str) -> usize {
    line.split("{{")
        .skip(1)
        .filter(|rest| {
            let action = rest.trim_start_matches('-').trim_start();
            ["if ", "range ", "with "]
                .iter()
                .any(|word| action.starts_with(word))
        })
        .count()
}

/// The table that a line begins, with one kind of quotes; none for an array of tables, which may be repeated.
fn table_of(line: &str) -> Option<String> {
    let line = line.trim();
    if line.starts_with("[[") || line.contains("{{") {
        return None;
    }
    let (name, rest) = line.strip_prefix('[')?.split_once(']')?;
    let rest = rest.trim();
    (rest.is_empty() || rest.starts_with('#')).then(|| name.trim().replace('"', "'"))
}

/// Tables that every base text writes, in both generations, and those of the handlers that are detected.
fn base_writes(table: &str, detected: &[&str]) -> bool {
    let plugin = [
        "plugins.'io.containerd.grpc.v1.cri'",
        "plugins.'io.containerd.cri.v1.runtime'",
    ]
    .iter()
    .find_map(|plugin| table.strip_prefix(plugin));
    let Some(rest) = plugin else {
        return false;
    };
    let Some(handler) = rest.strip_prefix(".containerd.runtimes.") else {
        return rest.is_empty() || rest == ".containerd";
    };
    let handler = handler
        .strip_suffix(".options")
        .unwrap_or(handler)
        .trim_matches('\'');
    handler == "runc" || detected.contains(&handler)
}

#[cfg(test)]
mod tests {
    use pitcrew_core::Reading;

    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, text};

    const BASE: &str = "{{ template \"base\" . }}\n";

    fn of(rest: &str) -> Option<Trap> {
        trap(&format!("{BASE}{rest}"), &["nvidia"])
    }

    #[test]
    fn a_table_that_the_base_text_writes_too_is_the_trap() {
        let runc = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n";
        assert!(matches!(of(runc), Some(Trap::Repeats(_))));
        let nvidia = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia'.options]\n";
        assert!(matches!(of(nvidia), Some(Trap::Repeats(_))));
        let own = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'kata']\n";
        assert_eq!(of(own), None);
        assert!(matches!(of(&own.repeat(2)), Some(Trap::Repeats(_))));
        assert!(matches!(
            of("[plugins.'io.containerd.cri.v1.runtime'.containerd]"),
            Some(Trap::Repeats(_))
        ));
        assert_eq!(of("[proxy_plugins]\n  [proxy_plugins.stargz]\n"), None);
    }

    #[test]
    fn what_stands_under_a_condition_is_left_to_the_rehearsal() {
        let guarded = "{{ if not (index .ExtraRuntimes \"nvidia\").BinaryName }}\n\
                       [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia']\n{{ end }}\n";
        assert_eq!(of(guarded), None);
    }

    #[test]
    fn a_finished_configuration_and_an_open_brace_are_traps() {
        assert_eq!(trap("version = 2\n[plugins]\n", &[]), Some(Trap::Finished));
        assert_eq!(trap("{{ template \"base\" . \n", &[]), Some(Trap::Unclosed));
        assert_eq!(
            trap("root = \"{{ .NodeConfig.Containerd.Root }}\"\n", &[]),
            Some(Trap::WithoutBase)
        );
        assert_eq!(trap("{{- template \"base\" . -}}\n", &[]), None);
    }

    #[test]
    fn a_trap_is_told_before_the_restart_that_would_spring_it() {
        let host = sample::host().containerd(|containerd| {
            containerd.templates = vec![Template {
                path: "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl".into(),
                text: text("version = 3\n"),
            }];
        });
        let finding = one(&host.build(), "runtime.template");
        assert_eq!(finding.verdict, Verdict::Failure);
        assert_eq!(finding.next.as_deref(), Some("pitcrew check --next-boot"));
        assert!(finding.care.unwrap().starts_with("do not restart rke2-agent"));
    }

    #[test]
    fn no_restart_is_advised_while_a_trap_waits_for_it() {
        let host = sample::host().containerd(|containerd| {
            containerd.detected_runtimes =
                vec![("nvidia".to_owned(), "/usr/bin/nvidia-container-runtime".into())];
            containerd.templates = vec![Template {
                path: "/etc/containerd/config-v3.toml.tmpl".into(),
                text: text("version = 3\n"),
            }];
        });
        let finding = one(&host.build(), "runtime.handler");
        assert_eq!(finding.next.as_deref(), Some("pitcrew check --next-boot"));
        assert_eq!(
            finding.care.as_deref(),
            Some("do not restart rke2-agent before `template` is put right")
        );
    }

    #[test]
    fn a_template_of_generation_2_under_containerd_2_is_a_warning() {
        let host = sample::host().containerd(|containerd| {
            containerd.templates = vec![Template {
                path: "/etc/containerd/config.toml.tmpl".into(),
                text: Reading::Value(BASE.to_owned()),
            }];
        });
        assert_eq!(one(&host.build(), "runtime.template").verdict, Verdict::Warning);
    }

    proptest::proptest! {
        #[test]
        fn any_template_is_judged(text in "(\\[|\\]|'|\"|\\{\\{|\\}\\}|if |end|template \"base\" |plugins|\n|.){0,40}") {
            let _ = trap(&text, &["nvidia"]);
        }
    }
}
