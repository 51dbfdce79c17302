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
use crate::image::libraries;
use crate::image::oci::{self, Image, Layer};
use crate::process;

/// Makes the images' archives, once for each content.
pub(crate) fn provide() -> Result<Vec<PathBuf>> {
    let source = sources().join("pause/pause.c");
    let probe = sources().join("probe/probe.c");
    let busybox = busybox()?;
    let libraries = libraries::find()?;
    let mut hash = Sha256::new();
    for file in [&source, &probe, &busybox].into_iter().chain(&libraries) {
        hash.update(std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?);
    }
    // Changes where this file changes what it puts into an image.
    hash.update(b"images 3");
    let done = cache().join(format!("images-{}", &hex(&hash.finalize())[..16]));
    build_once(&done, |into| {
        let pause = into.join("pause");
        compile_pause(&source, &pause)?;
        let mut layer = Layer::new();
        layer.file("pause", std::fs::read(&pause)?, 0o755);
        save(layer, PAUSE_IMAGE, &["/pause"], &into.join("pause.tar"))?;
        std::fs::remove_file(&pause)?;
        let mut layer = Layer::new();
        add_busybox(&mut layer, &busybox)?;
        save(layer, BUSYBOX_IMAGE, &["sh"], &into.join("busybox.tar"))?;
        let program = into.join("probe");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-s", "-o"]).arg(&program).arg(&probe).arg("-ldl");
        process::run(&mut cc)?;
        let mut layer = Layer::new();
        add_busybox(&mut layer, &busybox)?;
        libraries::add(&mut layer, &libraries)?;
        layer.file("usr/bin/probe", std::fs::read(&program)?, 0o755);
        save(layer, GLIBC_IMAGE, &["sh"], &into.join("glibc.tar"))?;
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
    libraries::add(&mut layer, &libraries::find()?)?;
    for (file, path) in files {
        let content = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        layer.file(path.trim_start_matches('/'), content, 0o755);
    }
    save(layer, name, command, out)
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
        layer.directory(dir, 0o755);
    }
    layer.directory("tmp", 0o1777);
    layer.file("bin/busybox", std::fs::read(busybox)?, 0o755);
    layer.file(
        "etc/passwd",
        &b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"[..],
        0o644,
    );
    layer.file("etc/group", &b"root:x:0:\nnogroup:x:65534:\n"[..], 0o644);
    let applets = process::output(Command::new(busybox).arg("--list"))?;
    for applet in applets.lines().filter(|name| *name != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(())
}

/// Writes the archive of an image with this one layer, uncompressed: it goes no further than this machine.
fn save(layer: Layer, name: &str, command: &[&str], out: &Path) -> Result<()> {
    let image = Image {
        name,
        config: json!({"Cmd": command, "Env": ["PATH=/usr/bin:/bin"]}),
        annotations: json!({}),
        layers: vec![layer],
        compressed: false,
    };
    oci::save(image, out).map(drop)
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
}
