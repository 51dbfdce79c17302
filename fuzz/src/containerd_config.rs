//! containerd's configuration and templates of users: whatever is in them is read or refused, in bounded time.
#![no_main]

use std::io;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pitcrew_core::ports::{FileKind, HostFs};
use pitcrew_host::containerd::edit::{HandlerTable, runtime, with_import, without};
use pitcrew_host::containerd::{
    Generation, NodeFacts, Runtime, Shape, effective, parse, parse_table, render, render_template, template_data,
};

/// One text in every place.
struct Everywhere<'a>(&'a str);

impl HostFs for Everywhere<'_> {
    fn kind(&self, _: &Path) -> io::Result<FileKind> {
        Ok(FileKind::File(0))
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.as_bytes().to_vec())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(vec!["a.toml".to_owned(), "b.toml".to_owned()])
    }
}

fn node() -> NodeFacts {
    NodeFacts {
        program: "rke2".to_owned(),
        data_dir: "/var/lib/rancher/rke2".into(),
        selinux: false,
        snapshotter: "overlayfs".to_owned(),
        pause_image: "pause".to_owned(),
        cni: None,
        default_runtime: Some("nvidia".to_owned()),
        nonroot_devices: false,
        unprivileged: true,
        systemd_cgroup: true,
        runtimes: vec![Runtime::found("nvidia", Path::new("/x"))],
        logins: vec![("registry".to_owned(), vec!["auth".to_owned()])],
        mirrors: Vec::new(),
        resource_classes: Vec::new(),
    }
}

fuzz_target!(|text: &str| {
    let _ = parse(text);
    for generation in [Generation::One, Generation::Two] {
        let _ = effective(&Everywhere(text), Path::new("/etc/c/config.toml"), generation);
    }
    // What is put in comes out, and the rest is the same to the byte.
    let (import, binary) = ("/etc/c/conf.d/99-pitcrew*.toml", Path::new("/opt/p/wrapper"));
    let is_untouched = !text.contains("pitcrew") && !text.contains("/opt/p/wrapper");
    let mut edited = vec![with_import(text, 3, import)];
    for version in [2, 3] {
        let table = parse_table(text).unwrap_or_default();
        let model = runtime(&table, version, "runc");
        edited.push(HandlerTable::like(version, "nvidia", model, binary).appended(text));
    }
    for edited in edited.into_iter().flatten() {
        let back = without(&edited, import, "nvidia", binary);
        assert!(!is_untouched || back == text, "{text:?} became {back:?}");
    }
    let _ = without(text, import, "nvidia", binary);
    let node = node();
    let base = render(&Shape::NEWEST, &node);
    if let Ok(rendered) = render_template(text, &base, &template_data(&Shape::NEWEST, &node)) {
        let _ = parse(&rendered);
    }
});
