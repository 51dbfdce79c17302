//! The configuration that RKE2 and K3s write where no template of the user's changes it.
//!
//! Our own rendering from the node's facts. That it says the same as K3s's own template, key for key and table for
//! table, is tested against what that template printed for the same facts, commit by commit; see
//! `tests/fixtures/README.md`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use semver::Version;

use super::tree::{self, Table, Value};

/// What differs between releases of K3s (and so of RKE2) in the configuration that they write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one change of one release; they are independent of each other"
)]
pub struct Shape {
    /// `version` of the file: 3 from the releases with containerd 2.0 on.
    pub version: u32,
    /// `imports` of a drop-in directory beside the file (K3s commit b51167a, 2026-02).
    pub imports: bool,
    /// `root` and `state` (85b3775, 2025-02).
    pub root: bool,
    /// `[grpc]` with the socket (bc45972, 2025-02).
    pub grpc: bool,
    /// A runtime for Windows containers, written on Linux too (50326c8, 2025-02).
    pub runhcs: bool,
    /// `device_ownership_from_security_context` (56fb3b0, 2024-10).
    pub nonroot_devices: bool,
    /// Registries as files in `certs.d` (c45524e, 2023-11); before, mirrors were written into the file itself.
    pub certs_d: bool,
    /// `default_runtime_name` (03532f7, 2023-11).
    pub default_runtime: bool,
    /// `use_local_image_pull`, and `bin_dirs` instead of `bin_dir` (e47c497, 2025-08): containerd 2.1.
    pub local_pull: bool,
}

impl Shape {
    /// The newest.
    pub const NEWEST: Self = Self {
        version: 3,
        imports: true,
        root: true,
        grpc: true,
        runhcs: true,
        nonroot_devices: true,
        certs_d: true,
        default_runtime: true,
        local_pull: true,
    };

    /// The shape that a release writes, by the version of its Kubernetes.
    ///
    /// Where `imports` begin isn't known to the patch release: it is taken for absent before 1.36, and seen in the
    /// file that the release itself has written ([`Shape::of_written`]).
    pub fn of_release(release: &Version) -> Self {
        // The first patch release of each minor that has it; minors above the last have it, below the first don't.
        let since = |table: &[(u64, u64)]| {
            let newest = table.last().is_some_and(|(minor, _)| release.minor > *minor);
            release.major > 1
                || newest
                || table
                    .iter()
                    .any(|(minor, patch)| *minor == release.minor && release.patch >= *patch)
        };
        let consolidated = since(&[(29, 14), (30, 10), (31, 6), (32, 2)]);
        let three = since(&[(31, 6), (32, 2)]);
        Self {
            version: if three { 3 } else { 2 },
            imports: since(&[(36, 0)]),
            root: consolidated,
            grpc: three,
            runhcs: consolidated,
            nonroot_devices: since(&[(29, 11), (30, 7), (31, 3)]),
            certs_d: since(&[(27, 10), (28, 6), (29, 1)]),
            default_runtime: since(&[(26, 12), (27, 9), (28, 5)]),
            local_pull: since(&[(31, 13), (32, 9), (33, 5)]),
        }
    }

    /// The shape of a file that the release wrote itself.
    pub fn of_written(table: &Table) -> Self {
        let version = super::config::version(table).unwrap_or(2);
        let cri = super::config::cri_section(version);
        let has = |path: &[&str]| tree::get(table, path).is_some();
        Self {
            version,
            imports: table.contains_key("imports"),
            root: table.contains_key("root"),
            grpc: table.contains_key("grpc"),
            runhcs: has(&["plugins", cri, "containerd", "runtimes", "runhcs-wcow-process"]),
            nonroot_devices: has(&["plugins", cri, "device_ownership_from_security_context"]),
            certs_d: has(&["plugins", cri, "registry", "config_path"])
                || has(&["plugins", IMAGES, "registry", "config_path"]),
            default_runtime: true,
            local_pull: has(&["plugins", IMAGES, "use_local_image_pull"]),
        }
    }

