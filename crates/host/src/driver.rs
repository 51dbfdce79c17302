//! The driver's kernel modules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::{FileKind, HostFs};

use crate::facts::Driver;
use crate::{libraries, read};

/// Modules that matter to GPUs.
const MODULES: [&str; 8] = [
    "nvidia",
    "nvidia_uvm",
    "nvidia_modeset",
    "nvidia_drm",
    "nvidia_peermem",
    "nouveau",
    "nova_core",
    "vfio_pci",
];

/// Where below a kernel's modules packages put NVIDIA's.
const MODULE_DIRS: [&str; 10] = [
    "updates/dkms",
    "updates",
    "extra",
    "extra/drivers/video",
    "kernel/drivers/video",
    "weak-updates",
    "weak-updates/updates",
    "weak-updates/drivers/video",
    "kernel",
    "misc",
];

/// The largest uncompressed module that is searched for its version, in bytes.
const LARGEST_MODULE: u64 = 128 << 20;

const VERSION: &str = "/proc/driver/nvidia/version";
/// Root of NVIDIA's driver container, as its operator mounts it.
const CONTAINER_ROOT: &str = "/run/nvidia/driver";

pub(crate) fn gather(
    fs: &dyn HostFs,
    kernel: &Reading<String>,
    command_line: &Reading<Vec<String>>,
) -> Driver {
    let (kernel_version, open_kernel_modules) = loaded(fs);
    Driver {
        loaded_modules: read::text(fs, "/proc/modules").map(|text| parse_modules(&text)),
        kernel_version,
        open_kernel_modules,
        module_on_disk: module_on_disk(fs, kernel),
        nouveau_blacklisted: nouveau_blacklisted(fs, command_line),
        libraries: libraries::gather(fs),
        container_root: (!read::names_or_none(fs, CONTAINER_ROOT).is_empty()).then(|| CONTAINER_ROOT.into()),
    }
}

/// Those of `/proc/modules` that matter to GPUs, in a fixed order.
pub fn parse_modules(text: &str) -> Vec<String> {
    let loaded: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    MODULES
        .iter()
        .filter(|name| loaded.contains(*name))
        .map(|&name| name.to_owned())
        .collect()
}

/// Version of the loaded module, and whether it is the open one.
fn loaded(fs: &dyn HostFs) -> (Reading<String>, Reading<bool>) {
    match read::text(fs, VERSION) {
        Reading::Value(text) => {
            let why = || format!("`{VERSION}` names no version");
            parse_version(&text).map_or_else(
                || (Reading::Failed(why()), Reading::Failed(why())),
                |(version, open)| (Reading::Value(version.to_owned()), Reading::Value(open)),
            )
        }
        Reading::NotSupported => match read::line(fs, "/sys/module/nvidia/version") {
            Reading::Value(version) => (
                Reading::Value(version),
                Reading::Failed(format!("a driver is loaded, and `{VERSION}` is not there")),
            ),
            Reading::NotSupported => (Reading::NotSupported, Reading::NotSupported),
            Reading::Failed(why) => (Reading::Failed(why.clone()), Reading::Failed(why)),
        },
        Reading::Failed(why) => (Reading::Failed(why.clone()), Reading::Failed(why)),
    }
}

/// The version in the text of `/proc/driver/nvidia/version`, and whether it is that of the open modules.
pub fn parse_version(text: &str) -> Option<(&str, bool)> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let version = line.split_ascii_whitespace().find(|word| is_version(word))?;
    Some((version, line.contains("Open Kernel Module")))
}

/// True for a driver's version: two or three numbers, e.g. `580.159.04`.
pub(crate) fn is_version(text: &str) -> bool {
    let number =
        |part: &str| !part.is_empty() && part.len() < 6 && part.bytes().all(|byte| byte.is_ascii_digit());
    (2..=3).contains(&text.split('.').count()) && text.split('.').all(number)
}

