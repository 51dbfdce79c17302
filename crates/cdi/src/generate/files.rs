//! Files of the driver that a container gets: libraries, programs, firmware, sockets, configuration of graphics.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::driver::Driver;
use super::elf::{Soname, soname};
use super::hooks::Hooks;
use super::root::matches;
use super::text;
use crate::{ContainerEdits, Mount};

pub(super) const OPTIONS: [&str; 5] = ["ro", "nosuid", "nodev", "rbind", "rprivate"];
/// Sockets are written to.
const SOCKET_OPTIONS: [&str; 5] = ["nosuid", "nodev", "rbind", "rprivate", "noexec"];

const PROGRAMS: [&str; 7] = [
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-imex",
    "nvidia-imex-ctl",
];
const PROGRAM_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
const SOCKETS: [&str; 2] = ["nvidia-persistenced/socket", "nvidia-fabricmanager/socket"];
/// Where MPS has its pipes. The reference takes a file there only, and MPS makes a directory: so do we, since whether
/// a container uses MPS is the device plugin's to say.
const MPS: &str = "/tmp/nvidia-mps";
const FIRMWARE: [&str; 2] = ["gsp*.bin", "ucodes*.bin"];

/// Libraries for EGL, which have versions of their own.
const EGL_PLATFORMS: [&str; 5] = [
    "libnvidia-egl-gbm.so.*.*",
    "libnvidia-egl-wayland.so.*.*",
    "libnvidia-egl-wayland2.so.*.*",
    "libnvidia-egl-xcb.so.*.*",
    "libnvidia-egl-xlib.so.*.*",
];
/// Configuration that is looked for in several places of the host and lies below `/usr/share` in the container.
const SHARED: [&str; 9] = [
    "glvnd/egl_vendor.d/10_nvidia.json",
    "egl/egl_external_platform.d/15_nvidia_gbm.json",
    "egl/egl_external_platform.d/10_nvidia_wayland.json",
    "egl/egl_external_platform.d/09_nvidia_wayland2.json",
    "egl/egl_external_platform.d/20_nvidia_xcb.json",
    "egl/egl_external_platform.d/20_nvidia_xlib.json",
    "nvidia/nvoptix.bin",
    "X11/xorg.conf.d/10-nvidia.conf",
    "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
];
/// The same, below `/etc` in the container.
const OPENCL: &str = "OpenCL/vendors/nvidia.icd";
/// The same for Vulkan; these are also looked for in the driver's root itself.
const VULKAN: [&str; 5] = [
    "vulkan/icd.d/nvidia_icd.json",
    "vulkan/icd.d/nvidia_layers.json",
    "vulkan/implicit_layer.d/nvidia_layers.json",
    "vulkan/icd.d/nvidia_icd.x86_64.json",
    "vulkan/icd.d/nvidia_icd.aarch64.json",
];
const CONFIG_DIRS: [&str; 3] = ["/etc", "/usr/local/share", "/usr/share"];
/// Where X.Org's modules are, below directories of libraries.
const XORG_BELOW: [&str; 5] = [
    "nvidia/xorg",
    "xorg/modules/drivers",
    "xorg/modules/extensions",
    "xorg/modules/updates/drivers",
    "xorg/modules/updates/extensions",
];
/// The same, on hosts where they are elsewhere.
const XORG_DIRS: [&str; 4] = [
    "/usr/lib/xorg/modules",
    "/usr/lib64/xorg/modules",
    "/usr/X11R6/lib/modules",
    "/usr/X11R6/lib64/modules",
];

/// What every container with a GPU gets of the driver.
pub(super) fn driver(driver: &Driver<'_>, hooks: &Hooks<'_>) -> ContainerEdits {
    with_files(driver, hooks, true)
}

/// The same for what manages GPUs: it may make device nodes.
pub(super) fn management(driver: &Driver<'_>, hooks: &Hooks<'_>) -> ContainerEdits {
    with_files(driver, hooks, false)
}

fn with_files(driver: &Driver<'_>, hooks: &Hooks<'_>, keep_nodes: bool) -> ContainerEdits {
    let mut libraries = driver.own(&format!("*.so.{}", driver.version), &["vdpau"]);
    libraries.extend(driver.own("libnvidia-nvvm70.so.*", &[]));
    let mut edits = ContainerEdits::default();
    edits.hooks.extend(hooks.symlinks(links(driver, &libraries)));
    edits.hooks.push(hooks.cuda_compat(&driver.version));
    edits.hooks.extend(hooks.update_ldcache(&folders(&libraries)));
    if keep_nodes {
        edits.hooks.push(hooks.disable_device_node_modification());
    }
    let dirs: Vec<String> = driver.dirs.iter().map(|dir| text(dir)).collect();
    edits
        .env
        .push(format!("NVIDIA_CTK_LIBCUDA_DIR={}", dirs.join(":")));
    add(&mut edits, driver, &libraries, &OPTIONS);
    add(&mut edits, driver, &sockets(driver), &SOCKET_OPTIONS);
    add(&mut edits, driver, &firmware(driver), &OPTIONS);
    let programs: Vec<PathBuf> = PROGRAMS.iter().filter_map(|name| program(driver, name)).collect();
    add(&mut edits, driver, &programs, &OPTIONS);
    edits
}

