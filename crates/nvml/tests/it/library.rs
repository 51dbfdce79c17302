//! Compiles a library.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A library in a directory of its own, which goes with this.
pub(crate) struct Built {
    dir: tempfile::TempDir,
    pub(crate) file: PathBuf,
}

impl Built {
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Compiles `broken.c` with these macros, as `libnvidia-ml.so.1`.
pub(crate) fn build(macros: &[&str]) -> Built {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(pitcrew_nvml::SONAME);
    compile(&file, macros);
    Built { dir, file }
}

/// Compiles it to this file, which is replaced as a package manager does: by another file.
pub(crate) fn compile(file: &Path, macros: &[&str]) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/broken.c");
    let new = file.with_extension("new");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&new)
        .args(macros.iter().map(|name| format!("-D{name}")))
        .arg(source)
        .status()
        .unwrap();
    assert!(status.success(), "cc failed");
    std::fs::rename(new, file).unwrap();
}