    /// The name of the user's template that belongs to it, and of the drop-in directory.
    pub(super) fn names(version: u32) -> (&'static str, &'static str) {
        if version >= 3 {
            ("config-v3.toml.tmpl", "config-v3.toml.d")
        } else {
            ("config.toml.tmpl", "config.toml.d")
        }
    }
}

pub(super) const IMAGES: &str = "io.containerd.cri.v1.images";

/// A container runtime as the supervisor writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The handler's name.
    pub handler: String,
    /// `runtime_type`.
    pub kind: String,
    /// Its binary.
    pub binary: PathBuf,
}

impl Runtime {
    /// A runtime that the supervisor has found, with the type that it gives to a handler of this name.
    pub fn found(handler: &str, binary: &Path) -> Self {
        // K3s pkg/agent/containerd/runtimes.go, since 2024-02.
        let kind = match handler {
            "spin" => "io.containerd.spin.v2".to_owned(),
            "lunatic" | "slight" | "wws" | "wasmedge" | "wasmer" | "wasmtime" => {
                format!("io.containerd.{handler}.v1")
            }
            _ => "io.containerd.runc.v2".to_owned(),
        };
        Self {
            handler: handler.to_owned(),
            kind,
            binary: binary.to_path_buf(),
        }
    }
}

/// What the supervisor knows of its node when it writes the file.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "flags of the supervisor, as it has them"
)]
pub struct NodeFacts {
    /// `rke2` or `k3s`.
    pub program: String,
    /// The data directory, e.g. `/var/lib/rancher/rke2`.
    pub data_dir: PathBuf,
    /// `selinux`.
    pub selinux: bool,
    /// `snapshotter`.
    pub snapshotter: String,
    /// `pause-image`, with the registry before it.
    pub pause_image: String,
    /// Where CNI plugins and their configuration are, for the embedded flannel of K3s; `None` elsewhere.
    pub cni: Option<(PathBuf, PathBuf)>,
    /// `default-runtime`; `None` for none.
    pub default_runtime: Option<String>,
    /// `nonroot-devices`.
    pub nonroot_devices: bool,
    /// Whether pods may use low ports without privilege: on kernels from 4.11 on.
    pub unprivileged: bool,
    /// Whether cgroups are made by systemd: where the supervisor is a service of it.
    pub systemd_cgroup: bool,
    /// Runtimes that are found.
    pub runtimes: Vec<Runtime>,
    /// Registries with a login, by name, and the keys of the login. No secret is kept: its value is [`MASKED`].
    pub logins: Vec<(String, Vec<String>)>,
    /// Mirrors, by registry, with their endpoints: written into the file itself by old releases.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// `blockio_config_file` and `rdt_config_file`, which are written where such a file is there.
    pub resource_classes: Vec<(String, String)>,
}

/// What stands for a secret.
pub const MASKED: &str = "***";

/// Where the supervisor keeps containerd's socket and state, on RKE2 as on K3s.
pub(super) const STATE: &str = "/run/k3s/containerd";

impl NodeFacts {
    pub(super) fn config_dir(&self) -> PathBuf {
        self.data_dir.join("agent/etc/containerd")
    }
    pub(super) fn root(&self) -> String {
        self.data_dir.join("agent/containerd").display().to_string()
    }
    pub(super) fn certs_d(&self) -> String {
        self.config_dir().join("certs.d").display().to_string()
    }
}

/// Writes tables and keys in order.
struct Writer {
    text: String,
    cri: &'static str,
    images: &'static str,
}

