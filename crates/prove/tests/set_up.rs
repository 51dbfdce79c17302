//! What is said where CUDA can't be used, by a driver's library that fails as it is told to.
#![expect(clippy::unwrap_used, reason = "what is made for a test must be there")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pitcrew_prove::cuda::{Gpu, Library, SetupError};
use pitcrew_prove::device::{Device as _, DeviceError, Format, Variant, Work};
use pitcrew_prove::kernels::variants;

struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    /// With a device file, unless `bare`.
    fn new(bare: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        if !bare {
            for name in ["nvidia0", "nvidiactl", "nvidia-uvm"] {
                std::fs::write(dir.path().join("dev").join(name), "").unwrap();
            }
        }
        Self { dir }
    }

    /// A library that does what the macros say.
    fn library(&self, macros: &[&str]) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_driver/cuda.c");
        let to = self.dir.path().join("libcuda.so.1");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-w"])
            .args(macros)
            .arg(source)
            .arg("-o")
            .arg(&to);
        assert!(cc.status().unwrap().success());
        to
    }

    fn open(&self, file: &Path) -> Result<Library, SetupError> {
        Library::open(Some(file), &self.dir.path().join("dev"))
    }

    fn gpu(&self, macros: &[&str]) -> Result<Gpu, SetupError> {
        let library = Arc::new(self.open(&self.library(macros))?);
        Gpu::open(&library, 0)
    }
}

