//! Roots that NVIDIA's toolkit was run on, and is compared on: files in the places of several distributions.

use std::fmt::Write as _;
use std::path::Path;

use pitcrew_core::Inventory;
use pitcrew_core::ports::InventorySource as _;
use pitcrew_scenario::{HostRoot, Machine, Scenario};

/// One root.
pub(crate) struct Fixture {
    /// What its file is called.
    pub(crate) name: &'static str,
    /// Its GPUs.
    pub(crate) scenario: &'static str,
    /// Where its libraries are, on the host.
    libraries: &'static str,
    /// Where the driver's root is.
    pub(crate) driver_root: &'static str,
    /// The driver's links to directories, as on systems where `/lib` is in `/usr`.
    links: &'static [(&'static str, &'static str)],
    /// True where the loader's cache is the only one to know where the libraries are.
    cached: bool,
    /// Files besides the libraries, in the driver's root; those in `bin` and `sbin` are programs.
    files: &'static [&'static str],
    /// Sockets.
    sockets: &'static [&'static str],
    /// True where the kernel has nodes for graphics on the first GPU.
    graphics: bool,
}

/// All of them.
pub(crate) const ALL: [Fixture; 5] = [
    Fixture {
        name: "ubuntu",
        scenario: "rtx3060",
        libraries: "/usr/lib/x86_64-linux-gnu",
        driver_root: "/",
        links: &[("/lib", "usr/lib"), ("/bin", "usr/bin"), ("/lib64", "usr/lib64")],
        cached: false,
        files: &[
            "/usr/bin/nvidia-smi",
            "/usr/bin/nvidia-debugdump",
            "/usr/bin/nvidia-persistenced",
            "/usr/bin/nvidia-cuda-mps-control",
            "/usr/bin/nvidia-cuda-mps-server",
            "/usr/bin/nvidia-xconfig",
            "/usr/lib/firmware/nvidia/VERSION/gsp_ga10x.bin",
            "/usr/lib/firmware/nvidia/VERSION/gsp_tu10x.bin",
            "/usr/lib/firmware/nvidia/0.1.2/gsp_tu10x.bin",
            "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
            "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
            "/usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json",
            "/usr/share/nvidia/nvoptix.bin",
            "/usr/share/X11/xorg.conf.d/nvidia-drm-outputclass.conf",
            "/usr/share/vulkan/icd.d/nvidia_icd.json",
            "/usr/share/vulkan/implicit_layer.d/nvidia_layers.json",
            "/etc/OpenCL/vendors/nvidia.icd",
            "/usr/lib/x86_64-linux-gnu/nvidia/xorg/nvidia_drv.so",
            "/usr/lib/x86_64-linux-gnu/nvidia/xorg/libglxserver_nvidia.so.VERSION",
            "/tmp/nvidia-mps/control",
        ],
        sockets: &["/run/nvidia-persistenced/socket"],
        graphics: false,
    },
    Fixture {
        name: "rhel",
        scenario: "l40s",
        libraries: "/usr/lib64",
        driver_root: "/",
        links: &[
            ("/lib64", "usr/lib64"),
            ("/lib", "usr/lib"),
            ("/sbin", "usr/sbin"),
            ("/bin", "usr/bin"),
        ],
        cached: false,
        files: &[
            "/usr/bin/nvidia-smi",
            "/usr/sbin/nvidia-persistenced",
            "/usr/lib/firmware/nvidia/VERSION/gsp_ga10x.bin",
            "/usr/share/vulkan/icd.d/nvidia_icd.x86_64.json",
            "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
            "/usr/lib64/xorg/modules/drivers/nvidia_drv.so",
            "/usr/lib64/xorg/modules/extensions/libglxserver_nvidia.so.VERSION",
        ],
        sockets: &["/var/run/nvidia-persistenced/socket"],
        graphics: true,
    },
    Fixture {
        name: "local-nvidia",
        scenario: "t4",
        libraries: "/usr/local/nvidia/lib64",
        driver_root: "/",
        links: &[],
        cached: true,
        files: &[
            "/usr/local/bin/nvidia-smi",
            "/lib/firmware/nvidia/VERSION/gsp_tu10x.bin",
        ],
        sockets: &[],
        graphics: false,
    },
    Fixture {
        name: "driver-container",
        scenario: "h100x8",
        libraries: "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
        driver_root: "/run/nvidia/driver",
        links: &[("/lib", "usr/lib")],
        cached: false,
        files: &[
            "/usr/bin/nvidia-smi",
            "/usr/bin/nvidia-imex",
            "/usr/bin/nvidia-imex-ctl",
            "/usr/lib/firmware/nvidia/VERSION/gsp_ga10x.bin",
            "/vulkan/icd.d/nvidia_icd.json",
        ],
        sockets: &[
            "/run/nvidia-persistenced/socket",
            "/run/nvidia-fabricmanager/socket",
        ],
        graphics: false,
    },
    Fixture {
        name: "mig",
        scenario: "mixed",
        libraries: "/usr/lib/x86_64-linux-gnu",
        driver_root: "/",
        links: &[],
        cached: false,
        files: &["/usr/bin/nvidia-smi"],
        sockets: &[],
        graphics: false,
    },
];

