//! What we render says the same as what K3s's own templates printed for the same facts.

use std::collections::BTreeSet;

use pitcrew_host::containerd::{Shape, parse_table, render};

use crate::nodes::{fixtures, node};

/// A release that has the template of this commit.
fn release(commit: &str, version: &str) -> Shape {
    let release = match (commit, version) {
        ("f575a05be", _) => "1.28.4",
        ("29848dea3", _) => "1.28.7",
        ("56fb3b099", _) => "1.29.11",
        ("50326c8bc", _) => "1.30.10",
        ("2b6225eef", "v3") => "1.32.3",
        ("e47c497a3", "v3") => "1.33.5",
        ("de59b6327", "v3") => "1.36.2",
        // Where the user's template is one for version 2, the base of version 2 is used on containerd 2 too.
        ("2b6225eef" | "e47c497a3" | "de59b6327", "v2") => "",
        other => unreachable!("no such commit: {other:?}"),
    };
    if release.is_empty() {
        return Shape {
            version: 2,
            imports: commit == "de59b6327",
            ..Shape::NEWEST
        };
    }
    Shape::of_release(&release.parse().unwrap())
}

/// Names of tables as they are written: who writes one again after them has a file that containerd refuses.
pub(crate) fn headers(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.trim_start().starts_with('['))
        .map(|line| line.replace(['\'', '"', ' '], ""))
        .collect()
}

fn cases() -> Vec<(String, String, String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let Some(rest) = name.strip_prefix("k3s-") else {
            continue;
        };
        let (commit, rest) = rest.split_once('-').unwrap();
        let (version, case) = rest.split_once('-').unwrap();
        found.push((
            commit.to_owned(),
            version.to_owned(),
            case.to_owned(),
            std::fs::read_to_string(&path).unwrap(),
        ));
    }
    found.sort();
    found
}

#[test]
fn what_is_rendered_equals_what_each_release_prints() {
    let cases = cases();
    assert_eq!(cases.len(), 30, "every printed configuration is compared");
    for (commit, version, case, printed) in cases {
        let shape = release(&commit, &version);
        let ours = render(&shape, &node(&case));
        assert_eq!(
            parse_table(&ours).unwrap(),
            parse_table(&printed).unwrap(),
            "{commit} {version} {case}:\n{ours}\n--- printed:\n{printed}"
        );
        assert_eq!(headers(&ours), headers(&printed), "{commit} {version} {case}");
    }
}

#[test]
fn the_shape_is_told_from_a_file_that_the_release_wrote() {
    for (commit, version, case, printed) in cases() {
        let mut expected = release(&commit, &version);
        // Nothing in a file tells whether a flag that isn't set would be written.
        expected.default_runtime = true;
        if version == "v2" {
            expected.local_pull = false;
        }
        assert_eq!(
            Shape::of_written(&parse_table(&printed).unwrap()),
            expected,
            "{commit} {version} {case}"
        );
    }
}