#[test]
fn without_library_it_is_said_what_was_not_injected() {
    for (bare, code) in [(true, "nothing-injected"), (false, "no-library")] {
        let bed = Bed::new(bare);
        let error = bed.open(&bed.dir.path().join("libcuda.so.1")).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[test]
fn another_library_of_that_name_is_told_by_what_it_lacks() {
    let bed = Bed::new(false);
    let file = bed.dir.path().join("libcuda.so.1");
    let source = bed.dir.path().join("stub.c");
    std::fs::write(&source, "int cuInit(unsigned flags) { return 34; }").unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC"]).arg(&source).arg("-o").arg(&file);
    assert!(cc.status().unwrap().success());
    let error = bed.open(&file).unwrap_err();
    assert!(
        matches!(&error, SetupError::NotCuda { symbol, .. } if *symbol == "cuDriverGetVersion"),
        "{error}"
    );
    // No library at all: the loader's own words.
    std::fs::write(&file, "not ELF").unwrap();
    let error = bed.open(&file).unwrap_err();
    assert!(
        matches!(&error, SetupError::NoLibrary(why) if why.contains("libcuda.so.1")),
        "{error}"
    );
}

#[test]
fn a_start_that_fails_is_explained_by_its_code() {
    for (macros, code) in [
        ("-DCU_INIT=100", "no-device"),
        ("-DCU_INIT=101", "no-such-device"),
        ("-DCU_INIT=800", "not-permitted"),
        ("-DCU_INIT=802", "fabric-not-ready"),
        ("-DCU_INIT=803", "version-mismatch"),
        ("-DCU_INIT=804", "compat-refused"),
        ("-DCU_INIT=999", "failed"),
        ("-DCU_COUNT=0", "no-device"),
        ("-DCU_VERSION=7050", "driver-too-old"),
    ] {
        let bed = Bed::new(false);
        let error = bed.open(&bed.library(&[macros])).unwrap_err();
        assert_eq!(error.code(), code, "{macros}: {error}");
    }
}

#[test]
fn a_library_without_device_files_is_told_apart() {
    let bed = Bed::new(true);
    let error = bed.open(&bed.library(&["-DCU_INIT=100"])).unwrap_err();
    assert_eq!(error, SetupError::NoDeviceFiles);
}

#[test]
fn no_context_for_want_of_memory_or_in_exclusive_mode() {
    for (macros, code) in [("-DCU_RETAIN=2", "no-memory"), ("-DCU_RETAIN=46", "in-use")] {
        let error = Bed::new(false).gpu(&[macros]).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[test]
fn facts_are_read_and_a_mig_instance_has_its_own_uuid() {
    let gpu = Bed::new(false).gpu(&[]).unwrap();
    let facts = gpu.facts();
    assert_eq!(facts.name, "NVIDIA Fake");
    assert_eq!(facts.uuid, "GPU-11111111-1111-1111-1111-111111111111");
    assert_eq!(facts.pci.unwrap().to_string(), "0000:3b:00.0");
    assert_eq!((facts.sms, facts.sm_clock_mhz), (4, 1980));
    assert_eq!(facts.cuda.to_string(), "12.4");
    let slice = Bed::new(false).gpu(&["-DCU_MIG"]).unwrap();
    assert_eq!(slice.facts().uuid, "MIG-22222222-2222-2222-2222-222222222222");
}

#[test]
fn a_variant_that_no_image_is_taken_for_says_why_each_was_refused() {
    let bed = Bed::new(false);
    let refused = |macros: &[&str]| {
        let gpu = bed.gpu(macros).unwrap();
        gpu.choice(Variant::M16n8k16, Format::Bf16).unwrap_err().reason
    };
    let reason = refused(&["-DCU_CUBIN=209", "-DCU_PTX=221"]);
    assert!(reason.contains("`cubin/m16n8k16.sm_80.cubin`"), "{reason}");
    assert!(reason.contains("libnvidia-ptxjitcompiler.so.1"), "{reason}");
    let reason = Bed::new(false)
        .gpu(&["-DCU_CUBIN=200", "-DCU_PTX=218"])
        .unwrap()
        .choice(Variant::M16n8k16, Format::Bf16)
        .unwrap_err()
        .reason;
    assert!(reason.contains("it said why"), "{reason}");
    // By a driver that is too old for its PTX, the machine code alone is tried.
    let reason = Bed::new(false)
        .gpu(&["-DCU_CUBIN=209", "-DCU_VERSION=12000"])
        .unwrap()
        .choice(Variant::Fp8Mma, Format::Fp8)
        .unwrap_err()
        .reason;
    assert!(!reason.contains("ptx/"), "{reason}");
}

#[test]
fn without_a_compiler_the_first_kernel_is_told_of_it_as_the_others_are() {
    let gpu = Bed::new(false)
        .gpu(&["-DCU_CUBIN=209", "-DCU_FIRST_PTX=999", "-DCU_PTX=221"])
        .unwrap();
    let reason = gpu.choice(Variant::Simt, Format::Fp32).unwrap_err().reason;
    assert!(
        reason.contains("`libnvidia-ptxjitcompiler.so.1` is not here"),
        "{reason}"
    );
}

#[test]
fn wrong_answers_of_the_self_test_refuse_a_variant() {
    // This driver computes nothing: all zeros are not what must come out.
    let gpu = Bed::new(false).gpu(&[]).unwrap();
    let choices = gpu.choices(Format::Bf16, variants(Format::Bf16));
    assert!(choices.usable.is_empty());
    assert!(
        choices
            .refused
            .iter()
            .any(|refused| refused.reason.contains("self-test failed")),
        "{choices:?}"
    );
    assert!(
        choices
            .refused
            .iter()
            .any(|refused| refused.variant == Variant::Wgmma && refused.reason.contains("9.0 alone")),
        "{choices:?}"
    );
}

/// A GPU of compute capability 10.0.
const BLACKWELL: [&str; 4] = [
    "-DCU_MAJOR=10",
    "-DCU_MINOR=0",
    "-DCU_SHARED=232448",
    "-DCU_VERSION=12080",
];

#[test]
fn untested_kernels_that_are_wrong_give_way_to_the_next() {
    // A driver that is too old for the PTX has the machine code.
    let gpu = Bed::new(false).gpu(&BLACKWELL).unwrap();
    let choices = gpu.choices(Format::Int8, variants(Format::Int8));
    let refused: Vec<_> = choices.refused.iter().map(|refused| refused.variant).collect();
    assert_eq!(refused[..2], [Variant::Tcgen05, Variant::Wgmma], "{choices:?}");
    let reason = &choices.refused[0].reason;
    assert!(reason.contains("self-test failed"), "{reason}");
    assert!(choices.refused[0].was_wrong);
    // Nothing is lost by it: the next was tried.
    assert!(
        choices
            .refused
            .iter()
            .any(|refused| refused.variant == Variant::M16n8k16 && refused.was_wrong)
    );
    assert!(gpu.free_memory().is_ok());
}

#[test]
fn untested_kernels_that_stop_the_context_are_blamed_for_it() {
    // 715 is an illegal instruction.
    let macros: Vec<&str> = BLACKWELL.into_iter().chain(["-DCU_QUERY=715"]).collect();
    let gpu = Bed::new(false).gpu(&macros).unwrap();
    let choices = gpu.choices(Format::Bf16, variants(Format::Bf16));
    assert!(choices.usable.is_empty());
    assert_eq!(choices.refused[0].variant, Variant::Tcgen05);
    let error = gpu.run(&[Work::Spin { nanoseconds: 1 }]).unwrap_err();
    assert!(
        matches!(error, DeviceError::Untested(Variant::Tcgen05)),
        "{error}"
    );
    assert!(error.to_string().contains("had run on no GPU before"), "{error}");
}

#[test]
fn memory_that_is_not_there_is_told_in_bytes() {
    let gpu = Bed::new(false).gpu(&["-DCU_ALLOC=2"]).unwrap();
    let error = gpu.allocate(123_456).unwrap_err();
    assert_eq!(
        error,
        DeviceError::OutOfMemory {
            wanted: 123_456,
            of: "the GPU"
        }
    );
}

#[test]
fn spans_that_lie_in_no_block_are_refused() {
    let gpu = Bed::new(false).gpu(&[]).unwrap();
    let block = gpu.allocate(4096).unwrap();
    for span in [block.part(4096, 1), block.part(u64::MAX, 2), block.part(0, 4097)] {
        let work = Work::Copy { from: span, to: span };
        assert!(matches!(gpu.run(&[work]), Err(DeviceError::Unsupported(_))));
    }
    assert!(gpu.read(block.part(4090, 6), &mut [0; 6]).is_ok());
    assert!(gpu.read(block.part(4090, 6), &mut [0; 7]).is_err());
    let host = gpu.allocate_host(100).unwrap();
    assert!(gpu.write_host(host, 99, &[1]).is_ok());
    assert!(gpu.write_host(host, 99, &[1, 2]).is_err());
    gpu.release_host(host).unwrap();
    assert!(gpu.write_host(host, 0, &[1]).is_err());
}

#[test]
fn work_that_never_ends_is_given_up() {
    // 600 is `not ready`.
    let mut gpu = Bed::new(false).gpu(&["-DCU_QUERY=600"]).unwrap();
    gpu.set_patience(Duration::from_millis(200));
    let since = Instant::now();
    let error = gpu.run(&[Work::Spin { nanoseconds: 1 }]).unwrap_err();
    assert!(matches!(error, DeviceError::Hang { work: "spin", .. }), "{error}");
    assert!(since.elapsed() < Duration::from_secs(5));
    // Nothing more is asked of it.
    assert_eq!(gpu.free_memory(), Err(error));
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_lost_and_a_kernel_that_faults_is_stopped() {
    for (macros, lost) in [
        ("-DCU_QUERY=999", true),
        ("-DCU_LAUNCH=999", true),
        ("-DCU_QUERY=700", false),
        ("-DCU_QUERY=214", false),
        ("-DCU_QUERY=719", false),
    ] {
        let gpu = Bed::new(false).gpu(&[macros]).unwrap();
        let error = gpu.run(&[Work::Spin { nanoseconds: 1 }]).unwrap_err();
        assert_eq!(matches!(error, DeviceError::Lost(_)), lost, "{macros}: {error}");
        assert_eq!(matches!(error, DeviceError::Stopped { work: "spin", .. }), !lost);
        assert!(error.to_string().contains("CUDA_ERROR_TOLD"), "{error}");
        assert!(gpu.run(&[]).is_err(), "{macros}");
    }
}