impl Writer {
    fn table(&mut self, path: &[&str]) {
        self.header(&tree::dotted(path));
    }
    fn header(&mut self, path: &str) {
        self.text.push_str("\n[");
        self.text.push_str(path);
        self.text.push_str("]\n");
    }
    fn cri(&mut self, path: &[&str]) {
        self.table(&[&["plugins", self.cri], path].concat());
    }
    fn images(&mut self, path: &[&str]) {
        self.table(&[&["plugins", self.images], path].concat());
    }
    fn literal(&mut self, key: &str, literal: &str) {
        self.text.push_str(key);
        self.text.push_str(" = ");
        self.text.push_str(literal);
        self.text.push('\n');
    }
    fn string(&mut self, key: &str, text: &str) {
        self.literal(key, &quoted(text));
    }
    fn flag(&mut self, key: &str, flag: bool) {
        self.literal(key, if flag { "true" } else { "false" });
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// The configuration, as text.
pub fn render(shape: &Shape, node: &NodeFacts) -> String {
    let three = shape.version >= 3;
    let mut to = Writer {
        text: String::new(),
        cri: super::config::cri_section(shape.version),
        images: if three { IMAGES } else { super::config::cri_v2() },
    };
    let (template, drop_ins) = Shape::names(shape.version);
    to.text = format!(
        "# What {} writes at its next start, where no {template} changes it.\n",
        node.program
    );
    to.literal("version", &shape.version.to_string());
    if shape.imports {
        let pattern = node.config_dir().join(drop_ins).join("*.toml");
        to.literal(
            "imports",
            &format!("[{}]", quoted(&pattern.display().to_string())),
        );
    }
    if shape.root {
        to.string("root", &node.root());
        to.string("state", STATE);
    }
    if shape.grpc {
        to.table(&["grpc"]);
        to.string("address", &format!("{STATE}/containerd.sock"));
    }
    to.table(&["plugins", "io.containerd.internal.v1.opt"]);
    to.string("path", &node.root());
    if three {
        to.table(&["plugins", super::config::cri_v2()]);
        stream_server(&mut to);
        to.cri(&[]);
    } else {
        to.cri(&[]);
        stream_server(&mut to);
    }
    to.flag("enable_selinux", node.selinux);
    to.flag("enable_unprivileged_ports", node.unprivileged);
    to.flag("enable_unprivileged_icmp", node.unprivileged);
    if shape.nonroot_devices {
        to.flag("device_ownership_from_security_context", node.nonroot_devices);
    }
    images(&mut to, shape, node);
    if let Some((bin, conf)) = &node.cni {
        to.cri(&["cni"]);
        let bin = bin.display().to_string();
        if shape.local_pull && three {
            to.literal("bin_dirs", &format!("[{}]", quoted(&bin)));
        } else {
            to.string("bin_dir", &bin);
        }
        to.string("conf_dir", &conf.display().to_string());
    }
    if !node.resource_classes.is_empty() {
        to.table(&["plugins", "io.containerd.service.v1.tasks-service"]);
        for (key, file) in &node.resource_classes {
            to.string(key, file);
        }
    }
    runtimes(&mut to, shape, node);
    registries(&mut to, shape, node);
    to.text
}

fn stream_server(to: &mut Writer) {
    to.string("stream_server_address", "127.0.0.1");
    to.string("stream_server_port", "10010");
}

fn images(to: &mut Writer, shape: &Shape, node: &NodeFacts) {
    let default = node.default_runtime.as_deref().filter(|_| shape.default_runtime);
    if shape.version >= 3 {
        to.images(&[]);
        to.string("snapshotter", &node.snapshotter);
        to.flag("disable_snapshot_annotations", true);
        if shape.local_pull {
            to.flag("use_local_image_pull", true);
        }
        to.images(&["pinned_images"]);
        to.string("sandbox", &node.pause_image);
        if let Some(default) = default {
            to.cri(&["containerd"]);
            to.string("default_runtime_name", default);
        }
    } else {
        to.string("sandbox_image", &node.pause_image);
        to.cri(&["containerd"]);
        to.string("snapshotter", &node.snapshotter);
        to.flag("disable_snapshot_annotations", true);
        if let Some(default) = default {
            to.string("default_runtime_name", default);
        }
    }
}

fn runtimes(to: &mut Writer, shape: &Shape, node: &NodeFacts) {
    to.cri(&["containerd", "runtimes", "runc"]);
    to.string("runtime_type", "io.containerd.runc.v2");
    to.cri(&["containerd", "runtimes", "runc", "options"]);
    to.flag("SystemdCgroup", node.systemd_cgroup);
    if shape.runhcs {
        to.cri(&["containerd", "runtimes", "runhcs-wcow-process"]);
        to.string("runtime_type", "io.containerd.runhcs.v1");
    }
    for runtime in &node.runtimes {
        // In quotes, as K3s has it: the parser of containerd 1 takes the same name in another spelling for another.
        let prefix = tree::dotted(&["plugins", to.cri, "containerd", "runtimes"]);
        let table = format!("{prefix}.{}", quoted(&runtime.handler));
        to.header(&table);
        to.string("runtime_type", &runtime.kind);
        to.header(&format!("{table}.options"));
        to.string("BinaryName", &runtime.binary.display().to_string());
        to.flag("SystemdCgroup", node.systemd_cgroup);
    }
}

fn registries(to: &mut Writer, shape: &Shape, node: &NodeFacts) {
    if shape.certs_d {
        to.images(&["registry"]);
        to.string("config_path", &node.certs_d());
    } else if !node.mirrors.is_empty() {
        to.images(&["registry", "mirrors"]);
        for (registry, endpoints) in &node.mirrors {
            to.images(&["registry", "mirrors", registry]);
            let list: Vec<String> = endpoints.iter().map(|endpoint| quoted(endpoint)).collect();
            to.literal("endpoint", &format!("[{}]", list.join(", ")));
        }
    }
    for (registry, keys) in &node.logins {
        to.images(&["registry", "configs", registry, "auth"]);
        for key in keys {
            to.string(key, MASKED);
        }
    }
}

/// Keys that hold a secret or a name to log in with, as they are called in containerd's configuration.
const SECRETS: [&str; 4] = ["username", "password", "auth", "identitytoken"];

/// As [`mask`], in a text. One that is no TOML loses the value of every line with such a key.
pub(super) fn mask_text(text: &str) -> String {
    if let Ok(mut document) = text.parse::<toml_edit::DocumentMut>() {
        mask_items(document.as_table_mut(), false);
        return document.to_string();
    }
    let mut masked = String::with_capacity(text.len());
    let mut in_headers = false;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            in_headers = line.trim().trim_end_matches(']').ends_with(".headers");
        }
        let key = line.split_once('=').map_or("", |(key, _)| key.trim());
        let last = key.rsplit('.').next().unwrap_or_default();
        if in_headers && !key.is_empty() {
            let _ = writeln!(masked, "{key} = [\"{MASKED}\"]");
        } else if SECRETS.contains(&last) {
            let _ = writeln!(masked, "{key} = \"{MASKED}\"");
        } else {
            masked.push_str(line);
        }
    }
    masked
}

