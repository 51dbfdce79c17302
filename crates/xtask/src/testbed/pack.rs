//! One archive with which the bed starts on a machine that has neither Go, nor Cargo, nor a network.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Missing;
use super::paths::{Paths, make_dir};
use super::programs;

/// What can be carried to the other machine at once, in bytes.
const LIMIT: u64 = 54 << 20;

/// One file of the archive: where it lies in it, and here.
type Entry = (PathBuf, PathBuf);

/// Writes the archive, in two parts where one would be too big, and prints the parts' paths.
pub(crate) fn run(paths: &Paths, args: &super::PackArgs) -> Result<()> {
    if !crate::process::on_path("xz") {
        return Err(Missing::new("the program xz is not on the PATH", "apt-get install xz-utils").into());
    }
    if cfg!(debug_assertions) {
        eprintln!("note: this is a debug build of xtask; `cargo run --release -p xtask` packs a smaller one");
    }
    let found = programs::provide(paths)?;
    make_dir(&args.out)?;
    let bin = Path::new("bin");
    let mut kube = Vec::new();
    let mut rest: Vec<Entry> = vec![(bin.join("testbed"), std::env::current_exe()?)];
    for (place, file) in &found.files {
        if place.starts_with(programs::OLD_DIR) && !args.old {
            continue;
        }
        let entry = (bin.join(place), file.clone());
        if place == Path::new("kube") {
            kube.push(entry);
        } else {
            rest.push(entry);
        }
    }
    for (name, file) in named(&found.images)? {
        rest.push((Path::new("images").join(name), file));
    }
    for (name, file) in named(&args.with)? {
        // An image archive is imported, anything else lands on the search path.
        let dir = if name.extension().is_some_and(|end| end == "tar") {
            Path::new("images")
        } else {
            bin
        };
        rest.push((dir.join(name), file));
    }

    let whole = args.out.join("pitcrew-testbed.tar.xz");
    let parts = ["pitcrew-testbed-1.tar.xz", "pitcrew-testbed-2.tar.xz"].map(|name| args.out.join(name));
    for old in parts.iter().chain([&whole]) {
        let _ = std::fs::remove_file(old);
    }
    let everything: Vec<Entry> = kube.iter().chain(&rest).cloned().collect();
    let size = compress(&everything, &whole)?;
    eprintln!("{}: {:.1} MiB", whole.display(), mebibytes(size));
    if size <= LIMIT {
        println!("{}", whole.display());
    } else {
        std::fs::remove_file(&whole)?;
        for (entries, part) in [(&kube, &parts[0]), (&rest, &parts[1])] {
            let size = compress(entries, part)?;
            if size > LIMIT {
                bail!(
                    "{} is over {:.0} MiB; leave something out of --with",
                    part.display(),
                    mebibytes(LIMIT)
                );
            }
            eprintln!("{}: {:.1} MiB", part.display(), mebibytes(size));
            println!("{}", part.display());
        }
    }
    eprintln!(
        "there: unpack every part with `tar -xJf` into one directory, then `bin/testbed testbed up` as root"
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Each file with its own name.
fn named(files: &[PathBuf]) -> Result<Vec<Entry>> {
    let name = |file: &PathBuf| {
        let name = file
            .file_name()
            .with_context(|| format!("{} names no file", file.display()))?;
        Ok((PathBuf::from(name), file.clone()))
    };
    files.iter().map(name).collect()
}

/// Writes a tar.xz and returns its size in bytes. What is in it is code of one processor, and the same libraries in
/// several programs: hence calls by absolute address, and a window over all of it.
fn compress(entries: &[Entry], out: &Path) -> Result<u64> {
    let file = File::create(out).with_context(|| format!("could not write {}", out.display()))?;
    let mut xz = Command::new("xz")
        .args(["--compress", "--stdout", "--x86", "--lzma2=preset=9,dict=192MiB"])
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .context("could not start xz")?;
    let pipe = xz.stdin.take().context("xz has no standard input")?;
    let mut archive = tar::Builder::new(pipe);
    for (place, path) in entries {
        let mut file = File::open(path).with_context(|| format!("could not read {}", path.display()))?;
        let about = file.metadata()?;
        let mut header = tar::Header::new_gnu();
        header.set_size(about.len());
        header.set_mode(if about.permissions().mode() & 0o111 == 0 {
            0o644
        } else {
            0o755
        });
        header.set_mtime(0);
        archive.append_data(&mut header, place, &mut file)?;
    }
    drop(archive.into_inner()?);
    let status = xz.wait()?;
    if !status.success() {
        bail!("xz failed ({status})");
    }
    Ok(std::fs::metadata(out)?.len())
}
