//! `xtask image`: the one image of all parts that run in a cluster, without Docker.
//!
//! Two layers: the C library, which changes when Debian's does, and our programs. Its programs are built without imaginary
//! GPUs. The same sources, compiler and packages make the same bytes, wherever they lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{dist, hook, process};

pub(crate) mod libraries;
pub(crate) mod oci;
mod sbom;

use oci::{Image, Layer};

/// Options of `xtask image`.
#[derive(clap::Args)]
pub(crate) struct ImageArgs {
    /// The archive; what the image is made of is written beside it, as NAME.cdx.json [default: dist/pitcrew-VERSION.tar]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The image's name [default: pitcrew:VERSION]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// A built `pitcrew`, instead of building one
    #[arg(long, value_name = "FILE")]
    pitcrew: Option<PathBuf>,

    /// A built `pitcrew-hook`, instead of building one
    #[arg(long, value_name = "FILE")]
    hook: Option<PathBuf>,

    /// A built `pitcrew-scout`, instead of building one
    #[arg(long, value_name = "FILE")]
    scout: Option<PathBuf>,

    /// Leave the layers uncompressed, whatever size comes of it
    #[arg(long)]
    plain: bool,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Largest archive, in bytes.
const LARGEST: u64 = 30 * 1000 * 1000;
/// The user that a container has unless it says another: the agent's does.
const USER: u32 = 65532;

const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\npitcrew:x:65532:65532:pitcrew:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\npitcrew:x:65532:\n";
/// What the kubelet writes into a pod, before what its name server says.
const NSSWITCH: &str = "hosts: files dns\n";
/// Where texts about the image lie in it.
const DOC: &str = "usr/share/doc/pitcrew";

/// Builds what isn't given, and packs.
pub(crate) fn run(args: &ImageArgs) -> Result<()> {
    let given = |path: &Option<PathBuf>, build: &dyn Fn() -> Result<PathBuf>| match path {
        Some(path) => Ok(path.clone()),
        None => build(),
    };
    let programs = [
        ("pitcrew", given(&args.pitcrew, &build)?),
        ("pitcrew-hook", given(&args.hook, &|| hook::build(&hook::HOOK))?),
        (
            "pitcrew-scout",
            given(&args.scout, &|| hook::build(&hook::SCOUT))?,
        ),
    ];
    let libraries = libraries::find()?;
    let crates = sbom::Crates::look(TARGET)?;
    let mut packages = Vec::new();
    for package in &libraries::PACKAGES {
        packages.push((package.name, package.version()?));
    }
    let document = crates.document(VERSION, &packages, &distro());
    let document = format!("{}\n", serde_json::to_string_pretty(&document)?);

    let mut lower = Layer::new();
    libraries::add(&mut lower, &libraries)?;
    for package in &libraries::PACKAGES {
        package.add_licences(&mut lower)?;
    }
    lower.file("etc/passwd", PASSWD, 0o644);
    lower.file("etc/group", GROUP, 0o644);
    lower.file("etc/nsswitch.conf", NSSWITCH, 0o644);
    lower.directory("tmp", 0o1777);
    let mut upper = Layer::new();
    for (name, file) in &programs {
        let program = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        check(name, &program, &libraries)?;
        upper.file(&format!("usr/bin/{name}"), program, 0o755);
    }
    let licence = crate::repository().join("LICENSE");
    let licence = std::fs::read(&licence).with_context(|| format!("could not read {}", licence.display()))?;
    upper.file(&format!("{DOC}/LICENSE"), licence, 0o644);
    upper.file(&format!("{DOC}/third-party.txt"), crates.licences(), 0o644);
    upper.file(&format!("{DOC}/pitcrew.cdx.json"), document.as_str(), 0o644);

    let name = full_name(
        args.name
            .as_deref()
            .unwrap_or(concat!("pitcrew:", env!("CARGO_PKG_VERSION"))),
    );
    let labels = labels();
    let image = Image {
        name: &name,
        config: json!({
            "User": format!("{USER}:{USER}"),
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": ["/usr/bin/pitcrew"],
            "WorkingDir": "/",
            "Labels": labels,
        }),
        annotations: labels,
        layers: vec![lower, upper],
        compressed: !args.plain,
    };
    let out = match &args.out {
        Some(out) => out.clone(),
        None => crate::repository().join(format!("dist/pitcrew-{VERSION}.tar")),
    };
    if let Some(dir) = out.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("could not create {}", dir.display()))?;
    }
    let size = oci::save(image, &out)?;
    if size > LARGEST && !args.plain {
        bail!("{} has {size} bytes; {LARGEST} are allowed", out.display());
    }
    let beside = out.with_extension("cdx.json");
    std::fs::write(&beside, document).with_context(|| format!("could not write {}", beside.display()))?;
    eprintln!("image: {name}, {size} bytes");
    println!("{}", out.display());
    Ok(())
}