fn mask_items(table: &mut dyn toml_edit::TableLike, is_login: bool) {
    for (key, item) in table.iter_mut() {
        // Headers of requests to registries log in as well.
        if key.get() == "headers"
            && let Some(inner) = item.as_table_like_mut()
        {
            for (_, value) in inner.iter_mut() {
                // containerd is shown this text too, and wants its kinds of values.
                *value = toml_edit::value(toml_edit::Array::from_iter([MASKED]));
            }
            continue;
        }
        let is_secret = is_login && SECRETS.contains(&key.get());
        let is_login = key.get() == "auth";
        if let Some(inner) = item.as_table_like_mut() {
            mask_items(inner, is_login);
        } else if is_secret {
            *item = toml_edit::value(MASKED);
        }
    }
}

/// Puts [`MASKED`] in the place of every login of a registry.
pub(super) fn mask(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::Table(inner) if key == "auth" => {
                for (name, value) in inner.iter_mut() {
                    if SECRETS.contains(&name.as_str()) {
                        *value = Value::String(MASKED.to_owned());
                    }
                }
            }
            Value::Table(inner) if key == "headers" => {
                for value in inner.values_mut() {
                    *value = Value::Array(vec![Value::String(MASKED.to_owned())]);
                }
            }
            Value::Table(inner) => mask(inner),
            _ => {}
        }
    }
}
