//! `pitcrew check --next-boot` on nodes laid out in a directory, with the real containerd of both generations.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pitcrew_host::containerd::{Generation, effective, parse};
use pitcrew_host::{HostRoots, Roots};
use pitcrew_scenario::HostRoot;
use pitcrew_tests::{run, testbed};
use serde_json::Value;
use tempfile::TempDir;

const NVIDIA: &str = "/usr/local/nvidia/toolkit/nvidia-container-runtime";
const CONFIG: &str = "/var/lib/rancher/rke2/agent/etc/containerd";

/// RKE2 1.28 with containerd 1.7, as its release writes its configuration.
const OLD: &str = include_str!("../../host/tests/fixtures/containerd/k3s-29848dea3-v2-rke2-plain.toml");

fn containerd(generation: Generation) -> PathBuf {
    let version = match generation {
        Generation::One => "1.7",
        Generation::Two => "2.2",
    };
    let path = testbed(&["which", "containerd", "--containerd", version]).ok();
    std::fs::canonicalize(path.trim()).unwrap()
}

/// A node of RKE2 with these files beside its own.
fn node(generation: Generation, files: &[(&str, &str)]) -> TempDir {
    let (binary, mut manifest) = match generation {
        Generation::Two => (
            "/var/lib/rancher/rke2/data/v1.36.2-rke2r1-3a4f06b0d1c2/bin/containerd",
            serde_json::json!({"description": "new", "like": "rke2", "files": {}}),
        ),
        Generation::One => {
            let data = "/var/lib/rancher/rke2/data";
            let log = "time=\"2026-11-20T08:12:01Z\" level=info msg=\"starting containerd\" revision=0 version=v1.7.22-k3s1\n";
            let bin = format!("{data}/v1.28.15-rke2r1-0123456789ab/bin");
            let manifest = serde_json::json!({
                "description": "old",
                "like": "rke2",
                "remove": [format!("{data}/v1.36.2-rke2r1-3a4f06b0d1c2")],
                "links": {"/var/lib/rancher/rke2/bin": bin},
                "files": {
                    format!("{bin}/containerd"): "",
                    "/var/lib/rancher/rke2/agent/containerd/containerd.log": log,
                    format!("{CONFIG}/config.toml"): OLD,
                },
            });
            (
                "/var/lib/rancher/rke2/data/v1.28.15-rke2r1-0123456789ab/bin/containerd",
                manifest,
            )
        }
    };
    for (path, text) in files {
        manifest["files"][path] = Value::from(*text);
    }
    let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
    // JSON is YAML.
    let root = HostRoot::parse(&manifest.to_string(), "node", &find).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Root's containerd of another root is run as nobody.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    root.build(dir.path()).unwrap();
    let place = dir.path().join(binary.trim_start_matches('/'));
    std::fs::remove_file(&place).unwrap();
    std::fs::copy(containerd(generation), &place).unwrap();
    dir
}

/// What `check --next-boot` says, and its exit status.
fn check(node: &Path) -> (Option<i32>, Value) {
    // Test programs lie one directory below what is built.
    let built = std::env::current_exe().unwrap();
    let pitcrew = built.ancestors().nth(2).unwrap().join("pitcrew");
    let mut command = Command::new(pitcrew);
    command.arg("--root").arg(node);
    command.args(["check", "--next-boot", "-o", "json"]);
    let outcome = run(command, "");
    let document = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:?}"));
    (outcome.code, document)
}

fn problems(document: &Value) -> Vec<&str> {
    let problems = document["problems"].as_array().unwrap();
    problems
        .iter()
        .map(|problem| problem["id"].as_str().unwrap())
        .collect()
}

fn handlers(document: &Value) -> Vec<&str> {
    let handlers = document["next"]["handlers"].as_array().unwrap();
    handlers
        .iter()
        .map(|handler| handler["name"].as_str().unwrap())
        .collect()
}

#[track_caller]
fn comes_back(node: &TempDir) -> Value {
    let (code, document) = check(node.path());
    assert_eq!(document["verdict"], "comes-back", "{document:#}");
    assert_eq!(document["verified"]["takes"], true, "{document:#}");
    assert_eq!(code, Some(0));
    document
}

