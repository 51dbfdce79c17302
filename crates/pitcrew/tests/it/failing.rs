//! `pitcrew prove` with a driver that fails or hangs: the right exit code, one line and what to do, within ten seconds.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::driver::{library, machine};
use crate::program::pitcrew;

/// Whoever waits for a proof waits no longer to hear of it.
const LIMIT: Duration = Duration::from_secs(10);

/// A machine with a driver that does what the macros say: the library of the tests of `pitcrew-prove`.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new(macros: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        for name in ["nvidia0", "nvidiactl", "nvidia-uvm"] {
            std::fs::write(dir.path().join("dev").join(name), "").unwrap();
        }
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-w", "-o"])
            .arg(dir.path().join("libcuda.so.1"))
            .args(macros.iter().map(|name| format!("-D{name}")))
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../prove/tests/fake_driver/cuda.c"
            ));
        assert!(cc.status().unwrap().success(), "cc failed");
        Self { dir }
    }

    /// With the management library of the tests of `pitcrew-nvml`.
    fn managed(macros: &[&str], management: &[&str]) -> Self {
        let all: Vec<&str> = ["CU_NVML"].into_iter().chain(macros.iter().copied()).collect();
        let bed = Self::new(&all);
        machine(bed.dir.path());
        library(bed.dir.path(), management);
        bed
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn start(&self) -> Running {
        let mut command = pitcrew(&["prove", "-o", "json", "--profile=smoke", "--share"]);
        command
            .env("PITCREW_ROOT", self.path())
            .env("LD_LIBRARY_PATH", self.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let management = self.path().join("libnvidia-ml.so.1");
        if management.exists() {
            command.env("PITCREW_NVML", management);
        }
        Running {
            start: Instant::now(),
            child: command.spawn().unwrap(),
        }
    }

    /// Exit code, report, and how long it took.
    fn proof(&self) -> Proof {
        self.start().end()
    }
}

struct Running {
    start: Instant,
    child: Child,
}

impl Running {
    fn end(mut self) -> Proof {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code();
        Proof {
            took: self.start.elapsed(),
            code: code.unwrap(),
            report: serde_json::from_str(&text).unwrap(),
        }
    }
}

struct Proof {
    took: Duration,
    code: i32,
    report: Value,
}

impl Proof {
    /// The one reason for which nothing more could be had of the GPU or the driver.
    fn error(&self) -> &Value {
        let whole = &self.report["evidence"]["setup_error"];
        if whole.is_object() {
            return whole;
        }
        &self.report["evidence"]["devices"][0]["setup_error"]
    }

    /// Fails unless it ended in time, with this exit code, and with these words in one line.
    fn assert(&self, exit: i32, code: &str, words: &str) {
        let error = self.error();
        assert_eq!(self.code, exit, "{:#}", self.report["judgement"]["reasons"]);
        assert_eq!(error["code"], code, "{error:#}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(error["fix"].is_string(), "{error:#}");
        assert!(self.took < LIMIT, "{words}: {:?}", self.took);
    }
}

#[test]
fn a_driver_that_does_not_start_is_explained_by_its_code() {
    for (macros, code, words) in [
        ("CU_INIT=35", "driver-too-old", "the driver is too old"),
        ("CU_INIT=100", "no-device", "the driver finds no GPU (100)"),
        ("CU_INIT=101", "no-device", "101"),
        ("CU_INIT=222", "driver-too-old", "the driver is too old"),
        ("CU_INIT=800", "not-permitted", "may not be used here (800)"),
        (
            "CU_INIT=802",
            "fabric-not-ready",
            "the NVLink fabric is not up (802)",
        ),
        ("CU_INIT=803", "driver-mismatch", "of different versions (803)"),
        ("CU_INIT=804", "driver-mismatch", "does not allow it (804)"),
        ("CU_INIT=999", "other", "`cuInit` failed with 999"),
        ("CU_VERSION=7050", "driver-too-old", "of CUDA 7.5"),
        ("CU_RETAIN=2", "out-of-memory", "no memory left for a context (2)"),
        ("CU_RETAIN=46", "in-use", "in exclusive mode (46)"),
    ] {
        Bed::new(&[macros]).proof().assert(40, code, words);
    }
}

#[test]
fn kernels_that_the_driver_takes_none_of_are_no_test_of_the_gpu() {
    let bed = Bed::new(&["CU_CUBIN=209", "CU_PTX=222"]);
    bed.proof()
        .assert(40, "no-kernel", "the PTX is newer than the driver");
}

#[test]
fn mig_without_an_instance_is_told_from_no_gpu() {
    let bed = Bed::managed(&["CU_INIT=100"], &["MIG_EMPTY"]);
    bed.proof()
        .assert(40, "no-mig-instance", "MIG is on and there is no instance");
}

#[test]
fn a_driver_that_never_starts_is_given_up() {
    Bed::new(&["CU_HANGS_IN=INIT"])
        .proof()
        .assert(21, "hang", "it did not start");
}

#[test]
fn a_context_that_never_comes_is_given_up() {
    let proof = Bed::new(&["CU_HANGS_IN=RETAIN"]).proof();
    proof.assert(21, "hang", "a call into the driver does not return");
}

#[test]
fn a_management_library_that_hangs_leaves_a_proof_without_it() {
    let proof = Bed::managed(&["CU_INIT=802"], &["HANGS"]).proof();
    proof.assert(40, "fabric-not-ready", "the NVLink fabric is not up (802)");
}

#[test]
fn a_kernel_that_never_ends_is_a_hang_and_the_work_is_named() {
    // 600 is `not ready`.
    let proof = Bed::new(&["CU_AFTER=20", "CU_QUERY=600"]).proof();
    proof.assert(21, "hang", "did not end within 7 s");
}

#[test]
fn a_call_that_never_returns_in_the_middle_is_a_hang_too() {
    let proof = Bed::new(&["CU_AFTER=20", "CU_HANGS_IN=QUERY"]).proof();
    proof.assert(21, "hang", "a call into the driver does not return");
}

#[test]
fn a_gpu_that_falls_off_the_bus_in_the_middle_fails_at_once() {
    for code in [719, 999] {
        let query = format!("CU_QUERY={code}");
        let proof = Bed::new(&["CU_AFTER=200", &query]).proof();
        proof.assert(21, "gpu-lost", &format!("({code})"));
        assert!(proof.took < Duration::from_secs(5), "{:?}", proof.took);
    }
}

#[test]
fn the_driver_says_itself_that_a_gpu_has_fallen_off_the_bus() {
    // The management library tells XID 79 of GPU 0, while CUDA goes on as if nothing were the matter.
    let proof = Bed::managed(&[], &[]).proof();
    proof.assert(21, "gpu-lost", "fallen off the bus");
    assert!(
        proof.error()["message"].as_str().unwrap().contains("XID was"),
        "{}",
        proof.error()
    );
}

#[test]
fn a_signal_ends_a_proof_at_any_moment_with_a_report() {
    for (macros, after) in [
        (&["CU_HANGS_IN=INIT"][..], Duration::from_millis(500)),
        (&["CU_HANGS_IN=RETAIN"][..], Duration::from_millis(1500)),
        (&[][..], Duration::from_millis(2500)),
    ] {
        let bed = Bed::new(macros);
        let running = bed.start();
        std::thread::sleep(after);
        let pid = rustix::process::Pid::from_child(&running.child);
        let stopped = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let proof = running.end();
        // A second and a half on a machine that does much else; the report comes first.
        assert!(
            stopped.elapsed() < Duration::from_millis(2500),
            "{macros:?}: {:?}",
            stopped.elapsed()
        );
        assert_eq!(proof.code, 50, "{macros:?}: {:#}", proof.report["judgement"]);
        assert_eq!(proof.report["verdict"], "INTERRUPTED", "{macros:?}");
    }
}
