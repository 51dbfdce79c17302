//! Whether a container of containerd 1.7 can use a GPU that it gets as device nodes and mounts alone: no hook, no wrapper,
//! no loader's cache. Images of each layout, with the real loaders of glibc and musl.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use pitcrew_agent::runtime::mounts::{Answer, LOADER_DIRS, answer};
use pitcrew_cdi::Spec;
use pitcrew_cdi::generate::{Options, gpus};
use pitcrew_core::ports::InventorySource as _;
use pitcrew_host::{HostRoots, Roots};
use pitcrew_scenario::HostRoot;
use pitcrew_tests::{HaltedKubelet, Outcome, on_node, run, testbed};
use serde_json::json;
use tempfile::TempDir;

/// A node whose files lie in a directory, with libraries that do something.
struct Node {
    dir: TempDir,
    spec: Spec,
}

const VERSION: &str = "580.159.04";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

fn compile(compiler: &str, source: &str, arguments: &[&str], out: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/ring3_mounts")
        .join(source);
    let mut command = Command::new(compiler);
    command.args(["-O1", "-o"]).arg(out).arg(source).args(arguments);
    run(command, "").ok();
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let manifest = "description: x\nscenario: h100x8\nfiles: {/usr/bin/nvidia-smi: x}\nmodes: {/usr/bin/nvidia-smi: '0755'}\n\
                        links: {/lib: usr/lib}\nsockets: [/run/nvidia-persistenced/socket]\n";
        let root = HostRoot::parse(manifest, "ring 3", &|_| None).unwrap();
        let left_out = root.build(dir.path()).unwrap();
        assert!(left_out.is_empty(), "this user can't make {left_out:?}");
        // As the driver makes them.
        let mut open = Command::new("find");
        open.arg(dir.path().join("dev"));
        run_with(open, &["-type", "c", "-exec", "chmod", "666", "{}", "+"]).ok();
        let node = dir.path().join(LIBRARIES);
        cuda(&node, VERSION, 13000);
        fs::copy(
            pitcrew_tests::mock::library(),
            node.join(format!("libnvidia-ml.so.{VERSION}")),
        )
        .unwrap();
        let host = HostRoots::new(Roots {
            proc: dir.path().join("proc"),
            sys: dir.path().join("sys"),
            ..Roots::under("/")
        });
        let options = Options {
            driver_root: dir.path().to_owned(),
            dev_root: dir.path().to_owned(),
            ..Options::new("nvidia.com/gpu", "/not/there/nvidia-cdi-hook").unwrap()
        };
        let inventory = root.machine().unwrap().clone().inventory().unwrap();
        let spec = gpus(&inventory, &host, &options).unwrap().spec;
        Self { dir, spec }
    }

    fn answer(&self, devices: &[&str]) -> Answer {
        let answer = answer(&self.spec, devices).unwrap();
        assert_eq!(answer.missing(&HostRoots::new(Roots::under("/"))), [""; 0]);
        answer
    }
}

/// The parts of a driver that CUDA programs load, of one version.
fn cuda(dir: &Path, version: &str, says: u32) {
    let define = format!("-DVERSION={says}");
    let shared = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-ldl", &define];
    compile(
        "cc",
        "cuda.c",
        &shared,
        &dir.join(format!("libcuda.so.{version}")),
    );
    let shared = [
        "-shared",
        "-fPIC",
        "-Wl,-soname,libnvidia-ptxjitcompiler.so.1",
        "-DcuDriverGetVersion=compiler",
        "-ldl",
        &define,
    ];
    let compiler = dir.join(format!("libnvidia-ptxjitcompiler.so.{version}"));
    compile("cc", "cuda.c", &shared, &compiler);
}

/// The root of an image, laid out as a distribution does.
struct Image {
    dir: TempDir,
    name: String,
}

/// Debian's own loader, which knows its own directories.
const DEBIAN: &str = "/lib/x86_64-linux-gnu";
/// One built as upstream means it, and as RHEL, SUSE, Fedora and Arch build theirs: it knows `/lib64` and `/usr/lib64`.
const UPSTREAM: &str = "/usr/i686-linux-gnu/lib64";
const GLIBC: [&str; 4] = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"];

impl Image {
    /// An image with these links, and the program.
    fn new(name: &str, compiler: &str, links: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (link, target) in links {
            let link = dir.path().join(link);
            fs::create_dir_all(link.parent().unwrap().join(target)).unwrap();
            symlink(target, link).unwrap();
        }
        let name = format!("localhost/pitcrew-mounts-{name}:1");
        let image = Self { dir, name };
        compile(compiler, "probe.c", &["-ldl"], &image.path("probe"));
        image
    }