/// What Vulkan, EGL, GLX and X.Org need.
pub(super) fn graphics(driver: &Driver<'_>, hooks: &Hooks<'_>) -> ContainerEdits {
    let version = &driver.version;
    let egl = EGL_PLATFORMS.iter().flat_map(|pattern| driver.anywhere(pattern));
    let mut libraries: Vec<PathBuf> = egl.collect();
    let allocator = driver.anywhere(&format!("libnvidia-allocator.so.{version}"));
    let producer = driver.anywhere(&format!("libnvidia-vulkan-producer.so.{version}"));
    let glx_name = format!("libglxserver_nvidia.so.{version}");
    let glx = xorg(driver, &glx_name);

    let mut links = Vec::new();
    for library in &allocator {
        let gbm = beside(library, "gbm/nvidia-drm_gbm.so");
        links.push(format!("../libnvidia-allocator.so.1::{gbm}"));
    }
    for (library, link) in producer
        .iter()
        .map(|library| (library, "libnvidia-vulkan-producer.so"))
        .chain(glx.iter().map(|library| (library, "libglxserver_nvidia.so")))
    {
        links.push(format!("{}::{}", name(library), beside(library, link)));
    }

    // The allocator is among the driver's own libraries.
    libraries.extend(producer);
    libraries.extend(xorg(driver, "nvidia_drv.so"));
    libraries.extend(glx);
    libraries.extend(program(driver, "nvidia-xconfig"));
    let mut edits = ContainerEdits::default();
    edits.hooks.extend(hooks.symlinks(links));
    add(&mut edits, driver, &libraries, &OPTIONS);
    let configs = SHARED
        .iter()
        .map(|path| ("/usr/share", *path, config(driver, path)))
        .chain([("/etc", OPENCL, config(driver, OPENCL))])
        .chain(VULKAN.iter().map(|path| {
            let in_root = || Some(Path::new("/").join(path)).filter(|path| driver.root.is_file(path));
            ("/etc", *path, config(driver, path).or_else(in_root))
        }));
    for (dir, path, found) in configs {
        if let Some(found) = found {
            let inside = Path::new(dir).join(path);
            edits
                .mounts
                .push(mount(&driver.root.on_host(&found), &inside, &OPTIONS));
        }
    }
    edits
}

pub(super) fn mount(on_host: &Path, inside: &Path, options: &[&str]) -> Mount {
    Mount {
        host_path: text(on_host),
        container_path: text(inside),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        kind: String::new(),
    }
}

