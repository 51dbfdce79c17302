//! Builds the Go programs from their published modules, once for each content of `testbed/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use super::Missing;
use super::paths::{lock, make_dir, remove_tree};
use super::programs::{CNI_DIR, OLD_DIR};
use crate::process;

const KUBERNETES: &str = "v1.36.3";
const CONTAINERD: &str = "v2.2.9";
const OLD_CONTAINERD: &str = "v1.7.35";

/// One `go build`: a module below `testbed/` and the packages whose programs are wanted of it.
struct Recipe {
    module: &'static str,
    packages: &'static [&'static str],
    /// Each program's name and its directory below `bin`.
    programs: &'static [(&'static str, &'static str)],
    tags: &'static str,
    /// Go variables stamped with a value, which the program then reports as its version.
    stamps: &'static [(&'static str, &'static str)],
    /// Linked statically with C code: runc alone, for libseccomp.
    cgo: bool,
}

/// All that the bed runs; the biggest first.
const RECIPES: [Recipe; 4] = [
    Recipe {
        module: "kube",
        packages: &["."],
        programs: &[("kube", "")],
        tags: "",
        stamps: &[
            ("k8s.io/component-base/version.gitVersion", KUBERNETES),
            ("k8s.io/component-base/version.gitMajor", "1"),
            ("k8s.io/component-base/version.gitMinor", "36"),
            ("k8s.io/component-base/version.gitTreeState", "clean"),
        ],
        cgo: false,
    },
    Recipe {
        module: "runtime",
        packages: &[
            "./cmd/...",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "github.com/containernetworking/plugins/plugins/main/bridge",
            "github.com/containernetworking/plugins/plugins/main/loopback",
        ],
        programs: &[
            ("node", ""),
            ("containerd-shim-runc-v2", ""),
            ("apifwd", CNI_DIR),
            ("bridge", CNI_DIR),
            ("host-local", CNI_DIR),
            ("loopback", CNI_DIR),
        ],
        tags: "no_btrfs no_devmapper no_zfs",
        stamps: &[
            ("github.com/containerd/containerd/v2/version.Version", CONTAINERD),
            ("github.com/containerd/containerd/v2/version.Revision", ""),
        ],
        cgo: false,
    },
    Recipe {
        module: "runc",
        packages: &["github.com/opencontainers/runc"],
        programs: &[("runc", "")],
        tags: "seccomp netgo osusergo",
        stamps: &[],
        cgo: true,
    },
    Recipe {
        module: "runtime17",
        packages: &[
            "github.com/containerd/containerd/cmd/containerd",
            "github.com/containerd/containerd/cmd/containerd-shim-runc-v2",
        ],
        programs: &[("containerd", OLD_DIR), ("containerd-shim-runc-v2", OLD_DIR)],
        tags: "no_btrfs no_devmapper no_zfs no_aufs",
        stamps: &[("github.com/containerd/containerd/version.Version", OLD_CONTAINERD)],
        cgo: false,
    },
];

/// Where built programs outlive the checkout.
pub(crate) fn cache() -> PathBuf {
    crate::cache_dir().join("testbed-bin")
}

/// The sources of all that is built.
pub(crate) fn sources() -> PathBuf {
    crate::repository().join("testbed")
}

/// Every program by its place below `bin` and the file that it is; builds what is not in the cache.
pub(crate) fn all() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    let go = go_version();
    for recipe in &RECIPES {
        let dir = provide(recipe, go.as_deref())?;
        for (name, place) in recipe.programs {
            found.push((Path::new(place).join(name), dir.join(name)));
        }
    }
    Ok(found)
}

fn go_version() -> Option<String> {
    process::output(go().args(["env", "GOVERSION"]))
        .ok()
        .map(|text| text.trim().to_owned())
}

fn go() -> Command {
    let mut command = Command::new("go");
    command
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .env_remove("GOFLAGS");
    command
}

fn provide(recipe: &Recipe, go_version: Option<&str>) -> Result<PathBuf> {
    let source = sources().join(recipe.module);
    if !source.join("go.mod").is_file() {
        return Err(Missing::new(
            format!(
                "there are neither built programs nor sources to build them from ({})",
                source.display()
            ),
            "run it in the repository, or with --bin from an unpacked test bed",
        )
        .into());
    }
    let Some(go_version) = go_version else {
        return Err(Missing::new(
            "Go is not installed, and the test bed's Kubernetes is built with it",
            "install Go 1.26 or newer and put its bin directory on the PATH, or use a packed test bed with --bin",
        )
        .into());
    };
    let key = key(recipe, &source, go_version)?;
    let done = cache().join(format!("{}-{key}", recipe.module));
    build_once(&done, |temporary| {
        eprintln!(
            "building {} with {go_version}; the first time takes minutes",
            recipe.module
        );
        compile(recipe, &source, temporary)
    })?;
    Ok(done)
}