    fn path(&self, inside: &str) -> PathBuf {
        let path = self.dir.path().join(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// glibc in a directory, its loader where programs name it, and what Rust's libraries need.
    fn with_glibc(self, from: &str, into: &str) -> Self {
        for name in GLIBC {
            fs::copy(Path::new(from).join(name), self.path(&format!("{into}/{name}"))).unwrap();
        }
        let gcc = "libgcc_s.so.1";
        fs::copy(Path::new(DEBIAN).join(gcc), self.path(&format!("{into}/{gcc}"))).unwrap();
        let loader = "ld-linux-x86-64.so.2";
        let at = self.path(&format!("lib64/{loader}"));
        fs::copy(Path::new(from).join(loader), at).unwrap();
        self
    }

    /// Gives it to containerd.
    fn import(&self) {
        let made = tempfile::tempdir().unwrap();
        let layer = made.path().join("layer.tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&layer).arg("-C").arg(self.dir.path()).arg(".");
        run(tar, "").ok();
        let mut sum = Command::new("sha256sum");
        sum.arg(&layer);
        let sum = run(sum, "").ok();
        let digest = format!("sha256:{}", sum.split_whitespace().next().unwrap());
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/probe"]},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        });
        fs::write(made.path().join("config.json"), config.to_string()).unwrap();
        let manifest = json!([{"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"]}]);
        fs::write(made.path().join("manifest.json"), manifest.to_string()).unwrap();
        let archive = made.path().join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&archive).arg("-C").arg(made.path());
        run_with(tar, &["manifest.json", "config.json", "layer.tar"]).ok();
        let archive = archive.to_str().unwrap();
        on_node(
            &[
                "ctr",
                "--namespace",
                "k8s.io",
                "images",
                "import",
                "--local",
                archive,
            ],
            "",
        )
        .ok();
    }
}

fn run_with(mut command: Command, arguments: &[&str]) -> Outcome {
    command.args(arguments);
    run(command, "")
}

/// Runs the image's program with what the kubelet would pass on of the answer.
fn probe(image: &Image, answer: &Answer, more: &str) -> Outcome {
    use std::fmt::Write as _;
    let mut line = format!(
        "exec crirun --socket $CONTAINERD_ADDRESS --cgroup-parent /pitcrew-testbed --image {} {more}",
        image.name
    );
    for node in &answer.devices {
        let _ = write!(
            line,
            " --device {}:{}:{}",
            node.host, node.container, node.permissions
        );
    }
    for mount in &answer.mounts {
        let ro = if mount.read_only { ":ro" } else { "" };
        let _ = write!(line, " --mount {}:{}{ro}", mount.host, mount.container);
    }
    for (name, value) in &answer.env {
        let _ = write!(line, " --env {name}={value}");
    }
    let line = format!("{line} --env PITCREW_SCENARIO=h100x8 -- /probe");
    on_node(&["sh", "-c", &line], "")
}

fn lines(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(": ")).collect()
}

#[track_caller]
fn works(image: &Image, answer: &Answer, more: &str) {
    let seen = probe(image, answer, more);
    let text = seen.ok();
    let seen = lines(&text);
    let name = &image.name;
    assert_eq!(
        seen.get("libcuda.so.1"),
        Some(&"cuDriverGetVersion says 13000"),
        "{name}: {text}"
    );
    assert_eq!(
        seen.get("libcuda.so"),
        Some(&"cuDriverGetVersion says 13000"),
        "{name}: {text}"
    );
    assert_eq!(
        seen.get("libnvidia-ml.so.1"),
        Some(&"nvmlDeviceGetCount_v2 says 8"),
        "{name}: {text}"
    );
    let is_own = |key: &&&str| key.starts_with("/dev/nvidia");
    let nodes: Vec<&str> = seen.keys().filter(is_own).copied().collect();
    assert!(nodes.iter().all(|node| seen[node] == "allowed"), "{name}: {text}");
    // A container whose root can be written to may make a node, and not use it.
    if let Some(other) = seen.get("/dev/other") {
        assert_eq!(*other, "Operation not permitted", "{name}: {text}");
    }
    let promised: Vec<&str> = answer
        .devices
        .iter()
        .map(|node| node.container.as_str())
        .collect();
    assert_eq!(nodes, promised, "{name}");
}

fn images() -> Vec<Image> {
    let merged = [("lib", "usr/lib"), ("lib64", "usr/lib64")];
    let debian = Image::new("debian", "cc", &merged).with_glibc(DEBIAN, LIBRARIES);
    // As images have it: what is mounted is in no cache, and other things are.
    fs::create_dir_all(debian.path("etc/x").parent().unwrap()).unwrap();
    fs::write(debian.path("etc/ld.so.conf"), "/usr/lib/x86_64-linux-gnu\n").unwrap();
    let mut ldconfig = Command::new("/sbin/ldconfig");
    ldconfig.arg("-r").arg(debian.dir.path());
    run(ldconfig, "").ok();

    // An image that has brought a library of a driver of its own, or a stub of one.
    let brought = Image::new("brought", "cc", &merged).with_glibc(DEBIAN, LIBRARIES);
    cuda(&brought.dir.path().join(LIBRARIES), "470.1", 11000);
    symlink(
        "libcuda.so.470.1",
        brought.path(&format!("{LIBRARIES}/libcuda.so.1")),
    )
    .unwrap();

    let old_debian = Image::new("debian-unmerged", "cc", &[]).with_glibc(DEBIAN, "lib/x86_64-linux-gnu");
    let rhel = Image::new("rhel", "cc", &merged).with_glibc(UPSTREAM, "usr/lib64");
    let sles = Image::new("sles", "cc", &[]).with_glibc(UPSTREAM, "lib64");
    let arch = [("lib", "usr/lib"), ("lib64", "usr/lib"), ("usr/lib64", "lib")];
    let arch = Image::new("arch", "cc", &arch).with_glibc(UPSTREAM, "usr/lib");
    vec![debian, brought, old_debian, rhel, sles, arch]
}