fn module_on_disk(fs: &dyn HostFs, kernel: &Reading<String>) -> Reading<String> {
    let release = match kernel {
        Reading::Value(release) if !release.contains('/') => release,
        Reading::Value(_) | Reading::NotSupported => {
            return Reading::Failed("the release of the running kernel is not known".to_owned());
        }
        Reading::Failed(why) => return Reading::Failed(why.clone()),
    };
    let Some(module) = find_module(fs, release) else {
        return Reading::NotSupported;
    };
    version_of_module(fs, release, &module)
}

/// `nvidia.ko` for this kernel, compressed or not.
fn find_module(fs: &dyn HostFs, release: &str) -> Option<PathBuf> {
    let in_dir = |dir: &Path, names: &[String]| {
        let module = names.iter().find(|name| {
            // Debian's packages build each series under a name of its own, and alias the usual one to it.
            let ending = name
                .strip_prefix("nvidia.ko")
                .or_else(|| name.strip_prefix("nvidia-current.ko"));
            ending.is_some_and(|ending| matches!(ending, "" | ".xz" | ".zst" | ".gz"))
        });
        module.map(|name| dir.join(name))
    };
    for base in ["/lib/modules", "/usr/lib/modules"].map(|base| Path::new(base).join(release)) {
        for dir in MODULE_DIRS.map(|dir| base.join(dir)) {
            let names = read::names_or_none(fs, &dir);
            if let Some(found) = in_dir(&dir, &names) {
                return Some(found);
            }
            // Some packages have a directory of their own: `nvidia`, `nvidia-580-open`.
            for own in names
                .iter()
                .filter(|name| name.contains("nvidia"))
                .map(|name| dir.join(name))
            {
                if let Some(found) = in_dir(&own, &read::names_or_none(fs, &own)) {
                    return Some(found);
                }
            }
        }
    }
    None
}

/// What the module says itself where it is not compressed, else the only version that DKMS built for this kernel, else
/// the only sources there. Of two that DKMS has, either can be the one that is installed.
fn version_of_module(fs: &dyn HostFs, release: &str, module: &Path) -> Reading<String> {
    if module.extension().is_some_and(|ending| ending == "ko")
        && let Some(version) = version_inside(fs, module)
    {
        return Reading::Value(version);
    }
    let built = built_by_dkms(fs, release);
    let candidates = if built.is_empty() { sources(fs) } else { built };
    let mut candidates: Vec<String> = candidates.into_iter().collect();
    match (candidates.pop(), candidates.is_empty()) {
        (Some(version), true) => Reading::Value(version),
        (only, _) => {
            candidates.extend(only);
            let which = if candidates.is_empty() {
                String::new()
            } else {
                format!(" (it is one of {})", candidates.join(", "))
            };
            Reading::Failed(format!(
                "`{}` is there, its version can't be told from here{which}: ask `modinfo -F version nvidia`",
                module.display()
            ))
        }
    }
}

/// Versions that DKMS has built for this kernel.
fn built_by_dkms(fs: &dyn HostFs, release: &str) -> BTreeSet<String> {
    let dkms = Path::new("/var/lib/dkms");
    let packages = read::names_or_none(fs, dkms).into_iter();
    packages
        .filter(|name| name.starts_with("nvidia"))
        .map(|name| dkms.join(name))
        .flat_map(|package| {
            let versions = read::names_or_none(fs, &package);
            let built = move |version: &String| read::exists(fs, package.join(version).join(release));
            versions.into_iter().filter(built)
        })
        .filter(|version| is_version(version))
        .collect()
}

/// Versions of the sources of the driver's modules.
fn sources(fs: &dyn HostFs) -> BTreeSet<String> {
    read::names_or_none(fs, "/usr/src")
        .iter()
        .filter(|name| name.starts_with("nvidia-"))
        .filter_map(|name| name.rsplit('-').next())
        .filter(|version| is_version(version))
        .map(str::to_owned)
        .collect()
}

/// The version that a module carries as `version=`.
fn version_inside(fs: &dyn HostFs, module: &Path) -> Option<String> {
    let (module, FileKind::File(1..=LARGEST_MODULE)) = read::followed(fs, module)? else {
        return None;
    };
    let found = read::find(fs, &module, b"\0version=", LARGEST_MODULE, |rest| {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let text = std::str::from_utf8(&rest[..end]).ok()?;
        is_version(text).then(|| text.to_owned())
    });
    found.ok().flatten()
}

