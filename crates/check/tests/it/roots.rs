//! Each manifest read in memory: the verdicts that were expected from the facts, and the report in full.

use std::fmt::Write as _;

use pitcrew_check::{Report, check};
use pitcrew_core::ports::InventorySource as _;
use pitcrew_host::Host;
use serde_json::Value;

use crate::manifests;

pub(crate) fn report(name: &str) -> Report {
    let root = manifests::root(name);
    let gpus = manifests::machine(name, &root).inventory();
    check(&Host::gather(&root), gpus.as_ref())
}

fn document(name: &str) -> Value {
    serde_json::to_value(report(name)).unwrap()
}

#[test]
fn every_root_gets_the_verdicts_that_follow_from_the_facts() {
    let names = manifests::names();
    assert!(names.len() >= 18, "{names:?}");
    let mut wrong = String::new();
    for name in names {
        let (expected, found) = (manifests::expected(&name), manifests::verdicts(&document(&name)));
        if expected != found {
            let _ = write!(wrong, "--- {name}: expected\n{expected}--- found\n{found}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_report_is_pinned_with_its_words() {
    for name in manifests::names() {
        let transcript = manifests::transcript(&document(&name));
        insta::with_settings!({ snapshot_path => manifests::snapshots(), prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.as_str(), transcript);
        });
    }
}

#[test]
fn what_stands_in_the_way_always_names_the_next_command_and_its_reason() {
    for name in manifests::names() {
        for finding in report(&name).findings {
            let needs = matches!(
                finding.verdict,
                pitcrew_check::Verdict::Failure | pitcrew_check::Verdict::Warning
            );
            assert!(!needs || finding.next.is_some(), "{name}: {}", finding.id);
            assert!(!needs || finding.why.is_some(), "{name}: {}", finding.id);
        }
    }
}

#[test]
fn ids_are_stable_words_and_titles_fit_their_column() {
    for name in manifests::names() {
        for finding in report(&name).findings {
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '-' || c == '.';
            assert!(finding.id.chars().all(is_plain), "{}", finding.id);
            assert!(finding.title.chars().count() <= 20, "{}", finding.title);
        }
    }
}

#[test]
fn no_advice_touches_what_the_distribution_overwrites_or_a_virtual_machine_owns() {
    for name in manifests::names() {
        for finding in report(&name).findings {
            let command = finding.next.unwrap_or_default();
            for forbidden in [
                "config.toml ",
                "tee /var/lib/rancher",
                "unbind",
                "new_id",
                "kill -HUP",
                "containerd.service",
            ] {
                assert!(!command.contains(forbidden), "{name}: {command}");
            }
            if command.contains("systemctl restart rke2-server") || command.contains("systemctl restart k3s ")
            {
                assert!(finding.care.is_some(), "{name}: {command}");
            }
        }
    }
}

#[test]
fn every_check_is_in_the_book() {
    let book = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/check.md");
    let book = std::fs::read_to_string(book).unwrap();
    for name in manifests::names() {
        for finding in report(&name).findings {
            assert!(book.contains(&format!("`{}`", finding.id)), "{}", finding.id);
        }
    }
}