/// `pitcrew` as it is released, but for imaginary GPUs.
fn build() -> Result<PathBuf> {
    let target_dir = crate::cache_dir().join("image-target");
    let mut build = process::cargo();
    build
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("RUSTFLAGS", process::without_paths().join(" "))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(build.args([
        "build",
        "--release",
        "--locked",
        "--package=pitcrew",
        "--no-default-features",
        "--target",
        TARGET,
    ]))?;
    Ok(target_dir.join(TARGET).join("release/pitcrew"))
}

/// Refuses a program that asks for a newer glibc than the image has.
fn check(name: &str, program: &[u8], libraries: &[PathBuf]) -> Result<()> {
    let libc = libraries.iter().find(|path| path.ends_with("libc.so.6"));
    let libc = libc.context("the image has no C library")?;
    let libc = std::fs::read(libc).with_context(|| format!("could not read {}", libc.display()))?;
    let (needs, has) = (dist::newest_glibc(program), dist::newest_glibc(&libc));
    if needs > has {
        bail!(
            "{name} needs glibc {}.{}, and the image has {}.{}: it was built on another machine",
            needs.0,
            needs.1,
            has.0,
            has.1
        );
    }
    Ok(())
}

/// The name that a container runtime knows an image by, where a manifest says it without a registry: as containerd and the
/// kubelet complete it.
fn full_name(name: &str) -> String {
    let name = if name.rsplit('/').next().unwrap_or_default().contains(':') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    };
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name,
        Some(_) => format!("docker.io/{name}"),
    }
}

fn labels() -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": "pitcrew",
        "org.opencontainers.image.description": "Gets GPUs on RKE2 race-ready and proves it.",
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.licenses": "Apache-2.0 AND LGPL-2.1-or-later",
        "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
    });
    let mut git = std::process::Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(crate::repository());
    // A source archive has no history.
    if let Ok(revision) = process::output(&mut git) {
        labels["org.opencontainers.image.revision"] = revision.trim().into();
    }
    labels
}

/// This machine's distribution and its version, e.g. `debian-12`.
fn distro() -> String {
    let text = std::fs::read_to_string(Path::new("/etc/os-release")).unwrap_or_default();
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map_or("unknown", |value| value.trim_matches('"'))
    };
    format!("{}-{}", value("ID"), value("VERSION_ID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_completed_as_the_kubelet_does() {
        for (given, full) in [
            ("pitcrew:0.1.0", "docker.io/library/pitcrew:0.1.0"),
            ("pitcrew", "docker.io/library/pitcrew:latest"),
            ("racing/pitcrew:1", "docker.io/racing/pitcrew:1"),
            ("localhost/pitcrew:1", "localhost/pitcrew:1"),
            (
                "registry.example:5000/pitcrew",
                "registry.example:5000/pitcrew:latest",
            ),
        ] {
            assert_eq!(full_name(given), full);
        }
    }

    #[test]
    fn the_manifests_name_the_image_of_this_version() {
        let mut found = 0;
        let mut dirs = vec![crate::repository().join("deploy")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for line in text
                    .lines()
                    .filter_map(|line| line.trim().strip_prefix("image: "))
                {
                    assert_eq!(line, format!("pitcrew:{VERSION}"), "{}", path.display());
                    found += 1;
                }
            }
        }
        assert!(found >= 2, "scout and agent");
    }

    #[test]
    fn a_program_that_needs_a_newer_c_library_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let libc = dir.path().join("libc.so.6");
        std::fs::write(&libc, b"\0GLIBC_2.36\0").unwrap();
        let libraries = [libc];
        assert!(check("pitcrew", b"\0GLIBC_2.34\0", &libraries).is_ok());
        let error = check("pitcrew", b"\0GLIBC_2.39\0", &libraries).unwrap_err();
        assert!(error.to_string().contains("needs glibc 2.39"), "{error}");
    }
}
