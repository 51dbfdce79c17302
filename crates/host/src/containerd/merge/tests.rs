use super::*;
use crate::containerd::memory::MemoryFs;

const MAIN: &str = "/etc/c/config.toml";

fn handlers(effective: &Effective) -> Vec<&str> {
    effective
        .config
        .handlers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect()
}

fn both(main: &str, drop_in: &str, generation: Generation) -> Result<Effective, ConfigError> {
    let fs = MemoryFs::new([(MAIN, main), ("/etc/c/d/a.toml", drop_in)]);
    effective(&fs, Path::new(MAIN), generation)
}

const V3: &str = r#"
version = 3
imports = ["d/*.toml"]
[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = true
  cdi_spec_dirs = ["/a"]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = true
"#;

const V2: &str = r#"
version = 2
imports = ["d/*.toml"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "pause"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
"#;

const V2_DROP_IN: &str = r#"
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
  BinaryName = "/usr/bin/nvidia-container-runtime"
"#;

#[test]
fn version_3_and_a_drop_in_are_merged_key_by_key_with_or_without_its_version() {
    for version in ["version = 3\n", ""] {
        let drop_in = format!(
            "{version}[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = \"nvidia\"\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nBinaryName = \"/x\"\n"
        );
        let found = both(V3, &drop_in, Generation::Two).unwrap();
        assert_eq!(found.config.handlers, [("runc".to_owned(), "/x".to_owned())]);
        assert_eq!(found.config.default_handler.as_deref(), Some("nvidia"));
        let cgroup = [
            "plugins",
            "io.containerd.cri.v1.runtime",
            "containerd",
            "runtimes",
            "runc",
            "options",
            "SystemdCgroup",
        ];
        assert_eq!(tree::get(&found.table, &cgroup), Some(&Value::Boolean(true)));
        assert_eq!(found.files.len(), 2);
    }
}

#[test]
fn inside_of_plugins_lists_are_replaced_and_false_counts() {
    let drop_in =
        "[plugins.'io.containerd.cri.v1.runtime']\ncdi_spec_dirs = [\"/b\"]\nenable_selinux = false\n";
    let found = both(V3, drop_in, Generation::Two).unwrap();
    assert_eq!(found.config.cdi_dirs, Some(vec!["/b".to_owned()]));
    assert_eq!(found.config.enable_selinux, Some(false));
}

#[test]
fn a_runtime_of_version_2_under_version_3_is_lost_without_a_word() {
    let found = both(V3, V2_DROP_IN, Generation::Two).unwrap();
    assert_eq!(handlers(&found), ["runc"]);
    assert_eq!(found.config.version, 3, "the main file's");
}

#[test]
fn other_keys_of_version_2_under_version_3_count_where_version_3_lacks_them() {
    let drop_in = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = false\nenable_selinux = false\n\
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"nvidia\"\n";
    let found = both(V3, drop_in, Generation::Two).unwrap();
    assert_eq!(found.config.enable_cdi, Some(false));
    assert_eq!(found.config.enable_selinux, Some(true));
    assert_eq!(found.config.default_handler.as_deref(), Some("nvidia"));
}

#[test]
fn version_2_and_a_drop_in_of_version_2_are_merged_by_generation_2() {
    let found = both(V2, V2_DROP_IN, Generation::Two).unwrap();
    assert_eq!(handlers(&found), ["nvidia", "runc"]);
    assert_eq!(found.config.version, 2);
}

#[test]
fn version_2_and_a_drop_in_of_version_2_lose_the_main_section_on_generation_1() {
    let found = both(V2, V2_DROP_IN, Generation::One).unwrap();
    assert_eq!(handlers(&found), ["nvidia"]);
    assert_eq!(
        tree::get(
            &found.table,
            &["plugins", "io.containerd.grpc.v1.cri", "sandbox_image"]
        ),
        None
    );
}

#[test]
fn version_1_says_nothing_to_generation_2() {
    let main = "[plugins.cri.containerd.runtimes.nvidia.options]\nBinaryName = \"/x\"\n";
    let fs = MemoryFs::new([(MAIN, main)]);
    let two = effective(&fs, Path::new(MAIN), Generation::Two).unwrap();
    assert!(handlers(&two).is_empty());
    let one = effective(&fs, Path::new(MAIN), Generation::One).unwrap();
    assert_eq!(handlers(&one), ["nvidia"]);
}

#[test]
fn versions_and_names_that_generation_1_refuses_are_refused() {
    let fs = MemoryFs::new([(MAIN, "version = 3\n")]);
    let error = effective(&fs, Path::new(MAIN), Generation::One).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/etc/c/config.toml: containerd 1 knows no version 3 of its configuration (`version`)"
    );
    let fs = MemoryFs::new([(MAIN, "version = 2\n[plugins.cri]\n")]);
    let error = effective(&fs, Path::new(MAIN), Generation::One).unwrap_err();
    assert_eq!(error.key.as_deref(), Some("plugins.cri"));
    assert!(effective(&fs, Path::new(MAIN), Generation::Two).is_ok());
}

#[test]
fn imports_of_imports_are_followed_relative_to_their_own_file_and_loops_end() {
    let fs = MemoryFs::new([
        (MAIN, "version = 3\nimports = [\"d/a.toml\"]\n"),
        (
            "/etc/c/d/a.toml",
            "imports = [\"n/b.toml\", \"../config.toml\", \"./a.toml\"]\n",
        ),
        (
            "/etc/c/d/n/b.toml",
            "[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = \"x\"\n",
        ),
    ]);
    let found = effective(&fs, Path::new(MAIN), Generation::Two).unwrap();
    assert_eq!(found.config.default_handler.as_deref(), Some("x"));
    let read: Vec<_> = found
        .files
        .iter()
        .map(|file| file.path.to_str().unwrap())
        .collect();
    assert_eq!(read, [MAIN, "/etc/c/d/a.toml", "/etc/c/d/n/b.toml"]);
    assert_eq!(found.config.imports, ["d/a.toml"], "the main file's");
}

#[test]
fn an_import_by_name_must_be_there_and_a_pattern_need_not_match() {
    let fs = MemoryFs::new([(MAIN, "imports = [\"/nowhere/*.toml\"]\n")]);
    assert!(effective(&fs, Path::new(MAIN), Generation::Two).is_ok());
    let fs = MemoryFs::new([(MAIN, "imports = [\"/nowhere/a.toml\"]\n")]);
    let error = effective(&fs, Path::new(MAIN), Generation::Two).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/a.toml: an import of /etc/c/config.toml: it is not there"
    );
}

#[test]
fn a_broken_drop_in_is_named_with_its_line() {
    let error = both(V3, "x = [\n", Generation::Two).unwrap_err();
    assert_eq!(error.file.as_deref(), Some(Path::new("/etc/c/d/a.toml")));
    assert!(error.to_string().starts_with("/etc/c/d/a.toml:"), "{error}");
}