/// Makes a directory of the cache by `make`, whole or not at all, whatever ends us in between.
pub(crate) fn build_once(done: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if done.is_dir() {
        return Ok(());
    }
    let Some(parent) = done.parent() else {
        bail!("{} has no parent", done.display())
    };
    make_dir(parent)?;
    let lock_file = done.with_extension("lock");
    let _lock = lock(
        &lock_file,
        "another build of the same is under way; waiting for it",
    )?;
    if done.is_dir() {
        return Ok(());
    }
    let begun = Instant::now();
    let temporary = done.with_extension("part");
    // Left by a build that was killed: nobody else can be at it while we hold the lock.
    remove_tree(&temporary)?;
    make_dir(&temporary)?;
    make(&temporary)?;
    std::fs::rename(&temporary, done)
        .with_context(|| format!("could not move what was built to {}", done.display()))?;
    eprintln!(
        "built {} in {:.0} s",
        done.display(),
        begun.elapsed().as_secs_f32()
    );
    Ok(())
}

fn compile(recipe: &Recipe, source: &Path, into: &Path) -> Result<()> {
    let mut command = go();
    command
        .current_dir(source)
        .env("CGO_ENABLED", if recipe.cgo { "1" } else { "0" });
    command.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"]);
    command
        .arg("-tags")
        .arg(recipe.tags)
        .arg("-ldflags")
        .arg(linker_flags(recipe));
    command
        .arg("-o")
        .arg(format!("{}/", into.display()))
        .args(recipe.packages);
    if recipe.cgo {
        if !process::on_path("cc") && !process::on_path("gcc") {
            return Err(Missing::new(
                "there is no C compiler, which runc needs",
                "apt-get install gcc libc6-dev",
            )
            .into());
        }
        if process::output(Command::new("pkg-config").args(["--exists", "libseccomp"])).is_err() {
            return Err(Missing::new(
                "libseccomp's development files are missing, which runc needs",
                "apt-get install pkg-config libseccomp-dev",
            )
            .into());
        }
    }
    process::run(&mut command).with_context(|| {
        format!(
            "building testbed/{} failed; it needs a Go module proxy or a filled module cache",
            recipe.module
        )
    })?;
    // `.` is named after the module's last element, which is the name we want anyway.
    for (name, _) in recipe.programs {
        if !into.join(name).is_file() {
            bail!("`go build` in testbed/{} made no {name}", recipe.module);
        }
    }
    Ok(())
}

fn linker_flags(recipe: &Recipe) -> String {
    let mut flags = "-s -w".to_owned();
    if recipe.cgo {
        flags.push_str(" -linkmode external -extldflags -static");
    }
    for (variable, value) in recipe.stamps {
        let _ = write!(flags, " -X {variable}={value}");
    }
    flags
}

/// Sixteen hexadecimal digits that change with anything that changes the programs.
fn key(recipe: &Recipe, source: &Path, go_version: &str) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |text: &[u8]| {
        // The length keeps neighbouring parts apart.
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    };
    add(go_version.as_bytes());
    add(recipe.tags.as_bytes());
    add(linker_flags(recipe).as_bytes());
    for package in recipe.packages {
        add(package.as_bytes());
    }
    for file in source_files(source)? {
        add(file
            .strip_prefix(source)
            .unwrap_or(&file)
            .as_os_str()
            .as_encoded_bytes());
        add(&std::fs::read(&file).with_context(|| format!("could not read {}", file.display()))?);
    }
    Ok(hex(&hash.finalize())[..16].to_owned())
}

/// go.mod, go.sum and every Go file, in order.
fn source_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in super::programs::list(dir)? {
        if path.is_dir() {
            found.extend(source_files(&path)?);
        } else if path
            .extension()
            .is_some_and(|end| ["go", "mod", "sum"].iter().any(|known| end == *known))
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_built_cache_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let done = dir.path().join("kube-0123");
        // What a killed build leaves.
        make_dir(&dir.path().join("kube-0123.part")).unwrap();
        std::fs::write(dir.path().join("kube-0123.part/half"), "x").unwrap();
        let failed = build_once(&done, |_| bail!("no network"));
        assert!(failed.is_err() && !done.exists());
        build_once(&done, |into| {
            assert!(!into.join("half").exists(), "the remains were taken over");
            std::fs::write(into.join("kube"), "whole")?;
            Ok(())
        })
        .unwrap();
        assert!(done.join("kube").is_file());
        build_once(&done, |_| bail!("built twice")).unwrap();
    }

    #[test]
    fn the_key_follows_every_input() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("go.mod"), "module a").unwrap();
        std::fs::write(dir.path().join("main.go"), "package main").unwrap();
        let first = key(&RECIPES[0], dir.path(), "go1.26.8").unwrap();
        assert_eq!(first, key(&RECIPES[0], dir.path(), "go1.26.8").unwrap());
        assert_ne!(first, key(&RECIPES[0], dir.path(), "go1.26.9").unwrap());
        assert_ne!(first, key(&RECIPES[1], dir.path(), "go1.26.8").unwrap());
        std::fs::write(dir.path().join("main.go"), "package main // changed").unwrap();
        assert_ne!(first, key(&RECIPES[0], dir.path(), "go1.26.8").unwrap());
    }
}