/// Mounts files where the driver's root has them.
fn add(edits: &mut ContainerEdits, driver: &Driver<'_>, paths: &[PathBuf], options: &[&str]) {
    let mounts = paths
        .iter()
        .map(|path| mount(&driver.root.on_host(path), path, options));
    edits.mounts.extend(mounts);
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn beside(path: &Path, name: &str) -> String {
    text(&path.parent().unwrap_or(Path::new("/")).join(name))
}

/// Links that programs look for and the container has not: those that the host has too, and three that are needed
/// whether it has them or not. Each is `target::link`.
fn links(driver: &Driver<'_>, libraries: &[PathBuf]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut links = Vec::new();
    for library in libraries {
        let file = name(library);
        let mut of_library = Vec::new();
        let is = |library: &str| matches(&format!("{library}.*.*"), &file);
        if is("libcuda.so") {
            of_library.push(format!("libcuda.so.1::{}", beside(library, "libcuda.so")));
        } else if is("libGLX_nvidia.so") {
            of_library.push(format!("{file}::{}", beside(library, "libGLX_indirect.so.0")));
        } else if is("libnvidia-opticalflow.so") {
            let link = beside(library, "libnvidia-opticalflow.so");
            of_library.push(format!("libnvidia-opticalflow.so.1::{link}"));
        }
        if matches("*.*.*", &file) {
            of_library.extend(links_of_host(driver, library, &file));
        }
        links.extend(of_library.into_iter().filter(|link| seen.insert(link.clone())));
    }
    links
}

fn links_of_host(driver: &Driver<'_>, library: &Path, file: &str) -> Vec<String> {
    let soname = match soname(driver.root.fs, &driver.root.on_host(library)) {
        Soname::NoLibrary => return Vec::new(),
        Soname::None => file.to_owned(),
        Soname::Name(name) => name,
    };
    let there = |link: &str| driver.root.link(&PathBuf::from(beside(library, link))).is_some();
    let mut links = Vec::new();
    if soname != file && there(&soname) {
        links.push(format!("{file}::{}", beside(library, &soname)));
    }
    let target = if soname.is_empty() { file } else { &soname };
    if let Some(link) = without_version(target).filter(|link| *link != target && there(link)) {
        links.push(format!("{target}::{}", beside(library, link)));
    }
    links
}

/// `libcuda.so` of `libcuda.so.1`; nothing of what has no `.so`.
fn without_version(soname: &str) -> Option<&str> {
    let mut rest = soname;
    loop {
        let (before, ending) = rest.rsplit_once('.')?;
        if ending == "so" {
            return Some(rest);
        }
        rest = before;
    }
}

/// Directories of what the loader would take for libraries.
fn folders(libraries: &[PathBuf]) -> Vec<String> {
    let mut folders = Vec::new();
    for library in libraries.iter().filter(|library| is_library(&name(library))) {
        let folder = text(library.parent().unwrap_or(Path::new("/")));
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

fn is_library(name: &str) -> bool {
    let Some((before, version)) = name.rsplit_once(".so") else {
        return false;
    };
    before.len() > "lib".len()
        && before.starts_with("lib")
        && (version.is_empty() || version.starts_with('.'))
}

fn sockets(driver: &Driver<'_>) -> Vec<PathBuf> {
    let socket = |name: &&str| {
        let places = ["/run", "/var/run"].map(|dir| Path::new(dir).join(name));
        places.into_iter().find(|path| driver.root.is_file(path))
    };
    let mps = Some(PathBuf::from(MPS)).filter(|path| driver.root.is_file(path));
    SOCKETS.iter().filter_map(socket).chain(mps).collect()
}

/// What the driver loads into the GPU; a process in a container does so too, where it is the first to use one.
fn firmware(driver: &Driver<'_>) -> Vec<PathBuf> {
    let line = |path: &str| {
        let bytes = driver.root.fs.read(Path::new(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|text| !text.is_empty())
    };
    let mut dirs = Vec::new();
    dirs.extend(line("/sys/module/firmware_class/parameters/path").map(PathBuf::from));
    let kernel = line("/proc/sys/kernel/osrelease");
    for dir in ["/lib/firmware/updates", "/lib/firmware"] {
        dirs.extend(kernel.as_ref().map(|kernel| Path::new(dir).join(kernel)));
        dirs.push(dir.into());
    }
    let in_dir = |dir: &PathBuf| dir.join("nvidia").join(&driver.version);
    let dirs: Vec<PathBuf> = dirs.iter().map(in_dir).collect();
    let of = |pattern: &&str| {
        let pattern = (*pattern).to_owned();
        dirs.iter()
            .flat_map(move |dir| driver.root.matching(dir, &pattern))
    };
    FIRMWARE.iter().flat_map(of).collect()
}

/// A program, where a shell would find it first.
fn program(driver: &Driver<'_>, name: &str) -> Option<PathBuf> {
    const BY_ANYONE: u32 = 0o111;
    let paths = PROGRAM_DIRS.iter().map(|dir| Path::new(dir).join(name));
    paths.into_iter().find(|path| {
        let Some((real, _)) = driver.root.follow(path).filter(|_| driver.root.is_file(path)) else {
            return false;
        };
        let ownership = driver.root.fs.ownership(&driver.root.on_host(&real));
        // Who knows nothing of modes is believed to have programs where programs are.
        ownership.map_or(true, |ownership| ownership.mode & BY_ANYONE != 0)
    })
}

fn config(driver: &Driver<'_>, path: &str) -> Option<PathBuf> {
    let places = CONFIG_DIRS.iter().map(|dir| Path::new(dir).join(path));
    places.into_iter().find(|path| driver.root.is_file(path))
}

/// A module of X.Org, at the first place that has it.
fn xorg(driver: &Driver<'_>, name: &str) -> Option<PathBuf> {
    let of_driver = driver
        .dirs
        .iter()
        .flat_map(|dir| XORG_BELOW.iter().map(move |below| dir.join(below)));
    let below = ["drivers", "extensions", "updates/drivers", "updates/extensions"];
    let of_host = XORG_DIRS
        .iter()
        .flat_map(|dir| below.iter().map(move |below| Path::new(dir).join(below)));
    let paths = of_driver.chain(of_host).map(|dir| dir.join(name));
    paths.into_iter().find(|path| driver.root.is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_off_a_librarys_name() {
        assert_eq!(without_version("libcuda.so.1"), Some("libcuda.so"));
        assert_eq!(without_version("libcuda.so.580.159.04"), Some("libcuda.so"));
        assert_eq!(without_version("libcuda.so"), Some("libcuda.so"));
        assert_eq!(without_version("libcuda"), None);
    }

    #[test]
    fn a_library_begins_with_lib_and_ends_with_so() {
        for name in ["libcuda.so", "libcuda.so.1", "libnvidia-nvvm70.so.4"] {
            assert!(is_library(name), "{name}");
        }
        for name in ["lib.so", "nvidia_drv.so", "libcuda.so1", "libcuda.a"] {
            assert!(!is_library(name), "{name}");
        }
    }
}