fn tier_holds(containerd: &str) {
    let version = on_node(
        &["sh", "-c", "ctr version | sed -n '/Server/,$s/ *Version: *//p'"],
        "",
    )
    .ok();
    assert!(version.trim().starts_with(containerd), "{version}");
    let _halted = HaltedKubelet::new();
    let node = Node::new();
    let one = node.answer(&["0"]);
    assert_eq!(
        one.mounts
            .iter()
            .filter(|mount| mount.container.ends_with("/libcuda.so.1"))
            .count(),
        LOADER_DIRS.len()
    );
    for image in images() {
        image.import();
        works(&image, &one, "");
        works(&image, &one, "--read-only --user 65534");
        works(&image, &node.answer(&["0", "5"]), "--read-only");
        // Nothing is there without being asked for.
        let nothing = probe(&image, &Answer::default(), "").ok();
        assert!(!nothing.contains("/dev/nvidia"), "{}: {nothing}", image.name);
    }
    a_replaced_driver_is_found_by_the_old_answer(&node, &one);
    musl_finds_the_nodes_and_no_library(&one);
    containerd_makes_directories_of_what_is_not_there(&node);
}

/// The kubelet keeps the answer for as long as the pod lives.
fn a_replaced_driver_is_found_by_the_old_answer(node: &Node, answer: &Answer) {
    let image = Image::new("replaced", "cc", &[]).with_glibc(UPSTREAM, "lib64");
    image.import();
    let dir = node.dir.path().join(LIBRARIES);
    cuda(&dir, "595.1", 13020);
    for name in ["libcuda", "libnvidia-ptxjitcompiler"] {
        fs::remove_file(dir.join(format!("{name}.so.{VERSION}"))).unwrap();
        fs::remove_file(dir.join(format!("{name}.so.1"))).unwrap();
        symlink(format!("{name}.so.595.1"), dir.join(format!("{name}.so.1"))).unwrap();
    }
    let text = probe(&image, answer, "").ok();
    assert_eq!(
        lines(&text).get("libcuda.so.1"),
        Some(&"cuDriverGetVersion says 13020"),
        "{text}"
    );
}

/// NVIDIA's libraries are glibc's; that they are where musl looks too would not help.
fn musl_finds_the_nodes_and_no_library(answer: &Answer) {
    let image = Image::new("musl", "musl-gcc", &[]);
    fs::copy(
        "/lib/x86_64-linux-musl/libc.so",
        image.path("lib/ld-musl-x86_64.so.1"),
    )
    .unwrap();
    image.import();
    let text = probe(&image, answer, "").ok();
    let seen = lines(&text);
    assert!(seen.contains_key("/dev/nvidia0"), "{text}");
    assert!(seen["libcuda.so.1"].starts_with("not loaded"), "{text}");
    let mut more = answer.clone();
    for mount in &answer.mounts {
        if let Some(name) = mount.container.strip_prefix("/usr/lib64/") {
            let mut also = mount.clone();
            also.container = format!("/usr/lib/{name}");
            more.mounts.push(also);
        }
    }
    let text = probe(&image, &more, "").ok();
    let why = lines(&text)["libnvidia-ml.so.1"].to_owned();
    assert!(
        why.contains("not loaded") && why.contains("libgcc_s.so.1"),
        "{text}"
    );
}

/// Why [`Answer::missing`] must be asked.
fn containerd_makes_directories_of_what_is_not_there(node: &Node) {
    let image = Image::new("missing", "cc", &[]).with_glibc(UPSTREAM, "lib64");
    image.import();
    let gone = node.dir.path().join("gone/libx.so.1");
    let mut answer = Answer::default();
    answer.mounts.push(pitcrew_agent::runtime::mounts::BindMount {
        container: "/usr/lib64/libx.so.1".to_owned(),
        host: gone.to_str().unwrap().to_owned(),
        read_only: true,
    });
    probe(&image, &answer, "").ok();
    assert!(gone.is_dir());
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn device_nodes_and_mounts_are_enough_on_containerd_1_7() {
    testbed(&["down"]).ok();
    testbed(&["up", "--containerd", "1.7"]).ok();
    let result = std::panic::catch_unwind(|| tier_holds("v1.7."));
    // The next test expects the bed as it was.
    testbed(&["down"]).ok();
    testbed(&["up"]).ok();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Where CDI is switched off.
#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn device_nodes_and_mounts_are_enough_on_containerd_2() {
    testbed(&["up"]).ok();
    tier_holds("v2.");
}
