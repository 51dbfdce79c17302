//! The images that the bed's pods run, made here and imported: there is no registry.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::build::{build_once, cache, hex, sources};
use super::config::{BUSYBOX_IMAGE, PAUSE_IMAGE};
use super::daemon::Process;
use super::paths::{Paths, make_dir, write};
use super::{Containerd, Missing, node};
use crate::process;

/// Makes both images' archives, once for each content.
pub(crate) fn provide() -> Result<Vec<PathBuf>> {
    let source = sources().join("pause/pause.c");
    let busybox = busybox()?;
    let mut hash = Sha256::new();
    for file in [&source, &busybox] {
        hash.update(std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?);
    }
    // Changes where this file changes what it puts into an image.
    hash.update(b"images 1");
    let done = cache().join(format!("images-{}", &hex(&hash.finalize())[..16]));
    build_once(&done, |into| {
        let pause = into.join("pause");
        compile_pause(&source, &pause)?;
        let mut layer = Layer::new();
        layer.file("pause", &std::fs::read(&pause)?, 0o755)?;
        layer.save(PAUSE_IMAGE, &["/pause"], &into.join("pause.tar"))?;
        std::fs::remove_file(&pause)?;
        busybox_image(&busybox, &into.join("busybox.tar"))
    })?;
    Ok(vec![done.join("busybox.tar"), done.join("pause.tar")])
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

fn busybox_image(busybox: &Path, out: &Path) -> Result<()> {
    let mut layer = Layer::new();
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
    layer.save(BUSYBOX_IMAGE, &["sh"], out)
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