#[track_caller]
fn fails(node: &TempDir, verdict: &str, problem: &str) -> Value {
    let (code, document) = check(node.path());
    assert_eq!(document["verdict"], verdict, "{document:#}");
    assert!(problems(&document).contains(&problem), "{document:#}");
    assert_eq!(code, Some(1));
    document
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn nodes_where_nothing_is_wrong_come_back_on_both_generations() {
    for generation in [Generation::Two, Generation::One] {
        let plain = comes_back(&node(generation, &[]));
        assert_eq!(plain["lines"], serde_json::json!([]), "{plain:#}");
        let found = comes_back(&node(generation, &[(NVIDIA, "")]));
        assert!(handlers(&found).contains(&"nvidia"), "{found:#}");
        let default = "default-runtime: nvidia\n";
        let found = comes_back(&node(
            generation,
            &[(NVIDIA, ""), ("/etc/rancher/rke2/config.yaml", default)],
        ));
        assert_eq!(found["next"]["default_handler"], "nvidia");
    }
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_template_that_repeats_a_table_is_caught_in_containerds_own_words() {
    let template = |section: &str| {
        format!(
            "{{{{ template \"base\" . }}}}\n[plugins.\"{section}\".containerd.runtimes.\"nvidia\"]\n\
             runtime_type = \"io.containerd.runc.v2\"\n"
        )
    };
    for (generation, name, section, words) in [
        (
            Generation::Two,
            "config-v3.toml.tmpl",
            "io.containerd.cri.v1.runtime",
            "already exists",
        ),
        (
            Generation::Two,
            "config.toml.tmpl",
            "io.containerd.grpc.v1.cri",
            "already exists",
        ),
        (
            Generation::One,
            "config.toml.tmpl",
            "io.containerd.grpc.v1.cri",
            "duplicated tables",
        ),
    ] {
        let (path, template) = (format!("{CONFIG}/{name}"), template(section));
        let document = fails(
            &node(generation, &[(NVIDIA, ""), (&path, &template)]),
            "does-not-come-back",
            "table-twice",
        );
        assert_eq!(document["verified"]["takes"], false, "{document:#}");
        let said = document["verified"]["said"].as_str().unwrap();
        assert!(said.contains(words), "{said}");
        // The same template does no harm as long as nothing else configures the runtime.
        let document = comes_back(&node(generation, &[(&path, &template)]));
        assert!(handlers(&document).contains(&"nvidia"), "{document:#}");
    }
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_table_in_another_spelling_is_taken_by_containerd_1_and_that_is_believed() {
    let template = "{{ template \"base\" . }}\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]\n\
                    privileged_without_host_devices = true\n";
    let path = format!("{CONFIG}/config.toml.tmpl");
    let document = comes_back(&node(Generation::One, &[(NVIDIA, ""), (&path, template)]));
    assert!(handlers(&document).contains(&"nvidia"), "{document:#}");
    fails(
        &node(Generation::Two, &[(NVIDIA, ""), (&path, template)]),
        "does-not-come-back",
        "table-twice",
    );
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_drop_in_of_version_2_under_version_3_is_caught() {
    let path = format!("{CONFIG}/config-v3.toml.d/99-nvidia.toml");
    let old = format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"nvidia\"]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"nvidia\".options]\nBinaryName = \"{NVIDIA}\"\n"
    );
    let document = fails(
        &node(Generation::Two, &[(&path, &old)]),
        "comes-back-without",
        "drop-in-lost",
    );
    assert_eq!(
        document["verified"]["takes"], true,
        "containerd says nothing of it: {document:#}"
    );
    assert!(!handlers(&document).contains(&"nvidia"), "{document:#}");

    let new = old
        .replace("version = 2", "version = 3")
        .replace("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime");
    let document = comes_back(&node(Generation::Two, &[(NVIDIA, ""), (&path, &new)]));
    assert!(handlers(&document).contains(&"nvidia"), "{document:#}");
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_default_runtime_that_was_removed_is_caught_on_both_generations() {
    let settings = ("/etc/rancher/rke2/config.yaml", "default-runtime: nvidia\n");
    for generation in [Generation::Two, Generation::One] {
        fails(
            &node(generation, &[settings]),
            "does-not-come-back",
            "default-runtime-not-found",
        );
    }
    // By a drop-in or a template, it is CRI that does not start: containerd's dump doesn't tell.
    let drop_in = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = \"nvidia\"\n";
    let path = format!("{CONFIG}/config-v3.toml.d/default.toml");
    let document = fails(
        &node(Generation::Two, &[(&path, drop_in)]),
        "does-not-come-back",
        "default-handler-missing",
    );
    assert_eq!(document["verified"]["takes"], true, "{document:#}");
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_drop_in_on_containerd_1_takes_the_section_away_and_that_is_caught() {
    let template = "{{ template \"base\" . }}\n".to_owned();
    // `imports` belongs before the first table, so that such a template brings its own text.
    let whole = OLD.replace(
        "version = 2",
        "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]",
    );
    let drop_in = format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"nvidia\".options]\nBinaryName = \"{NVIDIA}\"\n"
    );
    let path = format!("{CONFIG}/config.toml.tmpl");
    let files = [
        (NVIDIA, ""),
        (path.as_str(), whole.as_str()),
        ("/etc/containerd/conf.d/99-nvidia.toml", drop_in.as_str()),
    ];
    let document = fails(&node(Generation::One, &files), "does-not-come-back", "main-lost");
    assert_eq!(document["verified"]["takes"], true, "{document:#}");
    comes_back(&node(Generation::One, &[(path.as_str(), template.as_str())]));
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn without_its_containerd_a_node_is_not_said_to_come_back() {
    let node = node(Generation::Two, &[]);
    let binary = "var/lib/rancher/rke2/data/v1.36.2-rke2r1-3a4f06b0d1c2/bin/containerd";
    std::fs::write(node.path().join(binary), "no program").unwrap();
    let (code, document) = check(node.path());
    assert_eq!(document["verdict"], "cannot-tell", "{document:#}");
    assert_eq!(code, Some(2));
}

/// Handlers by name and binary; `None` for a configuration that is refused.
type Handlers = Option<Vec<(String, String)>>;

/// What a configuration with drop-ins comes to: as we read it, and as containerd does.
fn both(generation: Generation, main: &str, drop_ins: &[&str]) -> (Handlers, Handlers) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    for (index, text) in drop_ins.iter().enumerate() {
        std::fs::write(dir.path().join(format!("d/{index}.toml")), text).unwrap();
    }
    let path = dir.path().join("config.toml");
    std::fs::write(&path, main).unwrap();
    let mut command = Command::new(containerd(generation));
    std::os::unix::process::CommandExt::arg0(&mut command, "containerd");
    command.arg("--config").arg(&path).args(["config", "dump"]);
    let outcome = run(command, "");
    let fs = HostRoots::new(Roots::under("/"));
    let sorted = |mut handlers: Vec<(String, String)>| {
        handlers.retain(|(name, _)| name != "runc");
        handlers.sort();
        handlers
    };
    let ours = effective(&fs, &path, generation)
        .ok()
        .map(|found| sorted(found.config.handlers));
    let theirs = (outcome.code == Some(0)).then(|| sorted(parse(&outcome.stdout).unwrap().handlers));
    (ours, theirs)
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn merging_is_read_here_as_containerd_does_it() {
    let runtimes = |version: &str, section: &str, name: &str| {
        format!(
            "{version}[plugins.\"{section}\".containerd.runtimes.{name}]\nruntime_type = \"io.containerd.runc.v2\"\n\
             [plugins.\"{section}\".containerd.runtimes.{name}.options]\nBinaryName = \"/{name}\"\n"
        )
    };
    let mut compared = 0;
    let sections = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];
    let versions = ["", "version = 1\n", "version = 2\n", "version = 3\n"];
    for generation in [Generation::Two, Generation::One] {
        for main_version in versions {
            for main_section in sections {
                for version in versions {
                    for section in sections {
                        let head = format!("{main_version}imports = [\"d/*.toml\"]\n");
                        let main = runtimes(&head, main_section, "one");
                        let drop_in = runtimes(version, section, "two");
                        let (ours, theirs) = both(generation, &main, &[&drop_in]);
                        assert_eq!(
                            ours, theirs,
                            "{generation:?}: {main_version:?} {main_section}, then {version:?} {section}"
                        );
                        compared += 1;
                    }
                }
            }
        }
    }
    assert_eq!(compared, 288);
}