/// Where `modprobe` is configured, a file of an earlier directory in the place of one of the same name in a later one.
const MODPROBE_DIRS: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

fn nouveau_blacklisted(fs: &dyn HostFs, command_line: &Reading<Vec<String>>) -> Reading<bool> {
    if command_line
        .value()
        .is_some_and(|words| words.iter().any(|word| word_blacklists(word)))
    {
        return Reading::Value(true);
    }
    let mut seen = BTreeSet::new();
    let mut unread = None;
    for dir in MODPROBE_DIRS {
        let names = match read::names(fs, dir) {
            Reading::Value(names) => names,
            Reading::NotSupported => continue,
            Reading::Failed(why) => {
                unread.get_or_insert(why);
                continue;
            }
        };
        for name in names.into_iter().filter(|name| read::ends_in(name, "conf")) {
            if !seen.insert(name.clone()) {
                continue;
            }
            match read::text(fs, Path::new(dir).join(name)) {
                Reading::Value(text) if blacklists_nouveau(&text) => return Reading::Value(true),
                Reading::Failed(why) => {
                    unread.get_or_insert(why);
                }
                Reading::Value(_) | Reading::NotSupported => {}
            }
        }
    }
    unread.map_or(Reading::Value(false), Reading::Failed)
}

/// True for a word of the kernel's command line that keeps nouveau from its devices.
fn word_blacklists(word: &str) -> bool {
    if word == "nouveau.modeset=0" {
        return true;
    }
    let list = word
        .strip_prefix("modprobe.blacklist=")
        .or_else(|| word.strip_prefix("module_blacklist="));
    list.is_some_and(|list| list.split(',').any(|name| name == "nouveau"))
}

/// True where a file of `modprobe.d` keeps nouveau from being loaded.
pub fn blacklists_nouveau(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("blacklist"), Some("nouveau"), _) | (Some("alias"), Some("nouveau"), Some("off")) => true,
            (Some("install"), Some("nouveau"), Some(program)) => {
                program.ends_with("/false") || program.ends_with("/true")
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_modules_are_told_apart() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (nixbld@)  \nGCC version:  gcc version 15.3.0 (GCC) \n";
        assert_eq!(parse_version(open), Some(("580.159.04", true)));
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024\nGCC version:  gcc version 12.2.0\n";
        assert_eq!(parse_version(closed), Some(("470.256.02", false)));
        assert_eq!(parse_version("GCC version: 12.2.0"), None);
    }

    #[test]
    fn modules_are_named_by_the_first_word() {
        let text = "nvidia_uvm 2183168 0 - Live 0x0 (O)\nnvidia 14381056 2 nvidia_uvm, Live 0x0 (O)\nvfio_pci_core 1 0\nnouveaux 1 0\n";
        assert_eq!(parse_modules(text), ["nvidia", "nvidia_uvm"]);
    }

    #[test]
    fn nouveau_is_blacklisted_in_three_ways_and_on_the_command_line() {
        assert!(blacklists_nouveau("# x\nblacklist nouveau\n"));
        assert!(blacklists_nouveau("install nouveau /bin/false\n"));
        assert!(blacklists_nouveau("alias nouveau off\n"));
        assert!(!blacklists_nouveau(
            "# blacklist nouveau\noptions nouveau modeset=0\nblacklist nouveau_x\n"
        ));
        assert!(word_blacklists("modprobe.blacklist=foo,nouveau"));
        assert!(!word_blacklists("rd.driver.blacklist=nouveau"));
    }

    #[test]
    fn versions_are_two_or_three_numbers() {
        for version in ["580.159.04", "390.157"] {
            assert!(is_version(version), "{version}");
        }
        for text in ["1", "580.159.04.1", "580.x", "580.", "Module", ""] {
            assert!(!is_version(text), "{text}");
        }
    }
}
