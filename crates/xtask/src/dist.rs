//! `xtask dist`: what people run on their hosts.
//!
//! The binary needs no glibc symbol above 2.28, so that it runs on RHEL 8 and SLES 15: it is linked by zig, through
//! cargo-zigbuild, both pinned by hash. Completions and man pages lie beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::testbed::hex;
use crate::{packages, process};

/// Options of `xtask dist`.
#[derive(clap::Args)]
pub(crate) struct DistArgs {
    /// Directory to write to
    #[arg(long, default_value = "dist", value_name = "DIR")]
    out: PathBuf,
}

/// Newest glibc that the binary may ask for.
const GLIBC: (u32, u32) = (2, 28);
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Largest binary, in bytes.
const LARGEST: u64 = 15 * 1000 * 1000;

/// Builds, checks and packs.
pub(crate) fn run(args: &DistArgs) -> Result<()> {
    let tools = packages::install_tools("dist")?;
    let root = crate::repository();
    let out = root.join(&args.out);
    let target_dir = crate::cache_dir().join("dist-target");
    let mut build = Command::new(tools.join("bin/cargo-zigbuild"));
    build
        .current_dir(&root)
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("PYTHONPATH", &tools);
    build.env("CARGO_ZIGBUILD_ZIG_PATH", tools.join("ziglang/zig"));
    let triple = format!("{TARGET}.{}.{}", GLIBC.0, GLIBC.1);
    process::run(build.args([
        "zigbuild",
        "--release",
        "--locked",
        "--package=pitcrew",
        "--target",
        &triple,
    ]))?;

    let binary = target_dir.join(TARGET).join("release/pitcrew");
    let bytes = std::fs::read(&binary).with_context(|| format!("could not read {}", binary.display()))?;
    check(&binary, &bytes)?;

    let name = format!("pitcrew-{}-{TARGET}", env!("CARGO_PKG_VERSION"));
    let stage = out.join(&name);
    if stage.exists() {
        std::fs::remove_dir_all(&stage).with_context(|| format!("could not remove {}", stage.display()))?;
    }
    std::fs::create_dir_all(&stage).with_context(|| format!("could not create {}", stage.display()))?;
    std::fs::copy(&binary, stage.join("pitcrew")).context("could not copy the binary")?;
    std::fs::copy(root.join("LICENSE"), stage.join("LICENSE")).context("could not copy the licence")?;
    pitcrew_gen::write(&stage, &pitcrew_gen::man_pages()).context("could not write the man pages")?;
    pitcrew_gen::write(&stage, &pitcrew_gen::completions()).context("could not write the completions")?;

    // Not `with_extension`, which would take what stands behind the version's last dot for one.
    let archive = out.join(format!("{name}.tar.gz"));
    pack(&stage, &archive)?;
    let packed = std::fs::read(&archive).with_context(|| format!("could not read {}", archive.display()))?;
    let digest = hex(&Sha256::digest(&packed));
    std::fs::write(
        out.join(format!("{name}.tar.gz.sha256")),
        format!("{digest}  {name}.tar.gz\n"),
    )
    .context("could not write the checksum")?;
    println!("{}", archive.display());
    Ok(())
}

/// Refuses a binary that is too large or asks for too new a glibc.
fn check(path: &Path, bytes: &[u8]) -> Result<()> {
    let size = bytes.len() as u64;
    if size > LARGEST {
        bail!("{} has {size} bytes; {LARGEST} are allowed", path.display());
    }
    let newest = newest_glibc(bytes);
    if newest > GLIBC {
        bail!(
            "{} needs glibc {}.{}; {}.{} is the newest allowed",
            path.display(),
            newest.0,
            newest.1,
            GLIBC.0,
            GLIBC.1
        );
    }
    eprintln!("dist: {size} bytes, needs glibc {}.{}", newest.0, newest.1);
    Ok(())
}

/// The newest `GLIBC_x.y` that a binary names in its version requirements, which are plain strings in it.
pub(crate) fn newest_glibc(bytes: &[u8]) -> (u32, u32) {
    let prefix = b"\0GLIBC_";
    let version = |rest: &[u8]| {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (major, minor) = std::str::from_utf8(&rest[..end]).ok()?.split_once('.')?;
        let minor = minor.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let starts = bytes
        .windows(prefix.len())
        .enumerate()
        .filter(|(_, window)| window == prefix);
    starts
        .filter_map(|(start, _)| version(&bytes[start + prefix.len()..]))
        .max()
        .unwrap_or((0, 0))
}

/// A tar.gz with owners and times that don't depend on who packs.
fn pack(stage: &Path, archive: &Path) -> Result<()> {
    let file =
        std::fs::File::create(archive).with_context(|| format!("could not create {}", archive.display()))?;
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::best()));
    tar.mode(tar::HeaderMode::Deterministic);
    let name = stage.file_name().context("the stage has no name")?;
    for path in files(stage)? {
        let inside = Path::new(name).join(path.strip_prefix(stage).unwrap_or(&path));
        tar.append_path_with_name(&path, inside)
            .with_context(|| format!("could not pack {}", path.display()))?;
    }
    tar.into_inner()
        .and_then(flate2::write::GzEncoder::finish)
        .context("could not finish the archive")?;
    Ok(())
}

/// Every file below a directory, by name.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(dir).with_context(|| format!("could not read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::newest_glibc;

    #[test]
    fn the_newest_glibc_is_found_by_number_not_by_text() {
        let bytes = b"x\0GLIBC_2.2.5\0GLIBC_2.28\0GLIBC_2.9\0GLIBC_PRIVATE\0";
        assert_eq!(newest_glibc(bytes), (2, 28));
    }
}
