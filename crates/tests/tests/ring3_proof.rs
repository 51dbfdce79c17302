//! `pitcrew prove` in containers that were given less than they need, as far as a container is a root of its own: read-only,
//! as nobody, with the C library and what was injected. What a driver's library answers is known, as it is a fake one.
#![allow(clippy::unwrap_used, reason = "tests, and what they share")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pitcrew_tests::{Outcome, pitcrew, run};
use tempfile::TempDir;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Mounts what a runtime mounts, and becomes the program: ROOT, PROGRAM, LOG, ARGUMENT...
const CONTAIN: &str = r#"
root=$1 program=$2 log=$3; shift 3
mount --bind "$root" "$root" && mount --bind "$program" "$root/usr/bin/pitcrew" &&
    mount --bind "$log" "$root/dev/termination-log" && mount -t proc proc "$root/proc" &&
    mount -o remount,bind,ro "$root" || exit 99
exec env -i PATH=/usr/bin:/usr/sbin chroot --userspec=65532:65532 --groups= "$root" /usr/bin/pitcrew "$@"
"#;

/// The root of a container.
struct Root {
    dir: TempDir,
    log: PathBuf,
}

/// How a proof in it ended.
struct Ended {
    outcome: Outcome,
    message: String,
}

impl Root {
    /// With the C library as the program needs it, and nothing else.
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("root");
        for name in ["dev", "proc", "usr/bin", "lib64", LIBRARIES] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["usr/bin/pitcrew", "dev/termination-log"] {
            fs::write(root.join(name), "").unwrap();
        }
        let mut ldd = Command::new("ldd");
        ldd.arg(pitcrew());
        for word in run(ldd, "").ok().split_whitespace() {
            if let Some(name) = word.strip_prefix("/lib64/") {
                fs::copy(word, root.join("lib64").join(name)).unwrap();
            } else if let Some(name) = Path::new(word).file_name().filter(|_| word.starts_with('/')) {
                fs::copy(word, root.join(LIBRARIES).join(name)).unwrap();
            }
        }
        let log = dir.path().join("log");
        fs::write(&log, "").unwrap();
        // As the kubelet does, for containers whose user is nobody.
        run_ok("chmod", &["0666".as_ref(), log.as_os_str()]);
        run_ok("chmod", &["0755".as_ref(), dir.path().as_os_str()]);
        Self { dir, log }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    /// Injects device files: their names alone are looked at.
    fn with_device_files(self) -> Self {
        for name in ["nvidia0", "nvidiactl", "nvidia-uvm"] {
            fs::write(self.path("dev").join(name), "").unwrap();
        }
        self
    }

    /// Injects the driver's library, compiled with these words.
    fn with_library(self, words: &[&str]) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../prove/tests/fake_driver/cuda.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-w", "-o"])
            .arg(self.path(LIBRARIES).join("libcuda.so.1"))
            .arg(source)
            .args(words);
        run(cc, "").ok();
        self
    }

    /// Runs a proof, which must end in time.
    #[track_caller]
    fn prove(&self) -> Ended {
        let mut contained = Command::new("unshare");
        contained
            .args(["--mount", "sh", "-c", CONTAIN, "sh"])
            .arg(self.path(""))
            .arg(pitcrew())
            .arg(&self.log)
            .args([
                "prove",
                "--profile=smoke",
                "--termination-log=/dev/termination-log",
            ]);
        let begin = Instant::now();
        let outcome = run(contained, "");
        assert!(begin.elapsed() < Duration::from_secs(10), "{outcome:#?}");
        Ended {
            outcome,
            message: fs::read_to_string(&self.log).unwrap(),
        }
    }
}

impl Ended {
    /// It could not be tested, and that is said once, with the reason and the next step, on the terminal and to the kubelet.
    #[track_caller]
    fn refused(&self, reason: &str, fix: &str) {
        let Self { outcome, message } = self;
        assert_eq!(outcome.code, Some(40), "{outcome:#?}");
        assert_eq!(outcome.stderr, "", "{outcome:#?}");
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.len(), 3, "verdict, reason and next step: {message}");
        let (verdict, why, next) = (lines[0], lines[1], lines[2]);
        assert!(verdict.starts_with("ERROR_SETUP "), "{message}");
        assert!(
            why.starts_with("ERROR_SETUP ") && why.contains(reason),
            "{message}"
        );
        assert!(next.starts_with("do: ") && next.contains(fix), "{message}");
        let shown: Vec<&str> = outcome.stdout.split_whitespace().collect();
        let shown = shown.join(" ");
        for line in [why, next] {
            let text = line.split_once(' ').unwrap().1;
            assert_eq!(shown.matches(text).count(), 1, "{text} in {}", outcome.stdout);
        }
    }
}

fn run_ok(program: &str, words: &[&std::ffi::OsStr]) {
    let mut command = Command::new(program);
    command.args(words);
    run(command, "").ok();
}

#[test]
#[ignore = "needs root: cargo xtask test --ring 3"]
fn where_nothing_was_injected_a_gpu_is_to_be_asked_for() {
    Root::new()
        .prove()
        .refused("no GPU was given to this container", "request `nvidia.com/gpu`");
}

#[test]
#[ignore = "needs root: cargo xtask test --ring 3"]
fn device_files_without_a_library_tell_of_the_driver_capabilities() {
    let root = Root::new().with_device_files();
    root.prove().refused(
        "device files are here but `libcuda.so.1` is not",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    );
}

#[test]
#[ignore = "needs root: cargo xtask test --ring 3"]
fn a_library_without_device_files_tells_of_the_devices() {
    let root = Root::new().with_library(&["-DCU_INIT=100"]);
    root.prove()
        .refused("no `/dev/nvidia*` is", "request `nvidia.com/gpu`");
}

#[test]
#[ignore = "needs root: cargo xtask test --ring 3"]
fn an_image_that_lacks_what_the_library_needs_is_named_in_the_words_of_the_loader() {
    // As in an image with musl, whose C library is one file under another name.
    let needs = ["-Wl,--no-as-needed", "-l:libdl.so.2"];
    let root = Root::new().with_device_files().with_library(&needs);
    root.prove()
        .refused("libdl.so.2: cannot open", "use an image with glibc");
}

#[test]
#[ignore = "needs root: cargo xtask test --ring 3"]
fn a_library_that_was_emptied_or_is_another_program_is_not_taken_for_the_driver() {
    let root = Root::new().with_device_files();
    fs::write(root.path(LIBRARIES).join("libcuda.so.1"), "").unwrap();
    root.prove().refused("file too short", "use an image with glibc");
    fs::copy(
        root.path(LIBRARIES).join("libm.so.6"),
        root.path(LIBRARIES).join("libcuda.so.1"),
    )
    .unwrap();
    root.prove()
        .refused("is not the driver's library: it has no `cuInit`", "remove it");
}

#[test]
#[ignore = "needs root: cargo xtask test --ring 3"]
fn a_container_whose_device_cgroup_forbids_the_gpu_is_told_so() {
    let root = Root::new().with_device_files().with_library(&["-DCU_INIT=800"]);
    root.prove()
        .refused("may not be used here (800)", "device cgroup");
}
