//! Packages that tests and releases need: Debian's by `apt-get`, prebuilt tools from `PyPI` into our own cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// A file that only this Debian package brings, and the package.
struct DebianPackage {
    name: &'static str,
    file: &'static str,
}

/// For the test bed: a C compiler and libseccomp for runc, busybox for the pod image, xz for packing. For images of other
/// distributions: a glibc whose loader knows `/usr/lib64`, as upstream's does and Debian's own doesn't, and musl.
const DEBIAN_PACKAGES: &[DebianPackage] = &[
    DebianPackage {
        name: "busybox-static",
        file: "/bin/busybox",
    },
    DebianPackage {
        name: "gcc",
        file: "/usr/bin/gcc",
    },
    DebianPackage {
        name: "libc6-amd64-i386-cross",
        file: "/usr/i686-linux-gnu/lib64/libc.so.6",
    },
    DebianPackage {
        name: "libc6-dev",
        file: "/usr/include/stdio.h",
    },
    DebianPackage {
        name: "libseccomp-dev",
        file: "/usr/include/seccomp.h",
    },
    DebianPackage {
        name: "musl-tools",
        file: "/usr/bin/musl-gcc",
    },
    DebianPackage {
        name: "pkg-config",
        file: "/usr/bin/pkg-config",
    },
    DebianPackage {
        name: "python3-pip",
        file: "/usr/bin/pip3",
    },
    DebianPackage {
        name: "util-linux",
        file: "/usr/bin/nsenter",
    },
    DebianPackage {
        name: "xz-utils",
        file: "/usr/bin/xz",
    },
];

/// Installs what is missing of the Debian packages; nothing is asked of apt when nothing is.
pub(crate) fn install_debian() -> Result<()> {
    let missing: Vec<&str> = DEBIAN_PACKAGES
        .iter()
        .filter(|package| {
            !(Path::new(package.file).exists() || package.name == "python3-pip" && pip().is_some())
        })
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !process::on_path("apt-get") {
        bail!(
            "these packages are missing, and there is no apt-get to install them: {}",
            missing.join(" ")
        );
    }
    eprintln!("installing {}", missing.join(" "));
    process::run(apt().args(["update", "-qq"]))?;
    process::run(
        apt()
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing),
    )
    .with_context(|| format!("could not install {}", missing.join(" ")))
}

/// `apt-get` that asks nothing, through sudo for who isn't root.
fn apt() -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null());
    command
}

/// A pip that works, as the words to call it.
fn pip() -> Option<[&'static str; 3]> {
    let works = |python: &str| {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "--version"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    ["python3"]
        .into_iter()
        .find(|python| works(python))
        .map(|python| [python, "-m", "pip"])
}

/// Installs the tools pinned by hash in `tools/NAME.txt` into our cache, once, and returns their directory.
///
/// Programs lie in its `bin`, Python modules in the directory itself.
pub(crate) fn install_tools(name: &str) -> Result<PathBuf> {
    let requirements = crate::repository().join("tools").join(format!("{name}.txt"));
    let pinned = std::fs::read_to_string(&requirements)
        .with_context(|| format!("could not read {}", requirements.display()))?;
    let dir = crate::cache_dir().join("tools").join(name);
    let stamp = dir.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == pinned) {
        return Ok(dir);
    }
    let Some(pip) = pip() else {
        bail!("pip is missing: install it with `apt-get install python3-pip`");
    };
    // A half-installed directory is of no use; the stamp is written last.
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("could not remove {}", dir.display()))?;
    }
    let mut install = Command::new(pip[0]);
    install
        .args(&pip[1..])
        .args([
            "install",
            "--quiet",
            "--root-user-action=ignore",
            "--no-deps",
            "--require-hashes",
            "--target",
        ])
        .arg(&dir);
    install
        .args(["--disable-pip-version-check", "--no-compile", "-r"])
        .arg(&requirements);
    process::run(&mut install)?;
    std::fs::write(&stamp, pinned).with_context(|| format!("could not write {}", stamp.display()))?;
    Ok(dir)
}
