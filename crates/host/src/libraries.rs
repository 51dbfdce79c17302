//! The driver's libraries: where they are, and in which version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;

use crate::driver::is_version;
use crate::facts::DriverLibraries;
use crate::{ldcache, read};

const NVML: &str = "libnvidia-ml.so";
const CUDA: &str = "libcuda.so";
const JIT: &str = "libnvidia-ptxjitcompiler.so";

/// Where distributions, NVIDIA's installer and driver containers put the libraries. Those that the loader's cache
/// names come before all of them.
pub const DIRECTORIES: [&str; 18] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib64/nvidia",
    "/usr/lib",
    "/usr/local/lib64",
    "/usr/local/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/opt/nvidia/lib64",
    "/run/opengl-driver/lib",
    "/home/kubernetes/bin/nvidia/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/run/nvidia/driver/usr/lib64",
];

/// All directories that hold a library of the driver, the one that is used first. Files of other versions in a
/// directory, left over from an upgrade, are an entry of their own behind it.
pub(crate) fn gather(fs: &dyn HostFs) -> Vec<DriverLibraries> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let cached = cached_dirs(fs);
    for dir in cached.into_iter().chain(DIRECTORIES.iter().map(PathBuf::from)) {
        // One directory often has several names: `/lib64` is `/usr/lib64`.
        let dir = read::canonical(fs, &dir);
        if seen.insert(dir.clone()) {
            found.extend(in_dir(fs, &dir));
        }
    }
    found
}

/// Directories of the libraries in the loader's cache.
fn cached_dirs(fs: &dyn HostFs) -> Vec<PathBuf> {
    let Ok(bytes) = fs.read(Path::new("/etc/ld.so.cache")) else {
        return Vec::new();
    };
    let entries = ldcache::parse(&bytes).unwrap_or_default();
    entries
        .into_iter()
        .filter(|(name, _)| name == "libnvidia-ml.so.1" || name == "libcuda.so.1")
        .filter_map(|(_, path)| Path::new(&path).parent().map(Path::to_owned))
        .collect()
}

fn in_dir(fs: &dyn HostFs, dir: &Path) -> Vec<DriverLibraries> {
    let names = read::names_or_none(fs, dir);
    let has = |name: &str| names.iter().any(|known| known == name);
    let [nvml, cuda, jit] = [NVML, CUDA, JIT].map(|library| has(&format!("{library}.1")));
    let mut found = Vec::new();
    let mut used = None;
    if nvml || cuda {
        let version = version(fs, dir, nvml, cuda);
        used = version.value().cloned();
        found.push(DriverLibraries {
            directory: dir.to_owned(),
            version,
            has_nvml: nvml,
            has_cuda: cuda,
            has_jit: jit,
        });
    }
    let others: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| [NVML, CUDA].iter().find_map(|library| versioned(name, library)))
        .filter(|version| used.as_deref() != Some(version))
        .collect();
    // Where it isn't known which is used, its files would look like others.
    if (nvml || cuda) && used.is_none() {
        return found;
    }
    found.extend(others.into_iter().map(|version| DriverLibraries {
        directory: dir.to_owned(),
        version: Reading::Value(version.to_owned()),
        has_nvml: has(&format!("{NVML}.{version}")),
        has_cuda: has(&format!("{CUDA}.{version}")),
        has_jit: has(&format!("{JIT}.{version}")),
    }));
    found
}

/// The version of a file such as `libcuda.so.580.159.04`.
pub(crate) fn versioned<'a>(name: &'a str, library: &str) -> Option<&'a str> {
    let version = name.strip_prefix(library)?.strip_prefix('.')?;
    is_version(version).then_some(version)
}

/// The version of the files that the names end at.
fn version(fs: &dyn HostFs, dir: &Path, nvml: bool, cuda: bool) -> Reading<String> {
    let of = |library: &str| {
        let link = dir.join(format!("{library}.1"));
        let Some((file, _)) = read::followed(fs, &link) else {
            return Reading::Failed(format!("`{}` points at nothing", link.display()));
        };
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match versioned(&name, library) {
            Some(version) => Reading::Value(version.to_owned()),
            None => Reading::Failed(format!("`{}` carries no version in its name", file.display())),
        }
    };
    match (nvml, cuda) {
        (true, false) => of(NVML),
        (false, _) => of(CUDA),
        (true, true) => match (of(NVML), of(CUDA)) {
            (Reading::Value(nvml), Reading::Value(cuda)) if nvml != cuda => Reading::Failed(format!(
                "`{}` holds two versions: libnvidia-ml is {nvml}, libcuda {cuda}",
                dir.display()
            )),
            (Reading::Value(version), _) | (_, Reading::Value(version)) => Reading::Value(version),
            (absent, _) => absent,
        },
    }
}
