//! The images that the bed's pods run, made here and imported: there is no registry.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::build::{build_once, cache, hex, sources};
use super::config::{BUSYBOX_IMAGE, GLIBC_IMAGE, PAUSE_IMAGE};
use super::daemon::Process;
use super::paths::{Paths, make_dir, write};
use super::{Containerd, Missing, node};
use crate::process;

/// Libraries of the image with glibc, which are this machine's.
const LIBRARIES: [&str; 6] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
];
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// Where Debian's libraries lie.
const LIBRARY_DIR: &str = "usr/lib/x86_64-linux-gnu";

/// Makes the images' archives, once for each content.
pub(crate) fn provide() -> Result<Vec<PathBuf>> {
    let source = sources().join("pause/pause.c");
    let probe = sources().join("probe/probe.c");
    let busybox = busybox()?;
    let libraries = libraries()?;
    let mut hash = Sha256::new();
    for file in [&source, &probe, &busybox].into_iter().chain(&libraries) {
        hash.update(std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?);
    }
    // Changes where this file changes what it puts into an image.
    hash.update(b"images 2");
    let done = cache().join(format!("images-{}", &hex(&hash.finalize())[..16]));
    build_once(&done, |into| {
        let pause = into.join("pause");
        compile_pause(&source, &pause)?;
        let mut layer = Layer::new();
        layer.file("pause", &std::fs::read(&pause)?, 0o755)?;
        layer.save(PAUSE_IMAGE, &["/pause"], &into.join("pause.tar"))?;
        std::fs::remove_file(&pause)?;
        let mut layer = Layer::new();
        add_busybox(&mut layer, &busybox)?;
        layer.save(BUSYBOX_IMAGE, &["sh"], &into.join("busybox.tar"))?;
        let program = into.join("probe");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-s", "-o"]).arg(&program).arg(&probe).arg("-ldl");
        process::run(&mut cc)?;
        let mut layer = Layer::new();
        add_busybox(&mut layer, &busybox)?;
        add_glibc(&mut layer, &libraries)?;
        layer.file("usr/bin/probe", &std::fs::read(&program)?, 0o755)?;
        layer.save(GLIBC_IMAGE, &["sh"], &into.join("glibc.tar"))?;
        std::fs::remove_file(&program)?;
        Ok(())
    })?;
    let archive = |name: &str| done.join(name);
    Ok(vec![
        archive("busybox.tar"),
        archive("glibc.tar"),
        archive("pause.tar"),
    ])
}

/// An image of programs that a person or test brings along, over that with glibc: its archive in `out`.
///
/// `files` are pairs of a file here and its path in the image.
pub(crate) fn build(name: &str, files: &[(PathBuf, String)], command: &[&str], out: &Path) -> Result<()> {
    let mut layer = Layer::new();
    add_busybox(&mut layer, &busybox()?)?;
    add_glibc(&mut layer, &libraries()?)?;
    for (file, path) in files {
        let content = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        layer.file(path.trim_start_matches('/'), &content, 0o755)?;
    }
    layer.save(name, command, out)
}

/// The loader and the libraries of [`LIBRARIES`] on this machine, as the C compiler finds them.
fn libraries() -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(LOADER)];
    for name in LIBRARIES {
        let path = process::output(Command::new("cc").arg(format!("-print-file-name={name}")))?;
        found.push(path.trim().into());
    }
    Ok(found)
}

fn add_glibc(layer: &mut Layer, libraries: &[PathBuf]) -> Result<()> {
    for dir in ["usr/lib", "usr/lib64", LIBRARY_DIR] {
        layer.directory(dir, 0o755)?;
    }
    layer.link("lib", "usr/lib")?;
    layer.link("lib64", "usr/lib64")?;
    for library in libraries {
        let content =
            std::fs::read(library).with_context(|| format!("could not read {}", library.display()))?;
        let dir = if library == Path::new(LOADER) {
            "usr/lib64"
        } else {
            LIBRARY_DIR
        };
        let name = library
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        layer.file(&format!("{dir}/{name}"), &content, 0o755)?;
    }
    Ok(())
}

/// The statically linked busybox of Debian's busybox-static.
fn busybox() -> Result<PathBuf> {
    let found = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| is_static(path));
    found.ok_or_else(|| {
        let hint = "apt-get install busybox-static";
        Missing::new(
            "there is no statically linked busybox, which the test image is made of",
            hint,
        )
        .into()
    })
}

/// True for an ELF program that asks for no dynamic loader.
fn is_static(path: &Path) -> bool {
    const INTERPRETER: u32 = 3;
    let mut start = Vec::new();
    let Ok(file) = std::fs::File::open(path) else {
        return false;
    };
    if file.take(4096).read_to_end(&mut start).is_err() || !start.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = start.get(at..at + size)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        )
    };
    // Of the 64-bit header: where the program headers begin, the size of each, how many.
    let (Some(begin), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        return false;
    };
    (0..count).all(|index| number(begin + index * size, 4).is_some_and(|kind| kind != INTERPRETER as usize))
}

