use super::*;
use crate::containerd::parse;

const BINARY: &str = "/opt/pitcrew/bin/nvidia-container-runtime";
const PATTERN: &str = "/etc/containerd/conf.d/99-pitcrew*.toml";

/// As kubeadm's documentation has people write it, with what people add.
const TWO: &str = "# our own, do not touch\nversion = 2\nroot = \"/var/lib/containerd\" # big disk\n\n[plugins]\n  \
                   [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"pause:3.9\"\n    \
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n      default_runtime_name = \"runc\"\n      \
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n        \
                   runtime_type = \"io.containerd.runc.v2\"\n        \
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n          \
                   SystemdCgroup = true\n";

fn handler(version: u32, text: &str) -> HandlerTable {
    let table = parse_table(text).unwrap();
    HandlerTable::like(
        version,
        "nvidia",
        runtime(&table, version, "runc"),
        Path::new(BINARY),
    )
}

fn taken_out(text: &str) -> String {
    without(text, PATTERN, "nvidia", Path::new(BINARY))
}

#[test]
fn a_handler_is_as_the_nodes_own_runtime_but_for_its_program() {
    let edited = handler(2, TWO).appended(TWO).unwrap();
    let config = parse(&edited).unwrap();
    assert!(
        config
            .handlers
            .contains(&("nvidia".to_owned(), BINARY.to_owned())),
        "{edited}"
    );
    let table = parse_table(&edited).unwrap();
    let options = runtime(&table, 2, "nvidia").unwrap()["options"]
        .as_table()
        .unwrap();
    assert_eq!(options["SystemdCgroup"], Value::Boolean(true));
    assert!(edited.starts_with(TWO), "what was there is as it was");
    assert_eq!(
        without_handler(table, "nvidia"),
        without_handler(parse_table(TWO).unwrap(), "nvidia")
    );
}

#[test]
fn what_was_put_in_comes_out_and_the_rest_is_the_same_to_the_byte() {
    for text in [
        TWO,
        TWO.trim_end(),
        "",
        "\n",
        "version = 2",
        "version = 2\r\n[debug]\r\nlevel = 'info'\r\n",
    ] {
        let edited = handler(2, text).appended(text).unwrap();
        assert_eq!(taken_out(&edited), text);
    }
    for text in [
        "version = 3\n",
        "version = 3\nimports = []\n",
        "version = 3\nimports = [ ] # none\n",
        "imports = [\"/a/*.toml\"]\nversion = 3",
        "version = 3\nimports = [\n  # ours\n  \"/a/*.toml\",\n]\n[debug]\n  level = \"info\"\n",
        "",
        "\n\n",
    ] {
        let edited = with_import(text, 3, PATTERN).unwrap();
        let config = parse(&edited).unwrap();
        assert!(config.imports.contains(&PATTERN.to_owned()), "{edited}");
        assert_eq!(config.version, 3);
        assert_eq!(taken_out(&edited), text, "{edited}");
    }
}

#[test]
fn what_others_change_meanwhile_stays() {
    let edited = handler(2, TWO).appended(TWO).unwrap();
    let changed = edited.replace("pause:3.9", "pause:3.10") + "[metrics]\naddress = \"127.0.0.1:1338\"\n";
    let expected = TWO.replace("pause:3.9", "pause:3.10") + "[metrics]\naddress = \"127.0.0.1:1338\"\n";
    assert_eq!(taken_out(&changed), expected);
}

#[test]
fn a_file_that_was_written_anew_loses_what_is_ours_and_nothing_else() {
    let edited = with_import(&handler(2, TWO).appended(TWO).unwrap(), 2, PATTERN).unwrap();
    let anew: String = edited
        .split_inclusive('\n')
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let left = taken_out(&anew);
    assert!(!left.contains("nvidia") && !left.contains(PATTERN), "{left}");
    let mut expected = parse_table(TWO).unwrap();
    expected.insert("imports".to_owned(), Value::Array(Vec::new()));
    assert_eq!(parse_table(&left).unwrap(), expected);
}

#[test]
fn a_handler_of_somebody_else_is_not_ours_to_take_out() {
    let theirs = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.nvidia.options]\n\
                  BinaryName = '/usr/bin/nvidia-container-runtime'\n";
    assert_eq!(taken_out(theirs), theirs);
    assert_eq!(taken_out("{{ no toml"), "{{ no toml");
    // A line of ours without an end is no piece.
    let cut = format!("version = 2\n{BEGIN}\n[debug]\n");
    assert_eq!(taken_out(&cut), cut);
}

#[test]
fn what_would_be_no_toml_is_refused() {
    let inline = "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { sandbox_image = \"x\" } }\n";
    assert!(handler(2, inline).appended(inline).is_err());
    assert!(with_import("version = 3\nimports = \"x\"\n", 3, PATTERN).is_err());
    assert!(with_import("{{ no toml", 3, PATTERN).is_err());
}

#[test]
fn a_drop_in_says_the_version_of_the_file_that_imports_it() {
    for version in [2, 3] {
        let text = HandlerTable::like(version, "nvidia", None, Path::new(BINARY)).drop_in();
        let config = parse(&text).unwrap();
        assert_eq!(config.version, version);
        assert_eq!(config.handlers, [("nvidia".to_owned(), BINARY.to_owned())]);
    }
}
