//! `xtask hook` and `xtask scout`: static, position-independent programs, with glibc in them.
//!
//! The CDI hooks and the runtime wrapper run where no library may be loaded, as the container's could be found first. The
//! scout runs on every node: without libraries it is a third smaller. Flags and target directory are their own, so nothing
//! else is compiled anew for them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;

/// Options of `xtask hook` and `xtask scout`.
#[derive(clap::Args)]
pub(crate) struct HookArgs {
    /// Directory to write to
    #[arg(long, default_value = "dist", value_name = "DIR")]
    out: PathBuf,
}

/// A static program.
pub(crate) struct Static {
    /// Of the package and of the binary.
    name: &'static str,
    /// Largest binary, in bytes.
    largest: u64,
}

/// CDI hooks and runtime wrapper.
pub(crate) const HOOK: Static = Static {
    name: "pitcrew-hook",
    largest: 2 * 1000 * 1000,
};
/// What finds out which nodes have a GPU.
pub(crate) const SCOUT: Static = Static {
    name: "pitcrew-scout",
    largest: 3 * 1000 * 1000,
};
/// ELF's program header types that a static program has none of.
const PT_INTERP: u32 = 3;
const PT_DYNAMIC: u32 = 2;
const DT_NEEDED: u64 = 1;

/// Builds it into the directory and prints its path.
pub(crate) fn run(what: &Static, args: &HookArgs) -> Result<()> {
    let built = build(what)?;
    let out = crate::repository().join(&args.out);
    std::fs::create_dir_all(&out).with_context(|| format!("could not create {}", out.display()))?;
    let path = out.join(what.name);
    std::fs::copy(&built, &path).with_context(|| format!("could not write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Builds it and checks what was built; says where it is.
pub(crate) fn build(what: &Static) -> Result<PathBuf> {
    let host = process::output(process::cargo().args(["-vV"]))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("cargo names no host")?.to_owned();
    let target_dir = crate::cache_dir().join("hook-target");
    let mut build = process::cargo();
    // With `--target` the flags reach the binary alone, not build scripts and macros, which are loaded by the compiler.
    build
        .current_dir(crate::repository())
        .env("CARGO_TARGET_DIR", &target_dir)
        .env(
            "RUSTFLAGS",
            format!(
                "-C target-feature=+crt-static -C relocation-model=pie {}",
                process::without_paths().join(" ")
            ),
        )
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(build.args([
        "build",
        "--release",
        "--locked",
        "--package",
        what.name,
        "--target",
        &host,
    ]))?;
    let binary = target_dir.join(&host).join("release").join(what.name);
    check(what, &binary)?;
    Ok(binary)
}

fn check(what: &Static, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    if bytes.len() as u64 > what.largest {
        bail!(
            "{} has {} bytes; {} are allowed",
            path.display(),
            bytes.len(),
            what.largest
        );
    }
    let (interpreter, needed) =
        asks_for(&bytes).with_context(|| format!("{} is not a program", path.display()))?;
    if interpreter || needed > 0 {
        bail!(
            "{} is not static: it has a loader ({interpreter}) or needs {needed} libraries",
            path.display()
        );
    }
    eprintln!("{}: {} bytes, static", what.name, bytes.len());
    Ok(())
}

/// Whether a program names a loader, and how many libraries it needs; none where it is not 64-bit ELF.
fn asks_for(bytes: &[u8]) -> Option<(bool, usize)> {
    let u16_at = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            bytes.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (usize::try_from(u64_at(32)?).ok()?, u16_at(54)?, u16_at(56)?);
    let (mut interpreter, mut needed) = (false, 0);
    for segment in (0..count).map(|index| table + index * size) {
        match u32_at(segment)? {
            PT_INTERP => interpreter = true,
            PT_DYNAMIC => {
                let (start, length) = (
                    usize::try_from(u64_at(segment + 8)?).ok()?,
                    usize::try_from(u64_at(segment + 32)?).ok()?,
                );
                let tags = (start..start + length).step_by(16);
                needed += tags.filter(|&at| u64_at(at) == Some(DT_NEEDED)).count();
            }
            _ => {}
        }
    }
    Some((interpreter, needed))
}

#[cfg(test)]
mod tests {
    use super::asks_for;

    #[test]
    fn a_dynamic_program_is_seen_to_be_one() {
        let ourselves = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let (interpreter, needed) = asks_for(&ourselves).unwrap();
        assert!(interpreter && needed > 0, "{interpreter} {needed}");
        assert_eq!(asks_for(b"#!/bin/sh"), None);
    }
}