fn compile_pause(source: &Path, into: &Path) -> Result<()> {
    if !process::on_path("cc") {
        return Err(Missing::new(
            "there is no C compiler, which the pause image needs",
            "apt-get install gcc",
        )
        .into());
    }
    let mut command = Command::new("cc");
    command.args([
        "-Os",
        "-s",
        "-static",
        "-nostdlib",
        "-ffreestanding",
        "-fno-pie",
        "-no-pie",
    ]);
    command.args(["-fno-stack-protector", "-fno-asynchronous-unwind-tables"]);
    command
        .args(["-Wl,--build-id=none", "-Wl,-z,noexecstack", "-o"])
        .arg(into)
        .arg(source);
    process::run(&mut command)
}

fn add_busybox(layer: &mut Layer, busybox: &Path) -> Result<()> {
    for dir in ["bin", "etc", "root", "usr", "usr/bin", "var"] {
        layer.directory(dir, 0o755)?;
    }
    layer.directory("tmp", 0o1777)?;
    layer.file("bin/busybox", &std::fs::read(busybox)?, 0o755)?;
    layer.file(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        0o644,
    )?;
    layer.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    let applets = process::output(Command::new(busybox).arg("--list"))?;
    for applet in applets.lines().filter(|name| *name != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// The one layer of an image, as a tar archive in which nothing depends on when it was made.
struct Layer {
    archive: tar::Builder<Vec<u8>>,
}

impl Layer {
    fn new() -> Self {
        Self {
            archive: tar::Builder::new(Vec::new()),
        }
    }

    fn header(kind: tar::EntryType, size: usize, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    }

    fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Directory, 0, mode);
        Ok(self
            .archive
            .append_data(&mut header, format!("{path}/"), std::io::empty())?)
    }

    fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Regular, content.len(), mode);
        Ok(self.archive.append_data(&mut header, path, content)?)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0, 0o777);
        Ok(self.archive.append_link(&mut header, path, target)?)
    }

    /// Writes an OCI image archive with this one layer.
    fn save(self, name: &str, command: &[&str], out: &Path) -> Result<()> {
        let layer = self.archive.into_inner()?;
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
            "history": [{"created_by": "xtask testbed"}],
        }))?;
        let descriptor = |kind: &str, blob: &[u8]| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(blob),
                "size": blob.len(),
            })
        };
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar", &layer)],
        }))?;
        let mut entry = descriptor("manifest.v1+json", &manifest);
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry["annotations"] =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;

        let mut archive = Self::new();
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        archive.file("index.json", &index, 0o644)?;
        for blob in [&layer, &config, &manifest] {
            let path = format!("blobs/{}", digest(blob).replace(':', "/"));
            archive.file(&path, blob, 0o644)?;
        }
        write(out, archive.archive.into_inner()?)
    }
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(blob)))
}

/// Imports the images that this containerd has not been given yet.
pub(crate) fn import(paths: &Paths, holder: &Process, version: Containerd, images: &[PathBuf]) -> Result<()> {
    // Inside containerd's own data, so that the note goes when the images do.
    let data = paths.var(if version == Containerd::Old {
        "containerd17"
    } else {
        "containerd"
    });
    let notes = data.join("pitcrew-imported");
    make_dir(&notes)?;
    for image in images {
        let content = std::fs::read(image).with_context(|| format!("could not read {}", image.display()))?;
        let note = notes.join(hex(&Sha256::digest(&content)));
        if note.exists() {
            continue;
        }
        let mut ctr = node::inside(paths, holder, &paths.bin().join("ctr"));
        ctr.arg("--address").arg(paths.socket()).args([
            "--namespace",
            "k8s.io",
            "images",
            "import",
            "--local",
        ]);
        process::output(ctr.arg(image))
            .with_context(|| format!("could not import the image {}", image.display()))?;
        write(&note, "")?;
        eprintln!("image {}: imported", image.display());
    }
    if images.is_empty() {
        bail!("there are no images to import; the unpacked test bed lacks its `images` directory");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_without_a_loader_is_static() {
        assert!(
            !is_static(&std::env::current_exe().unwrap()),
            "test programs are linked with glibc"
        );
        assert!(!is_static(Path::new("/etc/passwd")));
        assert!(!is_static(Path::new("/does/not/exist")));
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let mut layer = Layer::new();
            layer.file("pause", b"program", 0o755).unwrap();
            layer
                .save(PAUSE_IMAGE, &["/pause"], &dir.path().join(name))
                .unwrap();
            std::fs::read(dir.path().join(name)).unwrap()
        };
        assert_eq!(make("a.tar"), make("b.tar"));
    }
}