/// Libraries as NVIDIA's package has them: file, the name that it gives itself, and whether there is a link for
/// who builds programs.
const LIBRARIES: [(&str, &str, bool); 17] = [
    ("libcuda.so.VERSION", "libcuda.so.1", true),
    ("libnvidia-ml.so.VERSION", "libnvidia-ml.so.1", true),
    (
        "libnvidia-ptxjitcompiler.so.VERSION",
        "libnvidia-ptxjitcompiler.so.1",
        true,
    ),
    ("libnvidia-cfg.so.VERSION", "libnvidia-cfg.so.1", false),
    (
        "libnvidia-allocator.so.VERSION",
        "libnvidia-allocator.so.1",
        false,
    ),
    ("libnvidia-encode.so.VERSION", "libnvidia-encode.so.1", true),
    (
        "libnvidia-opticalflow.so.VERSION",
        "libnvidia-opticalflow.so.1",
        false,
    ),
    ("libnvcuvid.so.VERSION", "libnvcuvid.so.1", false),
    (
        "libnvidia-glcore.so.VERSION",
        "libnvidia-glcore.so.VERSION",
        false,
    ),
    (
        "libnvidia-vulkan-producer.so.VERSION",
        "libnvidia-vulkan-producer.so.VERSION",
        true,
    ),
    ("libGLX_nvidia.so.VERSION", "libGLX_nvidia.so.0", false),
    ("libEGL_nvidia.so.VERSION", "libEGL_nvidia.so.0", false),
    ("libnvidia-egl-gbm.so.1.1.2", "libnvidia-egl-gbm.so.1", false),
    (
        "libnvidia-egl-wayland.so.1.1.20",
        "libnvidia-egl-wayland.so.1",
        false,
    ),
    ("libnvidia-nvvm70.so.4", "libnvidia-nvvm70.so.4", false),
    ("vdpau/libvdpau_nvidia.so.VERSION", "libvdpau_nvidia.so.1", false),
    ("libcuda.so.0.1", "libcuda.so.1", false),
];

impl Fixture {
    /// The GPUs.
    pub(crate) fn inventory(&self) -> Inventory {
        let mut machine = Machine::new(Scenario::builtin(self.scenario).unwrap());
        machine.inventory().unwrap()
    }

    /// The files.
    pub(crate) fn root(&self) -> HostRoot {
        HostRoot::parse(&self.manifest(), self.name, &|_| None).unwrap()
    }

    fn manifest(&self) -> String {
        let inventory = self.inventory();
        let version = inventory.driver.version.value().unwrap();
        let within = |path: &str| {
            let driver_root = Path::new(self.driver_root);
            driver_root
                .join(path.trim_start_matches('/'))
                .display()
                .to_string()
        };
        let (mut files, mut links, mut modes) = (String::new(), String::new(), String::new());
        // What the machine puts there with no content is replaced.
        for (file, soname, for_builders) in LIBRARIES {
            let [file, soname] = [file, soname].map(|name| name.replace("VERSION", version));
            if file == "libcuda.so.0.1" && self.name != "ubuntu" {
                continue;
            }
            let path = format!("{}/{file}", self.libraries);
            let _ = writeln!(files, "  {path}: {}", quoted(&library(&soname)));
            if file.contains("0.1") && file.starts_with("libcuda") {
                continue;
            }
            let (dir, name) = path.rsplit_once('/').unwrap();
            if name != soname {
                let _ = writeln!(links, "  {dir}/{soname}: {name}");
            }
            if for_builders {
                let (link, _) = name.split_once(".so.").unwrap();
                let _ = writeln!(links, "  {dir}/{link}.so: {soname}");
            }
        }
        for file in self.files {
            let path = within(&file.replace("VERSION", version));
            let _ = writeln!(files, "  {path}: x");
            if file.contains("bin/") {
                let _ = writeln!(modes, "  {path}: '0755'");
            }
        }
        if self.cached {
            let names = [
                "libcuda.so.1",
                "libnvidia-ml.so.1",
                "libnvidia-cfg.so.1",
                "libEGL_nvidia.so.0",
            ];
            let others = ["libnvidia-allocator.so.1", "libnvidia-egl-gbm.so.1"];
            let cache = cache(self.libraries, names.iter().chain(&others));
            let _ = writeln!(files, "  {}: {}", within("/etc/ld.so.cache"), quoted(&cache));
        }
        for (link, target) in self.links {
            let _ = writeln!(links, "  {}: {target}", within(link));
        }
        let mut devices = String::new();
        if self.graphics {
            let address = inventory.gpus[0].pci.address;
            for (node, minor, by_path) in [("card1", 1, "card"), ("renderD128", 128, "render")] {
                let _ = writeln!(devices, "  /dev/dri/{node}: '226:{minor}'");
                let _ = writeln!(modes, "  /dev/dri/{node}: '0660'");
                let _ = writeln!(
                    files,
                    "  /sys/bus/pci/devices/{address}/drm/{node}/dev: '226:{minor}'"
                );
                let _ = writeln!(links, "  /dev/dri/by-path/pci-{address}-{by_path}: ../{node}");
            }
            // Of another card.
            devices.push_str("  /dev/dri/card0: '226:0'\n");
        }
        let devices = if devices.is_empty() {
            " {}\n".to_owned()
        } else {
            format!("\n{devices}")
        };
        let sockets: Vec<String> = self
            .sockets
            .iter()
            .map(|path| format!("'{}'", within(path)))
            .collect();
        let sockets = format!(" [{}]", sockets.join(", "));
        format!(
            "description: x\nscenario: {}\ndriver: {{libraries: {}}}\nfiles:\n{files}links:\n{links}modes:\n{modes}\
             devices:{devices}sockets:{sockets}\n",
            self.scenario, self.libraries
        )
    }
}

/// A text in YAML, whatever is in it.
fn quoted(text: &str) -> String {
    let one = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_string()
        } else {
            format!("\\x{:02x}", u32::from(c))
        }
    };
    format!("\"{}\"", text.chars().map(one).collect::<String>())
}

/// A library that has nothing but a name. All of its bytes are ASCII, since a manifest is text.
fn library(soname: &str) -> String {
    const STRINGS: u64 = 0x100;
    const DYNAMIC: u64 = 0x200;
    const SECTIONS: u64 = 0x300;
    const NAMES: u64 = 0x400;
    let names = "\0.dynstr\0.dynamic\0.shstrtab\0";
    let mut bytes = vec![0; 0x400 + names.len()];
    let mut put = |at: u64, length: usize, value: u64| {
        let at = usize::try_from(at).unwrap();
        bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
    };
    // Header: 64 bits, little endian, a shared object for x86-64.
    put(0, 8, 0x0001_0102_464c_457f);
    for (at, length, value) in [
        (16, 2, 3),
        (18, 2, 62),
        (20, 4, 1),
        (32, 8, 64),
        (40, 8, SECTIONS),
        (52, 2, 64),
        (54, 2, 56),
        (56, 2, 2),
        (58, 2, 64),
        (60, 2, 4),
        (62, 2, 3),
    ] {
        put(at, length, value);
    }
    // Segments: all of it, and the dynamic section.
    for (at, kind, offset, size) in [(64, 1, 0, 0x500), (120, 2, DYNAMIC, 48)] {
        for (field, length, value) in [
            (0, 4, kind),
            (8, 8, offset),
            (16, 8, offset),
            (32, 8, size),
            (40, 8, size),
        ] {
            put(at + field, length, value);
        }
    }
    for (at, (tag, value)) in [(5, STRINGS), (14, 1), (0, 0)].into_iter().enumerate() {
        put(DYNAMIC + 16 * at as u64, 8, tag);
        put(DYNAMIC + 16 * at as u64 + 8, 8, value);
    }
    // Sections: strings, the dynamic section, and the sections' names.
    let size = soname.len() as u64 + 2;
    for (at, (name, kind, offset, size, link)) in [
        (1, 3, STRINGS, size, 0),
        (9, 6, DYNAMIC, 48, 1),
        (18, 3, NAMES, names.len() as u64, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let section = SECTIONS + 64 * (at as u64 + 1);
        for (field, length, value) in [
            (0, 4, name),
            (4, 4, kind),
            (16, 8, offset),
            (24, 8, offset),
            (32, 8, size),
            (40, 4, link),
            (56, 8, if kind == 6 { 16 } else { 0 }),
        ] {
            put(section + field, length, value);
        }
    }
    bytes[0x101..0x101 + soname.len()].copy_from_slice(soname.as_bytes());
    bytes[0x400..].copy_from_slice(names.as_bytes());
    String::from_utf8(bytes).unwrap()
}

/// A loader's cache that knows these libraries of a directory; all of its bytes are ASCII.
fn cache<'a>(dir: &str, names: impl Iterator<Item = &'a &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let mut strings = Vec::new();
    let mut entries = Vec::new();
    let base = 48 + 24 * names.len();
    let mut add = |text: &str| {
        // A place whose number has no byte beyond ASCII.
        while (base + strings.len()) & 0x80 != 0 {
            strings.push(b'.');
        }
        let at = u32::try_from(base + strings.len()).unwrap();
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at
    };
    for name in names {
        for number in [0x0303, add(name), add(&format!("{dir}/{name}")), 0, 0, 0] {
            entries.extend_from_slice(&u32::to_le_bytes(number));
        }
    }
    while strings.len() & 0x80 != 0 {
        strings.push(b'.');
    }
    let mut bytes = b"glibc-ld.so.cache1.1".to_vec();
    bytes.extend_from_slice(&u32::try_from(entries.len() / 24).unwrap().to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(strings.len()).unwrap().to_le_bytes());
    bytes.resize(48, 0);
    bytes.extend(entries);
    bytes.extend(strings);
    String::from_utf8(bytes).unwrap()
}
